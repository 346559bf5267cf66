//! The memory budget of request bodies that are kept so that they can be sent again. All workers share it.
//!
//! The first [`FREE`] bytes of each body are not counted: most bodies are smaller, and cores then share nothing. When
//! the budget is used up, a body is still forwarded, but no longer kept.

use std::rc::Rc;

use prometheus::{IntCounter, IntGauge};

/// The part of each body that is not counted, in bytes. Most messages have a few KiB, and a call's head and
/// state take as much.
pub(super) const FREE: u64 = 16 * 1024;
/// The granularity of the budget beyond that, in bytes: 16 steps for the largest body, and about one read per
/// step.
const STEP: u64 = 64 * 1024;

/// The memory budget of all bodies.
#[derive(Debug)]
pub struct BodyMemory {
    /// The bytes in use. Shared by all workers.
    pub used: IntGauge,
    /// Bodies that were not kept because the budget was used up.
    pub not_kept: IntCounter,
    /// The budget, in bytes. Workers that take memory at the same time may exceed it by a step each.
    pub limit: u64,
}

/// The memory that one body takes. Dropping it returns the memory to the budget.
#[derive(Debug)]
pub(super) struct HeldMemory {
    budget: Rc<BodyMemory>,
    /// The size of the body that it covers, in bytes; includes the free part.
    held: u64,
}

impl HeldMemory {
    pub(super) fn new(budget: &Rc<BodyMemory>) -> Self {
        Self { budget: Rc::clone(budget), held: FREE }
    }

    /// Grows to cover a body of `bytes`. Returns whether the budget allowed it.
    pub(super) fn reserve(&mut self, bytes: u64) -> bool {
        bytes <= self.held || self.grow(bytes)
    }

    #[cold]
    fn grow(&mut self, bytes: u64) -> bool {
        let more = (bytes - self.held).next_multiple_of(STEP);
        let BodyMemory { used, limit, .. } = &*self.budget;
        let fits = u64::try_from(used.get()).unwrap_or_default().saturating_add(more) <= *limit;
        if fits {
            used.add(i64::try_from(more).unwrap_or(i64::MAX));
            self.held += more;
        }
        fits
    }

    /// Returns whether it takes more than the free part.
    pub(super) fn is_counted(&self) -> bool {
        self.held > FREE
    }

    /// Returns everything beyond the free part to the budget.
    pub(super) fn release(&mut self) {
        let counted = self.held - FREE;
        if counted > 0 {
            self.budget.used.sub(i64::try_from(counted).unwrap_or(i64::MAX));
            self.held = FREE;
        }
    }

    /// Counts a body that is not kept.
    pub(super) fn count_not_kept(&self) {
        self.budget.not_kept.inc();
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
    fn small_bodies_are_not_counted_and_large_ones_return_their_memory() {
        let memory = memory(1024 * 1024);
        let mut small = HeldMemory::new(&memory);
        assert!(small.reserve(FREE));
        assert_eq!(memory.used.get(), 0);
        let mut large = HeldMemory::new(&memory);
        assert!(large.reserve(FREE + 1) && large.reserve(FREE + STEP));
        assert_eq!(memory.used.get().cast_unsigned(), STEP);
        assert!(large.reserve(FREE + STEP + 1));
        assert_eq!(memory.used.get().cast_unsigned(), 2 * STEP);
        drop(large);
        assert_eq!(memory.used.get(), 0);
    }

    #[test]
    fn body_beyond_the_budget_is_refused_until_memory_is_returned() {
        let memory = memory(3 * STEP);
        let (mut first, mut second) = (HeldMemory::new(&memory), HeldMemory::new(&memory));
        assert!(first.reserve(FREE + 2 * STEP));
        assert!(!second.reserve(FREE + 2 * STEP));
        assert!(second.reserve(FREE + STEP), "a refusal takes nothing");
        first.release();
        assert!(second.reserve(FREE + 3 * STEP));
        drop((first, second));
        assert_eq!(memory.used.get(), 0);
    }

    #[test]
    fn body_is_counted_once_it_exceeds_the_free_part() {
        let memory = memory(STEP);
        let mut held = HeldMemory::new(&memory);
        assert!(held.reserve(FREE) && !held.is_counted());
        assert!(held.reserve(FREE + 1) && held.is_counted());
        held.release();
        assert!(!held.is_counted());
    }
}
