//! What the verdict of `/status` says about its first problem: what is known, what callers get meanwhile, and what happens once it
//! is repaired. Each is compared with what the gateway does.

use serde_json::Value;
use signalr_gateway::sandbox::{APP_CLIENT_ID, CredentialChoice, Fault, FaultKind, Files, GatewayConfig, TENANT_B};

use super::support::{BROADCAST_BODY, Caller, HarnessBuilder, Process, Response, broadcast_request, wait_until};

/// Circuits that open at the first failure, and probes that see a recovery soon.
const STRICT: &str = "[health]\nfailures = 1\nfailure_ratio = 0.0001\nprobe_interval = \"6s\"\n";
const EAST_ONLY: &str = "[[routes]]\nname = \"only\"\nendpoints = [\"east\"]\n";

/// A gateway with one problem.
struct Broken {
    builder: HarnessBuilder,
    files: Files,
    process: Process,
}

impl Broken {
    async fn start(builder: HarnessBuilder, config: GatewayConfig, change: impl FnOnce(&Files)) -> Self {
        let files = builder.write_files(&config);
        change(&files);
        let process = Process::start_gateway(&files.config, &[]).await;
        Self { builder, files, process }
    }

    async fn start_healthy(more: &str) -> Self {
        let config = GatewayConfig { more: format!("{STRICT}{more}"), ..GatewayConfig::default() };
        let broken = Self::start(HarnessBuilder::start().await, config, |_| {}).await;
        broken.process.wait_until_credentials_are("ready").await;
        broken
    }

    fn faults(&self, endpoint: &str) -> &signalr_gateway::sandbox::Faults {
        self.builder.sandbox.endpoint(endpoint).unwrap().server.faults()
    }

    async fn broadcast(&self) -> Response {
        Caller::connect(self.process.listener()).await.send(broadcast_request(), BROADCAST_BODY).await
    }

    /// Waits until the verdict has a state, and returns its lines and its first problem.
    async fn verdict_once(&self, state: &str) -> (Vec<String>, Value) {
        wait_until(&format!("the verdict is {state}"), async || {
            let verdict = self.process.status().await["verdict"].clone();
            let lines = verdict["lines"].as_array()?.iter().map(|line| line.as_str().unwrap().to_owned()).collect();
            (verdict["state"] == state).then(|| (lines, verdict["problem"].clone()))
        })
        .await
    }

    /// Makes a call, and checks that it gets what the problem says.
    async fn assert_callers_get_that(&self, problem: &Value) {
        let says = problem["callers_get"].as_str().unwrap();
        let response = self.broadcast().await;
        let status = response.status.as_u16();
        if let Some(own) = says.strip_prefix("the endpoint's own ") {
            assert!(own.starts_with(&status.to_string()), "{says}, and callers get {status}");
            return;
        }
        let kind = says.split('`').nth(1).unwrap_or_else(|| panic!("no error kind in {says}"));
        assert!(says.starts_with(&format!("{status} `")), "{says}, and callers get {status}");
        response.assert_gateway_error(status, kind);
    }
}

fn detail<'p>(problem: &'p Value, name: &str) -> &'p str {
    let details = problem["details"].as_array().unwrap_or_else(|| panic!("no details: {problem}"));
    let found = details.iter().find(|detail| detail["name"] == name);
    found.and_then(|detail| detail["value"].as_str()).unwrap_or_else(|| panic!("no {name}: {problem}"))
}

fn once_repaired(problem: &Value) -> &str {
    problem["once_repaired"].as_str().unwrap()
}

