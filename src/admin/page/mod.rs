//! The status as an HTML page, complete without a script. A small inline script requests it again every five seconds and takes over
//! what has changed. All values are escaped, and the content security policy allows no other script.

mod chart;
mod credential;
mod endpoint;
mod entries;
mod failure;
mod html;
mod notices;
mod tables;
mod target;
mod traffic;
mod verdict;

use std::sync::LazyLock;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::query::Query;
use super::{Status, time};
use html::Html;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The content security policy: this style, this script, and connections to this origin.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(digest::digest(&digest::SHA256, text.as_bytes()));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    // Base64 is valid in a header.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// Returns the content security policy of the page.
pub(super) fn policy() -> HeaderValue {
    POLICY.clone()
}

/// Renders the page.
pub(super) fn render(status: &Status, query: &Query) -> String {
    let now = time::now();
    let mut html = Html::default();
    head(&mut html, status, now);
    html.raw("<main id=\"content\">");
    verdict::verdict(&mut html, status);
    verdict::process(&mut html, status, now);
    entries::problems(&mut html, status, now);
    notices::notices(&mut html, status, now);
    traffic::traffic(&mut html, status);
    entries::endpoints(&mut html, status, query, now);
    entries::credentials(&mut html, status, now);
    tables::routes(&mut html, status);
    tables::listeners(&mut html, status, now);
    notices::traces(&mut html, status, now);
    html.raw("</main>");
    notices::footer(&mut html, status);
    html.raw("<script>").raw(SCRIPT).raw("</script></body></html>\n");
    html.into_string()
}

fn head(html: &mut Html, status: &Status, now: u64) {
    let (word, class) = verdict::word(status.verdict.state);
    let color = match class {
        "good" => "%231a7f46",
        "bad" => "%23c62828",
        _ => "%23b27300",
    };
    html.raw("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>");
    html.text(word).raw(" · signalr-gateway</title><link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='7' fill='");
    html.raw(color).raw("'/%3E%3C/svg%3E\"><style>").raw(STYLE).raw("</style></head><body>");
    html.raw("<a class=\"skip\" href=\"#content\">Skip to the verdict</a>");
    html.raw("<header><h1>signalr-gateway <span>status</span></h1><div class=\"live\"><span>as of ");
    html.text(time::clock(now, now)).raw("</span><button type=\"button\" hidden>Pause</button></div></header>");
    html.raw("<p id=\"lost\" class=\"sr\" role=\"alert\"></p><p id=\"said\" class=\"sr\" aria-live=\"polite\"></p>");
}

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
