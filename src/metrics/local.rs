//! Thread-local building blocks of a worker's counts.

use std::cell::{Cell, RefCell};

use prometheus::IntGauge;

/// Handles that are resolved when first used, since most combinations of labels never occur.
pub(super) struct Lazy<T>(RefCell<Vec<Option<T>>>);

impl<T> Lazy<T> {
    /// Makes `count` unresolved handles.
    pub(super) fn new(count: usize) -> Self {
        Self(RefCell::new((0..count).map(|_| None).collect()))
    }

    /// Passes the handle at `index` to `use_it`, resolving it first if needed. Ignores an index out of range.
    pub(super) fn with(&self, index: usize, resolve: impl FnOnce() -> T, use_it: impl FnOnce(&mut T)) {
        if let Some(slot) = self.0.borrow_mut().get_mut(index) {
            use_it(slot.get_or_insert_with(resolve));
        }
    }

    /// Calls `act` with every resolved handle.
    pub(super) fn for_each(&self, mut act: impl FnMut(&T)) {
        self.0.borrow().iter().flatten().for_each(&mut act);
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
