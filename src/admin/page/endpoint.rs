//! The entry of an endpoint.

use super::chart::{self, Line};
use super::failure::{self, Extent};
use super::html::Html;
use super::traffic::{figure, milliseconds, number, percent};
use crate::admin::time::clock;
use crate::admin::{EndpointStatus, Status, TimesView};

/// Returns the class and the words of an endpoint's state.
pub(super) fn state(endpoint: &EndpointStatus) -> (&'static str, &'static str) {
    match endpoint.state {
        "ok" => ("good", "available"),
        "circuit_open" => ("bad", "circuit open"),
        "unauthorized" => ("bad", "refuses the token"),
        _ => ("bad", "no token"),
    }
}

/// Whether an endpoint needs an operator, although it accepts calls.
pub(super) fn needs_attention(endpoint: &EndpointStatus) -> bool {
    endpoint.access_key_refused.is_some() || endpoint.canary.as_ref().is_some_and(|canary| canary.state == "failing")
}

/// Writes the calls of the last minute in a few words.
pub(super) fn summary(html: &mut Html, endpoint: &EndpointStatus) {
    let Some(calls) = &endpoint.last_minute else { return };
    html.raw("<span class=\"muted small end\">").text(number(calls.calls_per_second)).raw(" calls per second");
    if calls.share_failed > 0.0 {
        html.raw(", ").text(percent(calls.share_failed)).raw(" failed");
    }
    if let Some(high) = calls.p99_ms {
        html.raw(", p99 ").text(milliseconds(Some(high)));
    }
    html.raw("</span>");
}

/// Writes what is known about an endpoint, without its name and state.
pub(super) fn body(html: &mut Html, endpoint: &EndpointStatus, status: &Status, extent: Extent, now: u64) {
    facts(html, endpoint, status, now);
    times(html, endpoint);
    // Without a token, the cause is the credential's.
    if let Some(failure) = &endpoint.last_failure {
        let is_current = !matches!(endpoint.state, "ok" | "no_token");
        let extent = if is_current { extent } else { Extent::Closed };
        failure::failure(html, (&format!("endpoint-{}", endpoint.name), &endpoint.name), failure, extent, now);
    }
    if let Some(refused) = &endpoint.access_key_refused {
        let id = format!("access-key-{}", endpoint.name);
        failure::failure(html, (&id, &endpoint.name), refused, Extent::Open, now);
    }
    if let Some(canary) = endpoint.canary.as_ref().filter(|canary| canary.state == "failing") {
        html.raw("<div class=\"failure\"><p><b>The canary fails</b>");
        for part in [canary.stage, canary.problem.as_deref(), canary.fix].into_iter().flatten() {
            html.raw(" · ").prose(part);
        }
        html.raw("</p></div>");
    }
}

