//! A list of entries in the order in which they were added. Each can be removed in constant time.

/// The position of an entry, which is valid until the entry is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position(u32);

impl Position {
    /// The position of no entry.
    pub(super) const NONE: Self = Self(u32::MAX);
}

/// A list of entries, oldest first.
pub(super) struct IdleOrder<T> {
    nodes: Vec<Node<T>>,
    oldest: Position,
    newest: Position,
    /// The first free node. Free nodes are linked by `newer`.
    free: Position,
    len: usize,
}

struct Node<T> {
    /// `None` if the node is free.
    entry: Option<T>,
    older: Position,
    newer: Position,
}

impl<T> Default for IdleOrder<T> {
    fn default() -> Self {
        Self { nodes: Vec::new(), oldest: Position::NONE, newest: Position::NONE, free: Position::NONE, len: 0 }
    }
}

impl<T> IdleOrder<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds an entry as the newest.
    pub(super) fn push(&mut self, entry: T) -> Position {
        let older = self.newest;
        let node = Node { entry: Some(entry), older, newer: Position::NONE };
        let position = self.free;
        match self.nodes.get_mut(position.0 as usize) {
            Some(free) => self.free = std::mem::replace(free, node).newer,
            None => self.nodes.push(node),
        }
        let last = Position(u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX));
        let position = if position == Position::NONE { last } else { position };
        match self.node(older) {
            Some(older) => older.newer = position,
            None => self.oldest = position,
        }
        self.newest = position;
        self.len += 1;
        position
    }

    /// Removes an entry. Does nothing if there is none at the position.
    pub(super) fn remove(&mut self, position: Position) -> Option<T> {
        let free = self.free;
        let node = self.node(position)?;
        let entry = node.entry.take()?;
        let (older, newer) = (node.older, std::mem::replace(&mut node.newer, free));
        self.free = position;
        match self.node(older) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
        match self.node(newer) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        self.len -= 1;
        Some(entry)
    }

    /// Returns the position of the oldest entry and the entry.
    pub(super) fn oldest(&self) -> Option<(Position, &T)> {
        let entry = self.nodes.get(self.oldest.0 as usize)?.entry.as_ref()?;
        Some((self.oldest, entry))
    }

    /// Iterates over all entries, in no particular order.
    pub(super) fn entries(&self) -> impl Iterator<Item = &T> {
        self.nodes.iter().filter_map(|node| node.entry.as_ref())
    }

    fn node(&mut self, position: Position) -> Option<&mut Node<T>> {
        self.nodes.get_mut(position.0 as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Behaves like a vector from which entries are removed by value.
        #[test]
        fn entries_stay_in_the_order_in_which_they_were_added(steps in prop::collection::vec((any::<bool>(), 0..20_usize), 0..200)) {
            let (mut order, mut model) = (IdleOrder::default(), Vec::new());
            for (number, (adds, index)) in steps.into_iter().enumerate() {
                if adds || model.is_empty() {
                    model.push((order.push(number), number));
                } else {
                    let (position, entry) = model.remove(index % model.len());
                    prop_assert_eq!(order.remove(position), Some(entry));
                    prop_assert_eq!(order.remove(position), None);
                }
                prop_assert_eq!(order.len(), model.len());
                prop_assert_eq!(order.oldest().map(|(_, entry)| *entry), model.first().map(|(_, entry)| *entry));
                prop_assert_eq!(order.entries().count(), model.len());
            }
            let mut all = Vec::new();
            while let Some((position, _)) = order.oldest() {
                all.extend(order.remove(position));
            }
            prop_assert_eq!(all, model.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>());
        }
    }
}
