//! Measures checking a request's headers against the admission rules, and rewriting headers in both directions.
//!
//! Catches copies of header values (they are reference-counted), hashing of names where a comparison is enough, and
//! admission rules whose cost grows with the configuration. Every request pays all three.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use signalr_gateway::credential::Bearer;
use signalr_gateway::delivery::{CallHead, headers};
use signalr_gateway::proxy::{Admission, AdmissionSettings, LastHost};
use signalr_gateway::route::Constraint;
use signalr_gateway::serve::{ListenerId, Peer};
use signalr_gateway::signalr::OperationSet;

/// Returns the head of a broadcast of the Management SDK.
fn request() -> Parts {
    let request = Request::post("/api/hubs/chat/:send?api-version=2022-11-01")
        .header("host", "signalr-gateway.messaging.svc.cluster.local:8080")
        .header("asrs-user-agent", "Microsoft.Azure.SignalR.Management/1.30.0 (.NET 8.0.11; Linux; X64)")
        .header("authorization", "Bearer callers-own")
        .header("accept", "application/json")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("content-type", "application/json; charset=utf-8")
        .header("content-length", "200");
    request.body(()).expect("a request").into_parts().0
}

/// Returns the headers of a response of the service.
fn response() -> HeaderMap {
    let lines = [
        ("content-length", "0"),
        ("date", "Mon, 23 Nov 2026 00:00:00 GMT"),
        ("strict-transport-security", "max-age=15724800; includeSubDomains"),
    ];
    lines.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).into_iter().collect()
}

const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn headers_of_a_call(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("headers");

    let settings = AdmissionSettings {
        listener: "default".to_owned(),
        max_requests: None,
        client_rate: None,
        allowed_hosts: vec![String::from("gateway.internal"), String::from("*.svc.cluster.local")],
        operations: OperationSet::MESSAGES,
        clients: Constraint::OneOf(vec!["10.0.0.0/8".parse().expect("a network")]),
        trusted_proxies: None,
        required_header: None,
    };
    let admission = Admission::new(settings, 16 * 1024, 1024 * 1024);
    let last_host = LastHost::default();
    let address = "10.1.2.3:40000".parse().expect("an address");
    let forwarded_for = Some(HeaderValue::from_static("10.1.2.3"));
    let peer = Peer {
        listener: ListenerId::default(),
        address: Some(address),
        is_unix: false,
        is_tls: false,
        identity: None,
        forwarded_for,
    };
    let build_head = |parts: Parts| CallHead::new(parts, || HeaderValue::from_static(ID), peer.forwarded_for.clone());
    group.bench_function("build_head", |bencher| bencher.iter_batched(request, build_head, BatchSize::SmallInput));

    let head = build_head(request());
    let client = admission.caller_address(&peer, head.headers());
    assert!(admission.admit(&peer, &client, &head, &last_host).is_ok(), "the request is admitted");
    group.bench_function("admit", |bencher| {
        bencher.iter(|| admission.admit(black_box(&peer), &client, black_box(&head), &last_host).is_ok());
    });

    let bearer = Bearer::new(&"x".repeat(1500)).expect("a bearer");
    let host = HeaderValue::from_static("east.service.signalr.net");
    let mut wire = Vec::with_capacity(4096);
    group.bench_function("to_upstream", |bencher| {
        bencher.iter(|| {
            wire.clear();
            black_box(&head).write_upstream(&host, &bearer, &mut |name, value| {
                wire.extend_from_slice(name.as_str().as_bytes());
                wire.extend_from_slice(value.as_bytes());
            });
            black_box(wire.len())
        });
    });

    let id = HeaderValue::from_static(ID);
    group.bench_function("to_downstream", |bencher| {
        let rewrite = |mut headers: HeaderMap| {
            headers::to_downstream(&mut headers, &id, "https://east.service.signalr.net", || {
                Some(String::from("http://localhost:8080"))
            });
            headers
        };
        bencher.iter_batched(response, rewrite, BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, headers_of_a_call);
criterion_main!(benches);
