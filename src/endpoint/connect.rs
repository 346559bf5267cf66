//! Opens connections to one endpoint: name resolution each time (so DNS changes are followed), IPv6 and IPv4 side by
//! side, TCP, TLS. Nothing is sent on them.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::GaiResolver;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::ServiceExt;
use tower::util::MapErr;

use super::socket::Socket;
use super::{EndpointError, EndpointSettings, HttpVersion};
use crate::metrics::UpstreamErrorReason;
use crate::tls::{self, Trust};

/// ALPN's name of HTTP/2.
const HTTP2: &[u8] = b"h2";
/// How often an idle connection is probed, so that a peer that vanished is noticed.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// Why there is no connection. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name did not resolve.
    #[error("the endpoint's name does not resolve")]
    Dns(#[source] Box<dyn Error + Send + Sync>),
    /// No address accepted the connection.
    #[error("the endpoint does not accept connections")]
    Tcp(#[source] Box<dyn Error + Send + Sync>),
    /// The TLS handshake failed.
    #[error("the TLS handshake with the endpoint failed")]
    Tls(#[source] io::Error),
    /// It took longer than `connect_timeout`.
    #[error("the endpoint did not accept a connection within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// It speaks HTTP/1.1 alone.
    #[error("the endpoint does not offer HTTP/2, which is configured for it (`http_version`)")]
    NoHttp2,
    /// HTTP/2 could not be started on the connection.
    #[error("HTTP/2 could not be started on the connection to the endpoint")]
    Http(#[source] hyper::Error),
}

impl ConnectError {
    /// Returns the metric label.
    pub fn reason(&self) -> UpstreamErrorReason {
        match self {
            Self::Dns(_) => UpstreamErrorReason::Dns,
            Self::Tcp(_) => UpstreamErrorReason::Connect,
            Self::Tls(_) => UpstreamErrorReason::Tls,
            Self::Timeout(_) => UpstreamErrorReason::ConnectTimeout,
            Self::NoHttp2 | Self::Http(_) => UpstreamErrorReason::Protocol,
        }
    }
}

/// Tells a server that refuses to speak HTTP/2 from other failures of TLS.
fn refused(err: io::Error) -> ConnectError {
    let alert = err.get_ref().and_then(|err| err.downcast_ref::<rustls::Error>());
    match alert {
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => ConnectError::NoHttp2,
        _ => ConnectError::Tls(err),
    }
}

/// Opens connections to one endpoint.
pub(super) struct Connector {
    tcp: HttpConnector<Resolver>,
    uri: Uri,
    tls: Option<Tls>,
    timeout: Duration,
}

struct Tls {
    http1: TlsConnector,
    http2: TlsConnector,
    name: ServerName<'static>,
}

/// The system's resolver, with errors that can be told from those of connecting.
type Resolver = MapErr<GaiResolver, fn(io::Error) -> DnsError>;

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct DnsError(io::Error);

impl Connector {
    pub(super) fn build(
        settings: &EndpointSettings,
        uri: Uri,
        unusable_host: impl FnOnce() -> EndpointError,
    ) -> Result<Self, EndpointError> {
        let resolver: Resolver = GaiResolver::new().map_err(DnsError as fn(_) -> _);
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(TCP_KEEPALIVE));
        // Divided among the addresses of the name, so that one that swallows packets leaves time for the others.
        tcp.set_connect_timeout(Some(settings.connect_timeout));
        let tls = if settings.origin.tls {
            let mut config = tls::client_config(&Trust::of(settings.ca_file.as_deref()))
                .map_err(|source| EndpointError::Trust { endpoint: settings.name.clone(), source })?;
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let http1 = TlsConnector::from(Arc::new(config.clone()));
            config.alpn_protocols = vec![HTTP2.to_vec()];
            let http2 = TlsConnector::from(Arc::new(config));
            let name = ServerName::try_from(settings.origin.host.clone()).map_err(|_invalid| unusable_host())?;
            Some(Tls { http1, http2, name })
        } else {
            None
        };
        Ok(Self { tcp, uri, tls, timeout: settings.connect_timeout })
    }

    /// Returns where it connects to: scheme, host and port.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Opens a connection within the configured time, to speak `version` on it. `wrap` is put between TCP and what is above.
    ///
    /// # Cancel safety
    /// Safe: what was begun is closed.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        version: HttpVersion,
        wrap: impl FnOnce(TcpStream) -> S,
    ) -> Result<Socket<S>, ConnectError> {
        tokio::time::timeout(self.timeout, self.dial(version, wrap))
            .await
            .unwrap_or(Err(ConnectError::Timeout(self.timeout)))
    }

    async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        version: HttpVersion,
        wrap: impl FnOnce(TcpStream) -> S,
    ) -> Result<Socket<S>, ConnectError> {
        let tcp = self.tcp.clone().oneshot(self.uri.clone()).await.map_err(|err| {
            // The connector keeps the resolver's error as its own cause.
            let is_dns = err.source().is_some_and(<dyn Error>::is::<DnsError>);
            if is_dns { ConnectError::Dns(err.into()) } else { ConnectError::Tcp(err.into()) }
        })?;
        let tcp = wrap(tcp.into_inner());
        let Some(tls) = &self.tls else { return Ok(Socket::Left(tcp)) };
        let connector = match version {
            HttpVersion::Http1 => &tls.http1,
            HttpVersion::Http2 => &tls.http2,
        };
        let secured = connector.connect(tls.name.clone(), tcp).await.map_err(refused)?;
        // A server that knows no ALPN goes on without a word.
        if version == HttpVersion::Http2 && secured.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(ConnectError::NoHttp2);
        }
        Ok(Socket::Right(Box::new(secured)))
    }
}
