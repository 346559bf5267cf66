//! Callers that do not finish their requests, do not read, or are slow, over HTTP/1.1 and HTTP/2.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use futures_util::stream;
use http::header::CONTENT_TYPE;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::calls::{Call, Kind, Outcome, digest};
use crate::support::{RawConnection, request};

/// The hubs of the calls, including that of the endpoint without faults.
const HUBS: [&str; 4] = ["both", "first", "weighted", "north"];

/// A call that its caller did not send completely, or whose response it did not await.
#[derive(Debug)]
pub(super) struct BrokenCall {
    pub(super) call: Call,
    pub(super) misbehaviour: Misbehaviour,
    /// The status of the response, if there was one.
    pub(super) status: Option<u16>,
}

/// How a caller misbehaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misbehaviour {
    /// Closes before it has sent the declared length.
    TooShort,
    /// Closes between two chunks, or within one.
    CutChunks,
    /// Sends a chunk size that is not a number.
    BadChunkSize,
    /// Sends the complete request and resets the connection at once.
    ResetsConnection,
    /// Resets an HTTP/2 stream in the middle of its body.
    CutsStream,
    /// Sends the complete request and resets the HTTP/2 stream.
    ResetsStream,
    /// Sends many calls and reads no responses.
    NeverReads,
}

impl Misbehaviour {
    const ALL: [Self; 7] = [
        Self::TooShort,
        Self::CutChunks,
        Self::BadChunkSize,
        Self::ResetsConnection,
        Self::CutsStream,
        Self::ResetsStream,
        Self::NeverReads,
    ];

    /// Whether the caller sends the complete call.
    pub(super) fn is_complete(self) -> bool {
        matches!(self, Self::ResetsConnection | Self::ResetsStream | Self::NeverReads)
    }
}

/// A misbehaving caller.
pub(super) struct MisbehavingCaller {
    rng: Rng,
    name: String,
    gateway: SocketAddr,
    count: usize,
    broken_calls: Vec<BrokenCall>,
    outcomes: Vec<Outcome>,
}

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

impl MisbehavingCaller {
    pub(super) fn new(gateway: SocketAddr, rng: Rng, name: String) -> Self {
        Self { rng, name, gateway, count: 0, broken_calls: Vec::new(), outcomes: Vec::new() }
    }

    /// Sends calls until `is_over`. The outcomes are those of slow calls: they are complete, and their responses are read.
    pub(super) async fn run(mut self, is_over: Arc<AtomicBool>) -> (Vec<BrokenCall>, Vec<Outcome>) {
        let mut streams = connect(self.gateway).await;
        while !is_over.load(Ordering::Relaxed) {
            match self.rng.usize(..=Misbehaviour::ALL.len()) {
                slow if slow == Misbehaviour::ALL.len() => self.upload_slowly().await,
                misbehaviour => match Misbehaviour::ALL[misbehaviour] {
                    Misbehaviour::NeverReads => self.read_nothing().await,
                    misbehaviour @ (Misbehaviour::CutsStream | Misbehaviour::ResetsStream) => {
                        if streams.is_closed() {
                            streams = connect(self.gateway).await;
                        }
                        self.reset_stream(misbehaviour, &mut streams).await;
                    }
                    misbehaviour @ (Misbehaviour::TooShort
                    | Misbehaviour::CutChunks
                    | Misbehaviour::BadChunkSize
                    | Misbehaviour::ResetsConnection) => {
                        self.send_broken(misbehaviour).await;
                    }
                },
            }
            sleep(Duration::from_millis(self.rng.u64(1..30))).await;
        }
        (self.broken_calls, self.outcomes)
    }

    fn call(&mut self) -> (Call, String) {
        let hub = HUBS[self.rng.usize(..HUBS.len())];
        let id = format!("{}-{}", self.name, self.count);
        self.count += 1;
        let body =
            format!("{{\"target\":\"t\",\"arguments\":[\"{id}\",\"{}\"]}}", "x".repeat(self.rng.usize(20..20_000)));
        (Call { id, hub, kind: Kind::Broadcast, digest: digest(&body) }, body)
    }

