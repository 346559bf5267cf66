//! The journal of one server: the requests that it received. Tests assert on it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::exchange::bearer_token;
use crate::sandbox::crypto::keys;

/// The maximum number of entries.
const MAX_ENTRIES: usize = 100_000;

/// The maximum size of all entries with their header fields and bodies, in bytes. Chosen: more than any test needs. It bounds
/// the memory of a server that runs for days.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// The maximum size of all entries of a group of endpoints, in bytes. Chosen: the memory of four other servers.
const MAX_GROUP_BYTES: usize = 4 * MAX_BYTES;

/// The least size of the entries of one endpoint of a group, in bytes. Chosen: some ten requests.
const MIN_BYTES: usize = 16 * 1024;

/// The maximum size of a stored body, in bytes.
const MAX_STORED_BODY: usize = 64 * 1024;

/// The approximate size of the method, host, hash and verdict of an entry, in bytes.
const SHORT_FIELDS_BYTES: usize = 256;

/// A request that a server received.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The number of the request at this server, starting at 1.
    pub sequence: u64,
    /// The time at which its last byte arrived.
    pub at: SystemTime,
    /// The method.
    pub method: String,
    /// The path and query as sent, except that a fingerprint replaces the value of `access_token`.
    pub target: String,
    /// The value of `Host`, or of `:authority` in HTTP/2.
    pub host: String,
    /// The content of `Authorization`. Consecutive entries with the same token share it.
    pub authorization: Option<Arc<Authorization>>,
    /// The other header fields in order, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The size of the body that was read, in bytes.
    pub body_length: usize,
    /// The SHA-256 of those bytes, in lower-case hex.
    pub body_sha256: String,
    /// The body, if it is at most 64 KiB.
    pub body: Option<Bytes>,
    /// Whether the whole body arrived.
    pub complete: bool,
    /// The status of the response. `None` if there is no response, or none yet.
    pub status: Option<u16>,
    /// The server's explanation of the response, such as `AADSTS7000215` or `sent to 3`.
    pub verdict: String,
}

/// The content of `Authorization`, without the token itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The scheme as sent.
    pub scheme: String,
    /// The first eight hex digits of the token's SHA-256.
    pub fingerprint: String,
    /// The unverified claims of the token. Empty if the token is not a JWT.
    pub claims: Map<String, Value>,
}

