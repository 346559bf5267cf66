//! Why a caller's body fails.

use std::time::Duration;

use crate::delivery::error::DeliveryError;
use crate::serve::CallerBodyError;

/// Why a body cannot be sent whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) enum BodyFailure {
    /// The caller sends more than `limit` bytes.
    TooLarge { limit: u64 },
    /// The caller broke off.
    Broken,
    /// There is no memory to keep it, or a part was sent and not kept.
    NotKept,
}

impl From<BodyFailure> for DeliveryError {
    fn from(failure: BodyFailure) -> Self {
        match failure {
            BodyFailure::TooLarge { limit } => Self::BodyTooLarge { limit },
            BodyFailure::Broken => Self::BodyBroken,
            // Nothing that an endpoint would act upon was sent.
            BodyFailure::NotKept => Self::Overload { retry_after: Duration::from_secs(1) },
        }
    }
}

/// Why reading a body stopped. Errors for callers come from [`RequestBody::failure`] instead.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the body is larger than the limit")]
    TooLarge,
    #[error("there is no memory to keep the body")]
    NotKept,
    #[error("the caller broke off")]
    Broken(#[source] CallerBodyError),
    #[error("the caller ended the body too early")]
    Truncated,
    #[error("the body failed before")]
    FailedBefore,
    #[error("another attempt reads the body, or none does any more")]
    Superseded,
}