fn facts(html: &mut Html, endpoint: &EndpointStatus, status: &Status, now: u64) {
    html.raw("<dl class=\"facts\">").fact("Credential", &endpoint.credential);
    if let Some(tenant) = &endpoint.tenant {
        html.fact("Tenant", tenant);
    }
    // Without a secondary endpoint, `primary` says nothing, and reads like a role in Azure.
    if status.endpoints.iter().any(|other| other.role == "secondary") {
        html.fact("Used as", endpoint.role);
    }
    if let Some(proxy) = &endpoint.proxy {
        html.fact("Through the proxy", proxy);
    }
    if let Some(calls) = &endpoint.last_minute {
        let rate = number(calls.calls_per_second);
        let failed =
            if calls.share_failed > 0.0 { format!(", {} failed", percent(calls.share_failed)) } else { String::new() };
        html.fact("Calls in the last minute", format_args!("{rate} per second{failed}"));
    } else {
        let why = match endpoint.state {
            "circuit_open" => "none forwarded: its circuit is open",
            "no_token" => "none forwarded: its credential has no valid token",
            _ => "none",
        };
        html.fact("Calls in the last minute", if is_called(endpoint, status) { why } else { "none" });
    }
    if let Some(until) = endpoint.cool_down_until {
        html.fact("Asked for a pause", format_args!("until {}", clock(until, now)));
    }
    html.raw("<div>").element("dt", "Last probe").raw("<dd>");
    if let Some(probe) = &endpoint.last_probe {
        html.text(if probe.ok { "ok" } else { "failed" }).raw(", ").text(clock(probe.at, now));
        html.raw(", ").text(probe.took_ms).raw("&nbsp;ms");
        if let Some(why) = why_ok(endpoint, probe.at).filter(|_| probe.ok) {
            html.raw("<br><span class=\"muted small\">").prose(why).raw("</span>");
        }
    } else {
        html.raw("none yet");
    }
    html.raw("</dd></div>");
    if let Some(canary) = &endpoint.canary {
        match (canary.state, canary.last) {
            ("ok", Some(last)) => {
                let took = milliseconds(canary.delivery_ms);
                html.fact("Canary", format_args!("arrived, {}, {took}", clock(last, now)));
            }
            ("failing", Some(_)) => {
                html.fact("Canary", format_args!("fails since {}", clock(canary.since.unwrap_or(now), now)));
            }
            _ => _ = html.fact("Canary", "none sent yet"),
        }
    }
    html.raw("</dl>");
}

/// Returns why the probe at this time succeeded although calls fail.
fn why_ok(endpoint: &EndpointStatus, at: u64) -> Option<&'static str> {
    match endpoint.state {
        "ok" => None,
        "circuit_open" if at < endpoint.since => Some("before the first failure"),
        "circuit_open" if endpoint.last_failure.as_ref().is_some_and(|failure| failure.status.is_some()) => {
            Some("it asks `/api/health`, which responds although hub calls fail")
        }
        "circuit_open" => Some("it asks `/api/health` only"),
        _ => Some("it asks `/api/health`, which needs no token"),
    }
}

/// Whether a route of the endpoint had calls in the last minute.
pub(super) fn is_called(endpoint: &EndpointStatus, status: &Status) -> bool {
    let leads_here = |endpoints: &[String]| endpoints.is_empty() || endpoints.contains(&endpoint.name);
    if status.routes.len() < status.counts.routes {
        return status.traffic.last_minute.calls_per_second > 0.0;
    }
    status.routes.iter().any(|route| route.calls_per_second > 0.0 && leads_here(&route.endpoints))
}

/// Writes the chart of response times, if there were responses.
fn times(html: &mut Html, endpoint: &EndpointStatus) {
    let line = |class, value: fn(&TimesView) -> Option<f64>| Line {
        class,
        values: endpoint.series.iter().map(value).collect(),
    };
    let lines = [line("first", |point| point.p50_ms), line("second", |point| point.p99_ms)];
    if chart::largest(&lines) <= 0.0 {
        return;
    }
    let calls = endpoint.last_minute.as_ref();
    let (median, high) = (calls.and_then(|calls| calls.p50_ms), calls.and_then(|calls| calls.p99_ms));
    let last = match (median, high) {
        (None, None) => "no response in the last minute".to_owned(),
        _ => format!("in the last minute p50 {}, p99 {}", milliseconds(median), milliseconds(high)),
    };
    let shown = |value: Option<f64>| value.map(|value| milliseconds(Some(value))).unwrap_or_default();
    let (median, high) = (shown(median), shown(high));
    let caption = |html: &mut Html| {
        html.raw("<span class=\"key\">p50 ").text(&median).raw("</span><span class=\"key second\">p99 ").text(&high);
        html.raw("</span><span>to the response</span>");
    };
    let name = &endpoint.name;
    let label = format!("response times of {name} over the last ten minutes; {last}");
    figure(html, (&format!("times-{name}"), &label), &lines, None, &|value| milliseconds(Some(value)), caption);
}
