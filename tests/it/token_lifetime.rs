//! The lifetime of tokens: a valid token is used until it expires, no expired token is sent, and a token that the
//! endpoint rejects is replaced once.

use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use signalr_gateway::sandbox::{Entry, Fault, FaultKind, GatewayConfig, Sandbox, TENANT_B};

use crate::support::{
    BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, HarnessBuilder, Process, Program, request, wait_until,
};

/// A route with one endpoint, so that no failover hides a failure.
const EAST_ONLY: &str = "[[routes]]\nname = \"only\"\nendpoints = [\"east\"]\n";

fn set_token_lifetime(sandbox: &Sandbox, seconds: u64) {
    sandbox.directory().edit(|directory| directory.tokens.lifetime = Duration::from_secs(seconds));
}

/// Asserts that each request arrived with a token that had not expired.
fn assert_none_expired(arrivals: &[Entry]) {
    for arrival in arrivals {
        let expires = arrival.authorization.as_ref().unwrap().claims["exp"].as_u64().unwrap();
        let arrived = arrival.at.duration_since(UNIX_EPOCH).unwrap();
        assert!(arrived < Duration::from_secs(expires), "a token that expired at {expires} arrived at {arrived:?}");
    }
}

async fn harness_with_only_east(builder: HarnessBuilder) -> Harness {
    builder
        .start_gateway(|options| {
            options.append_toml(EAST_ONLY);
        })
        .await
}

