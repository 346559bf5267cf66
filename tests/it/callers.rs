//! Callers by certificate: who they are, where their calls go, what they may do, and which handshakes are refused.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::pki::{CallerCertificate, EXPIRED, Pki, VALID, tls_connect};
use crate::support::{
    BROADCAST_BODY, Caller, Harness, HarnessBuilder, Process, Response, broadcast_request, request, run, wait_until,
    with_timeout,
};

/// Starts a gateway with a listener `mesh` that verifies callers. Calls of `prod/orders` go to `west`, all others to `east`.
async fn mesh(auth: &str, more: &str) -> (Harness, Pki) {
    let builder = HarnessBuilder::start().await;
    let pki = Pki::new(builder.folder.path(), "mesh");
    let tls = pki.tls(&format!(", client_auth = \"{auth}\""));
    let harness = builder.start_gateway(|options| {
        options.append_toml(&format!("[listeners.mesh]\nbind = \"127.0.0.1:0\"\n{tls}{more}"));
    });
    (harness.await, pki)
}

const BY_CALLER: &str = "[[routes]]\nname = \"orders\"\nmatch = { caller = \"spiffe://prod/orders\" }\nendpoints = [\"west\"]\n\
                         [[routes]]\nname = \"rest\"\nendpoints = [\"east\"]\n";

async fn connect(harness: &Harness, pki: &Pki, certificate: Option<&CallerCertificate>) -> Caller {
    Caller::over(tls_connect(harness.listener("mesh"), pki.client(certificate)).await.unwrap(), "localhost".to_owned())
        .await
}

async fn broadcast(caller: &mut Caller) -> Response {
    caller.send(broadcast_request(), BROADCAST_BODY).await
}

async fn by_http2(stream: TlsStream<TcpStream>) -> StatusCode {
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let (mut head, ()) = broadcast_request().body(()).unwrap().into_parts();
    head.uri = format!("https://localhost{}", head.uri).parse().unwrap();
    let request = http::Request::from_parts(head, Full::<Bytes>::from(BROADCAST_BODY));
    with_timeout("a response", sender.send_request(request)).await.unwrap().status()
}

/// Returns how many calls each endpoint has received since the last time.
fn arrived(harness: &Harness) -> (usize, usize) {
    let counts = (harness.arrivals("east").len(), harness.arrivals("west").len());
    harness.clear_arrivals();
    counts
}

#[tokio::test]
async fn certificate_decides_the_route_over_http1_and_http2() {
    let (harness, pki) = mesh("optional", BY_CALLER).await;
    let orders = pki.caller("orders", &["spiffe://prod/orders"]);
    let billing = pki.caller("billing", &["spiffe://prod/billing"]);
    for (certificate, expected) in [(Some(&orders), (0, 2)), (Some(&billing), (2, 0)), (None, (2, 0))] {
        broadcast(&mut connect(&harness, &pki, certificate).await).await.assert_status(202);
        let mut config = pki.client(certificate);
        config.alpn_protocols = vec![b"h2".to_vec()];
        assert_eq!(by_http2(tls_connect(harness.listener("mesh"), config).await.unwrap()).await, 202);
        assert_eq!(arrived(&harness), expected);
    }
    // Callers of a plain listener need nothing, and have no identity whatever their headers say.
    let claimed = broadcast_request().header("x-forwarded-client-cert", "URI=spiffe://prod/orders");
    harness.caller().await.send(claimed, BROADCAST_BODY).await.assert_status(202);
    assert_eq!(arrived(&harness), (1, 0));
}

#[tokio::test]
async fn dns_name_and_subject_identify_callers_without_a_uri() {
    let routes = "[[routes]]\nname = \"known\"\nmatch = { caller = [\"Billing.prod.internal\", \"CN=billing,O=Example\"] }\n\
                  endpoints = [\"west\"]\n[[routes]]\nname = \"rest\"\nendpoints = [\"east\"]\n";
    let (harness, pki) = mesh("required", routes).await;
    let dns = |name: &str| vec![rcgen::SanType::DnsName(name.try_into().unwrap())];
    for (names, subject, is_known) in [
        (dns("billing.PROD.internal"), "x", true),
        (Vec::new(), "billing", true),
        (dns("other.prod.internal"), "billing", false),
        (Vec::new(), "billing,O=Example", false),
    ] {
        let certificate = pki.issue("caller", subject, names, VALID);
        broadcast(&mut connect(&harness, &pki, Some(&certificate)).await).await.assert_status(202);
        assert_eq!(arrived(&harness), if is_known { (0, 1) } else { (1, 0) }, "{subject}");
    }
}

