//! A token's life under bad weather: what was obtained serves until it expires, nothing expired is ever sent, and what
//! the endpoint refuses is replaced once.

use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use signalr_gateway::sandbox::{Entry, Fault, FaultKind, Sandbox, TENANT_B};

use crate::support::{HELLO, Lab, SEND, Stage, request, wait_until};

/// The gateway has one endpoint to go to, so that nothing is made good by another.
const EAST_ALONE: &str = "[[routes]]\nname = \"only\"\nendpoints = [\"east\"]\n";

fn live_for(sandbox: &Sandbox, seconds: u64) {
    sandbox.directory().edit(|directory| directory.tokens.lifetime = Duration::from_secs(seconds));
}

/// Asserts that each request came with a token that had not expired when it had arrived.
fn assert_none_expired(arrivals: &[Entry]) {
    for arrival in arrivals {
        let expires = arrival.authorization.as_ref().unwrap().claims["exp"].as_u64().unwrap();
        let arrived = arrival.at.duration_since(UNIX_EPOCH).unwrap();
        assert!(arrived < Duration::from_secs(expires), "a token that expired at {expires} arrived at {arrived:?}");
    }
}

async fn lab_of_east_alone(stage: Stage) -> Lab {
    stage
        .gateway(|plan| {
            plan.more(EAST_ALONE);
        })
        .await
}

#[tokio::test]
async fn outage_of_entra_costs_no_request_while_tokens_live() {
    let stage = Stage::start().await;
    // The refresh is due after half of it, and fails while the token lives.
    live_for(&stage.sandbox, 16);
    let lab = lab_of_east_alone(stage).await;
    lab.sandbox.entra().faults().refuse().await;
    lab.sandbox.imds().faults().refuse().await;
    let mut caller = lab.caller().await;
    let mut sent = 0;
    wait_until("a refresh has failed", async || {
        caller.post(SEND, "application/json", HELLO).await.is(202);
        sent += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
        (lab.credential("east").await["state"] == "stale").then_some(())
    })
    .await;
    caller.post(SEND, "application/json", HELLO).await.is(202);
    assert_eq!(lab.arrivals("east").len(), sent + 1);
    assert_eq!(lab.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn failing_refresh_leaves_the_token_in_service_and_says_so() {
    let stage = Stage::start().await;
    live_for(&stage.sandbox, 12);
    let lab = lab_of_east_alone(stage).await;
    lab.sandbox.entra().faults().set(Fault::always(FaultKind::html(503)));
    let mut caller = lab.caller().await;
    wait_until("a refresh has failed", async || {
        caller.post(SEND, "application/json", HELLO).await.is(202);
        (lab.credential("east").await["state"] == "stale").then_some(())
    })
    .await;
    caller.post(SEND, "application/json", HELLO).await.is(202);
    assert_eq!(lab.admin("/readyz").await.status, 200);
    let told = lab.credential("east").await["last_error"].as_str().unwrap().to_owned();
    assert!(told.contains("503"), "{told}");
}

#[tokio::test]
async fn expired_token_never_leaves_and_service_comes_back_with_entra() {
    let stage = Stage::start().await;
    live_for(&stage.sandbox, 3);
    let lab = lab_of_east_alone(stage).await;
    lab.sandbox.entra().faults().refuse().await;
    let mut caller = lab.caller().await;
    let mut served = 0;
    let refused = wait_until("the token has expired", async || {
        let answer = caller.post(SEND, "application/json", HELLO).await;
        served += usize::from(answer.status == 202);
        (answer.status != 202).then_some(answer)
    })
    .await;
    refused.is_refused(503, "token_unavailable");
    let retry_after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=300).contains(&retry_after), "{retry_after}");
    assert!(refused.text().contains("nothing was sent"), "{}", refused.text());
    wait_until("it is not ready", async || (lab.admin("/readyz").await.status == 503).then_some(())).await;
    assert_eq!(lab.arrivals("east").len(), served, "what was refused was not sent");

    lab.sandbox.entra().faults().clear().await;
    live_for(&lab.sandbox, 3600);
    wait_until("calls are served again", async || {
        (caller.post(SEND, "application/json", HELLO).await.status == 202).then_some(())
    })
    .await;
    assert_eq!(lab.admin("/readyz").await.status, 200);
    assert!(served > 0);
    assert_none_expired(&lab.arrivals("east"));
}

#[tokio::test]
async fn short_tokens_under_load_are_refreshed_in_time() {
    let stage = Stage::start().await;
    live_for(&stage.sandbox, 3);
    let lab = lab_of_east_alone(stage).await;
    let began = Instant::now();
    let mut callers = Vec::new();
    for _ in 0..4 {
        let mut caller = lab.caller().await;
        callers.push(async move {
            let mut sent = 0;
            while began.elapsed() < Duration::from_millis(4500) {
                caller.post(SEND, "application/json", HELLO).await.is(202);
                sent += 1;
            }
            sent
        });
    }
    let sent: usize = futures_util::future::join_all(callers).await.into_iter().sum();
    let arrivals = lab.arrivals("east");
    assert_eq!(arrivals.len(), sent);
    assert_none_expired(&arrivals);
    let mut tokens: Vec<_> =
        arrivals.iter().map(|arrival| &arrival.authorization.as_ref().unwrap().fingerprint).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert!(tokens.len() >= 2, "{tokens:?}");
}

