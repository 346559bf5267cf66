//! The state of stateful reconnect: the records that a client may have missed, and the number of the client's records that
//! have arrived.
//!
//! Source: HubProtocol.md of ASP.NET Core, "Ack" and "Sequence" messages. Each direction numbers its records of the types 1
//! to 5, starting at 1.

use std::collections::VecDeque;

use bytes::Bytes;

/// The size of the unacknowledged records, in bytes, at which deliveries pause. Clients acknowledge once a second, so this
/// limits the throughput of one client to 1 MiB a second.
const MAX_UNACKNOWLEDGED: usize = 1024 * 1024;

/// The size of the unacknowledged records, in bytes, at which the session ends. Responses to the client's own invocations do
/// not pause, so they can exceed `MAX_UNACKNOWLEDGED`. Chosen: more than `MAX_UNACKNOWLEDGED` and the largest record together,
/// which only a client without acknowledgements reaches.
const MAX_RETAINED: usize = 4 * MAX_UNACKNOWLEDGED;

/// The state of both directions of one connection.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Unacknowledged chunks with the number of records in each, oldest first.
    unacknowledged: VecDeque<(Bytes, u64)>,
    bytes: usize,
    /// The number of the last acknowledged record.
    acknowledged: u64,
    /// The highest number of a record of the client.
    received: u64,
    /// The number of the client's last record on this transport.
    current: u64,
    /// Whether the client must send the number of its next record before other records.
    awaits_sequence: bool,
}

/// A gap in the numbers of the client's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client continues with record {sequence}, but its last record was {received}")]
pub(super) struct Gap {
    pub(super) received: u64,
    pub(super) sequence: u64,
}

impl Replay {
    /// Keeps a chunk with this many numbered records until the client acknowledges it. A pre-encoded frame may hold several.
    pub(super) fn keep(&mut self, chunk: Bytes, records: u64) {
        if records > 0 {
            self.bytes += chunk.len();
            self.unacknowledged.push_back((chunk, records));
        }
    }

    /// Whether deliveries pause until the client acknowledges.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_UNACKNOWLEDGED
    }

    /// Whether the unacknowledged records have reached the size at which the session ends.
    pub(super) fn is_exceeded(&self) -> bool {
        self.bytes >= MAX_RETAINED
    }

    /// Removes every record up to a number. Returns whether any record was removed.
    pub(super) fn acknowledge(&mut self, number: u64) -> bool {
        let before = self.acknowledged;
        while let Some((chunk, records)) = self.unacknowledged.front() {
            if self.acknowledged + records > number {
                break;
            }
            self.acknowledged += records;
            self.bytes -= chunk.len();
            self.unacknowledged.pop_front();
        }
        self.acknowledged > before
    }

    /// Prepares another transport. Returns the number of the first unacknowledged record, and the unacknowledged chunks.
    pub(super) fn resend(&mut self) -> (u64, Vec<Bytes>) {
        self.awaits_sequence = true;
        (self.acknowledged + 1, self.unacknowledged.iter().map(|(chunk, _)| chunk.clone()).collect())
    }

    /// Sets the number of the client's next record on the new transport.
    pub(super) fn resume_at(&mut self, sequence: u64) -> Result<(), Gap> {
        if sequence > self.received + 1 {
            return Err(Gap { received: self.received, sequence });
        }
        self.awaits_sequence = false;
        self.current = sequence.saturating_sub(1);
        Ok(())
    }

    /// Whether the client must still send the number of its next record. Until then, its records are ignored.
    pub(super) const fn awaits_sequence(&self) -> bool {
        self.awaits_sequence
    }

    /// Counts a numbered record of the client. Returns `false` if the record has arrived before.
    pub(super) fn count_received(&mut self) -> bool {
        self.current += 1;
        let is_new = self.current > self.received;
        self.received = self.received.max(self.current);
        is_new
    }

    /// Returns the highest number of a record of the client.
    pub(super) const fn received(&self) -> u64 {
        self.received
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resends_unacknowledged_records_under_their_numbers() {
        let mut replay = Replay::default();
        for record in ["a", "b", "c"] {
            replay.keep(Bytes::from(record), 1);
        }
        replay.keep(Bytes::from("a ping"), 0);
        assert!(replay.acknowledge(1));
        assert_eq!(replay.resend(), (2, vec![Bytes::from("b"), Bytes::from("c")]));
        // A number that is too high acknowledges every record. A number below the last one has no effect.
        assert!(replay.acknowledge(9));
        assert!(!replay.acknowledge(2));
        assert_eq!(replay.resend(), (4, Vec::new()));
        // A chunk is kept until all its records are acknowledged.
        replay.keep(Bytes::from("two"), 2);
        assert!(!replay.acknowledge(4));
        assert_eq!(replay.resend(), (4, vec![Bytes::from("two")]));
    }

    #[test]
    fn ignores_repeated_records_and_detects_missing_ones() {
        let mut replay = Replay::default();
        assert!(replay.count_received() && replay.count_received());
        replay.resend();
        assert!(replay.awaits_sequence());
        assert_eq!(replay.resume_at(4), Err(Gap { received: 2, sequence: 4 }));
        assert_eq!(replay.resume_at(2), Ok(()));
        assert!(!replay.count_received(), "the second record has arrived before");
        assert!(replay.count_received(), "the third has not");
        assert_eq!(replay.received(), 3);
    }

    #[test]
    fn bounds_the_unacknowledged_records() {
        let mut replay = Replay::default();
        replay.keep(Bytes::from(vec![0; MAX_UNACKNOWLEDGED]), 1);
        assert!(replay.is_full() && !replay.is_exceeded());
        replay.keep(Bytes::from(vec![0; MAX_RETAINED - MAX_UNACKNOWLEDGED]), 1);
        assert!(replay.is_exceeded());
        assert!(replay.acknowledge(2));
        assert!(!replay.is_full() && !replay.is_exceeded());
    }
}
