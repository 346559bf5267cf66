//! Live summaries: what readers of the admin listener and of `signalr-gateway tail` get.

use std::time::Duration;

use serde_json::Value;
use signalr_gateway::sandbox::GatewayConfig;

use crate::support::pki::Pki;
use crate::support::{
    BROADCAST_BODY, Harness, HarnessBuilder, Process, ProgramOutput, RawConnection, broadcast_request, request, run,
    wait_until,
};

/// Runs `tail` while calls pass through the gateway, until it has printed what it was asked for.
async fn tail(harness: &Harness, arguments: &[&str]) -> ProgramOutput {
    let address = harness.admin_address().to_string();
    let arguments = [&["tail", "--admin", &address], arguments].concat();
    tail_with(harness, &arguments).await
}

async fn tail_with(harness: &Harness, arguments: &[&str]) -> ProgramOutput {
    let mut caller = harness.caller().await;
    let calls = async {
        loop {
            // Without a token at first, if the test does not wait for one.
            caller.send(broadcast_request(), BROADCAST_BODY).await;
            let unknown = request("POST", "/api/hubs/chat/users/zoe-lund/:frobnicate?secret=hunter2");
            caller.send(unknown, BROADCAST_BODY).await.assert_gateway_error(404, "unknown_path");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        output = run(arguments) => output,
        () = calls => unreachable!("calls go on"),
    }
}

#[tokio::test]
async fn tail_prints_what_passes_through_and_no_names_of_users_queries_or_bodies() {
    let harness = Harness::start(|_| ()).await;
    let output = tail(&harness, &["-n", "4", "--json"]).await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    let lines: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    let sent = lines.iter().find(|line| line["status"] == 202).unwrap();
    assert_eq!((&sent["operation"], &sent["hub"]), (&"hub_send".into(), &"chat".into()));
    assert!(sent["endpoint"].is_string() && sent["route"].is_string() && sent["request_id"].is_string(), "{sent}");
    assert!(sent["duration_ms"].as_f64().unwrap() > 0.0 && sent["request_bytes"] == BROADCAST_BODY.len(), "{sent}");
    for hidden in ["zoe-lund", "hunter2", "api-version", "arguments", "eyJ"] {
        assert!(!output.stdout.contains(hidden), "{}", output.stdout);
    }
}

#[tokio::test]
async fn tail_filters_by_endpoint_and_shows_failures_as_text() {
    let harness = Harness::start(|_| ()).await;
    let output = tail(&harness, &["-n", "2", "--failures"]).await;
    assert_eq!(output.code, Some(0), "{}", output.stderr);
    assert_eq!(output.stdout.lines().count(), 2);
    for line in output.stdout.lines() {
        assert!(line.contains(" 404 ") && line.contains("  kind=") && line.contains("  id="), "{line}");
    }
    let output = tail(&harness, &["-n", "2", "--endpoint", "e*", "--hub", "CHAT"]).await;
    assert_eq!(output.stdout.matches("endpoint=east").count(), 2, "{}", output.stdout);
}

#[tokio::test]
async fn tail_reaches_an_admin_listener_that_requires_a_certificate() {
    let builder = HarnessBuilder::start().await;
    let pki = Pki::new(builder.folder.path(), "mesh");
    let tls = pki.tls("").replacen("tls = ", "", 1);
    let tls = tls.trim().trim_matches(['{', '}']).replace(", ", "\n");
    let harness = builder.start_gateway(|options| {
        options.wait_until_ready = false;
        options.append_toml(&format!("[admin.tls]\n{tls}"));
    });
    let harness = harness.await;
    let address = harness.admin_address().to_string();
    let own = pki.caller("operator", &["spiffe://prod/operator"]);
    let (ca, certificate, key) = (pki.ca(), own.certificate.clone(), own.key.clone());
    let tail =
        ["tail", "--admin", &address, "-n", "1", "--failures", "--ca", ca.to_str().unwrap(), "--name", "localhost"];
    let with_own = ["--certificate", certificate.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let output = tail_with(&harness, &[&tail[..], &with_own].concat()).await;
    assert_eq!((output.code, output.stdout.lines().count()), (Some(0), 1), "{}", output.stderr);
    assert_eq!(run(&tail).await.code, Some(1), "without a certificate");
}

#[tokio::test]
async fn the_admin_listener_refuses_a_filter_that_it_does_not_have_and_more_readers_than_it_allows() {
    let harness = Harness::start(|_| ()).await;
    harness.admin("/tail?rout=x").await.assert_status(400);
    let mut readers = Vec::new();
    for _ in 0..4 {
        let mut reader = RawConnection::connect(harness.admin_address()).await;
        reader.write(format!("GET /tail HTTP/1.1\r\nhost: {}\r\n\r\n", harness.admin_address())).await;
        reader.read_to(b"\r\n\r\n").await.unwrap();
        readers.push(reader);
    }
    let refused = run(&["tail", "--admin", &harness.admin_address().to_string()]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("already 4 readers"), "{}", refused.stderr);
    drop(readers);
    let output = tail_until_free(&harness).await;
    assert_eq!(output.code, Some(0), "the places of readers that are gone are free: {}", output.stderr);
}

#[tokio::test]
async fn answer_of_tail_ends_with_its_last_chunk_when_the_gateway_stops() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let process = Process::start_gateway(&files.config, &[]).await;
    let mut reader = RawConnection::connect(process.admin()).await;
    reader.write(format!("GET /tail HTTP/1.1\r\nhost: {}\r\n\r\n", process.admin())).await;
    reader.read_to(b"\r\n\r\n").await.unwrap();
    process.terminate().await;
    let rest = String::from_utf8_lossy(&reader.rest().await).into_owned();
    assert!(rest.ends_with("0\r\n\r\n"), "the answer was cut off: {rest:?}");
    process.wait().await;
}

async fn tail_until_free(harness: &Harness) -> ProgramOutput {
    wait_until("a reader is accepted", async || {
        Some(tail(harness, &["-n", "1"]).await).filter(|output| output.code == Some(0))
    })
    .await
}