#[tokio::test]
async fn configured_caller_is_bounded_in_operations_hubs_endpoints_and_rate() {
    let (harness, pki) = mesh(
        "optional",
        "[callers.orders]\nmatch = \"spiffe://prod/orders\"\noperations = [\"messages\"]\nhubs = [\"chat\", \"*_orders\", \"both\"]\n\
         endpoints = [\"east\"]\n[callers.slow]\nmatch = \"spiffe://prod/slow*\"\nrate = { per_second = 1, burst = 2 }\n\
         [[routes]]\nname = \"tenants\"\nmatch = { hub = \"{endpoint}_orders\" }\n\
         [[routes]]\nname = \"both\"\nmatch = { hub = \"both\" }\npick = \"all\"\nendpoints = [\"east\", \"west\"]\n\
         [[routes]]\nname = \"named\"\nmatch = { hub = [\"chat\", \"news\"] }\nendpoint_header = true\nendpoints = [\"east\", \"west\"]\n",
    )
    .await;
    let orders = pki.caller("orders", &["spiffe://prod/orders"]);
    let mut caller = connect(&harness, &pki, Some(&orders)).await;
    let post = |hub: &str| {
        request("POST", &format!("/api/hubs/{hub}/:send?api-version=2022-11-01"))
            .header("content-type", "application/json")
    };
    let named = |name: &str| post("chat").header("signalr-gateway-endpoint", name);
    for (call, error) in [
        (post("east_orders"), None),
        (named("east"), None),
        (post("west_orders"), Some("caller_not_allowed")),
        (post("north_orders"), Some("caller_not_allowed")),
        (named("west"), Some("caller_not_allowed")),
        (named("north"), Some("caller_not_allowed")),
        // The fan-out and the failover would reach the other endpoint.
        (post("both"), Some("caller_not_allowed")),
        (post("chat"), Some("caller_not_allowed")),
        (post("news"), Some("caller_not_allowed")),
        (request("GET", "/api/hubs/chat/groups/g/connections?api-version=2022-11-01"), Some("caller_not_allowed")),
    ] {
        let response = caller.send(call, BROADCAST_BODY).await;
        let status = if error.is_some() { 403 } else { 202 };
        assert_eq!(response.status, status, "{}", response.text());
        assert_eq!(response.headers.get("signalr-gateway-error").map(|kind| kind.to_str().unwrap()), error);
    }
    assert_eq!(arrived(&harness), (2, 0));
    // Probes are answered to everybody.
    caller.call("GET", "/api/health").await.assert_status(200);

    let slow = pki.caller("slow", &["spiffe://prod/slow/1"]);
    let mut caller = connect(&harness, &pki, Some(&slow)).await;
    let limited = wait_until("the rate is exceeded", async || {
        let response = caller.send(post("both"), BROADCAST_BODY).await;
        (response.status == 429).then_some(response)
    });
    assert!(limited.await.headers.contains_key("retry-after"));
    let other = pki.caller("other", &["spiffe://prod/other"]);
    connect(&harness, &pki, Some(&other)).await.send(post("both"), BROADCAST_BODY).await.assert_status(202);
    connect(&harness, &pki, None).await.send(post("both"), BROADCAST_BODY).await.assert_status(202);

    let metrics = harness.metrics().await;
    let count = |caller: &str, code: &str| metrics.sum("caller_requests_total", &[("caller", caller), ("code", code)]);
    assert_eq!((count("orders", "202"), count("orders", "403"), count("orders", "200")), (2.0, 8.0, 1.0));
    assert_eq!((count("_other", "202"), count("_none", "202")), (1.0, 1.0));
    assert!(count("slow", "429") >= 1.0 && metrics.sum("caller_rate_limited_total", &[("caller", "slow")]) >= 1.0);
    assert!(metrics.series().iter().all(|series| !series.contains("spiffe")), "an identity is a label");
}

