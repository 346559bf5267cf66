//! The web page of the control listener: a SignalR client of each endpoint, and a form that sends calls through the gateway.
//! The program embeds the page's files.
//!
//! Source of the protocols in `page.js`: TransportProtocols.md and HubProtocol.md of ASP.NET Core.

use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

use super::server::exchange::Reply;

pub(super) mod relay;

/// The content security policy. It allows scripts, styles and connections of the page's own origin, and no inline code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const FILES: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page.js")),
];

/// Returns the file at a path, if there is one.
pub(super) fn file(path: &str) -> Option<Reply> {
    let (_, content_type, content) = FILES.iter().find(|(name, _, _)| *name == path)?;
    let reply = Reply::with_content_type(StatusCode::OK, content_type, content.as_bytes());
    let reply = reply.header(CONTENT_SECURITY_POLICY, POLICY).header(X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Another version of the program may use the same port later.
    Some(reply.header(CACHE_CONTROL, "no-store").header(REFERRER_POLICY, "no-referrer"))
}
