//! Spans as OTLP/JSON.
//!
//! Ids are hex digits, 64-bit numbers are strings, and enums are numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::trace::{Attribute, Span, SpanKind, SpanStatus, Value};

/// The flags of a span besides those of its trace: whether it is known if its parent is remote, and whether it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: Vec<KeyValue<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<SpanJson<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_state: Option<&'a str>,
    flags: u32,
    name: &'a str,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<KeyValue<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
}

#[derive(Serialize)]
struct Status<'a> {
    code: u8,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

#[derive(Serialize)]
struct KeyValue<'a> {
    key: &'a str,
    value: AnyValue<'a>,
}

/// A value, as an object whose key is its type.
struct AnyValue<'a>(Borrowed<'a>);

enum Borrowed<'a> {
    Text(&'a str),
    Other(&'a Value),
}

impl Serialize for AnyValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self.0 {
            Borrowed::Text(text) => map.serialize_entry("stringValue", text)?,
            Borrowed::Other(Value::Text(text)) => map.serialize_entry("stringValue", text)?,
            Borrowed::Other(Value::Number(number)) => map.serialize_entry("intValue", &number.to_string())?,
        }
        map.end()
    }
}

impl<'a> KeyValue<'a> {
    fn text(key: &'a str, text: &'a str) -> Self {
        Self { key, value: AnyValue(Borrowed::Text(text)) }
    }

    fn of((key, value): &'a Attribute) -> Self {
        Self { key, value: AnyValue(Borrowed::Other(value)) }
    }
}

impl<'a> SpanJson<'a> {
    fn of(span: &'a Span) -> Self {
        Self {
            trace_id: span.trace.to_string(),
            span_id: span.id.to_string(),
            parent_span_id: span.parent.map(|parent| parent.to_string()),
            trace_state: span.state.as_deref(),
            flags: u32::from(span.flags) | HAS_IS_REMOTE | if span.has_remote_parent { IS_REMOTE } else { 0 },
            name: &span.name,
            kind: match span.kind {
                SpanKind::Server => 2,
                SpanKind::Client => 3,
            },
            start_time_unix_nano: nanos(span.began),
            end_time_unix_nano: nanos(span.ended),
            attributes: span.attributes.iter().map(KeyValue::of).collect(),
            status: match &span.status {
                SpanStatus::Unset => None,
                SpanStatus::Error(message) => Some(Status { code: 2, message }),
            },
        }
    }
}

fn nanos(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

/// Returns spans of a service as the body of an export. `instance` identifies the process.
pub(super) fn body(spans: &[Span], service_name: &str, instance: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = vec![
        KeyValue::text("service.name", service_name),
        KeyValue::text("service.version", version),
        KeyValue::text("service.instance.id", instance),
    ];
    let spans = spans.iter().map(SpanJson::of).collect();
    let scope = Scope { name: env!("CARGO_PKG_NAME"), version };
    let resource_spans =
        ResourceSpans { resource: Resource { attributes }, scope_spans: [ScopeSpans { scope, spans }] };
    // Writing text and numbers to memory does not fail.
    serde_json::to_vec(&Request { resource_spans: [resource_spans] }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use http::HeaderValue;
    use serde_json::json;

    use super::*;
    use crate::metrics::{MetricRegistry, TraceMetrics};
    use crate::trace::{EndedCall, SpanQueue, Tracer};

    #[test]
    fn spans_have_the_field_names_and_encodings_of_otlp_json() {
        let metrics = TraceMetrics::register(&mut MetricRegistry::default()).unwrap();
        let queue: Arc<SpanQueue> = SpanQueue::new(&metrics);
        queue.set_exported(true);
        let parent = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let state = HeaderValue::from_static("vendor=1");
        let trace = Tracer::new(&queue, 0.0).begin(Some(&parent), || Some(&state)).unwrap();
        trace.end(EndedCall {
            name: "hub_send".into(),
            method: "POST".to_owned(),
            began: Instant::now(),
            attributes: vec![("http.response.status_code", 503_u16.into())],
            status: SpanStatus::Error("no endpoint".into()),
        });
        let batch = queue.take().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body(batch.spans(), "gw", "i-1")).unwrap();
        let resource = &body["resourceSpans"][0];
        let text = |key: &str, text: &str| json!({ "key": key, "value": { "stringValue": text } });
        assert_eq!(resource["resource"]["attributes"][0], text("service.name", "gw"));
        assert_eq!(resource["resource"]["attributes"][2], text("service.instance.id", "i-1"));
        assert_eq!(resource["scopeSpans"][0]["scope"]["name"], "signalr-gateway");
        let mut span = resource["scopeSpans"][0]["spans"][0].clone();
        let fields = span.as_object_mut().unwrap();
        assert_eq!(fields.remove("spanId").unwrap().as_str().unwrap().len(), 16);
        for time in ["startTimeUnixNano", "endTimeUnixNano"] {
            let time: u128 = fields.remove(time).unwrap().as_str().unwrap().parse().unwrap();
            assert!(time > 1_700_000_000_000_000_000);
        }
        assert_eq!(
            span,
            json!({
                "traceId": "0af7651916cd43dd8448eb211c80319c",
                "parentSpanId": "b7ad6b7169203331",
                "traceState": "vendor=1",
                "flags": 0x301,
                "name": "hub_send",
                "kind": 2,
                "attributes": [
                    text("http.request.method", "POST"),
                    { "key": "http.response.status_code", "value": { "intValue": "503" } },
                ],
                "status": { "code": 2, "message": "no endpoint" },
            })
        );
    }
}
