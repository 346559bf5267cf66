//! Connections through a forward proxy: which go through it, what happens when it opens no tunnel, and changes of the proxy.

use signalr_gateway::sandbox::{CredentialChoice, GatewayConfig};

use crate::support::{
    BROADCAST_BODY, BROADCAST_PATH, Caller, ConnectProxy, GatewayOptions, Harness, HarnessBuilder, Process, Program,
    ProxyAnswer, RawEndpoint, wait_until,
};

/// Returns the host and port of an https URL.
fn authority(url: &str) -> String {
    url.strip_prefix("https://").unwrap().to_owned()
}

/// Returns the destinations that a gateway in front of the sandbox connects to over TLS.
fn destinations(harness: &Harness) -> [String; 3] {
    [harness.sandbox.entra().url(), harness.endpoint("east").url(), harness.endpoint("west").url()]
        .map(|url| authority(&url))
}

async fn proxy_errors(harness: &Harness, endpoint: &str) -> f64 {
    let labels = [("endpoint", endpoint), ("reason", "proxy")];
    harness.metrics().await.sum("upstream_errors_total", &labels)
}

#[tokio::test]
async fn calls_probes_and_token_requests_go_through_the_proxy() {
    let proxy = ConnectProxy::start();
    let harness = Harness::start(|options| {
        options.set("egress.proxy", &proxy.url());
    })
    .await;
    harness.broadcast().await.assert_status(202);
    // West receives only probes.
    wait_until("each destination was asked for", async || {
        let targets = proxy.targets();
        destinations(&harness).iter().all(|destination| targets.contains(destination)).then_some(())
    })
    .await;
    let status = harness.admin("/status").await.json();
    assert_eq!(status["endpoints"][0]["proxy"], proxy.url());

    harness.clear_arrivals();
    drop(proxy);
    let refused = harness.broadcast().await;
    refused.assert_gateway_error(503, "endpoint_unavailable");
    assert!(!refused.text().contains("127.0.0.1"), "{}", refused.text());
    assert!(harness.arrivals("east").is_empty() && harness.arrivals("west").is_empty());
    assert!(proxy_errors(&harness, "east").await >= 1.0);
}

#[tokio::test]
async fn http2_endpoints_are_reached_through_a_proxy() {
    let proxy = ConnectProxy::start();
    let harness = Harness::start(|options| {
        options.set("egress.proxy", &proxy.url()).set("endpoints.east.http_version", "2");
    })
    .await;
    harness.broadcast().await.assert_status(202);
    assert_eq!(harness.arrivals("east").len(), 1);
}

#[tokio::test]
async fn proxy_may_use_tls_and_require_a_password() {
    let proxy = ConnectProxy::start_tls();
    let builder = HarnessBuilder::start().await;
    let (ca_file, password) = (builder.folder.path().join("proxy.pem"), builder.folder.path().join("password"));
    std::fs::write(&ca_file, proxy.certificate()).unwrap();
    std::fs::write(&password, "correct horse\n").unwrap();
    let harness = builder
        .start_gateway(|options| {
            options.set("egress.proxy", &proxy.url()).set("egress.ca_file", ca_file.to_str().unwrap());
            options.set("egress.username", "gateway").set("egress.password.file", password.to_str().unwrap());
        })
        .await;
    harness.broadcast().await.assert_status(202);
    assert_eq!(proxy.last_user().as_deref(), Some("gateway:correct horse"));
    let targets = proxy.targets();
    assert!(destinations(&harness)[..2].iter().all(|destination| targets.contains(destination)), "{targets:?}");
}

