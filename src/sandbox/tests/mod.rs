//! End-to-end tests of the sandbox with real sockets and TLS. The client side uses no code of the gateway.

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
mod groups_of_tenants;
mod identity;
mod misbehaving_clients;
mod page;
mod provider;
mod rest;
mod stateful_reconnect;
#[path = "../../../tests/it/support/tenant_group.rs"]
mod tenant_group;

/// A complete response.
#[derive(Debug)]
struct TestResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// The error of a failed request.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request to a server of the sandbox on a new connection.
struct TestRequest {
    sandbox_ca: String,
    origin: String,
    builder: http::request::Builder,
    body: Bytes,
}

async fn start() -> Sandbox {
    Sandbox::start(SandboxSettings::default()).await.unwrap()
}

fn east(sandbox: &Sandbox) -> &Endpoint {
    sandbox.endpoint("east").unwrap()
}

/// Creates a request for `target` (path and query) to the server with this origin.
fn request(sandbox: &Sandbox, method: Method, origin: &str, target: &str) -> TestRequest {
    let authority = origin.split_once("://").unwrap().1;
    let builder = Request::builder().method(method).uri(target).header(HOST, authority);
    TestRequest { sandbox_ca: sandbox.ca_pem().to_owned(), origin: origin.to_owned(), builder, body: Bytes::new() }
}

impl TestRequest {
    fn header(mut self, name: impl Into<http::HeaderName>, value: &str) -> Self {
        let name = name.into();
        if let Some(headers) = self.builder.headers_mut() {
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

    async fn send(self) -> TestResponse {
        self.try_send().await.unwrap()
    }

    async fn try_send(self) -> Result<TestResponse, BoxError> {
        let (head, body) = self.connect_and_send().await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(TestResponse { status: head.status, headers: head.headers, body })
    }

    /// Sends the request, and returns the response without reading its body.
    async fn send_for_head(self) -> http::Response<Incoming> {
        self.connect_and_send().await.unwrap()
    }

    async fn connect_and_send(self) -> Result<http::Response<Incoming>, BoxError> {
        let authority = self.origin.split_once("://").unwrap().1.to_owned();
        // Not every system resolves names below `localhost`.
        let address = match authority.rsplit_once(".localhost:") {
            Some((_, port)) => format!("127.0.0.1:{port}"),
            None => authority.clone(),
        };
        let stream = TcpStream::connect(address).await?;
        if self.origin.starts_with("http://") {
            return self.send_over(stream).await;
        }
        let connector = tls_connector(&self.sandbox_ca);
        let name = ServerName::try_from(authority.split(':').next().unwrap().to_owned())?;
        self.send_over(connector.connect(name, stream).await?).await
    }

    async fn send_over<S>(self, stream: S) -> Result<http::Response<Incoming>, BoxError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // The task ends when the response has been read and the sender is dropped, or with the test's runtime.
        tokio::spawn(connection);
        Ok(sender.send_request(self.builder.body(Full::new(self.body))?).await?)
    }
}

impl TestResponse {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

fn tls_connector(ca_pem: &str) -> TlsConnector {
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

/// Returns the form of a token request that authenticates with the app registration's secret.
fn secret_form(sandbox: &Sandbox) -> Vec<(&'static str, String)> {
    vec![
        ("grant_type", String::from("client_credentials")),
        ("client_id", APP_CLIENT_ID.to_owned()),
        ("client_secret", sandbox.client_secret().expose().to_owned()),
        ("scope", String::from("https://signalr.azure.com/.default")),
    ]
}

/// Returns the form of a token request that authenticates with an assertion.
fn assertion_form(assertion: &str) -> Vec<(&'static str, String)> {
    vec![
        ("grant_type", String::from("client_credentials")),
        ("client_id", APP_CLIENT_ID.to_owned()),
        ("client_assertion_type", String::from("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")),
        ("client_assertion", assertion.to_owned()),
        ("scope", String::from("https://signalr.azure.com/.default")),
    ]
}

/// Returns a form with another value of a field.
fn with(mut form: Vec<(&'static str, String)>, name: &str, value: &str) -> Vec<(&'static str, String)> {
    let field = form.iter_mut().find(|(field, _)| *field == name).unwrap();
    field.1 = value.to_owned();
    form
}

/// Returns a form without a field.
fn without(form: Vec<(&'static str, String)>, name: &str) -> Vec<(&'static str, String)> {
    form.into_iter().filter(|(field, _)| *field != name).collect()
}

async fn request_token(sandbox: &Sandbox, tenant: &str, form: &[(&'static str, String)]) -> TestResponse {
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let target = format!("/{tenant}/oauth2/v2.0/token");
    request(sandbox, Method::POST, &sandbox.entra().url(), &target)
        .body("application/x-www-form-urlencoded", body)
        .send()
        .await
}

/// Returns the AADSTS number and the status of a rejected token request.
async fn rejection(sandbox: &Sandbox, tenant: &str, form: &[(&'static str, String)]) -> (u64, u16) {
    let response = request_token(sandbox, tenant, form).await;
    let code = response.json()["error_codes"][0].as_u64().unwrap_or_default();
    let description = response.json()["error_description"].as_str().unwrap_or_default().to_owned();
    assert!(description.starts_with(&format!("AADSTS{code}: ")), "{description}");
    (code, response.status.as_u16())
}

/// Returns a token that tenant B issues to the app registration.
async fn token(sandbox: &Sandbox) -> String {
    let response = request_token(sandbox, TENANT_B, &secret_form(sandbox)).await;
    assert_eq!(response.status, StatusCode::OK, "{response:?}");
    response.json()["access_token"].as_str().unwrap().to_owned()
}

/// Creates a request to the endpoint `east` with a valid token.
async fn rest(sandbox: &Sandbox, method: &str, target: &str) -> TestRequest {
    let token = token(sandbox).await;
    request(sandbox, method.parse().unwrap(), &east(sandbox).url(), target).bearer(&token)
}

/// Returns the queued messages of a connection without waiting, each as target and JSON arguments.
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

/// The longest wait of a test, and the lifetime of tokens that do not expire during a test.
const TIMEOUT: Duration = Duration::from_secs(20);
