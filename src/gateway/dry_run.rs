//! Dry runs: determines the route and the endpoints of a call without sending it.
//!
//! A dry run takes the steps of the request pipeline in order, up to the first that needs the network: admission, operation,
//! route, endpoints. `explain` prints the decision, and the `[[tests]]` of a configuration compare it with what they expect.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::header::HOST;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::settings::Settings;
use crate::delivery::CallHead;
use crate::endpoint::{EndpointName, EndpointRole};
use crate::metrics::ErrorKind;
use crate::proxy::{Admission, LastHost, ProxyError};
use crate::route::{
    Caller, Callers, Choice, DeliveryMode, MismatchDetail, NamedBy, Pick, RouteCaller, RouteName, Table, TableError,
};
use crate::serve::{Bind, CallerIdentity, ListenerId, Peer};
use crate::signalr::{Call, FanOutKind, Operation};

/// The call of a dry run.
#[derive(Clone, Debug)]
pub struct DryRunCall {
    request: Parts,
    /// The index of the listener that receives it.
    pub listener: usize,
    /// The caller's address. Default: loopback. A Unix socket has none.
    pub client: Option<IpAddr>,
    /// The identity in the caller's certificate; `None` if it sends none.
    pub caller: Option<CallerIdentity>,
}

/// The reason why a method or a URL is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCall {
    /// The method is invalid.
    #[error("the method is not an HTTP method")]
    Method,
    /// The URL is invalid.
    #[error("the URL is neither `http://host/path` nor `/path`")]
    Url,
}

impl DryRunCall {
    /// Creates a call to the first listener. `url` may be only a path and a query.
    ///
    /// # Errors
    /// [`InvalidCall`].
    pub fn new(method: &str, url: &str, headers: &[(HeaderName, HeaderValue)]) -> Result<Self, InvalidCall> {
        let method: Method = method.to_ascii_uppercase().parse().map_err(|_invalid| InvalidCall::Method)?;
        let url: Uri = url.parse().map_err(|_invalid| InvalidCall::Url)?;
        let host = url.authority().map_or("localhost", http::uri::Authority::as_str).to_owned();
        let target = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let request = Request::builder().method(method).uri(target).header(HOST, host).body(());
        let mut request = request.map_err(|_invalid| InvalidCall::Url)?.into_parts().0;
        for (name, value) in headers {
            if *name == HOST {
                request.headers.insert(HOST, value.clone());
            } else {
                request.headers.append(name, value.clone());
            }
        }
        Ok(Self { request, listener: 0, client: None, caller: None })
    }
}

/// The result of a dry run.
#[derive(Debug)]
pub struct Decision {
    /// Its operation; `None` if it is rejected before.
    pub operation: Option<Operation>,
    /// The names in its path: `hub`, `group`, `user`, `connection`.
    pub names: Vec<(&'static str, String)>,
    /// The configured caller that has the caller's identity.
    pub caller: Option<String>,
    /// The routes before the matching one, and the reason why each does not match. Only [`DryRun::explain`] finds them.
    pub passed_over: Vec<(RouteName, MismatchDetail)>,
    /// The route that matches.
    pub route: Option<RouteName>,
    /// Its destination, or the error with which it is rejected.
    pub outcome: Result<Destination, ProxyError>,
}

/// The destination of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The gateway itself.
    Gateway,
    /// One or more endpoints.
    Endpoints {
        /// The `pick` of the route.
        pick: Pick,
        /// What in the call named the endpoint; `None` if the route picks.
        named_by: Option<NamedBy>,
        /// The endpoints and their weights, in the order in which they are tried unless `in_any_order`.
        endpoints: Vec<(EndpointName, u32)>,
        /// The endpoints of the route that are left out because they are disabled.
        disabled: Vec<EndpointName>,
        /// Whether the order has no meaning: the call goes to all of them, or to one at random.
        in_any_order: bool,
    },
}

/// The admission rules and the route table of a configuration.
#[derive(Debug)]
pub struct DryRun<'s> {
    settings: &'s Settings,
    admissions: Vec<Admission>,
    table: Table,
    callers: Callers,
}

/// Returns the labels of all error kinds with which the gateway rejects calls.
pub fn error_kinds() -> impl Iterator<Item = &'static str> {
    ErrorKind::ALL.iter().map(|kind| kind.label())
}

impl<'s> DryRun<'s> {
    /// Builds the admission rules and the route table.
    ///
    /// # Errors
    /// [`TableError`] if a route names an endpoint or listener that does not exist.
    pub fn new(settings: &'s Settings) -> Result<Self, TableError> {
        let proxy = &settings.proxy;
        let admission = |admission| Admission::new(admission, proxy.delivery.max_header_bytes, proxy.max_body_bytes);
        let endpoints: Vec<_> = settings.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
        let disabled: Vec<_> = settings.disabled.iter().map(|endpoint| endpoint.name.clone()).collect();
        let listeners: Vec<_> = settings.listeners.iter().map(|(listener, _)| listener.name.as_str()).collect();
        Ok(Self {
            settings,
            admissions: settings.listeners.iter().map(|(_, rules)| admission(rules.clone())).collect(),
            callers: Callers::build(&settings.callers, &endpoints),
            table: Table::build_with_disabled(&settings.routes, &endpoints, &disabled, &listeners)?,
        })
    }

