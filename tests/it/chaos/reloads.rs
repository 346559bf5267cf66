//! Random reloads under load: listeners, endpoints and routes are added, removed and renamed, and some configurations
//! are invalid. In every configuration, the calls of a hub belong to one tenant, and so do all calls on the
//! listener `internal`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use http::header::CONTENT_TYPE;
use signalr_gateway::sandbox::{Entry, GatewayConfig, TENANT_B, TENANT_C};

use super::calls::digest;
use super::{number, print};
use crate::support::{Caller, HarnessBuilder, Process, Response, request, wait_until, with_timeout};

/// The listener and hub of a caller's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    /// The listener that always exists; the hub belongs to `east`.
    HubOfEast,
    /// The same listener; the hub belongs to `west`, which does not always exist.
    HubOfWest,
    /// A listener that does not always exist. All of its calls are for `west`, whatever their hub.
    Internal,
}

impl Destination {
    fn hub(self) -> &'static str {
        match self {
            Self::HubOfEast | Self::Internal => "easthub",
            Self::HubOfWest => "westhub",
        }
    }

    fn endpoint(self) -> &'static str {
        match self {
            Self::HubOfEast => "east",
            Self::HubOfWest | Self::Internal => "west",
        }
    }
}

#[derive(Debug)]
struct CallResult {
    id: String,
    destination: Destination,
    digest: String,
    response: Option<Response>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_reloads_under_load_never_send_a_call_to_another_tenant() {
    let seed = number("CHAOS_SEED").unwrap_or(5);
    let duration = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(10));
    print(&format!("replay: CHAOS_SEED={seed} CHAOS_SECONDS={} cargo test --test it chaos", duration.as_secs()));
    let mut rng = Rng::with_seed(seed);
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let socket = builder.folder.path().join("internal.sock");
    let base = builder.sandbox.gateway_config(&GatewayConfig::default());
    std::fs::write(&files.config, configuration(&base, &socket, &mut rng)).unwrap();
    let process = Process::start_gateway(&files.config, &[]).await;
    process.wait_until_credentials_are("ready").await;

    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..9)
        .map(|number| {
            let destination = [Destination::HubOfEast, Destination::HubOfWest, Destination::Internal][number % 3];
            let (gateway, socket, is_over) = (process.listener(), socket.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut results = Vec::new();
                let mut caller = None;
                while !is_over.load(Ordering::Relaxed) {
                    if caller.is_none() {
                        caller = match destination {
                            Destination::Internal => connect(&socket).await,
                            Destination::HubOfEast | Destination::HubOfWest => Some(Caller::connect(gateway).await),
                        };
                    }
                    match &mut caller {
                        Some(connected) => {
                            let call = call(connected, destination, format!("{number}-{}", results.len())).await;
                            if call.response.is_none() || connected.is_closed() {
                                caller = None;
                            }
                            results.push(call);
                        }
                        None => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
                results
            })
        })
        .collect();

    let began = Instant::now();
    let mut reloads = 0.0;
    while began.elapsed() < duration {
        let text = if rng.u8(..4) == 0 { invalid(&base, &mut rng) } else { configuration(&base, &socket, &mut rng) };
        std::fs::write(&files.config, text).unwrap();
        process.hang_up().await;
        reloads = wait_until("the configuration is read", async || {
            let count = process.metrics().await.sum("config_reloads_total", &[]);
            (count > reloads).then_some(count)
        })
        .await;
        tokio::time::sleep(Duration::from_millis(rng.u64(..200))).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let mut results = Vec::new();
    for caller in callers {
        results.extend(with_timeout("the end of a caller", caller).await.unwrap());
    }
    check(&builder, &results);
    let rejected = process.metrics().await.sum("config_reloads_total", &[("result", "failure")]);
    print(&format!("{} calls over {reloads} reloads, {rejected} of them rejected", results.len()));
    assert!(rejected > 0.0 && results.len() > 100, "too few calls or rejected reloads");
}

async fn connect(socket: &Path) -> Option<Caller> {
    // The listener may be removed during the connect.
    tokio::net::UnixStream::connect(socket).await.ok()?;
    Some(Caller::connect_unix(socket).await)
}

async fn call(caller: &mut Caller, destination: Destination, id: String) -> CallResult {
    let body = format!("{{\"target\":\"t\",\"arguments\":[\"{id}\"]}}");
    let digest = digest(&body);
    let request = request("POST", &format!("/api/hubs/{}/:send?api-version=2024-12-01", destination.hub()))
        .header("x-request-id", &id);
    let response = caller.try_send(request.header(CONTENT_TYPE, "application/json"), body).await.ok();
    CallResult { id, destination, digest, response }
}

/// Returns a valid configuration: the calls of each hub go to its own tenant, with random names of endpoints and routes.
fn configuration(base: &str, socket: &Path, rng: &mut Rng) -> String {
    let (has_west, has_internal) = (rng.u8(..4) > 0, rng.bool());
    let renamed = |name: &str, rng: &mut Rng| format!("{name}-{}", rng.u8(..3));
    let (east, west) = (renamed("e", rng), renamed("w", rng));
    let mut tables: Vec<String> = base.split("\n\n").map(str::to_owned).collect();
    tables.retain(|table| has_west || !(table.contains("[endpoints.west]") || table.contains("[credentials.west]")));
    let mut text = tables.join("\n\n").replace("[endpoints.east]", &format!("[endpoints.{east}]"));
    text = text.replace("[endpoints.west]", &format!("[endpoints.{west}]"));
    let mut routes = vec![route(&renamed("r", rng), "hub = \"easthub\"", &east)];
    if has_west {
        routes.push(route(&renamed("s", rng), "hub = \"westhub\"", &west));
    }
    rng.shuffle(&mut routes);
    if has_internal {
        text = format!("{text}\n[listeners.internal]\nbind = \"unix:{}\"\n", socket.display());
        // Without `west`, its calls must not reach `east`.
        let hub = if has_west { String::new() } else { ", hub = \"nobody\"".to_owned() };
        let endpoint = if has_west { &west } else { &east };
        routes.insert(0, route("internal", &format!("listener = \"internal\"{hub}"), endpoint));
        for route in &mut routes[1..] {
            *route = route.replace("match = { ", "match = { listener = \"default\", ");
        }
    }
    text + "\n" + &routes.concat()
}

fn route(name: &str, condition: &str, endpoint: &str) -> String {
    format!("\n[[routes]]\nname = \"{name}\"\nmatch = {{ {condition} }}\nendpoints = [\"{endpoint}\"]\n")
}

/// Returns an invalid configuration that would send calls to another tenant if it were accepted.
fn invalid(base: &str, rng: &mut Rng) -> String {
    let wrong = match rng.u8(..4) {
        0 => route("r", "listener = \"interal\"", "west"),
        1 => route("r", "hub = \"easthub\"", "wset"),
        2 => route("r", "hub = \"*\"", "west") + "\n[[routes]\n",
        _ => route("r", "hub = \"*\"", "west") + "\n[listeners.default2]\nbind = \"unix:/nonexistent/folder/socket\"\n",
    };
    format!("{base}\n{wrong}")
}

fn check(builder: &HarnessBuilder, results: &[CallResult]) {
    let mut entries: std::collections::HashMap<String, Vec<(&str, Entry)>> = std::collections::HashMap::new();
    for endpoint in builder.sandbox.endpoints() {
        let tenant = if endpoint.name() == "east" { TENANT_B } else { TENANT_C };
        for entry in endpoint.server.journal().entries() {
            let Some(authorization) = &entry.authorization else {
                assert_eq!(entry.path(), "/api/health", "no token: {entry:#?}");
                continue;
            };
            assert_eq!(authorization.claims["tid"], tenant, "{} received another tenant's token", endpoint.name());
            let id = entry.header("x-request-id").unwrap_or_default().to_owned();
            entries.entry(id).or_default().push((endpoint.name(), entry));
        }
    }
    for call in results {
        let arrived = entries.get(&call.id).map_or(&[][..], Vec::as_slice);
        let is_expected = |(endpoint, entry): &(&str, Entry)| {
            *endpoint == call.destination.endpoint() && entry.complete && entry.body_sha256 == call.digest
        };
        assert!(arrived.len() <= 1 && arrived.iter().all(is_expected), "{call:#?} arrived as {arrived:#?}");
        match &call.response {
            Some(response) if response.status == 202 => assert_eq!(arrived.len(), 1, "{call:#?} did not arrive"),
            Some(response) => {
                let (status, kind) = response.gateway_error();
                let may_be_removed =
                    call.destination.endpoint() == "west" && (status, kind.as_str()) == (404, "no_route");
                assert!(may_be_removed && arrived.is_empty(), "{call:#?} arrived as {arrived:#?}");
            }
            None => assert_eq!(call.destination, Destination::Internal, "{call:#?} got no response"),
        }
    }
}
