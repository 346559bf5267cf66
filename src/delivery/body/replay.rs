//! The part of a caller's body that was sent, kept so that it can be sent again.

use bytes::Bytes;

/// Pieces below this size are copied into one buffer. A piece keeps the whole read buffer that it is part of, so a body
/// sent in single bytes would otherwise take many times its size.
const SMALL: usize = 8 * 1024;

/// The pieces of a body that were read, and the position of the current reader.
#[derive(Debug, Default)]
pub(super) struct ReplayBuffer {
    /// The first piece, stored inline: most bodies have no other.
    first: Option<Bytes>,
    /// The other pieces.
    more: Vec<Bytes>,
    /// Small pieces after those, copied together. The reader has read all of them.
    small: Vec<u8>,
    /// The index of the piece that the reader reads next.
    next: usize,
    /// How many bytes before the first piece were read and dropped.
    dropped: usize,
}

impl ReplayBuffer {
    /// Returns a buffer with a whole body, read to its end.
    pub(super) fn of(whole: Bytes) -> Self {
        let first = (!whole.is_empty()).then_some(whole);
        Self { next: usize::from(first.is_some()), first, ..Self::default() }
    }

    /// Appends a piece, which the reader reads at the same time.
    pub(super) fn push(&mut self, piece: &Bytes) {
        // Most bodies are one small piece. It is not copied.
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

    /// Drops all pieces, and `more` bytes that were read after them.
    pub(super) fn clear(&mut self, more: usize) {
        let pieces: usize = self.pieces().map(Bytes::len).sum();
        *self = Self { dropped: self.dropped + pieces + self.small.len() + more, ..Self::default() };
    }

    /// Returns whether nothing was dropped.
    pub(super) fn is_complete(&self) -> bool {
        self.dropped == 0
    }

    /// Moves the reader to the first piece.
    pub(super) fn rewind(&mut self) {
        self.close_small();
        self.next = 0;
    }

    /// Returns the next piece; `None` if the reader is at the end.
    pub(super) fn next_piece(&mut self) -> Option<Bytes> {
        let piece = self.pieces().nth(self.next)?.clone();
        self.next += 1;
        Some(piece)
    }

    /// Returns whether the reader has read every piece.
    pub(super) fn is_at_end(&self) -> bool {
        self.next == self.count()
    }

    /// Returns how many bytes the reader has read.
    pub(super) fn position(&self) -> usize {
        let pieces: usize = self.pieces().take(self.next).map(Bytes::len).sum();
        self.dropped + pieces + self.small.len()
    }

    /// Returns all pieces as one.
    pub(super) fn into_whole(mut self) -> Bytes {
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

    fn read_again(buffer: &mut ReplayBuffer) -> Vec<u8> {
        buffer.rewind();
        std::iter::from_fn(|| buffer.next_piece()).flatten().collect()
    }

    #[test]
    fn pieces_of_any_size_are_read_again_in_order() {
        let mut replay = ReplayBuffer::default();
        let mut sent = Vec::new();
        for (number, size) in [1, 1, SMALL, 3, SMALL - 1, 5, SMALL + 1, 1].into_iter().enumerate() {
            let piece = Bytes::from(vec![u8::try_from(number).unwrap(); size]);
            replay.push(&piece);
            sent.extend_from_slice(&piece);
            assert_eq!(replay.position(), sent.len());
            assert!(replay.is_at_end());
            if number % 3 == 2 {
                assert_eq!(read_again(&mut replay), sent);
            }
        }
        assert_eq!(read_again(&mut replay), sent);
        assert_eq!(replay.into_whole(), sent);
    }

    #[test]
    fn dropped_bytes_count_towards_the_position() {
        let mut replay = ReplayBuffer::default();
        assert!(replay.is_complete());
        for size in [3, SMALL + 1, 2] {
            replay.push(&Bytes::from(vec![7; size]));
        }
        replay.clear(10);
        assert!(!replay.is_complete() && replay.is_at_end());
        assert_eq!(replay.position(), 3 + SMALL + 1 + 2 + 10);
        replay.clear(5);
        assert_eq!(replay.position(), 3 + SMALL + 1 + 2 + 15);
    }

    #[test]
    fn body_in_single_bytes_takes_about_its_size() {
        let mut replay = ReplayBuffer::default();
        let buffer = Bytes::from(vec![7; 1024 * 1024]);
        for at in 0..buffer.len() {
            replay.push(&buffer.slice(at..=at));
        }
        assert!(replay.count() <= 2 + buffer.len() / SMALL, "{} pieces", replay.count());
        assert!(replay.small.capacity() <= 2 * SMALL);
        assert_eq!(replay.into_whole(), buffer);
    }
}
