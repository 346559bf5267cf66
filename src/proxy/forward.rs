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
    /// The size of the head as the caller sent it.
    pub(super) head_bytes: usize,
}

/// Headers that may be sent more than once. The first attempt gets them as hyper read them. For further attempts they are
/// kept as text, which is cheapest to make, since nearly all requests need no other attempt.
pub(super) struct Headers {
    read: Cell<Option<HeaderMap>>,
    /// Name, line feed, value, line feed; neither can have one inside.
    kept: Vec<u8>,
}

/// Room for the headers that callers usually send.
const USUAL_HEADERS: usize = 512;

impl Headers {
    pub(super) fn new(headers: HeaderMap) -> Self {
        let mut kept = Vec::with_capacity(USUAL_HEADERS);
        for (name, value) in &headers {
            for text in [name.as_str().as_bytes(), value.as_bytes()] {
                kept.extend_from_slice(text);
                kept.push(b'\n');
            }
        }
        Self { read: Cell::new(Some(headers)), kept }
    }

    /// Returns the headers for one more attempt.
    fn another(&self) -> HeaderMap {
        self.read.take().unwrap_or_else(|| self.lines().collect())
    }

    fn lines(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let mut texts = self.kept.split(|byte| *byte == b'\n');
        std::iter::from_fn(move || {
            let (name, value) = (texts.next()?, texts.next()?);
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        })
    }
}

impl Clone for Headers {
    fn clone(&self) -> Self {
        Self { read: Cell::new(None), kept: self.kept.clone() }
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lines().map(|(name, _)| name)).finish()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_gets_the_same_headers() {
        let lines = [("host", "h"), ("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "10.0.0.2"), ("x-empty", "")];
        let line = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let mut headers: HeaderMap = lines.into_iter().map(line).collect();
        headers.insert("x-latin1", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 2);
        let kept = Headers::new(headers.clone());
        for attempt in [kept.another(), kept.another(), kept.clone().another()] {
            assert_eq!(attempt, headers);
        }
    }
}
