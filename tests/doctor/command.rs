//! The commands `doctor` and `token` of the real binary: output, exit codes and time.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use signalr_gateway::sandbox::{CredentialChoice, Fault, FaultKind, TENANT_B, TENANT_C};
use tokio::process::Command;

use super::setup::Setup;

struct Exited {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

async fn run(arguments: &[&str], config: &Path) -> Exited {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signalr-gateway"));
    command.args(arguments).arg("--config").arg(config).kill_on_drop(true);
    // The documented limit is fifteen seconds. The rest is for the start of a process on a busy machine.
    let ran = tokio::time::timeout(Duration::from_secs(20), command.output()).await;
    let Output { status, stdout, stderr } = ran.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Exited { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

fn tokens_in(text: &str) -> usize {
    // Every JWT begins with this: `{"` in base64url.
    text.matches("eyJ").count()
}

#[tokio::test]
#[cfg(feature = "redis")]
async fn doctor_reports_an_idempotency_store_that_cannot_be_reached() {
    let setup = Setup::new(CredentialChoice::ClientSecret).await;
    let mut config = std::fs::read_to_string(&setup.files.config).unwrap();
    config.push_str("\n[idempotency]\nstore = \"redis://127.0.0.1:1\"\n");
    std::fs::write(&setup.files.config, config).unwrap();
    let text = run(&["doctor"], &setup.files.config).await;
    assert_eq!(text.code, Some(1));
    for part in ["credential east: all checks passed", "redis://127.0.0.1:1: the store cannot be reached", "firewalls"]
    {
        assert!(text.stdout.contains(part), "{}", text.stdout);
    }
    let json = run(&["doctor", "--json"], &setup.files.config).await;
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&report["ok"], &report["idempotency_store"]["ok"]), (&false.into(), &false.into()));
}

#[tokio::test]
async fn doctor_examines_every_endpoint_and_reports_the_same_as_json() {
    let setup = Setup::new(CredentialChoice::ClientSecret).await;
    let all = run(&["doctor"], &setup.files.config).await;
    assert_eq!((all.code, all.stderr.as_str()), (Some(0), ""), "{}", all.stdout);
    for name in ["east", "west"] {
        assert!(all.stdout.contains(&format!("endpoint {name} (https://")), "{}", all.stdout);
    }
    assert!(all.stdout.contains("(this host)") && all.stdout.contains("certificate issued by"), "{}", all.stdout);
    assert_eq!(tokens_in(&all.stdout), 0, "{}", all.stdout);

    // Only east is broken.
    let unavailable = Fault::always(FaultKind::status(503)).on_path(&format!("/{TENANT_B}"));
    setup.sandbox.entra().faults().set(unavailable);
    let text = run(&["doctor"], &setup.files.config).await;
    assert_eq!(text.code, Some(1));
    assert!(
        text.stdout.contains("credential east: broken at step 3 of 14: the connection to Entra"),
        "{}",
        text.stdout
    );
    assert!(text.stdout.contains("credential west: all checks passed"), "{}", text.stdout);
    let json = run(&["doctor", "--json"], &setup.files.config).await;
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, &report["ok"]), (Some(1), &Value::Bool(false)));
    let [east, west] = [&report["endpoints"][0], &report["endpoints"][1]];
    assert_eq!((&east["endpoint"], &east["broken"]["step"]["name"]), (&"east".into(), &"identity_endpoint".into()));
    assert!(east["broken"]["mend"][0]["note"].is_string() && east["checks"].as_array().unwrap().len() >= 3, "{east:#}");
    assert_eq!((&west["ok"], &west["broken"]), (&Value::Bool(true), &Value::Null));
    let alone = run(&["doctor", "--endpoint", "west"], &setup.files.config).await;
    assert!(alone.code == Some(0) && !alone.stdout.contains("endpoint east"), "{}", alone.stdout);
    let unknown = run(&["doctor", "--endpoint", "north"], &setup.files.config).await;
    assert!(unknown.code == Some(2) && unknown.stderr.contains("`north`"), "{}", unknown.stderr);
}

