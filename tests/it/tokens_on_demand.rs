//! Tokens on demand: acquired at the first call, kept while in use, released without use; and when a gateway with them is ready.

use http::header::CONTENT_TYPE;
use serde_json::Value;
use signalr_gateway::sandbox::{Application, Description};

use crate::support::{
    BROADCAST_BODY, GROUP_APP, GatewayOptions, Harness, HarnessBuilder, Response, request, tenant_group, wait_until,
};

/// Starts a gateway in front of a group of tenants `t1`, `t2`, … that have one application. `group` has the keys of the group.
async fn start(group: &str, change: impl FnOnce(&mut GatewayOptions)) -> Harness {
    let (builder, description) = sandbox(group).await;
    start_gateway(builder, description, change).await
}

async fn sandbox(group: &str) -> (HarnessBuilder, Description) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tenant_group(group)).unwrap();
    let description = Description::read(file.path()).unwrap();
    (HarnessBuilder::with(description.settings.clone()).await, description)
}

async fn start_gateway(
    builder: HarnessBuilder,
    description: Description,
    change: impl FnOnce(&mut GatewayOptions),
) -> Harness {
    std::fs::write(builder.folder.path().join("saas-secret"), "not-a-secret").unwrap();
    builder
        .start_gateway(|options| {
            let addresses = std::mem::replace(&mut options.config, description.gateway);
            (options.config.listen, options.config.admin) = (addresses.listen, addresses.admin);
            options.wait_until_ready = false;
            options.set("timeouts.request", "20s");
            change(options);
        })
        .await
}

fn on_demand(options: &mut GatewayOptions) {
    options.set("tokens.acquire", "on_demand");
}

async fn call(harness: &Harness, tenant: &str) -> Response {
    let call = request("POST", &format!("/api/hubs/{tenant}_chat/:send?api-version=2022-11-01"))
        .header(CONTENT_TYPE, "application/json");
    harness.caller().await.send(call, BROADCAST_BODY).await
}

/// Returns the end of the id of a tenant, which is its number.
fn end_of_id(tenant: &str) -> String {
    format!("-{:012}", tenant.trim_start_matches('t').parse::<u32>().unwrap())
}

/// Returns the entry of a tenant's token on `/status`.
async fn token(harness: &Harness, tenant: &str) -> Value {
    let status = harness.admin("/status").await.json();
    let is_of_tenant = |one: &&Value| one["tenant"].as_str().unwrap().ends_with(&end_of_id(tenant));
    let mut found = status["credentials"].as_array().unwrap().iter().filter(is_of_tenant);
    found.next().cloned().unwrap_or_else(|| panic!("no token of {tenant} in {status}"))
}

/// Returns the number of token requests for a tenant.
fn token_requests(harness: &Harness, tenant: &str) -> usize {
    let path = format!("{}/oauth2/v2.0/token", end_of_id(tenant));
    harness.sandbox.entra().journal().entries().iter().filter(|entry| entry.path().ends_with(&path)).count()
}

