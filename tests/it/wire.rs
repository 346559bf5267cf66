//! A corpus of requests, byte for byte (`wire/requests.txt`), over HTTP/1.1, and over HTTP/2 where they have a
//! counterpart, with and without TLS. The endpoint must receive no part of a rejected request, and exactly one
//! request, framed by the gateway, for a forwarded one.

mod corpus;
mod endpoint;
mod http2;

use futures_util::{StreamExt, stream};
use signalr_gateway::sandbox::{Fault, FaultKind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::listeners::{secure_listener, secured};
use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Harness, wait_until, with_timeout};
use corpus::{Case, Outcome};
use endpoint::{Arrival, RecordingEndpoint};

/// How many cases run at the same time.
const AT_ONCE: usize = 24;

struct Setup {
    harness: Harness,
    endpoint: RecordingEndpoint,
    folder: tempfile::TempDir,
}

impl Setup {
    async fn start() -> Self {
        let endpoint = RecordingEndpoint::start().await;
        let folder = tempfile::tempdir().unwrap();
        let port = endpoint.address.port();
        let listener = secure_listener(folder.path());
        let harness = Harness::start(|options| {
            // Both names lead to the same endpoint.
            options.set("endpoints.east.url", &format!("http://127.0.0.1:{port}"));
            options.set("endpoints.west.url", &format!("http://localhost:{port}"));
            options.append_toml(&listener);
        })
        .await;
        Self { harness, endpoint, folder }
    }

    /// Stops the gateway, so that everything it sent has arrived. Returns what the endpoint received.
    async fn finish(self) -> Vec<Arrival> {
        self.harness.shutdown().await.unwrap();
        wait_until("the endpoint's connections have ended", async || self.endpoint.has_ended().then_some(())).await;
        self.endpoint.arrivals()
    }
}

/// Sends a case and checks the responses. Returns what is wrong.
async fn run(case: &Case, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), String> {
    let mut read = Vec::new();
    // The gateway may reject the request before it is written completely.
    let _rejected = with_timeout(&case.name, stream.write_all(&case.bytes)).await;
    let ends_early = case.outcomes.iter().any(|outcome| matches!(outcome, Outcome::Broken | Outcome::Nothing));
    if ends_early {
        let _closed = stream.shutdown().await;
    }
    for outcome in &case.outcomes {
        match outcome {
            Outcome::Forwarded { .. } => {
                let response = response(&mut stream, &mut read, case.is_head()).await.ok_or("no response")?;
                if !response.starts_with("HTTP/1.1 202 ") && !response.starts_with("HTTP/1.0 202 ") {
                    return Err(format!("not forwarded: {response}"));
                }
            }
            Outcome::Rejected { status, kind } => {
                let response = response(&mut stream, &mut read, case.is_head()).await.ok_or("no response")?;
                let has = |line: &str| response.to_ascii_lowercase().contains(&format!("\r\n{line}"));
                let is_rejected = response.starts_with(&format!("HTTP/1.1 {status} "))
                    && has(&format!("signalr-gateway-error: {kind}\r\n"))
                    && has("x-request-id: ")
                    && has("content-type: application/problem+json\r\n");
                if !is_rejected {
                    return Err(format!("not rejected as expected: {response}"));
                }
            }
            Outcome::Broken | Outcome::Nothing | Outcome::End => {}
        }
    }
    let _closed = stream.shutdown().await;
    with_timeout(&case.name, async { while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {} }).await;
    let rest = String::from_utf8_lossy(&read);
    let may_respond = case.outcomes.contains(&Outcome::Broken);
    if rest.is_empty() || (may_respond && rest.starts_with("HTTP/1.1 400 ") && rest.matches("HTTP/1.").count() == 1) {
        Ok(())
    } else {
        Err(format!("an unexpected response: {rest}"))
    }
}

