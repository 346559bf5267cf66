//! A caller that sends a request body over an in-memory HTTP/1.1 connection.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::Body;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus::{IntCounter, IntGauge};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;

use crate::delivery::{BodyMemory, RequestBody};
use crate::serve::CallerBody;

/// The largest body that is accepted, in bytes.
pub(in crate::delivery) const LIMIT: u64 = 1024 * 1024;

/// A request whose body the caller is sending. Dropping `caller` closes the connection.
pub(in crate::delivery) struct Upload {
    pub(in crate::delivery) caller: DuplexStream,
    pub(in crate::delivery) body: RequestBody,
    pub(in crate::delivery) memory: Rc<BodyMemory>,
}

impl Upload {
    /// Sends the head of a request whose body is framed by this header line.
    pub(in crate::delivery) async fn begin(framing: &str) -> Self {
        let (mut caller, gateway) = tokio::io::duplex(16 * 1024 * 1024);
        let (found, request) = oneshot::channel();
        let found = Cell::new(Some(found));
        let service = service_fn(move |request: Request<Incoming>| {
            found.take().unwrap().send(request.into_body()).unwrap();
            pending::<Result<Response<Empty<Bytes>>, Infallible>>()
        });
        tokio::task::spawn_local(http1::Builder::new().serve_connection(TokioIo::new(gateway), service));
        let head = format!("POST / HTTP/1.1\r\nhost: gateway\r\n{framing}\r\n\r\n");
        caller.write_all(head.as_bytes()).await.unwrap();
        let memory = Rc::new(BodyMemory {
            used: IntGauge::new("used", "used").unwrap(),
            not_kept: IntCounter::new("not_kept", "not_kept").unwrap(),
            limit: LIMIT,
        });
        let incoming = CallerBody::of_request(request.await.unwrap());
        let body = RequestBody::new(incoming, Version::HTTP_11, LIMIT, &memory);
        Self { caller, body, memory }
    }

    pub(in crate::delivery) async fn send(&mut self, bytes: &[u8]) {
        self.caller.write_all(bytes).await.unwrap();
    }
}

/// Reads the next piece of a body.
pub(in crate::delivery) async fn next<B>(body: &mut B) -> Option<Result<Bytes, B::Error>>
where
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin,
{
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap()))
}

/// Reads this many bytes of a body, which must end there or between pieces.
pub(in crate::delivery) async fn read<B>(body: &mut B, length: usize) -> Vec<u8>
where
    B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin,
{
    let mut bytes = Vec::new();
    while bytes.len() < length {
        bytes.extend_from_slice(&next(body).await.unwrap().unwrap());
    }
    assert_eq!(bytes.len(), length);
    bytes
}
