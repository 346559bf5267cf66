//! haproxy in front of a listener: the PROXY protocol, versions 1 and 2, and the headers `X-Forwarded-For` and `Forwarded`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use signalr_gateway::tls::{Trust, client_config};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::server::{Server, folder, free_address};
use super::support::{BROADCAST_BODY, Harness, broadcast_request, wait_until, with_timeout};

/// A caller on this host that is not a trusted proxy.
const NEAR: &str = "127.0.0.7";
/// Another one.
const FAR: &str = "127.0.0.9";

/// The burst of a caller: far more calls than the rate refills in the meantime.
pub(super) const BURST: usize = 20;

/// Routes calls from [`NEAR`] to `west`, and trusts the proxy at 127.0.0.1.
const LISTENERS: &str = "[[routes]]\nname = \"near\"\nmatch = { client = \"127.0.0.7\" }\nendpoints = [\"west\"]\n\
    [[routes]]\nname = \"others\"\nendpoints = [\"east\"]\n\
    [listeners.headers]\nbind = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n\
    client_rate = { per_second = 1, burst = 20 }\n\
    [listeners.protocol]\nbind = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\n\
    client_rate = { per_second = 1, burst = 20 }\n";

async fn gateway(more: &str) -> Harness {
    Harness::start(|options| {
        options.append_toml(LISTENERS).append_toml(more);
    })
    .await
}

/// Starts haproxy with a frontend in `mode` whose backend has these lines.
async fn haproxy(mode: &str, backend: &str) -> (Server, TempDir) {
    let (folder, address) = (folder(), free_address());
    let configuration = format!(
        "defaults\nmode {mode}\ntimeout connect 5s\ntimeout client 20s\ntimeout server 20s\n\
         default-server source 127.0.0.1\n\
         frontend in\nbind {address}\ndefault_backend out\n\
         backend out\n{backend}\n"
    );
    std::fs::write(folder.path().join("haproxy.cfg"), configuration).unwrap();
    let server = Server::start("/usr/sbin/haproxy", &["-db", "-f", "haproxy.cfg"], address, folder.path()).await;
    (server, folder)
}

/// Opens a connection from an address of this host.
async fn connect_from(source: &str, to: SocketAddr) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
    with_timeout("a connection", socket.connect(to)).await.unwrap()
}

/// A response, which may have headers of the proxy.
pub(super) struct Answer {
    status: StatusCode,
    error: Option<String>,
}

impl Answer {
    #[track_caller]
    pub(super) fn assert_status(&self, status: u16) {
        assert_eq!((self.status.as_u16(), self.error.as_deref()), (status, None));
    }

    #[track_caller]
    pub(super) fn assert_gateway_error(&self, status: u16, kind: &str) {
        assert_eq!((self.status.as_u16(), self.error.as_deref()), (status, Some(kind)));
    }
}

/// Sends a call from an address of this host, with headers that a caller made up.
pub(super) async fn call_from(source: &str, to: SocketAddr, headers: &[(&str, &str)]) -> Answer {
    send(connect_from(source, to).await, headers).await
}

async fn send(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, headers: &[(&str, &str)]) -> Answer {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = headers.iter().fold(broadcast_request(), |request, (name, value)| request.header(*name, *value));
    let request = request.header("host", "localhost").body(Full::<Bytes>::from(BROADCAST_BODY)).unwrap();
    let response = with_timeout("a response", sender.send_request(request)).await.unwrap();
    let error = response.headers().get("signalr-gateway-error").map(|kind| kind.to_str().unwrap().to_owned());
    Answer { status: response.status(), error }
}

/// Asserts that callers behind the proxy are told apart, by routes and by rates, whatever headers they make up.
/// Their burst is [`BURST`].
pub(super) async fn assert_callers_have_their_own_routes_and_rates(
    harness: &Harness,
    proxy: SocketAddr,
    made_up: &[(&str, &str)],
) {
    let mut accepted = Vec::new();
    // The second caller calls when the first has exceeded its rate.
    for source in [NEAR, FAR] {
        for headers in [&[][..], made_up] {
            call_from(source, proxy, headers).await.assert_status(202);
        }
        let own = 2 + exceed_rate(source, proxy, &[]).await;
        assert!(own >= BURST, "{source}: {own} calls");
        let refilled = exceed_rate(source, proxy, made_up).await;
        assert!(refilled < BURST / 2, "{source}: {refilled} calls with headers that it made up");
        accepted.push(own + refilled);
    }
    assert_eq!([harness.arrivals("west").len(), harness.arrivals("east").len()], accepted[..]);
}

