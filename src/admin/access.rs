//! Which requests the admin listener refuses: those without a needed certificate, those of browser pages, and those for other hosts.

use bytes::Bytes;
use http::header::{ALLOW, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;

use super::response::text;
use crate::serve::{is_allowed_host, page_header};

/// What the client of a connection may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything.
    Full,
    /// Only whether the gateway lives and is ready: it has no certificate, and the listener asks for one.
    Probes,
}

/// Returns the response to a request that is not served.
pub(super) fn refuse<B>(
    request: &Request<B>,
    access: Access,
    allowed_hosts: &[String],
) -> Option<Response<Full<Bytes>>> {
    if access == Access::Probes && !is_probe(request) {
        let line = "this needs a client certificate; without one the admin listener answers only /livez and /readyz\n";
        return Some(text(StatusCode::FORBIDDEN, line));
    }
    if let Err(rejection) = admit(request, allowed_hosts) {
        return Some(*rejection);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "the admin listener only accepts GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(response);
    }
    None
}

/// Rejects requests of browser pages and for hosts that are not allowed.
fn admit<B>(request: &Request<B>, allowed_hosts: &[String]) -> Result<(), Box<Response<Full<Bytes>>>> {
    let reject = |status, line: &str| Err(Box::new(text(status, line)));
    if let Some(header) = page_header(request.headers()).filter(|_| !is_followed_link(request.headers())) {
        return reject(
            StatusCode::FORBIDDEN,
            &format!("requests from browser pages ({header}) are not accepted; open the address directly\n"),
        );
    }
    if is_probe(request) {
        return Ok(());
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    let named = match (request.uri().authority(), hosts.next(), hosts.next()) {
        (_, _, Some(_)) | (None, None, None) => None,
        // The host in the request line takes precedence (RFC 9112 section 3.2.2).
        (Some(authority), _, None) => Some(authority.as_str()),
        (None, Some(host), None) => host.to_str().ok(),
    };
    match named {
        None => reject(StatusCode::BAD_REQUEST, "the request has no Host header or more than one\n"),
        Some(host) if is_allowed_host(host, allowed_hosts) => Ok(()),
        Some(_) => reject(
            StatusCode::FORBIDDEN,
            "this Host is not allowed; use the IP address of the admin listener, or add the name to `admin.allowed_hosts`\n",
        ),
    }
}

/// Returns whether a request is for what is not confidential.
fn is_probe<B>(request: &Request<B>) -> bool {
    matches!(request.uri().path(), "/livez" | "/readyz")
}

/// Returns whether the request is a navigation from a link on another page of this host, such as the sandbox's. That page
/// cannot read the response.
fn is_followed_link(headers: &HeaderMap) -> bool {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
    !headers.contains_key(ORIGIN)
        && is("sec-fetch-site", "same-site")
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
}
