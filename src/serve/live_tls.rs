//! The TLS in force at a listener, which is replaced while connections are open.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::certificate::ListenerTls;
use super::settings::ListenerTlsSettings;
use super::tls_files::TlsFileError;
use crate::redact::in_one_line;
use crate::runbook::{Condition, Section};

/// The runbook's section about the files of a listener.
const TLS_FILES: Section = Section::Condition(Condition::TlsFiles);

/// The TLS of one listener for as long as the listener is open. Each handshake uses what is in force when it begins. Connections
/// continue, unless their callers were verified by other CAs or revocation lists.
pub struct LiveTls {
    listener: String,
    in_force: ArcSwap<InForce>,
    /// Why the files as they are now cannot be used, if they cannot.
    problem: ArcSwapOption<String>,
    /// Locked while any of it changes. A read of the files can outlast a commit of other files, and a later read.
    reads: Mutex<Reads>,
}

/// The reads of the files, numbered by when they began. A commit has a number too.
#[derive(Default)]
struct Reads {
    last_begun: u64,
    /// The number of the one whose result is in use. Results of earlier ones are dropped.
    last_accepted: u64,
}

/// A read of the files that has begun.
struct Reading {
    number: u64,
    settings: ListenerTlsSettings,
}

impl Reads {
    fn begin(&mut self) -> u64 {
        self.last_begun += 1;
        self.last_begun
    }

    /// Accepts the result of a read unless that of a later one was accepted. Returns whether it did.
    fn accept(&mut self, number: u64) -> bool {
        let is_latest = number > self.last_accepted;
        self.last_accepted = self.last_accepted.max(number);
        is_latest
    }
}

struct InForce {
    settings: ListenerTlsSettings,
    tls: Arc<ListenerTls>,
}

impl LiveTls {
    /// Reads the TLS files of a listener, which may block, and logs warnings about them. Whether the certificate is valid now is
    /// the matter of [`LiveTls::reload`], which reports it once.
    ///
    /// # Errors
    /// [`TlsFileError`] for the first file that cannot be used.
    pub fn load(listener: &str, settings: &ListenerTlsSettings) -> Result<Arc<Self>, TlsFileError> {
        Ok(Self::new(listener, settings, Self::read(listener, settings)?))
    }

    /// Reads the TLS files of a listener as [`LiveTls::load`] does, for [`LiveTls::put_in_force`].
    pub(super) fn read(listener: &str, settings: &ListenerTlsSettings) -> Result<ListenerTls, TlsFileError> {
        let mut warnings = Vec::new();
        let tls = ListenerTls::load(settings, &mut warnings)?;
        log_warnings(listener, warnings);
        Ok(tls)
    }

    fn new(listener: &str, settings: &ListenerTlsSettings, tls: ListenerTls) -> Arc<Self> {
        let in_force = InForce { settings: settings.clone(), tls: Arc::new(tls) };
        let (in_force, problem) = (ArcSwap::from_pointee(in_force), ArcSwapOption::empty());
        Arc::new(Self { listener: listener.to_owned(), in_force, problem, reads: Mutex::default() })
    }

    /// Returns the TLS for a new connection.
    pub fn current(&self) -> Arc<ListenerTls> {
        Arc::clone(&self.in_force.load().tls)
    }

    /// Returns whether callers are verified by other CAs or revocation lists than at an earlier handshake.
    pub fn has_other_trust(&self, at_handshake: &Arc<ListenerTls>) -> bool {
        let current = self.current();
        !Arc::ptr_eq(&current, at_handshake) && current.client_trust() != at_handshake.client_trust()
    }

    /// Returns the configured name of the listener; `_admin` is the admin listener.
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// Returns the files that it is read from.
    pub fn files(&self) -> Vec<PathBuf> {
        let in_force = self.in_force.load();
        let ListenerTlsSettings { certificate, key, client_auth } = &in_force.settings;
        let mut files = vec![certificate.clone(), key.clone()];
        if let Some(client_auth) = client_auth {
            files.push(client_auth.ca.clone());
            files.extend(client_auth.revocation_lists.iter().cloned());
        }
        files
    }

    /// Returns when the certificate in force expires.
    pub fn not_after(&self) -> SystemTime {
        self.in_force.load().tls.not_after()
    }

    /// Returns why the files as they are now cannot be used, so that what was read before stays in force.
    pub fn problem(&self) -> Option<Arc<String>> {
        self.problem.load_full()
    }

    /// Reads the files again, which may block, and puts them in force. Files that cannot be used change nothing: the problem
    /// is logged once. The result is dropped if a configuration with other files, or a later read, is in force by then.
    pub fn reload(&self) {
        let reading = self.begin_read();
        let mut warnings = Vec::new();
        let read = ListenerTls::load_valid(&reading.settings, &mut warnings);
        self.end_read(reading, read, warnings);
    }

    fn begin_read(&self) -> Reading {
        let mut reads = self.reads();
        Reading { number: reads.begin(), settings: self.in_force.load().settings.clone() }
    }

