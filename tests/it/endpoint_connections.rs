//! Connections to endpoints when callers cancel, and bodies that the gateway rewrites.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::ACCEPT_ENCODING;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::{
    ALL_OPERATIONS, BROADCAST_BODY, BROADCAST_PATH, Harness, Http2Endpoint, ScriptedEndpoint, ScriptedResponse,
    broadcast_request, request, wait_until,
};

/// Starts a gateway with one worker, hence one connection pool, in front of the endpoint.
async fn harness(endpoint: &ScriptedEndpoint) -> Harness {
    Harness::start(|options| {
        endpoint.replace_endpoint("east", std::path::Path::new(""), options);
        options.set("process.workers", "1").allow(&ALL_OPERATIONS);
    })
    .await
}

fn accepted() -> Vec<Vec<u8>> {
    vec![b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec()]
}

/// Sends a call and returns a function that cancels it by a reset of the connection, or of the HTTP/2 stream.
async fn call(harness: &Harness, is_http2: bool) -> Box<dyn FnOnce()> {
    let address = harness.listener("default");
    if is_http2 {
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        // Ends with the caller or the gateway.
        tokio::spawn(connection);
        let request = request("POST", &format!("http://{address}{BROADCAST_PATH}"));
        let sending = tokio::spawn(sender.send_request(request.body(Full::<Bytes>::from(BROADCAST_BODY)).unwrap()));
        Box::new(move || {
            sending.abort();
            // The connection stays open.
            std::mem::forget(sender);
        })
    } else {
        let mut raw = harness.raw_connection().await;
        let head = format!(
            "POST {BROADCAST_PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {}\r\n\r\n",
            BROADCAST_BODY.len()
        );
        raw.write(head + BROADCAST_BODY).await;
        Box::new(|| raw.reset())
    }
}

#[tokio::test]
async fn caller_that_disconnects_does_not_close_the_connection_to_the_endpoint() {
    let endpoint = ScriptedEndpoint::start().await;
    let harness = harness(&endpoint).await;
    let idle = async |count: f64| {
        wait_until("the connection is idle again", async || {
            let idle = harness.metrics().await.sum("upstream_connections", &[("endpoint", "east"), ("state", "idle")]);
            ((idle - count).abs() < f64::EPSILON).then_some(())
        })
        .await;
    };
    for round in 0..10 {
        let after = Arc::new(Notify::new());
        let written =
            endpoint.queue(ScriptedResponse { writes: accepted(), after: Some(Arc::clone(&after)), closes: false });
        let cancel = call(&harness, round % 2 == 1).await;
        wait_until("the endpoint has the request", async || (endpoint.heads().len() > round).then_some(())).await;
        cancel();
        wait_until("the gateway notices that the caller disconnected", async || {
            let disconnected = harness.metrics().await.sum("requests_total", &[("code", "499")]);
            (disconnected > f64::from(u32::try_from(round).unwrap()) + 0.5).then_some(())
        })
        .await;
        after.notify_one();
        assert_eq!(written.await.unwrap(), 1, "round {round} opened another connection");
        idle(1.0).await;
    }
}

#[tokio::test]
async fn requests_lists_that_it_rewrites_without_content_coding() {
    const LIST: &str = "/api/hubs/chat/groups/g/connections?api-version=2024-12-01";
    let endpoint = ScriptedEndpoint::start().await;
    let harness = harness(&endpoint).await;
    let response = |lines: &str, body: &str| {
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{lines}content-length: {}", body.len());
        ScriptedResponse { writes: vec![format!("{head}\r\n\r\n{body}").into_bytes()], ..ScriptedResponse::default() }
    };
    let page = r#"{"value":[{"connectionId":"c"}],"nextLink":"http://east.invalid/next?continuationToken=t"}"#;
    let list = || request("GET", LIST).header(ACCEPT_ENCODING, "gzip, br;q=0.5");

    let _written = endpoint.queue(response("content-encoding: identity\r\n", page));
    let answered = harness.caller().await.send(list(), "").await;
    let next = answered.assert_status(200).json()["nextLink"].as_str().unwrap().to_owned();
    assert!(next.starts_with("http://127.0.0.1:") && !next.contains("east.invalid"), "{next}");
    let head = endpoint.heads().remove(0);
    let codings: Vec<&str> = head.lines().filter(|line| line.starts_with("accept-encoding")).collect();
    assert_eq!(codings, ["accept-encoding: identity"]);

    for coding in ["gzip", "identity, GZIP", "br"] {
        let _written = endpoint.queue(response(&format!("content-encoding: {coding}\r\n"), page));
        let _repeated = endpoint.queue(response(&format!("content-encoding: {coding}\r\n"), page));
        let rejected = harness.caller().await.send(list(), "").await;
        rejected.assert_gateway_error(502, "upstream_broken");
        assert!(!rejected.text().contains("east.invalid"), "{rejected:?}");
    }

    // For bodies that are not rewritten, the caller chooses the coding.
    let _written = endpoint.queue(ScriptedResponse { writes: accepted(), ..ScriptedResponse::default() });
    harness.caller().await.send(broadcast_request().header(ACCEPT_ENCODING, "gzip, br;q=0.5"), BROADCAST_BODY).await;
    let head = endpoint.heads().pop().unwrap();
    assert!(head.contains("accept-encoding: gzip, br;q=0.5"), "{head}");
}

