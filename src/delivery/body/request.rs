//! A caller's body on its way upstream. Does not decide when it is sent again.
//!
//! A body that failed stays failed for every reader. It never looks empty or complete, so no endpoint mistakes a part
//! of a message for the whole.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};

use super::failure::{BodyError, BodyFailure};
use super::memory::{BodyMemory, FREE, HeldMemory};
use super::replay::ReplayBuffer;
use crate::serve::CallerBody;

/// How long the rest of a discarded body is read.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// How much of a discarded body is read, in bytes, so that its sender gets to read the response.
const DISCARD_BYTES: u64 = 4 * 1024 * 1024;

/// The largest piece that one read returns, in bytes.
const MAX_PIECE: u64 = 80 * 1024;

/// How often a body that waits for memory tries again.
const MEMORY_POLL: Duration = Duration::from_millis(10);

/// A caller's body on its way upstream. It enforces the size limit and keeps what was sent, so that a request that was
/// not processed can be sent again, as far as the memory budget of all bodies allows.
///
/// Clones share the body. Only the latest one returned by `rewound` can be read: an endpoint that
/// responded early may still be reading an earlier one.
#[derive(Clone)]
pub struct RequestBody {
    source: Source,
    attempt: u32,
}

#[derive(Clone)]
enum Source {
    /// An empty body.
    Empty,
    /// A body that was read as a whole; `None` once it was sent.
    Whole(Option<Bytes>),
    /// A body that the caller is sending.
    Streamed(Rc<RefCell<Stream>>),
}

struct Stream {
    /// The number of the attempt that may read.
    attempt: u32,
    incoming: CallerBody,
    /// The declared length, if there is one.
    declared: Option<u64>,
    /// Whether the caller sends over HTTP/2.
    is_http2: bool,
    limit: u64,
    received: u64,
    replay: ReplayBuffer,
    memory: HeldMemory,
    retention: Retention,
    /// Whether `incoming` has ended.
    ended: bool,
    /// When the current wait for the caller began; `None` if the endpoint has not yet taken everything that arrived.
    waits_since: Option<Instant>,
    /// The sum of the earlier waits of this attempt.
    waited: Duration,
    /// Why no more of it can be read. Never reset.
    failure: Option<BodyFailure>,
}

/// Whether the parts that were sent are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Retention {
    /// While the memory budget allows it.
    WhilePossible,
    /// Always; without memory the body fails.
    Always,
    /// No longer; the body will not be sent again.
    Never,
}

impl RequestBody {
    /// Returns the body of a request that came over `version` and may have `limit` bytes.
    pub fn new(incoming: CallerBody, version: Version, limit: u64, memory: &Rc<BodyMemory>) -> Self {
        if incoming.is_end_stream() {
            return Self::empty();
        }
        let declared = incoming.size_hint().exact();
        let stream = Stream {
            attempt: 0,
            incoming,
            declared,
            is_http2: version == Version::HTTP_2,
            limit,
            received: 0,
            replay: ReplayBuffer::default(),
            memory: HeldMemory::new(memory),
            retention: Retention::WhilePossible,
            ended: false,
            waits_since: None,
            waited: Duration::ZERO,
            failure: None,
        };
        Self { source: Source::Streamed(Rc::new(RefCell::new(stream))), attempt: 0 }
    }

    /// Returns a body without content.
    fn empty() -> Self {
        Self { source: Source::Empty, attempt: 0 }
    }

    /// Returns the body from its first byte, for the next attempt. Earlier ones return an error from then on, and so
    /// does this one if the body has failed.
    pub(in crate::delivery) fn rewound(&self) -> Self {
        let Source::Streamed(stream) = &self.source else { return self.clone() };
        let attempt = {
            let mut stream = stream.borrow_mut();
            if !stream.replay.is_complete() {
                stream.failure.get_or_insert(BodyFailure::NotKept);
            }
            stream.replay.rewind();
            stream.attempt += 1;
            stream.waits_since = None;
            stream.waited = Duration::ZERO;
            stream.attempt
        };
        Self { source: Source::Streamed(Rc::clone(stream)), attempt }
    }

