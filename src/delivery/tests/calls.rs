//! Which endpoint a call goes to, what is checked before it is sent, and the response that is returned.

use super::*;
use crate::signalr::Policy;

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const EXISTS: &str = "HTTP/1.1 200 OK\r\n\r\n";
const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";
const REFUSED: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

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
            let found = fixture.worker.upstream(0).unwrap().budget().level();
            assert!((found - level).abs() < 0.01, "{status}: {found}");
        }
    });
}

#[test]
fn head_may_have_exactly_the_allowed_size_including_the_bearer() {
    run(async {
        let size = SEND.len() + "Bearer ".len() + TOKEN.len();
        for (max_header_bytes, is_sent) in [(size, true), (size - 1, false)] {
            let endpoints = [TestEndpoint::start("east", &[HELLO]).await];
            let fixture = Fixture::new(&endpoints, Setup { max_header_bytes, ..Setup::default() }).await;
            match fixture.deliver(Method::POST, SEND).await {
                Ok((_, response)) => assert!(is_sent && response.status() == 200, "{max_header_bytes}"),
                Err(DeliveryError::HeadersTooLarge { size: found, limit }) => {
                    assert_eq!((found, limit, is_sent), (size, max_header_bytes, false));
                }
                Err(err) => panic!("{err:?}"),
            }
        }
    });
}

#[test]
fn endpoint_gets_no_more_calls_than_its_concurrency_limit() {
    run(async {
        let endpoints = [TestEndpoint::start("east", &[HELLO]).await];
        let fixture = Fixture::new(&endpoints, Setup { max_requests: Some(1), ..Setup::default() }).await;
        let other_call = fixture.limits.endpoint_concurrency(0).unwrap().try_acquire();
        let err = fixture.deliver(Method::POST, SEND).await.err().unwrap();
        assert!(matches!(err, DeliveryError::Overload { .. }), "{err:?}");
        drop(other_call);
        assert!(fixture.deliver(Method::POST, SEND).await.is_ok());
    });
}

#[test]
fn response_is_read_whole_unless_it_is_too_long() {
    run(async {
        let endpoints = [TestEndpoint::start("east", &[HELLO]).await];
        let fixture = Fixture::new(&endpoints, Setup::default()).await;
        let deadline = RequestDeadline::new(Instant::now(), Duration::from_secs(20));
        let (_, response) = fixture.deliver(Method::POST, SEND).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(response.into_body().collected(5, deadline).await.unwrap(), "hello");
        let (_, response) = fixture.deliver(Method::POST, SEND).await.unwrap();
        let err = response.into_body().collected(4, deadline).await.unwrap_err();
        assert!(matches!(err, DeliveryError::ResponseIncomplete(_)), "{err:?}");
    });
}

#[test]
fn partial_delivery_names_the_outcome_at_each_endpoint() {
    run(async {
        let endpoints = [
            TestEndpoint::start("east", &[ACCEPTED]).await,
            TestEndpoint::start("west", &[REFUSED]).await,
            TestEndpoint::unreachable("north"),
        ];
        let fixture = Fixture::new(&endpoints, Setup { pick: Pick::All(Policy::All), ..Setup::default() }).await;
        let err = fixture.deliver(Method::POST, SEND).await.err().unwrap();
        let DeliveryError::PartialDelivery { endpoints, .. } = err else { panic!("{err:?}") };
        let found: Vec<_> = endpoints.iter().map(|found| (found.endpoint.as_str(), found.status)).collect();
        assert_eq!(found, [("east", Some(202)), ("west", Some(400)), ("north", None)]);
        let outcomes: Vec<_> = endpoints.iter().map(|found| found.outcome).collect();
        assert_eq!(outcomes, ["accepted", "refused", "not_sent"]);
    });
}

#[test]
fn one_acceptance_is_enough_where_the_route_says_so() {
    run(async {
        let endpoints = [TestEndpoint::start("east", &[REFUSED]).await, TestEndpoint::start("west", &[ACCEPTED]).await];
        let fixture = Fixture::new(&endpoints, Setup { pick: Pick::All(Policy::Any), ..Setup::default() }).await;
        let (index, response) = fixture.deliver(Method::POST, SEND).await.unwrap();
        assert_eq!((index, response.status().as_u16()), (1, 202));
    });
}
