//! The names that label series. At most a configured number of each kind have series of their own; the others share `_other`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use prometheus::proto::{Metric, MetricFamily};

/// The name that labels the series of all names without series of their own. Configured names do not begin with `_`.
const OTHER: &str = "_other";

/// A name that labels series. Cloning shares it.
#[derive(Clone)]
pub struct Label(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    /// The index of the label in what a worker keeps by label. Two labels in force never have the same one.
    slot: usize,
}

impl Label {
    /// Returns a label for what has no series of its own.
    pub fn other() -> Self {
        Self::new(OTHER.into(), 0)
    }

    fn new(name: Arc<str>, slot: usize) -> Self {
        Self(Arc::new(Inner { name, slot }))
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub(super) fn slot(&self) -> usize {
        self.0.slot
    }

    /// Returns whether both are the same label, not only of the same name: a name that is removed from the configuration and
    /// added again has another label, since the series of the first may have been removed.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The labels of one kind of names, such as those of endpoints.
#[derive(Clone, Debug)]
pub struct LabelTable {
    max: usize,
    own: HashMap<Arc<str>, Label>,
    /// The names that share `_other`.
    shared: HashSet<Arc<str>>,
    other: Label,
}

impl LabelTable {
    /// Makes a table without names, in which at most `max` names will have series of their own.
    pub fn new(max: usize) -> Self {
        Self { max, own: HashMap::new(), shared: HashSet::new(), other: Label::other() }
    }

    /// Returns the table of the next configuration, whose names may repeat. A name keeps its label as long as it is
    /// configured, so that a name that is added or removed changes no series of another. The first of the new names, in
    /// order, get what is left of the maximum.
    #[must_use]
    pub fn next<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Self {
        let mut next = Self::new(self.max);
        next.other.clone_from(&self.other);
        for name in names.clone() {
            if let Some((name, label)) = self.own.get_key_value(name) {
                next.own.entry(Arc::clone(name)).or_insert_with(|| label.clone());
            } else if let Some(name) = self.shared.get(name) {
                next.shared.insert(Arc::clone(name));
            }
        }
        let used: HashSet<usize> = next.own.values().map(Label::slot).collect();
        // `_other` has the first slot.
        let mut free = (1..=self.max).filter(|slot| !used.contains(slot));
        for name in names {
            if next.own.contains_key(name) || next.shared.contains(name) {
                continue;
            }
            let name: Arc<str> = name.into();
            match free.next() {
                Some(slot) => _ = next.own.insert(Arc::clone(&name), Label::new(name, slot)),
                None => _ = next.shared.insert(name),
            }
        }
        next
    }

    /// Returns the label of a name.
    pub fn get(&self, name: &str) -> &Label {
        self.own.get(name).unwrap_or(&self.other)
    }

    /// Returns the label of a name that may not be part of this configuration. The series of such a name are pruned at the next
    /// scrape, unless the next configuration has it.
    pub(super) fn label_name<'a>(&'a self, name: &'a str) -> &'a str {
        if self.shared.contains(name) { self.other.name() } else { name }
    }

    /// Returns the names that label series: those with series of their own, and `_other` if any name shares it.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let other = (!self.shared.is_empty()).then_some(self.other.name());
        self.own.keys().map(|name| &**name).chain(other)
    }

    /// Returns how many names have series of their own.
    pub fn own(&self) -> usize {
        self.own.len()
    }

    /// Returns how many names share `_other`.
    pub fn shared(&self) -> usize {
        self.shared.len()
    }
}

/// The labels of one configuration.
#[derive(Clone, Debug)]
pub struct Labels {
    /// Of the endpoints. Several endpoints may have the same.
    pub endpoints: LabelTable,
    /// Of the routes.
    pub routes: LabelTable,
    /// Of the credentials.
    pub credentials: LabelTable,
    /// Of the callers that the configuration names.
    pub callers: LabelTable,
    /// Of the listeners, which all have series of their own.
    pub listeners: BTreeSet<String>,
}

impl Labels {
    /// Makes labels without names, for at most these numbers of names with series of their own.
    pub fn new(max_endpoints: usize, max_routes: usize, max_credentials: usize, max_callers: usize) -> Self {
        Self {
            endpoints: LabelTable::new(max_endpoints),
            routes: LabelTable::new(max_routes),
            credentials: LabelTable::new(max_credentials),
            callers: LabelTable::new(max_callers),
            listeners: BTreeSet::new(),
        }
    }

