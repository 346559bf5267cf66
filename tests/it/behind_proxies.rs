//! Callers behind other proxies: their addresses come from trusted proxies alone, by headers and by the PROXY protocol.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::listener_reload::{ReloadableGateway, config};
use crate::listeners::{by_http1, secure_listener, secured_over};
use crate::support::{
    BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, RawConnection, broadcast_request, request, wait_until,
    with_timeout,
};

/// Sends calls from 203.0.113.0/24 to `west` and all others to `east`.
const BY_CLIENT: &str = "[[routes]]\nname = \"near\"\nmatch = { client = \"203.0.113.0/24\" }\nendpoints = [\"west\"]\n\
                         [[routes]]\nname = \"others\"\nendpoints = [\"east\"]\n";

/// A listener whose callers are in 203.0.113.0/24, behind proxies on this host.
const STRICT: &str = "[listeners.strict]\nbind = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n\
                      clients = [\"203.0.113.0/24\"]\nclient_rate = { per_second = 1, burst = 20 }\n";

/// The burst of a caller of `strict`: far more calls than the rate refills in the meantime.
const BURST: usize = 20;

fn with_headers(headers: &[(&str, &str)]) -> http::request::Builder {
    headers.iter().fold(broadcast_request(), |request, (name, value)| request.header(*name, *value))
}

/// Calls until the rate is exceeded. Returns how many calls were accepted.
async fn exceed_rate(proxy: &mut Caller, name: (&str, &str)) -> usize {
    let mut accepted = 0;
    wait_until("the rate is exceeded", async || {
        let response = proxy.send(with_headers(&[name]), BROADCAST_BODY).await;
        if response.status == 429 {
            response.assert_gateway_error(429, "rate_limited");
            return Some(());
        }
        response.assert_status(202);
        accepted += 1;
        None
    })
    .await;
    accepted
}

async fn unclear(harness: &Harness, reason: &str) -> f64 {
    harness.metrics().await.sum("caller_address_unclear_total", &[("listener", "strict"), ("reason", reason)])
}

#[tokio::test]
async fn trusted_proxies_name_the_caller_for_networks_rates_and_routes() {
    let harness = Harness::start(|options| {
        options.append_toml(&format!("{BY_CLIENT}{STRICT}"));
    })
    .await;
    let mut proxy = Caller::connect(harness.listener("strict")).await;
    // One connection carries calls of many callers. Each has a rate of its own, whichever header names it.
    let mut accepted = 0;
    for names in [
        [
            ("x-forwarded-for", "203.0.113.1"),
            ("x-forwarded-for", "10.0.0.1, 203.0.113.1:4711, 127.0.0.9"),
            ("forwarded", "for=203.0.113.1"),
        ],
        [
            ("forwarded", "for=10.0.0.1, for=203.0.113.2;proto=https, for=127.0.0.9"),
            ("forwarded", "for=\"203.0.113.2:_port\""),
            ("x-forwarded-for", "203.0.113.2"),
        ],
    ] {
        for name in names {
            proxy.send(with_headers(&[name]), BROADCAST_BODY).await.assert_status(202);
        }
        let own = names.len() + exceed_rate(&mut proxy, names[0]).await;
        assert!(own >= BURST, "{names:?}: {own} calls");
        accepted += own;
        for name in &names[1..] {
            let refilled = exceed_rate(&mut proxy, *name).await;
            assert!(refilled < BURST / 2, "{name:?}: {refilled} calls");
            accepted += refilled;
        }
    }
    assert_eq!(harness.arrivals("west").len(), accepted, "the route of the callers' network");
    // What the proxy received is not what a caller may claim.
    for header in [("x-forwarded-for", "203.0.113.3, 10.0.0.1"), ("forwarded", "for=203.0.113.3, for=10.0.0.1")] {
        let refused = proxy.send(with_headers(&[header]), BROADCAST_BODY).await;
        refused.assert_gateway_error(403, "client_not_allowed");
    }
    // The default listener trusts nobody.
    let claim = with_headers(&[("x-forwarded-for", "203.0.113.1"), ("forwarded", "for=203.0.113.1")]);
    harness.caller().await.send(claim, BROADCAST_BODY).await.assert_status(202);
    assert_eq!(harness.arrivals("east").len(), 1);
    let arrived = harness.arrival("east");
    let is_sent = |(name, _): &&(String, String)| name == "forwarded" || name == "x-forwarded-for";
    let mut sent: Vec<&str> = arrived.headers.iter().filter(is_sent).map(|(_, value)| &**value).collect();
    sent.sort_unstable();
    assert_eq!(sent, ["203.0.113.1", "for=203.0.113.1"]);
}

