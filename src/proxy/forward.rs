//! One attempt at one endpoint under one deadline. Decides nothing about what comes after it.

use std::cell::Cell;
use std::fmt;
use std::time::Instant;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use hyper::body::Incoming;

use super::body::{Answer, RequestBody};
use super::deadline::Deadlines;
use super::headers;
use crate::credential::Bearer;
use crate::endpoint::{ConnectError, Endpoint, Lease, Pool, SendError};
use crate::metrics::UpstreamErrorReason;

/// A request that is ready to go to any endpoint: stripped, not yet addressed. The first attempt gets the head as hyper
/// read it. For further attempts the headers are kept as text, which is cheapest to make, since nearly all requests need
/// no other attempt.
pub(super) struct Outgoing {
    pub(super) method: Method,
    /// In origin form: path and query as the caller sent them.
    pub(super) uri: Uri,
    pub(super) body: RequestBody,
    /// The size of the head as the caller sent it, in bytes.
    pub(super) head_bytes: usize,
    read: Cell<Option<Parts>>,
    /// Name, line feed, value, line feed; neither can have one inside.
    kept: Vec<u8>,
}

impl Outgoing {
    /// Makes a request of a head that was stripped of what stays here.
    pub(super) fn new(mut head: Parts, uri: Uri, body: RequestBody, head_bytes: usize) -> Self {
        head.version = Version::HTTP_11;
        head.extensions.clear();
        let kept = text(&head.headers);
        Self { method: head.method.clone(), uri, body, head_bytes, read: Cell::new(Some(head)), kept }
    }

    /// Returns the same request with another body. The first one made has the head as it was read.
    pub(super) fn with_body(&self, body: RequestBody) -> Self {
        Self { body, read: Cell::new(self.read.take()), ..self.clone() }
    }

    /// Returns the `Host` that the caller asked for.
    pub(super) fn host(&self) -> Option<HeaderValue> {
        self.lines().find(|(name, _)| *name == HOST).map(|(_, value)| value)
    }

    /// Returns the request for one more attempt, with the endpoint's own bearer and in no other way.
    fn address(&self, endpoint: &Endpoint, bearer: &Bearer) -> Request<RequestBody> {
        let mut head = self.read.take().unwrap_or_else(|| self.another());
        head.uri = self.uri.clone();
        headers::to_upstream(&mut head.headers, endpoint, bearer);
        Request::from_parts(head, self.body.rewound())
    }

    fn another(&self) -> Parts {
        let mut head = Request::new(()).into_parts().0;
        head.method = self.method.clone();
        head.headers = self.lines().collect();
        head
    }

    fn lines(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let mut texts = self.kept.split(|byte| *byte == b'\n');
        std::iter::from_fn(move || {
            let (name, value) = (texts.next()?, texts.next()?);
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        })
    }
}

/// Room for the headers that callers usually send.
const USUAL_HEADERS: usize = 512;

/// Writes headers down.
fn text(headers: &HeaderMap) -> Vec<u8> {
    let mut text = Vec::with_capacity(USUAL_HEADERS);
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), value.as_bytes()] {
            text.extend_from_slice(part);
            text.push(b'\n');
        }
    }
    text
}

impl Clone for Outgoing {
    fn clone(&self) -> Self {
        Self {
            method: self.method.clone(),
            uri: self.uri.clone(),
            body: self.body.clone(),
            head_bytes: self.head_bytes,
            read: Cell::new(None),
            kept: self.kept.clone(),
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("method", &self.method).finish_non_exhaustive()
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
    deadlines: &Deadlines,
    deadline: Instant,
) -> Result<Response<Answer>, Failure> {
    let mut sent = false;
    let attempt = async {
        let mut lease = pool.lease().await.map_err(Failure::Connect)?;
        sent = true;
        let once_more = match lease.send(outgoing.address(pool.endpoint(), bearer)).await {
            Ok(response) => return Ok(answer(response, lease)),
            // In a box, since it is rare: every request's future would have room for it.
            Err(SendError { unsent: Some(request), .. }) if lease.is_reused() => {
                Box::pin(send_over_a_fresh_connection(pool, request, &mut sent))
            }
            Err(err) => return Err(err.into()),
        };
        once_more.await
    };
    let result = deadlines.until(deadline, attempt).await;
    result.unwrap_or(Err(Failure::Deadline { sent }))
}

async fn send_over_a_fresh_connection(
    pool: &Pool<RequestBody>,
    request: Request<RequestBody>,
    sent: &mut bool,
) -> Result<Response<Answer>, Failure> {
    *sent = false;
    let mut lease = pool.connect().await.map_err(Failure::Connect)?;
    *sent = true;
    let response = lease.send(request).await?;
    Ok(answer(response, lease))
}

fn answer(response: Response<Incoming>, lease: Lease<RequestBody>) -> Response<Answer> {
    response.map(|incoming| Answer::new(incoming, lease))
}

impl From<SendError<RequestBody>> for Failure {
    fn from(err: SendError<RequestBody>) -> Self {
        match err.unsent {
            Some(_) => Self::Unsent(err.source),
            None => Self::Broken(err.source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_gets_the_same_headers() {
        let lines =
            [("host", "gateway"), ("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "10.0.0.2"), ("x-empty", "")];
        let line = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut shared: HeaderMap = lines.into_iter().map(line).collect();
        shared.insert("x-latin1", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        assert_eq!(shared.get_all("x-forwarded-for").iter().count(), 2);

        let uri = Uri::from_static("/api/hubs/h/:send");
        let mut head = Request::post(uri.clone()).body(()).unwrap().into_parts().0;
        head.headers = shared.clone();
        let outgoing = Outgoing::new(head, uri, RequestBody::nothing(), 0);
        for again in [outgoing.another(), outgoing.clone().another()] {
            assert_eq!(again.headers, shared);
            assert_eq!(again.method, Method::POST);
        }
        assert_eq!(outgoing.host().unwrap(), "gateway");
    }
}
