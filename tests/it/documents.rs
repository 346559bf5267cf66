//! Checks the README against the program.

use std::path::Path;

use http::header::CONTENT_TYPE;

use crate::support::{ALL_OPERATIONS, Harness, HarnessBuilder, Process, request};

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// Returns the text between the first `begin` and the next `end`.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.split_once(begin)?.1.split_once(end).map(|(found, _)| found)
}

#[test]
fn two_tenant_example_of_the_readme_is_a_valid_configuration() {
    let text = readme();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, between(&text, "```toml\n", "```").unwrap()).unwrap();
    let environment = [("FABRIKAM_SECRET".to_owned(), "x".to_owned())].into();
    let sources = signalr_gateway::config::Sources { file: Some(file), environment, overrides: Vec::new() };
    let settings = signalr_gateway::config::load(&sources).unwrap_or_else(|err| panic!("{err}")).settings;
    let routes: Vec<_> = settings.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(routes, ["northwind", "fabrikam"]);
}

/// Returns the calls of a text: method, path with query, and body.
fn calls(text: &str) -> Vec<(String, String, String)> {
    let calls = text.lines().filter(|line| line.starts_with("curl -") && line.contains("127.0.0.1:8080"));
    let call = |line: &str| {
        let method = between(line, "-X ", " ").unwrap_or("HEAD");
        let target = between(line, "'http://127.0.0.1:8080", "'").unwrap();
        (method.to_owned(), target.to_owned(), between(line, "-d '", "'").unwrap_or_default().to_owned())
    };
    calls.map(call).collect()
}

#[tokio::test]
async fn calls_in_the_readme_return_the_statuses_it_shows() {
    let harness = Harness::start(|options| {
        options.allow(&ALL_OPERATIONS);
    })
    .await;
    let mut statuses = Vec::new();
    for (method, target, body) in calls(&readme()) {
        let call = request(&method, &target).header(CONTENT_TYPE, "application/json");
        statuses.push(harness.caller().await.send(call, body).await.status.as_u16());
    }
    assert_eq!(statuses, [202, 200, 202, 404]);
}

#[tokio::test]
async fn sandbox_command_of_the_readme_starts_and_prints_addresses() {
    let builder = HarnessBuilder::start().await;
    let arguments = ["sandbox", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let process = Process::start(&arguments, &[], builder.folder.path()).await;
    for key in ["gateway", "admin", "entra", "config", "ca"] {
        assert!(process.ready[key].is_string(), "{key} in {}", process.ready);
    }
    assert!(process.ready["endpoints"]["east"].is_string() && process.ready["endpoints"]["west"].is_string());
    process.terminate().await;
    assert!(process.wait().await.0.success());
}

#[test]
fn memory_limit_of_the_pod_covers_what_its_configuration_allows() {
    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/kubernetes");
    let deployment = std::fs::read_to_string(folder.join("deployment.yaml")).unwrap();
    let limit: usize = between(&deployment, "limits: { memory: ", "Mi }").unwrap().parse().unwrap();
    let toml = std::fs::read_to_string(folder.join("gateway.toml")).unwrap();
    // The token is a file in the pod.
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "x").unwrap();
    let toml = toml.replace("/var/run/secrets/azure/tokens/azure-identity-token", token.path().to_str().unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), toml).unwrap();
    let sources = signalr_gateway::config::Sources {
        file: Some(file.path().to_owned()),
        environment: std::collections::BTreeMap::new(),
        overrides: Vec::new(),
    };
    let settings = signalr_gateway::config::load(&sources).unwrap_or_else(|err| panic!("{err}")).settings;
    // The numbers of the table in the README.
    let proxy = &settings.proxy;
    let connections = settings.serve.max_connections * (80 + 256) * KIB;
    let calls = settings.listeners.iter().map(|(_, admission)| admission.max_requests.unwrap()).sum::<usize>();
    let calls = calls * (80 * KIB + 2 * proxy.delivery.max_header_bytes + (128 + 64) * KIB);
    let bodies = usize::try_from(proxy.body_memory).unwrap();
    let keys = proxy.delivery.idempotency.keys * 2 * KIB;
    let maximum = connections + calls + bodies + keys + 15 * MIB;
    assert!(maximum <= limit * MIB, "{} MiB", maximum / MIB);
    assert!(readme().contains("HTTP/2 another 256 KiB window"));
}

#[test]
fn readme_lists_every_error_kind() {
    let text = readme();
    for kind in signalr_gateway::metrics::ErrorKind::ALL {
        assert!(text.contains(&format!("`{}`", kind.label())), "the README does not name {}", kind.label());
    }
}
