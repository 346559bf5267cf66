//! How many calls per second a route or an endpoint takes, and how many from one network of callers.
//!
//! All workers share a rate. It is one number that is replaced atomically (GCRA, by the `governor` crate): no lock, no
//! task, no timer.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{NotUntil, Quota, RateLimiter};
use ipnet::IpNet;

/// The number of hash slots for the rates of networks. It bounds memory however many networks send; networks that
/// collide share one rate. With a hundred busy networks, one in 160 collides.
const SLOTS: usize = 16_384;

/// The rate at which calls may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSettings {
    /// Calls per second in the long run.
    pub per_second: NonZeroU32,
    /// Calls that may come at once.
    pub burst: NonZeroU32,
}

/// The rate of each network of callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRateSettings {
    /// Each network's rate.
    pub rate: RateSettings,
    /// The prefix length of a network of IPv4 addresses.
    pub ipv4_prefix: u8,
    /// The prefix length of a network of IPv6 addresses.
    pub ipv6_prefix: u8,
}

/// A call came too early for its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateExceeded {
    /// How long until the next call may pass.
    pub retry_after: Duration,
}

/// One rate for all calls of a route or to an endpoint. Shared by all workers.
pub struct RateLimit {
    settings: RateSettings,
    limiter: RateLimiter<NotKeyed, InMemoryState, DefaultClock>,
}

/// One rate for each network of callers.
pub(super) struct ClientRateLimits {
    settings: ClientRateSettings,
    limiter: RateLimiter<usize, Slots, DefaultClock>,
    /// Seeded at random, so that callers cannot choose which network they collide with.
    hasher: RandomState,
}

/// The rates of networks, by hash slot.
struct Slots(Box<[InMemoryState]>);

impl StateStore for Slots {
    type Key = usize;

    fn measure_and_replace<T, F, E>(&self, key: &usize, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        match self.0.get(*key) {
            Some(slot) => slot.measure_and_replace(&NotKeyed::NonKey, measure),
            // Unreachable: keys are taken modulo the number of slots.
            None => measure(None).map(|(outcome, _)| outcome),
        }
    }
}

impl RateLimit {
    pub(super) fn new(settings: RateSettings) -> Self {
        Self { settings, limiter: RateLimiter::direct_with_clock(quota(settings), DefaultClock::default()) }
    }

    pub(super) fn settings(&self) -> RateSettings {
        self.settings
    }

    /// Checks that a call may pass now, and counts it.
    ///
    /// # Errors
    /// [`RateExceeded`] if the call comes too early. It is not counted then.
    pub fn check(&self) -> Result<(), RateExceeded> {
        self.limiter.check().map_err(|not_until| exceeded(&not_until))
    }
}

impl ClientRateLimits {
    pub(super) fn new(settings: ClientRateSettings) -> Self {
        let slots = Slots((0..SLOTS).map(|_| InMemoryState::default()).collect());
        let limiter = RateLimiter::new(quota(settings.rate), slots, DefaultClock::default());
        Self { settings, limiter, hasher: RandomState::new() }
    }

    pub(super) fn settings(&self) -> ClientRateSettings {
        self.settings
    }

    /// Checks that a call from this address may pass now, and counts it.
    pub(super) fn check(&self, client: IpAddr) -> Result<(), RateExceeded> {
        self.limiter.check_key(&self.slot(client)).map_err(|not_until| exceeded(&not_until))
    }

    fn slot(&self, client: IpAddr) -> usize {
        let client = client.to_canonical();
        let prefix = if client.is_ipv4() { self.settings.ipv4_prefix } else { self.settings.ipv6_prefix };
        // Configuration has checked the prefixes.
        let network = IpNet::new(client, prefix).map_or(client, |network| network.network());
        usize::try_from(self.hasher.hash_one(network) % SLOTS as u64).unwrap_or_default()
    }
}

fn quota(settings: RateSettings) -> Quota {
    Quota::per_second(settings.per_second).allow_burst(settings.burst)
}

fn exceeded<P: governor::clock::Reference>(not_until: &NotUntil<P>) -> RateExceeded
where
    DefaultClock: Clock<Instant = P>,
{
    RateExceeded { retry_after: not_until.wait_time_from(DefaultClock::default().now()) }
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RateLimit").field(&self.settings).finish()
    }
}

impl fmt::Debug for ClientRateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientRateLimits").field(&self.settings).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(burst: u32) -> RateSettings {
        let number = |number| NonZeroU32::new(number).unwrap();
        // One call per second, so that a slow machine does not refill the bucket during the test.
        RateSettings { per_second: number(1), burst: number(burst) }
    }

    #[test]
    fn call_after_the_burst_gets_a_retry_after() {
        let limit = RateLimit::new(rate(3));
        for _ in 0..3 {
            limit.check().unwrap();
        }
        let exceeded = limit.check().unwrap_err();
        assert!(exceeded.retry_after <= Duration::from_secs(1), "{exceeded:?}");
    }

    #[test]
    fn each_network_has_its_own_rate() {
        let limits = ClientRateLimits::new(ClientRateSettings { rate: rate(1), ipv4_prefix: 24, ipv6_prefix: 64 });
        let pass = |address: &str| limits.check(address.parse().unwrap()).is_ok();
        assert!(pass("10.0.0.1"));
        assert!(!pass("10.0.0.2") && !pass("::ffff:10.0.0.3"), "the same network");
        assert!(pass("2001:db8::1") && !pass("2001:db8::2"));
        // A few may collide by chance, but not all.
        let others = (1..100).filter(|net| pass(&format!("10.0.{net}.1"))).count();
        assert!(others > 80, "{others}");
    }
}