#[tokio::test]
async fn call_that_only_routes_for_certificates_match_needs_one() {
    let routes = "[[routes]]\nname = \"orders\"\nmatch = { caller = \"spiffe://prod/orders\", hub = \"chat\" }\nendpoints = [\"west\"]\n";
    let (harness, pki) = mesh("optional", routes).await;
    let response = broadcast(&mut connect(&harness, &pki, None).await).await;
    assert_eq!(response.status, 403);
    assert_eq!(response.headers["signalr-gateway-error"], "certificate_required");
    let response = broadcast(&mut harness.caller().await).await;
    assert_eq!(response.status, 403);
    assert_eq!(response.headers["signalr-gateway-error"], "certificate_required");
    let other = pki.caller("other", &["spiffe://prod/other"]);
    assert_eq!(broadcast(&mut connect(&harness, &pki, Some(&other)).await).await.status, 404);
    let elsewhere = connect(&harness, &pki, None).await.call("GET", "/api/hubs/other/users/ann").await;
    assert_eq!(elsewhere.headers["signalr-gateway-error"], "no_route");
}

/// Returns whether a connection works: with TLS 1.3, a caller learns that its certificate is refused when it reads.
async fn is_accepted(address: std::net::SocketAddr, config: rustls::ClientConfig) -> bool {
    let Ok(mut stream) = tls_connect(address, config).await else { return false };
    let head = "GET /api/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let mut response = Vec::new();
    stream.write_all(head.as_bytes()).await.is_ok()
        && with_timeout("a response", stream.read_to_end(&mut response)).await.is_ok()
        && response.starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn refused_handshakes_are_counted_by_reason() {
    let builder = HarnessBuilder::start().await;
    let pki = Pki::new(builder.folder.path(), "mesh");
    let good = pki.caller("good", &["spiffe://prod/good"]);
    let revoked = pki.caller("revoked", &["spiffe://prod/revoked"]);
    let list = pki.revoke("crl.pem", &[&revoked], VALID);
    let expired_list = pki.revoke("expired-crl.pem", &[], EXPIRED);
    let of_other = Pki::new(builder.folder.path(), "other").revoke("other-crl.pem", &[], VALID);
    let listener = |name: &str, list: &Path| {
        format!(
            "[listeners.{name}]\nbind = \"127.0.0.1:0\"\n{}",
            pki.tls(&format!(", client_crl = \"{}\"", list.display()))
        )
    };
    let toml = listener("mesh", &list) + &listener("stale", &expired_list) + &listener("elsewhere", &of_other);
    let harness = builder.start_gateway(|options| _ = options.append_toml(&toml)).await;
    let other_ca = Pki::new(harness.folder.path(), "unknown");
    let stranger = other_ca.caller("stranger", &["spiffe://prod/good"]);
    let expired = pki.caller_valid("expired", &["spiffe://prod/good"], EXPIRED);
    let future = pki.caller_valid("future", &["spiffe://prod/good"], (2089, 2090));
    let two = pki.caller("two", &["spiffe://prod/good", "spiffe://prod/other"]);
    for (listener, certificate, reason) in [
        ("mesh", None, "no_certificate"),
        ("mesh", Some(&stranger), "unknown_ca"),
        ("mesh", Some(&expired), "expired"),
        ("mesh", Some(&future), "not_yet_valid"),
        ("mesh", Some(&revoked), "revoked"),
        ("mesh", Some(&two), "no_identity"),
        ("stale", Some(&good), "crl_expired"),
        ("elsewhere", Some(&good), "revocation_unknown"),
    ] {
        for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
            let mut config = pki.client(certificate);
            let older = rustls::ClientConfig::builder_with_provider(Arc::clone(config.crypto_provider()));
            let mut with_version = older
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots(&pki))
                .with_no_client_auth();
            with_version.client_auth_cert_resolver = Arc::clone(&config.client_auth_cert_resolver);
            std::mem::swap(&mut config, &mut with_version);
            assert!(!is_accepted(harness.listener(listener), config).await, "{reason}");
        }
        let labels = [("listener", listener), ("reason", reason)];
        wait_until(reason, async || (harness.metrics().await.sum("tls_refused_total", &labels) >= 2.0).then_some(()))
            .await;
    }
    assert!(is_accepted(harness.listener("mesh"), pki.client(Some(&good))).await);
}

