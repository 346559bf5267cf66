//! The TLS in force at a listener, which is replaced while connections are open.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::certificate::ListenerTls;
use super::settings::ListenerTlsSettings;
use super::tls_files::TlsFileError;

/// The TLS of one listener for as long as the listener is open. Each handshake uses what is in force when it begins. Connections
/// continue, unless their callers were verified by other CAs or revocation lists.
pub struct LiveTls {
    listener: String,
    in_force: ArcSwap<InForce>,
    /// Why the files as they are now cannot be used, if they cannot.
    problem: ArcSwapOption<String>,
}

struct InForce {
    settings: ListenerTlsSettings,
    tls: Arc<ListenerTls>,
}

impl LiveTls {
    /// Puts the TLS of a listener in force that is open from now on.
    pub fn new(listener: &str, settings: &ListenerTlsSettings, tls: ListenerTls) -> Arc<Self> {
        let in_force = InForce { settings: settings.clone(), tls: Arc::new(tls) };
        let (in_force, problem) = (ArcSwap::from_pointee(in_force), ArcSwapOption::empty());
        Arc::new(Self { listener: listener.to_owned(), in_force, problem })
    }

    /// Returns the TLS for a new connection.
    pub fn current(&self) -> Arc<ListenerTls> {
        Arc::clone(&self.in_force.load().tls)
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
    /// is logged once.
    pub fn reload(&self) {
        let settings = self.in_force.load().settings.clone();
        let mut warnings = Vec::new();
        match ListenerTls::load_valid(&settings, &mut warnings) {
            Ok(tls) => {
                let is_new = !tls.has_same_files(&self.current());
                if is_new {
                    log_warnings(&self.listener, warnings);
                    let not_after = humantime::format_rfc3339_seconds(tls.not_after());
                    tracing::info!(listener = self.listener, %not_after, "the changed TLS files of a listener are in force");
                }
                self.put_in_force(&settings, is_new.then_some(tls));
            }
            Err(err) => self.keep(&err),
        }
    }

    /// Puts what a new configuration says in force; `None` keeps what is.
    pub(super) fn put_in_force(&self, settings: &ListenerTlsSettings, tls: Option<ListenerTls>) {
        if let Some(tls) = tls {
            self.in_force.store(Arc::new(InForce { settings: settings.clone(), tls: Arc::new(tls) }));
        }
        if self.problem.swap(None).is_some() {
            tracing::info!(listener = self.listener, "the TLS files of a listener can be used again");
        }
    }

    /// Keeps what is in force, since the files cannot be used.
    pub(super) fn keep(&self, err: &TlsFileError) {
        let cause = in_one_line(err);
        let before = self.problem.swap(Some(Arc::new(cause.clone())));
        if before.is_none_or(|before| *before != cause) {
            let not_after = humantime::format_rfc3339_seconds(self.not_after());
            tracing::warn!(
                listener = self.listener,
                error = cause,
                %not_after,
                "the TLS files of a listener cannot be used; those that were read before stay in force"
            );
        }
    }
}

pub(super) fn log_warnings(listener: &str, warnings: Vec<String>) {
    for warning in warnings {
        tracing::warn!(listener, remark = warning, "a TLS file of a listener is used, but needs attention");
    }
}

/// Joins the messages of an error and its sources.
fn in_one_line(err: &TlsFileError) -> String {
    let mut text = err.to_string();
    let mut source = std::error::Error::source(err);
    while let Some(err) = source {
        text.push_str(": ");
        text.push_str(&err.to_string());
        source = err.source();
    }
    text
}

impl fmt::Debug for LiveTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveTls").field("listener", &self.listener).finish_non_exhaustive()
    }
}