/// Reads the next final response. Returns `None` if the connection ends first.
async fn response(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>, is_head: bool) -> Option<String> {
    with_timeout("a response", async {
        loop {
            let end = loop {
                match read.windows(4).position(|window| window == b"\r\n\r\n") {
                    Some(at) => break at + 4,
                    None if stream.read_buf(read).await.is_ok_and(|count| count > 0) => {}
                    None => return None,
                }
            };
            let head = String::from_utf8(read.drain(..end).collect()).unwrap();
            if head.starts_with("HTTP/1.1 100 ") {
                continue;
            }
            let lower = head.to_ascii_lowercase();
            let declared = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = declared.filter(|_| !is_head).map_or(0, |length| length.parse().unwrap());
            while read.len() < length {
                assert!(stream.read_buf(read).await.unwrap() > 0, "the response is incomplete: {head}");
            }
            read.drain(..length);
            return Some(head);
        }
    })
    .await
}

/// Checks what the endpoint received of a case.
fn check_arrivals(case: &Case, arrivals: &[Arrival]) -> Result<(), String> {
    let complete: Vec<&Arrival> = arrivals.iter().filter(|arrival| arrival.is_complete).collect();
    let forwarded = case.outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Forwarded { .. }));
    let expected: Vec<&Outcome> = forwarded.collect();
    let may_begin = case.outcomes.iter().any(Outcome::is_broken_body);
    if complete.len() != expected.len() || (arrivals.len() > complete.len() && !may_begin) {
        return Err(format!("{} requests were expected: {arrivals:#?}", expected.len()));
    }
    for (arrival, outcome) in complete.into_iter().zip(expected) {
        let Outcome::Forwarded { target, body, without } = outcome else { continue };
        let target = target.clone().unwrap_or_else(|| case.target());
        if arrival.target != target {
            return Err(format!("the target was {}, not {target}", arrival.target));
        }
        if body.as_ref().is_some_and(|body| *body != arrival.body) {
            return Err(format!("the body was changed: {arrival:#?}"));
        }
        if without.as_ref().is_some_and(|name| arrival.field(name).is_some_and(|value| !value.contains("eyJ"))) {
            return Err(format!("a header was forwarded that must be removed: {arrival:#?}"));
        }
    }
    Ok(())
}

/// How a case is sent.
#[derive(Clone, Copy, Debug)]
enum Transport {
    Http1,
    Http1Tls,
    Http2,
    Http2Tls,
}

impl Transport {
    const ALL: [Self; 4] = [Self::Http1, Self::Http1Tls, Self::Http2, Self::Http2Tls];

    /// Returns the prefix of the hub names of its cases.
    fn prefix(self) -> &'static str {
        match self {
            Self::Http1 => "tcp",
            Self::Http1Tls => "tls",
            Self::Http2 => "htt",
            Self::Http2Tls => "hts",
        }
    }
}

impl Setup {
    /// Sends a case. Returns `None` if it cannot be sent this way.
    async fn run(&self, case: &Case, transport: Transport) -> Option<Result<(), String>> {
        let plain = async || TcpStream::connect(self.harness.listener("default")).await.unwrap();
        let secure = async |alpn| secured(self.harness.listener("secure"), self.folder.path(), &[alpn]).await;
        Some(match transport {
            Transport::Http1 => run(case, plain().await).await,
            Transport::Http1Tls => run(case, secure(b"http/1.1").await).await,
            Transport::Http2 => http2::run(case, http2::request(case)?, plain().await).await,
            Transport::Http2Tls => http2::run(case, http2::request(case)?, secure(b"h2").await).await,
        })
    }
}

#[tokio::test]
async fn forwards_every_request_of_the_corpus_completely_or_rejects_it() {
    let cases = corpus::read();
    assert!(cases.len() >= 400, "{}", cases.len());
    let setup = Setup::start().await;
    let sent =
        cases.iter().flat_map(|case| Transport::ALL.map(|transport| (case.numbered(transport.prefix()), transport)));
    let sent = sent.map(async |(case, transport)| {
        let outcome = setup.run(&case, transport).await?;
        Some((case, transport, outcome))
    });
    let results: Vec<_> =
        stream::iter(sent).buffer_unordered(AT_ONCE).filter_map(async |results| results).collect().await;
    let over_http2 =
        results.iter().filter(|(_, transport, _)| matches!(transport, Transport::Http2 | Transport::Http2Tls)).count();
    assert!(over_http2 >= 150, "{over_http2}");
    let arrivals = setup.finish().await;
    let mut failed = Vec::new();
    let mut unexpected = arrivals.clone();
    for (case, transport, outcome) in results {
        let own: Vec<Arrival> = arrivals.iter().filter(|arrival| arrival.is_for_hub(&case.hub)).cloned().collect();
        unexpected.retain(|arrival| !arrival.is_for_hub(&case.hub));
        if let Err(what) = outcome.and_then(|()| check_arrivals(&case, &own)) {
            failed.push(format!("{transport:?} {}\n    {what}", case.name));
        }
    }
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
    assert!(unexpected.is_empty(), "requests at the endpoint that belong to no case: {unexpected:#?}");
}

