//! Sets of operations, as allow-lists and routes name them.

use super::{Operation, OperationClass};

/// A set of operations, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationSet(u32);

const _: () = assert!(Operation::COUNT <= u32::BITS as usize, "OperationSet has a bit for each operation");

impl OperationSet {
    /// The empty set.
    pub const EMPTY: Self = Self(0);
    /// The class `messages`.
    pub const MESSAGES: Self = Self::of_class(OperationClass::Messages);
    /// The class `execute`.
    pub const EXECUTE: Self = Self::of_class(OperationClass::Execute);
    /// The class `groups`.
    pub const GROUPS: Self = Self::of_class(OperationClass::Groups);
    /// The class `queries`.
    pub const QUERIES: Self = Self::of_class(OperationClass::Queries);
    /// The class `close`.
    pub const CLOSE: Self = Self::of_class(OperationClass::Close);
    /// The class `credentials`.
    pub const CREDENTIALS: Self = Self::of_class(OperationClass::Credentials);
    /// The class `claims`.
    pub const CLAIMS: Self = Self::of_class(OperationClass::Claims);

    /// Returns the set of these operations.
    pub const fn of(operations: &[Operation]) -> Self {
        let mut bits = 0;
        let mut rest = operations;
        while let [first, others @ ..] = rest {
            bits |= 1 << *first as u32;
            rest = others;
        }
        Self(bits)
    }

    /// Returns the operations of a class.
    pub const fn of_class(class: OperationClass) -> Self {
        let mut bits = 0;
        let mut rest = Operation::ALL.as_slice();
        while let [first, others @ ..] = rest {
            if first.class().index() == class.index() {
                bits |= 1 << *first as u32;
            }
            rest = others;
        }
        Self(bits)
    }

    /// Returns the operations that `name` stands for: those of a class or a single one.
    pub fn from_name(name: &str) -> Option<Self> {
        let class = OperationClass::ALL.into_iter().find(|class| class.name() == name);
        class.map(Self::of_class).or_else(|| Operation::from_name(name).map(|operation| Self::of(&[operation])))
    }

    /// Returns whether `operation` is in the set.
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & (1 << operation as u32) != 0
    }

    /// Returns the operations of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns whether the set has no operation.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Iterates over the operations of the set, in the order of [`Operation::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Operation> {
        Operation::ALL.into_iter().filter(move |operation| self.contains(*operation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_in_exactly_one_class() {
        for operation in Operation::ALL {
            let classes: Vec<_> = OperationClass::ALL
                .into_iter()
                .filter(|class| OperationSet::of_class(*class).contains(operation))
                .collect();
            assert_eq!(classes, [operation.class()], "{operation}");
        }
    }

    #[test]
    fn only_the_class_execute_allows_execute() {
        let allowing = OperationClass::ALL
            .into_iter()
            .filter(|class| OperationSet::of_class(*class).contains(Operation::HubExecute));
        assert_eq!(allowing.map(OperationClass::name).collect::<Vec<_>>(), ["execute"]);
    }

    #[test]
    fn name_is_a_class_or_an_operation() {
        assert_eq!(OperationSet::from_name("messages"), Some(OperationSet::MESSAGES));
        assert_eq!(OperationSet::from_name("hub_send"), Some(OperationSet::of(&[Operation::HubSend])));
        assert_eq!(OperationSet::from_name("nope"), None);
    }
}
