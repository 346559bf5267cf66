//! What it costs to hold a request's headers against the rules and to rewrite them, both ways.
//!
//! Catches: a copy of a header's value (they are reference counts), names that are hashed where a comparison would do,
//! and admission rules that grow with what is configured. Every request pays all three.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use signalr_gateway::credential::{Bearer, CredentialKind, CredentialName, CredentialSettings, Credentials};
use signalr_gateway::endpoint::{
    Endpoint, EndpointName, EndpointRole, EndpointSettings, HealthSettings, HttpVersion, Origin, PoolSettings,
};
use signalr_gateway::metrics::Metrics;
use signalr_gateway::proxy::headers::Glance;
use signalr_gateway::proxy::{Admission, AdmissionSettings, headers};
use signalr_gateway::serve::Peer;
use signalr_gateway::signalr::OperationSet;

/// What the Management SDK sends with a broadcast.
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

/// What the service answers to it.
fn answer() -> HeaderMap {
    let lines = [
        ("content-length", "0"),
        ("date", "Mon, 23 Nov 2026 00:00:00 GMT"),
        ("strict-transport-security", "max-age=15724800; includeSubDomains"),
    ];
    lines.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).into_iter().collect()
}

fn endpoint() -> Endpoint {
    let control = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let metrics = Metrics::new().expect("metrics");
    let name = CredentialName::new("bearer");
    let kind = CredentialKind::TokenFile { path: PathBuf::from("never-read") };
    let settings = CredentialSettings { name: name.clone(), kind, object_id: None };
    let credentials = Credentials::build(&[settings], metrics.token(), control.handle()).expect("a credential");
    let settings = EndpointSettings {
        name: EndpointName::new("east"),
        origin: Origin { tls: false, host: String::from("localhost"), port: 8888 },
        credential: name.clone(),
        role: EndpointRole::Primary,
        ca_file: None,
        connect_timeout: Duration::from_secs(2),
        http_version: HttpVersion::Http1,
        max_requests: None,
        pool: PoolSettings { max_idle_per_worker: 1, idle_timeout: Duration::from_secs(60) },
        health: HealthSettings { failures: 5, pause: Duration::from_secs(5), probe_interval: Duration::from_secs(30) },
    };
    let bearer = credentials.get(&name).expect("the credential is there");
    Endpoint::build(&settings, bearer, metrics.endpoints()).expect("an endpoint")
}

fn rules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("headers");

    let settings = AdmissionSettings {
        listener: "default".to_owned(),
        max_requests: None,
        client_rate: None,
        allowed_hosts: vec![String::from("gateway.internal"), String::from("*.svc.cluster.local")],
        operations: OperationSet::MESSAGES,
        clients: vec!["10.0.0.0/8".parse().expect("a network")],
        required_header: None,
    };
    let admission = Admission::new(settings, 16 * 1024, 1024 * 1024);
    let address = "10.1.2.3:40000".parse().expect("an address");
    let forwarded_for = Some(HeaderValue::from_static("10.1.2.3"));
    let peer = Peer { listener: 0, address: Some(address), is_tls: false, forwarded_for };
    let parts = request();
    let admit = |peer: &Peer, parts: &Parts| admission.admit(peer, parts, &Glance::at(&parts.headers));
    assert!(admit(&peer, &parts).is_ok(), "the request passes");
    group.bench_function("admit", |bencher| bencher.iter(|| admit(black_box(&peer), black_box(&parts))));

    let endpoint = Arc::new(endpoint());
    let bearer = Bearer::new(&"x".repeat(1500)).expect("a bearer");
    let id = HeaderValue::from_static("4bf92f3577b34da6a3ce929d0e0e4736");
    let glance = Glance::at(&parts.headers);
    group.bench_function("to_upstream", |bencher| {
        let rewrite = |mut headers: HeaderMap| {
            headers::strip_request(&mut headers, &glance, &id, peer.forwarded_for.as_ref());
            headers::to_upstream(&mut headers, &endpoint, &bearer);
            headers
        };
        bencher.iter_batched(|| parts.headers.clone(), rewrite, BatchSize::SmallInput);
    });

    group.bench_function("to_downstream", |bencher| {
        let rewrite = |mut headers: HeaderMap| {
            headers::to_downstream(&mut headers, &id, endpoint.origin(), || {
                Some(String::from("http://localhost:8080"))
            });
            headers
        };
        bencher.iter_batched(answer, rewrite, BatchSize::SmallInput);
    });
    group.finish();
}

criterion_group!(benches, rules);
criterion_main!(benches);
