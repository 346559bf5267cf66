//! Faults of Entra on real sockets: how each is reported, and that no call fails or waits while a token is valid.

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
    BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, HarnessBuilder, Program, Samples, wait_until, with_timeout,
};

const BY_HUB: &str = "[[routes]]\nname = \"east\"\nmatch = { hub = \"chat\" }\nendpoints = [\"east\"]\n\
                      [[routes]]\nname = \"west\"\nendpoints = [\"west\"]\n";

/// A description with every character that could start a line or control a terminal.
const CONTROL_CHARACTERS: &str = r#"{"error":"invalid_client","error_codes":[7000215],"correlation_id":"c-1\r\nx",
    "error_description":"AADSTS7000215: Invalid client secret.\r\n\u001b[31mred\u0000\u0007\t\"quoted\" \u0027x\u0027\r\nTrace ID: 1"}"#;

#[tokio::test]
async fn a_tenant_whose_entra_takes_longer_than_ten_seconds_gets_a_token() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.entra().faults().set(Fault::always(FaultKind::Delay { delay_ms: 10_500 }));
    // Waits until all credentials have a token.
    let harness = builder.start_gateway(|_| {}).await;
    harness.broadcast().await.assert_status(202);
    let errors = harness.metrics().await.sum("token_errors_total", &[("reason", "network")]);
    assert!(errors > 0.5, "the first requests were answered in time");
}

/// A fault of Entra and how it is reported.
struct EntraFault {
    what: &'static str,
    start: fn(&Sandbox),
    /// The label of `token_errors_total`.
    reason: &'static str,
    /// A part of the error on `/status`.
    reported: &'static str,
}

fn always(sandbox: &Sandbox, kind: FaultKind) {
    sandbox.entra().faults().set(Fault::always(kind));
}

fn lifetime(sandbox: &Sandbox, expires_in: Value) {
    sandbox.directory().edit(|directory| directory.tokens.expires_in = Some(expires_in));
}

const FAULTS: &[EntraFault] = &[
    EntraFault {
        what: "throttled for two hours",
        start: |sandbox| always(sandbox, FaultKind::status_after(429, Duration::from_secs(7200))),
        reason: "throttled",
        reported: "429",
    },
    EntraFault {
        what: "500",
        start: |sandbox| always(sandbox, FaultKind::status(500)),
        reason: "network",
        reported: "500",
    },
    EntraFault {
        what: "503 with an HTML page",
        start: |sandbox| always(sandbox, FaultKind::html(503)),
        reason: "network",
        reported: "503",
    },
    EntraFault {
        what: "a reset before the response",
        start: |sandbox| always(sandbox, FaultKind::Reset),
        reason: "network",
        reported: "returned no complete response",
    },
    EntraFault {
        what: "a reset in the middle of the body",
        start: |sandbox| always(sandbox, FaultKind::BreakBody),
        reason: "network",
        reported: "the connection closed before the response was complete",
    },
    EntraFault {
        what: "403 with an HTML page of a proxy",
        start: |sandbox| always(sandbox, FaultKind::html(403)),
        reason: "malformed",
        reported: "a proxy or captive portal responded instead",
    },
    EntraFault {
        what: "200 with an HTML page",
        start: |sandbox| always(sandbox, FaultKind::html(200)),
        reason: "malformed",
        reported: "not a JSON object",
    },
    EntraFault {
        what: "200 with an empty object",
        start: |sandbox| always(sandbox, FaultKind::json(200, "{}")),
        reason: "malformed",
        reported: "no access token",
    },
    EntraFault {
        what: "a negative lifetime",
        start: |sandbox| lifetime(sandbox, json!(-5)),
        reason: "malformed",
        reported: "-5 seconds",
    },
    EntraFault {
        what: "a lifetime in words",
        start: |sandbox| lifetime(sandbox, json!("soon")),
        reason: "malformed",
        reported: "its `expires_in` is neither a number of seconds nor a date",
    },
    EntraFault {
        what: "the longest lifetime",
        start: |sandbox| lifetime(sandbox, json!(i64::MAX)),
        reason: "malformed",
        reported: "9223372036854775807 seconds",
    },
    EntraFault {
        what: "a lifetime that is not an integer",
        start: |sandbox| lifetime(sandbox, json!(1e300)),
        reason: "malformed",
        reported: "its `expires_in` is neither a number of seconds nor a date",
    },
    EntraFault {
        what: "a rejection with control characters",
        start: |sandbox| always(sandbox, FaultKind::json(401, CONTROL_CHARACTERS)),
        reason: "invalid_client",
        reported: "AADSTS7000215: the client secret is wrong",
    },
];

