//! The calls with a key that this gateway knows.
//!
//! All workers share the store, since a call may be repeated on another connection or from another host of the same
//! service. Only calls with a key use it, so a mutex suffices. Number, age and size of the keys bound its memory; [`Calls`]
//! says which keys are evicted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::fingerprint::Fingerprint;
use super::key::{CallKey, Network};
use super::leg::Legs;
use super::settings::IdempotencySettings;

/// The memory that each key may use without counting as more than one, in bytes.
const KEY_SIZE: usize = 2048;

/// The calls with a key that this gateway knows.
#[derive(Default)]
pub(super) struct Calls(Mutex<Keys>);

/// A known call. The call is in progress while an `Arc` of its legs exists outside of the store.
pub(super) struct KnownCall {
    /// The number of its key.
    pub(super) number: u64,
    /// Locked by the request that sends the call. Remains correct when that request is cancelled.
    pub(super) legs: Arc<tokio::sync::Mutex<Legs>>,
}

/// The key belongs to another call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OtherCall;

/// Keys, numbered in the order in which they arrived.
///
/// When the store is full, the network with the most keys loses its oldest one. So each network is guaranteed an equal
/// share of the store and may use what others leave. A key whose call is in progress is never evicted: the call could
/// be sent twice. Such keys may exceed the limit for a while; there are no more of them than calls in progress. A key with
/// more than 2 KiB counts as several.
#[derive(Default)]
struct Keys {
    by_key: HashMap<Arc<StoreKey>, Remembered>,
    by_age: BTreeMap<u64, Arc<StoreKey>>,
    by_network: HashMap<Network, BTreeSet<u64>>,
    /// The number of keys of each network.
    sizes: BTreeSet<(usize, Network)>,
    next: u64,
    /// How many more keys the memory of large outcomes would hold.
    extra: usize,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct StoreKey {
    listener: Box<str>,
    caller: Box<str>,
    key: Box<str>,
}

struct Remembered {
    number: u64,
    first_seen: Instant,
    network: Network,
    fingerprint: Fingerprint,
    legs: Arc<tokio::sync::Mutex<Legs>>,
    /// How many keys it counts as beyond one.
    extra: usize,
}

impl Calls {
    /// Returns the call of a key, which is remembered from then on.
    pub(super) fn call(
        &self,
        key: &CallKey,
        fingerprint: Fingerprint,
        settings: IdempotencySettings,
    ) -> Result<KnownCall, OtherCall> {
        let store_key = StoreKey::of(key);
        let mut keys = self.keys();
        let now = Instant::now();
        keys.evict_expired(now, settings.expires_after);
        if let Some(known) = keys.by_key.get(&store_key) {
            let call = KnownCall { number: known.number, legs: Arc::clone(&known.legs) };
            return if known.fingerprint == fingerprint { Ok(call) } else { Err(OtherCall) };
        }
        while keys.by_key.len() + keys.extra >= settings.keys {
            if !keys.evict_one(key.network) {
                break;
            }
        }
        let legs = Arc::<tokio::sync::Mutex<Legs>>::default();
        let remembered = Remembered {
            number: keys.next,
            first_seen: now,
            network: key.network,
            fingerprint,
            legs: Arc::clone(&legs),
            extra: 0,
        };
        Ok(KnownCall { number: keys.insert(store_key, remembered), legs })
    }

