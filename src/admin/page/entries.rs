//! The endpoints and credentials, those with problems first.

use super::chart::{self, Line};
use super::html::Html;
use super::sections::{figure, milliseconds, number, percent};
use crate::admin::query::Query;
use crate::admin::time::{clock, exact, lasting};
use crate::admin::{CredentialView, EndpointStatus, FailureView, Status, TimesView};

/// Writes the endpoints, and the form that filters all lists.
pub(super) fn endpoints(html: &mut Html, status: &Status, query: &Query, now: u64) {
    html.raw(
        "<section aria-labelledby=\"endpoints-title\"><div class=\"titled\"><h2 id=\"endpoints-title\">Endpoints</h2>",
    );
    shown(html, status.endpoints.len(), status.page.endpoints);
    filter(html, query);
    html.raw("</div>");
    pages(html, status, query);
    html.raw("<ul class=\"entries\">");
    for endpoint in &status.endpoints {
        let class = if endpoint.state == "ok" { "" } else { " class=\"broken\"" };
        html.raw("<li").raw(class).raw(" id=\"endpoint-").text(&endpoint.name).raw("\">");
        self::endpoint(html, endpoint, now);
        html.raw("</li>");
    }
    for endpoint in &status.disabled_endpoints {
        html.raw("<li id=\"endpoint-")
            .text(&endpoint.name)
            .raw("\"><div class=\"titled\">")
            .element("h3", &endpoint.name);
        html.raw("<span class=\"pill\">disabled</span></div>")
            .element("p class=\"muted small\"", &endpoint.url)
            .raw("</li>");
    }
    html.raw("</ul></section>");
}

/// Writes the credentials.
pub(super) fn credentials(html: &mut Html, status: &Status, now: u64) {
    html.raw("<section aria-labelledby=\"credentials-title\"><div class=\"titled\"><h2 id=\"credentials-title\">Credentials</h2>");
    shown(html, status.credentials.len(), status.page.credentials);
    html.raw("</div><ul class=\"entries\">");
    for credential in &status.credentials {
        let is_broken = matches!(credential.state, "unavailable" | "stale");
        html.raw(if is_broken { "<li class=\"broken\" id=\"credential-" } else { "<li id=\"credential-" });
        html.text(&credential.name).raw("-").text(credential.tenant.as_deref().unwrap_or_default()).raw("\">");
        self::credential(html, credential, now);
        html.raw("</li>");
    }
    html.raw("</ul></section>");
}

fn endpoint(html: &mut Html, endpoint: &EndpointStatus, now: u64) {
    let (class, state) = match endpoint.state {
        "ok" => ("good", "available"),
        "circuit_open" => ("bad", "circuit open"),
        "unauthorized" => ("bad", "refuses the token"),
        _ => ("bad", "no token"),
    };
    html.raw("<div class=\"titled\">").element("h3", &endpoint.name);
    html.raw("<span class=\"pill ").raw(class).raw("\">").text(state).raw(" since ").text(clock(endpoint.since, now));
    html.raw("</span></div><p class=\"muted small\">").text(&endpoint.url).raw("</p><dl class=\"facts\">");
    html.fact("Credential", &endpoint.credential);
    if let Some(tenant) = &endpoint.tenant {
        html.fact("Tenant", tenant);
    }
    html.fact("Role", endpoint.role);
    if let Some(proxy) = &endpoint.proxy {
        html.fact("Through the proxy", proxy);
    }
    if let Some(probe) = &endpoint.last_probe {
        let outcome = if probe.ok { "ok" } else { "failed" };
        html.fact("Last probe", format_args!("{outcome}, {}, {} ms", exact(probe.at), probe.took_ms));
    } else {
        html.fact("Last probe", "none yet");
    }
    if let Some(until) = endpoint.cool_down_until {
        html.fact("Asked for a pause", format_args!("until {}", exact(until)));
    }
    if let Some(calls) = &endpoint.last_minute {
        html.fact("Calls in the last minute", format_args!("{} per second", number(calls.calls_per_second)));
        html.fact("Failed", percent(calls.share_failed));
    } else {
        html.fact("Calls in the last minute", "none");
    }
    html.raw("</dl>");
    let line = |class, value: fn(&TimesView) -> Option<f64>| Line {
        class,
        values: endpoint.series.iter().map(value).collect(),
    };
    let lines = [line("first", |point| point.p50_ms), line("second", |point| point.p99_ms)];
    if chart::largest(&lines) > 0.0 {
        let calls = endpoint.last_minute.as_ref();
        let median = milliseconds(calls.and_then(|calls| calls.p50_ms));
        let high = milliseconds(calls.and_then(|calls| calls.p99_ms));
        let caption = |html: &mut Html| {
            html.raw("<span class=\"key\">p50 ")
                .text(&median)
                .raw("</span><span class=\"key second\">p99 ")
                .text(&high);
            html.raw("</span><span>to the response</span>");
        };
        let name = &endpoint.name;
        let label =
            format!("response times of {name} over the last ten minutes; in the last minute p50 {median}, p99 {high}");
        figure(html, (&format!("times-{name}"), &label), &lines, None, &|value| milliseconds(Some(value)), caption);
    }
    // Without a token, the cause is the credential's.
    if let Some(failure) = &endpoint.last_failure {
        self::failure(
            html,
            ("endpoint", &endpoint.name),
            failure,
            endpoint.state != "ok" && endpoint.state != "no_token",
            now,
        );
    }
    if endpoint.state == "no_token" {
        html.raw("<p class=\"small\">Its credential has no valid token: see <a href=\"#credentials-title\">");
        html.text(&endpoint.credential).raw("</a>.</p>");
    }
    if let Some(refused) = &endpoint.access_key_refused {
        self::failure(html, ("access-key", &endpoint.name), refused, true, now);
    }
}

