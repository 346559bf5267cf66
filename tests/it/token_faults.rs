//! Faults of Entra on real sockets: how each is reported, that callers notice nothing while a token is valid, and what
//! must never happen.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use signalr_gateway::sandbox::{
    APP_CLIENT_ID, CredentialChoice, Fault, FaultKind, GatewayConfig, Sandbox, SandboxSettings, TENANT_A, TENANT_B,
    TENANT_C,
};
use tokio::net::TcpListener;

use crate::support::{
    BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, HarnessBuilder, Process, Samples, wait_until, with_timeout,
};

const BY_HUB: &str = "[[routes]]\nname = \"east\"\nmatch = { hub = \"chat\" }\nendpoints = [\"east\"]\n\
                      [[routes]]\nname = \"west\"\nendpoints = [\"west\"]\n";

/// A description with every character that could start a line or control a terminal.
const NASTY: &str = r#"{"error":"invalid_client","error_codes":[7000215],"correlation_id":"c-1\r\nx",
    "error_description":"AADSTS7000215: Invalid client secret.\r\n\u001b[31mred\u0000\u0007\t\"quoted\" \u0027x\u0027\r\nTrace ID: 1"}"#;

/// A fault of Entra and how it is reported.
struct Fall {
    what: &'static str,
    begins: fn(&Sandbox),
    /// The label of `token_errors_total`.
    reason: &'static str,
    /// A part of the error on `/status`.
    told: &'static str,
}

fn always(sandbox: &Sandbox, kind: FaultKind) {
    sandbox.entra().faults().set(Fault::always(kind));
}

fn lifetime(sandbox: &Sandbox, expires_in: Value) {
    sandbox.directory().edit(|directory| directory.tokens.expires_in = Some(expires_in));
}

const FALLS: &[Fall] = &[
    Fall {
        what: "throttled for two hours",
        begins: |sandbox| always(sandbox, FaultKind::status_after(429, Duration::from_secs(7200))),
        reason: "throttled",
        told: "429",
    },
    Fall { what: "500", begins: |sandbox| always(sandbox, FaultKind::status(500)), reason: "network", told: "500" },
    Fall {
        what: "503, a page",
        begins: |sandbox| always(sandbox, FaultKind::html(503)),
        reason: "network",
        told: "503",
    },
    Fall {
        what: "a reset before the answer",
        begins: |sandbox| always(sandbox, FaultKind::Reset),
        reason: "network",
        told: "did not answer",
    },
    Fall {
        what: "a reset in the middle of the body",
        begins: |sandbox| always(sandbox, FaultKind::BreakBody),
        reason: "network",
        told: "broke off",
    },
    Fall {
        what: "a page of a proxy",
        begins: |sandbox| always(sandbox, FaultKind::html(403)),
        reason: "malformed",
        told: "something stands between it and the gateway",
    },
    Fall {
        what: "a page with 200",
        begins: |sandbox| always(sandbox, FaultKind::html(200)),
        reason: "malformed",
        told: "not the JSON of a token answer",
    },
    Fall {
        what: "an empty object with 200",
        begins: |sandbox| always(sandbox, FaultKind::json(200, "{}")),
        reason: "malformed",
        told: "no access token",
    },
    Fall {
        what: "a life that is over",
        begins: |sandbox| lifetime(sandbox, json!(-5)),
        reason: "malformed",
        told: "-5 seconds",
    },
    Fall {
        what: "a life in words",
        begins: |sandbox| lifetime(sandbox, json!("soon")),
        reason: "malformed",
        told: "its `expires_in` is neither a number of seconds nor a date",
    },
    Fall {
        what: "a life of ages",
        begins: |sandbox| lifetime(sandbox, json!(i64::MAX)),
        reason: "malformed",
        told: "9223372036854775807 seconds",
    },
    Fall {
        what: "a lifetime that is not an integer",
        begins: |sandbox| lifetime(sandbox, json!(1e300)),
        reason: "malformed",
        told: "its `expires_in` is neither a number of seconds nor a date",
    },
    Fall {
        what: "a refusal full of escapes",
        begins: |sandbox| always(sandbox, FaultKind::json(401, NASTY)),
        reason: "invalid_client",
        told: "AADSTS7000215: the client secret is wrong",
    },
];

async fn cold(sandbox: HarnessBuilder, more: &str) -> Harness {
    sandbox
        .start_gateway(|options| {
            options.wait_until_ready = false;
            options.set("process.workers", "1").append_toml(more);
        })
        .await
}

