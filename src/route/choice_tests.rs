//! The order of endpoints for each `pick`, the stability and weights of hashing, and the endpoints that a caller may name.

use std::collections::BTreeMap;

use http::{HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::endpoint::EndpointName;
use crate::route::{
    HashKey, MatchSettings, RouteCaller, RouteEndpoint, RouteName, RouteSettings, Table, WhenUnavailable,
};
use crate::signalr::{Call, Policy};

/// Builds a table with one route whose endpoint indexes are those in `endpoints`.
fn table(pick: Pick, endpoints: &[(String, u32)], endpoint_header: bool) -> Table {
    let named = |(name, weight): &(String, u32)| RouteEndpoint { endpoint: EndpointName::new(name), weight: *weight };
    let settings = RouteSettings {
        name: RouteName::new("only"),
        matches: MatchSettings::default(),
        pick,
        when_unavailable: WhenUnavailable::default(),
        rate: None,
        endpoint_header: endpoint_header.then_some(ENDPOINT_HEADER),
        endpoints: endpoints.iter().map(named).collect(),
    };
    let names: Vec<_> = endpoints.iter().map(|(name, _)| EndpointName::new(name)).collect();
    Table::build(&[settings], &names, &["default"]).unwrap()
}

fn endpoints(weights: &[(&str, u32)]) -> Vec<(String, u32)> {
    weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

/// Returns the order of endpoints for a call.
fn order_of(table: &Table, target: &str, headers: &HeaderMap) -> Result<Vec<usize>, NamedEndpointError> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let call = Call::parse(&Method::POST, path, query).unwrap();
    let input = RouteInput {
        call: &call,
        headers,
        may_have_endpoint_header: true,
        listener: 0,
        client: None,
        caller: RouteCaller::default(),
    };
    let (_, route) = table.find(&input).unwrap();
    Ok(Choice::new(route, &input)?.order().collect())
}

fn order(table: &Table, target: &str) -> Vec<usize> {
    order_of(table, target, &HeaderMap::new()).unwrap()
}

fn group(number: u64) -> String {
    format!("/api/hubs/chat/groups/room-{number}/:send")
}

#[test]
fn first_keeps_the_configured_order() {
    let table = table(Pick::First, &endpoints(&[("west", 1), ("east", 9)]), false);
    assert_eq!(order(&table, "/api/hubs/chat/:send"), [0, 1]);
}

#[test]
fn weighted_follows_the_weights_and_returns_each_endpoint_once() {
    fastrand::seed(7);
    let table = table(Pick::Weighted, &endpoints(&[("east", 1), ("west", 3)]), false);
    let mut firsts = [0; 2];
    for _ in 0..4000 {
        let order = order(&table, "/api/hubs/chat/:send");
        assert_eq!(order.len(), 2);
        assert_ne!(order[0], order[1]);
        firsts[order[0]] += 1;
    }
    assert!((900..1100).contains(&firsts[0]), "{firsts:?}");
}

/// The expected orders were computed with another implementation of XXH64. A change would move the groups of every deployment.
#[test]
fn keys_keep_their_endpoints_from_version_to_version() {
    let names = endpoints(&[("east", 1), ("west", 1), ("north", 1), ("south", 1)]);
    let heavy = endpoints(&[("east", 1), ("west", 2), ("north", 5), ("south", 10)]);
    let orders = |endpoints: &[(String, u32)]| -> Vec<String> {
        let table = table(Pick::Hash(HashKey::Group), endpoints, false);
        let letter = |index: &usize| endpoints[*index].0.chars().next().unwrap();
        (0..8).map(|number| order(&table, &group(number)).iter().map(letter).collect()).collect()
    };
    assert_eq!(orders(&names), EQUAL);
    assert_eq!(orders(&heavy), HEAVY);
}

const EQUAL: [&str; 8] = ["enws", "swen", "esnw", "ewns", "wesn", "snew", "snew", "nswe"];
const HEAVY: [&str; 8] = ["senw", "swne", "esnw", "nswe", "swne", "snew", "snew", "nswe"];

#[test]
fn calls_with_the_same_key_have_the_same_order_and_calls_without_it_use_their_hub() {
    let names: Vec<_> = (0..32).map(|number| (format!("endpoint-{number}"), 1)).collect();
    let by = |key| table(Pick::Hash(key), &names, false);
    for (key, same, other) in [
        (HashKey::Hub, ["/api/hubs/chat/:send", "/api/v1/hubs/CHAT/groups/g"], "/api/hubs/chats/:send"),
        (
            HashKey::Group,
            ["/api/hubs/chat/groups/a%2Fb/:send", "/api/hubs/news/groups/a%2fb/:closeConnections"],
            "/api/hubs/chat/groups/A%2Fb/:send",
        ),
        (
            HashKey::User,
            ["/api/hubs/chat/users/ann/:send", "/api/hubs/chat/users/%61nn/:closeConnections"],
            "/api/hubs/chat/users/bob/:send",
        ),
        (
            HashKey::Connection,
            ["/api/hubs/chat/connections/c/:send", "/api/hubs/chat/connections/c/:invoke?x=1"],
            "/api/hubs/chat/connections/d/:send",
        ),
        (HashKey::Group, ["/api/hubs/chat/:send", "/api/hubs/Chat/users/ann/:send"], "/api/hubs/news/:send"),
    ] {
        let table = by(key.clone());
        let [one, two] = same.map(|target| order(&table, target));
        assert_eq!(one, two, "{key:?}");
        assert_ne!(one, order(&table, other), "{key:?}");
    }
    let table = by(HashKey::Header(HeaderName::from_static("x-tenant")));
    let with = |tenant| HeaderMap::from_iter([(HeaderName::from_static("x-tenant"), HeaderValue::from_static(tenant))]);
    let of = |target, tenant| order_of(&table, target, &with(tenant)).unwrap();
    assert_eq!(of("/api/hubs/chat/:send", "contoso"), of("/api/hubs/news/users/u/:send", "contoso"));
    assert_ne!(of("/api/hubs/chat/:send", "contoso"), of("/api/hubs/chat/:send", "fabrikam"));
}

#[test]
fn names_in_the_table_of_operations_are_those_in_the_paths() {
    for (method, target) in [
        (Method::GET, "/api/auth/accessKey"),
        (Method::POST, "/api/hubs/h/:send"),
        (Method::POST, "/api/hubs/h/:closeConnections"),
        (Method::POST, "/api/hubs/h/:execute"),
        (Method::POST, "/api/hubs/h/:generateToken"),
        (Method::HEAD, "/api/hubs/h/connections/c"),
        (Method::DELETE, "/api/hubs/h/connections/c"),
        (Method::POST, "/api/hubs/h/connections/c/:send"),
        (Method::POST, "/api/hubs/h/connections/c/:invoke"),
        (Method::DELETE, "/api/hubs/h/connections/c/groups"),
        (Method::POST, "/api/hubs/h/connections/c/streams/s/:send"),
        (Method::POST, "/api/hubs/h/connections/c/streams/s/:complete"),
        (Method::HEAD, "/api/hubs/h/groups/g"),
        (Method::POST, "/api/hubs/h/groups/g/:closeConnections"),
        (Method::POST, "/api/hubs/h/groups/g/:send"),
        (Method::GET, "/api/hubs/h/groups/g/connections"),
        (Method::PUT, "/api/hubs/h/groups/g/connections/c"),
        (Method::DELETE, "/api/hubs/h/groups/g/connections/c"),
        (Method::HEAD, "/api/hubs/h/users/u"),
        (Method::POST, "/api/hubs/h/users/u/:closeConnections"),
        (Method::POST, "/api/hubs/h/users/u/:send"),
        (Method::DELETE, "/api/hubs/h/users/u/groups"),
        (Method::HEAD, "/api/hubs/h/users/u/groups/g"),
        (Method::PUT, "/api/hubs/h/users/u/groups/g"),
        (Method::DELETE, "/api/hubs/h/users/u/groups/g"),
    ] {
        let call = Call::parse(&method, target, None).unwrap();
        let has = [HashKey::Hub, HashKey::Group, HashKey::User, HashKey::Connection]
            .map(|key| key.applies_to(call.operation));
        let names = [call.hub, call.group, call.user, call.connection].map(|name| name.is_some());
        assert_eq!(has, names, "{method} {target}");
    }
}

#[test]
fn caller_gets_only_the_endpoint_that_it_names() {
    let names = endpoints(&[("east", 1), ("west", 1), ("north", 1)]);
    let named = |name| HeaderMap::from_iter([(ENDPOINT_HEADER, HeaderValue::from_static(name))]);
    for pick in [Pick::First, Pick::Weighted, Pick::Hash(HashKey::Hub), Pick::All(Policy::All)] {
        let open = table(pick.clone(), &names, true);
        assert_eq!(order_of(&open, "/api/hubs/chat/:send", &named("west")), Ok(vec![1]), "{pick:?}");
        for invalid in ["", "West", "south", "east,west"] {
            let unknown = NamedEndpointError::unknown(&NamedBy::Header(ENDPOINT_HEADER), Some(invalid));
            assert_eq!(order_of(&open, "/api/hubs/chat/:send", &named(invalid)), Err(unknown), "{pick:?} {invalid}");
        }
        let mut twice = named("west");
        twice.append(ENDPOINT_HEADER, HeaderValue::from_static("west"));
        let unclear = NamedEndpointError::unknown(&NamedBy::Header(ENDPOINT_HEADER), None);
        assert_eq!(order_of(&open, "/api/hubs/chat/:send", &twice), Err(unclear), "{pick:?}");
        let closed = table(pick, &names, false);
        assert_eq!(order_of(&closed, "/api/hubs/chat/:send", &named("west")), Err(NamedEndpointError::NotAllowed));
        assert_eq!(order(&closed, "/api/hubs/chat/:send").len(), 3);
    }
}

/// Some endpoints of different names and weights.
fn some_endpoints() -> impl Strategy<Value = Vec<(String, u32)>> {
    let weights = prop_oneof![Just(1_u32), 1..10_u32, 1..1_000_000_u32];
    prop::collection::btree_map("[a-z][a-z0-9-]{0,12}", weights, 2..9)
        .prop_map(|endpoints: BTreeMap<String, u32>| endpoints.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A call can therefore be sent to any endpoint that is available.
    #[test]
    fn every_order_has_every_endpoint_once(endpoints in some_endpoints(), key: u64, pick in 0..4_usize) {
        let picks = [Pick::First, Pick::Weighted, Pick::Hash(HashKey::Group), Pick::All(Policy::All)];
        let mut order = order(&table(picks[pick].clone(), &endpoints, false), &group(key));
        order.sort_unstable();
        prop_assert_eq!(order, (0..endpoints.len()).collect::<Vec<_>>());
    }

    /// Removing an endpoint moves only its own keys, each to the endpoint that was next in its order.
    #[test]
    fn removing_an_endpoint_moves_only_its_keys(endpoints in some_endpoints(), removed: prop::sample::Index, from: u64) {
        let removed = removed.index(endpoints.len());
        let mut fewer = endpoints.clone();
        fewer.remove(removed);
        let before = table(Pick::Hash(HashKey::Group), &endpoints, false);
        let after = table(Pick::Hash(HashKey::Group), &fewer, false);
        for number in 0..200 {
            let target = group(from.wrapping_add(number));
            let name = |endpoints: &[(String, u32)], order: &[usize]| -> Vec<String> {
                order.iter().map(|index| endpoints[*index].0.clone()).collect()
            };
            let mut expected = name(&endpoints, &order(&before, &target));
            expected.retain(|name| *name != endpoints[removed].0);
            prop_assert_eq!(name(&fewer, &order(&after, &target)), expected);
        }
    }

    /// More weight for one endpoint moves keys to it and none between the others.
    #[test]
    fn more_weight_only_moves_keys_to_that_endpoint(endpoints in some_endpoints(), heavier: prop::sample::Index, from: u64) {
        let heavier = heavier.index(endpoints.len());
        let mut changed = endpoints.clone();
        changed[heavier].1 *= 3;
        let before = table(Pick::Hash(HashKey::Group), &endpoints, false);
        let after = table(Pick::Hash(HashKey::Group), &changed, false);
        for number in 0..200 {
            let target = group(from.wrapping_add(number));
            let (was, is) = (order(&before, &target)[0], order(&after, &target)[0]);
            prop_assert!(is == was || is == heavier, "{} {} {}", was, is, heavier);
        }
    }

    /// 1000 keys, within six standard deviations.
    #[test]
    fn shares_are_by_weight(endpoints in some_endpoints(), from: u64, is_random: bool) {
        let pick = if is_random { Pick::Weighted } else { Pick::Hash(HashKey::Group) };
        let table = table(pick, &endpoints, false);
        let mut shares = vec![0_u32; endpoints.len()];
        for number in 0..1000 {
            shares[order(&table, &group(from.wrapping_add(number)))[0]] += 1;
        }
        let total: f64 = endpoints.iter().map(|(_, weight)| f64::from(*weight)).sum();
        for ((name, weight), share) in endpoints.iter().zip(&shares) {
            let likelihood = f64::from(*weight) / total;
            let expected = 1000.0 * likelihood;
            let deviation = (expected * (1.0 - likelihood)).sqrt();
            let off = (f64::from(*share) - expected).abs();
            prop_assert!(off <= 6.0 * deviation + 3.0, "{} got {}, expected {} ± {}", name, share, expected, deviation);
        }
    }
}
