//! What the log says when something is broken. Each line has the cause, names the side that failed, says what to do and links to
//! the runbook. Partial deliveries are in `access_log`, and a log that nobody reads is in `log`.

use std::fs::OpenOptions;
use std::time::Duration;

use serde_json::Value;
use signalr_gateway::sandbox::{
    APP_CLIENT_ID, CredentialChoice, Fault, FaultKind, Files, GatewayConfig, TENANT_B, TENANT_C,
};

use crate::support::{BROADCAST_BODY, Caller, HarnessBuilder, Process, Program, broadcast_request, wait_until};

/// A gateway whose log is read line by line.
struct Drill {
    builder: HarnessBuilder,
    files: Files,
    process: Process,
}

impl Drill {
    async fn start(builder: HarnessBuilder, more: &str) -> Self {
        Self::start_with(builder, more, |_| {}).await
    }

    /// Starts the gateway after `change` has changed the files.
    async fn start_with(builder: HarnessBuilder, more: &str, change: impl FnOnce(&Files)) -> Self {
        let config = GatewayConfig { more: more.to_owned(), ..GatewayConfig::default() };
        let files = builder.write_files(&config);
        change(&files);
        let process = Process::start_gateway(&files.config, &[]).await;
        Self { builder, files, process }
    }

    fn faults(&self, endpoint: &str) -> &signalr_gateway::sandbox::Faults {
        self.builder.sandbox.endpoint(endpoint).unwrap().server.faults()
    }

    async fn broadcast(&self) -> u16 {
        let mut caller = Caller::connect(self.process.listener()).await;
        caller.send(broadcast_request(), BROADCAST_BODY).await.status.as_u16()
    }

    /// Waits for a line that needs the operator and whose message contains `message`. Checks that it has a cause with these words,
    /// what to do, and a link to a section of the runbook.
    async fn assert_logged(&self, message: &str, cause: &str, section: &str) -> Value {
        let line = wait_until(&format!("the log has {message:?} and {cause:?}"), async || {
            let log = self.process.log();
            log.lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line["message"].as_str().unwrap().contains(message) && line.to_string().contains(cause))
        })
        .await;
        assert!(line["level"] == "WARN" || line["level"] == "ERROR", "{line}");
        assert!(line["remedy"].as_str().is_some_and(|remedy| remedy.len() > 20), "no remedy: {line}");
        let runbook = line["runbook"].as_str().unwrap_or_default();
        assert!(runbook.starts_with("https://") && runbook.ends_with(&format!("#{section}")), "{line}");
        line
    }
}

/// A configuration whose circuits open at the first failure.
const STRICT: &str = "[health]\nfailures = 1\nfailure_ratio = 0.0001\n";

