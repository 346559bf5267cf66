//! Random faults of every kind at once. Throughout: a message answered 2xx arrives exactly once at each endpoint of its
//! route, no message arrives twice, callers see only documented errors, and an endpoint without faults is not affected.
//! A call that its caller did not finish never arrives complete, and no endpoint receives another tenant's token.
//!
//! At random, two endpoints and Entra refuse connections, delay, reset, throttle and restart, while callers send numbered
//! calls to routes with every `pick`. A third endpoint, with its own credential, has no faults. The random seed is
//! fixed, but timing is not reproducible.
//!
//! `CHAOS_SECONDS` is the duration (10 by default), `CHAOS_SEED` another random seed.

mod calls;
mod check;
mod faults;
mod misbehaving_callers;
mod reloads;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signalr_gateway::sandbox::{CredentialChoice, EndpointSettings, SandboxSettings, TENANT_B};

use crate::support::{Harness, HarnessBuilder, wait_until, with_timeout};
use calls::{Calls, Clients, Outcome};
use check::Tally;
use misbehaving_callers::{BrokenCall, MisbehavingCaller};

const ROUTES: &str = r#"
[[routes]]
name = "set-up-east"
match = { header = { name = "x-to", value = "east" } }
endpoints = ["east"]

[[routes]]
name = "set-up-west"
match = { header = { name = "x-to", value = "west" } }
endpoints = ["west"]

[[routes]]
name = "both"
match = { hub = "both" }
pick = "all"
endpoints = ["east", "west"]

[[routes]]
name = "any"
match = { hub = "any" }
pick = "all"
policy = "any"
endpoints = ["east", "west"]

[[routes]]
name = "first"
match = { hub = "first" }
endpoints = ["east", "west"]

[[routes]]
name = "weighted"
match = { hub = "weighted" }
pick = "weighted"
endpoints = ["east", { name = "west", weight = 3 }]

[[routes]]
name = "north"
match = { hub = "north" }
endpoints = ["north"]
"#;

/// The number of callers, each with one call at a time.
const CALLERS: u64 = 10;
/// The number of callers that disconnect, do not read or are slow.
const MISBEHAVING_CALLERS: u64 = 3;
/// The length of an epoch. Results are kept in memory until they are checked at its end.
const EPOCH: Duration = Duration::from_secs(5);
/// How much longer than `CHAOS_SECONDS` a run may take until every relevant outcome has occurred.
const EXTRA_TIME: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_messages_arrive_once_under_random_faults() {
    let seed = number("CHAOS_SEED").unwrap_or(5);
    let duration = Duration::from_secs(number("CHAOS_SECONDS").unwrap_or(10));
    print(&format!("replay: CHAOS_SEED={seed} CHAOS_SECONDS={} cargo test --test it chaos", duration.as_secs()));

    let harness = harness().await;
    let mut rng = fastrand::Rng::with_seed(seed);
    let clients = Clients::new(&harness).await;
    let mut tally = Tally::default();
    let began = Instant::now();
    for epoch in 0_u64.. {
        let (outcomes, broken_calls) = run(&harness, &clients, rng.fork(), epoch).await;
        tally.check(&clients, &harness, &outcomes, &broken_calls).await;
        if began.elapsed() >= duration && (tally.has_every_outcome() || began.elapsed() >= duration + EXTRA_TIME) {
            break;
        }
    }
    print(&format!("{tally}"));
    assert!(tally.has_every_outcome(), "some outcomes did not occur: {tally}");
}

/// Starts three endpoints. The third has TLS and tokens like the others, but shares nothing with them.
async fn harness() -> Harness {
    let mut settings = SandboxSettings::default();
    let bind = settings.entra;
    settings.endpoints.push(EndpointSettings {
        name: "north".to_owned(),
        bind,
        tls: true,
        tenant: TENANT_B.to_owned(),
        access_key: None,
    });
    let builder = HarnessBuilder::with(settings).await;
    // Short enough that tokens are refreshed while Entra has faults.
    builder.sandbox.directory().edit(|directory| directory.tokens.lifetime = Duration::from_secs(12));
    builder
        .start_gateway(|options| {
            options.config = options.config.clone().with_credential("north", CredentialChoice::AccessKey);
            options.append_toml(ROUTES);
            options.set("timeouts.try", "4s").set("timeouts.request", "8s");
            options.set("health.pause", "50ms").set("health.failures", "20").set("health.probe_interval", "2s");
        })
        .await
}

/// Runs one epoch: calls while faults are set and cleared, then the last calls without faults.
async fn run(
    harness: &Harness,
    clients: &Clients,
    mut rng: fastrand::Rng,
    epoch: u64,
) -> (Vec<Outcome>, Vec<BrokenCall>) {
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let calls = Calls::new(clients, rng.fork(), format!("{epoch}-{caller}"));
            tokio::spawn(calls.run(harness.listener("default"), Arc::clone(&is_over)))
        })
        .collect();
    let misbehaving_callers: Vec<_> = (0..MISBEHAVING_CALLERS)
        .map(|caller| {
            let caller =
                MisbehavingCaller::new(harness.listener("default"), rng.fork(), format!("bad-{epoch}-{caller}"));
            tokio::spawn(caller.run(Arc::clone(&is_over)))
        })
        .collect();
    let ends = Instant::now() + EPOCH;
    while Instant::now() < ends {
        faults::round(&harness.sandbox, &mut rng).await;
    }
    faults::clear(&harness.sandbox).await;
    is_over.store(true, Ordering::Relaxed);
    let mut outcomes = Vec::new();
    for caller in callers {
        outcomes.extend(with_timeout("the end of a caller", caller).await.unwrap());
    }
    let mut broken_calls = Vec::new();
    for caller in misbehaving_callers {
        let (broken, slow) = with_timeout("the end of a misbehaving caller", caller).await.unwrap();
        broken_calls.extend(broken);
        outcomes.extend(slow);
    }
    // The gateway also ends the calls that their callers abandoned.
    wait_until("no call is in flight", async || {
        (harness.metrics().await.sum("requests_in_flight", &[]) == 0.0).then_some(())
    })
    .await;
    (outcomes, broken_calls)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|err| panic!("{name}: {err}")))
}

#[expect(clippy::print_stderr, reason = "prints how to reproduce a failure, and the results")]
fn print(text: &str) {
    eprintln!("{text}");
}
