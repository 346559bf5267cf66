//! The faults of one tenant harm no other.

use super::*;

/// Returns the numbers of tenants from 1 to `count` without some.
fn others(count: usize, without: std::ops::RangeInclusive<usize>) -> impl Iterator<Item = String> {
    names((1..=count).filter(move |number| !without.contains(number)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_app_is_not_provisioned_harms_no_other() {
    let fleet = Fleet::start(300, "not_provisioned = [7]\n").await;
    let gateway = fleet.start_gateway("").await;
    let mut insistent = Caller::connect(gateway.listener()).await;
    let insist = async {
        for _ in 0..50 {
            broadcast(&mut insistent, "t7").await.assert_gateway_error(503, "token_unavailable");
        }
    };
    let ((), responses) = tokio::join!(insist, broadcast_to_all(&gateway, others(300, 7..=7)));
    for (name, response) in responses {
        assert_eq!(response.status, 202, "{name}: {response:?}");
    }
    // A refusal that does not pass by itself is not asked about at each call.
    let asked = fleet.token_requests("t7");
    assert!(asked <= 10, "{asked} token requests for a tenant without the application");
    assert_eq!(fleet.assert_own_tokens(), 299);
    let ready = Caller::connect(gateway.admin()).await.call("GET", "/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    let health = Caller::connect(gateway.listener()).await.call("GET", "/api/health").await;
    assert_eq!(health.status, 200, "{health:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_tenant_harms_no_other() {
    let fleet = Fleet::start(300, "throttled = [7]\nretry_after = \"5m\"\n").await;
    let gateway = fleet.start_gateway("").await;
    let mut insistent = Caller::connect(gateway.listener()).await;
    broadcast(&mut insistent, "t7").await.assert_gateway_error(503, "token_unavailable");
    for (name, response) in broadcast_to_all(&gateway, others(300, 7..=7)).await {
        assert_eq!(response.status, 202, "{name}: {response:?}");
    }
    broadcast(&mut insistent, "t7").await.assert_gateway_error(503, "token_unavailable");
    assert_eq!(fleet.token_requests("t7"), 1, "the tenant's Retry-After is not honoured");
    assert_eq!(fleet.assert_own_tokens(), 299);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_whose_token_requests_hang_stop_no_other() {
    // Twice as many as there may be token requests at once.
    let fleet = Fleet::start(300, "slow_tokens = [\"1-32\"]\ndelay = \"1h\"\n").await;
    let gateway = fleet.start_gateway("[tokens]\nmax_requests = 16\n").await;
    let listener = gateway.listener();
    let hung: Vec<_> = names(1..=32)
        .map(|name| tokio::spawn(async move { broadcast(&mut Caller::connect(listener).await, &name).await }))
        .collect();
    wait_until("token requests hang", async || (fleet.sandbox.entra().journal().received() >= 16).then_some(())).await;
    for (name, response) in broadcast_to_all(&gateway, others(300, 1..=32)).await {
        assert_eq!(response.status, 202, "{name}: {response:?}");
    }
    assert_eq!(fleet.assert_own_tokens(), 268);
    hung.iter().for_each(tokio::task::JoinHandle::abort);
}
