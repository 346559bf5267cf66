//! The status as an HTML page, complete without a script. A small inline script requests it again every five seconds and takes over
//! what has changed. All values are escaped, and the content security policy allows no other script.

mod chart;
mod entries;
mod html;
mod sections;
mod tables;

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
    head(&mut html, status);
    html.raw("<main id=\"content\">");
    sections::verdict(&mut html, status, now);
    sections::notices(&mut html, status);
    sections::traffic(&mut html, status);
    entries::endpoints(&mut html, status, query, now);
    entries::credentials(&mut html, status, now);
    tables::routes(&mut html, status);
    tables::listeners(&mut html, status, now);
    sections::traces(&mut html, status, now);
    html.raw("</main>");
    sections::footer(&mut html, status);
    html.raw("<script>").raw(SCRIPT).raw("</script></body></html>\n");
    html.into_string()
}

fn head(html: &mut Html, status: &Status) {
    let (word, class) = sections::word(status.verdict.state);
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
    html.text(time::exact(time::now())).raw("</span><button type=\"button\" hidden>Pause</button></div></header>");
    html.raw("<p id=\"lost\" class=\"sr\" role=\"alert\"></p>");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::admin::figures::Figures;
    use crate::admin::{Counts, CredentialView, PageView, RouteView, TrafficView, VerdictView};

    #[test]
    fn external_text_is_escaped() {
        let status = Status {
            verdict: VerdictView { state: "broken", lines: vec!["<script>verdict".into()], problem: None },
            traffic: TrafficView::of(&Figures::default().recent(), true),
            version: "1",
            config_hash: "abcd".into(),
            after_restart: vec![],
            started: 0,
            ready: false,
            draining: false,
            listeners: vec![],
            refused_reload: None,
            max_connections: 1,
            lost_lines: 0,
            refused_ca_files: vec![],
            counts: Counts::default(),
            page: PageView { number: 1, of: 1, ..PageView::default() },
            metric_labels: BTreeMap::new(),
            idempotency_store: None,
            tracing: None,
            endpoints: vec![],
            disabled_endpoints: vec![],
            credentials: vec![CredentialView {
                name: "fabrikam".into(),
                tenant: None,
                state: "unavailable",
                since: None,
                token: None,
                acquired: None,
                expires: None,
                next_acquisition: None,
                last_success: None,
                failures: 1,
                failing_since: None,
                last_failure: None,
                last_error: Some("<script>alert('x')</script>".into()),
            }],
            routes: vec![RouteView {
                name: "a&b".into(),
                pick: "first",
                named_by: None,
                endpoints: vec!["east".into()],
                calls_per_second: 0.0,
                recent_calls: 0,
            }],
        };
        let query = Query::parse(Some("name=<script>"), true).unwrap();
        let page = render(&status, &query);
        assert_eq!(page.matches("<script>").count(), 1, "the page's own");
        assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)") && page.contains("a&amp;b"));
        assert!(!page.contains(" style=") && !page.contains(" onclick="), "the policy forbids them");
    }
}
