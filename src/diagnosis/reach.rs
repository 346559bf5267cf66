//! The way to a server in its parts, each tried by itself: name resolution, TCP, TLS. Sends nothing that HTTP knows, and
//! uses no proxy, since the gateway uses none.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::parse_x509_certificate;

use super::Check;
use crate::credential::one_line;
use crate::tls::{self, Trust};

/// A server, and how it is to prove who it is.
pub(super) struct Server {
    /// A name, or an IP address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Whom to trust; `None` where it speaks no TLS.
    pub(super) trust: Option<Trust>,
}

/// How far one came.
pub(super) struct Way {
    /// The parts that held.
    pub(super) held: Vec<Check>,
    /// The part that did not.
    pub(super) end: Option<DeadEnd>,
}

/// Where a way ends before it should.
pub(super) struct DeadEnd {
    pub(super) part: Part,
    pub(super) tried: String,
    pub(super) came_back: String,
}

/// A part of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Name,
    Connection,
    Tls,
}

impl Server {
    /// Takes a URL's origin apart: `https://host[:port]`.
    pub(super) fn of_https(origin: &str, trust: Trust) -> Option<Self> {
        let uri: http::Uri = origin.parse().ok()?;
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Self { host, port: uri.port_u16().unwrap_or(443), trust: Some(trust) })
    }

    /// Goes as far as it can within the time.
    ///
    /// # Cancel safety
    /// Safe: what was opened is closed.
    pub(super) async fn try_way(&self, within: Duration) -> Way {
        let (mut held, mut now) = (Vec::new(), (Part::Name, String::new()));
        let outcome = tokio::time::timeout(within, self.parts(&mut held, &mut now)).await;
        let came_back = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(problem)) => Some(problem),
            Err(_elapsed) => Some(format!("nothing came within {}", humantime::format_duration(within))),
        };
        let (part, tried) = now;
        Way { held, end: came_back.map(|came_back| DeadEnd { part, tried, came_back }) }
    }

    /// `now` is what is being tried, so that it is known when the time is over.
    async fn parts(&self, held: &mut Vec<Check>, now: &mut (Part, String)) -> Result<(), String> {
        *now = (Part::Name, format!("resolve {}", self.host));
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await.map_err(|err| err.to_string())?;
        let found: Vec<SocketAddr> = found.collect();
        let shown: Vec<String> = found.iter().map(|at| format!("{} ({})", at.ip(), network_of(at.ip()))).collect();
        held.push(Check::held(&now.1, shown.join(", ")));

        *now = (Part::Connection, format!("connect to {}:{}", self.host, self.port));
        let (at, stream) = connect(&found).await?;
        held.push(Check::held(&now.1, format!("{} accepts", at.ip())));

        let Some(trust) = &self.trust else { return Ok(()) };
        *now = (Part::Tls, format!("TLS with {}", self.host));
        let session = self.secure(stream, trust).await?;
        held.push(Check::held(&now.1, certificate_of(&session)));
        Ok(())
    }

    async fn secure(&self, stream: TcpStream, trust: &Trust) -> Result<TlsStream<TcpStream>, String> {
        let config = tls::client_config(trust).map_err(|err| err.to_string())?;
        let name = ServerName::try_from(self.host.clone()).map_err(|err| err.to_string())?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|err| one_line(&err.to_string()))
    }
}

/// Connects to all addresses side by side; the first that accepts is as good as any.
async fn connect(addresses: &[SocketAddr]) -> Result<(SocketAddr, TcpStream), String> {
    let mut tries: FuturesUnordered<_> =
        addresses.iter().map(async |address| (*address, TcpStream::connect(address).await)).collect();
    let mut refused = Vec::new();
    while let Some((address, outcome)) = tries.next().await {
        match outcome {
            Ok(stream) => return Ok((address, stream)),
            Err(err) => refused.push(format!("{}: {err}", address.ip())),
        }
    }
    if refused.is_empty() { Err("the name has no address".to_owned()) } else { Err(refused.join(", ")) }
}

/// Who vouches for the server: whoever inspects TLS on the way shows here.
fn certificate_of(session: &TlsStream<TcpStream>) -> String {
    let (_, connection) = session.get_ref();
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(_) | None => "TLS 1.2",
    };
    let leaf = connection.peer_certificates().and_then(|chain| chain.first());
    let Some((_, leaf)) = leaf.and_then(|leaf| parse_x509_certificate(leaf).ok()) else {
        return version.to_owned();
    };
    let ends = u64::try_from(leaf.validity().not_after.timestamp()).unwrap_or(0);
    let ends = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(ends));
    one_line(&format!("{version}, certificate issued by {}, ends {ends}", leaf.issuer()))
}

/// Says what kind of network an address is of. Source: RFC 1918, RFC 4193, RFC 6598 (shared address space).
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
    fn tells_networks_apart() {
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
    fn reads_the_origin_of_an_authority() {
        let server = |origin| Server::of_https(origin, Trust::System).map(|server| (server.host, server.port));
        assert_eq!(server("https://login.example"), Some(("login.example".to_owned(), 443)));
        assert_eq!(server("https://[::1]:8443"), Some(("::1".to_owned(), 8443)));
    }

    #[tokio::test]
    async fn says_which_part_of_the_way_is_missing() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let open = silent.local_addr().unwrap().port();
        for (host, port, part, held) in [
            ("nowhere.invalid", 443, Part::Name, 0),
            ("127.0.0.1", closed, Part::Connection, 1),
            // Accepted by the system, never answered: the handshake is what hangs.
            ("127.0.0.1", open, Part::Tls, 2),
        ] {
            let server = Server { host: host.to_owned(), port, trust: Some(Trust::Nobody) };
            let way = server.try_way(Duration::from_millis(300)).await;
            let end = way.end.unwrap();
            // A resolver may be slow to say no; that it is the name is known all the same.
            assert_eq!((end.part, way.held.len()), (part, held), "{host}: {}", end.came_back);
        }
    }
}
