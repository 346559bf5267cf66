//! Answers of endpoints, byte for byte: what the gateway makes of each, and that the next request gets its own answer.

mod corpus;

use corpus::{Case, Expected};

use crate::support::{
    Answer, AnsweringEndpoint, BROADCAST_BODY, BROADCAST_PATH, Harness, HarnessBuilder, RawConnection, ScriptedAnswer,
    broadcast_request, request,
};

/// A call with the method `HEAD`.
const EXISTS: &str = "/api/hubs/chat/users/ann?api-version=2022-11-01";

/// Starts a gateway with one worker, hence one connection pool, in front of the endpoint.
async fn harness(endpoint: &AnsweringEndpoint) -> Harness {
    let builder = HarnessBuilder::start().await;
    let folder = builder.folder.path().to_owned();
    builder
        .start_gateway(|options| {
            endpoint.replace_endpoint("east", &folder, options);
            // Many of the answers are failures, which would open the circuit.
            options.set("process.workers", "1").set("health.failures", "1000");
        })
        .await
}

async fn ask(harness: &Harness, case: &Case) -> hyper::Result<Answer> {
    match case.method {
        "HEAD" => harness.caller().await.try_send(request("HEAD", EXISTS), "").await,
        _ => harness.caller().await.try_send(broadcast_request(), BROADCAST_BODY).await,
    }
}

/// Returns several ways to split an answer into writes.
fn cuts(case: &Case) -> Vec<Vec<Vec<u8>>> {
    let unsplit = vec![case.answer.clone()];
    let halves = case.answer.chunks(case.answer.len().div_ceil(2).max(1)).map(<[u8]>::to_vec).collect();
    let small = if case.answer.len() < 400 { 1 } else { 1460 };
    let pieces = case.answer.chunks(small).map(<[u8]>::to_vec).collect();
    vec![unsplit, halves, pieces]
}

async fn check(harness: &Harness, endpoint: &AnsweringEndpoint, case: &Case, writes: Vec<Vec<u8>>) {
    let what = format!("{} ({}), {} writes", case.name, case.source, writes.len());
    let written = endpoint.answers(ScriptedAnswer { writes, closes: case.closes, after: None });
    let answer = ask(harness, case).await;
    match (&case.expected, &answer) {
        (Expected::Read { status, body, headers }, Ok(answer)) => {
            answer.assert_status(*status);
            assert!(answer.body == *body, "{what}: {answer:?}");
            for (name, value) in *headers {
                assert_eq!(answer.header(name), *value, "{what}: {name} of {answer:?}");
            }
        }
        (Expected::Unreadable | Expected::Cut, Ok(answer)) if answer.status == 502 => {
            answer.assert_gateway_error(502, "upstream_broken");
            assert!(answer.text().contains("a response that cannot be read"), "{what}: {answer:?}");
        }
        (Expected::BrokenOff, Ok(answer)) => {
            answer.assert_gateway_error(502, "upstream_broken");
            assert!(answer.text().contains("closed the connection without a response"), "{what}: {answer:?}");
        }
        // The head has been passed on before the fault.
        (Expected::Cut, Err(_)) => {}
        _ => panic!("{what}: {answer:?}"),
    }
    let first = written.await.unwrap_or_else(|_| panic!("{what}: no request at the endpoint"));
    let body = format!("the answer after {what}");
    let next = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let written = endpoint.answers(ScriptedAnswer { writes: vec![next.into()], ..ScriptedAnswer::default() });
    assert_eq!(harness.broadcast().await.assert_status(200).text(), body, "{what}");
    assert_eq!(written.await.unwrap() == first, case.is_kept, "{what}: whether the connection is used again");
}

#[tokio::test]
async fn reads_or_refuses_answers_as_the_rfcs_say_and_never_mixes_them_up() {
    let endpoint = AnsweringEndpoint::start().await;
    let harness = harness(&endpoint).await;
    let cases = corpus::all();
    assert!(cases.len() >= 100, "{}", cases.len());
    for case in &cases {
        for writes in cuts(case) {
            check(&harness, &endpoint, case, writes).await;
        }
    }
}

