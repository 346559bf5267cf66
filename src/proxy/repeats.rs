//! Calls that carry an `Idempotency-Key`: which endpoints have accepted them already, so that a repeat goes to the others
//! alone. Knows no HTTP and no operations.
//!
//! Shared by all workers, since a repeat may come in on another connection. Only calls with a key come here, so a lock will
//! do. Memory is bounded by number and age.
//!
//! Source: draft-ietf-httpapi-idempotency-key-header-06. Where it has a server refuse a repeat while the first is under way
//! (409), the gateway has it wait: the caller most likely gave up waiting and would only have to come once more.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use http::{HeaderMap, HeaderName, StatusCode};

use super::ProxyError;

/// Names a call, so that it can be repeated.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key. The draft recommends UUIDs, which have 36 characters.
const LONGEST_KEY: usize = 255;

/// How long and how many keys are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepeatSettings {
    /// How long, from when a key was first seen.
    pub keep: Duration,
    /// The most keys; the oldest make way.
    pub keys: usize,
}

/// The calls that may be repeated.
#[derive(Default)]
pub struct Repeats(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    calls: HashMap<Box<str>, Arc<RepeatableCall>>,
    /// In the order in which they came.
    order: VecDeque<(Instant, Box<str>)>,
}

/// A call that may be repeated. One attempt at a time holds what was accepted.
#[derive(Debug)]
pub(super) struct RepeatableCall {
    fingerprint: Fingerprint,
    /// Whoever holds this is sending the call. It stays right when an attempt is dropped half-way.
    pub(super) accepted: tokio::sync::Mutex<Accepted>,
}

/// The endpoints that accepted a call, by name and origin, and their statuses.
#[derive(Debug, Default)]
pub(super) struct Accepted(Vec<(Box<str>, Box<str>, StatusCode)>);

/// What makes two calls the same: method, target and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

/// The key stands for another call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AnotherCall;

impl Fingerprint {
    pub(super) fn of(method: &http::Method, target: &http::Uri, body: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [method.as_str(), target.path(), target.query().unwrap_or_default()] {
            context.update(part.as_bytes());
            // Stands in none of them.
            context.update(b"\n");
        }
        context.update(body);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }
}

impl Accepted {
    /// Returns the status with which an endpoint accepted the call, if it did.
    pub(super) fn by(&self, endpoint: &str, origin: &str) -> Option<StatusCode> {
        let found = self.0.iter().find(|(name, at, _)| **name == *endpoint && **at == *origin);
        found.map(|(_, _, status)| *status)
    }

    pub(super) fn note(&mut self, endpoint: &str, origin: &str, status: StatusCode) {
        self.0.push((endpoint.into(), origin.into(), status));
    }
}

impl Repeats {
    /// Returns the call of a key, remembered from now on or since before.
    pub(super) fn call(
        &self,
        key: &str,
        fingerprint: Fingerprint,
        settings: RepeatSettings,
    ) -> Result<Arc<RepeatableCall>, AnotherCall> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.forget(|first_seen, _| now.saturating_duration_since(first_seen) >= settings.keep);
        if let Some(call) = kept.calls.get(key) {
            return if call.fingerprint == fingerprint { Ok(Arc::clone(call)) } else { Err(AnotherCall) };
        }
        kept.forget(|_, kept| kept >= settings.keys);
        let call = Arc::new(RepeatableCall { fingerprint, accepted: tokio::sync::Mutex::default() });
        kept.calls.insert(key.into(), Arc::clone(&call));
        kept.order.push_back((now, key.into()));
        Ok(call)
    }
}

impl Kept {
    /// Forgets the oldest while `is_over` says so of when it came and of how many there are.
    fn forget(&mut self, is_over: impl Fn(Instant, usize) -> bool) {
        while self.order.front().is_some_and(|(first_seen, _)| is_over(*first_seen, self.calls.len())) {
            if let Some((_, key)) = self.order.pop_front() {
                self.calls.remove(&key);
            }
        }
    }
}

/// Returns the key of a request, if it has one.
///
/// # Errors
/// [`ProxyError::Malformed`] when it cannot be one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<&str>, ProxyError> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=LONGEST_KEY).contains(&key.len()));
    match (key, keys.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(ProxyError::Malformed("a request has one Idempotency-Key, of 1 to 255 visible ASCII characters")),
    }
}

impl fmt::Debug for Repeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repeats").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn fingerprint(body: &str) -> Fingerprint {
        Fingerprint::of(&Method::POST, &"/api/hubs/h/:send?a=1".parse().unwrap(), body.as_bytes())
    }

    #[tokio::test]
    async fn a_key_stands_for_one_call_until_it_is_forgotten() {
        let repeats = Repeats::default();
        let settings = RepeatSettings { keep: Duration::from_secs(60), keys: 2 };
        let call = |key, body| repeats.call(key, fingerprint(body), settings);
        call("k1", "a").unwrap().accepted.lock().await.note("east", "https://e", StatusCode::ACCEPTED);
        let again = call("k1", "a").unwrap();
        assert_eq!(again.accepted.lock().await.by("east", "https://e"), Some(StatusCode::ACCEPTED));
        assert_eq!(again.accepted.lock().await.by("east", "https://elsewhere"), None);
        assert_eq!(call("k1", "b").err(), Some(AnotherCall));
        // Two are the most that are kept.
        call("k2", "a").unwrap();
        call("k3", "a").unwrap();
        assert!(call("k1", "b").is_ok());
    }

    #[test]
    fn a_key_is_forgotten_in_time() {
        let repeats = Repeats::default();
        let settings = RepeatSettings { keep: Duration::ZERO, keys: 10 };
        for body in ["a", "b", "c"] {
            assert!(repeats.call("k", fingerprint(body), settings).is_ok());
        }
        assert_eq!(repeats.0.lock().unwrap().calls.len(), 1);
    }

    #[test]
    fn calls_are_the_same_by_method_target_and_body() {
        let of = |method, target: &str, body: &str| Fingerprint::of(&method, &target.parse().unwrap(), body.as_bytes());
        let all = [
            of(Method::POST, "/a?b", "c"),
            of(Method::PUT, "/a?b", "c"),
            of(Method::POST, "/a", "b\nc"),
            of(Method::POST, "/a?c", "c"),
            of(Method::POST, "/a?b", "d"),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all.iter().skip(place + 1).all(|other| one != other), "{place}");
        }
        assert!(of(Method::POST, "/a?b", "c") == all[0]);
    }
}
