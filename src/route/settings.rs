//! Settings of the routing table. No serde, no I/O.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::case::Case;
use super::hash::HashKey;
use super::pattern::Pattern;
use crate::endpoint::EndpointName;
use crate::limits::RateSettings;
use crate::signalr::{OperationSet, Policy};

/// The configured name of a route. It is a metric label and a log field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName(Arc<str>);

impl RouteName {
    /// Wraps a name that the configuration has validated.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the name as configured.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One route: the calls that match and the endpoints that they are sent to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSettings {
    /// The configured name.
    pub name: RouteName,
    /// The conditions. A call matches if all of them hold.
    pub matches: MatchSettings,
    /// How endpoints are chosen.
    pub pick: Pick,
    /// What happens while no endpoint is available.
    pub when_unavailable: WhenUnavailable,
    /// The header in which callers may name one of the endpoints.
    pub endpoint_header: Option<HeaderName>,
    /// The rate limit; `None` for no limit.
    pub rate: Option<RateSettings>,
    /// The endpoints, in configured order. Empty if each call names its endpoint, which may be any.
    pub endpoints: Vec<RouteEndpoint>,
}

impl RouteSettings {
    /// Returns what in a call names its endpoint, if the route lets calls name one.
    pub fn named_by(&self) -> Option<NamedBy> {
        let header = self.endpoint_header.clone().map(NamedBy::Header);
        let mut captures = self.captures();
        header.or_else(|| captures.next().map(|(by, _)| by))
    }

    /// Returns the conditions with patterns that name the endpoint, and all their patterns.
    pub fn captures(&self) -> impl Iterator<Item = (NamedBy, &[Pattern])> {
        let MatchSettings { hubs, groups, applications, .. } = &self.matches;
        let all = [(NamedBy::Hub, hubs), (NamedBy::Group, groups), (NamedBy::Application, applications)];
        let all = all.into_iter().filter_map(|(by, patterns)| Some((by, patterns.allowed()?)));
        all.filter(|(_, patterns)| patterns.iter().any(Pattern::names_endpoint))
    }

    /// Returns what in a call names its endpoint, with the patterns that it matches.
    pub fn named_by_text(&self) -> Option<String> {
        let by = self.named_by()?;
        let patterns = self.captures().find(|(other, _)| *other == by).map(|(_, patterns)| patterns);
        let patterns = patterns.unwrap_or_default().iter().map(|pattern| format!(" {pattern}"));
        Some(format!("{by}{}", patterns.collect::<Vec<_>>().join(" or")))
    }
}

/// What in a call names its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The hub.
    Hub,
    /// The group.
    Group,
    /// The query parameter `application`.
    Application,
    /// A header.
    Header(HeaderName),
}

impl NamedBy {
    /// Returns whether case is significant in the name.
    pub fn case(&self) -> Case {
        match self {
            Self::Hub | Self::Application => Case::Insensitive,
            Self::Group | Self::Header(_) => Case::Sensitive,
        }
    }
}

impl fmt::Display for NamedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub => f.write_str("hub"),
            Self::Group => f.write_str("group"),
            Self::Application => f.write_str("application"),
            Self::Header(name) => write!(f, "header {name}"),
        }
    }
}

/// An endpoint of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEndpoint {
    /// The endpoint.
    pub endpoint: EndpointName,
    /// Its share under [`Pick::Weighted`] and [`Pick::Hash`], relative to the other endpoints; at least 1.
    pub weight: u32,
}

/// How a route chooses among its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// In configured order. The next endpoint is tried only if the previous ones did not process the call.
    First,
    /// At random by weight. Failover picks the next one by weight too.
    Weighted,
    /// By the hash of a key. Calls with the same key try the endpoints in the same order. Shares are by weight.
    Hash(HashKey),
    /// All endpoints, whose responses are merged. Operations on one endpoint (client tokens) are sent to one, primaries first.
    All(Policy),
}

impl Pick {
    /// Returns the value in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Weighted => "weighted",
            Self::Hash(_) => "hash",
            Self::All(_) => "all",
        }
    }

    /// Returns whether a call succeeds only if all endpoints accept it.
    pub fn needs_all(&self) -> bool {
        matches!(self, Self::All(Policy::All))
    }
}

/// What a route does while none of its endpoints is available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnavailable {
    /// Sends anyway, to the first endpoint or, with [`Pick::All`], to every one. The circuit may be open unnecessarily, and the
    /// endpoint's own error is more specific than the gateway's.
    #[default]
    Send,
    /// Fails immediately, so that callers do not wait.
    Fail,
}

/// The values that a condition accepts. An empty list matches nothing; only [`Constraint::Any`] matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Constraint<T> {
    /// Any value, or none.
    #[default]
    Any,
    /// One of these.
    OneOf(Vec<T>),
}

impl<T> Constraint<T> {
    /// Returns whether any value is accepted.
    pub fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }

    /// Returns the accepted values; `None` if any value is.
    pub fn allowed(&self) -> Option<&[T]> {
        match self {
            Self::Any => None,
            Self::OneOf(allowed) => Some(allowed),
        }
    }

    /// Returns whether any value is accepted or `matches` holds for one of those that are.
    pub fn allows(&self, matches: impl FnMut(&T) -> bool) -> bool {
        self.allowed().is_none_or(|allowed| allowed.iter().any(matches))
    }

    /// Converts the accepted values.
    pub fn map<U>(&self, convert: impl FnMut(&T) -> U) -> Constraint<U> {
        match self {
            Self::Any => Constraint::Any,
            Self::OneOf(allowed) => Constraint::OneOf(allowed.iter().map(convert).collect()),
        }
    }

    /// Converts the accepted values.
    ///
    /// # Errors
    /// The first error of `convert`.
    pub(super) fn try_map<U, E>(&self, convert: impl FnMut(&T) -> Result<U, E>) -> Result<Constraint<U>, E> {
        Ok(match self {
            Self::Any => Constraint::Any,
            Self::OneOf(allowed) => Constraint::OneOf(allowed.iter().map(convert).collect::<Result<_, _>>()?),
        })
    }
}

/// The conditions of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchSettings {
    /// Names of hubs or `*` patterns. Case-insensitive, as in the service.
    pub hubs: Constraint<Pattern>,
    /// Operations; `None` for any.
    pub operations: Option<OperationSet>,
    /// Names of groups or `*` patterns. Case-sensitive, after percent-decoding once.
    pub groups: Constraint<Pattern>,
    /// Ids of users or `*` patterns. Case-sensitive, after percent-decoding once.
    pub users: Constraint<Pattern>,
    /// Values of the query parameter `application` or `*` patterns. Case-insensitive.
    pub applications: Constraint<Pattern>,
    /// Headers. The call must have all of them.
    pub headers: Vec<HeaderMatch>,
    /// Names of the listeners that may receive the call.
    pub listeners: Constraint<String>,
    /// Networks of the caller's address. A call over a Unix socket has no address and matches no network.
    pub clients: Constraint<IpNet>,
    /// Identities of callers or `*` patterns. A call without a certificate has no identity and matches none.
    pub callers: Constraint<Pattern>,
}

/// A header that a call must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// The header's name.
    pub name: HeaderName,
    /// The value that one of its lines must have; `None` for any value.
    pub value: Option<HeaderValue>,
}

impl HeaderMatch {
    /// Returns whether the headers meet the condition.
    pub(super) fn holds(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        values.any(|found| self.value.as_ref().is_none_or(|value| found == value))
    }
}