#[tokio::test]
async fn nobody_has_a_token_and_all_are_told_when_to_come_back() {
    let stage = Stage::start().await;
    let after = FaultKind::status_after(429, Duration::from_secs(17));
    stage.sandbox.entra().faults().set(Fault::always(after));
    let lab = stage
        .gateway(|plan| {
            plan.wait_until_ready = false;
            plan.more(EAST_ALONE);
        })
        .await;
    let answer = lab.hello().await;
    answer.is_refused(503, "token_unavailable");
    let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((15..=17).contains(&retry_after), "Entra's own word is passed on, not {retry_after}");
    assert_eq!(lab.arrivals("east").len(), 0);
    for hidden in ["AADSTS", "tenant", TENANT_B, &lab.endpoint("east").server.address().to_string()] {
        assert!(!answer.text().contains(hidden), "{}", answer.text());
    }
}

#[tokio::test]
async fn refused_token_is_replaced_and_the_request_sent_once_more_whole() {
    let lab = lab_of_east_alone(Stage::start().await).await;
    let faults = lab.endpoint("east").server.faults();
    let long: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut caller = lab.caller().await;
    // What a 401 asks for is done every five seconds at most, so each form of body has a laboratory's first.
    faults.set(Fault::times(1, FaultKind::status(401)));
    let pieces = long.chunks(10_000).map(Bytes::copy_from_slice).collect();
    let builder = request("POST", SEND).header(CONTENT_TYPE, "application/octet-stream");
    caller.send_chunked(builder, pieces).await;
    let arrivals = lab.arrivals("east");
    assert_eq!(arrivals.len(), 2, "{arrivals:#?}");
    let [refused, replayed] = [&arrivals[0], &arrivals[1]];
    assert_eq!((refused.status, refused.body_length, replayed.body_length), (Some(401), long.len(), long.len()));
    assert_eq!(refused.body_sha256, replayed.body_sha256);
    assert_eq!(refused.target, replayed.target);
    assert_eq!(refused.header("x-request-id"), replayed.header("x-request-id"));
    let token = |entry: &Entry| entry.authorization.as_ref().unwrap().fingerprint.clone();
    assert_ne!(token(refused), token(replayed));
    let metrics = lab.metrics().await;
    assert!((metrics.sum("upstream_unauthorized_total", &[("endpoint", "east"), ("code", "401")]) - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn second_refusal_is_the_callers_answer() {
    let lab = lab_of_east_alone(Stage::start().await).await;
    lab.endpoint("east").server.faults().set(Fault::always(FaultKind::status(401)));
    lab.hello().await.is(401);
    assert_eq!(lab.arrivals("east").len(), 2);
    // More refusals in a row do not bring Entra more requests.
    let asked = lab.sandbox.entra().journal().received();
    for _ in 0..20 {
        lab.hello().await.is(401);
    }
    assert_eq!(lab.arrivals("east").len(), 22);
    assert_eq!(lab.sandbox.entra().journal().received(), asked);
}

#[tokio::test]
async fn refusal_is_passed_on_when_entra_has_nothing_but_the_same_token() {
    let stage = Stage::start().await;
    stage.sandbox.directory().edit(|directory| directory.tokens.repeat = true);
    let lab = lab_of_east_alone(stage).await;
    lab.endpoint("east").server.faults().set(Fault::always(FaultKind::status(401)));
    lab.hello().await.is(401);
    assert_eq!(lab.arrivals("east").len(), 1, "the same token again would be refused again");
    lab.endpoint("east").server.faults().clear().await;
    lab.hello().await.is(202);
}

#[tokio::test]
async fn missing_role_is_not_mistaken_for_a_bad_token() {
    let stage = Stage::start().await;
    stage.sandbox.directory().edit(|directory| {
        let app = signalr_gateway::sandbox::APP_CLIENT_ID;
        directory.service_principal_mut(TENANT_B, app).unwrap().roles.clear();
    });
    let lab = lab_of_east_alone(stage).await;
    let asked = lab.sandbox.entra().journal().received();
    lab.hello().await.is(403);
    assert_eq!((lab.arrivals("east").len(), lab.sandbox.entra().journal().received()), (1, asked));
}

#[tokio::test]
async fn token_with_no_life_left_is_not_used() {
    let stage = Stage::start().await;
    stage.sandbox.directory().edit(|directory| directory.tokens.expires_in = Some(0.into()));
    let lab = stage
        .gateway(|plan| {
            plan.wait_until_ready = false;
            plan.more(EAST_ALONE);
        })
        .await;
    lab.hello().await.is_refused(503, "token_unavailable");
    assert_eq!(lab.arrivals("east").len(), 0);
}
