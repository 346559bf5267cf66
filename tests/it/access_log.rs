//! The access record: its fields are those that `config/guide/logs.md` documents, and its levels tell what needs the operator.

use std::collections::BTreeSet;

use serde_json::Value;
use signalr_gateway::sandbox::{Fault, FaultKind, GatewayConfig};

use crate::support::pki::{Pki, tls_connect};
use crate::support::{ALL_OPERATIONS, BROADCAST_BODY, Caller, HarnessBuilder, Process, broadcast_request, request};

/// Returns the fields in the table of a section of the guide.
fn documented() -> BTreeSet<String> {
    let guide = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/guide/logs.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let section = guide.split("\n## ").find(|section| section.starts_with("The access record")).unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(field, _)| field.to_owned()).collect()
}

/// Returns the fields of a line of text, without its beginning.
fn fields_of_text(line: &str) -> BTreeSet<String> {
    let (_, mut rest) = line.split_once("signalr_gateway::access: request ").unwrap();
    let mut fields = BTreeSet::new();
    while let Some((field, value)) = rest.split_once('=') {
        fields.insert(field.to_owned());
        rest = match value.strip_prefix('"') {
            Some(quoted) => {
                let end = quoted.match_indices('"').find(|(at, _)| !quoted[..*at].ends_with('\\')).unwrap().0;
                quoted[end + 1..].trim_start()
            }
            None => value.split_once(' ').map_or("", |(_, rest)| rest),
        };
    }
    fields
}

const ROUTES: &str = "[[routes]]\nname = \"both\"\nmatch = { hub = \"both\" }\npick = \"all\"\nendpoints = [\"east\", \"west\"]\n\
                      [[routes]]\nname = \"rest\"\nendpoints = [\"east\", \"west\"]\n[callers.orders]\nmatch = \"spiffe://prod/orders\"\n";

/// Runs a gateway that sees a request of each kind, each with an id of its own. Returns the lines of its access log.
async fn access_log(format: &str) -> Vec<String> {
    let builder = HarnessBuilder::start().await;
    let pki = Pki::new(builder.folder.path(), "mesh");
    let tls = pki.tls(", client_auth = \"optional\"");
    let config = GatewayConfig {
        operations: ALL_OPERATIONS.map(str::to_owned).to_vec(),
        more: format!("[listeners.mesh]\nbind = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n{tls}{ROUTES}"),
        ..GatewayConfig::default()
    };
    let files = builder.write_files(&config);
    let format = format!("logging.format={format}");
    let process = Process::start_gateway(&files.config, &[&format]).await;
    process.wait_until_credentials_are("ready").await;
    let (east, west) = (
        builder.sandbox.endpoint("east").unwrap().server.faults(),
        builder.sandbox.endpoint("west").unwrap().server.faults(),
    );
    let mut caller = Caller::connect(process.listener()).await;

    let orders = pki.caller("orders", &["spiffe://prod/orders"]);
    let stream = tls_connect(process.listener_named("mesh"), pki.client(Some(&orders))).await.unwrap();
    let traced = broadcast_request()
        .header("x-request-id", "traced")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("forwarded", "for=;");
    Caller::over(stream, "localhost".to_owned()).await.send(traced, BROADCAST_BODY).await.assert_status(202);

    let both =
        || request("POST", "/api/hubs/both/:send?api-version=2022-11-01").header("content-type", "application/json");
    west.set(Fault::times(1, FaultKind::Reset).on_path("/api/hubs"));
    caller
        .send(both().header("x-request-id", "partial"), BROADCAST_BODY)
        .await
        .assert_gateway_error(502, "partial_delivery");
    caller.send(both().header("x-request-id", "fan-out"), BROADCAST_BODY).await.assert_status(202);

    east.refuse().await;
    caller.send(broadcast_request().header("x-request-id", "failover"), BROADCAST_BODY).await.assert_status(202);
    west.refuse().await;
    let nowhere = broadcast_request().header("x-request-id", "unreachable");
    caller.send(nowhere, BROADCAST_BODY).await.assert_gateway_error(503, "endpoint_unavailable");
    east.clear().await;
    west.clear().await;

    let user =
        |id: &str| request("HEAD", "/api/hubs/chat/users/zoe-lund?api-version=2024-12-01").header("x-request-id", id);
    caller.send(user("not-there"), "").await.assert_status(404);
    east.set(Fault::times(1, FaultKind::status(500)).on_path("/api/hubs"));
    caller.send(user("retried"), "").await.assert_status(404);
    let denied = FaultKind::status(403).with_header("x-ms-error-code", "Error.Connection.NotOwned");
    for (id, fault, status) in [
        ("denied", denied, 403),
        ("no-role", FaultKind::status(403), 403),
        ("bad-token", FaultKind::status(401), 401),
        ("failed", FaultKind::status(500), 500),
    ] {
        east.set(Fault::times(2, fault).on_path("/api/hubs"));
        caller.send(broadcast_request().header("x-request-id", id), BROADCAST_BODY).await.assert_status(status);
        east.clear().await;
    }
    let unknown = request("GET", "/nowhere?secret=hidden").header("x-request-id", "unknown");
    caller.send(unknown, "").await.assert_gateway_error(404, "unknown_path");

    east.set(Fault::times(1, FaultKind::BreakBody).on_path("/api/hubs"));
    let mut raw = crate::support::RawConnection::connect(process.listener()).await;
    raw.write("POST /api/hubs/chat/:generateToken?api-version=2022-11-01 HTTP/1.1\r\nhost: localhost\r\n").await;
    raw.write("x-request-id: broken\r\ncontent-length: 0\r\n\r\n").await;
    raw.rest().await;
    process.terminate().await;
    let (_, log) = process.wait().await;
    assert!(!log.contains("hidden") && !log.contains("zoe-lund") && !log.contains("world"), "{log}");
    log.lines().filter(|line| line.contains("signalr_gateway::access")).map(str::to_owned).collect()
}