#[tokio::test]
async fn wrong_secret_names_the_app_and_the_file_whose_change_repairs_it() {
    let builder = HarnessBuilder::start().await;
    let correct = builder.sandbox.client_secret();
    let config = GatewayConfig { more: EAST_ONLY.to_owned(), ..GatewayConfig::default() };
    let broken = Broken::start(builder, config, |files| std::fs::write(&files.secret, "wrong").unwrap()).await;
    let (lines, problem) = broken.verdict_once("broken").await;
    let secret = broken.files.secret.display().to_string();
    assert!(lines[0].contains("AADSTS7000215: the client secret is wrong"), "{lines:?}");
    assert!(lines[2].contains(APP_CLIENT_ID) && lines[2].contains(&secret), "{lines:?}");
    assert_eq!(detail(&problem, "client_id"), APP_CLIENT_ID);
    assert_eq!(detail(&problem, "client secret"), format!("file {secret}"));
    assert_eq!(detail(&problem, "endpoint's tenant"), TENANT_B);
    assert_eq!(problem["entry"], serde_json::json!(["credential", "east"]));
    assert!(problem["runbook"].as_str().unwrap().ends_with("#token-invalid-client"), "{problem}");
    assert!(detail(&problem, "answer of Entra").ends_with("AADSTS7000215"), "{problem}");
    assert!(detail(&problem, "authority").starts_with("https://127.0.0.1:"), "{problem}");
    let setup = format!("signalr-gateway setup --config {} --endpoint east", broken.files.config.display());
    let commands = problem["commands"].to_string();
    assert!(commands.contains(&setup) && commands.contains(APP_CLIENT_ID), "{commands}");
    broken.assert_callers_get_that(&problem).await;
    assert!(
        once_repaired(&problem).starts_with(&format!("{secret} is read again within 2 s of a change")),
        "{problem}"
    );
    std::fs::write(&broken.files.secret, correct.expose()).unwrap();
    broken.verdict_once("healthy").await;
    assert_eq!(broken.broadcast().await.status, 202);
}

#[tokio::test]
async fn unreachable_entra_is_asked_again_by_the_gateway_itself() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.entra().faults().refuse().await;
    let broken = Broken::start(builder, GatewayConfig::default(), |_| {}).await;
    broken.process.wait_until_credentials_are("unavailable").await;
    let (lines, problem) = broken.verdict_once("broken").await;
    let port = broken.builder.sandbox.entra().address().port();
    assert!(lines[0].contains(&format!("127.0.0.1:{port} fails: ")), "{lines:?}");
    assert!(lines[2].contains(&format!("127.0.0.1:{port}")), "{lines:?}");
    assert_eq!(detail(&problem, "authority"), format!("https://127.0.0.1:{port}"));
    assert!(detail(&problem, "error").contains("refused"), "{problem}");
    broken.assert_callers_get_that(&problem).await;
    assert!(once_repaired(&problem).starts_with("the gateway tries again by itself: the next token request is "));
    broken.builder.sandbox.entra().faults().clear().await;
    broken.verdict_once("healthy").await;
    assert_eq!(broken.broadcast().await.status, 202);
}

#[tokio::test]
async fn unreachable_endpoint_is_taken_into_use_after_a_probe() {
    let broken = Broken::start_healthy(EAST_ONLY).await;
    broken.faults("east").refuse().await;
    broken.broadcast().await.assert_gateway_error(503, "endpoint_unavailable");
    let (lines, problem) = broken.verdict_once("broken").await;
    let port = broken.builder.sandbox.endpoint("east").unwrap().server.address().port();
    assert!(lines[0].contains(&format!("east at 127.0.0.1:{port} fails calls")), "{lines:?}");
    assert!(lines[2].contains("`endpoints.east.url`"), "{lines:?}");
    assert!(detail(&problem, "url").contains(&format!("127.0.0.1:{port} (`endpoints.east.url`)")), "{problem}");
    broken.assert_callers_get_that(&problem).await;
    assert!(once_repaired(&problem).starts_with("the gateway probes the endpoint every 1s,"), "{problem}");
    broken.faults("east").clear().await;
    broken.verdict_once("healthy").await;
}

#[tokio::test]
async fn endpoint_that_fails_calls_is_taken_into_use_by_a_call() {
    let broken = Broken::start_healthy(EAST_ONLY).await;
    broken.faults("east").set(Fault::always(FaultKind::status(500)).on_path("/api/hubs"));
    assert_eq!(broken.broadcast().await.status, 500);
    let (_, problem) = broken.verdict_once("broken").await;
    assert!(detail(&problem, "answer").starts_with("500"), "{problem}");
    assert!(problem["commands"][0]["command"].as_str().unwrap().ends_with("/api/health"), "{problem}");
    broken.assert_callers_get_that(&problem).await;
    assert!(once_repaired(&problem).starts_with("the first call that succeeds closes the circuit"), "{problem}");
    broken.faults("east").clear().await;
    assert_eq!(broken.broadcast().await.status, 202);
    broken.verdict_once("healthy").await;
}

