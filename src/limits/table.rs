//! All rates and concurrency limits of one configuration, by listener, route and endpoint.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::concurrency::ConcurrencyLimit;
use super::rate::{ClientRateLimits, ClientRateSettings, RateExceeded, RateLimit, RateSettings};

/// The limits of a listener.
#[derive(Clone, Copy, Debug)]
pub struct ListenerLimits<'a> {
    /// The listener's configured name.
    pub name: &'a str,
    /// The maximum number of calls in progress; no limit if `None`.
    pub max_requests: Option<usize>,
    /// The rate of each network of callers; no limit if `None`.
    pub client_rate: Option<ClientRateSettings>,
}

/// The rate of a route or of a configured caller.
#[derive(Clone, Copy, Debug)]
pub struct NamedRate<'a> {
    /// The configured name.
    pub name: &'a str,
    /// The rate of its calls; no limit if `None`.
    pub rate: Option<RateSettings>,
}

/// The limits of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct EndpointLimits<'a> {
    /// The endpoint's configured name.
    pub name: &'a str,
    /// The maximum number of attempts in progress; no limit if `None`.
    pub max_requests: Option<usize>,
    /// The rate of attempts; no limit if `None`.
    pub rate: Option<RateSettings>,
}

/// The limits of one configuration, in the order of its listeners, routes and endpoints. What has no limit takes no memory.
#[derive(Debug)]
pub struct Limits {
    listener_concurrency: Table<ConcurrencyLimit>,
    client_rates: Table<ClientRateLimits>,
    route_rates: Table<RateLimit>,
    caller_rates: Table<RateLimit>,
    endpoint_concurrency: Table<ConcurrencyLimit>,
    endpoint_rates: Table<RateLimit>,
}

/// Limits of one kind.
#[derive(Debug)]
struct Table<T> {
    /// By index of the listener, route or endpoint, up to the last one that has a limit.
    by_index: Vec<Option<Arc<T>>>,
    /// By name, which stays the same over a reload.
    by_name: HashMap<Box<str>, Arc<T>>,
}

impl<T> Table<T> {
    /// Creates the limits of these names. One with the same name and settings as in `before` keeps its state.
    fn next<'a, S: PartialEq>(
        before: Option<&Self>,
        wanted: impl Iterator<Item = (&'a str, Option<S>)>,
        settings_of: impl Fn(&T) -> S,
        new: impl Fn(S) -> T,
    ) -> Self {
        let (mut by_index, mut by_name) = (Vec::new(), HashMap::new());
        for (index, (name, settings)) in wanted.enumerate() {
            let Some(settings) = settings else { continue };
            let old = before.and_then(|before| before.by_name.get(name)).filter(|old| settings_of(old) == settings);
            let limit = old.map_or_else(|| Arc::new(new(settings)), Arc::clone);
            by_index.resize(index, None);
            by_index.push(Some(Arc::clone(&limit)));
            by_name.insert(name.into(), limit);
        }
        by_index.shrink_to_fit();
        Self { by_index, by_name }
    }

    fn get(&self, index: usize) -> Option<&Arc<T>> {
        self.by_index.get(index)?.as_ref()
    }
}

