//! One attempt at one endpoint under one deadline. Decides nothing about what comes after it.

use std::time::{Duration, Instant};

use http::header::ACCEPT_ENCODING;
use http::uri::PathAndQuery;
use http::{HeaderValue, Response, Uri};

use super::body::{Answer, RequestBody};
use super::deadline::Deadlines;
use super::exchange::Exchange;
use super::{CallHead, headers};
use crate::credential::Bearer;
use crate::endpoint::{BrokenOff, ConnectError, EachLine, Endpoint, Lease, Pool, RequestHead, SendError, Sending};
use crate::metrics::UpstreamErrorReason;
use crate::signalr::Operation;

/// A request that is ready to go to any endpoint, any number of times.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) operation: Operation,
    /// The caller's, or another that takes its place.
    pub(super) uri: &'a Uri,
    pub(super) body: &'a RequestBody,
    /// Whether the answer's body is edited here, so that it must not be encoded.
    pub(super) is_edited: bool,
    /// Its books. The head is there, too.
    pub(super) exchange: &'a Exchange,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(operation: Operation, body: &'a RequestBody, exchange: &'a Exchange) -> Self {
        Self { operation, uri: &exchange.head().uri, body, is_edited: false, exchange }
    }

    pub(super) fn head(&self) -> &'a CallHead {
        self.exchange.head()
    }

    /// Puts it on a connection to an endpoint, with that endpoint's own bearer and in no other way.
    fn send_over(&self, lease: Lease<RequestBody>, endpoint: &Endpoint, bearer: &Bearer) -> Sending<RequestBody> {
        let target = self.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let head = self.head();
        let lines = |line: &mut EachLine<'_>| {
            if self.is_edited {
                headers::to_upstream(head, endpoint.host(), bearer, &mut |name, value| {
                    if *name != ACCEPT_ENCODING {
                        line(name, value);
                    }
                });
                line(&ACCEPT_ENCODING, &HeaderValue::from_static("identity"));
            } else {
                headers::to_upstream(head, endpoint.host(), bearer, line);
            }
        };
        let head = RequestHead { method: &head.method, target, lines: &lines, unwanted: headers::is_unwanted };
        lease.send(&head, self.body.rewound())
    }
}

/// Why an attempt got no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// There was no connection. Nothing was sent.
    Connect(ConnectError),
    /// The connection ended before the request was written to it, or the endpoint states that it did not process the
    /// request. Nothing was done.
    Unsent(BrokenOff),
    /// The connection ended, or what came back was not HTTP. Something may have been received.
    Broken(BrokenOff),
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
            Self::Broken(err) if err.is_unreadable() => UpstreamErrorReason::Protocol,
            Self::Broken(_) => UpstreamErrorReason::ResetAfterSend,
            Self::Deadline { sent: false } => UpstreamErrorReason::ConnectTimeout,
            Self::Deadline { sent: true } => UpstreamErrorReason::TryTimeout,
        }
    }
}

/// Sends a request to an endpoint and waits for the head of its answer, for `time` from `now` at most.
///
/// A kept connection may turn out to be closed when the request is about to be written, or the endpoint may refuse to
/// process more requests on it; then nothing was done, and one fresh connection is tried.
pub(super) async fn send(
    pool: &Pool<RequestBody>,
    outgoing: &Outgoing<'_>,
    bearer: &Bearer,
    deadlines: &Deadlines,
    now: Instant,
    time: Duration,
) -> Result<Response<Answer>, Failure> {
    let mut sent = false;
    let attempt = async {
        let lease = pool.lease(now).await.map_err(Failure::Connect)?;
        let reused = lease.is_reused();
        sent = true;
        let once_more = match outgoing.send_over(lease, pool.endpoint(), bearer).await {
            Ok(response) => return Ok(response.map(Answer::new)),
            // In a box, since it is rare: every request's future would have room for it.
            Err(err) if err.is_safe_to_repeat() && reused && outgoing.body.failure().is_none() => {
                Box::pin(send_over_a_fresh_connection(pool, outgoing, bearer, &mut sent))
            }
            Err(err) => return Err(err.into()),
        };
        once_more.await
    };
    let result = deadlines.until(now + time, attempt).await;
    result.unwrap_or(Err(Failure::Deadline { sent }))
}

async fn send_over_a_fresh_connection(
    pool: &Pool<RequestBody>,
    outgoing: &Outgoing<'_>,
    bearer: &Bearer,
    sent: &mut bool,
) -> Result<Response<Answer>, Failure> {
    *sent = false;
    let lease = pool.connect().await.map_err(Failure::Connect)?;
    *sent = true;
    let response = outgoing.send_over(lease, pool.endpoint(), bearer).await?;
    Ok(response.map(Answer::new))
}

impl From<SendError> for Failure {
    fn from(err: SendError) -> Self {
        if err.is_safe_to_repeat() { Self::Unsent(err.source) } else { Self::Broken(err.source) }
    }
}
