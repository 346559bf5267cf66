//! Which requests are admitted, over real connections: hosts, browsers, networks, operations, sizes and framing.

use http::header::CONTENT_TYPE;
use signalr_gateway::sandbox::GatewayConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    ALL_OPERATIONS, BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, Process, RawConnection, broadcast_request,
    request, with_timeout,
};

/// Starts a gateway with the listeners `strict` and `elsewhere` beside the default one.
async fn strict_harness() -> Harness {
    Harness::start(|options| {
        options.append_toml(
            "[listeners.strict]\nbind = \"127.0.0.1:0\"\nallowed_hosts = [\"gateway.internal\", \"*.svc.cluster.local\"]\n\
             operations = [\"hub_send\", \"queries\"]\nrequired_header = { name = \"x-from\", value = \"inside\" }\n\
             [listeners.elsewhere]\nbind = \"127.0.0.1:0\"\nclients = [\"10.0.0.0/8\", \"192.168.0.0/16\"]\n",
        );
    })
    .await
}

fn assert_nothing_arrived(harness: &Harness) {
    assert!(harness.arrivals("east").is_empty() && harness.arrivals("west").is_empty());
}

#[tokio::test]
async fn rejects_hosts_that_are_not_configured() {
    let harness = strict_harness().await;
    let mut caller = Caller::connect(harness.listener("strict")).await;
    for (host, is_admitted) in [
        ("gateway.internal", true),
        ("Gateway.Internal:8080", true),
        ("a.b.svc.cluster.local", true),
        ("localhost:1", true),
        ("localhost.", true),
        ("127.0.0.1", true),
        ("[::1]:8080", true),
        ("svc.cluster.local", false),
        ("evil.example", false),
        ("gateway.internal.evil.example", false),
        ("127.0.0.1.nip.io", false),
    ] {
        let response =
            caller.send(broadcast_request().header("host", host).header("x-from", "inside"), BROADCAST_BODY).await;
        if is_admitted {
            response.assert_status(202);
        } else {
            response.assert_gateway_error(403, "host_not_allowed");
            assert!(
                response.text().contains("allowed_hosts"),
                "the message names no key to change: {}",
                response.text()
            );
        }
    }
    assert_eq!(harness.arrivals("east").len(), 7);
}

