//! Measures parsing the operation of a request.
//!
//! Catches an allocation (names are borrowed, and decoded only where a route needs them) and a search whose cost grows
//! with the number of operations. Every request pays this before it is routed.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::Method;
use signalr_gateway::signalr::Call;

/// From the shortest path to the longest. The last has a name with escapes.
const CALLS: [(&str, Method, &str); 4] = [
    ("hub_send", Method::POST, "/api/hubs/chat/:send"),
    ("user_send_v1", Method::POST, "/api/v1/hubs/chat/users/5f0b3c1e"),
    ("group_add_connection", Method::PUT, "/api/hubs/chat/groups/lobby/connections/tAOpuNvS4PWhxkhtSeSyiA0b3c1e0b3"),
    ("user_send_escaped", Method::POST, "/api/hubs/chat/users/caf%C3%A9%2F42/:send"),
];

fn grammar(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("grammar");
    for (name, method, path) in CALLS {
        assert!(Call::parse(&method, path, None).is_ok(), "{path} is a call");
        group.bench_function(name, |bencher| {
            bencher
                .iter(|| Call::parse(black_box(&method), black_box(path), black_box(Some("api-version=2024-12-01"))));
        });
    }
    group.bench_function("unknown_path", |bencher| {
        bencher.iter(|| Call::parse(black_box(&Method::GET), black_box("/index.html"), None));
    });
    group.finish();
}

criterion_group!(benches, grammar);
criterion_main!(benches);
