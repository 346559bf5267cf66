//! What concerns the whole gateway: the configuration, the idempotency store and the export of traces.

use super::html::Html;
use super::traffic::percent;
use super::verdict::sentence;
use crate::admin::Status;
use crate::admin::time::clock;
use crate::redact::one_line;

/// Writes what is wrong with the configuration unless the banner has all of it, and the state of the idempotency store.
pub(super) fn notices(html: &mut Html, status: &Status, now: u64) {
    let banner = banner(status);
    let is_shown = |text: &str| banner.contains(&one_line(text));
    if let Some(problem) = status.refused_reload.as_deref().filter(|problem| !problem.lines().all(is_shown)) {
        html.section("rejected", "Rejected configuration").raw("</div>");
        html.element("p", "The previous configuration is in force until the file is corrected.");
        html.raw("<pre tabindex=\"0\" role=\"region\" aria-label=\"Problems of the rejected configuration\">");
        html.text(problem).raw("</pre></section>");
    }
    if !status.refused_ca_files.iter().all(|problem| is_shown(problem)) {
        html.section("ca", "CA files that cannot be used").raw("</div>");
        html.element("p", "The CAs that were read before are in force:").raw("<ul class=\"plain\">");
        for problem in &status.refused_ca_files {
            html.element("li", problem);
        }
        html.raw("</ul></section>");
    }
    if !status.after_restart.iter().all(|key| is_shown(key)) {
        html.section("restart", "Settings that wait for a restart").raw("</div>");
        html.element(
            "p",
            "All other settings of the last configuration are in force. These change when the gateway starts:",
        );
        html.raw("<ul class=\"plain\">");
        for key in &status.after_restart {
            html.raw("<li>").element("code", key).raw("</li>");
        }
        html.raw("</ul></section>");
    }
    if let Some(store) = &status.idempotency_store {
        html.section("store", "Idempotency store").raw("<span class=\"pill ");
        html.raw(if store.state == "out" { "bad" } else { "good" }).raw("\">").text(store.state);
        if let Some(since) = store.since {
            html.raw(" since ").text(clock(since, now));
        }
        html.raw("</span></div>").element("p class=\"muted small\"", &store.address);
        for part in [store.problem.as_deref(), store.fix].into_iter().flatten().filter(|part| !is_shown(part)) {
            html.raw("<p>").prose(&sentence(part)).raw("</p>");
        }
        html.raw("</section>");
    }
}

/// Returns what the banner says, in one line.
fn banner(status: &Status) -> String {
    let details =
        status.verdict.problem.iter().flat_map(|problem| &problem.details).map(|detail| detail.value.as_str());
    let lines = status.verdict.lines.iter().map(String::as_str);
    one_line(&lines.chain(details).collect::<Vec<_>>().join("\n"))
}

/// Writes where traces are exported to, and with what result.
pub(super) fn traces(html: &mut Html, status: &Status, now: u64) {
    let Some(traces) = &status.tracing else { return };
    let class = match traces.state {
        "ok" => "good",
        "failing" => "bad",
        _ => "wait",
    };
    html.section("traces", "Traces");
    html.raw("<span class=\"pill ").raw(class).raw("\">").text(traces.state);
    if let Some(since) = traces.since {
        html.raw(" since ").text(clock(since, now));
    }
    html.raw("</span></div>").element("p class=\"muted small\"", &traces.collector);
    html.raw("<dl class=\"facts\">");
    html.fact("Share of the calls", percent(traces.sample));
    html.fact("Spans exported", traces.exported.to_string());
    html.fact("Spans lost", traces.dropped.to_string());
    html.fact("Failed exports", traces.failures.to_string());
    html.fact("Last export", traces.last_success.map_or_else(|| "–".to_owned(), |at| clock(at, now)));
    html.raw("</dl>");
    let banner = banner(status);
    let is_new = |text: &&str| !banner.contains(&one_line(text));
    if let (Some(problem), Some(at)) = (traces.problem.as_deref().filter(is_new), traces.last_failure) {
        html.raw("<p>").prose(&sentence(&format!("last failure {}: {problem}", clock(at, now)))).raw("</p>");
    }
    if let Some(fix) = traces.fix.filter(is_new) {
        html.raw("<p>").prose(&sentence(fix)).raw("</p>");
    }
    html.raw("</section>");
}

/// Writes links, and what the metrics leave out.
pub(super) fn footer(html: &mut Html, status: &Status) {
    html.raw(
        "<footer><span>All times are UTC.</span><a href=\"/status\">status as JSON</a><a href=\"/metrics\">metrics</a>",
    );
    let other: usize = status.metric_labels.values().map(|labels| labels.other).sum();
    if other > 0 {
        html.raw("<span>")
            .text(other)
            .raw(" names share the metric label <code>_other</code>, which has their figures</span>");
    }
    html.raw("</footer>");
}
