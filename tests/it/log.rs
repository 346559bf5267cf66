//! The log of the real binary: neither a slow reader of it nor callers that fail on purpose delay anything.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use signalr_gateway::sandbox::GatewayConfig;

use crate::support::{
    BROADCAST_BODY, Caller, HarnessBuilder, Process, Program, Samples, broadcast_request, wait_until, with_timeout,
};

/// More lines than the queue of the log holds.
const FLOOD: usize = 4096 + 1000;

/// Returns a stderr whose buffer is full, and the end to read it from.
fn full_stderr() -> (OwnedFd, UnixStream) {
    let (mut stderr, reader) = UnixStream::pair().unwrap();
    stderr.set_nonblocking(true).unwrap();
    for piece in [&[b'.'; 4096][..], b"."] {
        let full = loop {
            if let Err(full) = stderr.write_all(piece) {
                break full;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }
    stderr.set_nonblocking(false).unwrap();
    (stderr.into(), reader)
}

/// Reads until all copies of the other end are closed.
fn read(mut reader: UnixStream) -> String {
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    log
}

async fn start(builder: &HarnessBuilder, stderr: OwnedFd, more: &[&str]) -> Process {
    let files = builder.write_files(&GatewayConfig::default());
    let process = Program::gateway(&files.config, more).stderr(stderr).start(builder.folder.path()).await;
    process.wait_until_credentials_are("ready").await;
    process
}

/// Sends requests that are rejected and logged.
async fn flood(process: &Process, requests: usize) {
    let callers = (0..4).map(async |_| {
        let mut caller = Caller::connect(process.listener()).await;
        for _ in 0..requests.div_ceil(4) {
            caller.call("GET", "/nowhere").await.assert_gateway_error(404, "unknown_path");
        }
    });
    futures_util::future::join_all(callers).await;
}

fn dropped(metrics: &Samples, reason: &str) -> f64 {
    metrics.sum("log_lines_dropped_total", &[("reason", reason)])
}

#[tokio::test]
async fn calls_probes_and_shutdown_do_not_wait_for_the_reader_of_the_log() {
    let builder = HarnessBuilder::start().await;
    let (stderr, _unread) = full_stderr();
    let process = start(&builder, stderr, &["logging.failures_per_second=0"]).await;
    flood(&process, FLOOD).await;
    let mut caller = Caller::connect(process.listener()).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    assert_eq!(Caller::connect(process.admin()).await.call("GET", "/livez").await.status, 200);
    let lost = dropped(&process.metrics().await, "slow_reader");
    assert!(lost >= 900.0, "{lost}");
    let (state, lines) = process.verdict().await;
    assert_eq!(state, "attention", "{lines:?}");
    assert!(
        lines[0].ends_with("stderr is not read, or not fast enough")
            && lines[2].starts_with("do this: make what reads the gateway's stderr read on"),
        "{lines:?}"
    );
    process.terminate().await;
    let (status, _) = process.wait().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn reports_dropped_lines_once_the_log_is_read_again() {
    let builder = HarnessBuilder::start().await;
    let (stderr, reader) = full_stderr();
    let process = start(&builder, stderr, &["logging.failures_per_second=0"]).await;
    flood(&process, FLOOD).await;
    let reading = tokio::task::spawn_blocking(move || read(reader));
    let lost = wait_until("lines were dropped", async || {
        Some(dropped(&process.metrics().await, "slow_reader")).filter(|lost| *lost > 0.0)
    });
    let lost = lost.await;
    // Lines are written again, one with each of these requests.
    flood(&process, 8).await;
    process.terminate().await;
    process.wait().await;
    let log = with_timeout("the log", reading).await.unwrap();
    let lines: Vec<Value> =
        log.trim_start_matches('.').lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let reported: u64 = lines
        .iter()
        .filter(|line| {
            line["message"].as_str().unwrap().starts_with("log lines were dropped: stderr was not read fast enough")
        })
        .inspect(|line| {
            assert!(
                line["remedy"].as_str().unwrap().starts_with("make what reads the gateway's stderr read on"),
                "{line}"
            );
        })
        .map(|line| line["lines"].as_u64().unwrap())
        .sum();
    // Lines may have been dropped after the scrape.
    assert!(reported >= format!("{lost}").parse().unwrap(), "{reported} of {lost}");
    let requests = lines.iter().filter(|line| line["message"] == "request").count();
    assert!(
        requests as u64 + reported >= (FLOOD + 8) as u64,
        "lines were neither written nor counted: {requests} and {reported}"
    );
}

#[tokio::test]
async fn limits_the_rate_of_log_lines_about_failures() {
    let builder = HarnessBuilder::start().await;
    let (stderr, reader) = UnixStream::pair().unwrap();
    let reading = tokio::task::spawn_blocking(move || read(reader));
    let process = start(&builder, stderr.into(), &[]).await;
    let began = Instant::now();
    flood(&process, 2000).await;
    let mut caller = Caller::connect(process.listener()).await;
    // Each error kind has its own rate limit, and successes are always logged.
    let page = broadcast_request().header("origin", "null").header("x-request-id", "other");
    caller.send(page, BROADCAST_BODY).await.assert_gateway_error(403, "origin_not_allowed");
    for _ in 0..150 {
        caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    }
    let seconds = began.elapsed().as_secs() + 1;
    let left_out = dropped(&process.metrics().await, "rate_limit");
    process.terminate().await;
    process.wait().await;
    let log = with_timeout("the log", reading).await.unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |key: &str, value: &str| lines.iter().filter(|line| line[key] == value).count() as u64;
    let is_request = |line: &&Value| line["message"] == "request" && line["error.kind"] == "unknown_path";
    let written = lines.iter().filter(is_request).count() as u64;
    let reported: u64 = lines.iter().filter_map(|line| line["left_out"].as_u64()).sum();
    // A busy machine takes longer, and more lines are written.
    assert!(written <= 100 + 10 * seconds + 10, "{written} lines in {seconds} s");
    assert_eq!(reported.to_string(), left_out.to_string());
    assert_eq!(written + reported, 2000);
    assert_eq!(count("request_id", "other"), 1);
    assert_eq!(lines.iter().filter(|line| line["status"] == 202).count(), 150);
}

#[tokio::test]
async fn filter_and_access_follow_a_reload_and_a_signal_turns_debug_lines_on_and_off() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let config = std::fs::read_to_string(&files.config).unwrap();
    let configure = |logging: &str| std::fs::write(&files.config, format!("{config}\n[logging]\n{logging}\n")).unwrap();
    configure("filter = \"warn\"");
    let process = Process::start_gateway(&files.config, &[]).await;
    process.wait_until_credentials_are("ready").await;
    let mut caller = Caller::connect(process.listener()).await;
    let mut call = async |id: &str| {
        caller.send(broadcast_request().header("x-request-id", id), BROADCAST_BODY).await.assert_status(202);
    };
    call("at-warn").await;

    let before = process.config_hash().await;
    configure("filter = \"info\"");
    process.apply_configuration(before).await;
    call("at-info").await;
    process.wait_for_log("at-info").await;
    assert!(!process.log().contains("at-warn"), "{}", process.log());

    let before = process.config_hash().await;
    configure("filter = \"info\"\naccess = \"failures\"");
    process.apply_configuration(before).await;
    call("not-failed").await;

    process.toggle_debug().await;
    process.wait_for_log("debug lines are on for 10m").await;
    // A worker that adopts a configuration says so at `debug`.
    let since = process.log().len();
    process.hang_up().await;
    process.wait_for_reloads("success", 3.0).await;
    call("with-debug").await;
    process.wait_for_log_after(since, "\"level\":\"DEBUG\"").await;
    process.toggle_debug().await;
    process.wait_for_log_after(since, "debug lines are off").await;

    // What would silence the log is no configuration.
    configure("filter = \"warning\"");
    process.hang_up().await;
    process.wait_for_reloads("failure", 1.0).await;
    process.wait_for_log_after(since, "did you mean `warn`?").await;
    process.terminate().await;
    let (_, log) = process.wait().await;
    assert!(!log.contains("not-failed"), "{log}");
    let after = log.split_once("debug lines are off").unwrap().1;
    assert!(!after.contains("\"level\":\"DEBUG\"") && after.contains("shutting down"), "{after}");
}

#[tokio::test]
async fn startup_error_does_not_wait_for_the_reader_of_the_log() {
    let (stderr, _unread) = full_stderr();
    assert_eq!(Program::gateway(Path::new("/nowhere.toml"), &[]).stderr(stderr).run().await.code, Some(2));
}
