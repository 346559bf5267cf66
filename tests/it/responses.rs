//! Responses of endpoints, byte for byte: what the gateway does with each, and that the next request gets its own response.

mod corpus;

use corpus::{Case, Expected};

use crate::support::{
    BROADCAST_BODY, BROADCAST_PATH, Harness, HarnessBuilder, RawConnection, Response, ScriptedEndpoint,
    ScriptedResponse, broadcast_request, request,
};

/// A call with the method `HEAD`.
const EXISTS: &str = "/api/hubs/chat/users/ann?api-version=2022-11-01";

/// Starts a gateway with one worker, hence one connection pool, in front of the endpoint.
async fn harness(endpoint: &ScriptedEndpoint) -> Harness {
    let builder = HarnessBuilder::start().await;
    let folder = builder.folder.path().to_owned();
    builder
        .start_gateway(|options| {
            endpoint.replace_endpoint("east", &folder, options);
            // Many of the responses are failures, which would open the circuit.
            options.set("process.workers", "1").set("health.failures", "1000");
        })
        .await
}

async fn send(harness: &Harness, case: &Case) -> hyper::Result<Response> {
    match case.method {
        "HEAD" => harness.caller().await.try_send(request("HEAD", EXISTS), "").await,
        _ => harness.caller().await.try_send(broadcast_request(), BROADCAST_BODY).await,
    }
}

/// Returns several ways to split a response into writes.
fn splits(case: &Case) -> Vec<Vec<Vec<u8>>> {
    let unsplit = vec![case.response.clone()];
    let halves = case.response.chunks(case.response.len().div_ceil(2).max(1)).map(<[u8]>::to_vec).collect();
    let small = if case.response.len() < 400 { 1 } else { 1460 };
    let pieces = case.response.chunks(small).map(<[u8]>::to_vec).collect();
    vec![unsplit, halves, pieces]
}

async fn check_case(harness: &Harness, endpoint: &ScriptedEndpoint, case: &Case, writes: Vec<Vec<u8>>) {
    let label = format!("{} ({}), {} writes", case.name, case.source, writes.len());
    let written = endpoint.queue(ScriptedResponse { writes, closes: case.closes, after: None });
    let response = send(harness, case).await;
    match (&case.expected, &response) {
        (Expected::Readable { status, body, headers }, Ok(response)) => {
            response.assert_status(*status);
            assert!(response.body == *body, "{label}: {response:?}");
            for (name, value) in *headers {
                assert_eq!(response.header(name), *value, "{label}: {name} of {response:?}");
            }
        }
        (Expected::Unreadable | Expected::MalformedBody, Ok(response)) if response.status == 502 => {
            response.assert_gateway_error(502, "upstream_broken");
            assert!(response.text().contains("a response that cannot be read"), "{label}: {response:?}");
        }
        (Expected::NoResponse, Ok(response)) => {
            response.assert_gateway_error(502, "upstream_broken");
            assert!(response.text().contains("closed the connection without a response"), "{label}: {response:?}");
        }
        // The head was forwarded before the fault.
        (Expected::MalformedBody, Err(_)) => {}
        _ => panic!("{label}: {response:?}"),
    }
    let first = written.await.unwrap_or_else(|_| panic!("{label}: no request at the endpoint"));
    let body = format!("the response after {label}");
    let next = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let written = endpoint.queue(ScriptedResponse { writes: vec![next.into()], ..ScriptedResponse::default() });
    assert_eq!(harness.broadcast().await.assert_status(200).text(), body, "{label}");
    assert_eq!(written.await.unwrap() == first, case.is_reused, "{label}: whether the connection is reused");
}

#[tokio::test]
async fn parses_or_rejects_responses_as_the_rfcs_require_and_never_mixes_them_up() {
    let endpoint = ScriptedEndpoint::start().await;
    let harness = harness(&endpoint).await;
    let cases = corpus::all();
    assert!(cases.len() >= 100, "{}", cases.len());
    for case in &cases {
        for writes in splits(case) {
            check_case(&harness, &endpoint, case, writes).await;
        }
    }
}

