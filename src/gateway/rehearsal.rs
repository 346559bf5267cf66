//! Where a call would go by these settings, without sending it: the pipeline's own decisions in their order, up to the
//! first that needs a network. `explain` shows what comes out, and the configuration's own tests are held against it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::HOST;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::Settings;
use crate::delivery::CallHead;
use crate::endpoint::{EndpointName, EndpointRole};
use crate::metrics::ErrorKind;
use crate::proxy::{Admission, ProxyError};
use crate::route::{Choice, DeliveryMode, MismatchDetail, Pick, RouteName, Table, TableError};
use crate::serve::{Bind, ListenerId, Peer};
use crate::signalr::{Call, FanOutKind, Operation};

/// A call that is only rehearsed.
#[derive(Clone, Debug)]
pub struct Rehearsed {
    request: Parts,
    /// The place of the listener that it comes in by.
    pub listener: usize,
    /// The caller's address; this host's unless it is set. A Unix socket has none.
    pub client: Option<IpAddr>,
}

/// Why something is not a call that could be rehearsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARequest {
    /// Not a method.
    #[error("the method is not one of HTTP")]
    Method,
    /// Not a URL.
    #[error("the URL is neither `http://host/path` nor `/path`")]
    Url,
}

impl Rehearsed {
    /// Makes a call to the first listener. `url` may be a path and query alone.
    ///
    /// # Errors
    /// [`NotARequest`].
    pub fn new(method: &str, url: &str, headers: &[(HeaderName, HeaderValue)]) -> Result<Self, NotARequest> {
        let method: Method = method.to_ascii_uppercase().parse().map_err(|_invalid| NotARequest::Method)?;
        let url: Uri = url.parse().map_err(|_invalid| NotARequest::Url)?;
        let host = url.authority().map_or("localhost", http::uri::Authority::as_str).to_owned();
        let target = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let request = Request::builder().method(method).uri(target).header(HOST, host).body(());
        let mut request = request.map_err(|_invalid| NotARequest::Url)?.into_parts().0;
        for (name, value) in headers {
            if *name == HOST {
                request.headers.insert(HOST, value.clone());
            } else {
                request.headers.append(name, value.clone());
            }
        }
        Ok(Self { request, listener: 0, client: None })
    }
}

/// What would become of a call.
#[derive(Debug)]
pub struct Decision {
    /// Which operation it is, once that is known.
    pub operation: Option<Operation>,
    /// The names in it: `hub`, `group`, `user`, `connection`.
    pub names: Vec<(&'static str, String)>,
    /// The routes before the one that takes it, and why each of them does not.
    pub passed_over: Vec<(RouteName, MismatchDetail)>,
    /// The route that takes it.
    pub route: Option<RouteName>,
    /// Where it goes, or why it is refused.
    pub outcome: Result<Destination, ProxyError>,
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The gateway answers it itself.
    Gateway,
    /// To endpoints.
    Endpoints {
        /// The route's `pick`.
        pick: Pick,
        /// Whether the caller named the endpoint.
        is_named: bool,
        /// Which, and with which weight. In the order in which they are tried unless `in_any_order`.
        endpoints: Vec<(EndpointName, u32)>,
        /// Whether they have no order: all of them get it, or one at random.
        in_any_order: bool,
    },
}

/// The settings, ready for rehearsals.
#[derive(Debug)]
pub struct Rehearsal<'s> {
    settings: &'s Settings,
    admissions: Vec<Admission>,
    table: Table,
}

/// Returns the kinds of errors that callers may be answered with.
pub fn error_kinds() -> impl Iterator<Item = &'static str> {
    ErrorKind::ALL.iter().map(|kind| kind.label())
}

