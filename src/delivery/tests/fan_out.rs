//! The outcome of calls that are sent to every endpoint.

use super::*;
use crate::signalr::Policy;

const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";
const REFUSED: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

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
        let DeliveryError::PartialDelivery { endpoints } = err else { panic!("{err:?}") };
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