#[tokio::test]
async fn parses_responses_over_tls_the_same_way() {
    let endpoint = ScriptedEndpoint::start_tls().await;
    let harness = harness(&endpoint).await;
    for case in corpus::all().iter().step_by(4) {
        for writes in splits(case) {
            check_case(&harness, &endpoint, case, writes).await;
        }
    }
}

#[tokio::test]
async fn forwards_http_1_0_responses_as_http_1_1() {
    let endpoint = ScriptedEndpoint::start().await;
    let harness = harness(&endpoint).await;
    let _written = endpoint.queue(ScriptedResponse {
        writes: vec![b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()],
        closes: true,
        after: None,
    });
    let mut raw: RawConnection = harness.raw_connection().await;
    let call =
        format!("POST {BROADCAST_PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    raw.write(call).await;
    let response = String::from_utf8(raw.rest().await).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nok"), "{response}");
}

#[tokio::test]
async fn unreadable_responses_do_not_open_the_circuit_or_resend_a_message() {
    let endpoint = ScriptedEndpoint::start().await;
    let harness = Harness::start(|options| endpoint.replace_endpoint("east", std::path::Path::new(""), options)).await;
    for _ in 0..12 {
        let _written = endpoint.queue(ScriptedResponse {
            writes: vec![b"not HTTP\r\n\r\n".to_vec()],
            closes: true,
            ..ScriptedResponse::default()
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
async fn response_on_an_idle_connection_is_not_used_for_a_request() {
    let endpoint = ScriptedEndpoint::start().await;
    let harness = harness(&endpoint).await;
    let ok = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec();
    let timeout = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec();
    // A response that arrives while the connection is idle closes it, even if the next request follows at once.
    for _ in 0..20 {
        let written = endpoint.queue(ScriptedResponse {
            writes: vec![ok.clone(), timeout.clone()],
            closes: true,
            ..ScriptedResponse::default()
        });
        harness.broadcast().await.assert_status(202);
        let first = written.await.unwrap();
        let written = endpoint.queue(ScriptedResponse { writes: vec![ok.clone()], ..ScriptedResponse::default() });
        harness.broadcast().await.assert_status(202);
        assert_ne!(written.await.unwrap(), first);
    }
    // A 408 that closes a reused connection may have been sent before the request, so the request is resent.
    let written = endpoint.queue(ScriptedResponse { writes: vec![ok.clone()], ..ScriptedResponse::default() });
    harness.broadcast().await.assert_status(202);
    let first = written.await.unwrap();
    let rejected =
        endpoint.queue(ScriptedResponse { writes: vec![timeout.clone()], closes: true, ..ScriptedResponse::default() });
    let written = endpoint.queue(ScriptedResponse { writes: vec![ok.clone()], ..ScriptedResponse::default() });
    harness.broadcast().await.assert_status(202);
    assert_eq!(rejected.await.unwrap(), first);
    assert_ne!(written.await.unwrap(), first);
    // A 408 that keeps the connection open is the response to the request.
    let open = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n".to_vec();
    let written = endpoint.queue(ScriptedResponse { writes: vec![open], ..ScriptedResponse::default() });
    harness.broadcast().await.assert_status(408);
    written.await.unwrap();
    // So is a 408 on a new connection.
    let last = b"HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_vec();
    let written = endpoint.queue(ScriptedResponse { writes: vec![last], closes: true, ..ScriptedResponse::default() });
    harness.broadcast().await.assert_status(202);
    written.await.unwrap();
    let written =
        endpoint.queue(ScriptedResponse { writes: vec![timeout], closes: true, ..ScriptedResponse::default() });
    harness.broadcast().await.assert_status(408);
    written.await.unwrap();
}