#[tokio::test]
async fn entra_outage_fails_no_request_while_tokens_are_valid() {
    let builder = HarnessBuilder::start().await;
    // The refresh is due after half of the lifetime, and fails while the token is valid.
    set_token_lifetime(&builder.sandbox, 16);
    let harness = harness_with_only_east(builder).await;
    harness.sandbox.entra().faults().refuse().await;
    harness.sandbox.imds().faults().refuse().await;
    let mut caller = harness.caller().await;
    let mut sent = 0;
    wait_until("a refresh has failed", async || {
        caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
        sent += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
        (harness.credential("east").await["state"] == "stale").then_some(())
    })
    .await;
    caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
    assert_eq!(harness.arrivals("east").len(), sent + 1);
    assert_eq!(harness.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn failing_refresh_keeps_the_token_and_is_reported() {
    let builder = HarnessBuilder::start().await;
    set_token_lifetime(&builder.sandbox, 12);
    let harness = harness_with_only_east(builder).await;
    harness.sandbox.entra().faults().set(Fault::always(FaultKind::html(503)));
    let mut caller = harness.caller().await;
    wait_until("a refresh has failed", async || {
        caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
        (harness.credential("east").await["state"] == "stale").then_some(())
    })
    .await;
    caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
    assert_eq!(harness.admin("/readyz").await.status, 200);
    let error = harness.credential("east").await["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains("503"), "{error}");
}

#[tokio::test]
async fn expired_token_is_never_sent_and_service_recovers_with_entra() {
    let builder = HarnessBuilder::start().await;
    set_token_lifetime(&builder.sandbox, 5);
    let harness = harness_with_only_east(builder).await;
    harness.sandbox.entra().faults().refuse().await;
    let mut caller = harness.caller().await;
    let mut served = 0;
    let rejected = wait_until("the token has expired", async || {
        let response = caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await;
        served += usize::from(response.status == 202);
        (response.status != 202).then_some(response)
    })
    .await;
    rejected.assert_gateway_error(503, "token_unavailable");
    let retry_after: u64 = rejected.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=300).contains(&retry_after), "{retry_after}");
    assert!(rejected.text().contains("nothing was sent"), "{}", rejected.text());
    assert_eq!(caller.call("GET", "/api/health").await.status, 503);
    assert_eq!(harness.admin("/readyz").await.status, 200, "an outage of Entra takes no replica out of service");
    assert_eq!(harness.arrivals("east").len(), served, "a rejected call was sent");

    harness.sandbox.entra().faults().clear().await;
    set_token_lifetime(&harness.sandbox, 3600);
    wait_until("calls are served again", async || {
        (caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.status == 202).then_some(())
    })
    .await;
    assert_eq!(harness.admin("/readyz").await.status, 200);
    assert!(served > 0);
    assert_none_expired(&harness.arrivals("east"));
}

#[tokio::test]
async fn refreshes_short_lived_tokens_in_time_under_load() {
    let builder = HarnessBuilder::start().await;
    set_token_lifetime(&builder.sandbox, 8);
    let harness = harness_with_only_east(builder).await;
    let token = async || harness.credential("east").await["token"].as_str().unwrap_or_default().to_owned();
    let (before, is_refreshed) = (token().await, Cell::new(false));
    let callers = (0..4).map(async |_| {
        let mut caller = harness.caller().await;
        let (mut sent, mut after) = (0, 0);
        // Some calls after the refresh as well.
        while after < 10 {
            caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
            sent += 1;
            after += usize::from(is_refreshed.get());
        }
        sent
    });
    let (sent, ()) = tokio::join!(join_all(callers), async {
        wait_until("the token is refreshed", async || (token().await != before).then_some(())).await;
        is_refreshed.set(true);
    });
    let sent: usize = sent.into_iter().sum();
    let arrivals = harness.arrivals("east");
    assert_eq!(arrivals.len(), sent);
    assert_none_expired(&arrivals);
    let mut tokens: Vec<_> =
        arrivals.iter().map(|arrival| &arrival.authorization.as_ref().unwrap().fingerprint).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert!(tokens.len() >= 2, "{tokens:?}");
}

#[tokio::test]
async fn answers_503_with_retry_after_without_a_token() {
    let builder = HarnessBuilder::start().await;
    let after = FaultKind::status_after(429, Duration::from_secs(17));
    builder.sandbox.entra().faults().set(Fault::always(after));
    let harness = builder
        .start_gateway(|options| {
            options.wait_until_ready = false;
            options.append_toml(EAST_ONLY);
        })
        .await;
    let response = harness.broadcast().await;
    response.assert_gateway_error(503, "token_unavailable");
    let retry_after: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((15..=17).contains(&retry_after), "not the `Retry-After` of Entra: {retry_after}");
    assert_eq!(harness.arrivals("east").len(), 0);
    for hidden in ["AADSTS", "tenant", TENANT_B, &harness.endpoint("east").server.address().to_string()] {
        assert!(!response.text().contains(hidden), "{}", response.text());
    }
}

#[tokio::test]
async fn replaces_a_rejected_token_and_resends_the_complete_request() {
    let harness = harness_with_only_east(HarnessBuilder::start().await).await;
    let faults = harness.endpoint("east").server.faults();
    let long: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut caller = harness.caller().await;
    // A 401 starts an acquisition every five seconds at most, so each form of body has its own harness.
    faults.set(Fault::times(1, FaultKind::status(401)));
    let pieces = long.chunks(10_000).map(Bytes::copy_from_slice).collect();
    let builder = request("POST", BROADCAST_PATH).header(CONTENT_TYPE, "application/octet-stream");
    caller.send_chunked(builder, pieces).await;
    let arrivals = harness.arrivals("east");
    assert_eq!(arrivals.len(), 2, "{arrivals:#?}");
    let [rejected, replayed] = [&arrivals[0], &arrivals[1]];
    assert_eq!((rejected.status, rejected.body_length, replayed.body_length), (Some(401), long.len(), long.len()));
    assert_eq!(rejected.body_sha256, replayed.body_sha256);
    assert_eq!(rejected.target, replayed.target);
    assert_eq!(rejected.header("x-request-id"), replayed.header("x-request-id"));
    let token = |entry: &Entry| entry.authorization.as_ref().unwrap().fingerprint.clone();
    assert_ne!(token(rejected), token(replayed));
    let metrics = harness.metrics().await;
    assert!((metrics.sum("upstream_unauthorized_total", &[("endpoint", "east"), ("code", "401")]) - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn forwards_a_second_401() {
    let harness = harness_with_only_east(HarnessBuilder::start().await).await;
    harness.endpoint("east").server.faults().set(Fault::always(FaultKind::status(401)));
    harness.broadcast().await.assert_status(401);
    assert_eq!(harness.arrivals("east").len(), 2);
    // Further rejections cause no further requests to Entra.
    let before = harness.sandbox.entra().journal().received();
    for _ in 0..20 {
        harness.broadcast().await.assert_status(401);
    }
    assert_eq!(harness.arrivals("east").len(), 22);
    assert_eq!(harness.sandbox.entra().journal().received(), before);
}

#[tokio::test]
async fn forwards_a_401_when_entra_returns_the_same_token() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.directory().edit(|directory| directory.tokens.repeat = true);
    let harness = harness_with_only_east(builder).await;
    harness.endpoint("east").server.faults().set(Fault::always(FaultKind::status(401)));
    harness.broadcast().await.assert_status(401);
    assert_eq!(harness.arrivals("east").len(), 1, "the same token was sent again");
    harness.endpoint("east").server.faults().clear().await;
    harness.broadcast().await.assert_status(202);
}

#[tokio::test]
async fn forwards_a_403_without_replacing_the_token() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.directory().edit(|directory| {
        let app = signalr_gateway::sandbox::APP_CLIENT_ID;
        directory.service_principal_mut(TENANT_B, app).unwrap().roles.clear();
    });
    let harness = harness_with_only_east(builder).await;
    let before = harness.sandbox.entra().journal().received();
    harness.broadcast().await.assert_status(403);
    assert_eq!((harness.arrivals("east").len(), harness.sandbox.entra().journal().received()), (1, before));
}

#[tokio::test]
async fn does_not_use_a_token_that_is_already_expired() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.directory().edit(|directory| directory.tokens.expires_in = Some(0.into()));
    let harness = builder
        .start_gateway(|options| {
            options.wait_until_ready = false;
            options.append_toml(EAST_ONLY);
        })
        .await;
    harness.broadcast().await.assert_gateway_error(503, "token_unavailable");
    assert_eq!(harness.arrivals("east").len(), 0);
}

#[tokio::test]
async fn outage_of_entra_for_all_replicas_leaves_those_that_were_ready_in_service() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let folder = |name: &str| {
        let folder = builder.folder.path().join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    };
    let readiness =
        async |replica: &Process| Caller::connect(replica.admin()).await.call("GET", "/readyz").await.status.as_u16();
    let before = Program::gateway(&files.config, &[]).start(&folder("before")).await;
    before.wait_until_credentials_are("ready").await;

    builder.sandbox.entra().faults().refuse().await;
    let meanwhile = Program::gateway(&files.config, &[]).start(&folder("meanwhile")).await;
    wait_until("its token request has failed", async || {
        let status = meanwhile.status().await;
        status["credentials"][0]["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!((readiness(&before).await, readiness(&meanwhile).await), (200, 503));
    let call = async |replica: &Process| {
        let mut caller = Caller::connect(replica.listener()).await;
        caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await
    };
    call(&before).await.assert_status(202);
    call(&meanwhile).await.assert_gateway_error(503, "token_unavailable");

    builder.sandbox.entra().faults().clear().await;
    wait_until("the other replica is ready", async || (readiness(&meanwhile).await == 200).then_some(())).await;
}
