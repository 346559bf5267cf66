//! One stream: a request and its response. Rejects requests that HTTP/2 does not allow, and resets the stream when the
//! caller does not read the response.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use http_body::Body;
use tokio::time::Instant;

use super::super::body::Http2Body;
use super::super::handler::{Handler, Peer};
use super::super::open_connections::{Connection, MIN_PROGRESS};
use super::frames::FrameBudget;

/// Header fields that HTTP/2 does not allow (RFC 9113, section 8.2.2).
const CONNECTION_HEADERS: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The request of an accepted stream, and the handle for its response.
pub(in crate::serve) type Incoming = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves the request of a stream. Drops the handler's future or response body when the caller resets the stream or reads less than
/// [`MIN_PROGRESS`] within `write_timeout`.
pub(in crate::serve) async fn serve_stream(
    (request, mut respond): Incoming,
    handler: Rc<impl Handler>,
    peer: Rc<Peer>,
    connection: Rc<Connection>,
    budget: Rc<FrameBudget>,
    write_timeout: Duration,
) {
    let (head, stream) = request.into_parts();
    let Some(declared) = DeclaredLength::of(&head) else {
        tracing::debug!("a caller's HTTP/2 request is malformed; resetting its stream");
        return respond.send_reset(Reason::PROTOCOL_ERROR);
    };
    let mut body = Http2Body::new(stream, declared.content_length);
    // A request that declares no body but has one must not be forwarded.
    if body.verify_declared_empty().await.is_err() {
        return;
    }
    let _open = connection.count_request();
    let response = handler.handle(&peer, Request::from_parts(head, body.into()));
    let Some(response) = unless_reset(&mut respond, response).await else { return };
    if send(&mut respond, response, write_timeout).await.is_ok() {
        budget.record_response();
    }
}

/// The declared length of a request's body.
struct DeclaredLength {
    content_length: Option<u64>,
}

impl DeclaredLength {
    /// Reads the head of a request. Returns `None` for malformed heads that h2 accepts.
    fn of(head: &Parts) -> Option<Self> {
        let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
        let content_length = match lengths.next() {
            // h2 rejects anything but digits.
            Some(length) => Some(length.to_str().ok()?.parse().ok()?),
            None => None,
        };
        let is_well_formed = lengths.next().is_none() && names_one_host(&head.uri, &head.headers);
        is_well_formed.then_some(Self { content_length })
    }
}

/// Returns whether `:authority` and `Host` name one host, without user information (RFC 9113, section 8.3.1).
fn names_one_host(uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return false;
    }
    let (Some(authority), Some(host)) = (uri.authority(), host) else { return true };
    let default_port = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    Authority::try_from(host.as_bytes()).is_ok_and(|host| {
        host.host().eq_ignore_ascii_case(authority.host())
            && port(&host) == port(authority)
            && !host.as_str().contains('@')
    })
}

/// Waits for a response. Returns `None` if the caller resets the stream or the connection ends before.
async fn unless_reset<F: Future>(respond: &mut SendResponse<Bytes>, response: F) -> Option<F::Output> {
    let mut response = pin!(response);
    poll_fn(|cx| match response.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => respond.poll_reset(cx).map(|_reset| None),
    })
    .await
}

/// The error of a response that was not sent completely: one side reset the stream, or the connection ended.
struct Unfinished;

impl From<h2::Error> for Unfinished {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

/// Sends a response to its end.
async fn send<B: Body<Data = Bytes>>(
    respond: &mut SendResponse<Bytes>,
    response: Response<B>,
    write_timeout: Duration,
) -> Result<(), Unfinished> {
    let (mut head, body) = response.into_parts();
    for name in &CONNECTION_HEADERS {
        head.headers.remove(name);
    }
    if !head.headers.contains_key(DATE)
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        head.headers.insert(DATE, date);
    }
    let is_end = body.is_end_stream();
    if !is_end && let Some(length) = body.size_hint().exact() {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    let mut stream = respond.send_response(Response::from_parts(head, ()), is_end)?;
    if is_end {
        return Ok(());
    }
    let mut body = pin!(body);
    loop {
        let frame = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending => stream.poll_reset(cx).map(|_reset| Err(Unfinished)),
        });
        let data = match frame.await? {
            Some(Ok(frame)) => match frame.into_data() {
                // An endpoint may send an empty frame before others (RFC 9113, section 6.1).
                Ok(data) if data.is_empty() && !body.is_end_stream() => continue,
                Ok(data) => Some(data),
                // Trailers are dropped.
                Err(_trailers) => None,
            },
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Err(Unfinished);
            }
            None => None,
        };
        let is_last = data.is_none() || body.is_end_stream();
        send_data(&mut stream, data.unwrap_or_default(), is_last, write_timeout).await?;
        if is_last {
            return Ok(());
        }
    }
}

/// Sends a part of a body as the caller's window allows.
async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    is_last: bool,
    write_timeout: Duration,
) -> Result<(), Unfinished> {
    if data.is_empty() {
        return Ok(stream.send_data(data, is_last)?);
    }
    while !data.is_empty() {
        let mut block = data.split_to(data.len().min(MIN_PROGRESS));
        // One deadline for the whole block: a caller that reads single bytes makes no progress.
        let mut deadline = None;
        while !block.is_empty() {
            stream.reserve_capacity(block.len());
            if stream.capacity() == 0 {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + write_timeout);
                let capacity = tokio::time::timeout_at(deadline, poll_fn(|cx| poll_capacity(stream, cx))).await;
                let Ok(capacity) = capacity else {
                    tracing::debug!("a caller does not read its response; resetting the stream");
                    stream.send_reset(Reason::CANCEL);
                    return Err(Unfinished);
                };
                capacity?;
            }
            let sent = block.split_to(block.len().min(stream.capacity()));
            stream.send_data(sent, is_last && block.is_empty() && data.is_empty())?;
        }
    }
    Ok(())
}

/// Waits until some of the reserved capacity is available.
fn poll_capacity(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), Unfinished>> {
    if stream.poll_reset(cx).is_ready() {
        return Poll::Ready(Err(Unfinished));
    }
    match ready!(stream.poll_capacity(cx)) {
        Some(capacity) => Poll::Ready(Ok(capacity.map(drop)?)),
        None => Poll::Ready(Err(Unfinished)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_name_several_hosts_are_malformed() {
        let names_one = |uri: &str, hosts: &[&str]| {
            let hosts = hosts.iter().map(|host| (HOST, HeaderValue::from_str(host).unwrap()));
            names_one_host(&uri.parse().unwrap(), &hosts.collect())
        };
        for (uri, host) in [("http://a/", "a"), ("http://a:80/", "A"), ("https://a:443/", "a"), ("http://a:8/", "a:8")]
        {
            assert!(names_one(uri, &[]) && names_one(uri, &[host]), "{uri} {host}");
            assert!(!names_one(uri, &[host, host]), "two fields");
        }
        assert!(names_one("/path", &["a"]), "without :authority");
        for (uri, host) in [
            ("http://a/", "b"),
            ("http://a/", "a:8"),
            ("https://a/", "a:80"),
            ("http://a/", ""),
            ("http://a/", "x@a"),
            ("http://x@a/", "a"),
            ("http://a/", "a, b"),
        ] {
            assert!(!names_one(uri, &[host]), "{uri} {host}");
        }
        assert!(!names_one("http://x@a/", &[]));
    }
}
