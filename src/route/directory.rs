//! All endpoints by name, for routes whose calls may name any of them.

use std::collections::HashMap;

use super::case::Case;
use super::target::Target;

/// The longest name that the configuration allows, in bytes.
const MAX_NAME: usize = 64;

/// All endpoints by name.
#[derive(Debug)]
pub(super) struct Directory {
    targets: Vec<Target>,
    by_name: HashMap<Box<[u8]>, usize>,
    /// By name in lower case.
    by_folded_name: HashMap<Box<[u8]>, usize>,
}

impl Directory {
    /// Builds the directory for names whose case is significant, or is not, or both.
    ///
    /// # Errors
    /// Two endpoints whose names differ only in case, if case is not significant.
    pub(super) fn build(targets: Vec<Target>, cases: &[Case]) -> Result<Self, (Target, Target)> {
        let (mut by_name, mut by_folded_name) = (HashMap::new(), HashMap::new());
        for (index, target) in targets.iter().enumerate() {
            let name = target.name().as_str();
            if cases.contains(&Case::Sensitive) {
                by_name.insert(name.as_bytes().into(), index);
            }
            if cases.contains(&Case::Insensitive) {
                let folded = name.to_ascii_lowercase().into_bytes().into();
                if let Some(other) = by_folded_name.insert(folded, index).and_then(|other| targets.get(other)) {
                    return Err((other.clone(), target.clone()));
                }
            }
        }
        Ok(Self { targets, by_name, by_folded_name })
    }

    /// Returns the endpoint with this name. Does not allocate.
    pub(super) fn find(&self, name: &[u8], case: Case) -> Option<&Target> {
        let index = match case {
            Case::Sensitive => self.by_name.get(name)?,
            Case::Insensitive => {
                let mut buffer = [0; MAX_NAME];
                let folded = buffer.get_mut(..name.len())?;
                folded.copy_from_slice(name);
                folded.make_ascii_lowercase();
                self.by_folded_name.get(&*folded)?
            }
        };
        self.targets.get(*index)
    }
}
