//! Finds the routes that may match a hub by its name or by a prefix of it.
//!
//! A radix tree, so that the time of a lookup depends on the length of the hub and not on the number of routes.

use std::collections::VecDeque;
use std::ops::Range;

use super::pattern::HubKey;

/// Route indexes by hub name and by prefix.
#[derive(Debug, Default)]
pub(super) struct HubIndex {
    /// The root comes first. The children of a node are adjacent.
    nodes: Vec<Node>,
    /// For each node, the byte that leads to it from its parent.
    bytes: Vec<u8>,
    /// The text of all labels.
    labels: Vec<u8>,
    /// The route indexes of all nodes.
    routes: Vec<usize>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The text between the parent and this node, without its first byte, in [`HubIndex::labels`].
    label: Range<usize>,
    /// The children, in [`HubIndex::nodes`].
    children: Range<usize>,
    /// The routes for the hub whose name ends at this node, in order, in [`HubIndex::routes`].
    exact: Range<usize>,
    /// The routes for all hubs whose names begin with the text up to this node, in order, in [`HubIndex::routes`].
    prefix: Range<usize>,
}

impl HubIndex {
    /// Builds the index of keys and the indexes of their routes. A route may have several keys.
    pub(super) fn build(mut keys: Vec<(HubKey<'_>, usize)>) -> Self {
        keys.sort_unstable();
        keys.dedup();
        let mut index = Self::default();
        if keys.is_empty() {
            return index;
        }
        index.nodes.push(Node::default());
        index.bytes.push(0);
        // The number of a node, the keys at or below it, and the length of the text up to its parent.
        let mut pending = VecDeque::from([(0, keys.as_slice(), 0)]);
        while let Some((number, keys, parent)) = pending.pop_front() {
            let end = if number == 0 { 0 } else { common_length(keys) };
            let (own, below) = keys.split_at(keys.partition_point(|(key, _)| key.text().len() == end));
            let (exact, prefix) = own.split_at(own.partition_point(|(key, _)| !key.is_prefix()));
            let text = keys.first().map_or(&[][..], |(key, _)| key.text().as_bytes());
            let label = text.get((parent + 1).min(end)..end).unwrap_or_default();
            let children = index.nodes.len();
            for group in below.chunk_by(|(one, _), (other, _)| byte_at(one, end) == byte_at(other, end)) {
                let byte = group.first().and_then(|(key, _)| byte_at(key, end));
                pending.push_back((index.nodes.len(), group, end));
                index.nodes.push(Node::default());
                index.bytes.push(byte.unwrap_or_default());
            }
            let node = Node {
                label: extend(&mut index.labels, label.iter().copied()),
                children: children..index.nodes.len(),
                exact: extend(&mut index.routes, exact.iter().map(|(_, route)| *route)),
                prefix: extend(&mut index.routes, prefix.iter().map(|(_, route)| *route)),
            };
            if let Some(place) = index.nodes.get_mut(number) {
                *place = node;
            }
        }
        index
    }

    /// Returns whether there are no keys.
    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Calls `visit` with each list of routes that may match a hub. The routes of a list are in order, the lists are not.
    pub(super) fn visit(&self, hub: &str, mut visit: impl FnMut(&[usize])) {
        let mut node = self.nodes.first();
        let mut rest = hub.as_bytes();
        while let Some(reached) = node {
            visit(self.routes.get(reached.prefix.clone()).unwrap_or_default());
            let Some((byte, tail)) = rest.split_first() else {
                visit(self.routes.get(reached.exact.clone()).unwrap_or_default());
                return;
            };
            let Some((child, tail)) = self.child(reached, byte.to_ascii_lowercase(), tail) else { return };
            node = Some(child);
            rest = tail;
        }
    }

    /// Returns the child that continues with a byte and the text after it, and the text after the child's label.
    fn child<'t>(&self, node: &Node, byte: u8, text: &'t [u8]) -> Option<(&Node, &'t [u8])> {
        let position = self.bytes.get(node.children.clone())?.iter().position(|first| *first == byte)?;
        let child = self.nodes.get(node.children.start + position)?;
        let label = self.labels.get(child.label.clone())?;
        let (head, tail) = text.split_at_checked(label.len())?;
        head.eq_ignore_ascii_case(label).then_some((child, tail))
    }
}

/// Appends items, and returns their range.
fn extend<T>(all: &mut Vec<T>, items: impl Iterator<Item = T>) -> Range<usize> {
    let start = all.len();
    all.extend(items);
    start..all.len()
}

fn byte_at(key: &HubKey<'_>, position: usize) -> Option<u8> {
    key.text().as_bytes().get(position).copied()
}

/// Returns the length of the text that sorted keys have in common.
fn common_length(keys: &[(HubKey<'_>, usize)]) -> usize {
    let (Some((first, _)), Some((last, _))) = (keys.first(), keys.last()) else { return 0 };
    let pairs = first.text().bytes().zip(last.text().bytes());
    pairs.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Case, Pattern};

    fn found(patterns: &[&str], hub: &str) -> Vec<usize> {
        let patterns: Vec<_> = patterns.iter().map(|text| Pattern::new(text, Case::Insensitive)).collect();
        let keys = patterns.iter().enumerate().filter_map(|(index, pattern)| Some((pattern.hub_key()?, index)));
        let mut found = Vec::new();
        HubIndex::build(keys.collect()).visit(hub, |routes| found.extend_from_slice(routes));
        found.sort_unstable();
        found
    }

    #[test]
    fn finds_names_and_every_prefix_in_any_case() {
        let patterns = ["chat", "chat*", "c*", "*", "chats", "Chat", "news*", "chat", "c**"];
        assert_eq!(found(&patterns, "CHAT"), [0, 1, 2, 3, 5, 7, 8]);
        assert_eq!(found(&patterns, "chats"), [1, 2, 3, 4, 8]);
        assert_eq!(found(&patterns, "cha"), [2, 3, 8]);
        assert_eq!(found(&patterns, "new"), [3]);
        assert_eq!(found(&patterns, "newsroom"), [3, 6]);
    }

    #[test]
    fn empty_index_finds_nothing() {
        assert_eq!(found(&[], "chat"), Vec::<usize>::new());
        assert_eq!(found(&["a*b", "*b"], "ab"), Vec::<usize>::new());
    }

    #[test]
    fn names_longer_than_hubs_can_be_do_no_harm() {
        let nested: Vec<String> = (0..5000).map(|length| "a".repeat(length) + "*").collect();
        let patterns: Vec<&str> = nested.iter().map(String::as_str).collect();
        assert_eq!(found(&patterns, &"a".repeat(128)).len(), 129);
    }
}
