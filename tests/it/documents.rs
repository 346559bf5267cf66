//! What the README says works as it says.

use std::path::Path;

use http::header::CONTENT_TYPE;

use crate::support::{ALL_OPERATIONS, Lab, Process, Stage, request};

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The text between the first of these marks and the next of those.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.split_once(begin)?.1.split_once(end).map(|(found, _)| found)
}

#[test]
fn two_tenants_of_the_readme_are_a_configuration() {
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

/// A call as the README has callers type it: method, path and query, body.
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
async fn calls_of_the_readme_are_answered_as_it_says() {
    let lab = Lab::start(|plan| {
        plan.allow(&ALL_OPERATIONS);
    })
    .await;
    let mut statuses = Vec::new();
    for (method, target, body) in calls(&readme()) {
        let call = request(&method, &target).header(CONTENT_TYPE, "application/json");
        statuses.push(lab.caller().await.send(call, body).await.status.as_u16());
    }
    assert_eq!(statuses, [202, 200, 202, 404]);
}

#[tokio::test]
async fn sandbox_of_the_readme_starts_and_says_what_to_try() {
    let stage = Stage::start().await;
    let arguments = ["sandbox", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let process = Process::start(&arguments, &[], stage.folder.path()).await;
    for key in ["gateway", "admin", "entra", "config", "ca"] {
        assert!(process.ready[key].is_string(), "{key} in {}", process.ready);
    }
    assert!(process.ready["endpoints"]["east"].is_string() && process.ready["endpoints"]["west"].is_string());
    process.terminate().await;
    assert!(process.wait().await.0.success());
}

#[test]
fn every_kind_of_error_is_in_the_readme() {
    let text = readme();
    for kind in signalr_gateway::metrics::ErrorKind::ALL {
        assert!(text.contains(&format!("`{}`", kind.label())), "the README does not name {}", kind.label());
    }
}
