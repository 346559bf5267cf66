//! The status as an HTML page. It has no script and loads nothing; all values are escaped.

use std::fmt::Write;
use std::time::Duration;

use super::Status;
use super::query::Query;
use super::time::now;

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>signalr-gateway</title>
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<style>
:root { color-scheme: light dark; --line: color-mix(in srgb, CanvasText 15%, Canvas); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
code { font-size: .9em; } .bad { color: light-dark(#b00020, #ff8a80); font-weight: 600; }
.good { color: light-dark(#1b6e2f, #81c995); }
</style></head><body>
";

/// Renders the page.
pub(super) fn render(status: &Status, query: &Query) -> String {
    let mut page = Page(HEAD.to_owned());
    let (class, word) = match (status.draining, status.ready) {
        (true, _) => ("bad", "stopping"),
        (false, true) => ("good", "ready"),
        (false, false) => ("bad", "not ready: the first tokens have not been obtained"),
    };
    page.raw("<h1>signalr-gateway ").text(status.version).raw("</h1><p class=\"").raw(class).raw("\">").text(word);
    page.raw("</p><p>Configuration <code>").text(&status.config_hash).raw("</code>, up for ");
    page.text(&since(status.started))
        .raw(". See also <a href=\"/metrics\">/metrics</a> and <a href=\"/status\">/status</a>.</p>");

    if let Some(problem) = &status.refused_reload {
        page.raw("<p class=\"bad\">The last configuration was rejected; the previous one is in force:</p><pre>");
        page.text(problem).raw("</pre>");
    }
    for problem in &status.refused_ca_files {
        page.raw("<p class=\"bad\">A CA file cannot be used; the CAs that were read before are in force:</p><pre>");
        page.text(problem).raw("</pre>");
    }
    if !status.after_restart.is_empty() {
        page.raw("<p class=\"bad\">Takes effect only after a restart: ")
            .text(&status.after_restart.join(", "))
            .raw("</p>");
    }
    if let Some(store) = &status.idempotency_store {
        let class = if store.state == "out" { "bad" } else { "good" };
        page.raw("<p class=\"").raw(class).raw("\">Idempotency store <code>").text(&store.address).raw("</code>: ");
        page.text(store.state);
        for part in [store.problem.as_deref(), store.fix].into_iter().flatten() {
            page.raw("; ").text(part);
        }
        page.raw("</p>");
    }
    page.summary(status);
    page.search(status, query);
    page.table("Endpoints", &["name", "url", "credential", "tenant", "role", "state"]);
    for endpoint in &status.endpoints {
        let (class, state) = match endpoint.state {
            "ok" => ("good", "available"),
            "circuit_open" => ("bad", "circuit open"),
            _ => ("bad", "no token"),
        };
        page.row(&[
            &endpoint.name,
            &endpoint.url,
            &endpoint.credential,
            endpoint.tenant.as_deref().unwrap_or_default(),
            endpoint.role,
        ]);
        page.raw("<td class=\"").raw(class).raw("\">").text(state);
        if let Some(note) = endpoint.note {
            page.raw("; ").text(note);
        }
    }
    for endpoint in &status.disabled_endpoints {
        page.row(&[&endpoint.name, &endpoint.url, "", "", "", "disabled"]);
    }
    page.raw("</table>").table("Credentials", &["name", "tenant", "state", "token", "expires in", "last error"]);
    for credential in &status.credentials {
        let class = match credential.state {
            "ready" => "good",
            "unused" => "",
            _ => "bad",
        };
        page.raw("<tr><td>").text(&credential.name).raw("<td>").text(credential.tenant.as_deref().unwrap_or_default());
        page.raw("<td class=\"").raw(class).raw("\">").text(credential.state);
        page.raw("<td><code>").text(credential.token.as_deref().unwrap_or("none")).raw("</code><td>");
        page.text(&credential.expires.map(until).unwrap_or_default()).raw("<td>");
        page.text(credential.last_error.as_deref().unwrap_or_default());
    }
    page.raw("</table>").table("Routes, in the order in which they are matched", &["name", "pick", "endpoints"]);
    for route in &status.routes {
        let named_by = route.named_by.as_ref().map(|by| format!("named by {by}"));
        let endpoints = if route.endpoints.is_empty() { "any".to_owned() } else { route.endpoints.join(", ") };
        page.row(&[&route.name, named_by.as_deref().unwrap_or(route.pick), &endpoints]);
    }
    page.raw("</table>").table("Listeners", &["name", "address", "certificate expires in", "refused files"]);
    for listener in &status.listeners {
        let expires = listener.not_after.map(until).unwrap_or_default();
        page.row(&[&listener.name, &listener.address, &expires, listener.refused_files.as_deref().unwrap_or_default()]);
    }
    page.raw("</table></body></html>\n");
    page.0
}

struct Page(String);

impl Page {
    fn raw(&mut self, html: &str) -> &mut Self {
        self.0.push_str(html);
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        for character in text.chars() {
            match character {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other => self.0.push(other),
            }
        }
        self
    }

    /// Writes how many endpoints and credentials there are, and how many have a problem.
    fn summary(&mut self, status: &Status) {
        let kinds = [("endpoints", &status.counts.endpoints), ("credentials", &status.counts.credentials)];
        for (kind, counts) in kinds {
            let count = |name: &str| counts.get(name).copied().unwrap_or_default();
            let class = if count("broken") == 0 { "good" } else { "bad" };
            let _infallible = write!(
                self.0,
                "<p class=\"{class}\">{} {kind}, {} with a problem</p>",
                count("total"),
                count("broken")
            );
        }
        let other: usize = status.metric_labels.values().map(|labels| labels.other).sum();
        if other > 0 {
            let _infallible = write!(self.0, "<p>{other} names share the metric label <code>_other</code></p>");
        }
    }

    /// Writes the form of the query and the links to the pages before and after.
    fn search(&mut self, status: &Status, query: &Query) {
        self.raw("<form><input name=\"name\" placeholder=\"part of a name\" value=\"").text(&query.name);
        self.raw("\"> <select name=\"state\"><option value=\"\">any state");
        for state in Query::states() {
            let selected = if query.state.as_deref() == Some(state) { " selected" } else { "" };
            let _infallible = write!(self.0, "<option{selected}>{state}");
        }
        let page = &status.page;
        let _infallible = write!(self.0, "</select> <button>Search</button> page {} of {}", page.number, page.of);
        for (number, word) in [(page.number - 1, "previous"), (page.number + 1, "next")] {
            if (1..=page.of).contains(&number) {
                let mut link = form_urlencoded::Serializer::new(String::new());
                link.append_pair("page", &number.to_string()).append_pair("name", &query.name);
                link.append_pair("state", query.state.as_deref().unwrap_or_default());
                self.raw(" <a href=\"/?").text(&link.finish()).raw("\">").raw(word).raw("</a>");
            }
        }
        self.raw("</form>");
    }

    fn table(&mut self, title: &str, columns: &[&str]) {
        let _infallible = write!(self.0, "<h2>{title}</h2><table><tr>");
        for column in columns {
            self.raw("<th>").text(column);
        }
    }

    fn row(&mut self, cells: &[&str]) {
        self.raw("<tr>");
        for cell in cells {
            self.raw("<td>").text(cell);
        }
    }
}

fn since(unix: u64) -> String {
    format_seconds(now().saturating_sub(unix))
}

fn until(unix: u64) -> String {
    match unix.checked_sub(now()) {
        Some(left) => format_seconds(left),
        None => "expired".to_owned(),
    }
}

fn format_seconds(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::admin::{Counts, CredentialView, PageView, RouteView, VerdictView};

    #[test]
    fn external_text_is_escaped() {
        let status = Status {
            verdict: VerdictView { state: "broken", lines: vec![] },
            version: "1",
            config_hash: "abcd".into(),
            after_restart: vec![],
            started: 0,
            ready: false,
            draining: false,
            listeners: vec![],
            refused_reload: None,
            refused_ca_files: vec![],
            counts: Counts::default(),
            page: PageView { number: 1, of: 1, ..PageView::default() },
            metric_labels: BTreeMap::new(),
            idempotency_store: None,
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
            }],
        };
        let query = Query::parse(Some("name=<script>")).unwrap();
        let page = render(&status, &query);
        assert!(
            !page.contains("<script>") && page.contains("&lt;script&gt;alert(&#39;x&#39;)") && page.contains("a&amp;b")
        );
    }
}