/// Returns a response of Entra with an AADSTS code.
fn refusal(tenant: &str, error: &str, code: u32) -> Fault {
    let body = format!(r#"{{"error":"{error}","error_description":"AADSTS{code}: refused","error_codes":[{code}]}}"#);
    Fault::always(FaultKind::json(401, &body)).on_path(&format!("/{tenant}"))
}

#[tokio::test]
async fn wrong_secret_is_logged_with_what_to_replace() {
    let builder = HarnessBuilder::start().await;
    let drill = Drill::start_with(builder, "", |files| std::fs::write(&files.secret, "wrong-secret").unwrap()).await;
    let line = drill.assert_logged("no valid token", "AADSTS7000215", "token-invalid-client").await;
    assert_eq!((&line["credential"], &line["side"]), (&"east".into(), &"credential".into()), "{line}");
    assert!(
        line["remedy"].as_str().unwrap().starts_with("use the secret's value") && line["who_acts"].is_string(),
        "{line}"
    );
    assert_eq!(line["proof"], format!("client secret from file {}", drill.files.secret.display()), "{line}");
    assert_eq!(line["client_id"], APP_CLIENT_ID, "{line}");
}

#[tokio::test]
async fn expired_certificate_and_clock_skew_are_logged_with_what_to_correct() {
    let builder = HarnessBuilder::start().await;
    let entra = builder.sandbox.entra().faults();
    // A certificate that has expired, and an assertion outside of its time window.
    entra.set(refusal(TENANT_B, "invalid_client", 7_000_222));
    entra.set(refusal(TENANT_C, "invalid_client", 700_024));
    let drill = Drill::start(builder, "").await;
    drill.assert_logged("no valid token", "AADSTS7000222", "token-invalid-client").await;
    let line = drill.assert_logged("no valid token", "AADSTS700024", "token-assertion-expired").await;
    assert!(line["remedy"].as_str().unwrap().contains("clock"), "{line}");
}

#[tokio::test]
async fn clock_skew_is_logged_with_both_clocks_and_the_times_of_the_assertion() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.directory().edit(|directory| directory.tokens.clock_offset_secs = 1200);
    let config = GatewayConfig::default().with_credential("east", CredentialChoice::ClientCertificate);
    let files = builder.write_files(&config);
    let process = Process::start_gateway(&files.config, &[]).await;
    let drill = Drill { builder, files, process };
    let line = drill.assert_logged("no valid token", "AADSTS700024", "token-assertion-expired").await;
    let remedy = line["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("correct the clock of this host (NTP: `timedatectl set-ntp true`"), "{line}");
    let clocks = line["clocks"].as_str().unwrap();
    assert!(clocks.contains("this host's clock is 20m") || clocks.contains("19m"), "{line}");
    assert!(clocks.contains(" behind Entra's") && clocks.contains("this host 2"), "{line}");
    let assertion = line["assertion"].as_str().unwrap();
    assert!(assertion.starts_with("nbf 2") && assertion.contains("Z, exp 2"), "{line}");
    assert!(line["proof"].as_str().unwrap().starts_with("assertion signed with certificate /"), "{line}");
}

#[tokio::test]
async fn entra_that_is_down_is_logged_with_the_network_to_it() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.entra().faults().refuse().await;
    let drill = Drill::start(builder, "").await;
    let line = drill.assert_logged("no valid token", "refused", "token-network").await;
    assert_eq!(line["side"], "credential");
    assert!(line["remedy"].as_str().unwrap().starts_with("allow this host to reach the authority"), "{line}");
    let error = line["error"].as_str().unwrap();
    assert!(error.contains(" at 127.0.0.1:") && !error.contains("check"), "{line}");
    assert_eq!(error.matches("refused").count(), 1, "{line}");
    assert_eq!(drill.broadcast().await, 503);
    let line = drill.assert_logged("request", "token_unavailable", "error-token-unavailable").await;
    assert_eq!(line["side"], "credential", "{line}");
    let (_, lines) = drill.process.verdict().await;
    assert!(
        lines[0].contains("(the connection to Entra at ") && lines[0].contains(" fails: Connection refused"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn endpoint_that_is_down_is_logged_with_the_cause() {
    let drill = Drill::start(HarnessBuilder::start().await, STRICT).await;
    drill.process.wait_until_credentials_are("ready").await;
    drill.faults("east").refuse().await;
    drill.faults("west").refuse().await;
    assert_eq!(drill.broadcast().await, 503);
    let line = drill.assert_logged("circuit is open", "refused", "endpoint-connect").await;
    assert_eq!(line["side"], "endpoint");
    let (name, address) = (line["endpoint"].as_str().unwrap(), line["address"].as_str().unwrap());
    assert!(address.starts_with("127.0.0.1:"), "{line}");
    assert!(line["remedy"].as_str().unwrap().contains(&format!("`endpoints.{name}.url`")), "{line}");
    assert!(line["callers_get"].as_str().unwrap().starts_with("503 endpoint_unavailable"), "{line}");
    humantime::parse_rfc3339(line["since"].as_str().unwrap()).unwrap();
    let (error, remedy) = (line["error.cause"].as_str().unwrap(), line["remedy"].as_str().unwrap());
    assert_eq!(error.matches("refused").count(), 1, "{line}");
    assert!(remedy.ends_with("once that is repaired, the circuit closes by itself"), "{line}");
    let line = drill.assert_logged("request", "refused", "error-endpoint-unavailable").await;
    assert_eq!((&line["side"], &line["status"]), (&"endpoint".into(), &503.into()), "{line}");
}

#[tokio::test]
async fn endpoint_whose_name_does_not_resolve_or_whose_tls_fails_is_logged_with_the_cause() {
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _gone = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let more = format!(
        "{STRICT}[endpoints.nowhere]\nurl = \"https://nowhere.invalid\"\ncredential = \"east\"\n\
         [endpoints.plain]\nurl = \"https://localhost:{port}\"\ncredential = \"east\"\n\
         [[routes]]\nname = \"broken\"\nendpoints = [\"nowhere\", \"plain\"]\n"
    );
    let drill = Drill::start(HarnessBuilder::start().await, &more).await;
    drill.process.wait_until_credentials_are("ready").await;
    assert_eq!(drill.broadcast().await, 503);
    let line = drill.assert_logged("circuit is open", "nowhere", "endpoint-dns").await;
    assert!(line["error.cause"].as_str().unwrap().contains("name resolution"), "{line}");
    assert!(
        line["remedy"].as_str().unwrap().starts_with("correct `endpoints.nowhere.url`, or repair the DNS"),
        "{line}"
    );
    assert_eq!(line["address"], "nowhere.invalid:443", "{line}");
    let line = drill.assert_logged("circuit is open", "plain", "endpoint-tls").await;
    assert!(line["error.cause"].as_str().unwrap().contains("TLS"), "{line}");
    assert!(line["remedy"].as_str().unwrap().contains("`endpoints.plain.ca_file`"), "{line}");
}

#[tokio::test]
async fn endpoint_that_refuses_the_token_is_logged_once_with_what_to_do() {
    for (status, section, words) in [(401, "endpoint-401", "`endpoints.east.url`"), (403, "endpoint-403", "role")] {
        let drill = Drill::start(HarnessBuilder::start().await, "").await;
        drill.process.wait_until_credentials_are("ready").await;
        drill.faults("east").set(Fault::always(FaultKind::status(status)).on_path("/api/hubs"));
        for _ in 0..3 {
            assert_eq!(drill.broadcast().await, status);
        }
        let line = drill.assert_logged("the endpoint refuses the token", &status.to_string(), section).await;
        let remedy = line["remedy"].as_str().unwrap();
        assert!(line["endpoint"] == "east" && remedy.contains(words), "{line}");
        let config = std::fs::canonicalize(&drill.files.config).unwrap();
        let doctor = format!("`signalr-gateway doctor --config {} --endpoint east`", config.display());
        assert!(remedy.contains(&doctor), "the command {doctor} is not in: {line}");
        assert!(line["address"].as_str().unwrap().starts_with("127.0.0.1:") && line["credential"] == "east", "{line}");
        assert_eq!(line["callers_get"], format!("{status} of the endpoint"), "{line}");
        let object_id = line["object_id"].as_str().unwrap();
        assert!(line["tenant"] == TENANT_B && (status == 401 || remedy.contains(object_id)), "{line}");
        drill.assert_logged("request", &status.to_string(), section).await;
        assert_eq!(drill.process.log().matches("the endpoint refuses the token").count(), 1);
    }
}

#[tokio::test]
async fn rejected_and_partly_applied_configurations_are_logged_with_what_to_do() {
    let drill = Drill::start(HarnessBuilder::start().await, "").await;
    let config = std::fs::read_to_string(&drill.files.config).unwrap();
    std::fs::write(&drill.files.config, format!("{config}\n[limits]\nmax_bodyy = 1\n")).unwrap();
    drill.process.hang_up().await;
    let line = drill.assert_logged("configuration was rejected", "max_bodyy", "log-configuration-rejected").await;
    assert!(line["remedy"].as_str().unwrap().contains("check"), "{line}");
    std::fs::write(&drill.files.config, format!("{config}\n[process]\nworkers = 3\n")).unwrap();
    drill.process.hang_up().await;
    drill.assert_logged("only after a restart", "process.workers", "log-restart-needed").await;
}

#[tokio::test]
async fn low_limit_of_open_files_is_logged_with_what_to_raise() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let process = Program::with_open_files(180, &files.config).start(builder.folder.path()).await;
    let drill = Drill { builder, files, process };
    let line = drill.assert_logged("the limit of open files", "180", "log-open-files").await;
    assert!(line["remedy"].as_str().unwrap().contains("LimitNOFILE"), "{line}");
    let metrics = drill.process.metrics().await;
    let limit = |limit: &str| metrics.sum("connections_max", &[("limit", limit)]);
    assert_eq!((limit("configured"), limit("in_force")), (10_000.0, 58.0));
    drill.process.wait_until_credentials_are("ready").await;
    let (state, lines) = drill.process.verdict().await;
    assert_eq!(state, "attention", "{lines:?}");
    assert!(lines[0].contains("58 connections of callers instead of 10000"), "{lines:?}");
    assert!(lines[2].starts_with("do this: raise the hard limit (`LimitNOFILE`"), "{lines:?}");
}

#[tokio::test]
async fn full_disk_under_the_log_stops_nothing_and_is_reported_on_the_page_and_once_there_is_space() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let path = builder.folder.path().join("log");
    let log = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let process = Program::with_small_files(32, &files.config).stderr(log).start(builder.folder.path()).await;
    process.wait_until_credentials_are("ready").await;
    let drill = Drill { builder, files, process };
    let lost = wait_until("lost lines are counted", async || {
        assert_eq!(drill.broadcast().await, 202);
        let lost = drill.process.metrics().await.sum("log_lines_dropped_total", &[("reason", "write_error")]);
        (lost >= 1.0).then_some(lost)
    })
    .await;
    let (state, lines) = drill.process.verdict().await;
    assert_eq!(state, "attention", "{lines:?}");
    assert!(
        lines[0].starts_with("log lines are lost since ") && lines[0].contains("stderr cannot be written: "),
        "{lines:?}"
    );
    assert!(lines[2].starts_with("do this: free the disk"), "{lines:?}");

    // Space again. What was cut off in the middle is on a line of its own.
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_eq!(drill.broadcast().await, 202);
    let reported = wait_until("the lost lines are reported", async || {
        let text = std::fs::read_to_string(&path).unwrap();
        let (complete, _) = text.rsplit_once('\n')?;
        let lines = complete.lines().filter(|line| !line.is_empty());
        let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.into_iter().find(|line| line["message"].as_str().unwrap().starts_with("log lines were lost"))
    })
    .await;
    assert!(reported["lines"].as_f64().unwrap() >= lost, "{reported} of {lost}");
    assert!(reported["remedy"].as_str().unwrap().starts_with("free the disk"), "{reported}");
    assert!(reported["message"].as_str().unwrap().ends_with("calls are served as before"), "{reported}");
    assert!(reported["runbook"].as_str().unwrap().ends_with("#log-lost-lines"), "{reported}");
}

#[tokio::test]
async fn log_begins_with_what_runs_and_ends_with_what_it_did() {
    let drill = Drill::start(HarnessBuilder::start().await, "").await;
    drill.process.wait_until_credentials_are("ready").await;
    assert_eq!(drill.broadcast().await, 202);
    Caller::connect(drill.process.listener())
        .await
        .call("GET", "/nowhere")
        .await
        .assert_gateway_error(404, "unknown_path");
    let (config, listener) = (drill.files.config.display().to_string(), drill.process.listener().to_string());
    drill.process.terminate().await;
    let (_, log) = drill.process.wait().await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let start = lines.iter().find(|line| line["message"] == "signalr-gateway started").unwrap();
    assert_eq!((&start["version"], &start["config"]), (&env!("CARGO_PKG_VERSION").into(), &config.into()), "{start}");
    assert_eq!(start["listeners"], format!("default at {listener}"));
    assert_eq!(start["endpoints"], "east, west");
    assert!(start["config_hash"].as_str().unwrap().len() == 8 && start["max_connections"].is_u64(), "{start}");
    let stop = lines.last().unwrap();
    assert_eq!(stop["message"], "signalr-gateway stopped", "{log}");
    assert_eq!((&stop["requests"], &stop["client_errors"], &stop["server_errors"]), (&2.into(), &1.into(), &0.into()));
    assert!(Duration::from_secs(stop["uptime_secs"].as_u64().unwrap()) < Duration::from_secs(60), "{stop}");
}