#[tokio::test]
async fn access_record_has_the_documented_fields_in_json_and_levels_that_ask_for_the_operator() {
    let lines: Vec<Value> = access_log("json").await.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let every_line = ["timestamp", "level", "target", "message"];
    let fields = lines.iter().flat_map(|line| line.as_object().unwrap().keys().cloned());
    let fields: BTreeSet<String> = fields.filter(|field| !every_line.contains(&field.as_str())).collect();
    assert_eq!(fields, documented());

    let line =
        |id: &str| lines.iter().find(|line| line["request_id"] == id).unwrap_or_else(|| panic!("no line of {id}"));
    let text = |id: &str, field: &str| line(id)[field].as_str().unwrap_or_default().to_owned();
    for (id, level, side, status) in [
        ("traced", "INFO", "", 202),
        ("fan-out", "INFO", "", 202),
        ("failover", "INFO", "", 202),
        ("not-there", "INFO", "", 404),
        ("retried", "INFO", "", 404),
        ("denied", "INFO", "caller", 403),
        ("unknown", "INFO", "caller", 404),
        ("partial", "WARN", "endpoint", 502),
        ("unreachable", "WARN", "endpoint", 503),
        ("no-role", "WARN", "endpoint", 403),
        ("bad-token", "WARN", "credential", 401),
        ("failed", "WARN", "endpoint", 500),
        ("broken", "WARN", "endpoint", 200),
    ] {
        let found = (text(id, "level"), text(id, "side"), line(id)["status"].as_u64().unwrap());
        assert_eq!(found, (level.to_owned(), side.to_owned(), status), "{id}: {}", line(id));
        let needs_operator = level == "WARN";
        assert!(!needs_operator || text(id, "remedy").len() > 10, "{id} does not say what to do: {}", line(id));
        assert!(!needs_operator || text(id, "runbook").starts_with("https://"), "{id} has no link: {}", line(id));
        assert_eq!(text(id, "error.cause").is_empty(), side.is_empty(), "{id}: {}", line(id));
    }
    assert_eq!(text("traced", "trace_id"), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!((text("traced", "caller.name"), text("traced", "listener")), ("orders".into(), "mesh".into()));
    assert_eq!(text("fan-out", "legs"), "east=accepted(202); west=accepted(202)");
    let partial = text("partial", "legs");
    assert!(partial.starts_with("east=accepted(202); west=no_answer(") && partial.len() > 50, "{partial}");
    let cause = text("partial", "error.cause");
    assert!(cause.contains(": west (no_answer: ") && cause.ends_with("; delivered by east"), "{cause}");
    assert!(text("partial", "remedy").starts_with("repair west: "), "{}", line("partial"));
    let rejected = text("bad-token", "remedy");
    assert!(rejected.contains("`endpoints.east.url`") && rejected.contains("--endpoint east`"), "{rejected}");
    let failover = text("failover", "failed_attempts");
    assert!(failover.starts_with("east=not_sent(the endpoint does not accept connections"), "{failover}");
    assert_eq!((text("failover", "endpoint"), &line("failover")["attempts"]), ("west".into(), &2.into()));
    assert!(text("unreachable", "error.cause").contains("refused"), "{}", line("unreachable"));
    assert!(line("retried")["wait_ms"].as_f64().unwrap() > 0.0, "{}", line("retried"));
    assert_eq!(text("denied", "error.code"), "Error.Connection.NotOwned");
    let times = ["upstream_ms", "overhead_ms"].map(|field| line("traced")[field].as_f64().unwrap());
    assert!(times.iter().sum::<f64>() <= line("traced")["duration_ms"].as_f64().unwrap() + 0.01, "{}", line("traced"));
}

#[tokio::test]
async fn access_record_has_the_documented_fields_in_text() {
    let fields: BTreeSet<String> = access_log("text").await.iter().flat_map(|line| fields_of_text(line)).collect();
    assert_eq!(fields, documented());
}

#[tokio::test]
async fn logs_one_json_line_per_request_without_user_names() {
    let builder = HarnessBuilder::start().await;
    let process = builder.start_process(&[]).await;
    let mut caller = Caller::connect(process.listener()).await;
    let target = "/api/hubs/chat/users/ann%40example.org/:send?api-version=2022-11-01";
    let builder = request("POST", target).header("content-type", "application/json").header("x-request-id", "id-1");
    caller.send(builder, BROADCAST_BODY).await.assert_status(202);
    caller
        .send(request("GET", "/nowhere").header("x-request-id", "id-2"), "")
        .await
        .assert_gateway_error(404, "unknown_path");
    process.terminate().await;
    let (_, log) = process.wait().await;
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}"))).collect();
    let line_of = |id: &str| {
        let mut found = lines.iter().filter(|line| line["request_id"] == id);
        let line = found.next().unwrap_or_else(|| panic!("no line of {id} in {log}")).clone();
        assert!(found.next().is_none(), "more than one line of {id}");
        line
    };
    let good = line_of("id-1");
    for (field, value) in [
        ("level", "INFO"),
        ("target", "signalr_gateway::access"),
        ("method", "POST"),
        ("operation", "user_send"),
        ("hub", "chat"),
        ("route", "default"),
        ("endpoint", "east"),
    ] {
        assert_eq!(good[field], value, "{good}");
    }
    assert_eq!((&good["status"], &good["request_bytes"]), (&202.into(), &BROADCAST_BODY.len().into()));
    assert!(good["duration_ms"].as_f64().unwrap() > 0.0 && good["timestamp"].is_string());
    let rejected = line_of("id-2");
    assert_eq!((&rejected["status"], &rejected["error.kind"]), (&404.into(), &"unknown_path".into()), "{rejected}");
    assert!(!log.contains("ann"), "the log names a user: {log}");
    assert!(!log.contains("world"), "the log contains a body: {log}");
}

