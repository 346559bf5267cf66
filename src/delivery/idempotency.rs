//! Remembers calls that carry an `Idempotency-Key` and the endpoints that accepted them, so that a repeated call goes
//! only to the others. Independent of operations.
//!
//! All workers share the store, since a call may be repeated on another connection or from another host of the same
//! service. Only calls with a key use it, so a mutex suffices. Number and age of the keys bound its memory; [`Calls`]
//! says which keys are evicted.
//!
//! Source: draft-ietf-httpapi-idempotency-key-header-06. The draft has a server refuse a repeated call while the first
//! is in progress (409). The gateway lets it wait instead: most likely the caller timed out and would have to repeat
//! the call once more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use http::StatusCode;

/// How long and how many keys are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencySettings {
    /// How long a key is remembered after it was first seen.
    pub keep: Duration,
    /// The maximum number of keys that are remembered.
    pub keys: usize,
}

/// A key and the listener that it was sent to: another listener has its own keys.
#[derive(Clone, Copy, Debug)]
pub struct CallKey<'a> {
    /// The listener's configured name.
    pub listener: &'a str,
    /// The network of the caller, whose share of the store the key counts against.
    pub network: Network,
    /// The key.
    pub key: &'a str,
}

/// A network of callers: a /24 of IPv4, a /64 of IPv6, or all callers on Unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// A Unix socket.
    Local,
    /// The first three bytes of an IPv4 address.
    V4(u32),
    /// The first eight bytes of an IPv6 address.
    V6(u64),
}

/// The calls that carried a key.
#[derive(Default)]
pub struct IdempotencyStore(Mutex<Calls>);