fn roots(pki: &Pki) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(pki.ca()).unwrap();
    let certificate =
        <rustls_pki_types::CertificateDer as rustls_pki_types::pem::PemObject>::from_pem_slice(&pem).unwrap();
    roots.add(certificate).unwrap();
    roots
}

#[tokio::test]
async fn callers_that_share_a_session_cache_keep_their_own_identities() {
    let (harness, pki) = mesh("optional", BY_CALLER).await;
    let orders = pki.caller("orders", &["spiffe://prod/orders"]);
    let billing = pki.caller("billing", &["spiffe://prod/billing"]);
    // One process that connects with several certificates, and resumes every session that it can. rustls resumes a session only
    // with the same verifier and certificate as before, so each caller connects twice in a row as well.
    let sessions: Arc<dyn rustls::client::ClientSessionStore> =
        Arc::new(rustls::client::ClientSessionMemoryCache::new(64));
    for versions in [&[&rustls::version::TLS12], &[&rustls::version::TLS13]] {
        let caller = |certificate: Option<&CallerCertificate>| {
            let identified = pki.client(certificate);
            let config = rustls::ClientConfig::builder_with_provider(Arc::clone(identified.crypto_provider()));
            let config = config.with_protocol_versions(versions).unwrap();
            let mut config = config.with_root_certificates(roots(&pki)).with_no_client_auth();
            config.client_auth_cert_resolver = identified.client_auth_cert_resolver;
            config.resumption = rustls::client::Resumption::store(Arc::clone(&sessions));
            config
        };
        let callers = [(caller(Some(&orders)), (0, 1)), (caller(Some(&billing)), (1, 0)), (caller(None), (1, 0))];
        for (config, expected) in [0, 0, 1, 1, 0, 2, 2, 0, 1].map(|index| &callers[index]) {
            let stream = tls_connect(harness.listener("mesh"), config.clone()).await.unwrap();
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
            broadcast(&mut Caller::over(stream, "localhost".to_owned()).await).await.assert_status(202);
            assert_eq!(arrived(&harness), *expected);
        }
    }
}

/// Starts the real binary in front of a sandbox.
async fn start_process(more: &str) -> (HarnessBuilder, Pki, Process) {
    let builder = HarnessBuilder::start().await;
    let pki = Pki::new(builder.folder.path(), "mesh");
    pki.revoke("crl.pem", &[], VALID);
    let tls = pki.tls(&format!(", client_crl = \"{}/crl.pem\"", builder.folder.path().display()));
    let config = signalr_gateway::sandbox::GatewayConfig {
        more: format!("[listeners.mesh]\nbind = \"127.0.0.1:0\"\n{tls}{more}"),
        ..Default::default()
    };
    let files = builder.write_files(&config);
    let process = Process::start_gateway(&files.config, &["process.workers=2"]).await;
    process.wait_until_credentials_are("ready").await;
    (builder, pki, process)
}