    async fn send_broken(&mut self, misbehaviour: Misbehaviour) {
        let (call, body) = self.call();
        let mut raw = RawConnection::connect(self.gateway).await;
        let cut = self.rng.usize(..body.len());
        let (sent, rest) = body.split_at(cut);
        let declared = head(&call, &format!("content-length: {}", body.len()));
        let wire = if misbehaviour == Misbehaviour::TooShort {
            declared + sent
        } else if misbehaviour == Misbehaviour::ResetsConnection {
            declared + &body
        } else {
            head(&call, "transfer-encoding: chunked") + &self.malformed_chunks(misbehaviour, sent, rest)
        };
        raw.write(wire).await;
        sleep(Duration::from_millis(self.rng.u64(..20))).await;
        let mut status = None;
        match self.rng.u8(..3) {
            0 => raw.reset(),
            _ if misbehaviour == Misbehaviour::ResetsConnection => raw.reset(),
            1 => drop(raw),
            // The caller can still read the response.
            _ => status = raw.finish().await.next_response("POST").await.map(|(response, _)| response.status.as_u16()),
        }
        self.broken_calls.push(BrokenCall { call, misbehaviour, status });
    }

    fn malformed_chunks(&mut self, misbehaviour: Misbehaviour, sent: &str, rest: &str) -> String {
        let whole = if sent.is_empty() { String::new() } else { format!("{:x}\r\n{sent}\r\n", sent.len()) };
        if misbehaviour == Misbehaviour::BadChunkSize {
            let size = ["zz", "+2", "0x5", "-1", ""][self.rng.usize(..5)];
            whole + &format!("{size}\r\n{rest}\r\n0\r\n\r\n")
        } else if self.rng.bool() {
            whole + &format!("{:x}\r\n{}", rest.len(), &rest[..rest.len() / 2])
        } else {
            whole
        }
    }

    async fn reset_stream(&mut self, misbehaviour: Misbehaviour, streams: &mut SendRequest<Body>) {
        let (call, body) = self.call();
        let (first, second) = body.split_at(self.rng.usize(1..body.len()));
        let data = |text: &str| Ok(Frame::data(Bytes::copy_from_slice(text.as_bytes())));
        let last =
            if misbehaviour == Misbehaviour::CutsStream { Err(std::io::Error::other("cut off")) } else { data(second) };
        let body = StreamBody::new(stream::iter([data(first), last])).boxed_unsync();
        let request =
            request("POST", &format!("http://{}/api/hubs/{}/:send?api-version=2024-12-01", self.gateway, call.hub));
        let request = request.header(CONTENT_TYPE, "application/json").header("x-request-id", &call.id);
        let response = streams.send_request(request.body(body).unwrap());
        let wait = Duration::from_millis(self.rng.u64(..40));
        let answered = tokio::time::timeout(wait, response).await;
        let status = answered.ok().and_then(Result::ok).map(|response| response.status().as_u16());
        self.broken_calls.push(BrokenCall { call, misbehaviour, status });
    }

    async fn read_nothing(&mut self) {
        let mut raw = RawConnection::connect(self.gateway).await;
        for _ in 0..self.rng.usize(1..20) {
            let (call, body) = self.call();
            raw.write(head(&call, &format!("content-length: {}", body.len())) + &body).await;
            self.broken_calls.push(BrokenCall { call, misbehaviour: Misbehaviour::NeverReads, status: None });
        }
        sleep(Duration::from_millis(self.rng.u64(..500))).await;
        raw.reset();
    }

    async fn upload_slowly(&mut self) {
        let (call, body) = self.call();
        let mut raw = RawConnection::connect(self.gateway).await;
        raw.write(head(&call, &format!("content-length: {}", body.len()))).await;
        for piece in body.as_bytes().chunks(body.len() / 8 + 1) {
            raw.write(piece).await;
            sleep(Duration::from_millis(self.rng.u64(..150))).await;
        }
        // The response is incomplete if that of the endpoint is.
        let response =
            raw.next_response("POST").await.and_then(|(response, is_complete)| is_complete.then_some(response));
        self.outcomes.push(Outcome { call, response });
    }
}

fn head(call: &Call, framing: &str) -> String {
    format!(
        "POST /api/hubs/{}/:send?api-version=2024-12-01 HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nx-request-id: {}\r\n{framing}\r\n\r\n",
        call.hub, call.id
    )
}

async fn connect(gateway: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(gateway).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}