    fn end_read(&self, reading: Reading, read: Result<ListenerTls, TlsFileError>, warnings: Vec<String>) {
        let mut reads = self.reads();
        if !reads.accept(reading.number) {
            return;
        }
        match read {
            Ok(tls) => {
                if !tls.has_same_files(&self.current()) {
                    log_warnings(&self.listener, warnings);
                    let not_after = humantime::format_rfc3339_seconds(tls.not_after());
                    tracing::info!(listener = self.listener, %not_after, "the changed TLS files of a listener are in force");
                    self.store(reading.settings, tls);
                }
                self.clear_problem();
            }
            Err(err) => self.keep(&err),
        }
    }

    /// Puts what a new configuration says in force.
    pub(super) fn put_in_force(&self, settings: &ListenerTlsSettings, tls: ListenerTls) {
        let mut reads = self.reads();
        // After all reads that have begun, which are of the files of the previous configuration.
        reads.last_accepted = reads.begin();
        self.store(settings.clone(), tls);
        self.clear_problem();
    }

    fn reads(&self) -> MutexGuard<'_, Reads> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, settings: ListenerTlsSettings, tls: ListenerTls) {
        self.in_force.store(Arc::new(InForce { settings, tls: Arc::new(tls) }));
    }

    fn clear_problem(&self) {
        if self.problem.swap(None).is_some() {
            tracing::info!(listener = self.listener, "the TLS files of a listener can be used again");
        }
    }

    /// Keeps what is in force, since the files cannot be used.
    fn keep(&self, err: &TlsFileError) {
        let cause = in_one_line(err);
        let before = self.problem.swap(Some(Arc::new(cause.clone())));
        if before.is_none_or(|before| *before != cause) {
            let not_after = humantime::format_rfc3339_seconds(self.not_after());
            tracing::warn!(
                listener = self.listener,
                error = cause,
                %not_after,
                side = "configuration",
                remedy = TLS_FILES.remedy(),
                runbook = %TLS_FILES,
                "the TLS files of a listener cannot be used; those that were read before stay in force"
            );
        }
    }
}

fn log_warnings(listener: &str, warnings: Vec<String>) {
    for warning in warnings {
        tracing::warn!(listener, remark = warning, side = "configuration", remedy = TLS_FILES.remedy(), runbook = %TLS_FILES, "a TLS file of a listener is used, but needs attention");
    }
}

impl fmt::Debug for LiveTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveTls").field("listener", &self.listener).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// Files with a certificate and its key.
    struct Pair {
        folder: tempfile::TempDir,
    }

    impl Pair {
        fn new() -> Self {
            let pair = Self { folder: tempfile::tempdir().unwrap() };
            pair.renew();
            pair
        }

        fn settings(&self) -> ListenerTlsSettings {
            let path = |name: &str| self.folder.path().join(name);
            ListenerTlsSettings { certificate: path("own.pem"), key: path("own.key"), client_auth: None }
        }

        fn renew(&self) {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
            std::fs::write(self.settings().certificate, certificate.pem()).unwrap();
            std::fs::write(self.settings().key, key.serialize_pem()).unwrap();
        }

        fn load(&self) -> ListenerTls {
            self.try_load().unwrap()
        }

        fn try_load(&self) -> Result<ListenerTls, TlsFileError> {
            ListenerTls::load_valid(&self.settings(), &mut Vec::new())
        }
    }

    fn assert_in_force(live: &LiveTls, pair: &Pair, tls: &ListenerTls) {
        assert_eq!(live.files(), [pair.settings().certificate, pair.settings().key]);
        assert!(live.current().has_same_files(tls));
    }

    #[test]
    fn read_that_outlasts_a_commit_does_not_undo_it() {
        let (old, new) = (Pair::new(), Pair::new());
        let live = LiveTls::new("secure", &old.settings(), old.load());
        let (usable, unusable) = (live.begin_read(), live.begin_read());
        live.put_in_force(&new.settings(), new.load());
        old.renew();
        live.end_read(usable, old.try_load(), Vec::new());
        assert_in_force(&live, &new, &new.load());
        std::fs::write(old.settings().key, "no key").unwrap();
        live.end_read(unusable, old.try_load(), Vec::new());
        assert_in_force(&live, &new, &new.load());
        assert_eq!(live.problem(), None, "it is a problem of the files that were replaced");

        // The next read is of the new files.
        new.renew();
        live.reload();
        assert_in_force(&live, &new, &new.load());
    }

    #[test]
    fn commit_of_the_first_files_again_is_not_undone_by_what_was_in_them_before() {
        let (first, other) = (Pair::new(), Pair::new());
        let live = LiveTls::new("secure", &first.settings(), first.load());
        let (reading, before) = (live.begin_read(), first.try_load());
        live.put_in_force(&other.settings(), other.load());
        first.renew();
        live.put_in_force(&first.settings(), first.load());
        live.end_read(reading, before, Vec::new());
        assert_in_force(&live, &first, &first.load());
    }

    #[test]
    fn earlier_of_two_reads_is_dropped_if_it_ends_last() {
        let pair = Pair::new();
        let live = LiveTls::new("secure", &pair.settings(), pair.load());
        let (earlier, before) = (live.begin_read(), pair.try_load());
        pair.renew();
        live.reload();
        live.end_read(earlier, before, Vec::new());
        assert_in_force(&live, &pair, &pair.load());
    }
}
