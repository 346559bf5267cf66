//! The body of an endpoint's response, as an attempt returns it.

use std::time::Instant;

use bytes::Bytes;
use http_body::Body;
use http_body_util::{BodyExt, Limited};

use super::request::RequestBody;
use crate::delivery::error::DeliveryError;
use crate::endpoint::Download;
use crate::limits::RequestDeadline;

/// The body of an endpoint's response.
pub enum UpstreamBody {
    /// It is empty, and the connection is back in its pool.
    Empty,
    /// It has been read, and the connection is back in its pool.
    Whole(Bytes),
    /// It is still on its connection.
    Streamed(Download<RequestBody>),
}

impl From<Bytes> for UpstreamBody {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Whole(bytes) }
    }
}

impl UpstreamBody {
    pub(in crate::delivery) fn new(download: Download<RequestBody>) -> Self {
        if download.is_end_stream() { Self::Empty } else { Self::Streamed(download) }
    }

    /// Drops the response. Its connection is reused if the rest of the body is small enough to be read.
    pub(in crate::delivery) fn discard(self) {
        drop(self);
    }

    /// Reads the body to its end.
    ///
    /// # Errors
    /// [`DeliveryError::ResponseIncomplete`] if the response ended early or has more than `max` bytes, and
    /// [`DeliveryError::Deadline`] if the deadline passed.
    pub(in crate::delivery) async fn collected(
        self,
        max: usize,
        deadline: RequestDeadline,
    ) -> Result<Bytes, DeliveryError> {
        let download = match self {
            Self::Empty => return Ok(Bytes::new()),
            Self::Whole(bytes) => return Ok(bytes),
            Self::Streamed(download) => download,
        };
        let collected = tokio::time::timeout(deadline.remaining(Instant::now()), Limited::new(download, max).collect());
        let collected = collected.await.map_err(|_late| DeliveryError::Deadline { limit: deadline.limit() })?;
        Ok(collected.map_err(DeliveryError::ResponseIncomplete)?.to_bytes())
    }
}