impl Limits {
    /// Creates the limits. Those with the same settings as in `before` keep their state.
    pub fn new(
        listeners: &[ListenerLimits<'_>],
        routes: &[NamedRate<'_>],
        callers: &[NamedRate<'_>],
        endpoints: &[EndpointLimits<'_>],
        before: Option<&Self>,
    ) -> Self {
        Self {
            listener_concurrency: Table::next(
                before.map(|before| &before.listener_concurrency),
                listeners.iter().map(|one| (one.name, one.max_requests)),
                ConcurrencyLimit::limit,
                ConcurrencyLimit::new,
            ),
            client_rates: Table::next(
                before.map(|before| &before.client_rates),
                listeners.iter().map(|one| (one.name, one.client_rate)),
                ClientRateLimits::settings,
                ClientRateLimits::new,
            ),
            route_rates: Table::next(
                before.map(|before| &before.route_rates),
                routes.iter().map(|one| (one.name, one.rate)),
                RateLimit::settings,
                RateLimit::new,
            ),
            caller_rates: Table::next(
                before.map(|before| &before.caller_rates),
                callers.iter().map(|one| (one.name, one.rate)),
                RateLimit::settings,
                RateLimit::new,
            ),
            endpoint_concurrency: Table::next(
                before.map(|before| &before.endpoint_concurrency),
                endpoints.iter().map(|one| (one.name, one.max_requests)),
                ConcurrencyLimit::limit,
                ConcurrencyLimit::new,
            ),
            endpoint_rates: Table::next(
                before.map(|before| &before.endpoint_rates),
                endpoints.iter().map(|one| (one.name, one.rate)),
                RateLimit::settings,
                RateLimit::new,
            ),
        }
    }

    /// Checks a call against the rate of its caller's network. Callers on a Unix socket have none.
    ///
    /// # Errors
    /// [`RateExceeded`] if the call comes too early.
    pub fn check_client_rate(&self, listener: usize, client: Option<IpAddr>) -> Result<(), RateExceeded> {
        match (self.client_rates.get(listener), client) {
            (Some(rate), Some(client)) => rate.check(client),
            (None, _) | (_, None) => Ok(()),
        }
    }

    /// Checks a call against the rate of its route.
    ///
    /// # Errors
    /// [`RateExceeded`] if the call comes too early.
    pub fn check_route_rate(&self, route: usize) -> Result<(), RateExceeded> {
        self.route_rates.get(route).map_or(Ok(()), |rate| rate.check())
    }

    /// Checks a call against the rate of its caller, by the caller's index.
    ///
    /// # Errors
    /// [`RateExceeded`] if the call comes too early.
    pub fn check_caller_rate(&self, caller: usize) -> Result<(), RateExceeded> {
        self.caller_rates.get(caller).map_or(Ok(()), |rate| rate.check())
    }

    /// Returns the concurrency limit of a listener, if it has one.
    pub fn listener_concurrency(&self, listener: usize) -> Option<&Arc<ConcurrencyLimit>> {
        self.listener_concurrency.get(listener)
    }

    /// Returns the concurrency limit of an endpoint, if it has one.
    pub fn endpoint_concurrency(&self, endpoint: usize) -> Option<&Arc<ConcurrencyLimit>> {
        self.endpoint_concurrency.get(endpoint)
    }

    /// Returns the rate of an endpoint, if it has one.
    pub fn endpoint_rate(&self, endpoint: usize) -> Option<&Arc<RateLimit>> {
        self.endpoint_rates.get(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// Returns limits of one of each: listener `inside`, route `all` and endpoint `east`.
    fn limits(max_requests: usize, burst: u32, before: Option<&Limits>) -> Limits {
        let number = |number| NonZeroU32::new(number).unwrap();
        let rate = RateSettings { per_second: number(1), burst: number(burst) };
        let client_rate = ClientRateSettings { rate, ipv4_prefix: 24, ipv6_prefix: 64 };
        let listener =
            ListenerLimits { name: "inside", max_requests: Some(max_requests), client_rate: Some(client_rate) };
        let route = NamedRate { name: "all", rate: Some(rate) };
        let endpoint = EndpointLimits { name: "east", max_requests: Some(max_requests), rate: Some(rate) };
        let caller = NamedRate { name: "orders", rate: Some(rate) };
        Limits::new(&[listener], &[route], &[caller], &[endpoint], before)
    }

    #[test]
    fn reload_keeps_the_state_of_limits_that_did_not_change() {
        let client = Some("10.0.0.1".parse().unwrap());
        let before = limits(1, 1, None);
        assert!(before.check_client_rate(0, client).is_ok() && before.check_route_rate(0).is_ok());
        assert!(before.check_caller_rate(0).is_ok());
        let endpoint_rate = |limits: &Limits| limits.endpoint_rate(0).unwrap().check();
        assert!(endpoint_rate(&before).is_ok());
        let _permits = (
            before.listener_concurrency(0).unwrap().try_acquire(),
            before.endpoint_concurrency(0).unwrap().try_acquire(),
        );
        let same = limits(1, 1, Some(&before));
        assert!(same.check_client_rate(0, client).is_err() && same.check_route_rate(0).is_err());
        assert!(same.check_caller_rate(0).is_err());
        assert!(same.listener_concurrency(0).unwrap().try_acquire().is_none());
        assert!(same.endpoint_concurrency(0).unwrap().try_acquire().is_none() && endpoint_rate(&same).is_err());
        let changed = limits(2, 2, Some(&before));
        assert!(changed.check_client_rate(0, client).is_ok() && changed.check_route_rate(0).is_ok());
        assert!(changed.listener_concurrency(0).unwrap().try_acquire().is_some());
        assert!(changed.endpoint_concurrency(0).unwrap().try_acquire().is_some() && endpoint_rate(&changed).is_ok());
    }

    #[test]
    fn limit_of_an_endpoint_follows_its_name_to_another_index() {
        let limited = EndpointLimits { name: "west", max_requests: Some(1), rate: None };
        let free = EndpointLimits { name: "east", max_requests: None, rate: None };
        let before = Limits::new(&[], &[], &[], &[free, limited], None);
        let _permit = before.endpoint_concurrency(1).unwrap().try_acquire().unwrap();
        let after = Limits::new(&[], &[], &[], &[limited, free], Some(&before));
        assert!(after.endpoint_concurrency(0).unwrap().try_acquire().is_none());
        assert!(after.endpoint_concurrency(1).is_none() && before.endpoint_concurrency(0).is_none());
    }

    #[test]
    fn what_has_no_limit_always_passes() {
        let listener = ListenerLimits { name: "inside", max_requests: None, client_rate: None };
        let route = NamedRate { name: "all", rate: None };
        let endpoint = EndpointLimits { name: "east", max_requests: None, rate: None };
        let limits = Limits::new(&[listener], &[route], &[], &[endpoint], None);
        assert_eq!(limits.check_client_rate(0, Some("10.0.0.1".parse().unwrap())), Ok(()));
        assert_eq!(limits.check_route_rate(0), Ok(()));
        assert_eq!(limits.check_caller_rate(0), Ok(()));
        assert!(limits.listener_concurrency(0).is_none() && limits.endpoint_concurrency(0).is_none());
        assert!(limits.endpoint_rate(0).is_none());
    }

    #[test]
    fn callers_on_unix_sockets_have_no_client_rate() {
        let limits = limits(1, 1, None);
        assert!((0..10).all(|_| limits.check_client_rate(0, None).is_ok()));
    }
}