#[tokio::test]
async fn name_that_does_not_resolve_may_be_a_mistake_in_the_configuration() {
    let more = "[endpoints.nowhere]\nurl = \"https://nowhere.invalid\"\ncredential = \"east\"\n\
                [[routes]]\nname = \"only\"\nendpoints = [\"nowhere\"]\n";
    let broken = Broken::start_healthy(more).await;
    let (lines, problem) = broken.verdict_once("broken").await;
    assert!(lines[0].contains("nowhere at nowhere.invalid:443 fails calls (name resolution"), "{lines:?}");
    assert!(
        lines[2].starts_with("do this: correct `endpoints.nowhere.url`, or repair the DNS of this host"),
        "{lines:?}"
    );
    broken.assert_callers_get_that(&problem).await;
    let config = broken.files.config.display().to_string();
    assert!(once_repaired(&problem).contains(&format!("a change of {config} is read within 5 s")), "{problem}");
    let url = broken.builder.sandbox.endpoint("west").unwrap().url();
    let text = std::fs::read_to_string(&broken.files.config).unwrap();
    // The same CA as that of the other endpoints is not configured for it.
    let corrected =
        text.replace("https://nowhere.invalid\"", &format!("{url}\"\nca_file = \"{}\"", broken.files.ca.display()));
    std::fs::write(&broken.files.config, corrected).unwrap();
    wait_until("the corrected address is in use", async || {
        let status = broken.process.status().await;
        let endpoints = status["endpoints"].as_array()?;
        let nowhere = endpoints.iter().find(|endpoint| endpoint["name"] == "nowhere")?;
        (nowhere["state"] == "ok").then_some(())
    })
    .await;
}

#[tokio::test]
async fn certificate_of_an_unknown_issuer_is_shown_with_what_is_trusted() {
    let builder = HarnessBuilder::start().await;
    // A CA that has not signed the certificate of the server.
    let other = rcgen::generate_simple_self_signed(vec!["other.example".to_owned()]).unwrap();
    let path = builder.folder.path().join("other-ca.pem");
    std::fs::write(&path, other.cert.pem()).unwrap();
    let (port, path) = (builder.sandbox.entra().address().port(), path.display());
    let more = format!(
        "{STRICT}[endpoints.stranger]\nurl = \"https://127.0.0.1:{port}\"\nca_file = \"{path}\"\ncredential = \"east\"\n\
         [[routes]]\nname = \"only\"\nendpoints = [\"stranger\"]\n"
    );
    let config = GatewayConfig { more, ..GatewayConfig::default() };
    let broken = Broken::start(builder, config, |_| {}).await;
    broken.process.wait_until_credentials_are("ready").await;
    let (lines, problem) = broken.verdict_once("broken").await;
    assert!(lines[2].contains("if you do not know it, do not trust it"), "{lines:?}");
    assert!(detail(&problem, "CAs in use").contains("other-ca.pem") && !detail(&problem, "issuer").is_empty());
    broken.assert_callers_get_that(&problem).await;
}

#[tokio::test]
async fn refusal_of_the_endpoint_is_shown_with_the_ids_in_the_token_until_a_call_is_accepted() {
    for (status, deciding) in [(401, "tenant of the token"), (403, "object id")] {
        let broken = Broken::start_healthy(EAST_ONLY).await;
        broken.faults("east").set(Fault::always(FaultKind::status(status)).on_path("/api/hubs"));
        assert_eq!(broken.broadcast().await.status, status);
        let (_, problem) = broken.verdict_once("broken").await;
        let id = detail(&problem, deciding).to_owned();
        assert_eq!(id.len(), 36, "{problem}");
        assert_eq!(detail(&problem, "tenant of the token"), TENANT_B);
        if status == 403 {
            assert!(detail(&problem, "role").contains("SignalR REST API Owner"), "{problem}");
            let command = problem["commands"][0]["command"].as_str().unwrap();
            assert!(command.contains(&format!("--assignee-object-id {id} ")) && !command.contains('<'), "{command}");
        }
        broken.assert_callers_get_that(&problem).await;
        assert!(once_repaired(&problem).contains("the first one that it accepts ends this"), "{problem}");
        broken.faults("east").clear().await;
        assert_eq!(broken.broadcast().await.status, 202);
        broken.verdict_once("healthy").await;
    }
}

