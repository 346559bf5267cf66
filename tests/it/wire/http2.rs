//! Sends the cases of the corpus over HTTP/2: paths, hosts, headers and bodies. Cases about lines and framing have no
//! counterpart there.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::corpus::{Case, Outcome};
use crate::support::with_timeout;

/// Headers that HTTP/2 forbids (RFC 9113 section 8.2.2), or that frame the body.
const HTTP1_HEADERS: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "expect",
];

/// Returns the request of a case, if HTTP/2 can express it.
pub(super) fn request(case: &Case) -> Option<Request<Full<Bytes>>> {
    let is_about_size = case.name.starts_with("6585") || case.name.ends_with("33 letters");
    if case.outcomes.len() != 1 || is_about_size {
        return None;
    }
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(end) = head.parse(&case.bytes).ok()? else { return None };
    let text = std::str::from_utf8(&case.bytes[..end]).ok()?;
    let has_plain_lines = text.matches('\n').count() == text.matches("\r\n").count() && !text.starts_with('\r');
    let target = head.path?;
    if !has_plain_lines || head.version != Some(1) || !target.starts_with('/') || head.method == Some("CONNECT") {
        return None;
    }
    let mut hosts = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let host = std::str::from_utf8(hosts.next()?.value).ok()?;
    if hosts.next().is_some() {
        return None;
    }
    let mut request = Request::builder().method(head.method?).uri(format!("http://{host}{target}"));
    let mut lengths = 0;
    for header in head.headers.iter().filter(|header| !header.name.eq_ignore_ascii_case("host")) {
        if HTTP1_HEADERS.iter().any(|name| header.name.eq_ignore_ascii_case(name)) {
            return None;
        }
        lengths += usize::from(header.name.eq_ignore_ascii_case("content-length"));
        request = request.header(header.name, header.value);
    }
    let body = Bytes::copy_from_slice(&case.bytes[end..]);
    let declared = request.headers_ref()?.get("content-length").map(|length| length.to_str().map(str::parse));
    let is_framed = declared.is_none_or(|declared| declared.is_ok_and(|length| length == Ok(body.len())));
    let request = request.body(Full::new(body)).ok()?;
    let is_whole = request.uri().path_and_query()?.as_str() == target;
    (is_framed && is_whole && lengths <= 1).then_some(request)
}

/// Sends a case and checks the response. Returns what is wrong.
pub(super) async fn run(
    case: &Case,
    request: Request<Full<Bytes>>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<(), String> {
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|err| err.to_string())?;
    // Ends with the sender.
    tokio::spawn(connection);
    let is_rejected = matches!(case.outcomes.first(), Some(Outcome::Rejected { .. }));
    let response = match with_timeout(&case.name, sender.send_request(request)).await {
        Ok(response) => response,
        // A request that is malformed in HTTP/2 itself resets the stream.
        Err(_reset) if is_rejected => return Ok(()),
        Err(err) => return Err(err.to_string()),
    };
    let (status, kind) = match case.outcomes.first() {
        Some(Outcome::Forwarded { .. }) => (202, None),
        Some(Outcome::Rejected { status, kind }) => (*status, Some(kind.as_str())),
        other => return Err(format!("no outcome of HTTP/2: {other:?}")),
    };
    let found = response.headers().get("signalr-gateway-error").map(|kind| kind.to_str().unwrap());
    let is_expected = response.status() == status && found == kind && response.headers().contains_key("x-request-id");
    let head = format!("{:?} {:?}", response.status(), response.headers());
    drop(with_timeout(&case.name, response.into_body().collect()).await);
    if is_expected { Ok(()) } else { Err(format!("an unexpected response: {head}")) }
}
