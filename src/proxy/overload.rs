//! What is turned away so that the rest is served: calls beyond a rate (429) and beyond what may be in work at once (503).
//! Nothing was sent of them.
//!
//! Everything here is off unless configured, and then costs a look at an empty place.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exchange::Exchange;
use super::gate::{Gate, NoRoom, Place, QueueSettings};
use super::rate::{ClientRates, Rate};
use super::{AdmissionSettings, Proxy, ProxyError, Snapshot};
use crate::endpoint::Endpoint;
use crate::metrics::QueueOutcome;
use crate::route::Route;

/// When it is worth coming again after there was no room: nobody knows, but a second empties most queues.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The limits of one configuration.
#[derive(Debug)]
pub(super) struct Limits {
    listeners: Vec<ListenerLimits>,
    /// By endpoint.
    endpoints: Vec<Option<Arc<Gate>>>,
    /// By route.
    routes: Vec<Option<Arc<Rate>>>,
}

#[derive(Debug)]
struct ListenerLimits {
    name: String,
    gate: Option<Arc<Gate>>,
    rates: Option<Arc<ClientRates>>,
}

/// What a call waits for.
#[derive(Clone, Copy)]
enum At<'a> {
    Listener(&'a str),
    Endpoint(usize),
}

impl Limits {
    /// Makes the limits. Those that are the same as `before` are taken over with what they know.
    pub(super) fn new(
        admissions: &[AdmissionSettings],
        endpoints: &[Arc<Endpoint>],
        routes: &[Route],
        before: Option<&Snapshot>,
    ) -> Self {
        let gate = |limit: Option<usize>, old: Option<&Arc<Gate>>| {
            let limit = limit?;
            let same = old.filter(|old| old.limit() == limit).cloned();
            Some(same.unwrap_or_else(|| Arc::new(Gate::new(limit))))
        };
        let listener = |admission: &AdmissionSettings| {
            let old = before.and_then(|old| old.limits.listeners.iter().find(|old| old.name == admission.listener));
            let old_rates = old.and_then(|old| old.rates.as_ref());
            let rates = admission.client_rate.map(|settings| {
                let same = old_rates.filter(|old| old.settings() == settings).cloned();
                same.unwrap_or_else(|| Arc::new(ClientRates::new(settings)))
            });
            let gate = gate(admission.max_requests, old.and_then(|old| old.gate.as_ref()));
            ListenerLimits { name: admission.listener.clone(), gate, rates }
        };
        let endpoint = |endpoint: &Arc<Endpoint>| {
            let old = before.and_then(|old| {
                let place = old.endpoints.iter().position(|old| old.name() == endpoint.name())?;
                old.limits.endpoints.get(place)?.as_ref()
            });
            gate(endpoint.settings().max_requests, old)
        };
        let route = |route: &Route| {
            let settings = route.rate()?;
            let old = before.and_then(|old| {
                let place = old.routes.routes().iter().position(|old| old.name() == route.name())?;
                old.limits.routes.get(place)?.as_ref()
            });
            let same = old.filter(|old| old.settings() == settings).cloned();
            Some(same.unwrap_or_else(|| Arc::new(Rate::new(settings))))
        };
        Self {
            listeners: admissions.iter().map(listener).collect(),
            endpoints: endpoints.iter().map(endpoint).collect(),
            routes: routes.iter().map(route).collect(),
        }
    }
}

impl Proxy {
    /// Holds a call against the rate of its caller's network. Callers on a Unix socket have none.
    pub(super) fn hold_client_rate(&self, listener: usize, client: Option<IpAddr>) -> Result<(), ProxyError> {
        let Some(limits) = self.snapshot.limits.listeners.get(listener) else { return Ok(()) };
        let (Some(rates), Some(client)) = (&limits.rates, client) else { return Ok(()) };
        rates.pass(client).map_err(|retry_after| {
            self.metrics.client_rate_limited(&limits.name);
            ProxyError::RateLimited { of: "its network", retry_after }
        })
    }

    /// Holds a call against the rate of its route.
    pub(super) fn hold_route_rate(&self, place: usize) -> Result<(), ProxyError> {
        let Some(rate) = self.snapshot.limits.routes.get(place).and_then(Option::as_ref) else { return Ok(()) };
        rate.pass().map_err(|retry_after| {
            self.metrics.rate_limited(self.route_names.get(place).map_or("_other", |name| name));
            ProxyError::RateLimited { of: "its route", retry_after }
        })
    }

    /// Gets a call its place at its listener, where the number of places is limited.
    pub(super) async fn enter_listener(
        &self,
        listener: usize,
        exchange: &Exchange,
    ) -> Result<Option<Place>, ProxyError> {
        let Some(limits) = self.snapshot.limits.listeners.get(listener) else { return Ok(None) };
        let Some(gate) = &limits.gate else { return Ok(None) };
        self.enter(gate, At::Listener(&limits.name), exchange).await.map(Some)
    }

    /// Gets an attempt its place at an endpoint, where the number of places is limited.
    pub(super) async fn enter_endpoint(&self, place: usize, exchange: &Exchange) -> Result<Option<Place>, ProxyError> {
        let Some(gate) = self.snapshot.limits.endpoints.get(place).and_then(Option::as_ref) else { return Ok(None) };
        self.enter(gate, At::Endpoint(place), exchange).await.map(Some)
    }

    async fn enter(&self, gate: &Gate, at: At<'_>, exchange: &Exchange) -> Result<Place, ProxyError> {
        if let Some(place) = gate.enter_now() {
            return Ok(place);
        }
        let queue = self.snapshot.settings.queue;
        let queue = QueueSettings { time: queue.time.min(exchange.remaining()), ..queue };
        let began = Instant::now();
        // In a box, since it is rare: every request's future would have room for it.
        let entered = Box::pin(gate.enter(queue)).await;
        exchange.waited(began.elapsed());
        let outcome = match &entered {
            Ok(_) => QueueOutcome::Entered,
            Err(NoRoom::QueueFull) => QueueOutcome::Full,
            Err(NoRoom::WaitedInVain) => QueueOutcome::TimedOut,
        };
        match at {
            At::Listener(name) => self.metrics.queued_at_listener(name, outcome),
            At::Endpoint(place) => self.metrics.queued_at_endpoint(place, outcome),
        }
        entered.map_err(|_no_room| ProxyError::Overload { retry_after: RETRY_AFTER })
    }
}
