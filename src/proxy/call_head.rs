//! The head of a call, as it is kept for as long as the call is on its way.

use std::net::IpAddr;

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::headers::{Glance, OwnLines};
use super::request_id;
use crate::route::RouteInput;
use crate::serve::Refusal;
use crate::signalr::Call;

/// The head of a call as the caller sent it, and what the gateway adds to it whichever endpoint it goes to.
#[derive(Debug)]
pub struct CallHead {
    pub(super) method: Method,
    /// In origin form: path and query as the caller sent them.
    pub(super) uri: Uri,
    /// The host in the request line, if there was one: HTTP/2 has it there, and HTTP/1.1 in absolute form.
    pub(super) authority: Option<Authority>,
    pub(super) headers: HeaderMap,
    pub(super) glance: Glance,
    pub(super) own: OwnLines,
    /// Why the caller's own head was not passed on; then this one stands in for it.
    pub(super) refusal: Option<Refusal>,
}

impl CallHead {
    /// Takes in a head. The request id is the caller's if it can be taken over; else it is made by `make_id`. `client` is the
    /// caller's address, if endpoints are told.
    pub fn new(head: Parts, make_id: impl FnOnce() -> HeaderValue, client: Option<HeaderValue>) -> Self {
        let Parts { method, uri, headers, extensions, .. } = head;
        let refusal = extensions.get().copied();
        let glance = Glance::at(&headers);
        let request_id = if glance.has_request_id { request_id::of_caller(&headers) } else { None };
        let own = OwnLines { request_id: request_id.unwrap_or_else(make_id), client };
        // HTTP/1.1 requests nearly always come in origin form.
        let (uri, authority) = if uri.authority().is_none() {
            (uri, None)
        } else {
            let parts = uri.into_parts();
            (parts.path_and_query.map(Uri::from).unwrap_or_default(), parts.authority)
        };
        Self { method, uri, authority, headers, glance, own, refusal }
    }

    /// Returns what routes are shown of it.
    pub fn route_input<'a>(&'a self, call: &'a Call<'a>, listener: usize, client: Option<IpAddr>) -> RouteInput<'a> {
        RouteInput { call, headers: &self.headers, may_have_endpoint_header: self.glance.has_staying, listener, client }
    }

    /// Returns its size as it stood on the wire, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.uri.path().len() + self.uri.query().map_or(0, |query| query.len() + 1) + self.glance.size
    }

    /// Returns the host that the caller asked for. The one in the request line wins (RFC 9112 section 3.2.2).
    pub(super) fn host(&self) -> Option<&str> {
        let authority = self.authority.as_ref().map(Authority::as_str);
        authority.or_else(|| self.headers.get(HOST)?.to_str().ok())
    }
}
