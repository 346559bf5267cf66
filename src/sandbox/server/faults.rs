//! Faults on demand: a server that refuses, hangs, breaks off or answers something else. One list for each server,
//! changed at run time. Knows nothing of what the server does when left alone.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// One fault, as tests and the control listener write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    #[serde(rename = "fault")]
    pub kind: FaultKind,
    /// To how many requests it happens; to all of them until cleared if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Only requests whose path begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// It is answered as usual, but later.
    Delay {
        /// How much later, in milliseconds.
        delay_ms: u64,
    },
    /// It is read and never answered.
    Hang,
    /// It is read, nothing is done, and the connection is reset.
    Reset,
    /// Its head is read, nothing is done, and the connection is reset while the body is on its way.
    ResetBeforeBody,
    /// It is done, and the connection is reset in place of an answer.
    LoseAnswer,
    /// It is done, and the connection breaks in the middle of the answer's body.
    BreakBody,
    /// Nothing is done; this is the answer.
    Answer {
        /// The status.
        status: u16,
        /// `Retry-After`, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_secs: Option<u64>,
        /// More header fields.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        /// `Content-Type`; none if not said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content_type: Option<String>,
        /// The body; empty if not said.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
    },
}

impl Fault {
    /// A fault that happens to every request until it is cleared.
    pub const fn always(kind: FaultKind) -> Self {
        Self { kind, times: None, path_prefix: None }
    }

    /// A fault that happens to the next `times` requests.
    pub const fn times(times: u32, kind: FaultKind) -> Self {
        Self { kind, times: Some(times), path_prefix: None }
    }

    /// Narrows the fault to requests whose path begins with `prefix`.
    #[must_use]
    pub fn on_path(mut self, prefix: &str) -> Self {
        self.path_prefix = Some(prefix.to_owned());
        self
    }
}

impl FaultKind {
    /// An answer with a status and an empty body.
    pub const fn status(status: u16) -> Self {
        Self::Answer { status, retry_after_secs: None, headers: Vec::new(), content_type: None, body: String::new() }
    }

    /// An answer with a status and `Retry-After`.
    pub const fn status_after(status: u16, retry_after: Duration) -> Self {
        let retry_after_secs = Some(retry_after.as_secs());
        Self::Answer { status, retry_after_secs, headers: Vec::new(), content_type: None, body: String::new() }
    }

    /// An answer with a status and a body.
    pub fn body(status: u16, content_type: &str, body: &str) -> Self {
        Self::Answer {
            status,
            retry_after_secs: None,
            headers: Vec::new(),
            content_type: Some(content_type.to_owned()),
            body: body.to_owned(),
        }
    }

    /// An answer with a JSON body, `{}` for instance.
    pub fn json(status: u16, body: &str) -> Self {
        Self::body(status, "application/json; charset=utf-8", body)
    }

    /// An answer with an HTML page, as a proxy in the way would send.
    pub fn html(status: u16) -> Self {
        Self::body(status, "text/html", "<html><head><title>Error</title></head><body>nginx</body></html>\r\n")
    }
}

/// The faults of one server: they happen in the order in which they were set.
#[derive(Debug)]
pub struct Faults {
    list: Mutex<VecDeque<Fault>>,
    refuse: watch::Sender<bool>,
    refused: watch::Sender<bool>,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self { list: Mutex::default(), refuse: watch::Sender::new(false), refused: watch::Sender::new(false) }
    }

    /// Adds a fault. The first one in the list that a request matches happens to it.
    pub fn set(&self, fault: Fault) {
        if fault.times != Some(0) {
            self.list().push_back(fault);
        }
    }

    /// The faults that are still to happen.
    pub fn pending(&self) -> Vec<Fault> {
        self.list().iter().cloned().collect()
    }

    /// Refuses connections, as if the server's process were gone: the port is closed, open connections are cut.
    /// Returns when that is so.
    ///
    /// # Cancel safety
    /// Safe: the server refuses all the same.
    pub async fn refuse(&self) {
        self.refuse.send_replace(true);
        self.settled(true).await;
    }

    /// Whether connections are refused.
    pub fn is_refusing(&self) -> bool {
        *self.refuse.borrow()
    }

    /// Takes all faults away. Returns when connections are accepted again.
    ///
    /// # Cancel safety
    /// Safe: the faults are gone all the same.
    pub async fn clear(&self) {
        self.list().clear();
        self.refuse.send_replace(false);
        self.settled(false).await;
    }

    async fn settled(&self, refused: bool) {
        // The sender is this struct's own, so waiting cannot fail.
        let _ = self.refused.subscribe().wait_for(|now| *now == refused).await;
    }

    /// The server's view of whether it shall refuse.
    pub(crate) fn watch_refuse(&self) -> watch::Receiver<bool> {
        self.refuse.subscribe()
    }

    /// The server says whether it refuses.
    pub(crate) fn report_refused(&self, refused: bool) {
        self.refused.send_replace(refused);
    }

    /// Takes the fault that happens to a request for `path`.
    pub(crate) fn next(&self, path: &str) -> Option<FaultKind> {
        self.next_if(path, |_| true)
    }

    /// Takes the fault that happens to a request for `path`, if it is one that is wanted.
    pub(crate) fn next_if(&self, path: &str, is_wanted: impl FnOnce(&FaultKind) -> bool) -> Option<FaultKind> {
        let mut list = self.list();
        let matches = |fault: &Fault| fault.path_prefix.as_ref().is_none_or(|prefix| path.starts_with(prefix));
        let at = list.iter().position(matches)?;
        let fault = list.get_mut(at).filter(|fault| is_wanted(&fault.kind))?;
        let kind = fault.kind.clone();
        if let Some(times) = &mut fault.times {
            *times -= 1;
            if *times == 0 {
                list.remove(at);
            }
        }
        Some(kind)
    }

    fn list(&self) -> std::sync::MutexGuard<'_, VecDeque<Fault>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_happen_in_order_and_as_often_as_said() {
        let faults = Faults::new();
        faults.set(Fault::times(2, FaultKind::status(503)));
        faults.set(Fault::times(1, FaultKind::Hang));
        let seen: Vec<_> = (0..4).map(|_| faults.next("/")).collect();
        let status = Some(FaultKind::status(503));
        assert_eq!(seen, [status.clone(), status, Some(FaultKind::Hang), None]);
    }

    #[test]
    fn a_fault_of_one_path_spares_the_others() {
        let faults = Faults::new();
        faults.set(Fault::always(FaultKind::Reset).on_path("/api/hubs"));
        assert_eq!(faults.next("/api/health"), None);
        assert_eq!(faults.next("/api/hubs/chat/:send"), Some(FaultKind::Reset));
    }

    #[test]
    fn a_fault_reads_from_json() {
        let read = serde_json::from_str::<Fault>;
        let fault = read(r#"{"fault":{"answer":{"status":429,"retry_after_secs":7}},"times":3}"#).unwrap();
        assert_eq!(fault, Fault::times(3, FaultKind::status_after(429, Duration::from_secs(7))));
        assert_eq!(read(r#"{"fault":"hang"}"#).unwrap(), Fault::always(FaultKind::Hang));
        assert!(read(r#"{"fault":"hang","time":3}"#).is_err());
        assert!(read(r#"{"fault":{"answer":{"state":1}}}"#).is_err());
    }
}
