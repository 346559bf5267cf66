//! Delivers planned calls: carries a call to the endpoints of its route and returns the answer, or a typed failure that says
//! what was sent.
//!
//! Reading order: [`deliver`] → `fan_out` and `list` → `single` → `attempt` → `forward`. Knows no listener and no admission; of
//! [`crate::serve`] it knows the type of the caller's body alone.

mod attempt;
mod body;
mod call;
mod candidates;
mod error;
mod fan_out;
mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod head;
pub mod headers;
mod idempotency;
mod list;
mod outcome;
mod retry;
mod settings;
mod single;
mod upstream;
mod worker;

use http::Response;

pub use body::{Answer, BodyMemory, RequestBody};
pub use call::{CallState, PlannedCall};
pub use error::{DeliveryError, EndpointOutcome};
pub use head::CallHead;
pub use headers::ERROR_HEADER;
pub use idempotency::{CallKey, IdempotencySettings, IdempotencyStore, Network};
pub use retry::{MessageRetry, RetrySettings};
pub use settings::DeliverySettings;
pub use upstream::Upstream;
pub use worker::{DeliveryParts, WorkerDelivery};

use crate::route::{Choice, DeliveryMode};
use crate::signalr::FanOutKind;

/// Delivers a call. Returns the endpoint that answered, too. `key` is the call's idempotency key; `gateway` returns the origin
/// under which the caller reached the gateway.
///
/// # Errors
/// [`DeliveryError`] says what was sent and who is at fault.
///
/// # Cancel safety
/// The call may have been sent.
pub async fn deliver<'a>(
    worker: &'a WorkerDelivery,
    choice: &'a Choice<'a>,
    key: Option<CallKey<'_>>,
    call: &PlannedCall<'_>,
    gateway: impl FnOnce() -> Option<String>,
) -> Result<(&'a Upstream, Response<Answer>), DeliveryError> {
    // Fan-outs and lists are rare, so they are boxed: locals held across an await enlarge every request's future.
    match (choice.delivery_mode(), call.operation.fan_out_kind()) {
        (_, FanOutKind::List) => Box::pin(list::list(worker, choice, call, gateway())).await,
        (DeliveryMode::All(policy), FanOutKind::Deliver | FanOutKind::FirstSuccess) => {
            Box::pin(fan_out::fan_out(worker, *choice, policy, key, call)).await
        }
        (DeliveryMode::All(_), FanOutKind::SingleEndpoint) | (DeliveryMode::One, _) => {
            single::deliver(worker, choice, call).await
        }
    }
}
