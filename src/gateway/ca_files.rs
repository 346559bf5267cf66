//! Follows the CA files of endpoints, credentials and their proxies. When one changes, the endpoints and credentials that trust it are built anew:
//! endpoints with new connections, credentials with the tokens that they have.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::followed::{self, INTERVAL};
use super::settings::Settings;
use crate::files::{Stamp, stamps};
use crate::runbook::{Condition, Section};

/// The CA files of one configuration.
#[derive(Debug, Default)]
pub(super) struct CaFiles {
    paths: Vec<PathBuf>,
    /// Their metadata before they were read.
    read: Vec<Option<Stamp>>,
    /// Why some of them cannot be used, so that the CAs that were read before stay in force.
    pub(super) refused: Vec<String>,
}

impl CaFiles {
    /// Returns the files, as they are now. Does I/O, which may block.
    pub(super) fn of(settings: &Settings) -> Self {
        let of_endpoints = settings.endpoints.iter().filter_map(|endpoint| endpoint.ca_file.as_deref());
        let of_credentials = settings.credentials.iter().flat_map(|credential| credential.kind.ca_files());
        let proxies = settings.endpoints.iter().filter_map(|endpoint| endpoint.proxy.as_ref());
        let of_proxies = proxies.filter_map(|proxy| proxy.ca_file.as_deref());
        let paths: BTreeSet<&Path> = of_endpoints.chain(of_credentials).chain(of_proxies).collect();
        let paths: Vec<_> = paths.into_iter().map(Path::to_owned).collect();
        let stamp = |path: &PathBuf| std::fs::metadata(path).ok().as_ref().map(Stamp::of);
        Self { read: paths.iter().map(stamp).collect(), paths, refused: Vec::new() }
    }

    /// Returns the files of these that have changed since `before`.
    pub(super) fn changed_since(&self, before: &Self) -> HashSet<PathBuf> {
        let before: HashMap<_, _> = before.paths.iter().zip(&before.read).collect();
        let is_changed =
            |(path, stamp): &(&PathBuf, &Option<Stamp>)| before.get(path).is_some_and(|before| before != stamp);
        self.paths.iter().zip(&self.read).filter(is_changed).map(|(path, _)| path.clone()).collect()
    }

    /// Logs what is refused now and was not `before`, or can be used again.
    pub(super) fn report(&self, before: &Self) {
        let section = Section::Condition(Condition::CaFile);
        for problem in self.refused.iter().filter(|problem| !before.refused.contains(problem)) {
            tracing::warn!(error = problem, side = "configuration", remedy = section.remedy(), runbook = %section, "a CA file cannot be used; the CAs that were read before stay in force");
        }
        if self.read != before.read {
            tracing::info!(refused = self.refused.len(), "changed CA files were read");
        }
    }

    /// Waits until one of them has changed since it was read, and is complete.
    ///
    /// # Cancel safety
    /// Safe: changes nothing.
    pub(super) async fn changed(&self) {
        if self.paths.is_empty() {
            return std::future::pending().await;
        }
        while stamps(&self.paths).await == self.read {
            tokio::time::sleep(INTERVAL).await;
        }
        followed::settle(&self.paths).await;
    }
}
