//! `doctor` and `token` as people and programs run them: the real binary, its answers, its exit codes and its time.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use signalr_gateway::sandbox::{CredentialChoice, Fault, FaultKind, TENANT_B, TENANT_C};
use tokio::process::Command;

use super::bench::Bench;

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn run(arguments: &[&str], config: &Path) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalr-gateway"));
    command.args(arguments).arg("--config").arg(config).kill_on_drop(true);
    // The promise is fifteen seconds; what a busy machine takes to start a process is on top.
    let ran = tokio::time::timeout(Duration::from_secs(20), command.output()).await;
    let Output { status, stdout, stderr } = ran.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn tokens_in(text: &str) -> usize {
    // Every JWT begins so: it is `{"` in base64url.
    text.matches("eyJ").count()
}

#[tokio::test]
async fn doctor_looks_at_every_endpoint_and_tells_programs_the_same_as_people() {
    let bench = Bench::new(CredentialChoice::ClientSecret).await;
    let whole = run(&["doctor"], &bench.files.config).await;
    assert_eq!((whole.code, whole.stderr.as_str()), (Some(0), ""), "{}", whole.stdout);
    for name in ["east", "west"] {
        assert!(whole.stdout.contains(&format!("endpoint {name} (https://")), "{}", whole.stdout);
    }
    assert!(whole.stdout.contains("(this host)") && whole.stdout.contains("certificate issued by"), "{}", whole.stdout);
    assert_eq!(tokens_in(&whole.stdout), 0, "{}", whole.stdout);

    // East is broken, west is not.
    let refused = Fault::always(FaultKind::status(503)).on_path(&format!("/{TENANT_B}"));
    bench.sandbox.entra().faults().set(refused);
    let text = run(&["doctor"], &bench.files.config).await;
    assert_eq!(text.code, Some(1));
    assert!(text.stdout.contains("credential east: broken at step 3 of 12: the way to Entra"), "{}", text.stdout);
    assert!(text.stdout.contains("credential west: everything holds"), "{}", text.stdout);
    let json = run(&["doctor", "--json"], &bench.files.config).await;
    let told: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, &told["ok"]), (Some(1), &Value::Bool(false)));
    let [east, west] = [&told["endpoints"][0], &told["endpoints"][1]];
    assert_eq!((&east["endpoint"], &east["broken"]["step"]["name"]), (&"east".into(), &"identity_endpoint".into()));
    assert!(east["broken"]["mend"][0]["note"].is_string() && east["checks"].as_array().unwrap().len() >= 3, "{east:#}");
    assert_eq!((&west["ok"], &west["broken"]), (&Value::Bool(true), &Value::Null));
    let alone = run(&["doctor", "--endpoint", "west"], &bench.files.config).await;
    assert!(alone.code == Some(0) && !alone.stdout.contains("endpoint east"), "{}", alone.stdout);
    let nobody = run(&["doctor", "--endpoint", "north"], &bench.files.config).await;
    assert!(nobody.code == Some(2) && nobody.stderr.contains("`north`"), "{}", nobody.stderr);
}

#[tokio::test]
async fn configuration_that_does_not_hold_is_told_to_programs_too() {
    let bench = Bench::new(CredentialChoice::ClientSecret).await;
    bench.rewrite("[credentials.east]", "[credentials.east]\nobjct_id = \"x\"");
    let ran = run(&["doctor", "--json"], &bench.files.config).await;
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &told["problems"][0]["key"]), (Some(2), &"credentials.east.objct_id".into()));
}

#[tokio::test]
async fn doctor_ends_in_time_though_entra_the_endpoint_and_a_file_hang() {
    let bench = Bench::new(CredentialChoice::FederatedFile).await;
    // A file that is opened and never read from: nothing can break that off but the end of the process.
    std::fs::remove_file(&bench.files.assertion).unwrap();
    assert!(Command::new("mkfifo").arg(&bench.files.assertion).status().await.unwrap().success());
    bench.sandbox.entra().faults().set(Fault::always(FaultKind::Hang).on_path(&format!("/{TENANT_C}")));
    let began = Instant::now();
    let ran = run(&["doctor"], &bench.files.config).await;
    let took = began.elapsed();
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stdout.contains("credential east: broken at step 2 of 12: the proof on this host"), "{}", ran.stdout);
    assert!(ran.stdout.contains("credential west: broken at step 3 of 12: the way to Entra"), "{}", ran.stdout);
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn token_shows_each_leg_and_each_claim_beside_what_is_expected() {
    let bench = Bench::new(CredentialChoice::FederatedIdentity).await;
    let shown = run(&["token", "east"], &bench.files.config).await;
    assert_eq!((shown.code, tokens_in(&shown.stdout)), (Some(0), 0), "{}", shown.stdout);
    for part in [
        "managed identity with client id",
        "iss https://127.0.0.1",
        "aud api://AzureADTokenExchange",
        ", exp 2",
        &format!("tid: {TENANT_B}, as expected"),
        "aud: https://signalr.azure.com, as expected",
        "oid: bbbbbbbb-",
        "exp: 2",
    ] {
        assert!(shown.stdout.contains(part), "no `{part}` in {}", shown.stdout);
    }
    let raw = run(&["token", "east", "--raw"], &bench.files.config).await;
    assert_eq!((raw.code, raw.stdout.lines().count(), tokens_in(&raw.stderr)), (Some(0), 1, 0), "{}", raw.stderr);
    assert!(raw.stdout.starts_with("eyJ") && raw.stderr.contains("as expected"), "{}", raw.stderr);

    // What a script takes for a token is never anything else.
    bench.sandbox.entra().faults().set(Fault::always(FaultKind::html(403)));
    let refused = run(&["token", "east", "--raw"], &bench.files.config).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""));
    assert!(
        refused.stderr.contains("broken    step 3 of 12") && refused.stderr.contains("mend "),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn token_copes_with_what_is_no_jwt_and_with_keys() {
    let bench = Bench::new(CredentialChoice::TokenFile).await;
    std::fs::write(bench.file("east-token"), "an-opaque-token").unwrap();
    let opaque = run(&["token", "east"], &bench.files.config).await;
    assert_eq!(opaque.code, Some(0), "{}", opaque.stderr);
    assert!(opaque.stdout.contains("not a JWT") && !opaque.stdout.contains("an-opaque-token"), "{}", opaque.stdout);
    let raw = run(&["token", "east", "--raw"], &bench.files.config).await;
    assert_eq!(raw.stdout, "an-opaque-token\n");

    let bench = Bench::new(CredentialChoice::AccessKey).await;
    let key = run(&["token", "east"], &bench.files.config).await;
    assert!(key.code == Some(0) && key.stdout.contains("signs each request"), "{}", key.stdout);
    let raw = run(&["token", "east", "--raw"], &bench.files.config).await;
    assert_eq!((raw.code, raw.stdout.as_str()), (Some(1), ""), "there is none to print");
}
