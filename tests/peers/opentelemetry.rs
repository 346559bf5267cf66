//! OpenTelemetry: traces as its own protobuf classes decode them, directly and behind a collector.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use signalr_gateway::sandbox::{Entry, Fault, FaultKind};
use tempfile::TempDir;

use super::server::{Server, folder, free_address};
use super::support::{ALL_OPERATIONS, BROADCAST_BODY, Caller, Harness, broadcast_request, request, wait_until};

/// A call to one endpoint, and its caller's span.
const SINGLE: (&str, &str) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
/// A fan-out, one of whose legs is retried.
const FAN_OUT: (&str, &str) = ("1af7651916cd43dd8448eb211c80319c", "c7ad6b7169203331");
/// A call that the gateway answers itself.
const FAILED: (&str, &str) = ("2af7651916cd43dd8448eb211c80319c", "d7ad6b7169203331");
/// A call whose trace is not recorded.
const UNSAMPLED: (&str, &str) = ("3af7651916cd43dd8448eb211c80319c", "e7ad6b7169203331");

/// The bits of a span's flags: the trace is recorded; its id is random; it is known whether the parent is remote; it is.
const RECORDED: u64 = 0x01;
const RANDOM: u64 = 0x02;
const HAS_IS_REMOTE: u64 = 0x100;
const IS_REMOTE: u64 = 0x200;

/// The Python that `tests/peers/run` installs, with the packages of `requirements.txt`.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/peers/bin/python");
/// Runs the program of the package Rotel.
const ROTEL: &str = "import os, sys; from rotel.agent import Agent; os.execv(Agent.agent_path, sys.argv)";

/// A receiver that decodes strictly.
struct Receiver {
    server: Server,
    _folder: TempDir,
}

impl Receiver {
    async fn start() -> Self {
        let (folder, address) = (folder(), free_address());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/opentelemetry/receiver.py");
        let arguments = [script.to_str().unwrap(), &address.port().to_string()];
        let server = Server::start(PYTHON, &arguments, address, folder.path()).await;
        Self { server, _folder: folder }
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns the spans that were decoded. Fails if an export was refused.
    async fn spans(&self) -> Vec<Value> {
        let received = Caller::connect(self.address()).await.call("GET", "/spans").await.json();
        assert_eq!(received["refused"], json!([]));
        received["spans"].as_array().unwrap().clone()
    }

    async fn post(&self, body: &Value) -> u16 {
        let mut caller = Caller::connect(self.address()).await;
        caller.post("/v1/traces", "application/json", body.to_string()).await.status.as_u16()
    }
}

/// Rotel, a collector that passes on what it receives, as binary protobuf.
async fn start_collector(receiver: &Receiver, folder: &TempDir) -> Server {
    let (http, grpc) = (free_address(), free_address());
    let (http_text, grpc, next) = (http.to_string(), grpc.to_string(), format!("http://{}", receiver.address()));
    let arguments = [
        "-c",
        ROTEL,
        "start",
        "--otlp-http-endpoint",
        &http_text,
        "--otlp-grpc-endpoint",
        &grpc,
        "--exporter",
        "otlp",
        "--otlp-exporter-protocol",
        "http",
        "--otlp-exporter-endpoint",
        &next,
    ];
    Server::start(PYTHON, &arguments, http, folder.path()).await
}

fn trace_parent((trace, span): (&str, &str), flags: &str) -> String {
    format!("00-{trace}-{span}-{flags}")
}

/// The spans of a call: the server's, and those of its attempts in order.
struct Call {
    server: Value,
    attempts: Vec<Value>,
}

impl Call {
    /// Checks the ids, kinds, times and flags of a call's spans.
    fn of(spans: &[Value], (trace, parent): (&str, &str)) -> Self {
        let mut spans: Vec<Value> = spans.iter().filter(|span| span["trace"] == trace).cloned().collect();
        spans.sort_by_key(|span| (span["kind"] != "SPAN_KIND_SERVER", span["start"].as_u64()));
        let server = spans.remove(0);
        assert_eq!((&server["kind"], &server["parent"]), (&json!("SPAN_KIND_SERVER"), &json!(parent)));
        assert_eq!(server["flags"], RECORDED | HAS_IS_REMOTE | IS_REMOTE, "{server}");
        for attempt in &spans {
            assert_eq!((&attempt["kind"], &attempt["parent"]), (&json!("SPAN_KIND_CLIENT"), &server["id"]));
            assert_eq!(attempt["flags"], RECORDED | HAS_IS_REMOTE, "{attempt}");
            assert!(attempt["start"].as_u64() >= server["start"].as_u64(), "{attempt} {server}");
            assert!(attempt["end"].as_u64() <= server["end"].as_u64(), "{attempt} {server}");
        }
        for span in spans.iter().chain([&server]) {
            assert_eq!(span["resource"]["service.name"], "signalr-gateway");
            assert_eq!(span["resource"]["service.version"], env!("CARGO_PKG_VERSION"));
            assert_eq!(span["resource"]["service.instance.id"].as_str().unwrap().len(), 32);
            assert_eq!(span["scope"], json!({ "name": "signalr-gateway", "version": env!("CARGO_PKG_VERSION") }));
        }
        Self { server, attempts: spans }
    }

