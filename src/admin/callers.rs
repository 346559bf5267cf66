//! What callers get while endpoints are broken.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Write as _};

use super::names::names;
use crate::endpoint::{Endpoint, FailureKind, GatewayAnswer};
use crate::metrics::{ErrorKind, UpstreamErrorReason};
use crate::route::{Pick, RouteSettings, WhenUnavailable};

/// What a call that only a broken endpoint could take gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// An error of the gateway.
    Gateway(GatewayAnswer),
    /// The endpoint's own response with this status. Its calls do not go to another endpoint.
    Refusal(u16),
    /// The endpoint's own response with this status.
    Failure(u16),
}

/// The endpoints that are broken, and what a call that only one of them could take gets.
pub(super) type Broken<'a> = HashMap<&'a str, Answer>;

/// What broken endpoints mean for the calls of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteEffect {
    /// Nothing: it has none of them.
    None,
    /// Other endpoints of the route take the calls.
    FailsOver,
    /// All calls fail.
    Fails(Answer),
    /// Those calls fail that go to a broken endpoint.
    SomeFail(Answer),
    /// The other endpoints of a fan-out get the calls.
    Partial {
        /// Whether callers are answered 502.
        is_refused: bool,
    },
}

/// The answer to a call without a valid token.
const NO_TOKEN: Answer =
    Answer::Gateway(GatewayAnswer { status: 503, kind: ErrorKind::TokenUnavailable, may_be_processed: false });
/// The answer if no endpoint of the route is reached.
const UNREACHED: Answer = Answer::Gateway(GatewayAnswer::of(UpstreamErrorReason::Connect));

impl Answer {
    /// Returns what a call gets that only this endpoint could take; `state` is its state on `/status`.
    pub(super) fn of(endpoint: &Endpoint, state: &str) -> Self {
        if state == "no_token" {
            return NO_TOKEN;
        }
        let last = endpoint.health().history().get().last_failure;
        match last.map(|last| last.cause.kind()) {
            None => UNREACHED,
            Some(FailureKind::Response(status)) if state == "unauthorized" => Self::Refusal(status.as_u16()),
            Some(FailureKind::Response(status)) => Self::Failure(status.as_u16()),
            Some(FailureKind::Transport(reason)) => Self::Gateway(GatewayAnswer::of(reason)),
        }
    }

    /// Returns whether the endpoint may have processed the call.
    const fn may_be_processed(self) -> bool {
        match self {
            Self::Gateway(answer) => answer.may_be_processed,
            Self::Failure(_) => true,
            Self::Refusal(_) => false,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway(GatewayAnswer { status, kind, .. }) => write!(f, "{status} `{}`", kind.label())?,
            Self::Refusal(status) | Self::Failure(status) => write!(f, "the endpoint's own {status}")?,
        }
        f.write_str(if self.may_be_processed() { ", the message may be delivered" } else { ", nothing is delivered" })
    }
}

impl RouteEffect {
    /// Returns what broken endpoints mean for a route.
    pub(super) fn of(route: &RouteSettings, broken: &Broken<'_>) -> Self {
        let answer_of = |name: &str| broken.get(name).copied();
        let mut answers = route.endpoints.iter().filter_map(|one| answer_of(one.endpoint.as_str()));
        let count = answers.clone().count();
        let Some(first) = answers.next() else {
            // Calls name any endpoint.
            let named = broken.values().next().filter(|_| route.endpoints.is_empty());
            return named.map_or(Self::None, |answer| Self::SomeFail(*answer));
        };
        if count == route.endpoints.len() {
            return Self::Fails(if route.when_unavailable == WhenUnavailable::Fail {
                unavailable(first)
            } else {
                first
            });
        }
        if route.captures().next().is_some() {
            return Self::SomeFail(first);
        }
        let refusal = route.endpoints.iter().enumerate().find_map(|(index, one)| {
            let answer = answer_of(one.endpoint.as_str())?;
            matches!(answer, Answer::Refusal(_)).then_some((index, answer))
        });
        match (&route.pick, refusal) {
            (Pick::All(policy), _) => {
                let all = route.endpoints.len();
                Self::Partial { is_refused: all - count < policy.required(all) }
            }
            (Pick::First, Some((index, answer))) => {
                let is_first = route.endpoints.iter().take(index).all(|one| answer_of(one.endpoint.as_str()).is_some());
                if is_first { Self::Fails(answer) } else { Self::FailsOver }
            }
            (Pick::Weighted | Pick::Hash(_), Some((_, answer))) => Self::SomeFail(answer),
            (Pick::First | Pick::Weighted | Pick::Hash(_), None) => Self::FailsOver,
        }
    }
}

