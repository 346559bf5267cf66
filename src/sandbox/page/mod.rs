//! The page that a person watches, as files in this program. Serves them and nothing else.

use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};

use super::server::exchange::Reply;

pub(super) mod relay;

/// Scripts, styles and connections of its own origin, sockets among them; nothing from elsewhere, no text that
/// becomes code, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const FILES: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page.js")),
];

/// The file at a path, if there is one.
pub(super) fn file(path: &str) -> Option<Reply> {
    let (_, content_type, content) = FILES.iter().find(|(name, _, _)| *name == path)?;
    let reply = Reply::typed(StatusCode::OK, content_type, content.as_bytes());
    let reply = reply.header(CONTENT_SECURITY_POLICY, POLICY).header(X_CONTENT_TYPE_OPTIONS, "nosniff");
    // It is of one version with the program that serves it, and the next one may have the same port.
    Some(reply.header(CACHE_CONTROL, "no-store").header(REFERRER_POLICY, "no-referrer"))
}
