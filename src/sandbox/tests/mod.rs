//! End-to-end tests of the sandbox with real sockets and TLS. They use none of the gateway's code.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{APP_CLIENT_ID, Connection, Delivery, Endpoint, Sandbox, SandboxSettings, TENANT_B};

mod certificate;
mod client;
mod client_access;
mod config;
mod delivery;
mod entra;
mod faults;
mod federated;
mod groups;
mod identity;
mod misbehaving_clients;
mod page;
mod provider;
mod rest;
mod stateful_reconnect;

/// A response.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// A failed request.
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// A request to a server of the sandbox on a new connection.
struct Call {
    sandbox_ca: String,
    url: String,
    request: http::request::Builder,
    body: Bytes,
}

async fn start() -> Sandbox {
    Sandbox::start(SandboxSettings::default()).await.unwrap()
}

fn east(sandbox: &Sandbox) -> &Endpoint {
    sandbox.endpoint("east").unwrap()
}

/// Returns a call of `target` (path and query) at the server with this origin.
fn call(sandbox: &Sandbox, method: Method, origin: &str, target: &str) -> Call {
    let authority = origin.split_once("://").unwrap().1;
    let request = Request::builder().method(method).uri(target).header(HOST, authority);
    Call { sandbox_ca: sandbox.ca_pem().to_owned(), url: origin.to_owned(), request, body: Bytes::new() }
}

impl Call {
    fn header(mut self, name: impl Into<http::HeaderName>, value: &str) -> Self {
        let name = name.into();
        if let Some(headers) = self.request.headers_mut() {
            headers.insert(name, value.parse().unwrap());
        }
        self
    }

    fn bearer(self, token: &str) -> Self {
        self.header(AUTHORIZATION, &format!("Bearer {token}"))
    }

    fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.header(CONTENT_TYPE, content_type)
    }

    fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    async fn send(self) -> Answer {
        self.try_send().await.unwrap()
    }

    async fn try_send(self) -> Result<Answer, Broken> {
        let (head, body) = self.connect_and_send().await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// Sends the call and returns the response without reading its body.
    async fn send_for_head(self) -> http::Response<Incoming> {
        self.connect_and_send().await.unwrap()
    }

    async fn connect_and_send(self) -> Result<http::Response<Incoming>, Broken> {
        let authority = self.url.split_once("://").unwrap().1.to_owned();
        let stream = TcpStream::connect(&authority).await?;
        if self.url.starts_with("http://") {
            return self.exchange(stream).await;
        }
        let connector = trusting(&self.sandbox_ca);
        let name = ServerName::try_from(authority.split(':').next().unwrap().to_owned())?;
        self.exchange(connector.connect(name, stream).await?).await
    }

    async fn exchange<S>(self, stream: S) -> Result<http::Response<Incoming>, Broken>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The task ends with the test's runtime, or when the response is read and the sender dropped.
        tokio::spawn(connection);
        Ok(sender.send_request(self.request.body(Full::new(self.body))?).await?)
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

fn trusting(ca_pem: &str) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// Returns the form of a token request with the app registration's secret.
fn secret_form(sandbox: &Sandbox) -> Vec<(&'static str, String)> {
    vec![
        ("grant_type", String::from("client_credentials")),
        ("client_id", APP_CLIENT_ID.to_owned()),
        ("client_secret", sandbox.client_secret().expose().to_owned()),
        ("scope", String::from("https://signalr.azure.com/.default")),
    ]
}

/// Returns the form of a token request with an assertion.
fn assertion_form(assertion: &str) -> Vec<(&'static str, String)> {
    vec![
        ("grant_type", String::from("client_credentials")),
        ("client_id", APP_CLIENT_ID.to_owned()),
        ("client_assertion_type", String::from("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")),
        ("client_assertion", assertion.to_owned()),
        ("scope", String::from("https://signalr.azure.com/.default")),
    ]
}

/// Replaces a field of a form.
fn with(mut form: Vec<(&'static str, String)>, name: &str, value: &str) -> Vec<(&'static str, String)> {
    let field = form.iter_mut().find(|(field, _)| *field == name).unwrap();
    field.1 = value.to_owned();
    form
}

/// Removes a field of a form.
fn without(form: Vec<(&'static str, String)>, name: &str) -> Vec<(&'static str, String)> {
    form.into_iter().filter(|(field, _)| *field != name).collect()
}

async fn ask_token(sandbox: &Sandbox, tenant: &str, form: &[(&'static str, String)]) -> Answer {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let target = format!("/{tenant}/oauth2/v2.0/token");
    call(sandbox, Method::POST, &sandbox.entra().url(), &target)
        .body("application/x-www-form-urlencoded", body)
        .send()
        .await
}

/// Returns the AADSTS number and the status of a rejected token request.
async fn refusal(sandbox: &Sandbox, tenant: &str, form: &[(&'static str, String)]) -> (u64, u16) {
    let answer = ask_token(sandbox, tenant, form).await;
    let code = answer.json()["error_codes"][0].as_u64().unwrap_or_default();
    let description = answer.json()["error_description"].as_str().unwrap_or_default().to_owned();
    assert!(description.starts_with(&format!("AADSTS{code}: ")), "{description}");
    (code, answer.status.as_u16())
}

/// Returns a token that tenant B issues to the app registration.
async fn token(sandbox: &Sandbox) -> String {
    let answer = ask_token(sandbox, TENANT_B, &secret_form(sandbox)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()["access_token"].as_str().unwrap().to_owned()
}

/// Returns a call of the endpoint `east` with a valid token.
async fn rest(sandbox: &Sandbox, method: &str, target: &str) -> Call {
    let token = token(sandbox).await;
    call(sandbox, method.parse().unwrap(), &east(sandbox).url(), target).bearer(&token)
}

/// Returns the queued messages of a connection as target and JSON arguments, without waiting.
fn received(connection: &mut Connection) -> Vec<(String, Vec<Value>)> {
    std::iter::from_fn(|| connection.try_recv())
        .filter_map(|delivery| match delivery {
            Delivery::Message(message) => message.invocation(),
            Delivery::Invoke { .. } | Delivery::StreamItem { .. } | Delivery::StreamEnd { .. } | Delivery::Close(_) => {
                None
            }
        })
        .map(|invocation| (invocation.target.clone(), invocation.json_arguments()))
        .collect()
}

/// The timeout of a test.
const LONG: Duration = Duration::from_secs(20);
