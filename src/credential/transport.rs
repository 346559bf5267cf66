//! The HTTP client for all requests to identity endpoints, including those of the identity library.
//!
//! It speaks HTTP/1.1 over rustls, with one connection per request to an identity endpoint, timeouts and a size limit. It uses the configured proxy, and
//! none for identity endpoints of the host. It does not follow redirects. The library's own retries are off;
//! `acquire.rs` retries.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::http::headers::Headers;
use azure_core::http::request::Body;
use azure_core::http::{AsyncRawResponse, ClientOptions, HttpClient, RetryOptions, Transport};
use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use super::egress_connector::{EgressConnector, ProxiedError};
use super::error::CredentialError;
use super::identity_endpoint::{IdentityEndpoint, IdentityEndpointKind};
use super::lifetime::Lifetime;
use super::record::{AcquisitionRecord, AcquisitionStep, StepOutcome};
use super::response::{IdentityResponse, TokenResponse, validate};
use super::response_error::NoResponse;
use super::tls_connector::TlsConnector;
use crate::egress::Egress;
use crate::metrics::TokenStage;
use crate::redact::{MaskedError, SentSecrets};
use crate::tls::{self, RefusedCertificate, Trust, TrustError};

/// The timeout of a TCP connection. Chosen: several times a slow intercontinental round trip. If packets are dropped, there is
/// time for another try within the acquisition.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The timeout of a request, from name resolution to the last byte. Chosen: Entra responds within a second, and another connection may
/// succeed. The one after it may take longer (`acquire.rs`).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest response body. Tokens are below 10 kB.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// The host of the instance metadata service in the identity library.
const IMDS_HOST: &str = "169.254.169.254";

/// An HTTP client for identity endpoints. Cloning increments a reference count.
#[derive(Clone)]
pub(crate) struct IdentityClient {
    http: Client<TlsConnector<HttpsConnector<EgressConnector>>, Full<Bytes>>,
    request_timeout: Duration,
}

impl IdentityClient {
    /// Creates a client. Does no network I/O.
    pub(crate) fn new(trust: &Trust, egress: &Arc<Egress>) -> Result<Self, TrustError> {
        // No idle connections: a token is requested about once an hour, and the endpoint closes a connection sooner.
        Self::with_idle_connections(trust, egress, 0)
    }

    /// Creates a client that keeps some connections for the next requests, for servers that get many.
    pub(crate) fn with_idle_connections(trust: &Trust, egress: &Arc<Egress>, idle: usize) -> Result<Self, TrustError> {
        let tls = tls::client_config(trust)?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = EgressConnector::new(tcp, egress)?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(connector);
        let mut builder = Client::builder(TokioExecutor::new());
        let http = builder.pool_max_idle_per_host(idle).pool_timer(TokioTimer::new()).build(TlsConnector(connector));
        Ok(Self { http, request_timeout: REQUEST_TIMEOUT })
    }

