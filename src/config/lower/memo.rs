//! What the last load found out, so that a reload repeats it only for what changed.
//!
//! A result may be used again only if everything that it depends on is the same: the entry, which the caller compares, and the
//! main file with what overrides it. The loader forgets all results if the main file changed.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::digest::Digest;
use crate::config::file::{EndpointFile, RouteFile};
use crate::endpoint::EndpointSettings;
use crate::route::RouteSettings;

/// The results of a load.
#[derive(Debug, Default)]
pub(in crate::config) struct Memo {
    pub(super) endpoints: Entries<EndpointFile, (Arc<EndpointSettings>, Digest)>,
    pub(super) routes: Entries<RouteFile, (Arc<RouteSettings>, Digest)>,
    /// The files that exist and are not empty.
    files: HashSet<PathBuf>,
}

impl Memo {
    pub(super) fn has_file(&self, path: &Path) -> bool {
        self.files.contains(path)
    }

    pub(super) fn add_file(&mut self, path: PathBuf) {
        self.files.insert(path);
    }

    /// Adds the results of an earlier load, for entries that have no result yet.
    pub(in crate::config) fn add(&mut self, earlier: Self) {
        let Self { endpoints, routes, files } = earlier;
        self.endpoints.add(endpoints);
        self.routes.add(routes);
        self.files.extend(files);
    }
}

/// Lowered entries without problems, and the entries in the file that they were lowered from.
#[derive(Debug)]
pub(super) struct Entries<F, S>(HashMap<usize, (Arc<F>, S)>);

impl<F, S> Default for Entries<F, S> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<F, S> Entries<F, S> {
    /// Removes the result for an entry, if it is in the same memory: the loader shares the entries of unchanged files.
    pub(super) fn take(&mut self, entry: &Arc<F>) -> Option<S> {
        // The address is not used again, since the entry is kept.
        self.0.remove(&Arc::as_ptr(entry).addr()).map(|(_, lowered)| lowered)
    }

    fn add(&mut self, earlier: Self) {
        for (address, entry) in earlier.0 {
            self.0.entry(address).or_insert(entry);
        }
    }

    pub(super) fn insert(&mut self, entry: &Arc<F>, lowered: S) {
        self.0.insert(Arc::as_ptr(entry).addr(), (Arc::clone(entry), lowered));
    }
}
