//! Tries the files that prove an app (a client secret, or a certificate and its key) when they change, long before a token is due
//! for renewal. A wrong secret is then found when an operator puts it in place, and not when the last token expires.
//!
//! The current tokens stay in service. One tenant's token is requested for each app, because the proof belongs to the app: Entra
//! accepts it in all its tenants or in none. If that tenant refuses the app for a reason of its own, another one is tried. After a
//! failure, the token life itself follows the files (`file_watch.rs`).
//!
//! A change is tried once the files have stayed the same for a second. Contents are compared, because a mount of Kubernetes
//! replaces all its files when one of them changes. A file that cannot be used as it is (empty, or the key of another certificate)
//! may not be complete, so it gets ten seconds.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, SHA256, SHA256_OUTPUT_LEN};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::acquire::{Acquire, FileContent};
use super::app::App;
use super::cell::TokenCell;
use super::error::RefusedParty;
use super::record::AcquisitionRecord;
use crate::files::{self, Stamp};

/// The interval of the looks at the files.
const INTERVAL: Duration = Duration::from_secs(1);
/// The time between looks is at least this many times as long as a look takes. With 10,000 files, they take 1 % of a core.
const LOOK_SHARE: u32 = 100;
/// How long files stay the same before they are tried. Programs that renew certificates write the certificate and the key one after
/// the other.
const REST: Duration = Duration::from_secs(1);
/// How long files that cannot be used may stay so before they are tried nevertheless, which reports them.
const INCOMPLETE: Duration = Duration::from_secs(10);
/// The shortest time over which the tries of a change are spread: the replicas of a gateway see it at once.
const SPREAD: Duration = Duration::from_secs(1);
/// The same for each app of a gateway. Chosen: 1,000 apps whose files change at once send 100 requests a second.
const SPREAD_PER_APP: Duration = Duration::from_millis(10);
/// How many tenants of an app are tried.
const MAX_TRIES: usize = 3;
/// The maximum number of tasks. Files in the same folder are followed by the same task, so that a mount that hangs affects few
/// others.
const MAX_TASKS: usize = 32;

type Stamps = Box<[Option<Stamp>]>;
type Digest = [u8; SHA256_OUTPUT_LEN];

/// Follows the files of all apps, in tasks of their own.
pub(super) fn follow(apps: &Arc<[App]>, tasks: &mut JoinSet<()>, control: &tokio::runtime::Handle) {
    let mut groups: Vec<Vec<ProofFiles>> = Vec::new();
    let mut by_folder: HashMap<PathBuf, usize> = HashMap::new();
    let mut total = 0_u32;
    for (app, index) in apps.iter().zip(0..) {
        let Some(files) = ProofFiles::of(app, index) else { continue };
        let folder = files.paths.first().and_then(|path| path.parent()).unwrap_or(Path::new("")).to_owned();
        let next = by_folder.len() % MAX_TASKS;
        let group = *by_folder.entry(folder).or_insert(next);
        if groups.len() <= group {
            groups.push(Vec::new());
        }
        if let Some(group) = groups.get_mut(group) {
            group.push(files);
        }
        total = total.saturating_add(1);
    }
    let spread = SPREAD.max(SPREAD_PER_APP.saturating_mul(total));
    for group in groups {
        tasks.spawn_on(look_at(group, Arc::clone(apps), spread), control);
    }
}

/// Looks at the files of some apps again and again.
async fn look_at(mut group: Vec<ProofFiles>, apps: Arc<[App]>, spread: Duration) {
    let paths: Arc<[Arc<[PathBuf]>]> = group.iter().map(|files| Arc::clone(&files.paths)).collect();
    loop {
        let (paths, started) = (Arc::clone(&paths), Instant::now());
        // One job for all of them: a job for each file would cost more than the look.
        let looked = tokio::task::spawn_blocking(move || paths.iter().map(|paths| stamps(paths)).collect::<Vec<_>>());
        let looked = looked.await.unwrap_or_default();
        let took = started.elapsed();
        for (files, found) in group.iter_mut().zip(looked) {
            if let Some(app) = apps.get(files.app) {
                files.compare(app, found, spread).await;
            }
        }
        sleep(INTERVAL.max(took.saturating_mul(LOOK_SHARE))).await;
    }
}

fn stamps(paths: &[PathBuf]) -> Stamps {
    paths.iter().map(|path| std::fs::metadata(path).ok().as_ref().map(Stamp::of)).collect()
}

