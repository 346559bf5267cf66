//! Which endpoint a call goes to, and what retries cost.

use super::*;

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const EXISTS: &str = "HTTP/1.1 200 OK\r\n\r\n";

#[test]
fn next_endpoint_is_tried_at_once_when_nothing_was_sent() {
    run(async {
        let endpoints = [TestEndpoint::unreachable("east"), TestEndpoint::start("west", &[ACCEPTED]).await];
        let fixture = Fixture::new(&endpoints, Setup::default()).await;
        let (index, response) = fixture.deliver(Method::POST, SEND).await.unwrap();
        assert_eq!((index, response.status().as_u16()), (1, 202));
    });
}

#[test]
fn client_tokens_come_from_a_secondary_only_when_no_primary_is_reachable() {
    run(async {
        for (primary, expected) in
            [(TestEndpoint::start("west", &[ACCEPTED]).await, 1), (TestEndpoint::unreachable("west"), 0)]
        {
            let endpoints = [TestEndpoint::start("east", &[ACCEPTED]).await.secondary(), primary];
            let fixture = Fixture::new(&endpoints, Setup::default()).await;
            let (index, _) = fixture.deliver(Method::POST, "/api/hubs/chat/:generateToken").await.unwrap();
            assert_eq!(index, expected);
        }
    });
}

#[test]
fn retries_cost_budget_only_if_the_endpoint_received_something() {
    run(async {
        for (endpoint, status, level) in [
            (TestEndpoint::start("east", &[UNAVAILABLE, EXISTS]).await, 200, 0.9),
            (TestEndpoint::unreachable("east"), 503, 1.0),
        ] {
            let fixture = Fixture::new(&[endpoint], Setup::default()).await;
            let result = fixture.deliver(Method::HEAD, "/api/hubs/chat/users/ann").await;
            assert_eq!(result.map_or_else(|err| err.status(), |(_, response)| response.status()), status);
            let found = fixture.worker.upstreams[0].budget.level();
            assert!((found - level).abs() < 0.01, "{status}: {found}");
        }
    });
}