    /// Reads the body to its end and returns one that any number of attempts may read at the same time. Waits at most
    /// `max_wait` for the memory that it takes.
    ///
    /// # Errors
    /// [`BodyFailure`] says why it cannot be sent whole.
    pub(in crate::delivery) async fn collected(&self, max_wait: Duration) -> Result<Self, BodyFailure> {
        if let Some(stream) = self.stream() {
            stream.borrow_mut().retention = Retention::Always;
            let declared = stream.borrow().declared.unwrap_or_default();
            reserve_within(stream, declared, max_wait).await?;
        }
        let mut body = self.rewound();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            frame.map_err(|_see_failure| self.failure().unwrap_or(BodyFailure::Broken))?;
            if let Some(stream) = self.stream() {
                let next = stream.borrow().size_after_next_piece();
                reserve_within(stream, next, max_wait).await?;
            }
        }
        let Some(stream) = self.stream() else { return Ok(self.clone()) };
        let mut stream = stream.borrow_mut();
        let whole = std::mem::take(&mut stream.replay).into_whole();
        stream.replay = ReplayBuffer::of(whole.clone());
        if whole.is_empty() {
            return Ok(Self::empty());
        }
        Ok(Self { source: Source::Whole(Some(whole)), attempt: 0 })
    }

    /// Returns the content of a body that [`RequestBody::collected`] returned.
    pub(in crate::delivery) fn whole(&self) -> &[u8] {
        match &self.source {
            Source::Whole(Some(bytes)) => bytes,
            Source::Empty | Source::Whole(None) | Source::Streamed(_) => &[],
        }
    }

    fn stream(&self) -> Option<&Rc<RefCell<Stream>>> {
        match &self.source {
            Source::Streamed(stream) => Some(stream),
            Source::Empty | Source::Whole(_) => None,
        }
    }

    /// Returns the number of bytes the caller has sent.
    pub fn received(&self) -> u64 {
        self.stream().map_or(0, |stream| stream.borrow().received)
    }

    /// Returns the number of bytes that an endpoint which has read the whole body got.
    pub(in crate::delivery) fn sent(&self) -> u64 {
        match &self.source {
            Source::Empty | Source::Whole(None) => 0,
            Source::Whole(Some(bytes)) => bytes.len() as u64,
            Source::Streamed(stream) => stream.borrow().received,
        }
    }

    /// Checks that the body can be sent from its first byte.
    ///
    /// # Errors
    /// [`BodyFailure`] says why it cannot.
    pub(in crate::delivery) fn check_sendable(&self) -> Result<(), BodyFailure> {
        if let Some(stream) = self.stream()
            && !stream.borrow().replay.is_complete()
        {
            stream.borrow_mut().failure.get_or_insert(BodyFailure::NotKept);
        }
        self.failure().map_or(Ok(()), Err)
    }

    /// Returns why the body cannot be sent whole, if it failed.
    pub(in crate::delivery) fn failure(&self) -> Option<BodyFailure> {
        self.stream()?.borrow().failure
    }

    /// Returns whether the endpoint has taken everything that arrived, and the caller has not sent the rest.
    pub(in crate::delivery) fn is_waiting_for_caller(&self) -> bool {
        self.stream().is_some_and(|stream| stream.borrow().waits_since.is_some())
    }

    /// Returns how long the current attempt has waited for the caller in all.
    pub(in crate::delivery) fn waited_for_caller(&self, now: Instant) -> Duration {
        self.stream().map_or(Duration::ZERO, |stream| {
            let stream = stream.borrow();
            let current = stream.waits_since.map(|since| now.saturating_duration_since(since));
            stream.waited + current.unwrap_or_default()
        })
    }

    /// Returns the memory of a large body to the budget: the request will not be sent again.
    pub fn release(&self) {
        if let Some(stream) = self.stream() {
            let stream = &mut *stream.borrow_mut();
            // An endpoint may respond while it still reads a replayed body.
            if stream.memory.is_counted() && stream.replay.is_at_end() {
                stream.retention = Retention::Never;
                stream.replay.clear(0);
                stream.memory.release();
            }
        }
    }

    /// Reads the rest of the body for a while and drops it. Closing at once would reset the connection, and the caller,
    /// still writing, would never see the response. Attempts that still read the body get an error: the dropped bytes
    /// would be missing there.
    pub fn discard(self) {
        let Source::Streamed(stream) = self.source else { return };
        {
            let mut stream = stream.borrow_mut();
            if stream.ended || stream.failure == Some(BodyFailure::Broken) {
                return;
            }
            stream.attempt += 1;
            stream.replay.clear(0);
            stream.memory.release();
        }
        // Ends at its limits, or with the worker.
        tokio::task::spawn_local(tokio::time::timeout(DISCARD_TIME, async move {
            let mut discarded = 0;
            while discarded < DISCARD_BYTES {
                let frame = std::future::poll_fn(|cx| Pin::new(&mut stream.borrow_mut().incoming).poll_frame(cx)).await;
                let Some(Ok(frame)) = frame else { return };
                discarded += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
        }));
    }
}

