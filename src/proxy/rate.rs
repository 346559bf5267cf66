//! How many calls per second a route takes, and how many from one network of callers.
//!
//! Shared by all workers, so that a rate holds for all of them together; where none is configured there is nothing to share.
//! A rate is one number that is replaced atomically (GCRA, by the `governor` crate): no lock, no task, no timer.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{NotUntil, Quota, RateLimiter};
use ipnet::IpNet;

use crate::route::RateSettings;

/// The places for networks. Whoever sends from ever new networks takes no more memory than this, and two networks that come
/// to one place share its rate: with a hundred busy networks, one in 160 does.
pub(super) const NETWORK_PLACES: usize = 16_384;

/// A rate for each network of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRateSettings {
    /// Each network's rate.
    pub rate: RateSettings,
    /// The prefix length that makes a network of IPv4 addresses.
    pub ipv4_prefix: u8,
    /// The same of IPv6 addresses.
    pub ipv6_prefix: u8,
}

/// One rate for all calls of a route.
pub(super) struct Rate {
    settings: RateSettings,
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock>,
}

/// A rate for each network of callers.
pub(super) struct ClientRates {
    settings: ClientRateSettings,
    limiter: RateLimiter<usize, Places, DefaultClock>,
    /// Seeded at random, so that nobody can choose whose place to come to.
    hasher: RandomState,
}

/// The rates of networks, by place.
struct Places(Box<[InMemoryState]>);

impl StateStore for Places {
    type Key = usize;

    fn measure_and_replace<T, F, E>(&self, key: &usize, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        match self.0.get(*key) {
            Some(place) => place.measure_and_replace(&NotKeyed::NonKey, measure),
            // Keys are taken modulo the number of places.
            None => measure(None).map(|(outcome, _)| outcome),
        }
    }
}

impl Rate {
    pub(super) fn new(settings: RateSettings) -> Self {
        Self { settings, limiter: RateLimiter::direct_with_clock(quota(settings), DefaultClock::default()) }
    }

    pub(super) fn settings(&self) -> RateSettings {
        self.settings
    }

    /// Lets a call pass, or says when the next may come.
    pub(super) fn pass(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|refused| until(&refused))
    }
}

impl ClientRates {
    pub(super) fn new(settings: ClientRateSettings) -> Self {
        let places = Places((0..NETWORK_PLACES).map(|_| InMemoryState::default()).collect());
        let limiter = RateLimiter::new(quota(settings.rate), places, DefaultClock::default());
        Self { settings, limiter, hasher: RandomState::new() }
    }

    pub(super) fn settings(&self) -> ClientRateSettings {
        self.settings
    }

    /// Lets a call from this address pass, or says when the next from its network may come.
    pub(super) fn pass(&self, client: IpAddr) -> Result<(), Duration> {
        self.limiter.check_key(&self.place(client)).map_err(|refused| until(&refused))
    }

    fn place(&self, client: IpAddr) -> usize {
        let client = client.to_canonical();
        let prefix = if client.is_ipv4() { self.settings.ipv4_prefix } else { self.settings.ipv6_prefix };
        // Configuration has checked the prefixes.
        let network = IpNet::new(client, prefix).map_or(client, |network| network.network());
        usize::try_from(self.hasher.hash_one(network) % NETWORK_PLACES as u64).unwrap_or_default()
    }
}

fn quota(settings: RateSettings) -> Quota {
    Quota::per_second(settings.per_second).allow_burst(settings.burst)
}

fn until<P: governor::clock::Reference>(refused: &NotUntil<P>) -> Duration
where
    DefaultClock: Clock<Instant = P>,
{
    refused.wait_time_from(DefaultClock::default().now())
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rate").field(&self.settings).finish()
    }
}

impl fmt::Debug for ClientRates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientRates").field(&self.settings).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rate(burst: u32) -> RateSettings {
        let number = |number| NonZeroU32::new(number).unwrap();
        // One in a second, so that no machine is slow enough to get another.
        RateSettings { per_second: number(1), burst: number(burst) }
    }

    #[test]
    fn a_burst_passes_and_then_it_is_said_when_the_next_may_come() {
        let rate = Rate::new(rate(3));
        for _ in 0..3 {
            rate.pass().unwrap();
        }
        let wait = rate.pass().unwrap_err();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
    }

    #[test]
    fn networks_have_rates_of_their_own() {
        let rates = ClientRates::new(ClientRateSettings { rate: rate(1), ipv4_prefix: 24, ipv6_prefix: 64 });
        let pass = |address: &str| rates.pass(address.parse().unwrap()).is_ok();
        assert!(pass("10.0.0.1"));
        assert!(!pass("10.0.0.2") && !pass("::ffff:10.0.0.3"), "the same network");
        assert!(pass("2001:db8::1") && !pass("2001:db8::2"));
        // One of them may share the place of another by chance, but not all.
        let others = (1..100).filter(|net| pass(&format!("10.0.{net}.1"))).count();
        assert!(others > 80, "{others}");
    }
}