const EAST_ALONE: &str = "[[routes]]\nname = \"only\"\nendpoints = [\"east\"]\n";

fn token_requests(sandbox: &Sandbox, tenant: &str) -> usize {
    let path = format!("/{tenant}/oauth2/v2.0/token");
    sandbox.entra().journal().entries().iter().filter(|entry| entry.path() == path).count()
}

fn waits(metrics: &Samples) -> f64 {
    metrics.sum("token_wait_seconds_count", &[])
}

/// Checks a cold start under a fault: callers get `Retry-After`, operators get the cause.
async fn cold_start(fall: &Fall) {
    let builder = HarnessBuilder::start().await;
    (fall.begins)(&builder.sandbox);
    let harness = cold(builder, EAST_ALONE).await;
    let answer = harness.broadcast().await;
    answer.assert_gateway_error(503, "token_unavailable");
    let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    // Entra's two hours are limited to five minutes, and `Retry-After` is never 0.
    assert!((1..=301).contains(&retry_after), "{}: {retry_after}", fall.what);
    for hidden in ["AADSTS", TENANT_B, APP_CLIENT_ID, "127.0.0.1"] {
        assert!(!answer.text().contains(hidden), "{}: {}", fall.what, answer.text());
    }
    let credential = harness.credential("east").await;
    let told = credential["last_error"].as_str().unwrap_or_default();
    assert!(credential["state"] == "unavailable" && told.contains(fall.told), "{}: {credential}", fall.what);
    assert!(!told.chars().any(char::is_control), "{}: {told:?}", fall.what);
    let counted = harness.metrics().await.sum("token_errors_total", &[("credential", "east"), ("reason", fall.reason)]);
    assert!(counted >= 1.0, "{}: not counted as {}", fall.what, fall.reason);
    assert!(harness.arrivals("east").is_empty(), "{}", fall.what);
}

#[tokio::test]
async fn reports_each_fault_of_entra_at_a_cold_start() {
    futures_util::stream::iter(FALLS).for_each_concurrent(4, cold_start).await;
}

/// Checks that callers notice nothing of a refresh that fails while the token is valid.
async fn refresh(fall: &Fall) {
    let builder = HarnessBuilder::start().await;
    // The refresh is due after half of the lifetime and fails within two seconds; the token is valid for four more.
    builder.sandbox.directory().edit(|directory| directory.tokens.lifetime = Duration::from_secs(16));
    let harness = builder
        .start_gateway(|options| {
            options.set("process.workers", "1").append_toml(EAST_ALONE);
        })
        .await;
    (fall.begins)(&harness.sandbox);
    let mut caller = harness.caller().await;
    let before = waits(&harness.metrics().await);
    wait_until("a refresh has failed", async || {
        caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
        tokio::time::sleep(Duration::from_millis(100)).await;
        (harness.credential("east").await["state"] == "stale").then_some(())
    })
    .await;
    caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
    let waited = waits(&harness.metrics().await) - before;
    assert!(waited.abs() < 0.1, "{}: {waited} requests waited although there was a token", fall.what);
    assert_eq!(harness.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn no_request_waits_for_a_failing_refresh_while_a_token_is_valid() {
    let wanted = ["503, a page", "an empty object with 200", "throttled for two hours", "a refusal full of escapes"];
    let falls: Vec<&Fall> = FALLS.iter().filter(|fall| wanted.contains(&fall.what)).collect();
    assert_eq!(falls.len(), wanted.len());
    join_all(falls.into_iter().map(refresh)).await;
}

#[tokio::test]
async fn no_request_waits_for_a_refresh_that_hangs() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.directory().edit(|directory| directory.tokens.lifetime = Duration::from_secs(12));
    let harness = builder
        .start_gateway(|options| {
            options.append_toml(EAST_ALONE);
        })
        .await;
    let (asked, before) = (token_requests(&harness.sandbox, TENANT_B), waits(&harness.metrics().await));
    always(&harness.sandbox, FaultKind::Hang);
    let mut caller = harness.caller().await;
    wait_until("a refresh has begun", async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        (token_requests(&harness.sandbox, TENANT_B) > asked).then_some(())
    })
    .await;
    for _ in 0..100 {
        caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
    }
    let waited = waits(&harness.metrics().await) - before;
    assert!(waited.abs() < 0.1, "{waited}");
}