#[tokio::test]
async fn doctor_groups_endpoints_with_the_same_cause_and_takes_patterns() {
    let setup = Setup::new(CredentialChoice::ClientSecret).await;
    let text = std::fs::read_to_string(&setup.files.config).unwrap();
    let [east, west] = ["east", "west"].map(|name| {
        let table = text.split(&format!("[endpoints.{name}]\n")).nth(1).unwrap();
        table.split("\n[").next().unwrap().trim_end().to_owned()
    });
    let more = |name: &str, table: &str| format!("\n[endpoints.{name}]\n{table}\n");
    let broken: String = (0..12).map(|number| more(&format!("tenant{number:02}"), &east)).collect();
    let working: String = (0..12).map(|number| more(&format!("works{number:02}"), &west)).collect();
    let routes =
        if text.contains("[[routes]]") { "" } else { "\n[[routes]]\nname = \"all\"\nendpoints = [\"east\"]\n" };
    std::fs::write(&setup.files.config, format!("{text}{broken}{working}{routes}")).unwrap();
    let body =
        r#"{"error":"unauthorized_client","error_description":"AADSTS7000229: no principal","error_codes":[7000229]}"#;
    let no_principal = Fault::always(FaultKind::json(400, body)).on_path(&format!("/{TENANT_B}"));
    setup.sandbox.entra().faults().set(no_principal);

    let ran = run(&["doctor"], &setup.files.config).await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let first = ran.stdout.lines().next().unwrap();
    assert_eq!(first, "AADSTS7000229 at 13 endpoints in 1 tenant: east, tenant00, tenant01 and 10 more");
    assert_eq!(ran.stdout.matches("  broken  ").count(), 1, "one report for the cause: {}", ran.stdout);
    assert!(
        ran.stdout.contains("all checks passed at 13 endpoints: west, works00, works01 and 10 more"),
        "{}",
        ran.stdout
    );
    assert_eq!(ran.stderr, "", "no progress unless stderr is a terminal");

    let some = run(&["doctor", "--json", "--endpoint", "tenant0*", "--endpoint", "west"], &setup.files.config).await;
    let report: Value = serde_json::from_str(&some.stdout).unwrap();
    assert_eq!(report["endpoints"].as_array().unwrap().len(), 11);
    assert_eq!(report["causes"].as_array().unwrap().len(), 1);
    assert_eq!(report["causes"][0]["codes"], serde_json::json!([7_000_229]));
    assert_eq!(report["causes"][0]["endpoints"].as_array().unwrap().len(), 10);
    assert_eq!(report["not_reached"], serde_json::json!([]));
    let none = run(&["doctor", "--endpoint", "north*"], &setup.files.config).await;
    assert!(none.code == Some(2) && none.stderr.contains("no endpoint in the configuration matches `north*`"));
}

#[tokio::test]
async fn doctor_says_which_endpoints_it_did_not_reach_in_time() {
    let setup = Setup::new(CredentialChoice::ClientSecret).await;
    let text = std::fs::read_to_string(&setup.files.config).unwrap();
    let table = |kind: &str| {
        let table = text.split(&format!("[{kind}.east]\n")).nth(1).unwrap();
        table.split("\n[").next().unwrap().trim_end().to_owned()
    };
    let more: Vec<String> = (0..24)
        .map(|number| {
            let endpoint = table("endpoints").replace("\"east\"", &format!("\"tenant{number:02}\""));
            format!(
                "\n[credentials.tenant{number:02}]\n{}\n[endpoints.tenant{number:02}]\n{endpoint}\n",
                table("credentials")
            )
        })
        .collect();
    let more = more.concat();
    let routes =
        if text.contains("[[routes]]") { "" } else { "\n[[routes]]\nname = \"all\"\nendpoints = [\"east\"]\n" };
    std::fs::write(&setup.files.config, format!("{text}{more}{routes}")).unwrap();
    setup.sandbox.entra().faults().set(Fault::always(FaultKind::Hang).on_path(&format!("/{TENANT_B}")));
    let ran = run(&["doctor", "--json", "--endpoint", "tenant*"], &setup.files.config).await;
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let length = |key: &str| report[key].as_array().unwrap().len();
    assert_eq!((ran.code, length("endpoints"), length("not_reached")), (Some(1), 16, 8), "{report:#}");
}

