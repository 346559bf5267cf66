//! Traces, as a collector receives them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use signalr_gateway::sandbox::{Fault, FaultKind};
use tokio::net::TcpListener;

use crate::support::{
    ALL_OPERATIONS, BROADCAST_BODY, GatewayOptions, Harness, HarnessBuilder, broadcast_request, wait_until,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector of the test's own.
#[derive(Clone)]
struct Collector {
    address: SocketAddr,
    status: Arc<Mutex<StatusCode>>,
    /// The headers and the body of each export.
    exports: Arc<Mutex<Vec<(HeaderMap, Value)>>>,
    /// How many connections were accepted.
    connections: Arc<AtomicUsize>,
}

/// A span, as far as the tests look at it.
#[derive(Clone, Debug)]
struct Span {
    trace: String,
    id: String,
    parent: Option<String>,
    state: Option<String>,
    name: String,
    kind: u64,
    began: u128,
    ended: u128,
    is_error: bool,
    attributes: BTreeMap<String, String>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let collector = Self {
            address,
            status: Arc::new(Mutex::new(StatusCode::OK)),
            exports: Arc::default(),
            connections: Arc::default(),
        };
        let served = collector.clone();
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                served.connections.fetch_add(1, Ordering::SeqCst);
                let collector = served.clone();
                let service = hyper::service::service_fn(move |request| collector.clone().receive(request));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        collector
    }

    async fn receive(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let status = *self.status.lock().unwrap();
        if status == StatusCode::OK {
            self.exports.lock().unwrap().push((head.headers, serde_json::from_slice(&body).unwrap()));
        }
        let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
        *response.status_mut() = status;
        Ok(response)
    }

    fn configure(&self, options: &mut GatewayOptions, sample: &str) {
        options.append_toml(&format!("[tracing]\nendpoint = \"http://{}\"\nsample = {sample}\n", self.address));
    }

    /// Returns the spans that were received.
    fn spans(&self) -> Vec<Span> {
        let exports = self.exports.lock().unwrap();
        let spans = exports.iter().flat_map(|(_, body)| {
            let resource = &body["resourceSpans"][0];
            assert_eq!(attributes(&resource["resource"])["service.name"], "signalr-gateway");
            resource["scopeSpans"][0]["spans"].as_array().unwrap().clone()
        });
        spans.map(|span| Span::read(&span)).collect()
    }

    /// Waits until there are as many spans of calls, and returns them: the server's first.
    async fn calls(&self, count: usize) -> Vec<Span> {
        wait_until("the spans arrive", async || {
            let mut calls: Vec<_> = self.spans().into_iter().filter(|span| span.name != "token").collect();
            calls.sort_by_key(|span| (span.kind, span.began));
            (calls.len() >= count).then_some(calls)
        })
        .await
    }
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    let value = |value: &Value| {
        let (_, value) = value.as_object().unwrap().iter().next().unwrap();
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    };
    let pairs = of["attributes"].as_array().unwrap().iter();
    pairs.map(|pair| (pair["key"].as_str().unwrap().to_owned(), value(&pair["value"]))).collect()
}

impl Span {
    fn read(span: &Value) -> Self {
        let text = |key: &str| span[key].as_str().map(str::to_owned);
        let time = |key: &str| text(key).unwrap().parse().unwrap();
        Self {
            trace: text("traceId").unwrap(),
            id: text("spanId").unwrap(),
            parent: text("parentSpanId"),
            state: text("traceState"),
            name: text("name").unwrap(),
            kind: span["kind"].as_u64().unwrap(),
            began: time("startTimeUnixNano"),
            ended: time("endTimeUnixNano"),
            is_error: span["status"]["code"] == 2,
            attributes: attributes(span),
        }
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.attributes.get(name).is_some_and(|found| found == value)
    }
}

fn trace_parent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

async fn harness(collector: &Collector, sample: &str, more: &str) -> Harness {
    Harness::start(|options| {
        options.allow(&ALL_OPERATIONS);
        options.append_toml(more);
        collector.configure(options, sample);
    })
    .await
}

#[tokio::test]
async fn sampled_trace_of_the_caller_goes_on_to_the_endpoint_with_the_span_of_the_attempt_as_parent() {
    let collector = Collector::start().await;
    let harness = harness(&collector, "0", "").await;
    let call = broadcast_request().header("traceparent", trace_parent("01")).header("tracestate", "vendor=1");
    harness.caller().await.send(call, BROADCAST_BODY).await.assert_status(202);
    let spans = collector.calls(2).await;
    let [server, client] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!((server.trace.as_str(), server.parent.as_deref()), (TRACE, Some(PARENT)));
    assert_eq!((server.kind, server.name.as_str(), server.state.as_deref()), (2, "hub_send", Some("vendor=1")));
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.response.status_code", "202"),
        ("signalr_gateway.hub", "chat"),
        ("signalr_gateway.endpoint", "east"),
        ("url.scheme", "http"),
    ] {
        assert!(server.has(name, value), "{name}: {server:#?}");
    }
    assert!(!server.is_error && !server.attributes.contains_key("error.type"));
    assert_eq!((client.trace.as_str(), client.parent.as_deref()), (TRACE, Some(server.id.as_str())));
    assert!(client.kind == 3 && client.has("signalr_gateway.endpoint", "east"), "{client:#?}");
    assert!(client.has("http.response.status_code", "202") && client.has("server.address", "127.0.0.1"));
    assert!(server.began <= client.began && client.ended <= server.ended, "{spans:#?}");
    let arrival = harness.arrival("east");
    assert_eq!(arrival.header("traceparent"), Some(format!("00-{TRACE}-{}-01", client.id).as_str()));
    assert_eq!(arrival.header("tracestate"), Some("vendor=1"));
}