    /// Sends a request and reads the whole response, within `limit` or the usual time.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limit: Option<Duration>,
    ) -> Result<IdentityResponse, NoResponse> {
        let sent_at = Instant::now();
        let response = async {
            let response = self.http.request(request).await.map_err(|err| {
                if let Some(ProxiedError { proxy, source }) = proxied_error(&err) {
                    let certificate = RefusedCertificate::find(source).cloned();
                    let masked = match &certificate {
                        Some(certificate) => MaskedError::without_secrets(source, certificate),
                        None => MaskedError::new(source),
                    };
                    let (proxy, layer) = (Arc::clone(proxy), source.layer());
                    return NoResponse::Proxy { proxy, layer, certificate, source: masked };
                }
                if let Some(certificate) = RefusedCertificate::find(&err) {
                    return NoResponse::Certificate(certificate.clone());
                }
                let cause = MaskedError::new(&err);
                if err.is_connect() { NoResponse::Connect(cause) } else { NoResponse::Interrupted(cause) }
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|err| {
                let too_large = err.is::<http_body_util::LengthLimitError>();
                if too_large {
                    NoResponse::TooLarge(MAX_BODY_BYTES)
                } else {
                    NoResponse::Interrupted(MaskedError::new(&*err))
                }
            })?;
            Ok(IdentityResponse { sent_at, status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        let limit = limit.unwrap_or(self.request_timeout);
        match tokio::time::timeout(limit, response).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(NoResponse::Timeout(limit)),
        }
    }
}

/// Returns the error of the proxy, if that is why there is no connection.
fn proxied_error(err: &hyper_util::client::legacy::Error) -> Option<&ProxiedError> {
    let mut cause = std::error::Error::source(err);
    while let Some(err) = cause {
        if let Some(proxied) = err.downcast_ref() {
            return Some(proxied);
        }
        cause = err.source();
    }
    None
}

/// The identity library's HTTP client for one step of an acquisition. It validates the response, keeps the lifetime that the
/// library would drop, and records the step.
pub(crate) struct RecordingClient {
    client: IdentityClient,
    record: AcquisitionRecord,
    stage: TokenStage,
    /// What is requested, for messages.
    subject: String,
    destination: Destination,
    lifetime: Mutex<Option<Lifetime>>,
}

/// The destination of the request of a step.
pub(crate) enum Destination {
    /// Entra's token endpoint.
    Entra {
        /// Whether the request carries a token of another identity.
        federated: bool,
    },
    /// The host's identity endpoint.
    Host {
        /// Replaces the origin of the instance metadata service.
        imds_endpoint: Option<String>,
    },
}

impl RecordingClient {
    /// Creates the client of one step. `subject` is what is requested, for messages.
    pub(crate) fn new(
        client: &IdentityClient,
        record: &AcquisitionRecord,
        stage: TokenStage,
        subject: String,
        destination: Destination,
    ) -> Arc<Self> {
        let (client, record, lifetime) = (client.clone(), record.clone(), Mutex::default());
        Arc::new(Self { client, record, stage, subject, destination, lifetime })
    }

    /// Returns options for a credential of the identity library: it sends its requests through this client and does not retry.
    /// Its IMDS code ignores the retry options, so [`CredentialError::wrap`] also prevents retries. The caller sets `cloud`.
    pub(crate) fn options(self: &Arc<Self>) -> ClientOptions {
        let transport: Arc<dyn HttpClient> = Arc::<Self>::clone(self);
        ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(transport)),
            ..ClientOptions::default()
        }
    }

    /// Takes the lifetime of the last valid response. The library's result lacks `refresh_in` and the time of the request.
    pub(crate) fn take_lifetime(&self) -> Result<Lifetime, CredentialError> {
        self.lifetime.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(CredentialError::ExpiredOnArrival)
    }

    async fn send_and_record(&self, request: &azure_core::http::Request) -> Result<Bytes, CredentialError> {
        let (endpoint, uri) = self.address(request.url())?;
        let started = Instant::now();
        let outcome = self.send(request, &endpoint, uri).await;
        let recorded = match &outcome {
            Ok(response) => StepOutcome::Token {
                fingerprint: response.fingerprint,
                claims: response.claims.clone(),
                endpoint_clock: response.date,
            },
            Err(err) => StepOutcome::failed(err),
        };
        self.record.add_step(AcquisitionStep {
            stage: self.stage,
            subject: self.subject.clone(),
            endpoint: Some(endpoint),
            took: started.elapsed(),
            not_after: None,
            outcome: recorded,
        });
        let response = outcome?;
        *self.lifetime.lock().unwrap_or_else(PoisonError::into_inner) = Some(response.lifetime);
        Ok(response.normalized_body)
    }

    async fn send(
        &self,
        request: &azure_core::http::Request,
        endpoint: &IdentityEndpoint,
        uri: Uri,
    ) -> Result<TokenResponse, CredentialError> {
        let no_response = |source| CredentialError::NoResponse { endpoint: endpoint.clone(), source };
        let copy = to_hyper(request, uri).map_err(no_response)?;
        let response = self.client.send(copy, self.record.request_timeout()).await.map_err(no_response)?;
        let federated = matches!(self.destination, Destination::Entra { federated: true });
        Ok(validate(endpoint, federated, &response, &|| sent(request))?)
    }

    /// Returns the endpoint of a URL, and the URI to which the request is sent.
    fn address(&self, url: &azure_core::http::Url) -> Result<(IdentityEndpoint, Uri), CredentialError> {
        let host = url.host_str().unwrap_or_default();
        let kind = match self.destination {
            Destination::Entra { .. } => IdentityEndpointKind::Entra,
            Destination::Host { .. } if host == IMDS_HOST => IdentityEndpointKind::InstanceMetadata,
            Destination::Host { .. } => IdentityEndpointKind::AppService,
        };
        let mut authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut target = url.as_str().parse::<Uri>();
        if let Destination::Host { imds_endpoint: Some(replacement) } = &self.destination
            && kind == IdentityEndpointKind::InstanceMetadata
        {
            let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
            target = format!("{}{}{query}", replacement.trim_end_matches('/'), url.path()).parse();
            authority.clone_from(replacement);
        }
        let endpoint = IdentityEndpoint { kind, authority };
        match target {
            Ok(target) => Ok((endpoint, target)),
            Err(_invalid) => {
                let source = NoResponse::InvalidRequest("its URL is not valid");
                Err(CredentialError::NoResponse { endpoint, source })
            }
        }
    }
}

/// Collects the secrets in a request. They are masked in the response.
fn sent(request: &azure_core::http::Request) -> SentSecrets {
    let mut sent = SentSecrets::default();
    if let Body::Bytes(body) = request.body() {
        let fields = form_urlencoded::parse(body);
        fields
            .filter(|(name, _)| ["client_secret", "client_assertion"].contains(&&**name))
            .for_each(|(_, value)| sent.add(&value));
    }
    let headers =
        request.headers().iter().filter(|(name, _)| ["x-identity-header", "authorization"].contains(&name.as_str()));
    headers.for_each(|(_, value)| sent.add(value.as_str()));
    sent
}

/// Converts a request of the library to one of hyper.
fn to_hyper(request: &azure_core::http::Request, uri: Uri) -> Result<Request<Full<Bytes>>, NoResponse> {
    let Body::Bytes(body) = request.body() else {
        return Err(NoResponse::InvalidRequest("its body is a stream"));
    };
    let method = Method::from_bytes(request.method().as_str().as_bytes());
    let method = method.map_err(|_invalid| NoResponse::InvalidRequest("its method is not valid"))?;
    let mut copy = Request::builder().method(method).uri(uri);
    for (name, value) in request.headers().iter() {
        copy = copy.header(name.as_str(), value.as_str());
    }
    copy.body(Full::new(body.clone())).map_err(|_invalid| NoResponse::InvalidRequest("its headers are not valid"))
}

#[async_trait]
impl HttpClient for RecordingClient {
    async fn execute_request(&self, request: &azure_core::http::Request) -> azure_core::Result<AsyncRawResponse> {
        let body = self.send_and_record(request).await.map_err(CredentialError::wrap)?;
        Ok(AsyncRawResponse::from_bytes(azure_core::http::StatusCode::Ok, Headers::new(), body))
    }
}

impl fmt::Debug for RecordingClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordingClient")
            .field("stage", &self.stage)
            .field("subject", &self.subject)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for IdentityClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityClient")
    }
}

#[cfg(test)]
mod tests;
