//! What is checked before an attempt sends anything, and the response that it returns.

use super::*;

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello";

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
