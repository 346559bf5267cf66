//! The bookkeeping of stateful reconnect: what a client may have missed, and how far it was heard. Pure state; knows no
//! transport and no time.
//!
//! Source: HubProtocol.md of ASP.NET Core, "Ack" and "Sequence" messages. Only records of the types 1 to 5 are numbered,
//! from 1 on, in each direction for itself.

use std::collections::VecDeque;

use bytes::Bytes;

/// How many bytes may wait for the client to acknowledge them before nothing more is sent. Clients acknowledge once a
/// second, so this is what one client is sent a second at most.
const MAX_UNACKNOWLEDGED: usize = 1024 * 1024;

/// How many bytes may wait in all, in records that do not wait for room: answers to what the client itself calls. More than
/// `MAX_UNACKNOWLEDGED` and the largest record together, so that only a client that does not acknowledge comes so far.
const MAX_KEPT: usize = 4 * MAX_UNACKNOWLEDGED;

/// What is known of both directions of one connection.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// What the client has not acknowledged, the oldest first, and how many records are in each piece.
    unacknowledged: VecDeque<(Bytes, u64)>,
    bytes: usize,
    /// The number of the last record that was acknowledged.
    acknowledged: u64,
    /// The highest number that was heard of the client.
    heard: u64,
    /// The number of the last record that the client sent on this transport.
    at: u64,
    /// The client is to say first where it begins.
    awaits_sequence: bool,
}

/// A client begins after what was heard of it: something is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client goes on with record {sequence}, but was heard up to record {heard} only")]
pub(super) struct Gap {
    pub(super) heard: u64,
    pub(super) sequence: u64,
}

impl Replay {
    /// Keeps a piece that is about to be sent, with this many numbered records in it: callers may have made it, of any
    /// number.
    pub(super) fn keep(&mut self, piece: Bytes, records: u64) {
        if records > 0 {
            self.bytes += piece.len();
            self.unacknowledged.push_back((piece, records));
        }
    }

    /// Whether the client must acknowledge something before it is sent more.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_UNACKNOWLEDGED
    }

    /// Whether so much waits that the client cannot be one that acknowledges what it is sent.
    pub(super) fn is_overdue(&self) -> bool {
        self.bytes >= MAX_KEPT
    }

    /// The client has received everything up to a number. `false` if that was known.
    pub(super) fn acknowledge(&mut self, number: u64) -> bool {
        let before = self.acknowledged;
        while let Some((piece, records)) = self.unacknowledged.front() {
            if self.acknowledged + records > number {
                break;
            }
            self.acknowledged += records;
            self.bytes -= piece.len();
            self.unacknowledged.pop_front();
        }
        self.acknowledged > before
    }

    /// The number of the first record that the client is sent on another transport, and the pieces from there on.
    pub(super) fn again(&mut self) -> (u64, Vec<Bytes>) {
        self.awaits_sequence = true;
        (self.acknowledged + 1, self.unacknowledged.iter().map(|(piece, _)| piece.clone()).collect())
    }

    /// The client begins with this number on its new transport.
    pub(super) fn begin(&mut self, sequence: u64) -> Result<(), Gap> {
        if sequence > self.heard + 1 {
            return Err(Gap { heard: self.heard, sequence });
        }
        self.awaits_sequence = false;
        self.at = sequence.saturating_sub(1);
        Ok(())
    }

    /// Whether the client has yet to say where it begins: until then, what it says does not count.
    pub(super) const fn awaits_sequence(&self) -> bool {
        self.awaits_sequence
    }

    /// The client has sent a numbered record. `false` if it was heard before.
    pub(super) fn is_news(&mut self) -> bool {
        self.at += 1;
        let is_news = self.at > self.heard;
        self.heard = self.heard.max(self.at);
        is_news
    }

    /// Up to which number the client was heard.
    pub(super) const fn heard(&self) -> u64 {
        self.heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_acknowledged_is_sent_again_under_its_number() {
        let mut replay = Replay::default();
        for record in ["a", "b", "c"] {
            replay.keep(Bytes::from(record), 1);
        }
        replay.keep(Bytes::from("a ping"), 0);
        assert!(replay.acknowledge(1));
        assert_eq!(replay.again(), (2, vec![Bytes::from("b"), Bytes::from("c")]));
        // More than was sent, and less than before, change nothing that is wrong.
        assert!(replay.acknowledge(9));
        assert!(!replay.acknowledge(2));
        assert_eq!(replay.again(), (4, Vec::new()));
        // Half of a piece is not all of it.
        replay.keep(Bytes::from("two"), 2);
        assert!(!replay.acknowledge(4));
        assert_eq!(replay.again(), (4, vec![Bytes::from("two")]));
    }

    #[test]
    fn what_was_heard_before_is_no_news_and_a_gap_is_noticed() {
        let mut replay = Replay::default();
        assert!(replay.is_news() && replay.is_news());
        replay.again();
        assert!(replay.awaits_sequence());
        assert_eq!(replay.begin(4), Err(Gap { heard: 2, sequence: 4 }));
        assert_eq!(replay.begin(2), Ok(()));
        assert!(!replay.is_news(), "the second was heard");
        assert!(replay.is_news(), "the third was not");
        assert_eq!(replay.heard(), 3);
    }

    #[test]
    fn what_waits_to_be_acknowledged_is_bounded() {
        let mut replay = Replay::default();
        replay.keep(Bytes::from(vec![0; MAX_UNACKNOWLEDGED]), 1);
        assert!(replay.is_full() && !replay.is_overdue());
        replay.keep(Bytes::from(vec![0; MAX_KEPT - MAX_UNACKNOWLEDGED]), 1);
        assert!(replay.is_overdue());
        assert!(replay.acknowledge(2));
        assert!(!replay.is_full() && !replay.is_overdue());
    }
}
