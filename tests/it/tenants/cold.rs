//! Token requests of tenants that are called for the first time.

use super::*;

const TENANTS: usize = 500;

/// The limit of token requests at once.
const AT_ONCE: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_cold_callers_cause_few_token_requests_at_once_and_no_failure() {
    let fleet = Fleet::start(TENANTS, "").await;
    let gateway = fleet.start_gateway(&delay_tokens(&fleet)).await;
    call_all(&gateway).await;
    assert_at_once(&fleet, &gateway).await;
    let total = fleet.sandbox.entra().journal().entries().len();
    // At the start, the credential may be tried with up to three tenants.
    assert!((TENANTS..=TENANTS + 3).contains(&total), "{total} token requests");
    assert_eq!(fleet.assert_own_tokens(), TENANTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_cold_tenants_of_a_federated_app_cause_one_request_to_the_metadata_service() {
    let fleet = Fleet::start(TENANTS, "").await;
    let gateway = fleet.start_federated_gateway(&delay_tokens(&fleet)).await;
    call_all(&gateway).await;
    assert_eq!(fleet.sandbox.imds().journal().received(), 1);
    assert_at_once(&fleet, &gateway).await;
    assert_eq!(fleet.assert_own_tokens(), TENANTS);
}

/// Delays token requests, which would hardly overlap otherwise. Returns the configuration by which [`AT_ONCE`] run at once.
fn delay_tokens(fleet: &Fleet) -> String {
    fleet.sandbox.entra().faults().set(Fault::always(FaultKind::Delay { delay_ms: 5 }));
    format!("[tokens]\nmax_requests = {AT_ONCE}\n")
}

/// Asserts that there were never more than [`AT_ONCE`] token requests. A busy machine may delay some for longer than they count.
async fn assert_at_once(fleet: &Fleet, gateway: &Process) {
    let peak = fleet.sandbox.entra().peak_requests();
    let slow = gateway.metrics().await.sum("token_requests_slow_total", &[]);
    let most = AT_ONCE + format!("{slow}").parse::<usize>().unwrap();
    assert!(peak <= most, "{peak} token requests at once, of which {slow} were slow");
}

/// Calls every tenant once, all at the same time.
async fn call_all(gateway: &Process) {
    for (name, response) in broadcast_to_all(gateway, names(1..=TENANTS)).await {
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
