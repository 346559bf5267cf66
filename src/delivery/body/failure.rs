//! Why a caller's body fails.

use crate::delivery::error::DeliveryError;
use crate::serve::CallerBodyError;

/// Why a body cannot be sent whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::delivery) enum BodyFailure {
    /// The caller sends more than `limit` bytes.
    TooLarge { limit: u64 },
    /// The caller ended it early.
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
            BodyFailure::NotKept => Self::NoBodyMemory,
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
    #[error("the caller closed the connection or reset the stream")]
    Broken(#[source] CallerBodyError),
    #[error("the caller ended the body early")]
    Truncated,
    #[error("an earlier read of the body failed")]
    FailedBefore,
    #[error("a later attempt reads the body, or it was discarded")]
    Superseded,
}
