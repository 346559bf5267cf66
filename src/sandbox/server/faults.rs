//! Fault injection: refused connections, and missing, truncated or replaced responses. Each server has a list of faults, which
//! can change at run time.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A fault, as tests and the control listener configure it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The kind.
    #[serde(rename = "fault")]
    pub kind: FaultKind,
    /// The number of requests that the fault applies to. Without it, the fault applies until it is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// The prefix of the paths that the fault applies to. Without it, the fault applies to all paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
}

/// The effect of a fault on a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// The request is processed after a delay.
    Delay {
        /// The delay in milliseconds.
        delay_ms: u64,
    },
    /// The request is read and gets no response.
    Hang,
    /// The request is read but not processed, and the connection is reset.
    Reset,
    /// The header of the request is read, and the connection is reset before the body is.
    ResetBeforeBody,
    /// The request is processed, and the connection is reset instead of a response.
    LoseAnswer,
    /// The request is processed, and the response body fails in the middle.
    BreakBody,
    /// The request is not processed, and the server sends this response.
    Answer {
        /// The status.
        status: u16,
        /// The value of `Retry-After`, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_secs: Option<u64>,
        /// Additional header fields.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, String)>,
        /// The value of `Content-Type`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content_type: Option<String>,
        /// The body.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        body: String,
    },
}

impl Fault {
    /// Returns a fault that applies to every request until it is cleared.
    pub const fn always(kind: FaultKind) -> Self {
        Self { kind, times: None, path_prefix: None }
    }

    /// Returns a fault that applies to the next `times` requests.
    pub const fn times(times: u32, kind: FaultKind) -> Self {
        Self { kind, times: Some(times), path_prefix: None }
    }

    /// Restricts the fault to paths that start with `prefix`.
    #[must_use]
    pub fn on_path(mut self, prefix: &str) -> Self {
        self.path_prefix = Some(prefix.to_owned());
        self
    }
}

impl FaultKind {
    /// Returns a response with a status and an empty body.
    pub const fn status(status: u16) -> Self {
        Self::Answer { status, retry_after_secs: None, headers: Vec::new(), content_type: None, body: String::new() }
    }

    /// Returns a response with a status and `Retry-After`.
    pub const fn status_after(status: u16, retry_after: Duration) -> Self {
        let retry_after_secs = Some(retry_after.as_secs());
        Self::Answer { status, retry_after_secs, headers: Vec::new(), content_type: None, body: String::new() }
    }

    /// Returns a response with a status and a body.
    pub fn body(status: u16, content_type: &str, body: &str) -> Self {
        Self::Answer {
            status,
            retry_after_secs: None,
            headers: Vec::new(),
            content_type: Some(content_type.to_owned()),
            body: body.to_owned(),
        }
    }

    /// Adds a header field to the response. Faults without a response stay as they are.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Returns a response with a JSON body.
    pub fn json(status: u16, body: &str) -> Self {
        Self::body(status, "application/json; charset=utf-8", body)
    }

    /// Returns a response with an HTML page, like one from a proxy.
    pub fn html(status: u16) -> Self {
        Self::body(status, "text/html", "<html><head><title>Error</title></head><body>nginx</body></html>\r\n")
    }
}