#[tokio::test]
async fn exports_follow_each_other_on_one_connection() {
    let collector = Collector::start().await;
    let harness = harness(&collector, "1.0", "").await;
    let exports = || collector.exports.lock().unwrap().len();
    for _ in 0..3 {
        let before = exports();
        harness.broadcast().await.assert_status(202);
        wait_until("another export arrives", async || (exports() > before).then_some(())).await;
    }
    assert_eq!(collector.connections.load(Ordering::SeqCst), 1, "{} exports", exports());
}

#[tokio::test]
async fn callers_that_are_not_sampled_are_not_traced_and_their_headers_pass_unchanged() {
    let collector = Collector::start().await;
    let harness = harness(&collector, "1", "").await;
    let mut caller = harness.caller().await;
    let call = broadcast_request().header("traceparent", trace_parent("00")).header("tracestate", "vendor=1");
    caller.send(call, BROADCAST_BODY).await.assert_status(202);
    let arrival = harness.arrival("east");
    assert_eq!(arrival.header("traceparent"), Some(trace_parent("00").as_str()));
    assert_eq!(arrival.header("tracestate"), Some("vendor=1"));
    harness.clear_arrivals();
    // A call without a parent begins a trace, and a `tracestate` without one belongs to none.
    let call = broadcast_request().header("tracestate", "vendor=1");
    caller.send(call, BROADCAST_BODY).await.assert_status(202);
    let spans = collector.calls(2).await;
    let [server, client] = spans.as_slice() else { panic!("{spans:#?}") };
    assert_eq!((server.parent.as_deref(), client.parent.as_deref()), (None, Some(server.id.as_str())));
    assert_ne!(server.trace, TRACE);
    let arrival = harness.arrival("east");
    assert_eq!(arrival.header("traceparent"), Some(format!("00-{}-{}-03", server.trace, client.id).as_str()));
    assert_eq!(arrival.header("tracestate"), None);
}

#[tokio::test]
async fn each_leg_and_each_retry_has_a_span() {
    let collector = Collector::start().await;
    let both = "[[routes]]\nname = \"both\"\npick = \"all\"\nendpoints = [\"east\", \"west\"]\n";
    let harness = harness(&collector, "1", both).await;
    let fault = Fault::times(1, FaultKind::status(503)).on_path("/api/hubs");
    harness.endpoint("west").server.faults().set(fault);
    harness.call("HEAD", "/api/hubs/chat/users/ann?api-version=2024-12-01").await.assert_status(404);
    let spans = collector.calls(4).await;
    let [server, legs @ ..] = spans.as_slice() else { panic!("{spans:#?}") };
    assert!(server.has("signalr_gateway.route", "both") && server.has("http.response.status_code", "404"));
    assert!(legs.iter().all(|leg| leg.parent.as_deref() == Some(&server.id) && leg.trace == server.trace));
    let of = |endpoint| legs.iter().filter(|leg| leg.has("signalr_gateway.endpoint", endpoint)).collect::<Vec<_>>();
    let (east, west) = (of("east"), of("west"));
    assert_eq!((east.len(), west.len()), (1, 2), "{legs:#?}");
    assert!(west[0].is_error && west[0].has("error.type", "503"), "{west:#?}");
    assert!(west[1].has("http.request.resend_count", "1") && west[1].has("http.response.status_code", "404"));
    let sent: Vec<_> =
        harness.arrivals("west").iter().map(|entry| entry.header("traceparent").unwrap().to_owned()).collect();
    for (sent, span) in sent.iter().zip(&west) {
        assert_eq!(*sent, format!("00-{}-{}-03", server.trace, span.id));
    }
}

#[tokio::test]
async fn token_acquisitions_have_spans() {
    let collector = Collector::start().await;
    let _harness = harness(&collector, "0", "").await;
    let tokens = wait_until("the spans of the tokens arrive", async || {
        let spans: Vec<_> = collector.spans().into_iter().filter(|span| span.name == "token").collect();
        (spans.len() >= 2).then_some(spans)
    })
    .await;
    for token in &tokens {
        assert!(token.has("signalr_gateway.outcome", "ok") && !token.is_error, "{token:#?}");
        assert!(token.parent.is_none() && token.attributes.contains_key("signalr_gateway.credential"), "{token:#?}");
    }
}