async fn start_cold(sandbox: HarnessBuilder, more: &str) -> Harness {
    sandbox
        .start_gateway(|options| {
            options.wait_until_ready = false;
            options.set("process.workers", "1").append_toml(more);
        })
        .await
}

const EAST_ONLY: &str = "[[routes]]\nname = \"only\"\nendpoints = [\"east\"]\n";

fn token_requests(sandbox: &Sandbox, tenant: &str) -> usize {
    let path = format!("/{tenant}/oauth2/v2.0/token");
    sandbox.entra().journal().entries().iter().filter(|entry| entry.path() == path).count()
}

fn token_waits(metrics: &Samples) -> f64 {
    metrics.sum("token_wait_seconds_count", &[])
}

/// Checks a cold start under a fault: callers get `Retry-After`, operators get the cause.
async fn cold_start(fault: &EntraFault) {
    let builder = HarnessBuilder::start().await;
    (fault.start)(&builder.sandbox);
    let harness = start_cold(builder, EAST_ONLY).await;
    let response = harness.broadcast().await;
    response.assert_gateway_error(503, "token_unavailable");
    let retry_after: u64 = response.header("retry-after").unwrap().parse().unwrap();
    // Entra's two hours are limited to five minutes, and `Retry-After` is never 0.
    assert!((1..=301).contains(&retry_after), "{}: {retry_after}", fault.what);
    for hidden in ["AADSTS", TENANT_B, APP_CLIENT_ID, "127.0.0.1"] {
        assert!(!response.text().contains(hidden), "{}: {}", fault.what, response.text());
    }
    let credential = harness.credential("east").await;
    let error = credential["last_error"].as_str().unwrap_or_default();
    assert!(credential["state"] == "unavailable" && error.contains(fault.reported), "{}: {credential}", fault.what);
    assert!(!error.chars().any(char::is_control), "{}: {error:?}", fault.what);
    let counted =
        harness.metrics().await.sum("token_errors_total", &[("credential", "east"), ("reason", fault.reason)]);
    assert!(counted >= 1.0, "{}: not counted as {}", fault.what, fault.reason);
    assert!(harness.arrivals("east").is_empty(), "{}", fault.what);
}

#[tokio::test]
async fn reports_each_fault_of_entra_at_a_cold_start() {
    futures_util::stream::iter(FAULTS).for_each_concurrent(4, cold_start).await;
}

/// Checks that no call fails or waits when a refresh fails while the token is valid.
async fn refresh(fault: &EntraFault) {
    let builder = HarnessBuilder::start().await;
    // The refresh is due after half of the lifetime and fails within two seconds; the token is valid for four more.
    builder.sandbox.directory().edit(|directory| directory.tokens.lifetime = Duration::from_secs(16));
    let harness = builder
        .start_gateway(|options| {
            options.set("process.workers", "1").append_toml(EAST_ONLY);
        })
        .await;
    (fault.start)(&harness.sandbox);
    let mut caller = harness.caller().await;
    let before = token_waits(&harness.metrics().await);
    wait_until("a refresh has failed", async || {
        caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
        tokio::time::sleep(Duration::from_millis(100)).await;
        (harness.credential("east").await["state"] == "stale").then_some(())
    })
    .await;
    caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
    let waited = token_waits(&harness.metrics().await) - before;
    assert!(waited.abs() < 0.1, "{}: {waited} requests waited although there was a token", fault.what);
    assert_eq!(harness.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn no_request_waits_for_a_failing_refresh_while_a_token_is_valid() {
    let wanted = [
        "503 with an HTML page",
        "200 with an empty object",
        "throttled for two hours",
        "a rejection with control characters",
    ];
    let faults: Vec<&EntraFault> = FAULTS.iter().filter(|fault| wanted.contains(&fault.what)).collect();
    assert_eq!(faults.len(), wanted.len());
    join_all(faults.into_iter().map(refresh)).await;
}

#[tokio::test]
async fn no_request_waits_for_a_refresh_that_hangs() {
    let builder = HarnessBuilder::start().await;
    // The refresh begins after half of it.
    builder.sandbox.directory().edit(|directory| directory.tokens.lifetime = Duration::from_secs(16));
    let harness = builder
        .start_gateway(|options| {
            options.append_toml(EAST_ONLY);
        })
        .await;
    let (requests_before, waits_before) =
        (token_requests(&harness.sandbox, TENANT_B), token_waits(&harness.metrics().await));
    always(&harness.sandbox, FaultKind::Hang);
    let mut caller = harness.caller().await;
    wait_until("a refresh has begun", async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        (token_requests(&harness.sandbox, TENANT_B) > requests_before).then_some(())
    })
    .await;
    for _ in 0..10 {
        caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
    }
    let waited = token_waits(&harness.metrics().await) - waits_before;
    assert!(waited.abs() < 0.1, "{waited}");
}

#[tokio::test]
async fn hanging_credential_does_not_delay_others() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.entra().faults().set(Fault::always(FaultKind::Hang).on_path(&format!("/{TENANT_C}")));
    let harness = start_cold(builder, BY_HUB).await;
    wait_until("east is ready", async || (harness.credential("east").await["state"] == "ready").then_some(())).await;
    let before = token_waits(&harness.metrics().await);
    // One worker serves both: calls that wait for west must not delay those to east.
    let mut hanging = harness.caller().await;
    let hanging = tokio::spawn(async move {
        hanging.post("/api/hubs/west/:send?api-version=2022-11-01", "application/json", BROADCAST_BODY).await
    });
    wait_until("the call is in flight", async || {
        ((harness.metrics().await.sum("requests_in_flight", &[]) - 1.0).abs() < 0.1).then_some(())
    })
    .await;
    let mut caller = harness.caller().await;
    for _ in 0..200 {
        caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
    }
    let waited = token_waits(&harness.metrics().await) - before;
    assert!(!hanging.is_finished() && waited.abs() < 0.1, "{waited} waits");
    hanging.abort();
}

