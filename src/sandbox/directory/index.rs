//! Finds tenants and resources of a large directory without a search of the whole list.

use std::collections::HashMap;
use std::sync::OnceLock;

/// The positions of tenants and resources, determined at the first look-up. A change of the lists makes positions outdated, so
/// users verify what they find and search the list otherwise.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// By id and by domain, in lower case.
    tenants: OnceLock<HashMap<String, usize>>,
    resources: OnceLock<HashMap<String, usize>>,
}

impl Index {
    /// Returns the likely position of the tenant with an id or domain. `tenants` are the ids and domains of all tenants.
    pub(super) fn tenant<'a>(&self, id_or_domain: &str, tenants: impl Iterator<Item = [&'a str; 2]>) -> Option<usize> {
        let build = || {
            let mut positions = HashMap::new();
            for (position, names) in tenants.enumerate() {
                for name in names {
                    positions.entry(name.to_ascii_lowercase()).or_insert(position);
                }
            }
            positions
        };
        self.tenants.get_or_init(build).get(&id_or_domain.to_ascii_lowercase()).copied()
    }

    /// Returns the likely position of the resource with a name. `resources` are the names of all resources.
    pub(super) fn resource<'a>(&self, name: &str, resources: impl Iterator<Item = &'a str>) -> Option<usize> {
        let positions = || resources.enumerate().map(|(position, name)| (name.to_owned(), position)).collect();
        self.resources.get_or_init(positions).get(name).copied()
    }
}

impl Clone for Index {
    /// Returns an empty index: the lists of the clone may change.
    fn clone(&self) -> Self {
        Self::default()
    }
}
