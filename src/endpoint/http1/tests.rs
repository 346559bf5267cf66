//! Tests over a TCP connection to a server that sends given bytes.

mod requests;
mod responses;
mod reuse;

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body;
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::socket::Socket;
use super::error::Cause;
use super::{Connection, HeaderVisitor, Http1Error, RequestHead};
use crate::egress::Carrier;
use crate::write_batch::{Batched, WriteBatch};

/// The end of a request without a body.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A server for one connection at a time. It reads until the input ends with `until`, writes the pieces of a response and closes the
/// connection.
struct Server {
    listener: TcpListener,
    until: &'static [u8],
}

impl Server {
    async fn new(until: &'static [u8]) -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), until }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap()
    }

    /// Accepts a connection and sends a response. Returns what was read.
    async fn respond(&self, pieces: &[Vec<u8>]) -> Vec<u8> {
        let (mut stream, _) = self.listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut read = Vec::new();
        while !read.ends_with(self.until) && stream.read_buf(&mut read).await.unwrap() > 0 {}
        for piece in pieces {
            // A client that has read enough may close the connection.
            if stream.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        read
    }
}

/// A response that a client received.
#[derive(Debug, PartialEq)]
struct Received {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

type Outcome = Result<Received, String>;

fn connection<B: Body<Data = Bytes, Error: Into<Cause>> + Unpin>(stream: TcpStream) -> Connection<B> {
    Connection::new(Socket::Left(Carrier::Left(Batched::new(stream, &WriteBatch::start()))), Rc::default(), None)
}

/// Sends a request and reads the response. Returns the response and whether the connection can be reused.
async fn send<B>(stream: TcpStream, method: Method, body: B) -> (Outcome, bool)
where
    B: Body<Data = Bytes, Error: Into<Cause>> + Unpin,
{
    let mut connection = connection(stream);
    assert!(connection.is_usable());
    let host = HeaderValue::from_static("east.example");
    let lines = |line: &mut HeaderVisitor<'_>| line(&http::header::HOST, &host);
    let head =
        RequestHead { method: &method, target: "/api?x=%2F", lines: &lines, unwanted: |name| *name == "unwanted" };
    connection.begin(&head, body);
    let exchange = async {
        let response = poll_fn(|cx| connection.poll_response(cx)).await?;
        let mut body = Vec::new();
        while let Some(piece) = poll_fn(|cx| connection.poll_body(cx)).await {
            body.extend_from_slice(&piece?);
        }
        Ok(Received { status: response.status(), headers: response.headers().clone(), body })
    };
    let outcome: Result<Received, Http1Error> = exchange.await;
    (outcome.map_err(|err| err.to_string()), connection.is_reusable())
}

fn empty() -> Full<Bytes> {
    Full::default()
}

/// Runs a test on a single-threaded runtime, with a timeout.
pub(in crate::endpoint) fn run<T>(test: impl Future<Output = T>) -> T {
    let options = tokio::runtime::LocalOptions::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(options).unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test timed out") })
}
