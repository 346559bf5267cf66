//! When a connection can be used for another request, and when a request counts as unsent.

use std::future::poll_fn;

use bytes::Bytes;
use http::{HeaderValue, Method};
use http_body_util::Full;

use super::super::{HeaderVisitor, RequestHead};
use super::{HEAD_END, Server, connection, empty, run, send};

#[test]
fn connection_is_reusable_only_after_a_complete_exchange_without_further_input() {
    run(async {
        for (response, is_reusable) in [
            ("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", true),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n", false),
            ("HTTP/1.1 200 OK\r\n\r\n", false),
            ("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n", false),
        ] {
            let server = Server::new(HEAD_END).await;
            let pieces = [response.as_bytes().to_vec()];
            let exchange = async { send(server.connect().await, Method::POST, empty()).await };
            let ((_, reusable), _) = tokio::join!(exchange, server.respond(&pieces));
            assert_eq!(reusable, is_reusable, "{response:?}");
        }
    });
}

#[test]
fn idle_connection_with_input_or_closed_by_the_server_is_not_usable() {
    run(async {
        for unsolicited in [&b""[..], b"HTTP/1.1 408 Request Timeout\r\n\r\n"] {
            let server = Server::new(b"").await;
            let mut connection = connection::<Full<Bytes>>(server.connect().await);
            assert!(connection.is_usable());
            server.respond(&[unsolicited.to_vec()]).await;
            while connection.is_usable() {
                tokio::task::yield_now().await;
            }
        }
    });
}

#[test]
fn request_is_unsent_only_while_no_byte_is_written_or_in_the_write_batch() {
    run(async {
        let server = Server::new(b"").await;
        let mut connection = connection::<Full<Bytes>>(server.connect().await);
        let host = HeaderValue::from_static("east.example");
        let lines = |line: &mut HeaderVisitor<'_>| line(&http::header::HOST, &host);
        let head = RequestHead { method: &Method::POST, target: "/", lines: &lines, unwanted: |_| false };
        connection.begin(&head, empty());
        assert!(connection.is_unsent());
        let response = [b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec()];
        let exchange = poll_fn(|cx| {
            let response = connection.poll_response(cx);
            assert!(!connection.is_unsent(), "the request is in the write batch or written");
            response
        });
        let (response, _) = tokio::join!(exchange, server.respond(&response));
        assert!(response.is_ok());

        // The server has closed the connection, so no byte of the next request is sent.
        connection.begin(&head, empty());
        let head = poll_fn(|cx| connection.poll_head(cx)).await;
        assert!(head.is_err() && connection.is_unsent());
    });
}
