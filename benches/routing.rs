//! Measures finding the route of a call among up to 10,000 routes, and choosing among its endpoints.
//!
//! Catches a linear search where a lookup is possible. Routes that name their hubs, or what the hubs begin with, must cost at
//! most 300 ns at 10,000 routes, for calls of 1,000 hubs in turn; routes with other patterns are searched, and must stay
//! cheap per route. A route whose calls name their endpoint must cost the same with any number of endpoints. Choosing by hash must take a few hundred nanoseconds at most and must not allocate.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use signalr_gateway::endpoint::EndpointName;
use signalr_gateway::route::{
    Case, Choice, Constraint, HashKey, MatchSettings, Pattern, Pick, RouteCaller, RouteEndpoint, RouteInput, RouteName,
    RouteSettings, Table, WhenUnavailable,
};
use signalr_gateway::signalr::Call;

const COUNTS: [usize; 3] = [1, 20, 200];
/// The number of routes that are found by a lookup.
const MANY: usize = 10_000;
/// The number of hubs whose calls arrive in turn. Coprime to the stride between them.
const HUBS: usize = 1_000;
const STRIDE: usize = 7_919;

/// Builds a table of `count` routes, each for one hub. `hub` returns the hub of a route from its number.
fn table(count: usize, hub: impl Fn(usize) -> String) -> Table {
    let endpoint = EndpointName::new("east");
    let route = |number| RouteSettings {
        name: RouteName::new(&format!("route-{number}")),
        matches: MatchSettings {
            hubs: Constraint::OneOf(vec![Pattern::new(&hub(number), Case::Insensitive)]),
            ..MatchSettings::default()
        },
        pick: Pick::First,
        when_unavailable: WhenUnavailable::Send,
        endpoint_header: None,
        rate: None,
        endpoints: vec![RouteEndpoint { endpoint: endpoint.clone(), weight: 1 }],
    };
    let routes: Vec<_> = (0..count).map(route).collect();
    Table::build(&routes, &[endpoint], &["default"]).expect("every name exists")
}

fn routing(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    let mut group = criterion.benchmark_group("routing");
    for (form, hub, counts) in [
        ("exact", (|number| format!("hub{number}")) as fn(usize) -> String, &[1, 20, 200, MANY][..]),
        ("prefix", |number| format!("hub{number}_*"), &[1, 20, 200, MANY]),
        ("pattern", |number| format!("*hub{number}"), &COUNTS),
    ] {
        for count in counts {
            let table = table(*count, hub);
            let numbers: Vec<usize> = (0..HUBS.min(*count)).map(|turn| (turn * STRIDE) % count).collect();
            let path = |number: &usize| format!("/api/hubs/{}/:send", hub(*number).replace('*', "room"));
            let paths: Vec<String> = numbers.iter().map(path).collect();
            let parse = |path| Call::parse(&Method::POST, path, None).expect("the path is a call");
            let calls: Vec<Call<'_>> = paths.iter().map(String::as_str).map(parse).collect();
            let input = |call| RouteInput {
                call,
                headers: &headers,
                may_have_endpoint_header: false,
                listener: 0,
                client: None,
                caller: RouteCaller::default(),
            };
            for (call, number) in calls.iter().zip(&numbers) {
                assert_eq!(table.find(&input(call)).map(|(index, _)| index), Some(*number));
            }
            let mut calls = calls.iter().cycle();
            group.bench_function(BenchmarkId::new(form, count), |bencher| {
                bencher.iter(|| {
                    let input = input(black_box(calls.next()?));
                    table.find(&input).and_then(|(_, route)| Choice::new(route, &input).ok()?.order().next())
                });
            });
        }
    }
    group.finish();
}

fn choosing(criterion: &mut Criterion) {
    let (headers, path) = (HeaderMap::new(), "/api/hubs/chat/groups/room%2F12345/:send");
    let call = Call::parse(&Method::POST, path, None).expect("the path is a call");
    let input = RouteInput {
        call: &call,
        headers: &headers,
        may_have_endpoint_header: false,
        listener: 0,
        client: None,
        caller: RouteCaller::default(),
    };
    let endpoints: Vec<_> = ["east", "west", "north", "south"].map(EndpointName::new).into();
    let mut group = criterion.benchmark_group("choosing");
    for pick in [Pick::First, Pick::Weighted, Pick::Hash(HashKey::Group)] {
        let settings = RouteSettings {
            name: RouteName::new("only"),
            matches: MatchSettings::default(),
            pick: pick.clone(),
            when_unavailable: WhenUnavailable::Send,
            endpoint_header: None,
            rate: None,
            endpoints: endpoints.iter().map(|name| RouteEndpoint { endpoint: name.clone(), weight: 1 }).collect(),
        };
        let table = Table::build(&[settings], &endpoints, &["default"]).expect("every name exists");
        let (_, route) = table.find(&input).expect("the route matches every call");
        group.bench_function(pick.as_str(), |bencher| {
            bencher.iter(|| Choice::new(route, black_box(&input)).ok()?.order().next());
        });
    }
    group.finish();
}

/// Finding the endpoint that the hub names, among up to 10,000.
fn naming(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    let mut group = criterion.benchmark_group("naming");
    for count in [1, 200, MANY] {
        let endpoints: Vec<_> = (0..count).map(|number| EndpointName::new(&format!("tenant{number}"))).collect();
        let pattern = Pattern::with_capture("{endpoint}_*", Case::Insensitive).expect("the name ends at `_`");
        let settings = RouteSettings {
            name: RouteName::new("tenants"),
            matches: MatchSettings { hubs: Constraint::OneOf(vec![pattern]), ..MatchSettings::default() },
            pick: Pick::First,
            when_unavailable: WhenUnavailable::Send,
            endpoint_header: None,
            rate: None,
            endpoints: Vec::new(),
        };
        let table = Table::build(&[settings], &endpoints, &["default"]).expect("calls name their endpoint");
        let numbers = (0..HUBS.min(count)).map(|turn| (turn * STRIDE) % count);
        let paths: Vec<String> = numbers.map(|number| format!("/api/hubs/Tenant{number}_chat/:send")).collect();
        let parse = |path| Call::parse(&Method::POST, path, None).expect("the path is a call");
        let calls: Vec<Call<'_>> = paths.iter().map(String::as_str).map(parse).collect();
        let mut calls = calls.iter().cycle();
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| {
                let call = black_box(calls.next()?);
                let input = RouteInput {
                    call,
                    headers: &headers,
                    may_have_endpoint_header: false,
                    listener: 0,
                    client: None,
                    caller: RouteCaller::default(),
                };
                table.find(&input).and_then(|(_, route)| Choice::new(route, &input).ok()?.order().next())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, routing, choosing, naming);
criterion_main!(benches);