    /// Determines the destination of a call.
    pub fn decide(&self, call: &DryRunCall) -> Decision {
        self.decide_with(call, false)
    }

    /// Determines the destination of a call, and why each of the routes before does not match.
    pub fn explain(&self, call: &DryRunCall) -> Decision {
        self.decide_with(call, true)
    }

    fn decide_with(&self, call: &DryRunCall, explains: bool) -> Decision {
        let outcome = Ok(Destination::Gateway);
        let mut decision = Decision {
            operation: None,
            names: Vec::new(),
            caller: None,
            passed_over: Vec::new(),
            route: None,
            outcome,
        };
        decision.outcome = self.destination(call, explains, &mut decision);
        decision
    }

    fn destination(
        &self,
        call: &DryRunCall,
        explains: bool,
        decision: &mut Decision,
    ) -> Result<Destination, ProxyError> {
        let DryRunCall { request, listener, client, caller } = call;
        let (settings, _) = self.settings.listeners.get(*listener).ok_or(ProxyError::INTERNAL)?;
        let admission = self.admissions.get(*listener).ok_or(ProxyError::INTERNAL)?;
        let client = match settings.bind {
            Bind::Tcp(_) => Some(client.unwrap_or(Ipv4Addr::LOCALHOST.into()).to_canonical()),
            Bind::Unix { .. } => None,
        };
        // The handshake fails before there is a request.
        if settings.requires_certificate() && caller.is_none() {
            return Err(ProxyError::CertificateRequired);
        }
        let address = client.map(|client| SocketAddr::new(client, 0));
        let peer = Peer {
            listener: ListenerId::default(),
            address,
            is_unix: address.is_none(),
            is_tls: settings.tls.is_some(),
            identity: caller.clone(),
            forwarded_for: None,
        };
        let client = admission.caller_address(&peer, &request.headers);
        let head = CallHead::new(request.clone(), || HeaderValue::from_static("dry-run"), None);
        admission.admit(&peer, &client, &head, &LastHost::default())?;

        let call = Call::parse(&request.method, request.uri.path(), request.uri.query())?;
        decision.operation = Some(call.operation);
        let names = [("hub", call.hub), ("group", call.group), ("user", call.user), ("connection", call.connection)];
        let names = names.into_iter().filter_map(|(key, name)| Some((key, name?.decoded().into_owned())));
        decision.names = names.collect();
        admission.admit_operation(call.operation)?;
        if call.operation == Operation::Health {
            return Ok(Destination::Gateway);
        }

        let identity = caller.as_ref().map(CallerIdentity::as_str);
        let configured = identity.and_then(|identity| self.callers.find(identity)).map(|(_, caller)| caller);
        if let Some(configured) = configured {
            decision.caller = Some(configured.settings().name.clone());
            configured.check(&call)?;
        }
        let route_caller = RouteCaller { identity, reach: configured.and_then(Caller::reach) };
        let input = head.route_input(&call, *listener, client.certain(), route_caller);
        let picked = self.table.find(&input);
        if explains {
            let before = self.table.routes().iter().take(picked.map_or(usize::MAX, |(index, _)| index));
            let mismatch = |route: &crate::route::Route| {
                Some((route.name().clone(), MismatchDetail::find(route, &input, &settings.name)?))
            };
            decision.passed_over = before.filter_map(mismatch).collect();
        }
        let (_, route) = picked.ok_or_else(|| ProxyError::no_route(&self.table, &input))?;
        decision.route = Some(route.name().clone());
        Ok(self.endpoints(&Choice::new(route, &input)?, call.operation.fan_out_kind()))
    }

    fn endpoints(&self, choice: &Choice<'_>, fan_out: FanOutKind) -> Destination {
        let is_fan_out = matches!(choice.delivery_mode(), DeliveryMode::All(_)) && fan_out.is_parallel();
        let is_random = *choice.route().pick() == Pick::Weighted && choice.named_by().is_none();
        let mut indexes: Vec<usize> =
            if is_fan_out || is_random { choice.endpoint_indexes().collect() } else { choice.order().collect() };
        let endpoint = |index: usize| self.settings.endpoints.get(index);
        if fan_out == FanOutKind::SingleEndpoint {
            // Client tokens are requested from primaries first.
            indexes.sort_by_key(|index| endpoint(*index).is_some_and(|found| found.role == EndpointRole::Secondary));
        }
        let name_and_weight = |index: usize| {
            let mut targets = choice.targets().iter();
            targets
                .find(|target| target.endpoint_index() == index)
                .map(|target| (target.name().clone(), target.weight()))
        };
        Destination::Endpoints {
            pick: choice.route().pick().clone(),
            named_by: choice.named_by().cloned(),
            endpoints: indexes.into_iter().filter_map(name_and_weight).collect(),
            disabled: if choice.named_by().is_some() {
                Vec::new()
            } else {
                choice.route().disabled().iter().map(|target| target.name().clone()).collect()
            },
            in_any_order: is_fan_out || is_random,
        }
    }
}
