//! A configuration, as all workers share it.

use std::sync::Arc;

use http::HeaderMap;

use super::admission::Admission;
use super::settings::{AdmissionSettings, ProxySettings};
use crate::endpoint::{Endpoint, EndpointSettings, IdleLimit};
use crate::idempotency::{IdempotencyStore, SharedStore};
use crate::limits::{EndpointLimits, Limits, ListenerLimits, NamedRate};
use crate::metrics::{Label, Labels};
use crate::route::{Caller, Callers, Table};
use crate::serve::{CallerAddress, ListenerId, Peer};
use crate::trace::Tracer;

/// The endpoints of a configuration.
#[derive(Debug)]
pub struct SnapshotEndpoints<'a> {
    /// In configured order.
    pub running: Vec<Arc<Endpoint>>,
    /// The settings, in the same order. They have the limits: a running endpoint may be older than these.
    pub settings: &'a [Arc<EndpointSettings>],
}

/// One configuration, shared by all workers.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) settings: ProxySettings,
    /// In configured order.
    pub(super) listeners: Vec<ListenerId>,
    /// By listener.
    pub(super) admissions: Vec<Admission>,
    /// Whether any listener has trusted proxies.
    has_trusted_proxies: bool,
    pub(super) routes: Table,
    /// The labels of the routes' metrics, by route.
    pub(super) route_labels: Vec<Label>,
    pub(super) callers: Callers,
    /// The labels of the callers' metrics, by caller.
    pub(super) caller_labels: Vec<Label>,
    pub(super) endpoints: Arc<[Arc<Endpoint>]>,
    pub(super) limits: Arc<Limits>,
    pub(super) idle_limit: Arc<IdleLimit>,
    pub(super) idempotency: Arc<IdempotencyStore>,
    /// `None` if no call is recorded.
    pub(super) tracer: Option<Tracer>,
}

impl Snapshot {
    /// Returns a configuration. The routes refer to endpoints and listeners by their indexes here. Remembered calls,
    /// and limits that did not change, are taken over from `before`. Does not change `before`.
    pub fn new(
        settings: ProxySettings,
        listeners: Vec<(ListenerId, AdmissionSettings)>,
        routes: Table,
        callers: Callers,
        endpoints: SnapshotEndpoints<'_>,
        labels: &Labels,
        before: Option<&Self>,
    ) -> Self {
        let (listeners, admissions): (Vec<_>, Vec<_>) = listeners.into_iter().unzip();
        let admission =
            |admission| Admission::new(admission, settings.delivery.max_header_bytes, settings.max_body_bytes);
        let limits = limits(&admissions, &routes, &callers, endpoints.settings, before);
        let idle_limit = before.map(|before| Arc::clone(&before.idle_limit)).unwrap_or_default();
        let idempotency = before.map(|before| Arc::clone(&before.idempotency)).unwrap_or_default();
        Self {
            listeners,
            has_trusted_proxies: admissions.iter().any(|admission| admission.trusted_proxies.is_some()),
            admissions: admissions.into_iter().map(admission).collect(),
            route_labels: routes
                .routes()
                .iter()
                .map(|route| labels.routes.get(route.name().as_str()).clone())
                .collect(),
            caller_labels: callers
                .all()
                .iter()
                .map(|caller| labels.callers.get(&caller.settings().name).clone())
                .collect(),
            callers,
            settings,
            routes,
            endpoints: endpoints.running.into(),
            limits: Arc::new(limits),
            idle_limit,
            idempotency,
            tracer: None,
        }
    }

    /// Returns the same configuration with an idempotency store that replicas share, or with none.
    #[must_use]
    pub fn with_shared_store(mut self, store: Option<Arc<SharedStore>>) -> Self {
        self.idempotency = Arc::new(self.idempotency.with_shared(store));
        self
    }

    /// Returns the same configuration with a tracer, or with none.
    #[must_use]
    pub fn with_tracer(mut self, tracer: Option<Tracer>) -> Self {
        self.tracer = tracer;
        self
    }

    /// Returns the idempotency store that replicas share.
    pub fn shared_store(&self) -> Option<&Arc<SharedStore>> {
        self.idempotency.shared()
    }

    /// Returns a listener's index; `None` if this configuration does not have it.
    pub(super) fn index_of(&self, listener: ListenerId) -> Option<usize> {
        self.listeners.iter().position(|known| *known == listener)
    }

    /// Returns a listener's name; `None` if this configuration does not have it.
    pub(super) fn listener_name(&self, listener: ListenerId) -> Option<&str> {
        self.index_of(listener).and_then(|listener| self.admissions.get(listener)).map(Admission::listener)
    }

    /// Returns the address of the caller of a call that arrived from `peer` with these headers.
    pub(super) fn caller_address(&self, peer: &Peer, headers: &HeaderMap) -> CallerAddress {
        let address = peer.address.map(|address| address.ip());
        if !self.has_trusted_proxies {
            return CallerAddress::of_peer(address);
        }
        let admission = self.index_of(peer.listener).and_then(|listener| self.admissions.get(listener));
        admission.map_or_else(|| CallerAddress::of_peer(address), |admission| admission.caller_address(peer, headers))
    }

    /// Returns the endpoints, in configured order.
    pub fn endpoints(&self) -> &Arc<[Arc<Endpoint>]> {
        &self.endpoints
    }

    /// Puts the limits in force that do not belong to one configuration, since all share what they limit.
    pub fn put_in_force(&self) {
        self.idle_limit.set(self.settings.delivery.max_idle_connections);
    }

    /// Returns the routes.
    pub fn routes(&self) -> &Table {
        &self.routes
    }
}

/// Creates the rates and concurrency limits of a configuration.
fn limits(
    listeners: &[AdmissionSettings],
    routes: &Table,
    callers: &Callers,
    endpoints: &[Arc<EndpointSettings>],
    before: Option<&Snapshot>,
) -> Limits {
    let listeners = listeners.iter().map(|listener| ListenerLimits {
        name: &listener.listener,
        max_requests: listener.max_requests,
        client_rate: listener.client_rate,
    });
    let listeners: Vec<_> = listeners.collect();
    let routes: Vec<_> =
        routes.routes().iter().map(|route| NamedRate { name: route.name().as_str(), rate: route.rate() }).collect();
    let callers = callers.all().iter().map(Caller::settings);
    let callers: Vec<_> = callers.map(|caller| NamedRate { name: &caller.name, rate: caller.rate }).collect();
    let endpoints = endpoints.iter().map(|endpoint| EndpointLimits {
        name: endpoint.name.as_str(),
        max_requests: endpoint.max_requests,
        rate: endpoint.rate,
    });
    Limits::new(&listeners, &routes, &callers, &endpoints.collect::<Vec<_>>(), before.map(|before| &*before.limits))
}