/// The faults of one server, in the order in which they were set.
#[derive(Debug)]
pub struct Faults {
    list: Mutex<VecDeque<Fault>>,
    /// Whether the server is to refuse connections.
    refuse_requested: watch::Sender<bool>,
    /// Whether the server refuses connections.
    refusing: watch::Sender<bool>,
    /// Whether the server has a port, which it closes to refuse connections.
    has_port: bool,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self {
            list: Mutex::default(),
            refuse_requested: watch::Sender::new(false),
            refusing: watch::Sender::new(false),
            has_port: true,
        }
    }

    /// Creates the faults of a server that shares its port. To refuse connections, they are reset when they name the server.
    pub(crate) fn of_shared_port() -> Self {
        Self { has_port: false, ..Self::new() }
    }

    /// Adds a fault. The first fault that matches a request applies to it.
    pub fn set(&self, fault: Fault) {
        if fault.times != Some(0) {
            self.list().push_back(fault);
        }
    }

    /// Returns the pending faults.
    pub fn pending(&self) -> Vec<Fault> {
        self.list().iter().cloned().collect()
    }

    /// Closes the port and resets open connections, as if the process had exited. Returns when both are done.
    ///
    /// # Cancel safety
    /// Safe: the server refuses connections even if the future is dropped.
    pub async fn refuse(&self) {
        self.refuse_requested.send_replace(true);
        self.wait_until_refusing(true).await;
    }

    /// Returns whether the server is to refuse connections.
    pub fn is_refusing(&self) -> bool {
        *self.refuse_requested.borrow()
    }

    /// Removes all faults. Returns when the server accepts connections again.
    ///
    /// # Cancel safety
    /// Safe: the faults are removed even if the future is dropped.
    pub async fn clear(&self) {
        self.list().clear();
        self.refuse_requested.send_replace(false);
        self.wait_until_refusing(false).await;
    }

    async fn wait_until_refusing(&self, refusing: bool) {
        if !self.has_port {
            return;
        }
        // `self` owns the sender, so waiting cannot fail.
        let _ = self.refusing.subscribe().wait_for(|now| *now == refusing).await;
    }

    /// Subscribes to whether the server is to refuse connections.
    pub(crate) fn subscribe_refuse_requested(&self) -> watch::Receiver<bool> {
        self.refuse_requested.subscribe()
    }

    /// Records whether the server refuses connections.
    pub(crate) fn set_refusing(&self, refusing: bool) {
        self.refusing.send_replace(refusing);
    }

    /// Returns the fault that applies to a request for `path`, and counts it as used.
    pub(crate) fn next(&self, path: &str) -> Option<FaultKind> {
        self.next_if(path, |_| true)
    }

    /// Returns the fault that applies to a request for `path`, if it satisfies a predicate, and counts it as used.
    pub(crate) fn next_if(&self, path: &str, predicate: impl FnOnce(&FaultKind) -> bool) -> Option<FaultKind> {
        let mut list = self.list();
        let matches = |fault: &Fault| fault.path_prefix.as_ref().is_none_or(|prefix| path.starts_with(prefix));
        let index = list.iter().position(matches)?;
        let fault = list.get_mut(index).filter(|fault| predicate(&fault.kind))?;
        let kind = fault.kind.clone();
        if let Some(times) = &mut fault.times {
            *times -= 1;
            if *times == 0 {
                list.remove(index);
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
    fn faults_apply_in_order_and_as_often_as_configured() {
        let faults = Faults::new();
        faults.set(Fault::times(2, FaultKind::status(503)));
        faults.set(Fault::times(1, FaultKind::Hang));
        let seen: Vec<_> = (0..4).map(|_| faults.next("/")).collect();
        let status = Some(FaultKind::status(503));
        assert_eq!(seen, [status.clone(), status, Some(FaultKind::Hang), None]);
    }

    #[test]
    fn a_path_prefix_restricts_a_fault() {
        let faults = Faults::new();
        faults.set(Fault::always(FaultKind::Reset).on_path("/api/hubs"));
        assert_eq!(faults.next("/api/health"), None);
        assert_eq!(faults.next("/api/hubs/chat/:send"), Some(FaultKind::Reset));
    }

    #[test]
    fn parses_faults_from_json() {
        let read = serde_json::from_str::<Fault>;
        let fault = read(r#"{"fault":{"answer":{"status":429,"retry_after_secs":7}},"times":3}"#).unwrap();
        assert_eq!(fault, Fault::times(3, FaultKind::status_after(429, Duration::from_secs(7))));
        assert_eq!(read(r#"{"fault":"hang"}"#).unwrap(), Fault::always(FaultKind::Hang));
        assert!(read(r#"{"fault":"hang","time":3}"#).is_err());
        assert!(read(r#"{"fault":{"answer":{"state":1}}}"#).is_err());
    }
}
