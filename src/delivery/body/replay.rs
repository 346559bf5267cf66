//! What was handed out of a caller's body, kept so that it can be handed out again.

use bytes::Bytes;

/// Pieces below this size are copied together. A piece as it was read keeps the whole read buffer it lies in, so a caller
/// that sends single bytes would otherwise make a body cost many times its size.
const SMALL: usize = 8 * 1024;

/// The pieces of a body that were handed out, and how far they were handed out again.
#[derive(Debug, Default)]
pub(super) struct ReplayBuffer {
    /// The first, which is all there is of most bodies, needs no memory of its own.
    first: Option<Bytes>,
    /// Those after the first.
    more: Vec<Bytes>,
    /// Small pieces behind the last of those, copied together. All of it was handed out.
    small: Vec<u8>,
    /// How many pieces come before the one that is handed out next.
    next: usize,
    /// How many bytes were handed out before those that are kept, if any; they cannot be handed out again.
    forgotten: usize,
}

impl ReplayBuffer {
    /// Keeps a whole body, all of which was handed out.
    pub(super) fn of(whole: Bytes) -> Self {
        let first = (!whole.is_empty()).then_some(whole);
        Self { next: usize::from(first.is_some()), first, ..Self::default() }
    }

    /// Keeps a piece that is being handed out for the first time, after everything before it.
    pub(super) fn keep(&mut self, piece: &Bytes) {
        // Most bodies are one small piece, which need not be copied.
        if self.first.is_none() {
            self.first = Some(piece.clone());
        } else if piece.len() >= SMALL {
            self.close_small();
            self.more.push(piece.clone());
        } else {
            self.small.extend_from_slice(piece);
            if self.small.len() >= SMALL {
                self.close_small();
            }
        }
        self.next = self.count();
    }

    /// Forgets what was handed out, this many bytes more included.
    pub(super) fn forget(&mut self, more: usize) {
        let handed_out: usize = self.pieces().map(Bytes::len).sum();
        *self = Self { forgotten: self.forgotten + handed_out + self.small.len() + more, ..Self::default() };
    }

    /// Whether all that was handed out can be handed out again.
    pub(super) fn is_whole(&self) -> bool {
        self.forgotten == 0
    }

    /// Begins anew: the first piece is handed out next.
    pub(super) fn rewind(&mut self) {
        self.close_small();
        self.next = 0;
    }

    /// Hands out the next piece again; `None` when what comes next was never handed out.
    pub(super) fn again(&mut self) -> Option<Bytes> {
        let piece = self.pieces().nth(self.next)?.clone();
        self.next += 1;
        Some(piece)
    }

    /// Whether all that is kept was handed out to the one that reads now.
    pub(super) fn is_at_end(&self) -> bool {
        self.next == self.count()
    }

    /// Returns how many bytes were handed out to the one that reads now.
    pub(super) fn handed_out(&self) -> usize {
        let pieces: usize = self.pieces().take(self.next).map(Bytes::len).sum();
        self.forgotten + pieces + self.small.len()
    }

    /// Returns all of it in one piece.
    pub(super) fn whole(mut self) -> Bytes {
        self.close_small();
        if self.more.is_empty() {
            return self.first.unwrap_or_default();
        }
        let mut whole = Vec::with_capacity(self.pieces().map(Bytes::len).sum());
        self.pieces().for_each(|piece| whole.extend_from_slice(piece));
        whole.into()
    }

    fn close_small(&mut self) {
        if !self.small.is_empty() {
            self.more.push(std::mem::take(&mut self.small).into());
        }
    }

    fn pieces(&self) -> impl Iterator<Item = &Bytes> {
        self.first.iter().chain(&self.more)
    }

    fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_again(kept: &mut ReplayBuffer) -> Vec<u8> {
        kept.rewind();
        std::iter::from_fn(|| kept.again()).flatten().collect()
    }

    #[test]
    fn pieces_of_any_size_come_again_in_order() {
        let mut kept = ReplayBuffer::default();
        let mut sent = Vec::new();
        for (number, size) in [1, 1, SMALL, 3, SMALL - 1, 5, SMALL + 1, 1].into_iter().enumerate() {
            let piece = Bytes::from(vec![u8::try_from(number).unwrap(); size]);
            kept.keep(&piece);
            sent.extend_from_slice(&piece);
            assert_eq!(kept.handed_out(), sent.len());
            assert!(kept.is_at_end());
            if number % 3 == 2 {
                assert_eq!(read_again(&mut kept), sent);
            }
        }
        assert_eq!(read_again(&mut kept), sent);
        assert_eq!(kept.whole(), sent);
    }

    #[test]
    fn what_was_forgotten_still_counts_as_handed_out() {
        let mut kept = ReplayBuffer::default();
        assert!(kept.is_whole());
        for size in [3, SMALL + 1, 2] {
            kept.keep(&Bytes::from(vec![7; size]));
        }
        kept.forget(10);
        assert!(!kept.is_whole() && kept.is_at_end());
        assert_eq!(kept.handed_out(), 3 + SMALL + 1 + 2 + 10);
        kept.forget(5);
        assert_eq!(kept.handed_out(), 3 + SMALL + 1 + 2 + 15);
    }

    #[test]
    fn body_in_single_bytes_costs_about_its_size() {
        let mut kept = ReplayBuffer::default();
        let buffer = Bytes::from(vec![7; 1024 * 1024]);
        for at in 0..buffer.len() {
            kept.keep(&buffer.slice(at..=at));
        }
        assert!(kept.count() <= 2 + buffer.len() / SMALL, "{} pieces", kept.count());
        assert!(kept.small.capacity() <= 2 * SMALL);
        assert_eq!(kept.whole(), buffer);
    }
}