    /// Returns the tables with the labels that their names are values of.
    pub(super) fn tables(&self) -> [(&'static str, &LabelTable); 4] {
        let Self { endpoints, routes, credentials, callers, listeners: _ } = self;
        [("endpoint", endpoints), ("route", routes), ("credential", credentials), ("caller", callers)]
    }

    /// Returns whether any series belongs to a name that is not configured.
    pub(super) fn has_unknown_names(&self, families: &[MetricFamily]) -> bool {
        let labels = families.iter().flat_map(MetricFamily::get_metric).flat_map(Metric::get_label);
        labels.into_iter().any(|label| self.is_unknown(label.name(), label.value()))
    }

    /// Returns whether a label's value is a name that has no series of its own. Values that begin with `_` are not names.
    pub(super) fn is_unknown(&self, label: &str, value: &str) -> bool {
        if value.starts_with('_') {
            return false;
        }
        if label == "listener" {
            return !self.listeners.contains(value);
        }
        let table = self.tables().into_iter().find(|(name, _)| *name == label);
        table.is_some_and(|(_, table)| !table.own.contains_key(value))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn label_of(table: &LabelTable, name: &str) -> String {
        table.get(name).name().to_owned()
    }

    #[test]
    fn the_first_names_in_order_have_series_of_their_own_and_the_rest_share_other() {
        let table = LabelTable::new(2).next(["c", "a", "c", "b", "d"].into_iter());
        assert_eq!(["c", "a", "b", "d"].map(|name| label_of(&table, name)), ["c", "a", "_other", "_other"]);
        assert_eq!((table.own(), table.shared()), (2, 2));
        assert_eq!(label_of(&LabelTable::new(0).next(["a"].into_iter()), "a"), "_other");
    }

    #[test]
    fn a_name_that_is_added_or_removed_changes_no_label_of_another() {
        let before = LabelTable::new(2).next(["b", "c", "d"].into_iter());
        let added = before.next(["a", "b", "c", "d"].into_iter());
        assert_eq!(["a", "b", "c", "d"].map(|name| label_of(&added, name)), ["_other", "b", "c", "_other"]);
        let removed = added.next(["a", "c", "d", "e"].into_iter());
        assert_eq!(["a", "c", "d", "e"].map(|name| label_of(&removed, name)), ["_other", "c", "_other", "e"]);
        assert!(before.get("c").is_same(removed.get("c")));
    }

    #[test]
    fn a_name_that_is_removed_and_added_again_has_another_label() {
        let first = LabelTable::new(2).next(["a"].into_iter());
        let again = first.next(["b"].into_iter()).next(["a", "b"].into_iter());
        assert!(!first.get("a").is_same(again.get("a")));
    }

    proptest! {
        #[test]
        fn labels_are_bounded_and_slots_unique_through_any_reloads(
            max in 0_usize..6,
            reloads in prop::collection::vec(prop::collection::vec("[a-h]", 0..12), 1..8),
        ) {
            let mut table = LabelTable::new(max);
            for names in reloads {
                let next = table.next(names.iter().map(String::as_str));
                let distinct: HashSet<&String> = names.iter().collect();
                prop_assert!(next.own() <= max && next.own() + next.shared() == distinct.len());
                let slots: HashSet<usize> = next.own.values().map(Label::slot).collect();
                prop_assert!(slots.len() == next.own() && slots.iter().all(|slot| (1..=max).contains(slot)));
                for name in distinct {
                    let kept = table.own.contains_key(name.as_str());
                    prop_assert!(!kept || next.get(name).is_same(table.get(name)));
                }
                table = next;
            }
        }
    }
}
