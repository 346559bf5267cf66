//! Token requests of tenants that are called for the first time.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cold_callers_cause_few_token_requests_at_once_and_no_failure() {
    const TENANTS: usize = 1000;
    const AT_ONCE: usize = 8;
    let fleet = Fleet::start(TENANTS, "").await;
    let gateway = fleet.start_gateway(&delay_tokens(&fleet, AT_ONCE)).await;
    call_all(&gateway, TENANTS).await;
    let peak = fleet.sandbox.entra().peak_requests();
    // At the start, the credential may be tried with up to three tenants.
    assert!(peak <= AT_ONCE, "{peak} token requests at once");
    let total = fleet.sandbox.entra().journal().received();
    assert!((1000..=1003).contains(&total), "{total} token requests");
    assert_eq!(fleet.assert_own_tokens(), TENANTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cold_tenants_of_a_federated_app_cause_one_request_to_the_metadata_service() {
    const TENANTS: usize = 1000;
    const AT_ONCE: usize = 8;
    let fleet = Fleet::start(TENANTS, "").await;
    let gateway = fleet.start_federated_gateway(&delay_tokens(&fleet, AT_ONCE)).await;
    call_all(&gateway, TENANTS).await;
    assert_eq!(fleet.sandbox.imds().journal().received(), 1);
    let peak = fleet.sandbox.entra().peak_requests();
    assert!(peak <= AT_ONCE, "{peak} token requests at once");
    assert_eq!(fleet.assert_own_tokens(), TENANTS);
}

/// Delays token requests, which would hardly overlap otherwise. Returns the configuration by which this many run at once.
fn delay_tokens(fleet: &Fleet, at_once: usize) -> String {
    fleet.sandbox.entra().faults().set(Fault::always(FaultKind::Delay { delay_ms: 5 }));
    format!("[tokens]\nmax_requests = {at_once}\n[limits]\nqueue = 1000\nqueue_time = \"20s\"\n")
}

/// Calls every tenant once, all at the same time.
async fn call_all(gateway: &Process, tenants: usize) {
    for (name, response) in broadcast_to_all(gateway, names(1..=tenants)).await {
        assert_eq!(response.status, 202, "{name}: {response:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_without_calls_has_no_token_request_and_no_connection() {
    let fleet = Fleet::start(300, "").await;
    let gateway = fleet.start_gateway("").await;
    for (name, response) in broadcast_to_all(&gateway, names([1, 300])).await {
        assert_eq!(response.status, 202, "{name}: {response:?}");
    }
    let others = names(2..=299).filter(|name| fleet.token_requests(name) > 0).count();
    assert!(others <= 3, "{others} tenants without calls have token requests");
    for name in names(2..=299) {
        assert_eq!(fleet.sandbox.endpoint(&name).unwrap().server.journal().received(), 0, "{name} was called");
    }
}