/// Returns the number of idle connections to an endpoint.
async fn idle(harness: &Harness, endpoint: &str) -> f64 {
    harness.metrics().await.sum("upstream_connections", &[("endpoint", endpoint), ("state", "idle")])
}

#[tokio::test]
async fn connection_that_has_been_idle_longest_closes_when_too_many_are_kept() {
    let harness = Harness::start(|options| {
        options.set("limits.max_idle_connections", "1").set("process.workers", "1");
        options.append_toml(
            "[[routes]]\nname = \"west\"\nmatch = { hub = \"west\" }\nendpoints = [\"west\"]\n\
             [[routes]]\nname = \"east\"\nendpoints = [\"east\"]\n",
        );
    })
    .await;
    let mut caller = harness.caller().await;
    let (to_east, to_west) =
        ("/api/hubs/chat/:send?api-version=2022-11-01", "/api/hubs/west/:send?api-version=2022-11-01");
    let closed_by_limit =
        async || harness.metrics().await.sum("upstream_connections_closed_total", &[("reason", "limit")]);
    for (target, kept, closed) in [(to_east, "east", "west"), (to_west, "west", "east"), (to_east, "east", "west")] {
        caller.post(target, "application/json", BROADCAST_BODY).await.assert_status(202);
        wait_until("one connection is kept, the latest", async || {
            (idle(&harness, kept).await > 0.5 && idle(&harness, closed).await < 0.5).then_some(())
        })
        .await;
    }
    assert!((closed_by_limit().await - 2.0).abs() < f64::EPSILON, "{}", closed_by_limit().await);
}

#[tokio::test]
async fn busy_connection_is_replaced_at_its_age_and_no_call_is_lost() {
    let endpoint = Http2Endpoint::start().await;
    for version in ["1.1", "2"] {
        let harness = Harness::start(|options| {
            options.set("process.workers", "1").set("endpoints.east.http_version", version);
            options.set("endpoints.east.pool", r#"{ max_age = "1s" }"#);
            if version == "2" {
                options.set("endpoints.east.url", &format!("http://{}", endpoint.address));
            }
        })
        .await;
        let mut caller = harness.caller().await;
        let began = Instant::now();
        // Each connection carries at least one call, and the last one is no older than the others.
        wait_until("connections are replaced", async || {
            caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
            let metrics = harness.metrics().await;
            let closed = metrics.sum("upstream_connections_closed_total", &[("endpoint", "east"), ("reason", "age")]);
            (closed > 1.5).then_some(())
        })
        .await;
        assert!(began.elapsed() >= Duration::from_millis(1800), "HTTP/{version}: connections were replaced early");
        let metrics = harness.metrics().await;
        let opened = metrics.sum("upstream_connects_total", &[("endpoint", "east"), ("result", "ok")]);
        assert!(opened > 1.5, "HTTP/{version}: {opened}");
        assert!(metrics.sum("upstream_errors_total", &[("endpoint", "east")]) < 0.5, "HTTP/{version}");
        assert!(harness.arrivals("west").is_empty(), "HTTP/{version}");
    }
    assert!(endpoint.requests().last().unwrap() > &0, "all calls used one connection");
}

#[tokio::test]
async fn http2_connection_is_used_beyond_its_age_while_no_other_can_be_opened() {
    let endpoint = Http2Endpoint::start().await;
    let harness = Harness::start(|options| {
        options.set("process.workers", "1").set("endpoints.east.http_version", "2");
        options.set("endpoints.east.url", &format!("http://{}", endpoint.address));
        options.set("endpoints.east.pool", r#"{ max_age = "1s" }"#);
    })
    .await;
    let mut caller = harness.caller().await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    endpoint.stop_accepting().await;
    let failed = async || {
        let metrics = harness.metrics().await;
        metrics.sum("upstream_connects_total", &[("endpoint", "east"), ("result", "error")])
    };
    wait_until("a connection was not opened", async || {
        caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
        (failed().await > 0.5).then_some(())
    })
    .await;
    for _ in 0..10 {
        caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    }
    assert!(failed().await < 1.5, "it is not tried at each call");
    assert!(harness.arrivals("west").is_empty());
    assert!(endpoint.requests().iter().all(|connection| *connection == 0));
}

#[tokio::test]
async fn workers_share_the_maximum_of_idle_connections() {
    let harness = Harness::start(|options| {
        options.set("limits.max_idle_connections", "3").set("process.workers", "4");
    })
    .await;
    for _ in 0..5 {
        let calls = (0..20).map(async |_| harness.caller().await.send(broadcast_request(), BROADCAST_BODY).await);
        for response in futures_util::future::join_all(calls).await {
            response.assert_status(202);
        }
        let kept = idle(&harness, "east").await;
        assert!(kept < 3.5, "{kept}");
    }
}
