//! Requests as they are written, and requests that are not written completely.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Body;
use http_body_util::{Full, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::Http1Error;
use super::{HEAD_END, Server, empty, run, send};

#[test]
fn requests_declare_where_their_body_ends() {
    run(async {
        let hello = Full::new(Bytes::from_static(b"hello"));
        for (method, body, until, written) in [
            (
                Method::POST,
                hello,
                &b"hello"[..],
                "POST /api?x=%2F HTTP/1.1\r\nhost: east.example\r\ncontent-length: 5\r\n\r\nhello",
            ),
            (
                Method::PUT,
                empty(),
                HEAD_END,
                "PUT /api?x=%2F HTTP/1.1\r\nhost: east.example\r\ncontent-length: 0\r\n\r\n",
            ),
            (Method::HEAD, empty(), HEAD_END, "HEAD /api?x=%2F HTTP/1.1\r\nhost: east.example\r\n\r\n"),
        ] {
            let server = Server::new(until).await;
            let pieces = [b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec()];
            let exchange = async { send(server.connect().await, method, body).await };
            let ((response, reusable), read) = tokio::join!(exchange, server.respond(&pieces));
            assert!(response.is_ok() && reusable, "{response:?}");
            assert_eq!(String::from_utf8(read).unwrap(), written);
        }

        let pieces = ["a", "", "bcd"].map(|piece| Ok::<_, Infallible>(http_body::Frame::data(Bytes::from(piece))));
        let body = StreamBody::new(futures_util::stream::iter(pieces));
        let server = Server::new(b"0\r\n\r\n").await;
        let response = [b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec()];
        let exchange = async { send(server.connect().await, Method::POST, body).await };
        let ((_, reusable), read) = tokio::join!(exchange, server.respond(&response));
        assert!(reusable);
        let expected = "POST /api?x=%2F HTTP/1.1\r\nhost: east.example\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n";
        assert_eq!(String::from_utf8(read).unwrap(), expected);
    });
}

#[test]
fn early_response_is_read_and_the_connection_is_not_reused() {
    run(async {
        // More than the socket buffers hold.
        let body = Full::new(Bytes::from(vec![b'x'; 32 * 1024 * 1024]));
        let server = Server::new(HEAD_END).await;
        let pieces = [b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nhello".to_vec()];
        let exchange = async { send(server.connect().await, Method::POST, body).await };
        let respond_early = async {
            let (mut stream, _) = server.listener.accept().await.unwrap();
            let mut some = [0; 1024];
            assert!(stream.read(&mut some).await.unwrap() > 0);
            stream.write_all(&pieces.concat()).await.unwrap();
            // The connection stays open until the response has been read.
            stream
        };
        let ((response, reusable), _stream) = tokio::join!(exchange, respond_early);
        let response = response.unwrap();
        assert_eq!((response.status, &*response.body), (StatusCode::PAYLOAD_TOO_LARGE, &b"hello"[..]));
        assert!(!reusable);
    });
}

#[test]
fn body_without_its_declared_length_is_an_error() {
    /// A body with a declared length and other data.
    #[derive(Clone)]
    struct WrongLength(u64, Option<&'static str>);
    impl Body for WrongLength {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.1.take().map(|piece| Ok(http_body::Frame::data(Bytes::from(piece)))))
        }
        fn size_hint(&self) -> http_body::SizeHint {
            http_body::SizeHint::with_exact(self.0)
        }
    }
    run(async {
        for length in [4, 6] {
            let server = Server::new(b"never").await;
            let exchange =
                async { send(server.connect().await, Method::POST, WrongLength(length, Some("hello"))).await };
            let ((response, reusable), _) = tokio::join!(exchange, server.respond(&[]));
            assert_eq!(response.unwrap_err(), Http1Error::RequestBodyLength.to_string());
            assert!(!reusable);
        }
    });
}