#[tokio::test]
async fn revoked_certificate_loses_its_connection_at_a_reload_and_cannot_come_back() {
    let (_builder, pki, process) = start_process(BY_CALLER).await;
    let mesh = process.ready["listeners"]["mesh"].as_str().unwrap().parse().unwrap();
    let (kept, revoked) =
        (pki.caller("kept", &["spiffe://prod/kept"]), pki.caller("revoked", &["spiffe://prod/orders"]));
    let config = pki.client(Some(&revoked));
    let mut caller = Caller::over(tls_connect(mesh, config.clone()).await.unwrap(), "localhost".to_owned()).await;
    broadcast(&mut caller).await.assert_status(202);

    // A reload without a change of the lists closes nothing.
    process.hang_up().await;
    process.wait_for_reloads("success", 1.0).await;
    broadcast(&mut caller).await.assert_status(202);

    pki.revoke("crl.pem", &[&revoked], VALID);
    process.hang_up().await;
    process.wait_for_reloads("success", 2.0).await;
    wait_until("its connection is closed", async || caller.is_closed().then_some(())).await;
    assert!(!is_accepted(mesh, config).await, "the revoked certificate came back");
    assert!(is_accepted(mesh, pki.client(Some(&kept))).await);
    wait_until("the refusal is in the log", async || {
        let log = process.log();
        let line = log.lines().find(|line| line.contains("refused in the TLS handshake"))?;
        assert!(line.contains("\"error.kind\":\"revoked\"") && line.contains("127.0.0.1:"), "{line}");
        Some(())
    })
    .await;
    let line = wait_until("the call is in the log", async || {
        process
            .log()
            .lines()
            .find(|line| line.contains("signalr_gateway::access") && line.contains("spiffe"))
            .map(str::to_owned)
    });
    assert!(line.await.contains("\"caller\":\"spiffe://prod/orders\""));
}

#[tokio::test]
async fn admin_listener_with_a_client_ca_answers_probes_alone_to_clients_without_a_certificate() {
    let builder = HarnessBuilder::start().await;
    let pki = Pki::new(builder.folder.path(), "mesh");
    let tls = pki.tls(", client_auth = \"optional\"").replacen("tls = ", "", 1);
    let harness = builder.start_gateway(|options| {
        options.wait_until_ready = false;
        options.append_toml(&format!("[admin.tls]\n{}", tls.trim().trim_matches(['{', '}']).replace(", ", "\n")));
    });
    let harness = harness.await;
    let operator = pki.caller("operator", &["spiffe://prod/operator"]);
    let client = async |certificate: Option<&CallerCertificate>| {
        let stream = tls_connect(harness.admin_address(), pki.client(certificate)).await.unwrap();
        Caller::over(stream, "localhost".to_owned()).await
    };
    let mut anonymous = client(None).await;
    anonymous.call("GET", "/livez").await.assert_status(200);
    for path in ["/", "/status", "/metrics", "/nothing", "//livez"] {
        anonymous.call("GET", path).await.assert_status(403);
    }
    let mut identified = client(Some(&operator)).await;
    for path in ["/", "/status", "/metrics", "/livez"] {
        identified.call("GET", path).await.assert_status(200);
    }
    let stranger = Pki::new(harness.folder.path(), "other").caller("stranger", &["spiffe://prod/operator"]);
    assert!(!is_accepted(harness.admin_address(), pki.client(Some(&stranger))).await);
    let metrics = identified.call("GET", "/metrics").await.text();
    assert!(metrics.contains("tls_refused_total{listener=\"_admin\",reason=\"unknown_ca\"} 1"), "{metrics}");

    let address = harness.admin_address().to_string();
    let ca = pki.ca();
    let health = ["health", "--admin", &address, "--ca", ca.to_str().unwrap()];
    assert_eq!(run(&health).await.code, Some(0));
    let without_ca = &[&health[..3], &["tail", "--admin", &address]];
    for plain in without_ca {
        let outcome = run(plain).await;
        assert_eq!(outcome.code, Some(1), "plain HTTP");
        assert!(outcome.stderr.contains("not HTTP; if its admin listener has `tls`, give --ca"), "{}", outcome.stderr);
    }
    for command in ["health", "tail"] {
        let other = [&[command], &health[1..], &["--name", "other.example"]].concat();
        let outcome = run(&other).await;
        assert_eq!(outcome.code, Some(1));
        assert!(outcome.stderr.contains("give --name a name in its certificate"), "{}", outcome.stderr);
    }
}