/// Keys, numbered in the order in which they arrived.
///
/// When the store is full, the network with the most keys loses its oldest one. So each network is guaranteed an equal
/// share of the store and may use what others leave. A key whose call is in progress is never evicted: the call could
/// be sent twice. Such keys may exceed the limit for a while; there are no more of them than calls in progress.
#[derive(Default)]
struct Calls {
    by_key: HashMap<Arc<StoreKey>, Remembered>,
    by_age: BTreeMap<u64, Arc<StoreKey>>,
    by_network: HashMap<Network, BTreeSet<u64>>,
    /// The number of keys of each network.
    sizes: BTreeSet<(usize, Network)>,
    next: u64,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct StoreKey {
    listener: Box<str>,
    key: Box<str>,
}

struct Remembered {
    number: u64,
    first_seen: Instant,
    network: Network,
    call: Arc<KeyedCall>,
}

/// A call that carried a key.
#[derive(Debug)]
pub(super) struct KeyedCall {
    fingerprint: Fingerprint,
    /// Locked by the request that sends the call. Remains correct when that request is cancelled.
    pub(super) accepted: tokio::sync::Mutex<Accepted>,
}

/// The endpoints that accepted a call: name, origin and status.
#[derive(Debug, Default)]
pub(super) struct Accepted(Vec<(Box<str>, Box<str>, StatusCode)>);

/// The hash of method, target and body. Calls with the same fingerprint are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

/// The key was used for another call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyReused;

impl Network {
    /// Returns the network of a caller. Callers on a Unix socket have no address.
    pub fn of(client: Option<IpAddr>) -> Self {
        match client.map(|client| client.to_canonical()) {
            None => Self::Local,
            Some(IpAddr::V4(address)) => Self::V4(address.to_bits() >> 8),
            // Never fails: the upper 64 bits.
            Some(IpAddr::V6(address)) => Self::V6(u64::try_from(address.to_bits() >> 64).unwrap_or_default()),
        }
    }
}

impl Fingerprint {
    pub(super) fn of(method: &http::Method, target: &http::Uri, body: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [method.as_str(), target.path(), target.query().unwrap_or_default()] {
            context.update(part.as_bytes());
            // A separator that none of them contains.
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

    pub(super) fn record(&mut self, endpoint: &str, origin: &str, status: StatusCode) {
        self.0.push((endpoint.into(), origin.into(), status));
    }
}

impl IdempotencyStore {
    /// Returns the call of a key, which is remembered from then on. The call is in progress until the last returned
    /// `Arc` is dropped.
    pub(super) fn call(
        &self,
        key: CallKey<'_>,
        fingerprint: Fingerprint,
        settings: IdempotencySettings,
    ) -> Result<Arc<KeyedCall>, KeyReused> {
        let store_key = StoreKey { listener: key.listener.into(), key: key.key.into() };
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        calls.evict_expired(now, settings.keep);
        if let Some(known) = calls.by_key.get(&store_key) {
            let call = &known.call;
            return if call.fingerprint == fingerprint { Ok(Arc::clone(call)) } else { Err(KeyReused) };
        }
        while calls.by_key.len() >= settings.keys {
            if !calls.evict_one(key.network) {
                break;
            }
        }
        let call = Arc::new(KeyedCall { fingerprint, accepted: tokio::sync::Mutex::default() });
        calls.insert(store_key, key.network, now, Arc::clone(&call));
        Ok(call)
    }
}

impl Calls {
    fn insert(&mut self, key: StoreKey, network: Network, first_seen: Instant, call: Arc<KeyedCall>) {
        let (key, number) = (Arc::new(key), self.next);
        self.next += 1;
        self.by_age.insert(number, Arc::clone(&key));
        self.by_key.insert(key, Remembered { number, first_seen, network, call });
        self.change_network(network, |numbers| numbers.insert(number));
    }

    fn remove(&mut self, number: u64) {
        let removed = self.by_age.remove(&number).and_then(|key| self.by_key.remove(&key));
        if let Some(removed) = removed {
            self.change_network(removed.network, |numbers| numbers.remove(&number));
        }
    }

    fn change_network(&mut self, network: Network, change: impl FnOnce(&mut BTreeSet<u64>) -> bool) {
        let numbers = self.by_network.entry(network).or_default();
        self.sizes.remove(&(numbers.len(), network));
        change(numbers);
        if numbers.is_empty() {
            self.by_network.remove(&network);
        } else {
            self.sizes.insert((numbers.len(), network));
        }
    }

    fn evict_expired(&mut self, now: Instant, keep: Duration) {
        let is_expired = |known: &Remembered| now.saturating_duration_since(known.first_seen) >= keep;
        let known = self.by_age.values().filter_map(|key| self.by_key.get(key));
        let expired = known.take_while(|known| is_expired(known)).filter(|known| !known.is_in_progress());
        for number in expired.map(|known| known.number).collect::<Vec<_>>() {
            self.remove(number);
        }
    }

    /// Evicts one key to make room for one of this network. Returns whether a key could be evicted.
    fn evict_one(&mut self, network: Network) -> bool {
        let own = self.by_network.get(&network).map_or(0, BTreeSet::len);
        // Only larger networks lose a key first: with its new key, this network exceeds any that it ties with.
        let largest_first = self.sizes.iter().rev().take_while(|(size, _)| *size > own).map(|(_, network)| *network);
        let oldest = largest_first.chain([network]).find_map(|network| self.oldest_idle(network));
        if let Some(number) = oldest {
            self.remove(number);
        }
        oldest.is_some()
    }

    fn oldest_idle(&self, network: Network) -> Option<u64> {
        let known = |number: &u64| self.by_key.get(self.by_age.get(number)?);
        self.by_network
            .get(&network)?
            .iter()
            .copied()
            .find(|number| known(number).is_some_and(|known| !known.is_in_progress()))
    }
}

impl Remembered {
    /// Returns whether a request holds the call. Requests get it only under the store's lock.
    fn is_in_progress(&self) -> bool {
        Arc::strong_count(&self.call) > 1
    }
}

impl fmt::Debug for IdempotencyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn fingerprint(body: &str) -> Fingerprint {
        Fingerprint::of(&Method::POST, &"/api/hubs/h/:send?a=1".parse().unwrap(), body.as_bytes())
    }

    /// A key of listener `inside`, sent from 10.0.`network`.1.
    fn from(network: u8, key: &str) -> CallKey<'_> {
        CallKey { listener: "inside", network: Network::of(Some([10, 0, network, 1].into())), key }
    }

    fn is_known(store: &IdempotencyStore, key: CallKey<'_>) -> bool {
        let store_key = StoreKey { listener: key.listener.into(), key: key.key.into() };
        store.0.lock().unwrap().by_key.contains_key(&store_key)
    }

    const SETTINGS: IdempotencySettings = IdempotencySettings { keep: Duration::from_secs(60), keys: 10 };

    #[tokio::test]
    async fn key_belongs_to_one_call() {
        let store = IdempotencyStore::default();
        let call = |key, body| store.call(from(1, key), fingerprint(body), SETTINGS);
        call("k1", "a").unwrap().accepted.lock().await.record("east", "https://e", StatusCode::ACCEPTED);
        let again = call("k1", "a").unwrap();
        assert_eq!(again.accepted.lock().await.by("east", "https://e"), Some(StatusCode::ACCEPTED));
        assert_eq!(again.accepted.lock().await.by("east", "https://elsewhere"), None);
        assert_eq!(call("k1", "b").err(), Some(KeyReused));
        // A call may be repeated from another host.
        let elsewhere = store.call(from(2, "k1"), fingerprint("a"), SETTINGS).unwrap();
        assert_eq!(elsewhere.accepted.lock().await.by("east", "https://e"), Some(StatusCode::ACCEPTED));
    }