#[tokio::test]
async fn hanging_credential_does_not_delay_others() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.entra().faults().set(Fault::always(FaultKind::Hang).on_path(&format!("/{TENANT_C}")));
    let harness = cold(builder, BY_HUB).await;
    wait_until("east is ready", async || (harness.credential("east").await["state"] == "ready").then_some(())).await;
    let before = waits(&harness.metrics().await);
    // One worker serves both: calls that wait for west must not delay those to east.
    let mut stuck = harness.caller().await;
    let stuck = tokio::spawn(async move {
        stuck.post("/api/hubs/west/:send?api-version=2022-11-01", "application/json", BROADCAST_BODY).await
    });
    wait_until("the call is in flight", async || {
        ((harness.metrics().await.sum("requests_in_flight", &[]) - 1.0).abs() < 0.1).then_some(())
    })
    .await;
    let mut caller = harness.caller().await;
    for _ in 0..200 {
        caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
    }
    let waited = waits(&harness.metrics().await) - before;
    assert!(!stuck.is_finished() && waited.abs() < 0.1, "{waited} waits");
    stuck.abort();
}

#[tokio::test]
async fn thousand_callers_at_a_cold_start_share_one_acquisition() {
    raise_file_limit();
    // Without TLS to the endpoint, because the handshakes would take most of the time.
    let mut settings = SandboxSettings::default();
    settings.endpoints.iter_mut().for_each(|endpoint| endpoint.tls = false);
    let builder = HarnessBuilder::with(settings).await;
    always(&builder.sandbox, FaultKind::Delay { delay_ms: 1500 });
    let harness = cold(builder, &format!("{EAST_ALONE}[timeouts]\nrequest = \"20s\"\ntry = \"20s\"\n")).await;
    let callers = (0..1000)
        .map(|_| async { harness.caller().await.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await });
    for answer in with_timeout("a thousand answers", join_all(callers)).await {
        answer.assert_status(202);
    }
    assert_eq!(token_requests(&harness.sandbox, TENANT_B), 1);
    assert_eq!(harness.arrivals("east").len(), 1000);
}

/// This process has more than two thousand sockets open at once.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[tokio::test]
async fn clock_skew_is_reported_for_certificates_and_does_not_stop_secrets() {
    for offset in [600, -600] {
        let builder = HarnessBuilder::start().await;
        builder.sandbox.directory().edit(|directory| directory.tokens.clock_offset_secs = offset);
        let harness = cold(builder, EAST_ALONE).await;
        wait_until("east is ready", async || (harness.credential("east").await["state"] == "ready").then_some(()))
            .await;
        let expires = harness.metrics().await.sum("token_expiry_timestamp_seconds", &[("credential", "east")]);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((expires - now - 3599.0).abs() < 60.0, "counted by this host's clock: {}", expires - now);
    }
    let builder = HarnessBuilder::start().await;
    builder.sandbox.directory().edit(|directory| directory.tokens.clock_offset_secs = 660);
    let harness = builder
        .start_gateway(|options| {
            options.wait_until_ready = false;
            options.config = options.config.clone().with_credential("east", CredentialChoice::ClientCertificate);
            options.append_toml(EAST_ALONE);
        })
        .await;
    harness.broadcast().await.assert_gateway_error(503, "token_unavailable");
    let told = harness.credential("east").await["last_error"].as_str().unwrap().to_owned();
    assert!(told.contains("AADSTS700024") && told.contains("check this host's clock"), "{told}");
    let counted = harness.metrics().await.sum("token_errors_total", &[("reason", "assertion_expired")]);
    assert!((counted - 1.0).abs() < 0.1, "{counted}");
}

#[tokio::test]
async fn identity_requests_ignore_proxy_variables() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let environment = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    let environment = environment.map(|name| (name, address.as_str()));
    let builder = HarnessBuilder::start().await;
    // East uses Entra, west the metadata service as well.
    let files = builder.sandbox.write_files(builder.folder.path(), &GatewayConfig::default()).unwrap();
    let config = files.config.to_str().unwrap();
    let gateway = Process::start(&["run", "--config", config], &environment, builder.folder.path()).await;
    gateway.wait_until_credentials_are("ready").await;
    Caller::connect(gateway.listener())
        .await
        .post(BROADCAST_PATH, "application/json", BROADCAST_BODY)
        .await
        .assert_status(202);
    assert!(builder.sandbox.imds().journal().received() > 0 && builder.sandbox.entra().journal().received() > 0);
    let seen = tokio::time::timeout(Duration::from_millis(200), proxy.accept()).await;
    assert!(seen.is_err(), "the proxy was asked: {seen:?}");
    assert!(token_requests(&builder.sandbox, TENANT_A) == 0);
}