/// Calls until the rate is exceeded. Returns how many calls were accepted.
async fn exceed_rate(source: &str, proxy: SocketAddr, headers: &[(&str, &str)]) -> usize {
    let mut accepted = 0;
    wait_until("the rate is exceeded", async || {
        let answer = call_from(source, proxy, headers).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            answer.assert_gateway_error(429, "rate_limited");
            return Some(());
        }
        answer.assert_status(202);
        accepted += 1;
        None
    })
    .await;
    accepted
}

#[tokio::test]
async fn haproxy_names_callers_by_both_versions_of_the_proxy_protocol() {
    for version in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"] {
        let harness = gateway("").await;
        let backend = format!("server gateway {} {version}", harness.listener("protocol"));
        let (proxy, _folder) = haproxy("tcp", &backend).await;
        let made_up = [("x-forwarded-for", NEAR), ("forwarded", "for=127.0.0.7")];
        assert_callers_have_their_own_routes_and_rates(&harness, proxy.address(), &made_up).await;
        let refused = harness.metrics().await.sum("proxy_protocol_refused_total", &[]);
        assert!(refused < 0.5, "{version}: {refused} refused");
        harness.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn haproxy_names_callers_by_x_forwarded_for_and_by_forwarded() {
    // haproxy adds a line of its own, and removes the header that it does not set.
    for backend in [
        "option forwardfor\nhttp-request del-header forwarded\n",
        "http-request del-header x-forwarded-for\nhttp-request add-header forwarded for=%[src]\n",
    ] {
        let harness = gateway("").await;
        let backend = format!("{backend}server gateway {}", harness.listener("headers"));
        let (proxy, _folder) = haproxy("http", &backend).await;
        let made_up = [("x-forwarded-for", NEAR), ("forwarded", "for=127.0.0.7")];
        assert_callers_have_their_own_routes_and_rates(&harness, proxy.address(), &made_up).await;
        harness.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn haproxy_passes_tls_through_behind_the_proxy_protocol() {
    let certificates = tempfile::tempdir().unwrap();
    let harness = gateway(&tls_listener(certificates.path())).await;
    let backend = format!("server gateway {} send-proxy-v2", harness.listener("secure"));
    let (proxy, _folder) = haproxy("tcp", &backend).await;
    for (source, expected) in [(NEAR, 202), (FAR, 403)] {
        let stream = connect_from(source, proxy.address()).await;
        let config = client_config(&Trust::from_ca_file(Some(&certificates.path().join("listener.pem")))).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = with_timeout("a handshake", connector.connect(name, stream)).await.unwrap();
        assert_eq!(send(stream, &[]).await.status, expected, "{source}");
    }
}

fn tls_listener(folder: &Path) -> String {
    let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.join("listener.pem"), folder.join("listener.key"));
    std::fs::write(&certificate, issued.cert.pem()).unwrap();
    std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    format!(
        "[listeners.secure]\nbind = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\n\
         clients = [\"{NEAR}\"]\ntls = {{ certificate = \"{}\", key = \"{}\" }}\n",
        certificate.display(),
        key.display()
    )
}

#[tokio::test]
async fn health_checks_of_haproxy_pass_with_a_proxy_header_and_fail_without() {
    let harness = gateway("").await;
    let address = harness.listener("protocol");
    let check = "option httpchk GET /api/health\nhttp-check expect status 200\n";
    let with = format!("{check}server gateway {address} send-proxy-v2 check check-send-proxy inter 50ms fall 1 rise 1");
    let (proxy, _folder) = haproxy("tcp", &with).await;
    call_from(FAR, proxy.address(), &[]).await.assert_status(202);
    // Checks without it are closed, counted and logged.
    let without = format!("{check}server gateway {address} check inter 50ms fall 1 rise 1");
    let (_other, _folder) = haproxy("tcp", &without).await;
    wait_until("a check without a header is counted", async || {
        let labels = [("listener", "protocol"), ("reason", "missing")];
        (harness.metrics().await.sum("proxy_protocol_refused_total", &labels) > 0.5).then_some(())
    })
    .await;
    call_from(FAR, proxy.address(), &[]).await.assert_status(202);
}