/// Returns the answer of a route that fails immediately while its circuits are open.
const fn unavailable(answer: Answer) -> Answer {
    match answer {
        // The circuit of an endpoint without a token, or that refuses it, is closed.
        Answer::Gateway(GatewayAnswer { kind: ErrorKind::TokenUnavailable, .. }) | Answer::Refusal(_) => answer,
        Answer::Gateway(..) | Answer::Failure(_) => UNREACHED,
    }
}

/// Returns what callers of the routes with broken endpoints get; `None` if there is no such route.
pub(super) fn callers_get(effects: &[(&RouteSettings, RouteEffect)], broken: &Broken<'_>) -> Option<String> {
    let mut answers: Vec<(bool, String, Vec<&str>)> = Vec::new();
    let mut total = 0;
    for (route, effect) in effects {
        let (is_normal, text) = match *effect {
            RouteEffect::None => continue,
            RouteEffect::FailsOver => (true, "the normal answers, of the route's other endpoints".to_owned()),
            RouteEffect::Fails(answer) => (false, answer.to_string()),
            RouteEffect::SomeFail(answer) => (false, format!("{answer}, for calls that go to a broken endpoint")),
            RouteEffect::Partial { is_refused } => (!is_refused, partial(route, broken, is_refused)),
        };
        total += 1;
        match answers.iter_mut().find(|(_, known, _)| *known == text) {
            Some((.., names)) => names.push(route.name.as_str()),
            None => answers.push((is_normal, text, vec![route.name.as_str()])),
        }
    }
    // What fails comes first.
    answers.sort_by_key(|(is_normal, ..)| *is_normal);
    let parts = answers.iter().take(MAX_ANSWERS).map(|(_, text, routes)| {
        let s = if routes.len() == 1 { "" } else { "s" };
        let names = names(routes.iter().map(|name| (*name).to_owned()), routes.len());
        if routes.len() == total { text.clone() } else { format!("{text} (route{s} {names})") }
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The most different answers in a text.
const MAX_ANSWERS: usize = 3;

/// Returns what callers get of a fan-out that some endpoints do not take.
fn partial(route: &RouteSettings, broken: &Broken<'_>, is_refused: bool) -> String {
    let (mut works, mut not, mut maybe) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for one in &route.endpoints {
        let name = one.endpoint.to_string();
        match broken.get(one.endpoint.as_str()) {
            None => works.insert(name),
            Some(answer) if answer.may_be_processed() => maybe.insert(name),
            Some(_) => not.insert(name),
        };
    }
    let list = |set: BTreeSet<String>| (set.len(), names(set.clone().into_iter(), set.len()));
    let has = |count: usize| if count == 1 { "has" } else { "have" };
    let (works, not, maybe) = (list(works), list(not), list(maybe));
    let mut text = if is_refused {
        let kind = ErrorKind::PartialDelivery.label();
        format!("502 `{kind}`: {} {} delivered the message", works.1, has(works.0))
    } else {
        format!("the normal answers: {} {} delivered the message", works.1, has(works.0))
    };
    if not.0 > 0 {
        let _infallible = write!(text, ", {} {} not", not.1, has(not.0));
    }
    if maybe.0 > 0 {
        let _infallible = write!(text, ", {} {} not confirmed it", maybe.1, has(maybe.0));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::EndpointName;
    use crate::route::{MatchSettings, RouteEndpoint, RouteName};
    use crate::signalr::Policy;

    const DOWN: Answer = UNREACHED;
    const FORBIDDEN: Answer = Answer::Refusal(403);

    fn route(name: &str, pick: Pick, endpoints: &[&str]) -> RouteSettings {
        let endpoint = |name: &&str| RouteEndpoint { endpoint: EndpointName::new(name), weight: 1 };
        RouteSettings {
            name: RouteName::new(name),
            matches: MatchSettings::default(),
            pick,
            when_unavailable: WhenUnavailable::Send,
            endpoint_header: None,
            rate: None,
            endpoints: endpoints.iter().map(endpoint).collect(),
        }
    }

    fn effect(pick: Pick, endpoints: &[&str], broken: &[(&'static str, Answer)]) -> RouteEffect {
        RouteEffect::of(&route("r", pick, endpoints), &broken.iter().copied().collect())
    }

    #[test]
    fn calls_fail_over_unless_the_endpoint_answers_itself() {
        let two = ["east", "west"];
        for (pick, broken, expected) in [
            (Pick::First, [("east", DOWN)].as_slice(), RouteEffect::FailsOver),
            (Pick::First, &[("north", DOWN)], RouteEffect::None),
            (Pick::First, &[("east", DOWN), ("west", FORBIDDEN)], RouteEffect::Fails(DOWN)),
            (Pick::First, &[("east", FORBIDDEN)], RouteEffect::Fails(FORBIDDEN)),
            (Pick::First, &[("west", FORBIDDEN)], RouteEffect::FailsOver),
            (Pick::Weighted, &[("west", FORBIDDEN)], RouteEffect::SomeFail(FORBIDDEN)),
            (Pick::Weighted, &[("west", DOWN)], RouteEffect::FailsOver),
        ] {
            assert_eq!(effect(pick.clone(), &two, broken), expected, "{pick:?} {broken:?}");
        }
        assert_eq!(effect(Pick::First, &[], &[("east", DOWN)]), RouteEffect::SomeFail(DOWN), "any endpoint is named");
    }

    #[test]
    fn fan_out_is_refused_if_too_few_endpoints_accept() {
        let three = ["east", "north", "west"];
        for (policy, broken, is_refused) in
            [(Policy::All, 1, true), (Policy::Any, 2, false), (Policy::Quorum, 1, false), (Policy::Quorum, 2, true)]
        {
            let broken: Vec<_> = three.iter().take(broken).map(|name| (*name, DOWN)).collect();
            assert_eq!(effect(Pick::All(policy), &three, &broken), RouteEffect::Partial { is_refused }, "{policy:?}");
        }
    }

    #[test]
    fn route_that_fails_at_once_answers_itself() {
        let mut route = route("r", Pick::First, &["east"]);
        route.when_unavailable = WhenUnavailable::Fail;
        for (answer, expected) in [(Answer::Failure(500), DOWN), (FORBIDDEN, FORBIDDEN), (NO_TOKEN, NO_TOKEN)] {
            let broken = Broken::from([("east", answer)]);
            assert_eq!(RouteEffect::of(&route, &broken), RouteEffect::Fails(expected));
        }
    }

    #[test]
    fn routes_with_the_same_answer_share_a_part_and_those_that_fail_come_first() {
        let routes = [
            route("spare", Pick::First, &["east", "west"]),
            route("a", Pick::First, &["east"]),
            route("b", Pick::First, &["east"]),
            route("other", Pick::First, &["west"]),
        ];
        let broken = Broken::from([("east", DOWN)]);
        let effects: Vec<_> = routes.iter().map(|route| (route, RouteEffect::of(route, &broken))).collect();
        assert_eq!(
            callers_get(&effects, &broken).unwrap(),
            "503 `endpoint_unavailable`, nothing is delivered (routes a, b); the normal answers, of the route's other \
             endpoints (route spare)"
        );
        assert_eq!(callers_get(&effects[3..], &broken), None);
    }
}