#[tokio::test]
async fn health_presents_a_certificate_to_an_admin_listener_that_requires_one() {
    let builder = HarnessBuilder::start().await;
    let pki = Pki::new(builder.folder.path(), "mesh");
    let tls = pki.tls("").replacen("tls = ", "", 1);
    let harness = builder.start_gateway(|options| {
        options.wait_until_ready = false;
        options.append_toml(&format!("[admin.tls]\n{}", tls.trim().trim_matches(['{', '}']).replace(", ", "\n")));
    });
    let harness = harness.await;
    let address = harness.admin_address().to_string();
    let own = pki.caller("probe", &["spiffe://prod/probe"]);
    let (ca, certificate, key) = (pki.ca(), own.certificate.clone(), own.key.clone());
    let health = ["health", "--admin", &address, "--ca", ca.to_str().unwrap(), "--name", "localhost"];
    let with_own = ["--certificate", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let outcome = run(&[&health[..], &with_own].concat()).await;
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    let refused = run(&health).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("give --certificate and --key"), "{}", refused.stderr);
}

#[tokio::test]
async fn check_doctor_and_explain_know_callers() {
    let builder = HarnessBuilder::start().await;
    let pki = Pki::new(builder.folder.path(), "mesh");
    let list = pki.revoke("crl.pem", &[], EXPIRED);
    let write = |tls: &str| {
        let more = format!(
            "[listeners.mesh]\nbind = \"127.0.0.1:0\"\n{tls}[callers.orders]\nmatch = \"spiffe://prod/orders\"\noperations = [\"groups\"]\n{BY_CALLER}"
        );
        let config = signalr_gateway::sandbox::GatewayConfig { more, ..Default::default() };
        builder.write_files(&config).config
    };
    let config = write(&pki.tls(&format!(", client_crl = \"{}\"", list.display())));
    let config = config.to_str().unwrap();
    let checked = run(&["check", "--config", config]).await;
    assert_eq!(checked.code, Some(1), "{}", checked.stderr);
    assert!(checked.stderr.contains("error: listeners.mesh.tls: `client_crl`"), "{}", checked.stderr);
    assert!(checked.stderr.contains("crl.pem expired on"), "{}", checked.stderr);

    let examined = run(&["doctor", "--config", config]).await;
    assert_eq!(examined.code, Some(1), "{}", examined.stderr);
    assert!(examined.stdout.contains("listener mesh"), "{}", examined.stdout);
    assert!(examined.stdout.contains("crl.pem expired on"), "{}", examined.stdout);

    let explain = async |more: &[&str]| {
        run(&[&["explain", "--config", config, "POST", "/api/hubs/chat/:send"], more].concat()).await
    };
    let refused = explain(&["--listener", "mesh", "--caller", "spiffe://prod/orders"]).await;
    assert!(
        refused.stdout.contains("caller      orders") && refused.stdout.contains("403 caller_not_allowed"),
        "{}",
        refused.stdout
    );
    let refused = explain(&["--listener", "mesh"]).await;
    assert!(refused.stdout.contains("403 certificate_required"), "{}", refused.stdout);
    let passed = explain(&["--listener", "mesh", "--caller", "spiffe://prod/other"]).await;
    assert!(
        passed.stdout.contains("orders: caller is `spiffe://prod/other`, not `spiffe://prod/orders`"),
        "{}",
        passed.stdout
    );
    let wrong = explain(&["--listener", "default", "--caller", "spiffe://prod/other"]).await;
    assert!(wrong.code == Some(2) && wrong.stderr.contains("has no `client_ca`"), "{}", wrong.stderr);

    std::fs::write(
        builder.folder.path().join("mesh.pem"),
        "-----BEGIN CERTIFICATE-----\nMTIzNDU2Nzg=\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let examined = run(&["doctor", "--config", config, "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&examined.stdout).unwrap();
    let broken = report["listeners"][0]["problem"].as_str().unwrap();
    assert!(broken.contains("mesh.pem holds no certificate that can be used as a CA"), "{broken}");
    let checked = run(&["check", "--config", config]).await;
    assert_eq!(checked.code, Some(2));
    assert!(checked.stderr.contains("callers' certificates cannot be verified"), "{}", checked.stderr);
    assert!(checked.stderr.contains("mesh.pem holds no certificate that can be used as a CA"), "{}", checked.stderr);
}
