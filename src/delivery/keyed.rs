//! Calls that carry an `Idempotency-Key`: claimed before anything is sent, recorded before the caller is answered.

use std::time::Instant;

use http::Response;
use http::header::CONTENT_TYPE;

use super::body::{RequestBody, UpstreamBody};
use super::call::{PlannedCall, Special};
use super::error::DeliveryError;
use super::fan_out::{MergedResponse, collect, deliver_to_all};
use super::settle::settle;
use super::single::deliver;
use super::upstream::Upstream;
use super::worker::WorkerDelivery;
use crate::idempotency::{CallKey, Claim, Fingerprint, Outcome};
use crate::route::{Choice, DeliveryMode};
use crate::signalr::FanOutKind;

/// The response to a call with an idempotency key.
pub struct KeyedResponse<'a> {
    /// The endpoint that sent the response; `None` if it was sent earlier.
    pub upstream: Option<&'a Upstream>,
    /// The response.
    pub response: Response<UpstreamBody>,
    /// Set if it is the response to an earlier call with the same key, and nothing was sent now.
    pub replay: Option<Replay>,
}

/// How much of an earlier response is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// All of it.
    Complete,
    /// The status alone: the body was too large to be remembered.
    WithoutBody,
}

/// Delivers a call that has an effect and an idempotency key.
///
/// # Errors
/// [`DeliveryError`] says what was sent and who is at fault.
///
/// # Cancel safety
/// The call may have been sent. A repeat with the same key is then answered 504.
pub async fn deliver_keyed<'a>(
    worker: &'a WorkerDelivery,
    choice: &'a Choice<'a>,
    key: &CallKey,
    call: &PlannedCall<'_>,
) -> Result<KeyedResponse<'a>, DeliveryError> {
    let body = collect(worker, call).await?;
    let waits_since = Instant::now();
    let fingerprint = fingerprint(choice, call, &body);
    let claim = worker.idempotency.claim(key, fingerprint, worker.settings.idempotency, call.state.remaining()).await;
    call.state.add_wait(waits_since.elapsed());
    let known = claim.as_ref().map(Claim::legs).unwrap_or_default();
    let special = Special::Claimed(claim?);
    let call = PlannedCall { body: &body, special: Some(&special), ..*call };
    match (choice.delivery_mode(), call.operation.fan_out_kind()) {
        (DeliveryMode::All(policy), kind @ (FanOutKind::Deliver | FanOutKind::FirstSuccess)) => {
            let success = known.outcomes().find(|outcome| outcome.status().is_success());
            if let Some(success) = success.filter(|_| kind == FanOutKind::FirstSuccess) {
                return Ok(KeyedResponse::replay(success));
            }
            let merged = deliver_to_all(worker, *choice, policy, &call).await?;
            let MergedResponse { upstream, response, is_replay } = merged;
            Ok(KeyedResponse { upstream: Some(upstream), response, replay: is_replay.then_some(Replay::Complete) })
        }
        (DeliveryMode::All(_) | DeliveryMode::One, _) => match known.outcome() {
            Some(outcome) => Ok(KeyedResponse::replay(outcome)),
            None if known.has_unknown_outcome() => Err(DeliveryError::OutcomeUnknown),
            None => {
                let (upstream, outcome) = deliver(worker, choice, &call).await?;
                let outcome = settle(worker, upstream, &call, outcome).await;
                Ok(KeyedResponse { upstream: Some(upstream), response: outcome.result?, replay: None })
            }
        },
    }
}

fn fingerprint(choice: &Choice<'_>, call: &PlannedCall<'_>, body: &RequestBody) -> Fingerprint {
    // Only what the call itself names: what the route picks may be another endpoint next time.
    let named = choice.named_by().and_then(|_| choice.targets().first());
    let endpoint = named.map_or("", |target| target.name().as_str());
    let head = call.head();
    let content_type = head.headers.get(CONTENT_TYPE);
    let destination = [choice.route().name().as_str(), endpoint];
    Fingerprint::of(destination, &head.method, call.uri(), content_type, body.whole())
}

impl KeyedResponse<'_> {
    fn replay(outcome: &Outcome) -> Self {
        let replay = if outcome.is_complete() { Replay::Complete } else { Replay::WithoutBody };
        Self { upstream: None, response: outcome.to_response().map(UpstreamBody::from), replay: Some(replay) }
    }
}

impl Replay {
    /// Returns the value of the header that marks the response.
    pub const fn header_value(self) -> &'static str {
        match self {
            Self::Complete => "true",
            Self::WithoutBody => "without-body",
        }
    }
}