fn broadcast() -> String {
    format!(
        "POST {BROADCAST_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{BROADCAST_BODY}",
        BROADCAST_BODY.len()
    )
}

#[tokio::test]
async fn answers_a_caller_that_closed_its_writing_half() {
    let folder = tempfile::tempdir().unwrap();
    let listener = secure_listener(folder.path());
    let harness = Harness::start(|options| {
        options.append_toml(&listener);
    })
    .await;
    let east = &harness.endpoint("east").server;
    let delay = || Fault::times(1, FaultKind::Delay { delay_ms: 400 }).on_path("/api/hubs");

    // The endpoint responds long after the caller closed its writing half.
    east.faults().set(delay());
    let mut raw = harness.raw_connection().await;
    raw.write(broadcast()).await.finish().await;
    raw.response().await.expect("a response").assert_status(202);
    assert!(raw.rest().await.is_empty());

    // As many responses as requests.
    let mut raw = harness.raw_connection().await;
    raw.write(broadcast().repeat(3)).await.finish().await;
    for _ in 0..3 {
        raw.response().await.expect("a response").assert_status(202);
    }
    assert!(raw.rest().await.is_empty());

    east.faults().set(delay());
    let mut secure = secured(harness.listener("secure"), folder.path(), &[b"http/1.1"]).await;
    secure.write_all(broadcast().as_bytes()).await.unwrap();
    secure.shutdown().await.unwrap();
    let mut read = Vec::new();
    let response = response(&mut secure, &mut read, false).await.expect("a response");
    assert!(response.starts_with("HTTP/1.1 202 "), "{response}");
    assert_eq!(harness.arrivals("east").len(), 5);
}

#[tokio::test]
async fn abandons_a_call_after_its_caller_closed() {
    let harness = Harness::start(|_| {}).await;
    let east = &harness.endpoint("east").server;
    east.faults().set(Fault::always(FaultKind::Hang).on_path("/api/hubs"));
    let mut raw = harness.raw_connection().await;
    raw.write(broadcast()).await;
    east.journal().wait_for(1, |entry| entry.target == BROADCAST_PATH).await;
    drop(raw);
    wait_until("nothing is in flight", async || {
        let metrics = harness.metrics().await;
        (metrics.sum("requests_total", &[("code", "499")]) > 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn logs_and_counts_rejections_before_parsing() {
    let harness = Harness::start(|_| {}).await;
    for (request, status, kind) in [
        ("POST /api/hubs/chat/groups/a b/:send HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed"),
        ("POST /api/hubs/chat/:send HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "malformed"),
        ("PUT /api/v1/hubs/chat/users/ann/groups/g#1 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "malformed"),
    ] {
        let mut raw = harness.raw_connection().await;
        raw.write(request).await;
        let response = raw.response().await.expect("a response");
        response.assert_gateway_error(status, kind);
        assert_eq!(response.header("connection"), Some("close"), "{response:?}");
        assert!(raw.rest().await.is_empty());
    }
    let metrics = harness.metrics().await;
    assert!((metrics.sum("rejected_total", &[("reason", "malformed")]) - 3.0).abs() < 1e-9);
    assert!(harness.arrivals("east").is_empty());
}

#[tokio::test]
async fn does_not_answer_a_broken_http2_preface_in_http1() {
    let harness = Harness::start(|_| {}).await;
    for preface in ["PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI * HTTP/2.0\r\nHost: localhost\r\n\r\n"] {
        let mut raw = harness.raw_connection().await;
        raw.write(preface).await.finish().await;
        let rest = raw.rest().await;
        assert!(!rest.starts_with(b"HTTP/1"), "{}", String::from_utf8_lossy(&rest));
    }
}
