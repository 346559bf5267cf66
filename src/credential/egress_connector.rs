//! Connects the identity client, directly or through a proxy.
//!
//! Identity endpoints of the host have http:// URLs or a client without a proxy, so they never go through one.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tower::Service;

use crate::egress::{Authorization, Carrier, Egress, EgressProxy, ProxyError, Target, TunnelDeadline, open_over};
use crate::tls::{self, Trust, TrustError};

/// The timeout of TLS with the proxy and of its answer. Chosen: a proxy resolves the name and connects within a second; half of the
/// time of a request is left.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Opens byte streams to identity endpoints.
#[derive(Clone)]
pub(super) struct EgressConnector {
    tcp: HttpConnector,
    egress: Arc<Egress>,
    proxy: Option<Arc<Proxy>>,
}

/// The parts that tunnels through the proxy are opened with.
struct Proxy {
    settings: Arc<EgressProxy>,
    tls: Option<TlsConnector>,
    authorization: Authorization,
}

/// Why a proxy opened no tunnel.
#[derive(Debug, thiserror::Error)]
#[error("no connection through the proxy {proxy}")]
pub(super) struct ProxiedError {
    pub(super) proxy: Arc<EgressProxy>,
    pub(super) source: ProxyError,
}

/// A byte stream to an identity endpoint or through a tunnel.
pub(super) struct EgressStream(TokioIo<Carrier<TcpStream>>);

impl EgressConnector {
    /// Creates a connector. Reads the CA file of the proxy.
    pub(super) fn new(tcp: HttpConnector, egress: &Arc<Egress>) -> Result<Self, TrustError> {
        let proxy = match &egress.proxy {
            Some(settings) => Some(Arc::new(Proxy::build(settings)?)),
            None => None,
        };
        Ok(Self { tcp, egress: Arc::clone(egress), proxy })
    }
}

impl Proxy {
    fn build(settings: &Arc<EgressProxy>) -> Result<Self, TrustError> {
        let trust = Trust::from_ca_file(settings.ca_file.as_deref());
        let tls = settings.tls.then(|| tls::client_config(&trust)).transpose()?;
        Ok(Self {
            settings: Arc::clone(settings),
            tls: tls.map(|config| TlsConnector::from(Arc::new(config))),
            authorization: Authorization::new(settings),
        })
    }

    async fn connect(&self, mut tcp: HttpConnector, target: &Target) -> Result<EgressStream, ProxyError> {
        let address = Target::new(&self.settings.host, self.settings.port);
        let uri: Uri =
            format!("http://{address}").parse().map_err(|err: http::uri::InvalidUri| ProxyError::Dns(err.into()))?;
        // The library does not export the kinds of its error.
        let stream = tcp.call(uri).await.map_err(|err| match err.to_string() {
            text if text.starts_with("dns error") => ProxyError::Dns(err.into()),
            _ => ProxyError::Tcp(io::Error::other(err)),
        })?;
        let deadline = TunnelDeadline { at: Instant::now() + TUNNEL_TIMEOUT, within: TUNNEL_TIMEOUT };
        let name = self.tls.is_some().then(|| ServerName::try_from(self.settings.host.clone())).transpose();
        let name = name.map_err(|err| ProxyError::Tls(io::Error::other(err)))?;
        let tls = self.tls.as_ref().zip(name.as_ref());
        let carrier = open_over(stream.into_inner(), tls, &self.authorization, target, deadline).await?;
        Ok(EgressStream(TokioIo::new(carrier)))
    }
}

impl Service<Uri> for EgressConnector {
    type Response = EgressStream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<EgressStream, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let is_https = uri.scheme_str() == Some("https");
        let proxy = self.proxy.clone().filter(|_| is_https && self.egress.proxy_for(host).is_some());
        let mut tcp = self.tcp.clone();
        if let Some(proxy) = proxy {
            let target = Target::new(host, uri.port_u16().unwrap_or(443));
            return Box::pin(async move {
                let connected = proxy.connect(tcp, &target).await;
                connected.map_err(|source| ProxiedError { proxy: Arc::clone(&proxy.settings), source }.into())
            });
        }
        Box::pin(async move {
            let stream = tcp.call(uri).await?;
            Ok(EgressStream(TokioIo::new(Carrier::Left(stream.into_inner()))))
        })
    }
}

impl Connection for EgressStream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for EgressStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for EgressStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