#[tokio::test]
async fn collector_that_hangs_or_refuses_changes_nothing_for_callers() {
    let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = Collector::start().await;
    *collector.status.lock().unwrap() = StatusCode::BAD_REQUEST;
    for address in [hanging.local_addr().unwrap(), collector.address] {
        let mut harness = Harness::start(|options| {
            options.append_toml(&format!("[tracing]\nendpoint = \"http://{address}\"\nsample = 1\n"));
        })
        .await;
        for _ in 0..3 {
            harness.broadcast().await.assert_status(202);
        }
        if address == collector.address {
            wait_until("refused spans are counted", async || {
                (harness.metrics().await.sum("trace_spans_dropped_total", &[]) > 0.0).then_some(())
            })
            .await;
        }
        harness.begin_shutdown();
        harness.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn spans_that_wait_are_exported_when_the_gateway_stops() {
    let collector = Collector::start().await;
    let harness = harness(&collector, "1", "").await;
    harness.broadcast().await.assert_status(202);
    harness.shutdown().await.unwrap();
    assert!(collector.spans().iter().any(|span| span.name == "hub_send"));
}

#[tokio::test]
async fn spans_are_exported_again_once_the_collector_is_back_with_the_configured_headers() {
    let collector = Collector::start().await;
    *collector.status.lock().unwrap() = StatusCode::SERVICE_UNAVAILABLE;
    let builder = HarnessBuilder::start().await;
    let file = builder.folder.path().join("key");
    std::fs::write(&file, "secret-1\n").unwrap();
    let harness = builder
        .start_gateway(|options| {
            collector.configure(options, "1");
            options.append_toml(&format!("headers = {{ X-Key = {{ file = {file:?} }} }}\n"));
        })
        .await;
    harness.broadcast().await.assert_status(202);
    *collector.status.lock().unwrap() = StatusCode::OK;
    let spans = collector.calls(2).await;
    assert_eq!(spans[0].name, "hub_send");
    let exports = collector.exports.lock().unwrap();
    assert_eq!(exports[0].0["content-type"], "application/json");
    assert_eq!(exports[0].0["x-key"], "secret-1");
}

/// Waits until the export of traces has a state, and returns it with the verdict.
async fn export_once(harness: &Harness, state: &str) -> (Value, Value) {
    wait_until(&format!("the export is {state}"), async || {
        let status = harness.admin("/status").await.json();
        (status["tracing"]["state"] == state).then(|| (status["tracing"].clone(), status["verdict"].clone()))
    })
    .await
}

#[tokio::test]
async fn status_says_where_spans_go_how_many_were_lost_and_why_an_export_fails() {
    let collector = Collector::start().await;
    *collector.status.lock().unwrap() = StatusCode::UNAUTHORIZED;
    let harness = harness(&collector, "1", "").await;
    harness.broadcast().await.assert_status(202);
    let (failing, verdict) = export_once(&harness, "failing").await;
    assert_eq!(failing["collector"], format!("http://{}/v1/traces", collector.address));
    assert_eq!(
        (&failing["sample"], &failing["problem"]),
        (&1.0.into(), &"the collector responded 401 Unauthorized".into())
    );
    assert_eq!(failing["fix"], "correct the credentials in `tracing.headers`");
    assert!(failing["failures"].as_u64() > Some(0) && failing["last_failure"].is_u64() && failing["since"].is_u64());
    assert!(failing["last_success"].is_null(), "{failing}");
    let lines: Vec<&str> = verdict["lines"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let [fact, effect, action] = lines.as_slice() else { panic!("{verdict}") };
    assert!(
        fact.starts_with("traces cannot be exported since ") && fact.ends_with("responded 401 Unauthorized"),
        "{fact}"
    );
    assert!(effect.starts_with("calls are served as before") && effect.contains("spans"), "{effect}");
    assert_eq!(verdict["state"], "attention");
    assert_eq!(*action, "do this: correct the credentials in `tracing.headers`");
    let page = harness.admin("/").await.text();
    assert!(page.contains("<h2 id=\"traces-title\">Traces</h2>") && page.contains("responded 401"), "{page}");

    *collector.status.lock().unwrap() = StatusCode::OK;
    harness.broadcast().await.assert_status(202);
    let (ok, verdict) = export_once(&harness, "ok").await;
    assert!(ok["exported"].as_u64() >= Some(2) && ok["dropped"].as_u64() >= Some(2), "{ok}");
    assert_eq!((&ok["problem"], &ok["fix"], &verdict["state"]), (&failing["problem"], &Value::Null, &"healthy".into()));
    assert!(harness.metrics().await.sum("trace_export_failures_total", &[]) > 0.0);
}

#[tokio::test]
async fn status_does_not_mention_traces_that_are_not_exported() {
    let harness = Harness::start(|_| {}).await;
    assert!(harness.admin("/status").await.json()["tracing"].is_null());
    assert!(!harness.admin("/").await.text().contains("traces-title"));
}
