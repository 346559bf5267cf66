//! Reloads, refused tokens and throttling all at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

const TENANTS: usize = 300;

/// The tenants whose names never change.
const STABLE: usize = 200;

/// The number of concurrent callers.
const CALLERS: usize = 8;

/// The number of reloads.
const ROUNDS: u32 = 10;

/// Calls endpoints in turn until the storm has ended, and counts the calls that are accepted.
async fn call_until(listener: std::net::SocketAddr, number: usize, ended: Arc<AtomicBool>, accepted: Arc<AtomicUsize>) {
    let mut caller = Caller::connect(listener).await;
    // Each caller begins elsewhere, and renamed endpoints are called by both names.
    for call in (number * TENANTS / CALLERS).. {
        if ended.load(Ordering::SeqCst) {
            return;
        }
        let tenant = call % TENANTS + 1;
        let name = if tenant > STABLE && call % 2 == 0 { format!("r{tenant}") } else { format!("t{tenant}") };
        let response = broadcast(&mut caller, &name).await;
        match response.header("signalr-gateway-error") {
            None => assert!(matches!(response.status.as_u16(), 202 | 401), "{name}: {response:?}"),
            Some("no_endpoint" | "endpoint_disabled") => assert!(tenant > STABLE, "{name}: {response:?}"),
            Some(kind) => assert_eq!(kind, "token_unavailable", "{name}: {response:?}"),
        }
        accepted.fetch_add(usize::from(response.status == 202), Ordering::SeqCst);
    }
}

/// Changes the tenants above [`STABLE`] in a way that depends on the round: renames, swaps, suspends, removes and adds.
fn change_names(fleet: &Fleet, round: u32) {
    for number in STABLE + 1..=TENANTS {
        let (old, new) = (format!("t{number}"), format!("r{number}"));
        for name in [&old, &new] {
            if fleet.file(name).exists() {
                fleet.remove_tenant(name);
            }
        }
        // With its neighbour, an endpoint gets the other's tenant and host.
        let neighbour = if number % 2 == 0 { number - 1 } else { number + 1 };
        match (u32::try_from((number - 1) / 2).unwrap() + round) % 5 {
            0 => fleet.write_tenant(&old, &old),
            1 => fleet.write_tenant(&new, &old),
            2 => fleet.write_tenant(&old, &format!("t{neighbour}")),
            3 => fleet.suspend_tenant(&old),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_of_a_tenant_reaches_the_endpoint_of_another() {
    let fleet = Fleet::start(TENANTS, "").await;
    let gateway = fleet.start_gateway("").await;
    let (ended, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| tokio::spawn(call_until(gateway.listener(), number, Arc::clone(&ended), Arc::clone(&accepted))))
        .collect();
    for round in 1..=ROUNDS {
        // Endpoints refuse tokens; some do so again for the next.
        for number in (1..=TENANTS).skip(round as usize).step_by(3) {
            fleet
                .set_fault(&format!("t{number}"), Fault::times(1 + u32::from(number % 5 == 0), FaultKind::status(401)));
        }
        let throttled = FaultKind::status_after(429, Duration::from_secs(1));
        fleet.sandbox.entra().faults().set(Fault::times(5, throttled));
        fleet.sandbox.directory().edit(|directory| {
            for tenant in &mut directory.tenants {
                tenant.throttled =
                    tenant.domain.ends_with(&format!("{round}.onmicrosoft.com")).then_some(Duration::from_secs(1));
            }
        });
        change_names(&fleet, round);
        gateway.hang_up().await;
        gateway.wait_for_reloads("success", f64::from(round)).await;
    }
    wait_until("a call is accepted", async || (accepted.load(Ordering::SeqCst) > 0).then_some(())).await;
    for endpoint in fleet.sandbox.endpoints() {
        endpoint.server.faults().clear().await;
    }
    fleet.sandbox.entra().faults().clear().await;
    fleet.sandbox.directory().edit(|directory| directory.tenants.iter_mut().for_each(|tenant| tenant.throttled = None));
    ended.store(true, Ordering::SeqCst);
    for caller in callers {
        caller.await.unwrap();
    }

    // Every tenant is served once the storm is over.
    let mut caller = Caller::connect(gateway.listener()).await;
    for name in names(1..=STABLE) {
        let mut last = None;
        while last.as_ref().is_none_or(|response: &Response| response.status != 202) {
            let pause = last.and_then(|response| response.header("retry-after").map(|after| after.parse().unwrap()));
            tokio::time::sleep(Duration::from_secs(pause.unwrap_or(0))).await;
            last = Some(broadcast(&mut caller, &name).await);
        }
    }
    assert!(fleet.assert_own_tokens() >= accepted.load(Ordering::SeqCst) + STABLE);
    for number in 1..=TENANTS {
        // A stable tenant gets its own hubs only, any other those of its former names and of its neighbour.
        let neighbour = if number % 2 == 0 { number - 1 } else { number + 1 };
        let own = [format!("/api/hubs/t{number}_chat/"), format!("/api/hubs/r{number}_chat/")];
        let allowed = [own[0].clone(), own[1].clone(), format!("/api/hubs/t{neighbour}_chat/")];
        let allowed = if number <= STABLE { &allowed[..1] } else { &allowed[..] };
        for entry in fleet.arrivals(&format!("t{number}")) {
            assert!(allowed.iter().any(|path| entry.path().starts_with(path)), "t{number} got {entry:?}");
        }
    }
}
