//! What `/status` says about broken credentials and endpoints: since when, why, what it means for calls and what to do.

use serde_json::{Value, json};
use signalr_gateway::sandbox::{Fault, FaultKind, TENANT_C};

use super::support::{Harness, HarnessBuilder, wait_until};

/// Waits until the endpoint `west` has a state, and returns its entry and the verdict.
async fn west_once(harness: &Harness, state: &str) -> (Value, Value) {
    wait_until(&format!("west is {state}"), async || {
        let status = harness.admin("/status").await.json();
        let west = status["endpoints"].as_array()?.iter().find(|endpoint| endpoint["name"] == "west")?.clone();
        (west["state"] == state).then(|| (west, status["verdict"].clone()))
    })
    .await
}

/// Starts a gateway whose circuits open at the first failure and stay open, with a route for each endpoint.
async fn harness() -> Harness {
    harness_with(concat!(
        "[[routes]]\nname = \"west\"\nmatch = { hub = \"west\" }\nendpoints = [\"west\"]\n",
        "[[routes]]\nname = \"rest\"\nendpoints = [\"east\"]\n"
    ))
    .await
}

/// Starts a gateway whose circuits open at the first failure and stay open, with these routes.
async fn harness_with(routes: &str) -> Harness {
    Harness::start(|options| {
        options.set("health.failures", "1").set("health.failure_ratio", "0.0001").set("health.pause", "1h");
        options.append_toml(routes);
    })
    .await
}

async fn send_to_west(harness: &Harness) -> u16 {
    let path = "/api/hubs/west/:send?api-version=2024-12-01";
    let sent = harness.caller().await.post(path, "application/json", r#"{"target":"t","arguments":[]}"#).await;
    sent.status.as_u16()
}

fn assert_recent(at: &Value) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(at.as_u64().is_some_and(|at| (now - 60..=now).contains(&at)), "{at} at {now}");
}