#[tokio::test]
async fn partial_fan_out_says_who_has_delivered_the_message() {
    let both = "[[routes]]\nname = \"both\"\npick = \"all\"\nendpoints = [\"east\", \"west\"]\n";
    let broken = Broken::start_healthy(both).await;
    for (refuse, outcome) in [(true, "west has not"), (false, "west has not confirmed it")] {
        if refuse {
            broken.faults("west").refuse().await;
        } else {
            broken.faults("west").set(Fault::always(FaultKind::status(500)).on_path("/api/hubs"));
        }
        broken.broadcast().await.assert_gateway_error(502, "partial_delivery");
        let (_, problem) = broken.verdict_once("broken").await;
        let expected = format!("502 `partial_delivery`: east has delivered the message, {outcome}");
        assert_eq!(problem["callers_get"], expected, "{problem}");
        broken.assert_callers_get_that(&problem).await;
        broken.faults("west").clear().await;
        wait_until("both accept the call", async || (broken.broadcast().await.status == 202).then_some(())).await;
        broken.verdict_once("healthy").await;
    }
}

#[tokio::test]
async fn clock_that_differs_from_that_of_entra_is_shown_with_the_times_of_the_assertion() {
    let builder = HarnessBuilder::start().await;
    let body = r#"{"error":"invalid_client","error_description":"AADSTS700024: no","error_codes":[700024]}"#;
    let early = FaultKind::json(401, body).with_header("date", "Thu, 01 Jan 2026 10:00:00 GMT");
    builder.sandbox.entra().faults().set(Fault::always(early).on_path(&format!("/{TENANT_B}")));
    let config = GatewayConfig {
        credentials: vec![
            ("east".to_owned(), CredentialChoice::ClientCertificate.into()),
            ("west".to_owned(), CredentialChoice::FederatedIdentity.into()),
        ],
        more: EAST_ONLY.to_owned(),
        ..GatewayConfig::default()
    };
    let broken = Broken::start(builder, config, |_| {}).await;
    let (lines, problem) = broken.verdict_once("broken").await;
    assert!(lines[0].contains("AADSTS700024") && lines[0].contains("ahead of Entra's"), "{lines:?}");
    assert!(lines[2].starts_with("do this: correct the clock of this host"), "{lines:?}");
    let assertion = detail(&problem, "assertion");
    assert!(assertion.starts_with("nbf ") && assertion.contains(", exp "), "{problem}");
    assert!(detail(&problem, "clock of this host").contains("2026-01-01 10:00:00 UTC"), "{problem}");
    assert_eq!(problem["commands"][0]["command"], "timedatectl set-ntp true");
    assert!(detail(&problem, "certificate").contains(&broken.files.certificate.display().to_string()), "{problem}");
    broken.assert_callers_get_that(&problem).await;
    let next = broken.process.status().await["credentials"][0]["next_acquisition"].as_u64().unwrap();
    let time = humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(next));
    let time = time.to_string()[11..19].to_owned();
    assert!(
        once_repaired(&problem)
            .contains(&format!("the gateway tries again by itself: the next token request is at {time}")),
        "{time} {problem}"
    );
}

#[tokio::test]
async fn rejected_configuration_has_the_command_that_tests_the_file() {
    let broken = Broken::start_healthy("").await;
    let text = std::fs::read_to_string(&broken.files.config).unwrap();
    std::fs::write(&broken.files.config, format!("{text}\n[limits]\nmax_bodyy = 1\n")).unwrap();
    let (lines, problem) = broken.verdict_once("attention").await;
    let config = broken.files.config.display().to_string();
    assert!(lines[2].contains(&config), "{lines:?}");
    assert_eq!(problem["commands"][0]["command"], format!("signalr-gateway check --config {config}"));
    assert_eq!(problem["callers_get"], "the normal answers");
    assert_eq!(broken.broadcast().await.status, 202);
    assert!(once_repaired(&problem).starts_with(&format!("a change of {config} is read within 5 s")), "{problem}");
    std::fs::write(&broken.files.config, text).unwrap();
    broken.verdict_once("healthy").await;
}
