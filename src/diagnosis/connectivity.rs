//! Tests the connection to a server layer by layer: name resolution, TCP, TLS. With a proxy: the same layers up to the proxy, its
//! answer to CONNECT, and TLS with the server. Sends no other HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use x509_parser::parse_x509_certificate;

use super::finding::Check;
use crate::egress::{Authorization, Egress, EgressProxy, ProxyLayer, Target};
use crate::endpoint::localhost_addresses;
use crate::files::Validity;
use crate::redact::{in_one_line, one_line};
use crate::tls::{self, RefusedCertificate, Trust};

/// How long connecting to a server may take, and each request to an endpoint. The sum of the acquisition (10.3 s), the connection,
/// the health check and the read stays below fifteen seconds.
pub(super) const SERVER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A server and the certificates to trust.
pub(super) struct Server {
    /// A name, or an IP address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The certificates to trust; `None` if the server does not use TLS.
    pub(super) trust: Option<Trust>,
    /// The proxy of the connection.
    pub(super) proxy: Option<Arc<EgressProxy>>,
}

/// The result of testing a connection.
pub(super) struct Connectivity {
    /// The checks of the layers that work.
    pub(super) passed: Vec<Check>,
    /// The first layer that does not work.
    pub(super) failure: Option<FailedLayer>,
}

/// The layer at which connecting failed.
pub(super) struct FailedLayer {
    pub(super) layer: Layer,
    pub(super) tried: String,
    pub(super) error: String,
    pub(super) proxy: Option<Arc<EgressProxy>>,
    /// The certificate of the server or of its proxy, if it was refused.
    pub(super) certificate: Option<RefusedCertificate>,
}

/// The error of a layer.
struct LayerError {
    text: String,
    certificate: Option<RefusedCertificate>,
}

impl From<String> for LayerError {
    fn from(text: String) -> Self {
        Self { text, certificate: None }
    }
}

/// A layer of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// Name resolution.
    Name,
    /// TCP.
    Connection,
    /// TLS.
    Tls,
    /// The proxy.
    Proxy(ProxyLayer),
}

/// A stream to a server, or to a proxy that has opened a tunnel to it.
type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

impl Server {
    /// Parses the origin of a URL: `https://host[:port]`.
    pub(super) fn of_https(origin: &str, trust: Trust, egress: &Egress) -> Option<Self> {
        let uri: http::Uri = origin.parse().ok()?;
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let proxy = egress.proxy_for(&host).cloned();
        Some(Self { host, port: uri.port_u16().unwrap_or(443), trust: Some(trust), proxy })
    }

    /// Tests the layers in order, up to the first failure or the timeout `within`.
    ///
    /// # Cancel safety
    /// Safe: connections are closed.
    pub(super) async fn test(&self, within: Duration) -> Connectivity {
        let (mut passed, mut current) = (Vec::new(), (Layer::Name, String::new()));
        let outcome = tokio::time::timeout(within, self.test_layers(&mut passed, &mut current)).await;
        let error = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(problem)) => Some(problem),
            Err(_elapsed) => Some(format!("timed out after {}", humantime::format_duration(within)).into()),
        };
        let (layer, tried) = current;
        let proxy = self.proxy.clone();
        let failed = |LayerError { text: error, certificate }| FailedLayer { layer, tried, error, proxy, certificate };
        Connectivity { passed, failure: error.map(failed) }
    }

    /// Tests the layers in order. Stores each in `current` before its test, so that the caller knows it after a timeout.
    async fn test_layers(&self, passed: &mut Vec<Check>, current: &mut (Layer, String)) -> Result<(), LayerError> {
        let stream = match &self.proxy {
            None => {
                let layers = (Layer::Name, Layer::Connection);
                Stream::Left(test_connection(&self.host, self.port, layers, passed, current).await?)
            }
            Some(proxy) => self.test_tunnel(proxy, passed, current).await?,
        };
        let Some(trust) = &self.trust else { return Ok(()) };
        *current = (Layer::Tls, format!("TLS with {}", self.host));
        let session = handshake(&self.host, stream, trust).await?;
        passed.push(Check::passed(&current.1, describe_session(&session)));
        Ok(())
    }

    /// Tests the layers of the connection to a proxy, and its answer to CONNECT.
    async fn test_tunnel(
        &self,
        proxy: &EgressProxy,
        passed: &mut Vec<Check>,
        current: &mut (Layer, String),
    ) -> Result<Stream, LayerError> {
        let layers = (Layer::Proxy(ProxyLayer::Name), Layer::Proxy(ProxyLayer::Connection));
        let stream = test_connection(&proxy.host, proxy.port, layers, passed, current).await?;
        let mut stream = if proxy.tls {
            *current = (Layer::Proxy(ProxyLayer::Tls), format!("TLS with the proxy {}", proxy.host));
            let session = handshake(&proxy.host, stream, &Trust::from_ca_file(proxy.ca_file.as_deref())).await?;
            passed.push(Check::passed(&current.1, describe_session(&session)));
            Stream::Right(Box::new(session))
        } else {
            Stream::Left(stream)
        };
        let target = Target::new(&self.host, self.port);
        *current = (Layer::Proxy(ProxyLayer::Answer), format!("CONNECT {target} through the proxy {proxy}"));
        let authorization = Authorization::new(proxy);
        if let Err(err) = authorization.open_tunnel(&mut stream, &target).await {
            current.0 = Layer::Proxy(err.layer());
            return Err(in_one_line(&err).into());
        }
        passed.push(Check::passed(&current.1, "the proxy opened a tunnel"));
        Ok(stream)
    }
}