/// The files that prove an app.
struct ProofFiles {
    /// The app's index.
    app: usize,
    paths: Arc<[PathBuf]>,
    acquirer: Arc<dyn Acquire>,
    /// Their metadata at the last look, since when it is the same, and when it is tried.
    seen: Stamps,
    since: Instant,
    due: Instant,
    /// The digest of the content that Entra last accepted or refused, and whether the files that were seen have it.
    judged: Option<Digest>,
    is_judged: bool,
    /// The cells that tried what was seen, by their index, and the number of the last one's acquisition.
    tried: Vec<usize>,
    number: u64,
}

impl ProofFiles {
    /// Returns the files of an app, if it has any.
    fn of(app: &App, index: usize) -> Option<Self> {
        let acquirer = Arc::clone(app.acquirer.as_ref()?);
        let files = acquirer.watched_files();
        if files.content != FileContent::Proof || files.paths.is_empty() {
            return None;
        }
        let now = Instant::now();
        Some(Self {
            app: index,
            paths: files.paths.into(),
            acquirer,
            seen: Stamps::default(),
            since: now,
            due: now,
            judged: None,
            is_judged: false,
            tried: Vec::new(),
            number: 0,
        })
    }

    /// Compares the files with what was seen before, and tries them if they have changed and are complete.
    async fn compare(&mut self, app: &App, found: Stamps, spread: Duration) {
        let now = Instant::now();
        if found != self.seen {
            self.seen = found;
            (self.since, self.due) = (now, now + REST + spread.mul_f64(fastrand::f64()));
            self.is_judged = false;
            self.tried.clear();
        }
        if self.is_judged {
            return;
        }
        // Without an outcome, acquisitions go on.
        let Some(is_judged) = app.state.are_judged(&self.seen) else { return };
        if is_judged {
            self.judged = self.digest().await;
            self.is_judged = true;
            return;
        }
        if now < self.due || self.is_trying(app) {
            return;
        }
        // Without one, the files need not be read.
        let Some((index, cell)) = self.next_cell(app) else { return };
        if self.judged.is_some() && self.digest().await == self.judged {
            self.is_judged = true;
            return;
        }
        let is_complete = self.acquirer.inspect(&AcquisitionRecord::default()).await.is_ok();
        if !is_complete && now.duration_since(self.since) < INCOMPLETE {
            return;
        }
        let names: Vec<String> = cell.state().ids().iter().map(ToString::to_string).collect();
        tracing::info!(credential = names.join(", "), "changed files of an app are tried: a token is requested");
        self.number = cell.renew();
        self.tried.push(index);
    }

    /// Returns whether no other cell is to be tried: one is being tried, repeats a request that failed for a while, or enough were
    /// tried.
    fn is_trying(&self, app: &App) -> bool {
        let Some(cell) = self.tried.last().and_then(|index| app.cells.get(*index)) else { return false };
        let is_refused_by_tenant = || cell.refused_party() == Some(RefusedParty::Tenant);
        self.tried.len() >= MAX_TRIES || !cell.has_ended(self.number) || !is_refused_by_tenant()
    }

    /// Returns the next cell to try, with its index: the one in use whose token expires first, or with tokens on demand any cell if
    /// none is in use. Those that fail follow the files themselves.
    fn next_cell<'a>(&self, app: &'a App) -> Option<(usize, &'a Arc<TokenCell>)> {
        let untried = || app.cells.iter().enumerate().filter(|(index, _)| !self.tried.contains(index));
        let expires = |cell: &TokenCell| cell.state().dates().and_then(|(_, expires)| expires);
        let first = untried().filter(|(_, cell)| cell.is_ready()).min_by_key(|(_, cell)| expires(cell));
        let is_unused = app.state.is_on_demand() && !app.cells.iter().any(|cell| cell.is_running());
        first.or_else(|| untried().next().filter(|_| is_unused))
    }

    /// Returns the digest of the files, if they are those that were seen.
    async fn digest(&self) -> Option<Digest> {
        let mut content = digest::Context::new(&SHA256);
        for (path, seen) in self.paths.iter().zip(&self.seen) {
            let file = files::read(path).await.ok().filter(|file| Some(file.stamp) == *seen)?;
            let text = file.text.expose();
            content.update(&text.len().to_le_bytes());
            content.update(text.as_bytes());
        }
        content.finish().as_ref().try_into().ok()
    }
}

#[cfg(test)]
mod tests;
