//! Limits how many frames without content a caller may send, and how many streams it may reset.
//!
//! h2 answers each PING and SETTINGS and forgets each reset stream at no cost to the caller. It does not limit resets of
//! accepted streams, each of which costs a call to an endpoint. So frame headers are counted as they are read. Nine bytes of
//! each frame are read, nothing is copied.

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
const HEAD_LENGTH: usize = 9;

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
/// Bytes written per frame that they add. Libraries send two `WINDOW_UPDATE` for a `DATA` frame of 16 KiB; those with
/// small windows more.
const BYTES_PER_FRAME: usize = 256;
/// Frames that each second adds, for keep-alive PING and the like.
const FRAMES_PER_SECOND: u32 = 20;

/// Streams that a caller may reset before any response. nginx closes after twice the streams that may be open at once,
/// Envoy if over half of 500 were reset; each answered stream adds one.
const FIRST_RESETS: u32 = 100;
/// The most resets that can accumulate.
const MOST_RESETS: u32 = 500;
/// Resets that each second adds, for callers whose calls all time out.
const RESETS_PER_SECOND: u32 = 10;

/// The frames and resets that a caller may still send on one connection.
#[derive(Debug)]
pub(in crate::serve) struct FrameBudget {
    frames: Allowance<MOST_FRAMES, FRAMES_PER_SECOND>,
    resets: Allowance<MOST_RESETS, RESETS_PER_SECOND>,
    /// Bytes written that have not added a frame yet.
    written: Cell<usize>,
    is_exceeded: Cell<bool>,
}

impl FrameBudget {
    pub(in crate::serve) fn new() -> Rc<Self> {
        let (frames, resets) = (Allowance::new(FIRST_FRAMES), Allowance::new(FIRST_RESETS));
        Rc::new(Self { frames, resets, written: Cell::new(0), is_exceeded: Cell::new(false) })
    }

    /// Whether the caller has exceeded its budget.
    pub(super) fn is_exceeded(&self) -> bool {
        self.is_exceeded.get()
    }

    /// Records that a response was sent completely.
    pub(super) fn answered(&self) {
        self.resets.earn(1);
    }

    fn wrote(&self, bytes: usize) {
        let written = self.written.get() + bytes;
        self.written.set(written % BYTES_PER_FRAME);
        self.frames.earn(u32::try_from(written / BYTES_PER_FRAME).unwrap_or(MOST_FRAMES));
    }

    /// Counts a frame that the caller sent.
    fn received(&self, head: [u8; HEAD_LENGTH]) {
        let [length_0, length_1, length_2, kind, flags, ..] = head;
        let is_empty = [length_0, length_1, length_2] == [0; 3];
        let is_allowed = match kind {
            HEADERS => {
                self.frames.earn(FRAMES_PER_REQUEST);
                true
            }
            DATA => !is_empty || flags & END_STREAM != 0 || self.frames.spend(),
            RST_STREAM => self.resets.spend(),
            _ => self.frames.spend(),
        };
        if !is_allowed {
            self.is_exceeded.set(true);
        }
    }
}

/// A number that is spent and grows with time.
#[derive(Debug)]
struct Allowance<const MOST: u32, const PER_SECOND: u32> {
    left: Cell<u32>,
    grown_at: Cell<Instant>,
}

impl<const MOST: u32, const PER_SECOND: u32> Allowance<MOST, PER_SECOND> {
    fn new(first: u32) -> Self {
        Self { left: Cell::new(first), grown_at: Cell::new(Instant::now()) }
    }

    fn earn(&self, count: u32) {
        self.left.set(self.left.get().saturating_add(count).min(MOST));
    }

    /// Spends one. Returns whether any was left.
    fn spend(&self) -> bool {
        if self.left.get() == 0 {
            self.grow();
        }
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    /// Adds what has grown. Reads the clock, so it is called only when nothing is left.
    #[cold]
    fn grow(&self) {
        let elapsed = self.grown_at.get().elapsed();
        let grown = elapsed.as_millis() * u128::from(PER_SECOND) / Duration::from_secs(1).as_millis();
        let grown = u32::try_from(grown).unwrap_or(MOST);
        if grown > 0 {
            self.grown_at.set(Instant::now());
            self.earn(grown);
        }
    }
}

/// Counts the frames of a connection as they are read.
pub(in crate::serve) struct FrameCounter {
    budget: Rc<FrameBudget>,
    /// The header of the next frame, as far as it was read.
    head: [u8; HEAD_LENGTH],
    head_length: usize,
    /// The bytes before the next frame header.
    skip: usize,
}

impl FrameCounter {
    /// Makes the counter of a connection whose preface is not read yet.
    pub(in crate::serve) fn new(budget: &Rc<FrameBudget>) -> Self {
        Self { budget: Rc::clone(budget), head: [0; HEAD_LENGTH], head_length: 0, skip: PREFACE_LENGTH }
    }

    fn count(&mut self, mut bytes: &[u8]) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            let missing = self.head.get_mut(self.head_length..).unwrap_or_default();
            let taken = missing.len().min(bytes.len());
            for (to, from) in missing.iter_mut().zip(bytes) {
                *to = *from;
            }
            bytes = bytes.get(taken..).unwrap_or_default();
            self.head_length += taken;
            if self.head_length == HEAD_LENGTH {
                let [length_0, length_1, length_2, ..] = self.head;
                self.head_length = 0;
                self.skip = usize::from(length_0) << 16 | usize::from(length_1) << 8 | usize::from(length_2);
                self.budget.received(self.head);
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

    fn wrote(&self, bytes: usize) {
        self.budget.wrote(bytes);
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
    async fn frames_are_found_whatever_pieces_they_come_in() {
        // A payload that looks like the heads of many PING frames.
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
    async fn time_and_answers_allow_more() {
        let budget = count(&vec![frame(RST_STREAM, 0, &[0; 4]); FIRST_RESETS as usize], 4096);
        budget.answered();
        assert!(budget.resets.spend() && !budget.resets.spend());
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!((0..5).filter(|_| budget.resets.spend()).count(), 2);
        budget.wrote(BYTES_PER_FRAME - 1);
        budget.wrote(BYTES_PER_FRAME + 1);
        assert_eq!(budget.frames.left.get(), FIRST_FRAMES + 2);
    }
}