    /// Returns the attempts at an endpoint, in order.
    fn at(&self, endpoint: &str) -> Vec<&Value> {
        let is_at = |span: &&Value| span["attributes"]["signalr_gateway.endpoint"] == endpoint;
        self.attempts.iter().filter(is_at).collect()
    }
}

/// Calls a gateway that exports to `collector`, and checks the spans that the receiver has decoded.
async fn check_spans(collector: SocketAddr, receiver: &Receiver) {
    let harness = Harness::start(|options| {
        options.allow(&ALL_OPERATIONS);
        options.append_toml(&format!(
            "[[routes]]\nname = \"both\"\npick = \"all\"\nendpoints = [\"east\", \"west\"]\nmatch = {{ hub = \"all\" }}\n\
             [[routes]]\nname = \"east\"\nendpoints = [\"east\"]\n\
             [tracing]\nendpoint = \"http://{collector}\"\nsample = 1\n"
        ));
    })
    .await;
    let mut caller = harness.caller().await;
    let call = broadcast_request().header("traceparent", trace_parent(UNSAMPLED, "00"));
    caller.send(call, BROADCAST_BODY).await.assert_status(202);
    assert_eq!(harness.arrival("east").header("traceparent"), Some(trace_parent(UNSAMPLED, "00").as_str()));
    harness.clear_arrivals();

    let call = broadcast_request().header("traceparent", trace_parent(SINGLE, "01")).header("tracestate", "vendor=1");
    caller.send(call, BROADCAST_BODY).await.assert_status(202);
    let arrival = harness.arrival("east");
    harness.clear_arrivals();

    harness.endpoint("west").server.faults().set(Fault::times(1, FaultKind::status(503)).on_path("/api/hubs"));
    let call = request("HEAD", "/api/hubs/all/users/ann?api-version=2024-12-01");
    caller.send(call.header("traceparent", trace_parent(FAN_OUT, "01")), "").await.assert_status(404);

    // Without a sampled parent, so the sample decides.
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);

    harness.endpoint("east").server.faults().set(Fault::always(FaultKind::Reset).on_path("/api/hubs"));
    let call = broadcast_request().header("traceparent", trace_parent(FAILED, "01"));
    let status = caller.send(call, BROADCAST_BODY).await.status;
    assert_eq!(status, 502);