#[tokio::test]
async fn callers_that_proxies_do_not_name_are_counted_and_in_no_network() {
    let harness = Harness::start(|options| {
        options.append_toml(&format!("{BY_CLIENT}{STRICT}"));
        // The proxy itself is among the callers.
        options.set("listeners.strict.clients", "[\"203.0.113.0/24\", \"127.0.0.0/8\"]");
    })
    .await;
    let mut proxy = Caller::connect(harness.listener("strict")).await;
    for (headers, reason) in [
        (&[("x-forwarded-for", "203.0.113.1, nonsense")][..], "malformed"),
        (&[("forwarded", "for=\"203.0.113.1")], "malformed"),
        (&[("forwarded", "for=203.0.113.1"), ("x-forwarded-for", "203.0.113.2")], "conflicting"),
        (&[("forwarded", "for=_hidden")], "unknown"),
    ] {
        let before = unclear(&harness, reason).await;
        let refused = proxy.send(with_headers(headers), BROADCAST_BODY).await;
        refused.assert_gateway_error(403, "client_not_allowed");
        assert!((unclear(&harness, reason).await - before - 1.0).abs() < 0.5, "{headers:?}");
    }
    // A call of the proxy's own.
    proxy.send(with_headers(&[]), BROADCAST_BODY).await.assert_status(202);
    assert_eq!(harness.arrivals("east").len(), 1);
}

#[tokio::test]
async fn streams_of_one_http2_connection_have_callers_of_their_own() {
    let harness = Harness::start(|options| {
        options.append_toml(&format!("{BY_CLIENT}{STRICT}"));
    })
    .await;
    let tcp = TcpStream::connect(harness.listener("strict")).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    for (address, status) in [("203.0.113.1", 202), ("10.0.0.1", 403), ("203.0.113.2", 202)] {
        let (mut head, ()) = with_headers(&[("x-forwarded-for", address)]).body(()).unwrap().into_parts();
        head.uri = format!("http://localhost{BROADCAST_PATH}").parse().unwrap();
        let request = http::Request::from_parts(head, Full::<Bytes>::from(BROADCAST_BODY));
        let response = with_timeout("a response", sender.send_request(request)).await.unwrap();
        assert_eq!(response.status(), status, "{address}");
    }
    assert_eq!(harness.arrivals("west").len(), 2);
}

/// The PROXY header of a caller, in version 1 and in version 2 with a TLV.
fn proxy_headers(caller: [u8; 4]) -> [Vec<u8>; 2] {
    let [a, b, c, d] = caller;
    let v1 = format!("PROXY TCP4 {a}.{b}.{c}.{d} 127.0.0.1 4711 8080\r\n");
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11"[..], &caller, &[127, 0, 0, 1, 18, 103, 31, 144, 4, 0, 2, 0, 0]];
    [v1.into_bytes(), v2.concat()]
}

const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// A listener at `bind` with the PROXY protocol, whose callers are in 203.0.113.0/24 or on this host.
fn proxied(bind: &str, trusted: &str) -> String {
    format!(
        "[listeners.proxied]\nbind = \"{bind}\"\ntrusted_proxies = [\"{trusted}\"]\nproxy_protocol = true\n\
         clients = [\"203.0.113.0/24\", \"127.0.0.0/8\"]\n{BY_CLIENT}"
    )
}

async fn after(address: SocketAddr, header: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(header).await.unwrap();
    stream
}

