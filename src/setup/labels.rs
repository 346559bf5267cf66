//! Identifiers of Terraform and Bicep for the names of a configuration.

use std::collections::{HashMap, HashSet};

/// The label of tenant A in Terraform.
pub(super) const RESERVED: &str = "a";

/// Identifiers for a set of names. They have only letters, digits and `_`, begin with no digit, and differ by more than case,
/// so that they stay distinct with the same prefix or suffix, or in lower case.
#[derive(Debug)]
pub(super) struct Labels(HashMap<String, String>);

impl Labels {
    /// Assigns an identifier to each name. The order of the names does not matter.
    pub(super) fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().collect();
        // A name that is an identifier already comes first, so that it is kept.
        names.sort_by_cached_key(|name| (identifier(name) != *name, name.clone()));
        names.dedup();
        let mut taken = HashSet::from([RESERVED.to_owned()]);
        let mut labels = HashMap::with_capacity(names.len());
        for name in names {
            let plain = identifier(&name);
            let numbered = (2_u32..).map(|number| format!("{plain}_{number}"));
            let free =
                std::iter::once(plain.clone()).chain(numbered).find(|label| taken.insert(label.to_ascii_lowercase()));
            labels.insert(name, free.unwrap_or(plain));
        }
        Self(labels)
    }

    /// Returns the identifier of a name.
    pub(super) fn of(&self, name: &str) -> String {
        self.0.get(name).cloned().unwrap_or_else(|| identifier(name))
    }
}

/// Replaces what an identifier cannot have by `_`. Different names may get the same identifier.
fn identifier(name: &str) -> String {
    let text: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if text.starts_with(|c: char| c.is_ascii_digit()) { format!("_{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels<const N: usize>(names: [&str; N]) -> [String; N] {
        let labels = Labels::new(names.map(str::to_owned));
        names.map(|name| labels.of(name))
    }

    #[test]
    fn names_that_differ_by_case_or_punctuation_get_different_labels() {
        assert_eq!(labels(["a-b", "a_b", "a_b_2"]), ["a_b_3", "a_b", "a_b_2"]);
        assert_eq!(labels(["East", "east"]), ["East", "east_2"]);
        assert_eq!(labels(["1", "_1", "a"]), ["_1_2", "_1", "a_2"]);
        assert_eq!(labels(["east-2", "north.wind"]), ["east_2", "north_wind"]);
    }

    proptest! {
        // Few characters, so that many names collide.
        #[test]
        fn distinct_names_get_distinct_identifiers(names in prop::collection::hash_set("[aA1_.2-]{1,5}", 1..40)) {
            let labels = Labels::new(names.iter().cloned());
            let mut seen = HashSet::from([RESERVED.to_owned()]);
            for name in &names {
                let label = labels.of(name);
                prop_assert!(!label.starts_with(|c: char| c.is_ascii_digit()), "{label}");
                prop_assert!(label.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{label}");
                prop_assert!(seen.insert(label.to_ascii_lowercase()), "{label} is the label of two names");
            }
            let mut reversed: Vec<String> = names.iter().cloned().collect();
            reversed.sort_unstable_by(|a, b| b.cmp(a));
            let again = Labels::new(reversed);
            prop_assert!(names.iter().all(|name| labels.of(name) == again.of(name)), "the order decides");
        }
    }
}
