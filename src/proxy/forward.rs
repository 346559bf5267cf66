//! One attempt at one endpoint under one deadline. Decides nothing about what comes after it.

use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;

use super::body::{Answer, RequestBody};
use super::headers;
use crate::credential::Bearer;
use crate::endpoint::{ConnectError, Pool};
use crate::metrics::UpstreamErrorReason;

/// A request that is ready to go to any endpoint: stripped, not yet addressed.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    /// In origin form: path and query as the caller sent them.
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: RequestBody,
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

/// Sends a request to an endpoint and waits for the head of its answer, `time` at most.
///
/// A kept connection may turn out to be closed when the request is about to be written; then nothing was sent, and one
/// fresh connection is tried.
pub(super) async fn send(
    pool: &Pool<RequestBody>,
    outgoing: &Outgoing,
    bearer: &Bearer,
    time: Duration,
) -> Result<Response<Answer>, Failure> {
    let deadline = tokio::time::Instant::from_std(Instant::now() + time);
    let mut sent = false;
    let attempt = async {
        let mut lease = pool.lease().await.map_err(Failure::Connect)?;
        let is_reused = lease.is_reused();
        sent = true;
        let mut result = lease.send(request(pool, outgoing, bearer)).await;
        if let Err(err) = &result
            && err.unsent.is_some()
            && is_reused
        {
            sent = false;
            lease = pool.connect().await.map_err(Failure::Connect)?;
            sent = true;
            result = lease.send(request(pool, outgoing, bearer)).await;
        }
        let response: Response<Incoming> = result.map_err(|err| match err.unsent {
            Some(_) => Failure::Unsent(err.source),
            None => Failure::Broken(err.source),
        })?;
        Ok(response.map(|incoming| Answer::new(incoming, lease)))
    };
    let result = tokio::time::timeout_at(deadline, attempt).await;
    result.unwrap_or(Err(Failure::Deadline { sent }))
}

fn request(pool: &Pool<RequestBody>, outgoing: &Outgoing, bearer: &Bearer) -> Request<RequestBody> {
    let mut request = Request::new(outgoing.body.rewound());
    *request.method_mut() = outgoing.method.clone();
    *request.uri_mut() = outgoing.uri.clone();
    *request.version_mut() = Version::HTTP_11;
    let mut headers = outgoing.headers.clone();
    headers::to_upstream(&mut headers, pool.endpoint(), bearer);
    *request.headers_mut() = headers;
    request
}