#[tokio::test]
async fn access_log_can_be_limited_to_failures() {
    let builder = HarnessBuilder::start().await;
    let process = builder.start_process(&["logging.access=failures"]).await;
    let mut caller = Caller::connect(process.listener()).await;
    caller.send(broadcast_request().header("x-request-id", "good"), BROADCAST_BODY).await.assert_status(202);
    caller
        .send(request("GET", "/nowhere").header("x-request-id", "bad"), "")
        .await
        .assert_gateway_error(404, "unknown_path");
    process.terminate().await;
    let (_, log) = process.wait().await;
    assert!(log.contains("\"request_id\":\"bad\"") && !log.contains("\"request_id\":\"good\""), "{log}");
}

#[tokio::test]
async fn access_log_can_sample_successes_and_keep_all_failures() {
    let builder = HarnessBuilder::start().await;
    let process = builder.start_process(&["logging.access_percent=50"]).await;
    let mut caller = Caller::connect(process.listener()).await;
    for _ in 0..100 {
        caller.send(broadcast_request().header("x-request-id", "good"), BROADCAST_BODY).await.assert_status(202);
    }
    for _ in 0..3 {
        caller
            .send(request("GET", "/nowhere").header("x-request-id", "bad"), "")
            .await
            .assert_gateway_error(404, "unknown_path");
    }
    process.terminate().await;
    let (_, log) = process.wait().await;
    let lines_of = |id: &str| log.matches(&format!("\"request_id\":\"{id}\"")).count();
    assert_eq!(lines_of("bad"), 3);
    // With random sampling, none or all of a hundred are logged once in 10^30 runs.
    assert!((1..100).contains(&lines_of("good")), "{}", lines_of("good"));
}