#[tokio::test]
async fn proxy_protocol_names_the_caller_of_a_connection() {
    let harness = Harness::start(|options| {
        options.append_toml(&proxied("127.0.0.1:0", "127.0.0.1"));
        options.set("forwarding.client_address", "true");
    })
    .await;
    let address = harness.listener("proxied");
    for header in proxy_headers([203, 0, 113, 1]) {
        let mut caller = Caller::on(after(address, &header).await).await;
        caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
        // The header of the PROXY protocol is the peer. It is no trusted proxy, so its headers do not count.
        caller.send(with_headers(&[("x-forwarded-for", "10.0.0.1")]), BROADCAST_BODY).await.assert_status(202);
    }
    let arrivals = harness.arrivals("west");
    assert_eq!(arrivals.len(), 4);
    let forwarded = |name: &str| name == "x-forwarded-for";
    let last = arrivals[0].headers.iter().rfind(|(name, _)| forwarded(name)).map(|(_, value)| &**value);
    assert_eq!(last, Some("203.0.113.1"), "the address that is forwarded to endpoints");
    for header in proxy_headers([10, 0, 0, 1]) {
        let mut caller = Caller::on(after(address, &header).await).await;
        let refused = caller.send(broadcast_request(), BROADCAST_BODY).await;
        refused.assert_gateway_error(403, "client_not_allowed");
    }
    // The proxy's own connections.
    for header in [LOCAL, b"PROXY UNKNOWN\r\n"] {
        let mut caller = Caller::on(after(address, header).await).await;
        caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    }
    // In pieces, and together with the request.
    for header in proxy_headers([203, 0, 113, 2]) {
        let mut caller = RawConnection::connect(address).await;
        for byte in &header {
            caller.write([*byte]).await;
            tokio::task::yield_now().await;
        }
        caller.write("GET /api/health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        caller.response().await.unwrap().assert_status(200);
        let mut caller = RawConnection::connect(address).await;
        caller.write([&header, &b"GET /api/health HTTP/1.1\r\nhost: localhost\r\n\r\n"[..]].concat()).await;
        caller.response().await.unwrap().assert_status(200);
    }
}

#[tokio::test]
async fn proxy_protocol_comes_before_tls() {
    let folder = tempfile::tempdir().unwrap();
    let toml = secure_listener(folder.path());
    let harness = Harness::start(|options| {
        options.append_toml(&toml);
        options
            .append_toml("trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\nclients = [\"203.0.113.0/24\"]\n");
    })
    .await;
    for (caller, status) in [([203, 0, 113, 1], 202), ([10, 0, 0, 1], 403)] {
        for header in proxy_headers(caller) {
            let stream = after(harness.listener("secure"), &header).await;
            assert_eq!(by_http1(secured_over(stream, folder.path()).await.unwrap()).await, status);
        }
    }
    let without = TcpStream::connect(harness.listener("secure")).await.unwrap();
    assert!(secured_over(without, folder.path()).await.is_err());
}

/// Starts a gateway with listeners for the proxy protocol.
async fn harness_with_proxied_listeners(idle_timeout: &str) -> Harness {
    Harness::start(|options| {
        options.append_toml(&proxied("127.0.0.1:0", "127.0.0.1")).set("timeouts.idle", idle_timeout);
        options.append_toml(
            "[listeners.others]\nbind = \"127.0.0.1:0\"\ntrusted_proxies = [\"10.0.0.0/8\"]\nproxy_protocol = true\n",
        );
    })
    .await
}

/// Sends `sent` to a listener that closes the connection, and asserts that it counts the connection for this reason.
async fn assert_refused(harness: &Harness, listener: &str, sent: &[u8], reason: &str) {
    let count = async || {
        harness.metrics().await.sum("proxy_protocol_refused_total", &[("listener", listener), ("reason", reason)])
    };
    let before = count().await;
    let mut stream = after(harness.listener(listener), sent).await;
    let mut answer = Vec::new();
    let _reset = with_timeout("the end of the connection", stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "{reason}: {}", answer.escape_ascii());
    assert!((count().await - before - 1.0).abs() < 0.5, "{reason}: {}", sent.escape_ascii());
}

#[tokio::test]
async fn connections_without_a_valid_proxy_header_are_closed_and_counted() {
    let harness = harness_with_proxied_listeners("90s").await;
    let request = b"GET /api/health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let [v1, v2] = proxy_headers([203, 0, 113, 1]);
    // Connections that only check the port are not counted.
    drop(TcpStream::connect(harness.listener("proxied")).await.unwrap());
    for (listener, sent, reason) in [
        ("proxied", &request[..], "missing"),
        ("proxied", b"PROXY TCP4 203.0.113.1\r\nGET / HTTP/1.1\r\n\r\n", "malformed"),
        ("proxied", &[b'P'; 4096], "missing"),
        ("proxied", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "malformed"),
        ("others", &[&v1, &request[..]].concat(), "untrusted"),
    ] {
        assert_refused(&harness, listener, sent, reason).await;
    }
    assert!(harness.metrics().await.sum("proxy_protocol_refused_total", &[]) < 5.5);

    let harness = harness_with_proxied_listeners("1s").await;
    for sent in [b"PROXY TCP4 203.0.113.1 ", &v2[..20], b""] {
        assert_refused(&harness, "proxied", sent, "timeout").await;
    }
    assert!(harness.metrics().await.sum("proxy_protocol_refused_total", &[]) < 3.5);
}

#[tokio::test]
async fn proxies_on_a_unix_socket_name_the_caller_if_they_are_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (headers, protocol) = (folder.path().join("headers"), folder.path().join("protocol"));
    let harness = Harness::start(|options| {
        options.append_toml(&proxied(&format!("unix:{}", protocol.display()), "unix"));
        options.append_toml(&format!(
            "[listeners.headers]\nbind = \"unix:{}\"\ntrusted_proxies = [\"unix\", \"10.0.0.0/8\"]\n",
            headers.display()
        ));
    })
    .await;
    let mut caller = Caller::connect_unix(&headers).await;
    let named = with_headers(&[("x-forwarded-for", "203.0.113.1, 10.0.0.1")]);
    caller.send(named, BROADCAST_BODY).await.assert_status(202);
    caller.send(with_headers(&[]), BROADCAST_BODY).await.assert_status(202);
    assert_eq!((harness.arrivals("west").len(), harness.arrivals("east").len()), (1, 1));
    for header in proxy_headers([203, 0, 113, 1]) {
        let mut stream = tokio::net::UnixStream::connect(&protocol).await.unwrap();
        stream.write_all(&header).await.unwrap();
        assert_eq!(by_http1(stream).await, 202);
    }
    assert_eq!(harness.arrivals("west").len(), 3);
}

