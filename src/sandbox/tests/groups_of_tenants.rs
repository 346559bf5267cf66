//! Groups of tenants, whose endpoints share a port.

use super::tenant_group::{GROUP_APP, tenant_group};
use super::*;
use crate::sandbox::{Description, Fault, FaultKind};

async fn start_with(group: &str) -> (Sandbox, Description) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), tenant_group(group)).unwrap();
    let description = Description::read(file.path()).unwrap();
    (Sandbox::start(description.settings.clone()).await.unwrap(), description)
}

/// Creates a broadcast to an endpoint of the group. It is sent to the group's port at the loopback address.
fn broadcast(sandbox: &Sandbox, endpoint: &str, token: &str) -> TestRequest {
    let url = sandbox.endpoint(endpoint).unwrap().url();
    request(sandbox, Method::POST, &url, "/api/hubs/chat/:send?api-version=2022-11-01")
        .bearer(token)
        .json(&serde_json::json!({ "target": "t", "arguments": [] }))
}

async fn token_of(sandbox: &Sandbox, tenant: &str) -> Result<String, u64> {
    let form = [
        ("grant_type", String::from("client_credentials")),
        ("client_id", GROUP_APP.to_owned()),
        ("client_secret", String::from("not-a-secret")),
        ("scope", String::from("https://signalr.azure.com/.default")),
    ];
    let response = request_token(sandbox, tenant, &form).await.json();
    let token = response["access_token"].as_str().map(str::to_owned);
    token.ok_or_else(|| response["error_codes"][0].as_u64().unwrap_or_default())
}

#[tokio::test]
async fn the_host_selects_the_endpoint_and_each_accepts_tokens_of_its_own_tenant_only() {
    let (sandbox, _) = start_with("count = 300\n").await;
    let port = sandbox.endpoint("t1").unwrap().server.address().port();
    assert_eq!(sandbox.endpoint("t300").unwrap().url(), format!("https://t300.service.localhost:{port}"));
    let token = token_of(&sandbox, "t300.onmicrosoft.com").await.unwrap();
    assert_eq!(broadcast(&sandbox, "t300", &token).send().await.status, StatusCode::ACCEPTED);
    assert_eq!(broadcast(&sandbox, "t30", &token).send().await.status, StatusCode::UNAUTHORIZED);
    let unknown = broadcast(&sandbox, "t300", &token).header(HOST, "t301.service.localhost").send().await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let journal = |name: &str| sandbox.endpoint(name).unwrap().server.journal().entries();
    assert_eq!((journal("t300").len(), journal("t30").len(), journal("t3").len()), (1, 1, 0));
}

#[tokio::test]
async fn faults_of_one_tenant_leave_the_others_alone() {
    let group = "count = 5\nnot_provisioned = [2]\nthrottled = [3]\nslow_tokens = [4]\ndelay = \"1h\"\n";
    let (sandbox, _) = start_with(group).await;
    assert_eq!(token_of(&sandbox, "t2.onmicrosoft.com").await, Err(7_000_229));
    assert_eq!(token_of(&sandbox, "t3.onmicrosoft.com").await, Err(90055));
    let slow = tokio::time::timeout(Duration::from_millis(100), token_of(&sandbox, "t4.onmicrosoft.com"));
    assert!(slow.await.is_err());
    let (one, five) = (token_of(&sandbox, "t1.onmicrosoft.com").await, token_of(&sandbox, "t5.onmicrosoft.com").await);
    let faults = sandbox.endpoint("t5").unwrap().server.faults();
    faults.refuse().await;
    assert!(broadcast(&sandbox, "t5", five.as_ref().unwrap()).try_send().await.is_err());
    assert_eq!(broadcast(&sandbox, "t1", &one.unwrap()).send().await.status, StatusCode::ACCEPTED);
    faults.clear().await;
    faults.set(Fault::times(1, FaultKind::status(503)));
    let status = async || broadcast(&sandbox, "t5", five.as_ref().unwrap()).send().await.status;
    assert_eq!([status().await, status().await], [StatusCode::SERVICE_UNAVAILABLE, StatusCode::ACCEPTED]);
}

#[tokio::test]
async fn the_configuration_has_one_credential_and_one_route_for_all_tenants() {
    let (sandbox, description) = start_with("count = 40\n[endpoints.own]\ntenant = \"home\"\n").await;
    let folder = tempfile::tempdir().unwrap();
    let files = sandbox.write_described_files(folder.path(), Some(&description.gateway)).unwrap();
    let text = std::fs::read_to_string(files.config.unwrap()).unwrap();
    let toml: toml_edit::DocumentMut = text.parse().unwrap();
    let credentials: Vec<&str> = toml["credentials"].as_table().unwrap().iter().map(|(name, _)| name).collect();
    assert_eq!(credentials, ["own", "t"]);
    let credential = &toml["credentials"]["t"];
    assert!(credential.get("tenant").is_none());
    assert_eq!(credential["secret"]["file"].as_str(), Some("saas-secret"));
    let endpoint = &toml["endpoints"]["t40"];
    assert_eq!(endpoint["url"].as_str(), Some(sandbox.endpoint("t40").unwrap().url().as_str()));
    assert_eq!(endpoint["credential"].as_str(), Some("t"));
    let tenant = sandbox.directory().read(|d| d.tenant("t40.onmicrosoft.com").unwrap().id.clone());
    assert_eq!(endpoint["tenant"].as_str(), Some(tenant.as_str()));
    let routes: Vec<&str> =
        toml["routes"].as_array_of_tables().unwrap().iter().map(|route| route["name"].as_str().unwrap()).collect();
    assert_eq!(routes, ["tenants", "others"]);
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(files.len() < 10, "{files:?}");
}