/// The journal of one server.
#[derive(Debug)]
pub struct Journal {
    state: Mutex<JournalState>,
    changed: watch::Sender<u64>,
    show_bodies: bool,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct JournalState {
    entries: VecDeque<Entry>,
    bytes: usize,
    received: u64,
}

impl Journal {
    /// Creates an empty journal. Bodies can contain secrets: without `show_bodies`, the control listener omits them.
    pub(crate) fn new(show_bodies: bool) -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0), show_bodies, max_bytes: MAX_BYTES }
    }

    /// Creates the empty journal of one of `count` servers that share the memory of [`MAX_GROUP_BYTES`].
    pub(crate) fn of_group(count: usize) -> Self {
        let max_bytes = (MAX_GROUP_BYTES / count.max(1)).clamp(MIN_BYTES, MAX_BYTES);
        Self { max_bytes, ..Self::new(true) }
    }

    /// Returns the stored entries, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.state().entries.iter().cloned().collect()
    }

    /// Returns the number of requests received since the start.
    pub fn received(&self) -> u64 {
        self.state().received
    }

    /// Returns the number of entries that were removed.
    pub fn dropped(&self) -> u64 {
        let state = self.state();
        state.received - state.entries.len() as u64
    }

    /// Removes all entries. Numbering continues, and `dropped` counts them.
    pub fn clear(&self) {
        let mut state = self.state();
        state.entries.clear();
        state.bytes = 0;
    }

    /// Waits until at least `count` stored entries match, and returns them.
    ///
    /// An entry is added when the request has arrived, and updated when the response is determined.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_for(&self, count: usize, matches: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let found: Vec<Entry> = self.state().entries.iter().filter(|entry| matches(entry)).cloned().collect();
            if found.len() >= count {
                return found;
            }
            // `self` owns the sender, so waiting cannot fail.
            let _ = changed.changed().await;
        }
    }

    /// Returns the entries with numbers greater than `after` as JSON.
    pub(crate) fn json(&self, after: u64) -> Value {
        let entries: Vec<Value> = self
            .state()
            .entries
            .iter()
            .filter(|entry| entry.sequence > after)
            .map(|entry| entry.json(self.show_bodies))
            .collect();
        json!({ "received": self.received(), "dropped": self.dropped(), "entries": entries })
    }

    /// Adds an entry and returns its number.
    pub(crate) fn begin(&self, mut entry: Entry) -> u64 {
        let mut state = self.state();
        state.received += 1;
        entry.sequence = state.received;
        // Consecutive entries with the same token share its claims, to save memory.
        let previous = state.entries.back().and_then(|entry| entry.authorization.clone());
        if previous == entry.authorization {
            entry.authorization = previous;
        }
        state.bytes += entry.size();
        state.entries.push_back(entry);
        while state.entries.len() > MAX_ENTRIES || state.bytes > self.max_bytes {
            let Some(oldest) = state.entries.pop_front() else { break };
            state.bytes -= oldest.size();
        }
        let sequence = state.received;
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
        sequence
    }

    /// Records the response to a request.
    pub(crate) fn end(&self, sequence: u64, status: Option<u16>, verdict: &str) {
        let mut state = self.state();
        // Most responses belong to one of the newest entries, so the search starts there.
        if let Some(entry) = state.entries.iter_mut().rev().find(|entry| entry.sequence == sequence) {
            entry.status = status;
            verdict.clone_into(&mut entry.verdict);
        }
        drop(state);
        self.changed.send_modify(|changes| *changes += 1);
    }

    fn state(&self) -> MutexGuard<'_, JournalState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// Creates the entry of a request that has arrived.
    pub(crate) fn new(
        method: &http::Method,
        target: &str,
        host: &str,
        headers: &HeaderMap,
        body: &Bytes,
        complete: bool,
    ) -> Self {
        let shown = headers.iter().filter(|(name, _)| *name != AUTHORIZATION);
        let shown =
            shown.map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        Self {
            sequence: 0,
            at: SystemTime::now(),
            method: method.to_string(),
            target: without_token(target),
            host: host.to_owned(),
            authorization: Authorization::from_headers(headers).map(Arc::new),
            headers: shown.collect(),
            body_length: body.len(),
            body_sha256: hex(digest::digest(&digest::SHA256, body).as_ref()),
            body: (body.len() <= MAX_STORED_BODY).then(|| body.clone()),
            complete,
            status: None,
            verdict: String::new(),
        }
    }

    /// Returns the first value of a header field. The name must be in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the path without the query.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// Returns the decoded fields of a form body.
    pub fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(self.body.as_deref().unwrap_or_default()).into_owned().collect()
    }

    fn size(&self) -> usize {
        // Two strings with their allocation overhead.
        let header = |(name, value): &(String, String)| size_of::<(String, String)>() + 32 + name.len() + value.len();
        let headers: usize = self.headers.iter().map(header).sum();
        size_of::<Self>() + SHORT_FIELDS_BYTES + self.target.len() + headers + self.body.as_ref().map_or(0, Bytes::len)
    }

    fn json(&self, show_body: bool) -> Value {
        let body = self.body.as_ref().filter(|_| show_body).map(|body| String::from_utf8_lossy(body).into_owned());
        json!({
            "sequence": self.sequence,
            "at": humantime::format_rfc3339_millis(self.at).to_string(),
            "method": self.method,
            "target": self.target,
            "host": self.host,
            "authorization": self.authorization.as_ref().map(|sent| json!({
                "scheme": sent.scheme, "fingerprint": sent.fingerprint, "claims": sent.claims,
            })),
            "headers": self.headers,
            "body_length": self.body_length,
            "body_sha256": self.body_sha256,
            "body": body,
            "complete": self.complete,
            "status": self.status,
            "verdict": self.verdict,
        })
    }
}