#[tokio::test]
async fn exceptions_and_endpoints_that_turn_the_proxy_off_are_connected_to_directly() {
    let proxy = ConnectProxy::start();
    let excepted = Harness::start(|options| {
        options.set("egress.proxy", &proxy.url()).set("egress.no_proxy", r#"["127.0.0.0/8"]"#);
    })
    .await;
    excepted.broadcast().await.assert_status(202);
    assert!(proxy.requests().is_empty(), "{:?}", proxy.targets());

    let partly = Harness::start(|options| {
        options.set("egress.proxy", &proxy.url()).set("endpoints.east.proxy", "off");
    })
    .await;
    partly.broadcast().await.assert_status(202);
    let [entra, east, _] = destinations(&partly);
    assert!(proxy.targets().contains(&entra) && !proxy.targets().contains(&east), "{:?}", proxy.targets());
}

#[tokio::test]
async fn refused_tunnel_means_that_nothing_was_sent_and_the_next_endpoint_gets_the_call() {
    let early = b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n".to_vec();
    let huge = [b"HTTP/1.1 200 x\r\na: ".to_vec(), vec![b'b'; 64 * 1024]].concat();
    for answer in [
        ProxyAnswer::Bytes(b"HTTP/1.1 407 x\r\nproxy-authenticate: Basic realm=\"corp\"\r\n\r\n".to_vec()),
        ProxyAnswer::Bytes(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_vec()),
        ProxyAnswer::Bytes(b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>".to_vec()),
        ProxyAnswer::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
        ProxyAnswer::Bytes(early),
        ProxyAnswer::Bytes(huge),
        ProxyAnswer::Bytes(b"HTTP/1.1 200 Conn".to_vec()),
        ProxyAnswer::Bytes(Vec::new()),
        ProxyAnswer::Silence,
    ] {
        let proxy = ConnectProxy::start();
        proxy.answer(answer.clone());
        let harness = Harness::start(|options| {
            options.set("endpoints.east.proxy", &proxy.url()).set("endpoints.east.connect_timeout", "500ms");
        })
        .await;
        harness.broadcast().await.assert_status(202);
        assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (0, 1), "{answer:?}");
        assert!(proxy_errors(&harness, "east").await >= 1.0, "{answer:?}");
    }
}

#[tokio::test]
async fn token_requests_that_the_proxy_refuses_are_reported_as_such() {
    let proxy = ConnectProxy::start();
    proxy.refuse("403 Forbidden");
    let harness = Harness::start(|options| {
        options.set("egress.proxy", &proxy.url());
        options.wait_until_ready = false;
    })
    .await;
    let error = wait_until("the token request has failed", async || {
        harness.credential("east").await["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(error.contains("the proxy answered 403") && error.contains(&proxy.url()), "{error}");
    harness.broadcast().await.assert_gateway_error(503, "token_unavailable");
    let labels = [("credential", "east"), ("reason", "proxy")];
    assert!(harness.metrics().await.sum("token_errors_total", &labels) >= 1.0);
}

#[tokio::test]
async fn wrong_password_is_sent_once_by_all_credentials_and_endpoints_together() {
    let proxy = ConnectProxy::start();
    proxy.refuse("407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"corp\"");
    let builder = HarnessBuilder::start().await;
    let password = builder.folder.path().join("password");
    std::fs::write(&password, "wrong").unwrap();
    let harness = builder
        .start_gateway(|options| {
            options.set("egress.proxy", &proxy.url()).set("egress.username", "gateway");
            options.set("egress.password.file", password.to_str().unwrap());
            options.wait_until_ready = false;
        })
        .await;
    wait_until("the token requests of both tenants have failed", async || {
        let (east, west) = (harness.credential("east").await, harness.credential("west").await);
        [east, west].iter().all(|credential| credential["last_error"].is_string()).then_some(())
    })
    .await;
    wait_until("both endpoints were probed", async || {
        let status = harness.admin("/status").await.json();
        let endpoints = status["endpoints"].as_array().unwrap();
        endpoints.iter().all(|endpoint| endpoint["last_failure"].is_object()).then_some(())
    })
    .await;
    assert_eq!(proxy.requests().len(), 1, "{:?}", proxy.targets());

    // Another password is sent at once.
    proxy.answer(ProxyAnswer::Tunnel);
    std::fs::write(&password, "correct horse").unwrap();
    wait_until("endpoints are reached", async || (harness.broadcast().await.status == 202).then_some(())).await;
}

#[tokio::test]
async fn identity_endpoints_of_the_host_and_http_endpoints_are_not_proxied() {
    for choice in
        [CredentialChoice::ManagedIdentity, CredentialChoice::FederatedIdentity, CredentialChoice::FederatedGcp]
    {
        let proxy = ConnectProxy::start();
        let harness = Harness::start(|options| {
            options.set("egress.proxy", &proxy.url());
            options.config = GatewayConfig::default().with_credential("east", choice);
        })
        .await;
        harness.broadcast().await.assert_status(202);
        let destinations = destinations(&harness);
        let targets = proxy.targets();
        assert!(targets.iter().all(|target| destinations.contains(target)), "{choice:?}: {targets:?}");
    }
    let (proxy, raw) = (ConnectProxy::start(), RawEndpoint::start().await);
    let harness = Harness::start(|options: &mut GatewayOptions| {
        options.set("egress.proxy", &proxy.url());
        raw.replace_endpoint("east", options);
    })
    .await;
    let call = harness.broadcast();
    let (answer, response) = tokio::join!(
        async {
            let (head, mut connection) = raw.call().await;
            connection.write("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
            // The connection stays open until the response has been read.
            (head, connection)
        },
        call
    );
    response.assert_status(202);
    assert!(answer.0.starts_with("POST /api/hubs/chat"), "{}", answer.0);
    let [entra, ..] = destinations(&harness);
    assert!(proxy.targets().contains(&entra));
}

/// Starts the binary in front of a sandbox, and returns it once it has tokens.
async fn start(builder: &HarnessBuilder, toml: &str, environment: &[(&str, &str)]) -> Process {
    let config = GatewayConfig { more: toml.to_owned(), ..GatewayConfig::default() };
    let files = builder.write_files(&config);
    let program = Program::gateway(&files.config, &["process.workers=1"]).environment(environment);
    let process = program.start(builder.folder.path()).await;
    process.wait_until_credentials_are("ready").await;
    process
}

async fn broadcast(process: &Process) -> crate::support::Response {
    Caller::connect(process.listener()).await.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await
}

#[tokio::test]
async fn proxy_of_the_environment_is_used_only_if_configured() {
    let (proxy, builder) = (ConnectProxy::start(), HarnessBuilder::start().await);
    let url = format!("http://gateway:cor%20rect@{}", proxy.address());
    let environment = [("HTTPS_PROXY", url.as_str()), ("NO_PROXY", "localhost,10.0.0.0/8")];
    let unused = start(&builder, "", &environment).await;
    broadcast(&unused).await.assert_status(202);
    assert!(proxy.requests().is_empty());
    let log = unused.log();
    assert_eq!(log.matches("HTTPS_PROXY is set, but it is not used").count(), 1, "{log}");
    drop(unused);

    let used = start(&builder, "\n[egress]\nproxy = \"environment\"\n", &environment).await;
    broadcast(&used).await.assert_status(202);
    assert!(proxy.targets().contains(&authority(&builder.sandbox.endpoint("east").unwrap().url())));
    assert_eq!(proxy.last_user().as_deref(), Some("gateway:cor rect"));
    let log = used.log();
    assert!(!log.contains("HTTPS_PROXY") && !log.contains("cor%20rect") && !log.contains("cor rect"), "{log}");
}

#[tokio::test]
async fn refusal_of_the_proxy_is_in_the_log() {
    let (proxy, builder) = (ConnectProxy::start(), HarnessBuilder::start().await);
    let toml = format!("\n[egress]\nproxy = \"{}\"\n", proxy.url());
    let process = start(&builder, &toml, &[]).await;
    proxy.refuse("407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm=\"corp\"");
    // Calls on connections that are open already succeed.
    wait_until("the log has the proxy's answer", async || {
        for _ in 0..8 {
            let _served_or_refused = broadcast(&process).await;
        }
        let log = process.log();
        (log.contains("the proxy answered 407") && log.contains(&proxy.url())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn changed_proxy_gets_new_connections_and_the_old_one_keeps_none() {
    let (old, new) = (ConnectProxy::start(), ConnectProxy::start());
    let builder = HarnessBuilder::start().await;
    let process = start(&builder, &format!("\n[egress]\nproxy = \"{}\"\n", old.url()), &[]).await;
    broadcast(&process).await.assert_status(202);
    assert!(old.open_tunnels() > 0 && new.requests().is_empty());
    let config = builder.folder.path().join("gateway.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace(&old.url(), &new.url())).unwrap();
    process.hang_up().await;
    wait_until("the new proxy is in force", async || {
        let status = process.status().await;
        (status["endpoints"][0]["proxy"] == new.url()).then_some(())
    })
    .await;
    let before = old.requests().len();
    broadcast(&process).await.assert_status(202);
    wait_until("no connection through the old proxy is left", async || (old.open_tunnels() == 0).then_some(())).await;
    assert!(new.targets().contains(&authority(&builder.sandbox.endpoint("east").unwrap().url())));
    assert_eq!(old.requests().len(), before, "the old proxy was asked again");
}