/// Tests name resolution and TCP.
async fn test_connection(
    host: &str,
    port: u16,
    (name, connection): (Layer, Layer),
    passed: &mut Vec<Check>,
    current: &mut (Layer, String),
) -> Result<TcpStream, String> {
    *current = (name, format!("resolve {host}"));
    let found = resolve(host, port).await.map_err(|err| err.to_string())?;
    let shown: Vec<String> = found.iter().map(|at| format!("{} ({})", at.ip(), network_of(at.ip()))).collect();
    passed.push(Check::passed(&current.1, shown.join(", ")));

    *current = (connection, format!("connect to {host}:{port}"));
    let (at, stream) = connect(&found).await?;
    passed.push(Check::passed(&current.1, format!("connected to {}", at.ip())));
    Ok(stream)
}

async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Some(addresses) = localhost_addresses(host) {
        return Ok(addresses.map(|address| SocketAddr::new(address, port)).into());
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    host: &str,
    stream: S,
    trust: &Trust,
) -> Result<TlsStream<S>, LayerError> {
    let config = tls::client_config(trust).map_err(|err| err.to_string())?;
    let name = ServerName::try_from(host.to_owned()).map_err(|err| err.to_string())?;
    let connected = tls::connect(&TlsConnector::from(Arc::new(config)), name, stream).await;
    connected.map_err(|err| LayerError {
        text: one_line(&err.to_string()),
        certificate: RefusedCertificate::find(&err).cloned(),
    })
}

/// Connects to all addresses concurrently and returns the first connection.
async fn connect(addresses: &[SocketAddr]) -> Result<(SocketAddr, TcpStream), String> {
    let mut attempts: FuturesUnordered<_> =
        addresses.iter().map(async |address| (*address, TcpStream::connect(address).await)).collect();
    let mut errors = Vec::new();
    while let Some((address, outcome)) = attempts.next().await {
        match outcome {
            Ok(stream) => return Ok((address, stream)),
            Err(err) => errors.push(format!("{}: {err}", address.ip())),
        }
    }
    if errors.is_empty() { Err("the name has no address".to_owned()) } else { Err(errors.join(", ")) }
}

/// Formats the TLS version and the issuer of the server's certificate. The issuer reveals a proxy that inspects TLS.
fn describe_session<S>(session: &TlsStream<S>) -> String {
    let (_, connection) = session.get_ref();
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(_) | None => "TLS 1.2",
    };
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    let Some((_, leaf)) = leaf.and_then(|leaf| parse_x509_certificate(leaf).ok()) else {
        return version.to_owned();
    };
    let ends = humantime::format_rfc3339_seconds(Validity::of(&leaf).not_after);
    one_line(&format!("{version}, certificate issued by {}, ends {ends}", leaf.issuer()))
}

/// Classifies an address. Source: RFC 1918, RFC 4193, RFC 6598 (shared address space).
fn network_of(ip: IpAddr) -> &'static str {
    match ip.to_canonical() {
        ip if ip.is_loopback() => "this host",
        IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() => "private",
        IpAddr::V4(ip) if matches!(ip.octets(), [100, 64..128, ..]) => "private",
        IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => "private",
        IpAddr::V4(_) | IpAddr::V6(_) => "public",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classifies_addresses_by_network() {
        for (ip, network) in [
            ("127.0.0.1", "this host"),
            ("::1", "this host"),
            ("10.1.2.3", "private"),
            ("172.31.0.1", "private"),
            ("100.64.0.1", "private"),
            ("fd00::1", "private"),
            ("::ffff:192.168.0.1", "private"),
            ("20.42.0.1", "public"),
            ("100.128.0.1", "public"),
            ("2603:1030::1", "public"),
        ] {
            assert_eq!(network_of(ip.parse().unwrap()), network, "{ip}");
        }
    }

    #[test]
    fn parses_the_origin_of_an_authority() {
        let server = |origin| {
            Server::of_https(origin, Trust::System, &Egress::default()).map(|server| (server.host, server.port))
        };
        assert_eq!(server("https://login.example"), Some(("login.example".to_owned(), 443)));
        assert_eq!(server("https://[::1]:8443"), Some(("::1".to_owned(), 8443)));
    }

    #[tokio::test]
    async fn reports_the_layer_that_fails() {
        let unserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let open = unserved.local_addr().unwrap().port();
        for (host, port, layer, passed) in [
            ("nowhere.invalid", 443, Layer::Name, 0),
            ("127.0.0.1", closed, Layer::Connection, 1),
            // The system accepts the connection, but no process serves it, so the handshake hangs.
            ("127.0.0.1", open, Layer::Tls, 2),
        ] {
            let server = Server { host: host.to_owned(), port, trust: Some(Trust::None), proxy: None };
            let connectivity = server.test(Duration::from_millis(300)).await;
            let failure = connectivity.failure.unwrap();
            // A slow resolver may hit the timeout, which is reported for the same layer.
            let found = (failure.layer, connectivity.passed.len());
            assert_eq!(found, (layer, passed), "{host}: {}", failure.error);
        }
    }
}
