//! All rates and concurrency limits of one configuration, by listener, route and endpoint.

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

/// The limits of a route.
#[derive(Clone, Copy, Debug)]
pub struct RouteLimits<'a> {
    /// The route's configured name.
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
}

/// The limits of one configuration, in the order of its listeners, routes and endpoints.
#[derive(Debug)]
pub struct Limits {
    listeners: Vec<Listener>,
    routes: Vec<Named<RateLimit>>,
    endpoints: Vec<Named<ConcurrencyLimit>>,
}

#[derive(Debug)]
struct Listener {
    concurrency: Named<ConcurrencyLimit>,
    client_rate: Option<Arc<ClientRateLimits>>,
}

/// A limit, and the name of the listener, route or endpoint that it applies to.
#[derive(Debug)]
struct Named<T> {
    name: Box<str>,
    limit: Option<Arc<T>>,
}

impl<T> Named<T> {
    fn new(name: &str, limit: Option<Arc<T>>) -> Self {
        Self { name: name.into(), limit }
    }

    /// Returns the limit with this name.
    fn find<'a>(limits: &'a [Self], name: &str) -> Option<&'a Arc<T>> {
        limits.iter().find(|limit| *limit.name == *name)?.limit.as_ref()
    }
}

impl Limits {
    /// Creates the limits. Those with the same settings as in `before` keep their state.
    pub fn new<'a>(
        listeners: impl IntoIterator<Item = ListenerLimits<'a>>,
        routes: impl IntoIterator<Item = RouteLimits<'a>>,
        endpoints: impl IntoIterator<Item = EndpointLimits<'a>>,
        before: Option<&Self>,
    ) -> Self {
        let concurrency = |limit: Option<usize>, old: Option<&Arc<ConcurrencyLimit>>| {
            let limit = limit?;
            let same = old.filter(|old| old.limit() == limit).cloned();
            Some(same.unwrap_or_else(|| Arc::new(ConcurrencyLimit::new(limit))))
        };
        let listener = |listener: ListenerLimits<'_>| {
            let old = before.and_then(|old| old.listeners.iter().find(|old| *old.concurrency.name == *listener.name));
            let old_rate = old.and_then(|old| old.client_rate.as_ref());
            let client_rate = listener.client_rate.map(|settings| {
                let same = old_rate.filter(|old| old.settings() == settings).cloned();
                same.unwrap_or_else(|| Arc::new(ClientRateLimits::new(settings)))
            });
            let old_limit = old.and_then(|old| old.concurrency.limit.as_ref());
            let concurrency = Named::new(listener.name, concurrency(listener.max_requests, old_limit));
            Listener { concurrency, client_rate }
        };
        let route = |route: RouteLimits<'_>| {
            let old = before.and_then(|old| Named::find(&old.routes, route.name));
            let limit = route.rate.map(|settings| {
                let same = old.filter(|old| old.settings() == settings).cloned();
                same.unwrap_or_else(|| Arc::new(RateLimit::new(settings)))
            });
            Named::new(route.name, limit)
        };
        let endpoint = |endpoint: EndpointLimits<'_>| {
            let old = before.and_then(|old| Named::find(&old.endpoints, endpoint.name));
            Named::new(endpoint.name, concurrency(endpoint.max_requests, old))
        };
        Self {
            listeners: listeners.into_iter().map(listener).collect(),
            routes: routes.into_iter().map(route).collect(),
            endpoints: endpoints.into_iter().map(endpoint).collect(),
        }
    }

    /// Checks a call against the rate of its caller's network. Callers on a Unix socket have none.
    ///
    /// # Errors
    /// [`RateExceeded`] if the call comes too early.
    pub fn check_client_rate(&self, listener: usize, client: Option<IpAddr>) -> Result<(), RateExceeded> {
        let rate = self.listeners.get(listener).and_then(|listener| listener.client_rate.as_ref());
        match (rate, client) {
            (Some(rate), Some(client)) => rate.check(client),
            (None, _) | (_, None) => Ok(()),
        }
    }

    /// Checks a call against the rate of its route.
    ///
    /// # Errors
    /// [`RateExceeded`] if the call comes too early.
    pub fn check_route_rate(&self, route: usize) -> Result<(), RateExceeded> {
        let rate = self.routes.get(route).and_then(|route| route.limit.as_ref());
        rate.map_or(Ok(()), |rate| rate.check())
    }

    /// Returns the concurrency limit of a listener, if it has one.
    pub fn listener_concurrency(&self, listener: usize) -> Option<&Arc<ConcurrencyLimit>> {
        self.listeners.get(listener)?.concurrency.limit.as_ref()
    }

    /// Returns the concurrency limit of an endpoint, if it has one.
    pub fn endpoint_concurrency(&self, endpoint: usize) -> Option<&Arc<ConcurrencyLimit>> {
        self.endpoints.get(endpoint)?.limit.as_ref()
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
        let route = RouteLimits { name: "all", rate: Some(rate) };
        let endpoint = EndpointLimits { name: "east", max_requests: Some(max_requests) };
        Limits::new([listener], [route], [endpoint], before)
    }

    #[test]
    fn reload_keeps_the_state_of_limits_that_did_not_change() {
        let client = Some("10.0.0.1".parse().unwrap());
        let before = limits(1, 1, None);
        assert!(before.check_client_rate(0, client).is_ok() && before.check_route_rate(0).is_ok());
        let _permits = (
            before.listener_concurrency(0).unwrap().try_acquire(),
            before.endpoint_concurrency(0).unwrap().try_acquire(),
        );
        let same = limits(1, 1, Some(&before));
        assert!(same.check_client_rate(0, client).is_err() && same.check_route_rate(0).is_err());
        assert!(same.listener_concurrency(0).unwrap().try_acquire().is_none());
        assert!(same.endpoint_concurrency(0).unwrap().try_acquire().is_none());
        let changed = limits(2, 2, Some(&before));
        assert!(changed.check_client_rate(0, client).is_ok() && changed.check_route_rate(0).is_ok());
        assert!(changed.listener_concurrency(0).unwrap().try_acquire().is_some());
        assert!(changed.endpoint_concurrency(0).unwrap().try_acquire().is_some());
    }

    #[test]
    fn what_has_no_limit_always_passes() {
        let listener = ListenerLimits { name: "inside", max_requests: None, client_rate: None };
        let route = RouteLimits { name: "all", rate: None };
        let endpoint = EndpointLimits { name: "east", max_requests: None };
        let limits = Limits::new([listener], [route], [endpoint], None);
        assert_eq!(limits.check_client_rate(0, Some("10.0.0.1".parse().unwrap())), Ok(()));
        assert_eq!(limits.check_route_rate(0), Ok(()));
        assert!(limits.listener_concurrency(0).is_none() && limits.endpoint_concurrency(0).is_none());
    }

    #[test]
    fn callers_on_unix_sockets_have_no_client_rate() {
        let limits = limits(1, 1, None);
        assert!((0..10).all(|_| limits.check_client_rate(0, None).is_ok()));
    }
}