    /// Sets the memory that a key uses, in bytes.
    pub(super) fn resize(&self, number: u64, bytes: usize) {
        let keys = &mut *self.keys();
        let Some(known) = keys.by_age.get(&number).and_then(|key| keys.by_key.get_mut(key)) else { return };
        keys.extra -= known.extra;
        known.extra = bytes / KEY_SIZE;
        keys.extra += known.extra;
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keys {
    /// Inserts a key and returns its number.
    fn insert(&mut self, key: StoreKey, remembered: Remembered) -> u64 {
        let (key, number, network) = (Arc::new(key), self.next, remembered.network);
        self.next += 1;
        self.by_age.insert(number, Arc::clone(&key));
        self.by_key.insert(key, remembered);
        self.change_network(network, |numbers| numbers.insert(number));
        number
    }

    fn remove(&mut self, number: u64) {
        let removed = self.by_age.remove(&number).and_then(|key| self.by_key.remove(&key));
        if let Some(removed) = removed {
            self.extra -= removed.extra;
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

    fn evict_expired(&mut self, now: Instant, expires_after: Duration) {
        let is_expired = |known: &Remembered| now.saturating_duration_since(known.first_seen) >= expires_after;
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

impl StoreKey {
    fn of(key: &CallKey) -> Self {
        Self { listener: key.listener.clone(), caller: key.caller.clone(), key: key.key.clone() }
    }
}

impl Remembered {
    /// Returns whether a request holds the call. Requests get it only under the store's lock.
    fn is_in_progress(&self) -> bool {
        Arc::strong_count(&self.legs) > 1
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method, StatusCode, Uri};

    use super::*;
    use crate::idempotency::leg::LegState;
    use crate::idempotency::outcome::Outcome;

    fn fingerprint(body: &str) -> Fingerprint {
        Fingerprint::of(["r", ""], &Method::POST, &Uri::from_static("/"), None, body.as_bytes())
    }

    /// A key of listener `inside`, sent from 10.0.`network`.1.
    fn from(network: u8, key: &str) -> CallKey {
        let network = Network::of(Some([10, 0, network, 1].into()));
        CallKey { listener: "inside".into(), caller: "".into(), network, key: key.into() }
    }

    fn is_known(calls: &Calls, key: &CallKey) -> bool {
        let store_key = StoreKey::of(key);
        calls.keys().by_key.contains_key(&store_key)
    }

    const SETTINGS: IdempotencySettings = IdempotencySettings { expires_after: Duration::from_secs(60), keys: 10 };

    #[test]
    fn key_belongs_to_one_call_of_one_listener() {
        let calls = Calls::default();
        let call = |key: &CallKey, body| calls.call(key, fingerprint(body), SETTINGS);
        let first = call(&from(1, "k1"), "a").unwrap();
        assert!(Arc::ptr_eq(&first.legs, &call(&from(1, "k1"), "a").unwrap().legs));
        assert_eq!(call(&from(1, "k1"), "b").err(), Some(OtherCall));
        // A call may be repeated from another host.
        assert!(Arc::ptr_eq(&first.legs, &call(&from(2, "k1"), "a").unwrap().legs));
        let elsewhere = CallKey { listener: "outside".into(), ..from(1, "k1") };
        let other_caller = CallKey { caller: "spiffe://prod/orders".into(), ..from(1, "k1") };
        for key in [elsewhere, other_caller] {
            assert!(!Arc::ptr_eq(&first.legs, &call(&key, "b").unwrap().legs));
        }
    }

    #[test]
    fn key_expires() {
        let calls = Calls::default();
        let settings = IdempotencySettings { expires_after: Duration::ZERO, keys: 10 };
        for body in ["a", "b", "c"] {
            assert!(calls.call(&from(1, "k"), fingerprint(body), settings).is_ok());
        }
        let keys = calls.keys();
        assert_eq!((keys.by_key.len(), keys.by_age.len(), keys.by_network.len(), keys.sizes.len()), (1, 1, 1, 1));
    }

    #[test]
    fn network_with_most_keys_loses_its_oldest() {
        let calls = Calls::default();
        let call = |key: &CallKey| drop(calls.call(key, fingerprint("a"), SETTINGS).unwrap());
        for key in ["quiet1", "quiet2", "quiet3"] {
            call(&from(1, key));
        }
        for number in 0..1000 {
            call(&from(2, &format!("loud{number}")));
        }
        assert_eq!(calls.keys().by_key.len(), SETTINGS.keys);
        for key in ["quiet1", "quiet2", "quiet3"] {
            assert!(is_known(&calls, &from(1, key)), "{key}");
        }
        // The quiet network is guaranteed its share: half of the store.
        call(&from(1, "quiet4"));
        call(&from(1, "quiet5"));
        assert!(is_known(&calls, &from(1, "quiet1")) && is_known(&calls, &from(1, "quiet5")));
        assert!(is_known(&calls, &from(2, "loud999")) && !is_known(&calls, &from(2, "loud994")));
        call(&from(1, "quiet6"));
        assert!(!is_known(&calls, &from(1, "quiet1")) && is_known(&calls, &from(2, "loud995")));
    }

    #[test]
    fn key_of_a_call_in_progress_is_not_evicted() {
        let calls = Calls::default();
        let call = |key: &str| calls.call(&from(1, key), fingerprint("a"), SETTINGS).unwrap();
        let in_progress = call("first");
        (0..100).for_each(|number| drop(call(&format!("k{number}"))));
        assert!(is_known(&calls, &from(1, "first")));
        let expired = IdempotencySettings { expires_after: Duration::ZERO, keys: 10 };
        drop(calls.call(&from(1, "another"), fingerprint("a"), expired).unwrap());
        assert!(is_known(&calls, &from(1, "first")));
        drop(in_progress);
        drop(calls.call(&from(1, "one more"), fingerprint("a"), expired).unwrap());
        assert!(!is_known(&calls, &from(1, "first")));
        // All of them may be in progress.
        let many: Vec<_> = (0..50).map(|number| call(&format!("w{number}"))).collect();
        assert_eq!(calls.keys().by_key.len(), many.len());
        drop(many);
        drop(call("after"));
        assert_eq!(calls.keys().by_key.len(), SETTINGS.keys);
    }

    #[test]
    fn key_with_a_large_outcome_counts_as_several() {
        let calls = Calls::default();
        let call = |key: &str| calls.call(&from(1, key), fingerprint("a"), SETTINGS).unwrap();
        let large = call("large");
        let body = Bytes::from(vec![b'x'; 4 * KEY_SIZE]);
        let outcome = Outcome::of(StatusCode::OK, &HeaderMap::new(), Some(&body));
        let legs = &mut *large.legs.try_lock().unwrap();
        legs.set("east", "https://e", LegState::Done(outcome.into()));
        calls.resize(large.number, legs.size());
        (0..5).for_each(|number| drop(call(&format!("k{number}"))));
        assert!(is_known(&calls, &from(1, "k0")) && calls.keys().extra == 4);
        (5..8).for_each(|number| drop(call(&format!("k{number}"))));
        assert!(is_known(&calls, &from(1, "large")) && !is_known(&calls, &from(1, "k1")));
    }
}