impl<'s> Rehearsal<'s> {
    /// Gets ready.
    ///
    /// # Errors
    /// [`TableError`] if a route names what does not exist; configuration excludes it.
    pub fn new(settings: &'s Settings) -> Result<Self, TableError> {
        let proxy = &settings.proxy;
        let admission = |admission| Admission::new(admission, proxy.delivery.max_header_bytes, proxy.max_body_bytes);
        let endpoints: Vec<_> = settings.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
        let listeners: Vec<_> = settings.listeners.iter().map(|(listener, _)| listener.name.as_str()).collect();
        Ok(Self {
            settings,
            admissions: settings.listeners.iter().map(|(_, rules)| admission(rules.clone())).collect(),
            table: Table::build(&settings.routes, &endpoints, &listeners)?,
        })
    }

    /// Decides about a call.
    pub fn decide(&self, call: &Rehearsed) -> Decision {
        let outcome = Ok(Destination::Gateway);
        let mut decision =
            Decision { operation: None, names: Vec::new(), passed_over: Vec::new(), route: None, outcome };
        decision.outcome = self.destination(call, &mut decision);
        decision
    }

    fn destination(&self, call: &Rehearsed, decision: &mut Decision) -> Result<Destination, ProxyError> {
        let Rehearsed { request, listener, client } = call;
        let (settings, _) = self.settings.listeners.get(*listener).ok_or(ProxyError::INTERNAL)?;
        let admission = self.admissions.get(*listener).ok_or(ProxyError::INTERNAL)?;
        let client = match settings.bind {
            Bind::Tcp(_) => Some(client.unwrap_or(Ipv4Addr::LOCALHOST.into()).to_canonical()),
            Bind::Unix { .. } => None,
        };
        let address = client.map(|client| SocketAddr::new(client, 0));
        let peer =
            Peer { listener: ListenerId::default(), address, is_tls: settings.tls.is_some(), forwarded_for: None };
        let head = CallHead::new(request.clone(), || HeaderValue::from_static("rehearsed"), None);
        admission.admit(&peer, &head)?;

        let call = Call::parse(&request.method, request.uri.path(), request.uri.query())?;
        decision.operation = Some(call.operation);
        let names = [("hub", call.hub), ("group", call.group), ("user", call.user), ("connection", call.connection)];
        let names = names.into_iter().filter_map(|(key, name)| Some((key, name?.decoded().into_owned())));
        decision.names = names.collect();
        admission.admit_operation(call.operation)?;
        if call.operation == Operation::Health {
            return Ok(Destination::Gateway);
        }

        let input = head.route_input(&call, *listener, client);
        let picked = self.table.pick(&input);
        let before = self.table.routes().iter().take(picked.map_or(usize::MAX, |(place, _)| place));
        let why = |route: &crate::route::Route| {
            Some((route.name().clone(), MismatchDetail::find(route, &input, &settings.name)?))
        };
        decision.passed_over = before.filter_map(why).collect();
        let (_, route) = picked.ok_or(ProxyError::NoRoute)?;
        decision.route = Some(route.name().clone());
        Ok(self.endpoints(&Choice::new(route, &input)?, call.operation.fan_out_kind()))
    }

    fn endpoints(&self, choice: &Choice<'_>, together: FanOutKind) -> Destination {
        let goes_to_all = matches!(choice.delivery_mode(), DeliveryMode::All(_))
            && matches!(together, FanOutKind::Deliver | FanOutKind::FirstSuccess);
        let is_random = *choice.route().pick() == Pick::Weighted && !choice.is_named_by_caller();
        let mut places: Vec<usize> =
            if goes_to_all || is_random { choice.endpoint_indexes().collect() } else { choice.order().collect() };
        let endpoint = |place: usize| self.settings.endpoints.get(place);
        if together == FanOutKind::SingleEndpoint {
            // What only one endpoint can give comes from a primary first.
            places.sort_by_key(|place| endpoint(*place).is_some_and(|found| found.role == EndpointRole::Secondary));
        }
        let weight = |place: usize| {
            let mut targets = choice.route().targets().iter();
            targets
                .find(|target| target.endpoint_index() == place)
                .map(|target| (target.name().clone(), target.weight()))
        };
        Destination::Endpoints {
            pick: choice.route().pick().clone(),
            is_named: choice.is_named_by_caller(),
            endpoints: places.into_iter().filter_map(weight).collect(),
            in_any_order: goes_to_all || is_random,
        }
    }
}