async fn wait_until_ready(harness: &Harness) {
    wait_until("it is ready", async || (harness.admin("/readyz").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn first_call_of_a_tenant_acquires_its_token_and_unused_tenants_have_none() {
    // Above 64 tokens, they are acquired on demand by default.
    let harness = start("count = 80\n", |_| ()).await;
    wait_until_ready(&harness).await;
    assert_eq!(harness.caller().await.call("GET", "/api/health").await.status, 200);
    assert_eq!(token(&harness, "t50").await["state"], "unused");
    call(&harness, "t50").await.assert_status(202);
    call(&harness, "t50").await.assert_status(202);
    assert_eq!((token_requests(&harness, "t50"), token_requests(&harness, "t51")), (1, 0));
    let used = token(&harness, "t50").await;
    assert_eq!((&used["name"], &used["state"]), (&Value::from("t"), &Value::from("ready")));
    let status = harness.admin("/status").await.json();
    let states = status["credentials"].as_array().unwrap().iter();
    assert_eq!(states.filter(|one| one["state"] == "unused").count(), 78, "one was tried at start, one is in use");
    let endpoint = status["endpoints"].as_array().unwrap().iter().find(|one| one["name"] == "t50").unwrap();
    assert_eq!(endpoint["tenant"], used["tenant"]);
    let metrics = harness.metrics().await;
    let expiry = metrics.sum("token_expiry_timestamp_seconds", &[("credential", "t")]);
    assert!(expiry > 0.0, "unused tenants have no expiry: {expiry}");
}

#[tokio::test]
async fn token_without_use_is_released_and_acquired_again() {
    let harness = start("count = 3\n", |options| {
        options.set("tokens.acquire", "on_demand").set("tokens.release_after", "400ms");
    })
    .await;
    wait_until_ready(&harness).await;
    for acquired in 1..=3 {
        call(&harness, "t3").await.assert_status(202);
        assert_eq!(token_requests(&harness, "t3"), acquired);
        wait_until("the token is released", async || (token(&harness, "t3").await["state"] == "unused").then_some(()))
            .await;
    }
    wait_until("all tokens are released", async || (token(&harness, "t1").await["state"] == "unused").then_some(()))
        .await;
    assert_eq!(harness.admin("/readyz").await.status, 200);
    assert_eq!(harness.caller().await.call("GET", "/api/health").await.status, 200);
}

#[tokio::test]
async fn gateway_is_ready_once_a_token_of_the_app_was_obtained_in_any_of_its_tenants() {
    let harness = start("count = 6\nnot_provisioned = [\"1-4\"]\n", on_demand).await;
    wait_until("three tenants were tried", async || {
        (1..=3).all(|number| token_requests(&harness, &format!("t{number}")) > 0).then_some(())
    })
    .await;
    // What a tenant lacks says nothing about the others.
    assert_eq!(harness.caller().await.call("GET", "/api/health").await.status, 200);
    call(&harness, "t1").await.assert_gateway_error(503, "token_unavailable");
    // No caller asks for a token of those that are provisioned.
    wait_until_ready(&harness).await;
    assert_eq!(token(&harness, "t4").await["state"], "unused");
    assert_eq!(["t4", "t5", "t6"].map(|tenant| token_requests(&harness, tenant)), [1, 1, 0]);
    call(&harness, "t6").await.assert_status(202);
}

#[tokio::test]
async fn wrong_secret_makes_the_gateway_neither_ready_nor_healthy_until_it_is_corrected() {
    let (builder, description) = sandbox("count = 5\n").await;
    let set_secret = |sandbox: &signalr_gateway::sandbox::Sandbox, secret: &str| {
        let change = |app: &mut Application| app.secrets[0].value = signalr_gateway::sandbox::SecretText::new(secret);
        sandbox.directory().edit(|directory| change(directory.application_mut(GROUP_APP).unwrap()));
    };
    set_secret(&builder.sandbox, "another");
    let harness = start_gateway(builder, description, on_demand).await;
    wait_until("the app is refused", async || {
        (harness.caller().await.call("GET", "/api/health").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(harness.admin("/readyz").await.status, 503);
    set_secret(&harness.sandbox, "not-a-secret");
    call(&harness, "t5").await.assert_status(202);
    wait_until_ready(&harness).await;
    assert_eq!(harness.caller().await.call("GET", "/api/health").await.status, 200);

    // An outage of Entra takes no replica out of service.
    harness.sandbox.entra().faults().refuse().await;
    call(&harness, "t4").await.assert_gateway_error(503, "token_unavailable");
    call(&harness, "t5").await.assert_status(202);
    assert_eq!(harness.admin("/readyz").await.status, 200);
    assert_eq!(harness.caller().await.call("GET", "/api/health").await.status, 200);
}