#[tokio::test]
async fn reload_applies_trusted_proxies_to_open_connections_and_the_protocol_to_new_ones() {
    let listener = |more: &str| config(format!("{BY_CLIENT}[listeners.proxied]\nbind = \"127.0.0.1:0\"\n{more}"));
    let gateway = ReloadableGateway::start(listener("")).await;
    let address = gateway.tcp_address("proxied").await;
    let mut open = Caller::connect(address).await;
    let named = || with_headers(&[("x-forwarded-for", "203.0.113.1")]);
    open.send(named(), BROADCAST_BODY).await.assert_status(202);
    assert_eq!((gateway.hubs_at("east").len(), gateway.hubs_at("west").len()), (1, 0));
    gateway.reload(&listener("trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\n")).await;
    open.send(named(), BROADCAST_BODY).await.assert_status(202);
    assert_eq!((gateway.hubs_at("east").len(), gateway.hubs_at("west").len()), (1, 1));
    wait_until("new connections need the header", async || {
        let mut raw = RawConnection::connect(address).await;
        raw.write("GET /api/health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        raw.response().await.is_none().then_some(())
    })
    .await;
    let mut raw = RawConnection::on(after(address, LOCAL).await);
    raw.write("GET /api/health HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    raw.response().await.unwrap().assert_status(200);
}

#[tokio::test]
async fn log_names_the_caller_and_says_when_it_is_unclear() {
    let gateway = ReloadableGateway::start(config("")).await;
    let toml = std::fs::read_to_string(&gateway.files.config).unwrap();
    let toml = toml.replace("[listeners.default]\n", "[listeners.default]\ntrusted_proxies = [\"127.0.0.1\"]\n");
    std::fs::write(&gateway.files.config, toml).unwrap();
    gateway.process.hang_up().await;
    gateway.process.wait_for_reloads("success", 1.0).await;
    let mut proxy = Caller::connect(gateway.process.listener()).await;
    for headers in [&[("forwarded", "for=\"[2001:db8::9]:4711\"")][..], &[("forwarded", "for=unknown")], &[]] {
        let call = headers.iter().fold(request("GET", "/nowhere"), |call, (name, value)| call.header(*name, *value));
        proxy.send(call, "").await.assert_gateway_error(404, "unknown_path");
    }
    drop(proxy);
    gateway.process.terminate().await;
    let (_, log) = gateway.process.wait().await;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let lines = lines.filter(|line| line["target"] == "signalr_gateway::access");
    let callers: Vec<_> = lines.map(|line| (line["client"].clone(), line["client.unclear"].clone())).collect();
    let null = serde_json::Value::Null;
    assert_eq!(
        callers,
        [("2001:db8::9".into(), null.clone()), ("127.0.0.1".into(), "unknown".into()), ("127.0.0.1".into(), null)]
    );
}
