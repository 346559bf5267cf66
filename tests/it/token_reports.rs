//! How a failed token request is reported: one log line per change of state, the status page, a metric by cause, and a
//! response to callers that names who must act and contains no ids.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use signalr_gateway::sandbox::{
    APP_CLIENT_ID, ClientSecret, Fault, FaultKind, GatewayConfig, Sandbox, SecretText, TENANT_B,
};

use crate::support::{Caller, HarnessBuilder, Process, wait_until};

const EAST_ONLY: &str = "[[routes]]\nname = \"only\"\nendpoints = [\"east\"]\n";

fn secret(sandbox: &Sandbox, change: impl FnOnce(&mut ClientSecret)) {
    sandbox.directory().edit(|directory| change(&mut directory.application_mut(APP_CLIENT_ID).unwrap().secrets[0]));
}

fn token_requests(sandbox: &Sandbox) -> usize {
    sandbox.entra().journal().entries().iter().filter(|entry| entry.path().contains(TENANT_B)).count()
}

/// Returns the log lines about east's token.
fn lines(process: &Process) -> Vec<Value> {
    let log = process.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["credential"] == "east").collect()
}

#[tokio::test]
async fn logs_cause_and_remedy_of_a_failed_token_request_once_per_change() {
    let builder = HarnessBuilder::start().await;
    let (correct, later) = (builder.sandbox.client_secret(), SystemTime::now() + Duration::from_secs(3600));
    let config = GatewayConfig { more: EAST_ONLY.to_owned(), ..GatewayConfig::default() };
    let files = builder.write_files(&config);
    secret(&builder.sandbox, |secret| secret.value = SecretText::new("another"));
    let started = SystemTime::now() - Duration::from_secs(1);
    let process = Process::start_gateway(&files.config, &[]).await;
    // A file that changes is used at once.
    let try_again = async |content: &str| {
        let before = token_requests(&builder.sandbox);
        // By rename, so that the gateway never reads half of it.
        let partial = files.secret.with_extension("part");
        std::fs::write(&partial, content).unwrap();
        std::fs::set_permissions(&partial, Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&partial, &files.secret).unwrap();
        wait_until("the token was requested again", async || (token_requests(&builder.sandbox) > before).then_some(()))
            .await;
    };
    wait_until("the rejection was logged", async || (lines(&process).len() == 1).then_some(())).await;
    for attempt in 0..2 {
        try_again(&format!("wrong {attempt}")).await;
    }
    secret(&builder.sandbox, |secret| {
        secret.value = correct.clone();
        secret.expires = SystemTime::UNIX_EPOCH;
    });
    try_again(correct.expose()).await;
    wait_until("the other cause was logged", async || (lines(&process).len() == 2).then_some(())).await;
    let credential = process.status().await["credentials"][0].clone();
    assert_eq!(credential["state"], "unavailable", "{credential}");
    let error = credential["last_error"].as_str().unwrap();
    assert!(error.contains("AADSTS7000222: the client secret has expired; create a new secret"), "{error}");
    let page = Caller::connect(process.admin()).await.call("GET", "/").await.text();
    assert!(page.contains("AADSTS7000222"), "the HTML page does not show the cause");
    let counted =
        process.metrics().await.sum("token_errors_total", &[("credential", "east"), ("reason", "invalid_client")]);
    assert!(counted >= 4.0, "not every failure was counted: {counted}");
    secret(&builder.sandbox, |secret| secret.expires = later);
    try_again(correct.expose()).await;
    wait_until("the token in use was logged", async || (lines(&process).len() == 3).then_some(())).await;
    assert_eq!(
        process.status().await["credentials"][0]["last_error"],
        Value::Null,
        "the resolved error is still shown"
    );

    let lines = lines(&process);
    let levels: Vec<&str> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["ERROR", "ERROR", "INFO"], "{lines:#?}");
    for (line, (fact, action)) in lines.iter().zip([
        ("AADSTS7000215: the client secret is wrong", "use the secret's value (not its id)"),
        ("AADSTS7000222: the client secret has expired", "create a new secret on the app registration"),
    ]) {
        let (error, remedy) = (line["error"].as_str().unwrap(), line["remedy"].as_str().unwrap());
        assert!(error.contains(fact) && error.contains("correlation id") && !error.contains(action), "{line}");
        assert!(remedy.starts_with(action), "the remedy is not that of the code: {line}");
        assert_eq!(line["client_id"], APP_CLIENT_ID, "{line}");
        assert_eq!(line["proof"], format!("client secret from file {}", files.secret.display()), "{line}");
        let retry_at = humantime::parse_rfc3339(line["retry_at"].as_str().unwrap()).unwrap();
        assert!(retry_at > started && line["token_expires"].is_null(), "{line}");
    }
}

/// What is broken, and who must act.
type Case = (fn(&Sandbox), &'static str);

#[tokio::test]
async fn responses_name_who_must_act_and_contain_no_ids() {
    let cases: [Case; 5] = [
        (
            |sandbox| secret(sandbox, |secret| secret.expires = SystemTime::UNIX_EPOCH),
            "the gateway's operator must act",
        ),
        (
            |sandbox| {
                sandbox
                    .directory()
                    .edit(|directory| directory.tenant_mut(TENANT_B).unwrap().service_principals.clear());
            },
            "an administrator of the endpoint's tenant must act",
        ),
        (
            |sandbox| {
                sandbox
                    .directory()
                    .edit(|directory| directory.tenant_mut(TENANT_B).unwrap().conditional_access_blocks = true);
            },
            "an administrator of the endpoint's tenant must act",
        ),
        (
            |sandbox| sandbox.entra().faults().set(Fault::always(FaultKind::status_after(503, Duration::from_secs(9)))),
            "the gateway retries",
        ),
        (
            |sandbox| sandbox.directory().edit(|directory| directory.tenants.retain(|tenant| tenant.id != TENANT_B)),
            "the gateway's operator must act",
        ),
    ];
    for (breaks, error) in cases {
        let builder = HarnessBuilder::start().await;
        breaks(&builder.sandbox);
        let harness = builder
            .start_gateway(|options| {
                options.wait_until_ready = false;
                options.append_toml(EAST_ONLY);
            })
            .await;
        let response = harness.broadcast().await;
        response.assert_gateway_error(503, "token_unavailable");
        assert!(response.text().contains(error), "no `{error}` in {}", response.text());
        for hidden in ["AADSTS", TENANT_B, APP_CLIENT_ID, "127.0.0.1", "secret"] {
            assert!(!response.text().contains(hidden), "{}", response.text());
        }
    }
}
