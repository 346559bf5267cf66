//! Random faults.

use std::time::Duration;

use fastrand::Rng;
use signalr_gateway::sandbox::{Fault, FaultKind, Sandbox, Server};

/// Returns the servers that have faults.
fn faulty_servers(sandbox: &Sandbox) -> [&Server; 4] {
    let endpoint = |name| &sandbox.endpoint(name).unwrap().server;
    [endpoint("east"), endpoint("west"), sandbox.entra(), sandbox.imds()]
}

/// Sets random faults on some servers, waits, and clears them.
pub(super) async fn round(sandbox: &Sandbox, rng: &mut Rng) {
    let [east, west, entra, imds] = faulty_servers(sandbox);
    for endpoint in [east, west] {
        match rng.u8(..10) {
            0..3 => {}
            3 => endpoint.faults().refuse().await,
            _ => {
                for _ in 0..rng.u8(1..=3) {
                    endpoint.faults().set(endpoint_fault(rng));
                }
            }
        }
    }
    for issuer in [entra, imds] {
        match rng.u8(..10) {
            0..6 => {}
            6 => issuer.faults().refuse().await,
            _ => issuer.faults().set(Fault::times(rng.u32(1..4), issuer_fault(rng))),
        }
    }
    tokio::time::sleep(Duration::from_millis(rng.u64(100..700))).await;
    clear(sandbox).await;
    // A restart that ends before any timeout.
    if rng.u8(..4) == 0 {
        let endpoint = if rng.bool() { east } else { west };
        endpoint.faults().refuse().await;
        endpoint.faults().clear().await;
    }
}

pub(super) async fn clear(sandbox: &Sandbox) {
    for server in faulty_servers(sandbox) {
        server.faults().clear().await;
    }
}

fn endpoint_fault(rng: &mut Rng) -> Fault {
    let after = |status, rng: &mut Rng| {
        if rng.u8(..3) > 0 {
            FaultKind::status(status)
        } else {
            FaultKind::status_after(status, Duration::from_secs(1))
        }
    };
    let kind = match rng.u8(..14) {
        0 => FaultKind::Delay { delay_ms: rng.u64(1..200) },
        // Rare, because each occurrence makes a caller wait long.
        1 => return Fault::times(1, FaultKind::Hang),
        2 => FaultKind::Reset,
        3 => FaultKind::ResetBeforeBody,
        4 => FaultKind::LoseAnswer,
        5 => FaultKind::BreakBody,
        6 | 7 => FaultKind::status(401),
        8 => FaultKind::status(408),
        9 => after(429, rng),
        10 => FaultKind::status(500),
        11 => FaultKind::html(502),
        12 => after(503, rng),
        _ => return Fault::times(1, FaultKind::Delay { delay_ms: 1000 }),
    };
    Fault { times: (rng.u8(..4) != 0).then(|| rng.u32(1..30)), ..Fault::always(kind) }
}

fn issuer_fault(rng: &mut Rng) -> FaultKind {
    match rng.u8(..7) {
        0 => FaultKind::Delay { delay_ms: rng.u64(1..500) },
        1 => FaultKind::Reset,
        2 => FaultKind::status_after(429, Duration::from_secs(1)),
        3 => FaultKind::status(500),
        4 => FaultKind::BreakBody,
        5 => FaultKind::Hang,
        _ => FaultKind::html(503),
    }
}