fn lines(verdict: &Value) -> Vec<&str> {
    verdict["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect()
}

#[tokio::test]
async fn healthy_gateway_says_so_in_one_line() {
    let harness = harness().await;
    assert_eq!(send_to_west(&harness).await, 202);
    let status = harness.admin("/status").await.json();
    let line = "both endpoints accept calls, both credentials work";
    assert_eq!(status["verdict"], json!({ "state": "healthy", "lines": [line] }));
    let credential = &status["credentials"][0];
    assert_recent(&credential["acquired"]);
    assert_recent(&credential["since"]);
    let (renews, expires) = (&credential["next_acquisition"], &credential["expires"]);
    assert!(renews.as_u64() > credential["acquired"].as_u64() && renews.as_u64() < expires.as_u64(), "{credential}");
    let probed = wait_until("both endpoints are probed", async || {
        let status = harness.admin("/status").await.json();
        status["endpoints"].as_array()?.iter().all(|one| one["last_probe"]["ok"] == true).then_some(status)
    });
    assert_recent(&probed.await["endpoints"][0]["last_probe"]["at"]);
}

#[tokio::test]
async fn dead_credential_is_explained_with_its_effect_and_what_to_do() {
    let builder = HarnessBuilder::start().await;
    let body = r#"{"error":"invalid_client","error_description":"AADSTS7000215: no","error_codes":[7000215]}"#;
    let wrong_secret = Fault::always(FaultKind::json(401, body)).on_path(&format!("/{TENANT_C}"));
    builder.sandbox.entra().faults().set(wrong_secret);
    let harness = builder.start_gateway(|options| options.wait_until_ready = false).await;
    let (west, verdict) = west_once(&harness, "no_token").await;
    assert_recent(&west["since"]);
    assert_eq!(verdict["state"], "broken");
    let lines = lines(&verdict);
    assert_eq!(lines[0], "1 of 2 credentials is broken: west (AADSTS7000215: the client secret is wrong)");
    assert!(lines[1].starts_with("calls to west fail since ") && lines[1].contains("UTC"), "{lines:?}");
    assert!(lines[2].starts_with("do this: use the secret's value (not its id)"), "{lines:?}");
    let problem = &verdict["problem"];
    assert_eq!(problem["callers_get"], "the normal answers, of the route's other endpoints", "{problem}");
    assert_eq!(problem["entry"], json!(["credential", "west"]));
    assert_eq!(send_to_west(&harness).await, 202);
    let failure = harness.credential("west").await["last_failure"].clone();
    assert_recent(&failure["at"]);
    assert_eq!((&failure["step"], &failure["kind"]), (&"app_proof".into(), &"refused".into()));
    let command = &failure["remediation"][1]["command"];
    assert!(
        command.as_str().is_some_and(|command| command.starts_with("az ad app credential list --id ")),
        "{failure}"
    );
}

#[tokio::test]
async fn endpoint_that_refuses_the_token_is_broken_until_it_accepts_one() {
    let harness = harness().await;
    let west = harness.endpoint("west").server.faults();
    let challenge = r#"Bearer error="invalid_token""#;
    let refused = |status| FaultKind::status(status).with_header("www-authenticate", challenge);
    for (status, step) in [(401, "configuration"), (403, "access")] {
        west.clear().await;
        west.set(Fault::always(refused(status)).on_path("/api/hubs"));
        assert_eq!(send_to_west(&harness).await, status);
        let (entry, verdict) = west_once(&harness, "unauthorized").await;
        assert_recent(&entry["since"]);
        assert_eq!((&entry["available"], &entry["last_failure"]["status"]), (&true.into(), &status.into()));
        assert_eq!((&entry["last_failure"]["step"], &verdict["state"]), (&step.into(), &"broken".into()));
        let error = entry["last_failure"]["error"].as_str().unwrap();
        assert!(error.contains(r#"Bearer error="invalid_token""#), "{error}");
        let lines = lines(&verdict);
        assert!(lines[0].starts_with("1 of 2 endpoints: west at 127.0.0.1:"), "{lines:?}");
        assert!(lines[1].ends_with(", so calls of route west fail"), "{lines:?}");
        west.clear().await;
        assert_eq!(send_to_west(&harness).await, 202);
        let (entry, _) = west_once(&harness, "ok").await;
        assert_eq!(entry["last_failure"]["status"], status, "the failure is still known");
    }
}

#[tokio::test]
async fn open_circuit_has_a_reason_and_a_time() {
    let harness = harness().await;
    harness.endpoint("west").server.faults().set(Fault::always(FaultKind::status(500)).on_path("/api/hubs"));
    assert_eq!(send_to_west(&harness).await, 500);
    let (west, verdict) = west_once(&harness, "circuit_open").await;
    assert_recent(&west["since"]);
    let failure = &west["last_failure"];
    assert_eq!((&failure["kind"], &failure["status"]), (&"response".into(), &500.into()));
    assert_eq!(failure["step"], "endpoint_network");
    assert!(lines(&verdict)[0].contains("the endpoint is not healthy"), "{verdict}");
}

#[tokio::test]
async fn unreachable_endpoint_has_a_reason_and_a_time() {
    let harness = harness().await;
    harness.endpoint("west").server.faults().refuse().await;
    let (west, _) = {
        send_to_west(&harness).await;
        west_once(&harness, "circuit_open").await
    };
    let failure = &west["last_failure"];
    assert_recent(&failure["at"]);
    assert!(failure["error"].as_str().unwrap().contains("onnection refused"), "{failure}");
    let notes = failure["remediation"].to_string();
    assert!(notes.contains("allow this host to connect to 127.0.0.1:"), "{notes}");
}

#[tokio::test]
async fn verdict_says_how_calls_to_all_endpoints_of_a_route_are_answered_while_one_fails() {
    for (policy, answer) in
        [("all", "reach the other endpoints only, and are answered 502"), ("any", "reach the other endpoints only")]
    {
        let harness = harness_with(&format!(
            "[[routes]]\nname = \"both\"\npick = \"all\"\npolicy = \"{policy}\"\nendpoints = [\"east\", \"west\"]\n"
        ))
        .await;
        harness.wait_until_credentials_are("ready").await;
        harness.endpoint("west").server.faults().set(Fault::always(FaultKind::status(500)).on_path("/api/hubs"));
        let expected = if policy == "all" { 502 } else { 202 };
        assert_eq!(send_to_west(&harness).await, expected);
        let (_, verdict) = west_once(&harness, "circuit_open").await;
        let lines = lines(&verdict);
        assert!(lines[1].ends_with(&format!(", so calls of route both {answer}")), "{lines:?}");
    }
}
