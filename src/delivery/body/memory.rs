//! The memory that request bodies take while they are kept, so that they can be sent again. All workers share one budget.
//!
//! The first [`FREE`] bytes of each body are not counted: most bodies are smaller, and then nothing is shared between cores.
//! Beyond the budget a body still passes, but is kept no longer.

use std::rc::Rc;

use prometheus::{IntCounter, IntGauge};

/// What each body has without being counted. Chosen: most messages have a few KiB, and a call's head and state take as much.
pub(super) const FREE: u64 = 16 * 1024;
/// What is taken at once beyond that: 16 times for the largest body, and no finer than the pieces that are read.
const STEP: u64 = 64 * 1024;

/// The memory that all bodies may take together, as one worker sees it.
#[derive(Debug)]
pub struct BodyMemory {
    /// What is taken. Shared by all workers.
    pub used: IntGauge,
    /// Bodies that were not kept, since there was nothing left.
    pub not_kept: IntCounter,
    /// In bytes. Two workers that look at the same time may exceed it by a step each.
    pub limit: u64,
}

/// The memory that one body takes. It is given back when this is dropped.
#[derive(Debug)]
pub(super) struct HeldMemory {
    of: Rc<BodyMemory>,
    /// What it may hold, the free part included.
    held: u64,
}

impl HeldMemory {
    pub(super) fn new(of: &Rc<BodyMemory>) -> Self {
        Self { of: Rc::clone(of), held: FREE }
    }

    /// Makes it so many bytes in all. Returns whether there was room.
    pub(super) fn hold(&mut self, bytes: u64) -> bool {
        bytes <= self.held || self.grow(bytes)
    }

    #[cold]
    fn grow(&mut self, bytes: u64) -> bool {
        let more = (bytes - self.held).next_multiple_of(STEP);
        let BodyMemory { used, limit, .. } = &*self.of;
        let is_room = u64::try_from(used.get()).unwrap_or_default().saturating_add(more) <= *limit;
        if is_room {
            used.add(i64::try_from(more).unwrap_or(i64::MAX));
            self.held += more;
        }
        is_room
    }

    /// Whether it holds more than the free part.
    pub(super) fn is_counted(&self) -> bool {
        self.held > FREE
    }

    /// Gives back what is beyond the free part.
    pub(super) fn release(&mut self) {
        let counted = self.held - FREE;
        if counted > 0 {
            self.of.used.sub(i64::try_from(counted).unwrap_or(i64::MAX));
            self.held = FREE;
        }
    }

    /// Counts a body that is not kept.
    pub(super) fn not_kept(&self) {
        self.of.not_kept.inc();
    }
}

impl Drop for HeldMemory {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(limit: u64) -> Rc<BodyMemory> {
        Rc::new(BodyMemory {
            used: IntGauge::new("used", "used").unwrap(),
            not_kept: IntCounter::new("not_kept", "not_kept").unwrap(),
            limit,
        })
    }

    #[test]
    fn small_bodies_are_not_counted_and_large_ones_give_back_what_they_took() {
        let memory = memory(1024 * 1024);
        let mut small = HeldMemory::new(&memory);
        assert!(small.hold(FREE));
        assert_eq!(memory.used.get(), 0);
        let mut large = HeldMemory::new(&memory);
        assert!(large.hold(FREE + 1) && large.hold(FREE + STEP));
        assert_eq!(memory.used.get().cast_unsigned(), STEP);
        assert!(large.hold(FREE + STEP + 1));
        assert_eq!(memory.used.get().cast_unsigned(), 2 * STEP);
        drop(large);
        assert_eq!(memory.used.get(), 0);
    }

    #[test]
    fn what_is_beyond_the_budget_is_refused_until_something_is_given_back() {
        let memory = memory(3 * STEP);
        let (mut first, mut second) = (HeldMemory::new(&memory), HeldMemory::new(&memory));
        assert!(first.hold(FREE + 2 * STEP));
        assert!(!second.hold(FREE + 2 * STEP));
        assert!(second.hold(FREE + STEP), "a refusal takes nothing");
        first.release();
        assert!(second.hold(FREE + 3 * STEP));
        drop((first, second));
        assert_eq!(memory.used.get(), 0);
    }
}
