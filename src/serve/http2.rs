//! HTTP/2 with callers, on the `h2` crate: accepts streams, starts a task for each, and closes the connection of a caller
//! that floods it.
//!
//! Replaces hyper's server, which owns a response body until it is sent: while a caller grants no window, its request keeps all
//! its permits and connections. hyper also hides resets.

mod frames;
mod stream;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::Reason;
use h2::server::{Builder, Connection, Handshake};
use tokio::io::{AsyncRead, AsyncWrite};

use super::graceful::Graceful;

pub(super) use frames::{FrameBudget, FrameCounter};
pub(super) use stream::{Incoming, serve_stream};

/// The most open streams of one connection.
const MAX_STREAMS: u32 = 256;
/// The flow-control window of a connection, and so the memory that unread request bodies take. Chosen: at a round trip of a
/// millisecond it allows 256 MB/s, and a thousand connections take 256 MiB. hyper's default: 1 MiB.
const WINDOW: u32 = 256 * 1024;
/// The flow-control window of a stream. Smaller than the connection's, so that one unread stream does not block the others.
const STREAM_WINDOW: u32 = 64 * 1024;
/// The most bytes of one stream's response that are buffered while the socket accepts none. Chosen: the streams of a
/// connection buffer 16 MiB at most. hyper's default: 400 KiB.
const SEND_BUFFER: usize = 64 * 1024;
/// The number of streams reset for the caller's errors after which the connection is closed. The same as in hyper.
const MAX_INVALID_STREAMS: usize = 1024;

/// Returns the builder of connections.
pub(super) fn builder(max_header_list: u32) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(max_header_list)
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(MAX_INVALID_STREAMS));
    builder
}

/// An HTTP/2 connection with a caller. It calls `start` with each accepted stream.
pub(super) struct Http2<T: AsyncRead + AsyncWrite + Unpin, F> {
    state: State<T>,
    start: F,
    budget: Rc<FrameBudget>,
    is_shutting_down: bool,
    is_flooded: bool,
}

enum State<T: AsyncRead + AsyncWrite + Unpin> {
    Handshaking(Handshake<T, Bytes>),
    Serving(Connection<T, Bytes>),
}

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Http2Error {
    /// The caller sent too many frames without content, or too many resets.
    #[error("the caller floods the connection with empty frames or resets")]
    Flood,
    /// The caller violated the protocol, or the connection failed.
    #[error(transparent)]
    Connection(#[from] h2::Error),
}

impl<T: AsyncRead + AsyncWrite + Unpin, F: FnMut(Incoming) + Unpin> Http2<T, F> {
    pub(super) fn new(io: T, builder: &Builder, budget: &Rc<FrameBudget>, start: F) -> Self {
        let state = State::Handshaking(builder.handshake(io));
        Self { state, start, budget: Rc::clone(budget), is_shutting_down: false, is_flooded: false }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, F: FnMut(Incoming) + Unpin> Future for Http2<T, F> {
    type Output = Result<(), Http2Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Http2Error>> {
        let this = &mut *self;
        loop {
            let connection = match &mut this.state {
                State::Handshaking(handshake) => {
                    let mut connection = ready!(Pin::new(handshake).poll(cx))?;
                    if this.is_shutting_down {
                        connection.graceful_shutdown();
                    }
                    this.state = State::Serving(connection);
                    continue;
                }
                State::Serving(connection) => connection,
            };
            let accepted = connection.poll_accept(cx);
            if this.budget.is_exceeded() && !this.is_flooded {
                this.is_flooded = true;
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            match ready!(accepted) {
                Some(incoming) if !this.is_flooded => (this.start)(incoming?),
                Some(Ok(_dropped)) => {}
                Some(Err(_)) | None if this.is_flooded => return Poll::Ready(Err(Http2Error::Flood)),
                Some(Err(err)) => return Poll::Ready(Err(err.into())),
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, F: FnMut(Incoming) + Unpin> Graceful for Http2<T, F> {
    type Error = Http2Error;

    fn graceful_shutdown(mut self: Pin<&mut Self>) {
        self.is_shutting_down = true;
        if let State::Serving(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }
}