#[tokio::test]
async fn reports_an_invalid_configuration_as_json() {
    let setup = Setup::new(CredentialChoice::ClientSecret).await;
    setup.rewrite("[credentials.east]", "[credentials.east]\nobjct_id = \"x\"");
    let ran = run(&["doctor", "--json"], &setup.files.config).await;
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &report["problems"][0]["key"]), (Some(2), &"credentials.east.objct_id".into()));
}

#[tokio::test]
async fn doctor_ends_in_time_when_entra_and_a_file_hang() {
    let setup = Setup::new(CredentialChoice::FederatedFile).await;
    // A pipe without a writer: opening it blocks a thread until the process ends.
    std::fs::remove_file(&setup.files.assertion).unwrap();
    assert!(Command::new("mkfifo").arg(&setup.files.assertion).status().await.unwrap().success());
    setup.sandbox.entra().faults().set(Fault::always(FaultKind::Hang).on_path(&format!("/{TENANT_C}")));
    let began = Instant::now();
    let ran = run(&["doctor"], &setup.files.config).await;
    let took = began.elapsed();
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stdout.contains("credential east: broken at step 2 of 14: the proof on this host"), "{}", ran.stdout);
    assert!(ran.stdout.contains("credential west: broken at step 3 of 14: the connection to Entra"), "{}", ran.stdout);
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[tokio::test]
async fn token_shows_each_step_and_each_claim_with_its_expected_value() {
    let setup = Setup::new(CredentialChoice::FederatedIdentity).await;
    let shown = run(&["token", "east"], &setup.files.config).await;
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
    let raw = run(&["token", "east", "--raw"], &setup.files.config).await;
    assert_eq!((raw.code, raw.stdout.lines().count(), tokens_in(&raw.stderr)), (Some(0), 1, 0), "{}", raw.stderr);
    assert!(raw.stdout.starts_with("eyJ") && raw.stderr.contains("as expected"), "{}", raw.stderr);

    // Standard output has only the token, for use in scripts.
    setup.sandbox.entra().faults().set(Fault::always(FaultKind::html(403)));
    let failed = run(&["token", "east", "--raw"], &setup.files.config).await;
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(1), ""));
    assert!(failed.stderr.contains("broken    step 3 of 14") && failed.stderr.contains("fix "), "{}", failed.stderr);
}

#[tokio::test]
async fn token_handles_opaque_tokens_and_access_keys() {
    let setup = Setup::new(CredentialChoice::TokenFile).await;
    std::fs::write(setup.file("east-token"), "an-opaque-token").unwrap();
    let opaque = run(&["token", "east"], &setup.files.config).await;
    assert_eq!(opaque.code, Some(0), "{}", opaque.stderr);
    assert!(opaque.stdout.contains("not a JWT") && !opaque.stdout.contains("an-opaque-token"), "{}", opaque.stdout);
    let raw = run(&["token", "east", "--raw"], &setup.files.config).await;
    assert_eq!(raw.stdout, "an-opaque-token\n");

    let setup = Setup::new(CredentialChoice::AccessKey).await;
    let key = run(&["token", "east"], &setup.files.config).await;
    assert!(key.code == Some(0) && key.stdout.contains("signs each request"), "{}", key.stdout);
    let raw = run(&["token", "east", "--raw"], &setup.files.config).await;
    assert_eq!((raw.code, raw.stdout.as_str()), (Some(1), ""), "there is no token to print");
}