#[tokio::test]
async fn reads_answers_over_tls_the_same_way() {
    let endpoint = AnsweringEndpoint::start_tls().await;
    let harness = harness(&endpoint).await;
    for case in corpus::all().iter().step_by(4) {
        for writes in cuts(case) {
            check(&harness, &endpoint, case, writes).await;
        }
    }
}

#[tokio::test]
async fn passes_on_http_1_0_answers_as_http_1_1() {
    let endpoint = AnsweringEndpoint::start().await;
    let harness = harness(&endpoint).await;
    let _written = endpoint.answers(ScriptedAnswer {
        writes: vec![b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()],
        closes: true,
        after: None,
    });
    let mut raw: RawConnection = harness.raw_connection().await;
    let call =
        format!("POST {BROADCAST_PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    raw.write(call).await;
    let answer = String::from_utf8(raw.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer}");
}

#[tokio::test]
async fn unreadable_answers_do_not_open_the_circuit_or_repeat_a_message() {
    let endpoint = AnsweringEndpoint::start().await;
    let harness = Harness::start(|options| endpoint.replace_endpoint("east", std::path::Path::new(""), options)).await;
    for _ in 0..12 {
        let _written = endpoint.answers(ScriptedAnswer {
            writes: vec![b"not HTTP\r\n\r\n".to_vec()],
            closes: true,
            ..ScriptedAnswer::default()
        });
        harness.broadcast().await.assert_gateway_error(502, "upstream_broken");
    }
    let metrics = harness.metrics().await;
    let closed = metrics.sum("breaker_state", &[("endpoint", "east"), ("state", "closed")]);
    assert!((closed - 1.0).abs() < f64::EPSILON, "the circuit of the endpoint is open");
    assert!(metrics.sum("upstream_errors_total", &[("endpoint", "east"), ("reason", "protocol")]) > 11.5);
    assert!(harness.arrivals("west").is_empty(), "a message was sent twice");
}

#[tokio::test]
async fn answer_on_an_idle_connection_is_not_used_for_a_request() {
    let endpoint = AnsweringEndpoint::start().await;
    let harness = harness(&endpoint).await;
    let ok = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec();
    let timeout = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec();
    // It arrives while the connection is idle: the connection is closed, even though the next request follows at once.
    for _ in 0..20 {
        let written = endpoint.answers(ScriptedAnswer {
            writes: vec![ok.clone(), timeout.clone()],
            closes: true,
            ..ScriptedAnswer::default()
        });
        harness.broadcast().await.assert_status(202);
        let first = written.await.unwrap();
        let written = endpoint.answers(ScriptedAnswer { writes: vec![ok.clone()], ..ScriptedAnswer::default() });
        harness.broadcast().await.assert_status(202);
        assert_ne!(written.await.unwrap(), first);
    }
    // It arrives while the request is written on a reused connection, and looks like an immediate response.
    let written = endpoint.answers(ScriptedAnswer { writes: vec![ok.clone()], ..ScriptedAnswer::default() });
    harness.broadcast().await.assert_status(202);
    let first = written.await.unwrap();
    let refused =
        endpoint.answers(ScriptedAnswer { writes: vec![timeout.clone()], closes: true, ..ScriptedAnswer::default() });
    let written = endpoint.answers(ScriptedAnswer { writes: vec![ok.clone()], ..ScriptedAnswer::default() });
    harness.broadcast().await.assert_status(202);
    assert_eq!(refused.await.unwrap(), first);
    assert_ne!(written.await.unwrap(), first);
    // An answer that keeps the connection open belongs to the request.
    let open = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n".to_vec();
    let written = endpoint.answers(ScriptedAnswer { writes: vec![open], ..ScriptedAnswer::default() });
    harness.broadcast().await.assert_status(408);
    written.await.unwrap();
    // So does an answer on a new connection.
    let last = b"HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec();
    let written = endpoint.answers(ScriptedAnswer { writes: vec![last], closes: true, ..ScriptedAnswer::default() });
    harness.broadcast().await.assert_status(202);
    written.await.unwrap();
    let written = endpoint.answers(ScriptedAnswer { writes: vec![timeout], closes: true, ..ScriptedAnswer::default() });
    harness.broadcast().await.assert_status(408);
    written.await.unwrap();
}
