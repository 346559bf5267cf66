//! How the requests of a delivery are authorized.

use http::HeaderValue;

use super::error::DeliveryError;
use crate::credential::{Bearer, RequestUrl};

/// How the requests of a delivery are authorized: with the bearers of the endpoint's credential.
#[derive(Clone, Copy)]
pub struct Authorization<'a> {
    /// Returns the bearer for a request to a URL.
    pub bearer: &'a (dyn Fn(RequestUrl<'_>) -> Option<Bearer> + Sync),
    /// Whether the bearers are signed with the resource's access key. Client tokens then are too.
    pub is_access_key: bool,
}

impl Authorization<'_> {
    /// Returns the `Authorization` value of a request.
    pub(super) fn header(&self, origin: &str, path: &str) -> Result<HeaderValue, DeliveryError> {
        let bearer = (self.bearer)(RequestUrl { origin, path });
        bearer.map(|bearer| bearer.header().clone()).ok_or(DeliveryError::NoBearer(None))
    }
}
