//! Thread-local building blocks of a worker's counts.

use std::cell::{Cell, RefCell};

use prometheus::local::LocalIntCounter;
use prometheus::{IntCounterVec, IntGauge};

use super::label_table::Label;
use super::labels::{CODE_COUNT, code_index, code_label};

/// What a worker keeps for each label that it has used.
pub(super) struct ByLabel<T>(RefCell<Vec<Option<(Label, T)>>>);

impl<T> ByLabel<T> {
    /// Passes what is kept for a label to `use_it`. Makes it first if the label is new to this worker; what was kept for a
    /// former label in the same slot is dropped.
    pub(super) fn with<R>(&self, label: &Label, make: impl FnOnce(&Label) -> T, use_it: impl FnOnce(&mut T) -> R) -> R {
        let mut slots = self.0.borrow_mut();
        match slots.get_mut(label.slot()) {
            Some(Some((known, kept))) if known.is_same(label) => use_it(kept),
            Some(slot) => use_it(&mut slot.insert((label.clone(), make(label))).1),
            None => {
                slots.resize_with(label.slot() + 1, || None);
                drop(slots);
                self.with(label, make, use_it)
            }
        }
    }

    /// Calls `act` with everything that is kept.
    pub(super) fn for_each(&self, mut act: impl FnMut(&Label, &mut T)) {
        self.0.borrow_mut().iter_mut().flatten().for_each(|(label, kept)| act(label, kept));
    }
}

impl<T> Default for ByLabel<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

/// Counters by operation and status for one label, made at the first use: most combinations never occur.
#[derive(Default)]
pub(super) struct CodeCounters(Vec<(usize, LocalIntCounter)>);

impl CodeCounters {
    /// Counts a response with a status. `names` are the labels: that of these counters and that of the operation.
    pub(super) fn count(&mut self, operation: usize, code: u16, shared: &IntCounterVec, names: [&str; 2]) {
        let key = operation * CODE_COUNT + code_index(code);
        match self.0.binary_search_by_key(&key, |(key, _)| *key) {
            Ok(at) => {
                if let Some((_, counter)) = self.0.get(at) {
                    counter.inc();
                }
            }
            Err(at) => {
                let [name, operation] = names;
                let counter = shared.with_label_values(&[name, operation, code_label(code)]).local();
                counter.inc();
                self.0.insert(at, (key, counter));
            }
        }
    }

    /// Flushes the counts to the shared counters.
    pub(super) fn flush(&self) {
        self.0.iter().for_each(|(_, counter)| counter.flush());
    }
}

impl Drop for CodeCounters {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A worker's share of a gauge, and how much of it has been flushed.
#[derive(Default)]
pub(super) struct GaugeShare {
    value: Cell<i64>,
    flushed: Cell<i64>,
}

impl GaugeShare {
    /// Returns the worker's share.
    pub(super) fn get(&self) -> i64 {
        self.value.get()
    }

    /// Changes the worker's share.
    pub(super) fn add(&self, change: i64) {
        self.value.set(self.value.get() + change);
    }

    /// Adds what has changed since the last flush to the shared gauge.
    pub(super) fn flush(&self, gauge: &IntGauge) {
        gauge.add(self.value.get() - self.flushed.replace(self.value.get()));
    }
}
