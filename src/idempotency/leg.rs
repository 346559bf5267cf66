//! The states of a call at its endpoints.

use std::sync::Arc;

use super::outcome::Outcome;

/// The state of a call at one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LegState {
    /// Nothing was sent, or the endpoint did not process it.
    #[default]
    Claimed,
    /// The endpoint may have received the call, and there is no response.
    Sent,
    /// The endpoint responded.
    Done(Arc<Outcome>),
}

/// The states of a call at its endpoints. An endpoint that is not listed was not sent the call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Legs(Vec<Leg>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Leg {
    endpoint: Box<str>,
    origin: Box<str>,
    state: LegState,
}

impl LegState {
    /// Returns how far the call is known to have come.
    fn rank(&self) -> u8 {
        match self {
            Self::Claimed => 0,
            Self::Sent => 1,
            Self::Done(_) => 2,
        }
    }
}

impl Legs {
    /// Returns the state at an endpoint. An endpoint with the same name at another origin is another one.
    pub fn state(&self, endpoint: &str, origin: &str) -> LegState {
        self.find(endpoint, origin).map_or_else(LegState::default, |leg| leg.state.clone())
    }

    /// Sets the state at an endpoint.
    pub(super) fn set(&mut self, endpoint: &str, origin: &str, state: LegState) {
        let is_it = |leg: &&mut Leg| *leg.endpoint == *endpoint && *leg.origin == *origin;
        match self.0.iter_mut().find(is_it) {
            Some(leg) => leg.state = state,
            None => self.0.push(Leg { endpoint: endpoint.into(), origin: origin.into(), state }),
        }
    }

    /// Adds what another store knows. Known states only advance: to sent, then to done.
    pub(super) fn merge(&mut self, other: &Self) {
        for Leg { endpoint, origin, state } in &other.0 {
            if state.rank() > self.state(endpoint, origin).rank() {
                self.set(endpoint, origin, state.clone());
            }
        }
    }

    /// Returns the first outcome.
    pub fn outcome(&self) -> Option<&Arc<Outcome>> {
        self.outcomes().next()
    }

    /// Returns all outcomes.
    pub fn outcomes(&self) -> impl Iterator<Item = &Arc<Outcome>> {
        self.0.iter().filter_map(|leg| match &leg.state {
            LegState::Done(outcome) => Some(outcome),
            LegState::Claimed | LegState::Sent => None,
        })
    }

    /// Returns whether an endpoint may have received the call without a response.
    pub fn has_unknown_outcome(&self) -> bool {
        self.0.iter().any(|leg| leg.state == LegState::Sent)
    }

    /// Returns the approximate memory of the states, in bytes.
    pub(super) fn size(&self) -> usize {
        let leg = |leg: &Leg| leg.endpoint.len() + leg.origin.len() + size_of::<Leg>();
        self.0.iter().map(leg).sum::<usize>() + self.outcomes().map(|outcome| outcome.size()).sum::<usize>()
    }

    fn find(&self, endpoint: &str, origin: &str) -> Option<&Leg> {
        self.0.iter().find(|leg| *leg.endpoint == *endpoint && *leg.origin == *origin)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn done() -> LegState {
        LegState::Done(Arc::new(Outcome::of(StatusCode::ACCEPTED, &HeaderMap::new(), None)))
    }

    #[test]
    fn known_states_only_advance() {
        let mut known = Legs::default();
        for (state, expected) in [
            (LegState::Claimed, LegState::Claimed),
            (LegState::Sent, LegState::Sent),
            (LegState::Claimed, LegState::Sent),
            (done(), done()),
            (LegState::Sent, done()),
        ] {
            let mut other = Legs::default();
            other.set("east", "https://e", state);
            known.merge(&other);
            assert_eq!(known.state("east", "https://e"), expected);
        }
        assert!(!known.has_unknown_outcome());
    }

    #[test]
    fn endpoint_at_another_origin_is_another_one() {
        let mut legs = Legs::default();
        legs.set("east", "https://e", done());
        assert_eq!(legs.state("east", "https://e"), done());
        assert_eq!(legs.state("east", "https://elsewhere"), LegState::Claimed);
        assert_eq!(legs.outcomes().count(), 1);
    }
}