impl Stream {
    /// Returns whether the body ended before the caller sent all of it.
    ///
    /// hyper reports a clean end when a caller resets an HTTP/2 stream with `NO_ERROR`.
    fn ends_early(&self) -> bool {
        let is_cut = self.is_http2 && !self.incoming.is_end_stream();
        is_cut || self.declared.is_some_and(|declared| declared != self.received)
    }

    /// Returns the size of the body after the next piece, or 0 if its length was declared or it is small.
    fn size_after_next_piece(&self) -> u64 {
        let is_large = self.declared.is_none() && self.received > FREE / 2;
        if is_large { self.received.saturating_add(MAX_PIECE).min(self.limit) } else { 0 }
    }

    /// Handles a piece that is sent without being kept. Returns whether the body can go on.
    #[cold]
    fn send_unkept(&mut self, length: usize) -> bool {
        match self.retention {
            Retention::Always => {
                self.failure = Some(BodyFailure::NotKept);
                return false;
            }
            Retention::WhilePossible => self.memory.count_not_kept(),
            Retention::Never => {}
        }
        self.retention = Retention::Never;
        self.replay.clear(length);
        self.memory.release();
        true
    }
}

/// Waits until the memory budget covers a body of `bytes`.
async fn reserve_within(stream: &RefCell<Stream>, bytes: u64, max_wait: Duration) -> Result<(), BodyFailure> {
    let until = Instant::now() + max_wait;
    while !stream.borrow_mut().memory.reserve(bytes) {
        if Instant::now() >= until {
            return Err(BodyFailure::NotKept);
        }
        // Polling suffices: fan-outs with large bodies are rare.
        tokio::time::sleep(MEMORY_POLL).await;
    }
    Ok(())
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let stream = match &mut this.source {
            Source::Empty => return Poll::Ready(None),
            Source::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Streamed(stream) => stream,
        };
        let stream = &mut *stream.borrow_mut();
        if this.attempt != stream.attempt {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if stream.failure.is_some() {
            return Poll::Ready(Some(Err(BodyError::FailedBefore)));
        }
        if let Some(piece) = stream.replay.next_piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        loop {
            let Poll::Ready(frame) = Pin::new(&mut stream.incoming).poll_frame(cx) else {
                stream.waits_since.get_or_insert_with(Instant::now);
                return Poll::Pending;
            };
            if let Some(since) = stream.waits_since.take() {
                stream.waited += since.elapsed();
            }
            let data = match frame {
                None if stream.ends_early() => {
                    stream.failure = Some(BodyFailure::Broken);
                    return Poll::Ready(Some(Err(BodyError::Truncated)));
                }
                None => {
                    stream.ended = true;
                    return Poll::Ready(None);
                }
                Some(Err(err)) => {
                    stream.failure = Some(BodyFailure::Broken);
                    return Poll::Ready(Some(Err(BodyError::Broken(err))));
                }
                // Trailers are not forwarded.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => data,
                    Ok(_) | Err(_) => continue,
                },
            };
            stream.received += data.len() as u64;
            if stream.received > stream.limit {
                stream.failure = Some(BodyFailure::TooLarge { limit: stream.limit });
                return Poll::Ready(Some(Err(BodyError::TooLarge)));
            }
            stream.ended = stream.incoming.is_end_stream();
            if stream.retention != Retention::Never && stream.memory.reserve(stream.received) {
                stream.replay.push(&data);
            } else if !stream.send_unkept(data.len()) {
                return Poll::Ready(Some(Err(BodyError::NotKept)));
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Whole(bytes) => bytes.is_none(),
            Source::Streamed(stream) => {
                let stream = stream.borrow();
                stream.ended && stream.failure.is_none() && stream.replay.is_at_end()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Streamed(stream) => {
                let stream = stream.borrow();
                let sent = stream.replay.position();
                stream.declared.filter(|_| stream.failure.is_none()).map_or_else(SizeHint::default, |declared| {
                    SizeHint::with_exact(declared.saturating_sub(sent as u64))
                })
            }
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestBody({} bytes so far)", self.received())
    }
}

#[cfg(test)]
mod tests;
