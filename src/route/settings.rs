//! What the routing table is built from, decided. No serde, no I/O.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::hash::HashKey;
use super::pattern::Pattern;
use crate::endpoint::EndpointName;
use crate::limits::RateSettings;
use crate::signalr::{OperationSet, Policy};

/// The configured name of a route. Metric label, log field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteName(Arc<str>);

impl RouteName {
    /// Wraps a name that configuration has checked.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the name as the operator wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One rule: which calls it takes and where they go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSettings {
    /// The configured name.
    pub name: RouteName,
    /// What a call must look like. Every condition that is set must hold.
    pub matches: MatchSettings,
    /// How one of the endpoints is chosen.
    pub pick: Pick,
    /// What happens while every endpoint is out.
    pub when_unavailable: WhenUnavailable,
    /// Whether a caller may name one of the endpoints by [`super::ENDPOINT_HEADER`].
    pub endpoint_header: bool,
    /// How many calls it takes; no limit if `None`.
    pub rate: Option<RateSettings>,
    /// The endpoints, in configured order. Never empty.
    pub endpoints: Vec<RouteEndpoint>,
}

/// An endpoint of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEndpoint {
    /// Which endpoint.
    pub endpoint: EndpointName,
    /// Its share under [`Pick::Weighted`] and [`Pick::Hash`], relative to the others; at least 1.
    pub weight: u32,
}

/// How a route chooses among its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// In configured order: the next one only when nothing could be sent to those before.
    First,
    /// At random by weight; the others, by weight too, when nothing could be sent.
    Weighted,
    /// By what the call is about: the same goes to the same endpoint, to the others, in an order of its own, when nothing
    /// could be sent. Shares are by weight.
    Hash(HashKey),
    /// All of them, and one answer. What only one endpoint can do (client tokens) goes to one, primaries first.
    All(Policy),
}

impl Pick {
    /// Returns the word of the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Weighted => "weighted",
            Self::Hash(_) => "hash",
            Self::All(_) => "all",
        }
    }
}

/// What a route does while every one of its endpoints is out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnavailable {
    /// It tries the first all the same: the breaker may be wrong, and a caller had better see the endpoint's own error.
    #[default]
    Send,
    /// It fails at once, so that callers do not wait.
    Fail,
}

/// What a name or an address may be. A list that was filtered until nothing was left matches nothing: only
/// [`Constraint::Any`], which is written out, matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Constraint<T> {
    /// Anything, nothing at all included.
    #[default]
    Any,
    /// One of these.
    OneOf(Vec<T>),
}

impl<T> Constraint<T> {
    /// Whether it is [`Constraint::Any`].
    pub fn is_any(&self) -> bool {
        matches!(self, Self::Any)
    }

    /// Returns what is allowed; `None` if anything is.
    pub fn allowed(&self) -> Option<&[T]> {
        match self {
            Self::Any => None,
            Self::OneOf(allowed) => Some(allowed),
        }
    }

    /// Whether anything is allowed, or `is_it` says so of one that is.
    pub fn allows(&self, is_it: impl FnMut(&T) -> bool) -> bool {
        self.allowed().is_none_or(|allowed| allowed.iter().any(is_it))
    }

    /// Translates what is allowed, or fails with the first that cannot be.
    ///
    /// # Errors
    /// Those of `translate`.
    pub(super) fn try_map<U, E>(&self, translate: impl FnMut(&T) -> Result<U, E>) -> Result<Constraint<U>, E> {
        Ok(match self {
            Self::Any => Constraint::Any,
            Self::OneOf(allowed) => Constraint::OneOf(allowed.iter().map(translate).collect::<Result<_, _>>()?),
        })
    }
}

/// The conditions of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MatchSettings {
    /// Hub names or `*` patterns; compared without case, as the service does.
    pub hubs: Constraint<Pattern>,
    /// Operations; any if `None`.
    pub operations: Option<OperationSet>,
    /// Group names or `*` patterns; with case, percent-decoded once.
    pub groups: Constraint<Pattern>,
    /// User ids or `*` patterns; with case, percent-decoded once.
    pub users: Constraint<Pattern>,
    /// Values or `*` patterns of the `application` query parameter; without case.
    pub applications: Constraint<Pattern>,
    /// Headers that must all be there.
    pub headers: Vec<HeaderMatch>,
    /// Names of the listeners that the call may have come in by.
    pub listeners: Constraint<String>,
    /// Networks that the caller's address may be in. A call over a Unix socket has none and matches no network.
    pub clients: Constraint<IpNet>,
}

/// A header a call must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// The header's name.
    pub name: HeaderName,
    /// The value one of its lines must have; any value if `None`.
    pub value: Option<HeaderValue>,
}

impl HeaderMatch {
    /// Whether headers have it.
    pub(super) fn holds(&self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(&self.name).iter();
        values.any(|found| self.value.as_ref().is_none_or(|value| found == value))
    }
}
