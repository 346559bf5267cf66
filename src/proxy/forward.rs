//! One attempt at one endpoint under one deadline. Decides nothing about what comes after it.

use std::cell::Cell;
use std::fmt;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;

use super::body::{Answer, RequestBody};
use super::headers;
use crate::credential::Bearer;
use crate::endpoint::{ConnectError, Pool, SendError};
use crate::metrics::UpstreamErrorReason;

/// A request that is ready to go to any endpoint: stripped, not yet addressed.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    /// In origin form: path and query as the caller sent them.
    pub(super) uri: Uri,
    pub(super) headers: Headers,
    pub(super) body: RequestBody,
}

/// Headers that may be sent more than once. The first attempt gets them as hyper read them. What further attempts are
/// made from is kept in the form that is cheapest to make, since nearly all requests need no other.
pub(super) struct Headers {
    read: Cell<Option<HeaderMap>>,
    kept: Vec<(HeaderName, HeaderValue)>,
}

impl Headers {
    pub(super) fn new(headers: HeaderMap) -> Self {
        let kept = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { read: Cell::new(Some(headers)), kept }
    }

    /// Returns the headers for one more attempt.
    fn another(&self) -> HeaderMap {
        self.read.take().unwrap_or_else(|| self.kept.iter().cloned().collect())
    }
}

impl Clone for Headers {
    fn clone(&self) -> Self {
        Self { read: Cell::new(None), kept: self.kept.clone() }
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.kept.iter().map(|(name, _)| name)).finish()
    }
}

/// Why an attempt got no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// There was no connection. Nothing was sent.
    Connect(ConnectError),
    /// The connection ended before the request was written to it. Nothing was sent.
    Unsent(hyper::Error),
    /// The connection ended, or what came back was not HTTP. Something may have been received.
    Broken(hyper::Error),
    /// The deadline passed. `sent` says whether something may have been received.
    Deadline {
        /// Whether the request had been given to a connection.
        sent: bool,
    },
}

impl Failure {
    /// Returns the metric label.
    pub(super) fn reason(&self) -> UpstreamErrorReason {
        match self {
            Self::Connect(err) => err.reason(),
            Self::Unsent(_) => UpstreamErrorReason::ResetBeforeSend,
            Self::Broken(err) if err.is_parse() => UpstreamErrorReason::Protocol,
            Self::Broken(_) => UpstreamErrorReason::ResetAfterSend,
            Self::Deadline { sent: false } => UpstreamErrorReason::ConnectTimeout,
            Self::Deadline { sent: true } => UpstreamErrorReason::TryTimeout,
        }
    }
}

/// Sends a request to an endpoint and waits for the head of its answer until `deadline`.
///
/// A kept connection may turn out to be closed when the request is about to be written; then nothing was sent, and one
/// fresh connection is tried.
pub(super) async fn send(
    pool: &Pool<RequestBody>,
    outgoing: &Outgoing,
    bearer: &Bearer,
    deadline: Instant,
) -> Result<Response<Answer>, Failure> {
    let mut sent = false;
    let attempt = async {
        let mut lease = pool.lease().await.map_err(Failure::Connect)?;
        sent = true;
        let result = match lease.send(request(pool, outgoing, bearer)).await {
            Err(SendError { unsent: Some(request), .. }) if lease.is_reused() => {
                sent = false;
                lease = pool.connect().await.map_err(Failure::Connect)?;
                sent = true;
                lease.send(request).await
            }
            result => result,
        };
        let response: Response<Incoming> = result.map_err(|err| match err.unsent {
            Some(_) => Failure::Unsent(err.source),
            None => Failure::Broken(err.source),
        })?;
        Ok(response.map(|incoming| Answer::new(incoming, lease)))
    };
    let result = tokio::time::timeout_at(deadline.into(), attempt).await;
    result.unwrap_or(Err(Failure::Deadline { sent }))
}

fn request(pool: &Pool<RequestBody>, outgoing: &Outgoing, bearer: &Bearer) -> Request<RequestBody> {
    let mut request = Request::new(outgoing.body.rewound());
    *request.method_mut() = outgoing.method.clone();
    *request.uri_mut() = outgoing.uri.clone();
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = outgoing.headers.another();
    headers::to_upstream(request.headers_mut(), pool.endpoint(), bearer);
    request
}