#[tokio::test]
async fn thousand_callers_at_a_cold_start_share_one_acquisition() {
    raise_file_limit();
    // Without TLS to the endpoint, because the handshakes would take most of the time.
    let mut settings = SandboxSettings::default();
    settings.endpoints.iter_mut().for_each(|endpoint| endpoint.tls = false);
    let builder = HarnessBuilder::with(settings).await;
    always(&builder.sandbox, FaultKind::Delay { delay_ms: 1500 });
    let harness = start_cold(builder, &format!("{EAST_ONLY}[timeouts]\nrequest = \"100s\"\ntry = \"100s\"\n")).await;
    let callers = (0..1000)
        .map(|_| async { harness.caller().await.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await });
    for response in with_timeout("a thousand responses", join_all(callers)).await {
        response.assert_status(202);
    }
    assert_eq!(token_requests(&harness.sandbox, TENANT_B), 1);
    assert_eq!(harness.arrivals("east").len(), 1000);
}

/// Raises the limit of open files: the test has more than two thousand sockets open at once.
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
        let harness = start_cold(builder, EAST_ONLY).await;
        wait_until("east is ready", async || (harness.credential("east").await["state"] == "ready").then_some(()))
            .await;
        let expires = harness.metrics().await.sum("token_expiry_timestamp_seconds", &[("credential", "east")]);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((expires - now - 3599.0).abs() < 60.0, "not counted by this host's clock: {}", expires - now);
    }
    let builder = HarnessBuilder::start().await;
    builder.sandbox.directory().edit(|directory| directory.tokens.clock_offset_secs = 660);
    let harness = builder
        .start_gateway(|options| {
            options.wait_until_ready = false;
            options.config = options.config.clone().with_credential("east", CredentialChoice::ClientCertificate);
            options.append_toml(EAST_ONLY);
        })
        .await;
    harness.broadcast().await.assert_gateway_error(503, "token_unavailable");
    let error = harness.credential("east").await["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("AADSTS700024") && error.contains("check this host's clock"), "{error}");
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
    let files = builder.write_files(&GatewayConfig::default());
    let program = Program::gateway(&files.config, &[]).environment(&environment);
    let gateway = program.start(builder.folder.path()).await;
    gateway.wait_until_credentials_are("ready").await;
    Caller::connect(gateway.listener())
        .await
        .post(BROADCAST_PATH, "application/json", BROADCAST_BODY)
        .await
        .assert_status(202);
    assert!(builder.sandbox.imds().journal().received() > 0 && builder.sandbox.entra().journal().received() > 0);
    let seen = tokio::time::timeout(Duration::from_millis(200), proxy.accept()).await;
    assert!(seen.is_err(), "the proxy received a request: {seen:?}");
    assert!(token_requests(&builder.sandbox, TENANT_A) == 0);
}
