//! Limits how many frames without content a caller may send, and how many streams it may reset.
//!
//! A caller can make h2 respond to PING and SETTINGS without limit. h2 does not limit resets of accepted streams either, each of
//! which costs a call to an endpoint. So frames are counted as they are read, by their headers of nine bytes.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Instant;

use super::super::caller_stream::{ByteFilter, Source};

/// The length of the connection preface (RFC 9113, section 3.4).
const PREFACE_LENGTH: usize = 24;
/// The length of a frame header (RFC 9113, section 4.1).
const HEADER_LENGTH: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// Frames without content that a caller may send at first. Chosen: ten times what libraries send at the
/// start of a connection, for each of 10 streams.
const FIRST_FRAMES: u32 = 1_000;
/// The most frames that can accumulate. Chosen: what callers send while they read one large response.
const MOST_FRAMES: u32 = 10_000;
/// Frames that a request adds: a library sends up to two `WINDOW_UPDATE` and a `PRIORITY` for each.
const FRAMES_PER_REQUEST: u32 = 4;
/// The written bytes that add one frame. Libraries send two `WINDOW_UPDATE` for a `DATA` frame of 16 KiB; those with
/// small windows more.
const BYTES_PER_FRAME: usize = 256;
/// Frames that each second adds, for keep-alive PING and the like.
const FRAMES_PER_SECOND: u32 = 20;

/// Streams that a caller may reset before any response. Each complete response adds one. nginx closes the connection after twice
/// the streams that may be open at once, Envoy if over half of 500 were reset.
const FIRST_RESETS: u32 = 100;
/// The most resets that can accumulate.
const MOST_RESETS: u32 = 500;
/// Resets that each second adds, for callers whose calls all time out.
const RESETS_PER_SECOND: u32 = 10;

/// The frames and resets that a caller may still send on one connection.
#[derive(Debug)]
pub(in crate::serve) struct FrameBudget {
    frames: TokenBucket<MOST_FRAMES, FRAMES_PER_SECOND>,
    resets: TokenBucket<MOST_RESETS, RESETS_PER_SECOND>,
    /// Bytes written that have not added a frame yet.
    written: Cell<usize>,
    is_exceeded: Cell<bool>,
}

impl FrameBudget {
    pub(in crate::serve) fn new() -> Rc<Self> {
        let (frames, resets) = (TokenBucket::new(FIRST_FRAMES), TokenBucket::new(FIRST_RESETS));
        Rc::new(Self { frames, resets, written: Cell::new(0), is_exceeded: Cell::new(false) })
    }

    /// Returns whether the caller has exceeded its budget.
    pub(super) fn is_exceeded(&self) -> bool {
        self.is_exceeded.get()
    }

    /// Records that a response was sent completely.
    pub(super) fn record_response(&self) {
        self.resets.add(1);
    }

    fn record_written(&self, bytes: usize) {
        let written = self.written.get() + bytes;
        self.written.set(written % BYTES_PER_FRAME);
        self.frames.add(u32::try_from(written / BYTES_PER_FRAME).unwrap_or(MOST_FRAMES));
    }

    /// Counts a frame that the caller sent.
    fn record_frame(&self, header: [u8; HEADER_LENGTH]) {
        let [length_0, length_1, length_2, kind, flags, ..] = header;
        let is_empty = [length_0, length_1, length_2] == [0; 3];
        let is_allowed = match kind {
            HEADERS => {
                self.frames.add(FRAMES_PER_REQUEST);
                true
            }
            DATA => !is_empty || flags & END_STREAM != 0 || self.frames.take(),
            RST_STREAM => self.resets.take(),
            _ => self.frames.take(),
        };
        if !is_allowed {
            self.is_exceeded.set(true);
        }
    }
}

/// A token bucket.
#[derive(Debug)]
struct TokenBucket<const MOST: u32, const PER_SECOND: u32> {
    left: Cell<u32>,
    refilled_at: Cell<Instant>,
}

impl<const MOST: u32, const PER_SECOND: u32> TokenBucket<MOST, PER_SECOND> {
    fn new(first: u32) -> Self {
        Self { left: Cell::new(first), refilled_at: Cell::new(Instant::now()) }
    }

    fn add(&self, count: u32) {
        self.left.set(self.left.get().saturating_add(count).min(MOST));
    }

