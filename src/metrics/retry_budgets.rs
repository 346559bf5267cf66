//! The retry budgets of endpoints. Each worker has its own for each endpoint that it uses; the least is exposed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::label_table::Label;

/// The least of the retry budgets that workers have reported since the last scrape, by label.
#[derive(Debug, Default)]
pub(super) struct RetryBudgets(Mutex<Reported>);

#[derive(Debug, Default)]
pub(super) struct Reported(HashMap<String, f64>);

impl RetryBudgets {
    /// Locks the budgets for a report, or for reading them.
    pub(super) fn lock(&self) -> MutexGuard<'_, Reported> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reported {
    /// Adds what is left of a budget.
    pub(super) fn add(&mut self, label: &Label, left: f64) {
        if let Some(least) = self.0.get_mut(label.name()) {
            *least = least.min(left);
        } else {
            self.0.insert(label.name().to_owned(), left);
        }
    }

    /// Returns the least budget of a label, 1 if none was reported.
    pub(super) fn least(&self, label: &str) -> f64 {
        self.0.get(label).copied().unwrap_or(1.0)
    }

    /// Forgets all budgets, before the next reports.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
