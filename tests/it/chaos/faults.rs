//! Random faults.

use std::time::Duration;

use fastrand::Rng;
use signalr_gateway::sandbox::{Fault, FaultKind, Sandbox, Server};

/// Returns the servers that have faults.
fn victims(sandbox: &Sandbox) -> [&Server; 4] {
    let endpoint = |name| &sandbox.endpoint(name).unwrap().server;
    [endpoint("east"), endpoint("west"), sandbox.entra(), sandbox.imds()]
}

/// Gives some servers faults for a while, then clears them.
pub(super) async fn round(sandbox: &Sandbox, dice: &mut Rng) {
    let [east, west, entra, imds] = victims(sandbox);
    for endpoint in [east, west] {
        match dice.u8(..10) {
            0..3 => {}
            3 => endpoint.faults().refuse().await,
            _ => {
                for _ in 0..dice.u8(1..=3) {
                    endpoint.faults().set(of_endpoint(dice));
                }
            }
        }
    }
    for issuer in [entra, imds] {
        match dice.u8(..10) {
            0..6 => {}
            6 => issuer.faults().refuse().await,
            _ => issuer.faults().set(Fault::times(dice.u32(1..4), of_issuer(dice))),
        }
    }
    tokio::time::sleep(Duration::from_millis(dice.u64(100..700))).await;
    clear(sandbox).await;
    // A restart that ends before any timeout.
    if dice.u8(..4) == 0 {
        let endpoint = if dice.bool() { east } else { west };
        endpoint.faults().refuse().await;
        endpoint.faults().clear().await;
    }
}

pub(super) async fn clear(sandbox: &Sandbox) {
    for server in victims(sandbox) {
        server.faults().clear().await;
    }
}

fn of_endpoint(dice: &mut Rng) -> Fault {
    let after = |status, dice: &mut Rng| {
        if dice.u8(..3) > 0 {
            FaultKind::status(status)
        } else {
            FaultKind::status_after(status, Duration::from_secs(1))
        }
    };
    let kind = match dice.u8(..14) {
        0 => FaultKind::Delay { delay_ms: dice.u64(1..200) },
        // Rare, because each occurrence makes a caller wait long.
        1 => return Fault::times(1, FaultKind::Hang),
        2 => FaultKind::Reset,
        3 => FaultKind::ResetBeforeBody,
        4 => FaultKind::LoseAnswer,
        5 => FaultKind::BreakBody,
        6 | 7 => FaultKind::status(401),
        8 => FaultKind::status(408),
        9 => after(429, dice),
        10 => FaultKind::status(500),
        11 => FaultKind::html(502),
        12 => after(503, dice),
        _ => return Fault::times(1, FaultKind::Delay { delay_ms: 1000 }),
    };
    Fault { times: (dice.u8(..4) != 0).then(|| dice.u32(1..30)), ..Fault::always(kind) }
}

fn of_issuer(dice: &mut Rng) -> FaultKind {
    match dice.u8(..7) {
        0 => FaultKind::Delay { delay_ms: dice.u64(1..500) },
        1 => FaultKind::Reset,
        2 => FaultKind::status_after(429, Duration::from_secs(1)),
        3 => FaultKind::status(500),
        4 => FaultKind::BreakBody,
        5 => FaultKind::Hang,
        _ => FaultKind::html(503),
    }
}