fn credential(html: &mut Html, credential: &CredentialView, now: u64) {
    let (class, state) = match credential.state {
        "ready" => ("good", "ready"),
        "stale" => ("wait", "cannot be renewed"),
        "unavailable" => ("bad", "no valid token"),
        other => ("", other),
    };
    html.raw("<div class=\"titled\">")
        .element("h3", &credential.name)
        .raw("<span class=\"pill ")
        .raw(class)
        .raw("\">")
        .text(state);
    if let Some(since) = credential.since {
        html.raw(" since ").text(clock(since, now));
    }
    html.raw("</span></div>");
    if let Some(tenant) = &credential.tenant {
        html.element("p class=\"muted small\"", tenant);
    }
    chart::token(html, credential, now);
    html.raw("<dl class=\"facts\">");
    html.raw("<div>").element("dt", "Token").raw("<dd>").element("code", credential.token.as_deref().unwrap_or("none"));
    html.raw("</dd></div>");
    if let Some(acquired) = credential.acquired {
        html.fact("Acquired", exact(acquired));
    }
    if let Some(next) = credential.next_acquisition {
        let left = lasting(next.saturating_sub(now));
        html.fact(
            if credential.failures == 0 { "Renews" } else { "Next try" },
            format_args!("{}, in {left}", exact(next)),
        );
    }
    if let Some(expires) = credential.expires {
        let left = lasting(expires.saturating_sub(now));
        html.fact("Expires", format_args!("{}, in {left}", exact(expires)));
    }
    if let Some(since) = credential.failing_since {
        html.fact("Failures", format_args!("{} since {}", credential.failures, clock(since, now)));
    } else if credential.acquired.is_some() {
        html.fact("Failures", "none");
    }
    html.raw("</dl>");
    let id = format!("{}-{}", credential.name, credential.tenant.as_deref().unwrap_or_default());
    match (&credential.last_failure, &credential.last_error) {
        (Some(failure), _) => self::failure(html, ("credential", &id), failure, credential.failures > 0, now),
        (None, Some(error)) => _ = html.element("p class=\"failure\"", error),
        (None, None) => {}
    }
}

/// Writes a failure of what has this kind and name. What to do is open if it is a problem now.
fn failure(html: &mut Html, (of, name): (&str, &str), failure: &FailureView, is_current: bool, now: u64) {
    html.raw("<div class=\"failure\" id=\"failure-")
        .text(of)
        .raw("-")
        .text(name)
        .raw("\"><h4>Last failure, ")
        .text(clock(failure.at, now));
    html.raw("</h4>").raw("<p>").prose(&failure.error).raw("</p>");
    html.raw("<p class=\"muted\">").text(failure.explanation).raw(" · <code>").text(failure.kind);
    if let Some(status) = failure.status {
        html.raw(" ").text(status);
    }
    html.raw("</code></p><details").raw(if is_current { " open" } else { "" }).raw("><summary>What to do");
    html.raw("<span class=\"sr\"> about ").text(name).raw("</span></summary><ol>");
    for action in &failure.remediation {
        html.raw("<li>").prose(&action.note);
        if let Some(command) = &action.command {
            html.element("code class=\"command\"", command);
        }
        html.raw("</li>");
    }
    html.raw("</ol>");
    if let Some(delay) = failure.delay {
        html.element("p class=\"muted\"", delay);
    }
    if let Some(runbook) = &failure.runbook {
        html.raw("<p><a rel=\"noreferrer\" href=\"").text(runbook).raw("\">Runbook<span class=\"sr\"> on ");
        html.text(failure.kind).raw("</span></a></p>");
    }
    html.raw("</details></div>");
}

fn shown(html: &mut Html, shown: usize, of: usize) {
    if shown < of {
        html.raw("<span class=\"muted small\">").text(shown).raw(" of ").text(of).raw(", problems first</span>");
    }
}

/// Writes the form that filters the lists.
fn filter(html: &mut Html, query: &Query) {
    html.raw("<form class=\"filter\" role=\"search\" aria-label=\"Filter endpoints, credentials and routes\"><label>Part of a name<input name=\"name\" value=\"");
    html.text(&query.name).raw("\" autocomplete=\"off\" spellcheck=\"false\"></label><label>State<select name=\"state\"><option value=\"\">any</option>");
    for state in Query::states() {
        let selected = if query.state.as_deref() == Some(state) { " selected" } else { "" };
        html.raw("<option value=\"")
            .raw(state)
            .raw("\"")
            .raw(selected)
            .raw(">")
            .text(state.replace('_', " "))
            .raw("</option>");
    }
    html.raw("</select></label><button>Filter</button></form>");
}

/// Writes the links to the pages before and after.
fn pages(html: &mut Html, status: &Status, query: &Query) {
    let page = &status.page;
    if page.of < 2 {
        return;
    }
    html.raw("<nav aria-label=\"Pages\"><span>Page ").text(page.number).raw(" of ").text(page.of).raw("</span>");
    for (number, word) in [(page.number - 1, "previous"), (page.number + 1, "next")] {
        if (1..=page.of).contains(&number) {
            let mut link = form_urlencoded::Serializer::new(String::new());
            link.append_pair("page", &number.to_string()).append_pair("name", &query.name);
            link.append_pair("state", query.state.as_deref().unwrap_or_default());
            html.raw("<a href=\"/?").text(link.finish()).raw("\">").raw(word).raw("</a>");
        }
    }
    html.raw("</nav>");
}