#[tokio::test]
async fn answers_health_probes_for_any_host() {
    let harness = strict_harness().await;
    for path in ["/api/health", "/api/v1/health"] {
        let mut caller = Caller::connect(harness.listener("strict")).await;
        for host in ["balancer.example", "", "localhost."] {
            caller.send(request("GET", path).header("host", host), "").await.assert_status(200);
        }
        let mut raw = RawConnection::connect(harness.listener("strict")).await;
        raw.write(format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        raw.response().await.unwrap().assert_status(200);
        let page = request("GET", path).header("host", "evil.example").header("origin", "https://evil.example");
        caller.send(page, "").await.assert_gateway_error(403, "origin_not_allowed");
    }
}

#[tokio::test]
async fn rejects_requests_of_browser_pages() {
    let harness = Harness::start(|_| {}).await;
    let mut caller = harness.caller().await;
    for (name, value, is_admitted) in [
        ("origin", "https://evil.example", false),
        ("origin", "null", false),
        ("sec-fetch-site", "cross-site", false),
        ("sec-fetch-site", "same-site", false),
        ("sec-fetch-site", "none", true),
    ] {
        let response = caller.send(broadcast_request().header(name, value), BROADCAST_BODY).await;
        if is_admitted {
            response.assert_status(202);
        } else {
            response.assert_gateway_error(403, "origin_not_allowed");
        }
    }
    // A form is sent without a preflight; its `Origin` shows that it comes from a page.
    let form =
        request("POST", BROADCAST_PATH).header(CONTENT_TYPE, "text/plain").header("origin", "http://127.0.0.1:8080");
    caller.send(form, BROADCAST_BODY).await.assert_gateway_error(403, "origin_not_allowed");
    // The gateway rejects preflight requests.
    let preflight = request("OPTIONS", BROADCAST_PATH)
        .header("origin", "https://evil.example")
        .header("access-control-request-method", "POST");
    caller.send(preflight, "").await.assert_gateway_error(403, "origin_not_allowed");
    assert_eq!(harness.arrivals("east").len(), 1);
}

#[tokio::test]
async fn rejects_callers_of_other_networks_or_without_the_required_header() {
    let harness = strict_harness().await;
    let mut elsewhere = Caller::connect(harness.listener("elsewhere")).await;
    elsewhere.send(broadcast_request(), BROADCAST_BODY).await.assert_gateway_error(403, "client_not_allowed");
    // Forwarding headers do not change the network of a caller.
    elsewhere
        .send(broadcast_request().header("x-forwarded-for", "10.0.0.1"), BROADCAST_BODY)
        .await
        .assert_gateway_error(403, "client_not_allowed");
    let mut strict = Caller::connect(harness.listener("strict")).await;
    strict.send(broadcast_request(), BROADCAST_BODY).await.assert_gateway_error(412, "header_required");
    strict
        .send(broadcast_request().header("x-from", "outside"), BROADCAST_BODY)
        .await
        .assert_gateway_error(412, "header_required");
    assert_nothing_arrived(&harness);
    strict.send(broadcast_request().header("X-From", "inside"), BROADCAST_BODY).await.assert_status(202);
}

#[tokio::test]
async fn allows_only_configured_operations() {
    let harness = strict_harness().await;
    let mut default = harness.caller().await;
    for (method, target) in [
        ("POST", "/api/hubs/chat/:generateToken"),
        ("GET", "/api/auth/accessKey"),
        ("GET", "/api/v1/auth/accessKey"),
        ("POST", "/api/hubs/chat/:closeConnections"),
        ("DELETE", "/api/v1/hubs/chat/connections/c"),
        ("POST", "/api/hubs/chat/users/u/:closeConnections"),
    ] {
        default.call(method, target).await.assert_gateway_error(403, "operation_not_allowed");
    }
    let mut strict = Caller::connect(harness.listener("strict")).await;
    let builder = request("POST", "/api/hubs/chat/groups/g/:send").header("x-from", "inside");
    strict.send(builder, BROADCAST_BODY).await.assert_gateway_error(403, "operation_not_allowed");
    assert_nothing_arrived(&harness);

    let harness = Harness::start(|options| {
        options.allow(&ALL_OPERATIONS);
    })
    .await;
    harness.call("POST", "/api/hubs/chat/:generateToken?api-version=2022-11-01").await.assert_status(200);
}

#[tokio::test]
async fn rejects_requests_outside_the_rest_api() {
    let harness = Harness::start(|options| {
        options.allow(&ALL_OPERATIONS);
    })
    .await;
    let mut caller = harness.caller().await;
    for target in [
        "/",
        "/api",
        "/api//hubs/chat/:send",
        "/api/hubs/chat/../other/:send",
        "/client/negotiate?hub=chat",
        "/metrics",
    ] {
        caller.post(target, "application/json", BROADCAST_BODY).await.assert_gateway_error(404, "unknown_path");
    }
    for target in [
        "/api/hubs/chat/users/../:send",
        "/api/hubs/chat/users/%2e%2e/:send",
        "/api/hubs/chat/groups/%2E/:send",
        "/api/hubs/chat/users/%zz/:send",
        "/api/hubs/chat/users/%ff/:send",
        "/api/hubs/chat%2Fusers/:send",
        "/api/hubs/9chat/:send",
    ] {
        caller.post(target, "application/json", BROADCAST_BODY).await.assert_gateway_error(400, "malformed");
    }
    for (method, target, allowed) in [
        ("GET", "/api/hubs/chat/:send", "POST"),
        ("POST", "/api/health", "GET, HEAD"),
        ("PATCH", "/api/hubs/chat/users/u/groups/g", "GET, HEAD, PUT, DELETE"),
        ("OPTIONS", "/api/hubs/chat/users/u", "GET, HEAD, POST"),
        ("BREW", "/api/hubs/chat/groups/g/connections/c", "PUT, DELETE"),
    ] {
        let response = caller.call(method, target).await;
        response.assert_gateway_error(405, "method_not_allowed");
        assert_eq!(response.header("allow"), Some(allowed));
    }
    assert_nothing_arrived(&harness);
    assert!(!caller.is_closed(), "a rejection closed the connection");
}

#[tokio::test]
async fn serves_on_unix_sockets_with_the_configured_mode() {
    use std::os::unix::fs::PermissionsExt;
    let builder = crate::support::HarnessBuilder::start().await;
    let path = builder.folder.path().join("gateway.sock");
    let toml =
        format!("[listeners.local]\nbind = \"unix:{}\"\nmode = \"0600\"\nclients = [\"10.0.0.0/8\"]\n", path.display());
    let harness = builder
        .start_gateway(|options| {
            options.append_toml(&toml);
        })
        .await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut caller = Caller::connect_unix(&path).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    // Browsers cannot reach a Unix socket, so any host is accepted, as at Docker's socket.
    for host in ["docker", "", "evil.example"] {
        caller.send(broadcast_request().header("host", host), BROADCAST_BODY).await.assert_status(202);
    }
    let mut without_host = tokio::net::UnixStream::connect(&path).await.unwrap();
    let head = format!(
        "POST {BROADCAST_PATH} HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BROADCAST_BODY}",
        BROADCAST_BODY.len()
    );
    without_host.write_all(head.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    with_timeout("a response", without_host.read_to_end(&mut response)).await.unwrap();
    assert!(response.starts_with(b"HTTP/1.0 202"), "{}", String::from_utf8_lossy(&response));
    assert_eq!(harness.arrivals("east").len(), 5);
    harness.shutdown().await.unwrap();
}

#[tokio::test]
async fn unix_socket_is_removed_at_a_clean_stop() {
    let builder = crate::support::HarnessBuilder::start().await;
    let path = builder.folder.path().join("gateway.sock");
    let more = format!("[listeners.local]\nbind = \"unix:{}\"\n", path.display());
    let files = builder.write_files(&GatewayConfig { more, ..GatewayConfig::default() });
    let process = Process::start_gateway(&files.config, &[]).await;
    assert!(path.exists());
    process.terminate().await;
    process.wait().await;
    assert!(!path.exists() && builder.folder.path().exists(), "the socket was not removed");
}
