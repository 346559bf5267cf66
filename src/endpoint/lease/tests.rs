//! Which 408 is about a connection that was idle, and which about the request.

use std::convert::Infallible;
use std::time::Instant;

use futures_util::stream::Pending;
use http::{HeaderName, HeaderValue, Method};
use http_body_util::{Either, Full, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::endpoint::http1::HeaderVisitor;
use crate::endpoint::http1::tests::run;
use crate::endpoint::{EndpointSettings, PoolSettings, tests};

/// A body that is complete, or one whose sender is slow.
type TestBody = Either<Full<Bytes>, StreamBody<Pending<Result<Frame<Bytes>, Infallible>>>>;

fn complete() -> TestBody {
    Either::Left(Full::default())
}

fn incomplete() -> TestBody {
    Either::Right(StreamBody::new(futures_util::stream::pending()))
}

/// Starts an endpoint that accepts the first request of each connection and sends a 408 to the second. Returns its port.
async fn start() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                for head in ["202 Accepted", "408 Request Timeout\r\nconnection: close"] {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        assert!(stream.read_buf(&mut request).await.unwrap() > 0, "the connection was closed");
                    }
                    let response = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n");
                    stream.write_all(response.as_bytes()).await.unwrap();
                }
            });
        }
    });
    port
}

#[test]
fn response_408_is_about_the_idle_connection_if_the_request_cannot_have_timed_out() {
    run(async {
        let hour = Duration::from_secs(3600);
        let settings = PoolSettings { max_idle_per_worker: 1, idle_timeout: 2 * hour, max_age: None };
        let settings = EndpointSettings { pool: settings, ..tests::settings(start().await) };
        let (just_now, earlier) = (|| Instant::now() + hour, || Instant::now().checked_sub(2 * ROUND_TRIP).unwrap());
        for (began, body, is_about_idle_connection) in [
            (just_now(), complete(), true),
            (earlier(), complete(), false),
            (just_now(), incomplete(), true),
            (earlier(), incomplete(), true),
        ] {
            let pool = tests::pool::<TestBody>(&settings);
            let host = HeaderValue::from_static("east");
            let lines = |line: &mut HeaderVisitor<'_>| line(&http::header::HOST, &host);
            let head =
                RequestHead { method: &Method::POST, target: "/", lines: &lines, unwanted: |_: &HeaderName| false };
            let first = pool.lease(Instant::now()).await.unwrap().send(&head, complete()).await.unwrap();
            assert_eq!(first.status(), 202);
            let lease = pool.lease(began).await.unwrap();
            assert!(lease.is_reused());
            match lease.send(&head, body).await {
                Ok(response) => assert!(response.status() == 408 && !is_about_idle_connection),
                Err(err) => {
                    assert_eq!(err.processing, Processing::NotProcessed);
                    assert!(is_about_idle_connection);
                }
            }
        }
    });
}