    #[tokio::test]
    async fn listeners_share_no_keys() {
        let store = IdempotencyStore::default();
        let first = store.call(from(1, "k"), fingerprint("a"), SETTINGS).unwrap();
        first.accepted.lock().await.record("east", "https://e", StatusCode::ACCEPTED);
        let elsewhere = CallKey { listener: "outside", ..from(1, "k") };
        let other = store.call(elsewhere, fingerprint("b"), SETTINGS).unwrap();
        assert_eq!(other.accepted.lock().await.by("east", "https://e"), None);
    }

    #[test]
    fn key_expires() {
        let store = IdempotencyStore::default();
        let settings = IdempotencySettings { keep: Duration::ZERO, keys: 10 };
        for body in ["a", "b", "c"] {
            assert!(store.call(from(1, "k"), fingerprint(body), settings).is_ok());
        }
        let calls = store.0.lock().unwrap();
        assert_eq!((calls.by_key.len(), calls.by_age.len(), calls.by_network.len(), calls.sizes.len()), (1, 1, 1, 1));
    }

    #[test]
    fn network_with_most_keys_loses_its_oldest() {
        let store = IdempotencyStore::default();
        let call = |key: CallKey<'_>| drop(store.call(key, fingerprint("a"), SETTINGS).unwrap());
        for key in ["quiet1", "quiet2", "quiet3"] {
            call(from(1, key));
        }
        for number in 0..1000 {
            call(from(2, &format!("loud{number}")));
        }
        assert_eq!(store.0.lock().unwrap().by_key.len(), SETTINGS.keys);
        for key in ["quiet1", "quiet2", "quiet3"] {
            assert!(is_known(&store, from(1, key)), "{key}");
        }
        // The quiet network is guaranteed its share: half of the store.
        call(from(1, "quiet4"));
        call(from(1, "quiet5"));
        assert!(is_known(&store, from(1, "quiet1")) && is_known(&store, from(1, "quiet5")));
        assert!(is_known(&store, from(2, "loud999")) && !is_known(&store, from(2, "loud994")));
        call(from(1, "quiet6"));
        assert!(!is_known(&store, from(1, "quiet1")) && is_known(&store, from(2, "loud995")));
    }

    #[test]
    fn key_of_a_call_in_progress_is_not_evicted() {
        let store = IdempotencyStore::default();
        let call = |key: &str| store.call(from(1, key), fingerprint("a"), SETTINGS).unwrap();
        let in_progress = call("first");
        (0..100).for_each(|number| drop(call(&format!("k{number}"))));
        assert!(is_known(&store, from(1, "first")));
        let expired = IdempotencySettings { keep: Duration::ZERO, keys: 10 };
        drop(store.call(from(1, "another"), fingerprint("a"), expired).unwrap());
        assert!(is_known(&store, from(1, "first")));
        drop(in_progress);
        drop(store.call(from(1, "one more"), fingerprint("a"), expired).unwrap());
        assert!(!is_known(&store, from(1, "first")));
        // All of them may be in progress.
        let many: Vec<_> = (0..50).map(|number| call(&format!("w{number}"))).collect();
        assert_eq!(store.0.lock().unwrap().by_key.len(), many.len());
        drop(many);
        drop(call("after"));
        assert_eq!(store.0.lock().unwrap().by_key.len(), SETTINGS.keys);
    }

    #[test]
    fn callers_are_grouped_by_network() {
        let of = |address: &str| Network::of(Some(address.parse().unwrap()));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.200"));
        assert_ne!(of("10.0.0.1"), of("10.0.1.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(Network::of(None), Network::Local);
    }

    #[test]
    fn fingerprint_covers_method_target_and_body() {
        let of = |method, target: &str, body: &str| Fingerprint::of(&method, &target.parse().unwrap(), body.as_bytes());
        let all = [
            of(Method::POST, "/a?b", "c"),
            of(Method::PUT, "/a?b", "c"),
            of(Method::POST, "/a", "b\nc"),
            of(Method::POST, "/a?c", "c"),
            of(Method::POST, "/a?b", "d"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all.iter().skip(index + 1).all(|other| one != other), "{index}");
        }
        assert!(of(Method::POST, "/a?b", "c") == all[0]);
    }
}