    let spans = wait_until("the spans arrive", async || {
        let spans = receiver.spans().await;
        let servers = spans.iter().filter(|span| span["kind"] == "SPAN_KIND_SERVER").count();
        let tokens = spans.iter().filter(|span| span["name"] == "token").count();
        (servers >= 4 && tokens >= 2).then_some(spans)
    })
    .await;
    assert!(spans.iter().all(|span| span["trace"] != UNSAMPLED.0), "{spans:#?}");
    let ids: HashSet<&str> = spans.iter().map(|span| span["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), spans.len(), "ids are repeated: {spans:#?}");

    check_single(&Call::of(&spans, SINGLE), &arrival);
    check_fan_out(&Call::of(&spans, FAN_OUT));
    check_failure(&Call::of(&spans, FAILED));

    let known = [SINGLE.0, FAN_OUT.0, FAILED.0];
    let root = spans
        .iter()
        .find(|span| span["kind"] == "SPAN_KIND_SERVER" && !known.contains(&span["trace"].as_str().unwrap()));
    let root = root.unwrap();
    assert_eq!((&root["parent"], &root["flags"]), (&Value::Null, &json!(RECORDED | RANDOM | HAS_IS_REMOTE)), "{root}");

    for token in spans.iter().filter(|span| span["name"] == "token") {
        assert_eq!((&token["kind"], &token["parent"]), (&json!("SPAN_KIND_CLIENT"), &Value::Null));
        assert_eq!(token["status"], "STATUS_CODE_UNSET");
        let attributes = &token["attributes"];
        assert_eq!(attributes["signalr_gateway.outcome"], "ok");
        assert!(attributes["signalr_gateway.credential"].is_string(), "{token}");
    }
}

fn check_single(call: &Call, arrival: &Entry) {
    let Call { server, attempts } = call;
    let [attempt] = attempts.as_slice() else { panic!("{attempts:#?}") };
    assert_eq!(server["name"], "hub_send");
    assert_eq!((&server["state"], &attempt["state"]), (&json!("vendor=1"), &json!("vendor=1")));
    let attributes = &server["attributes"];
    let request_id = attributes["signalr_gateway.request_id"].as_str().unwrap();
    assert_eq!(
        *attributes,
        json!({
            "http.request.method": "POST",
            "http.response.status_code": 202,
            "url.scheme": "http",
            "signalr_gateway.operation": "hub_send",
            "signalr_gateway.hub": "chat",
            "signalr_gateway.listener": "default",
            "signalr_gateway.route": "east",
            "signalr_gateway.endpoint": "east",
            "signalr_gateway.request_id": request_id,
        })
    );
    assert_eq!(attempt["name"], "POST east");
    let port = attempt["attributes"]["server.port"].as_u64().unwrap();
    assert_eq!(
        attempt["attributes"],
        json!({
            "http.request.method": "POST",
            "http.response.status_code": 202,
            "server.address": "127.0.0.1",
            "server.port": port,
            "signalr_gateway.endpoint": "east",
        })
    );
    assert_eq!((&server["status"], &attempt["status"]), (&json!("STATUS_CODE_UNSET"), &json!("STATUS_CODE_UNSET")));
    let id = attempt["id"].as_str().unwrap();
    assert_eq!(arrival.header("traceparent"), Some(trace_parent((SINGLE.0, id), "01").as_str()));
    assert_eq!(arrival.header("tracestate"), Some("vendor=1"));
}

fn check_fan_out(call: &Call) {
    let attributes = &call.server["attributes"];
    assert_eq!(attributes["signalr_gateway.route"], "both");
    assert_eq!(
        (&attributes["http.response.status_code"], &call.server["status"]),
        (&json!(404), &json!("STATUS_CODE_UNSET"))
    );
    let (east, west) = (call.at("east"), call.at("west"));
    assert_eq!((east.len(), west.len()), (1, 2), "{:#?}", call.attempts);
    assert_eq!(
        (&west[0]["status"], &west[0]["attributes"]["error.type"]),
        (&json!("STATUS_CODE_ERROR"), &json!("503"))
    );
    assert_eq!(west[0]["attributes"]["http.request.resend_count"], Value::Null);
    assert_eq!(west[1]["attributes"]["http.request.resend_count"], 1);
    assert_eq!(west[1]["attributes"]["http.response.status_code"], 404);
}

fn check_failure(call: &Call) {
    let Call { server, attempts } = call;
    assert_eq!(
        (&server["status"], &server["attributes"]["http.response.status_code"]),
        (&json!("STATUS_CODE_ERROR"), &json!(502))
    );
    assert_eq!(server["attributes"]["error.type"], "upstream_broken");
    assert!(!server["message"].as_str().unwrap().is_empty(), "{server}");
    let [attempt] = attempts.as_slice() else { panic!("{attempts:#?}") };
    assert_eq!(attempt["status"], "STATUS_CODE_ERROR");
    assert_eq!(attempt["attributes"]["http.response.status_code"], Value::Null);
    assert_eq!(attempt["attributes"]["error.type"], attempt["message"]);
}

#[tokio::test]
async fn the_classes_of_opentelemetry_decode_the_spans_of_calls_attempts_legs_and_tokens() {
    let receiver = Receiver::start().await;
    check_spans(receiver.address(), &receiver).await;
}

#[tokio::test]
async fn a_collector_passes_the_spans_on() {
    let (receiver, folder) = (Receiver::start().await, folder());
    let collector = start_collector(&receiver, &folder).await;
    check_spans(collector.address(), &receiver).await;
}

/// The test above relies on it.
#[tokio::test]
async fn the_receiver_refuses_what_otlp_json_does_not_allow() {
    let receiver = Receiver::start().await;
    let span = json!({
        "traceId": SINGLE.0,
        "spanId": SINGLE.1,
        "name": "a",
        "kind": 2,
        "startTimeUnixNano": "1700000000000000000",
        "endTimeUnixNano": "1700000000000000001",
    });
    let export = |span: &Value| json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] });
    assert_eq!(receiver.post(&export(&span)).await, 200);
    for (field, value) in [
        ("traceId", json!("CvdlGRbNQ92ESOshHIAxnA==")),
        ("spanId", json!("B7AD6B7169203331")),
        ("kind", json!("SPAN_KIND_SERVER")),
        ("kind", json!(9)),
        ("startTimeUnixNano", json!("soon")),
        ("end_time_unix_nano", json!("1")),
        ("sort", json!(1)),
        ("status", json!({ "code": "STATUS_CODE_ERROR" })),
        ("attributes", json!([{ "key": "a", "value": { "intValue": "x" } }])),
    ] {
        let mut changed = span.clone();
        changed[field] = value.clone();
        assert_eq!(receiver.post(&export(&changed)).await, 400, "{field}: {value}");
    }
}