impl Authorization {
    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(AUTHORIZATION)?;
        let text = String::from_utf8_lossy(value.as_bytes());
        let scheme = text.split(' ').next().unwrap_or_default().to_owned();
        let token = bearer_token(headers).unwrap_or_default();
        Some(Self {
            scheme,
            fingerprint: fingerprint(token),
            claims: keys::decode_unverified(token).map(|(_, claims)| claims).unwrap_or_default(),
        })
    }

    /// Returns a claim of the token that is a string.
    pub fn claim(&self, name: &str) -> Option<&str> {
        keys::string_claim(&self.claims, name)
    }
}

/// Returns the fingerprint of a secret or token: the first eight hex digits of its SHA-256.
pub fn fingerprint(secret: &str) -> String {
    let digest = digest::digest(&digest::SHA256, secret.as_bytes());
    hex(digest.as_ref().get(..4).unwrap_or_default())
}

/// Replaces the value of `access_token` in a request target with its fingerprint.
fn without_token(target: &str) -> String {
    const NAME: &str = "access_token=";
    let Some((path, query)) = target.split_once('?') else {
        return target.to_owned();
    };
    let pairs = query.split('&').map(|pair| match pair.get(..NAME.len()) {
        Some(name) if name.eq_ignore_ascii_case(NAME) => {
            format!("{name}{}", fingerprint(pair.get(NAME.len()..).unwrap_or_default()))
        }
        _ => pair.to_owned(),
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(length: usize) -> Entry {
        let headers = HeaderMap::from_iter([(AUTHORIZATION, "Bearer secret-token".parse().unwrap())]);
        Entry::new(&http::Method::POST, "/api?a=1", "host", &headers, &Bytes::from(vec![b'a'; length]), true)
    }

    #[test]
    fn stores_only_the_fingerprint_of_a_token() {
        let journal = Journal::new(true);
        journal.begin(entry(2));
        let shown = format!("{:?} {}", journal.entries(), journal.json(0));
        assert!(!shown.contains("secret-token"), "{shown}");
        assert_eq!(journal.entries()[0].authorization.as_ref().unwrap().fingerprint, fingerprint("secret-token"));
    }

    #[test]
    fn stores_only_the_fingerprint_of_a_token_in_the_query() {
        let target = without_token("/client/?hub=chat&access_token=secret&id=1");
        assert_eq!(target, format!("/client/?hub=chat&access_token={}&id=1", fingerprint("secret")));
        assert_eq!(without_token("/client/"), "/client/");
    }

    #[test]
    fn stores_only_the_length_and_hash_of_a_large_body() {
        let journal = Journal::new(true);
        journal.begin(entry(MAX_STORED_BODY + 1));
        let entry = journal.entries().remove(0);
        assert_eq!((entry.body, entry.body_length), (None, MAX_STORED_BODY + 1));
    }

    #[test]
    fn removes_and_counts_the_oldest_entries() {
        let journal = Journal::new(true);
        for _ in 0..1100 {
            journal.begin(entry(MAX_STORED_BODY));
        }
        assert_eq!(journal.received(), 1100);
        assert!(journal.dropped() > 50, "{}", journal.dropped());
        assert_eq!(journal.entries().last().unwrap().sequence, 1100);
    }

    #[test]
    fn records_the_response_to_each_request() {
        let journal = Journal::new(true);
        let (first, second) = (journal.begin(entry(1)), journal.begin(entry(2)));
        journal.end(second, Some(202), "sent to 2");
        journal.end(first, None, "hang");
        let statuses: Vec<_> = journal.entries().iter().map(|entry| (entry.status, entry.verdict.clone())).collect();
        assert_eq!(statuses, [(None, String::from("hang")), (Some(202), String::from("sent to 2"))]);
    }
}