    /// Takes one token. Returns whether one was left.
    fn take(&self) -> bool {
        if self.left.get() == 0 {
            self.refill();
        }
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    /// Adds the tokens of the elapsed time. Reads the clock, so it is called only when the bucket is empty.
    #[cold]
    fn refill(&self) {
        let elapsed = self.refilled_at.get().elapsed();
        let added = elapsed.as_millis() * u128::from(PER_SECOND) / Duration::from_secs(1).as_millis();
        let added = u32::try_from(added).unwrap_or(MOST);
        if added > 0 {
            self.refilled_at.set(Instant::now());
            self.add(added);
        }
    }
}

/// Counts the frames of a connection as they are read.
pub(in crate::serve) struct FrameCounter {
    budget: Rc<FrameBudget>,
    /// The header of the next frame, as far as it was read.
    header: [u8; HEADER_LENGTH],
    header_length: usize,
    /// The number of bytes before the next frame header.
    skip: usize,
}

impl FrameCounter {
    /// Makes the counter of a connection whose preface is not read yet.
    pub(in crate::serve) fn new(budget: &Rc<FrameBudget>) -> Self {
        Self { budget: Rc::clone(budget), header: [0; HEADER_LENGTH], header_length: 0, skip: PREFACE_LENGTH }
    }

    fn count(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            let missing = self.header.get_mut(self.header_length..).unwrap_or_default();
            let taken = missing.len().min(bytes.len());
            for (to, from) in missing.iter_mut().zip(bytes) {
                *to = *from;
            }
            bytes = bytes.get(taken..).unwrap_or_default();
            self.header_length += taken;
            if self.header_length == HEADER_LENGTH {
                let [length_0, length_1, length_2, ..] = self.header;
                self.header_length = 0;
                self.skip = usize::from(length_0) << 16 | usize::from(length_1) << 8 | usize::from(length_2);
                self.budget.record_frame(self.header);
            }
        }
    }
}

impl<S: AsyncRead + Unpin> ByteFilter<S> for FrameCounter {
    fn poll_read(
        &mut self,
        source: &mut Source<S>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.budget.is_exceeded() {
            // The connection is closing; nothing more is read.
            return Poll::Pending;
        }
        let before = into.filled().len();
        let read = Pin::new(source).poll_read(cx, into);
        self.count(into.filled().get(before..).unwrap_or_default());
        read
    }

    fn record_written(&self, bytes: usize) {
        self.budget.record_written(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// Counts frames that are read in pieces of `at_once` bytes.
    fn count(frames: &[Vec<u8>], at_once: usize) -> Rc<FrameBudget> {
        let budget = FrameBudget::new();
        let mut counter = FrameCounter::new(&budget);
        let bytes = [vec![b'P'; PREFACE_LENGTH], frames.concat()].concat();
        bytes.chunks(at_once).for_each(|piece| counter.count(piece));
        budget
    }

    #[tokio::test(start_paused = true)]
    async fn counts_frames_however_the_bytes_are_split() {
        // A payload that equals many PING frames.
        let data = frame(DATA, 0, &frame(6, 0, &[]).repeat(2_000));
        let frames: Vec<_> = std::iter::once(data).chain((0..FIRST_FRAMES).map(|_| frame(6, 0, &[0; 8]))).collect();
        for at_once in [1, 2, 7, 9, 4096, usize::MAX] {
            let budget = count(&frames, at_once);
            assert_eq!((budget.frames.left.get(), budget.is_exceeded()), (0, false), "{at_once}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn floods_exceed_the_budget_and_requests_do_not() {
        let many = FIRST_FRAMES as usize + 1;
        for (kind, payload) in [(2, 5), (4, 0), (6, 8), (8, 4), (9, 0), (DATA, 0), (200, 3)] {
            let flood = vec![frame(kind, 0, &vec![0; payload]); many];
            assert!(count(&flood, 4096).is_exceeded(), "frames of type {kind}");
        }
        let resets = [frame(HEADERS, 4, b"x"), frame(RST_STREAM, 0, &[0; 4])].concat();
        assert!(!count(&vec![resets.clone(); FIRST_RESETS as usize], 4096).is_exceeded());
        assert!(count(&vec![resets; FIRST_RESETS as usize + 1], 4096).is_exceeded());
        let request = [frame(HEADERS, 4, b"x"), frame(8, 0, &[0; 4]), frame(8, 0, &[0; 4]), frame(DATA, 1, b"")];
        assert!(!count(&vec![request.concat(); 100_000], 4096).is_exceeded());
    }

    #[tokio::test(start_paused = true)]
    async fn time_responses_and_written_bytes_add_to_the_budget() {
        let budget = count(&vec![frame(RST_STREAM, 0, &[0; 4]); FIRST_RESETS as usize], 4096);
        budget.record_response();
        assert!(budget.resets.take() && !budget.resets.take());
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!((0..5).filter(|_| budget.resets.take()).count(), 2);
        budget.record_written(BYTES_PER_FRAME - 1);
        budget.record_written(BYTES_PER_FRAME + 1);
        assert_eq!(budget.frames.left.get(), FIRST_FRAMES + 2);
    }
}
