//! The verdict, the traffic, and what else concerns the whole gateway.

use super::chart::{self, Line};
use super::html::Html;
use crate::admin::time::{clock, lasting};
use crate::admin::{PointView, Status};

/// Returns the word for a state of the verdict, and its class.
pub(super) fn word(state: &str) -> (&'static str, &'static str) {
    match state {
        "healthy" => ("Healthy", "good"),
        "broken" => ("Broken", "bad"),
        "attention" => ("Needs attention", "wait"),
        "stopping" => ("Stopping", "wait"),
        _ => ("Starting", "wait"),
    }
}

/// Writes the verdict, and apart from it whether this process takes calls.
pub(super) fn verdict(html: &mut Html, status: &Status, now: u64) {
    let verdict = &status.verdict;
    html.raw("<section class=\"verdict ").raw(verdict.state).raw("\" aria-labelledby=\"verdict-title\">");
    html.raw("<div role=\"status\" aria-live=\"polite\"><h2 id=\"verdict-title\">").text(word(verdict.state).0);
    html.raw("</h2>");
    for line in &verdict.lines {
        html.raw("<p>").prose(&sentence(line)).raw("</p>");
    }
    html.raw("</div><dl class=\"facts\">");
    let ready = match (status.draining, status.ready) {
        (true, _) => "stopping, takes no new calls",
        (false, true) => "ready, takes calls",
        (false, false) => "not ready, waits for a token",
    };
    html.fact("This process", ready);
    for (name, counts) in [("Endpoints", &status.counts.endpoints), ("Credentials", &status.counts.credentials)] {
        let count = |name: &str| counts.get(name).copied().unwrap_or_default();
        html.fact(
            name,
            match (count("total") - count("disabled"), count("broken")) {
                (total, 0) => format!("{total}, none broken"),
                (total, broken) => format!("{broken} of {total} with a problem"),
            },
        );
    }
    html.fact("Running for", lasting(now.saturating_sub(status.started)));
    html.fact("Version", status.version);
    html.raw("<div>").element("dt", "Configuration in force").raw("<dd>").element("code", &status.config_hash);
    html.raw("</dd></div></dl></section>");
}

/// Returns a line as a sentence.
fn sentence(line: &str) -> String {
    let mut characters = line.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if line.ends_with(['.', '!', '?', '…']) { "" } else { "." };
    format!("{first}{}{end}", characters.as_str())
}

/// Writes what is wrong with the configuration, and the states of the idempotency store and of the export of traces.
pub(super) fn notices(html: &mut Html, status: &Status) {
    if let Some(problem) = &status.refused_reload {
        html.raw("<section aria-labelledby=\"rejected-title\"><h2 id=\"rejected-title\">Rejected configuration</h2>");
        html.element(
            "p",
            "The last configuration was rejected. The previous one is in force until the file is corrected.",
        );
        html.raw("<pre tabindex=\"0\" role=\"region\" aria-label=\"Problems of the rejected configuration\">")
            .text(problem)
            .raw("</pre></section>");
    }
    if !status.refused_ca_files.is_empty() {
        html.raw("<section aria-labelledby=\"ca-title\"><h2 id=\"ca-title\">CA files that cannot be used</h2>");
        html.element("p", "The CAs that were read before are in force:").raw("<ul class=\"plain\">");
        for problem in &status.refused_ca_files {
            html.element("li", problem);
        }
        html.raw("</ul></section>");
    }
    if !status.after_restart.is_empty() {
        html.raw(
            "<section aria-labelledby=\"restart-title\"><h2 id=\"restart-title\">Settings that wait for a restart</h2>",
        );
        html.element(
            "p",
            "The last configuration is in force, but for these keys, which change only when the gateway starts:",
        )
        .raw("<ul class=\"plain\">");
        for key in &status.after_restart {
            html.raw("<li>").element("code", key).raw("</li>");
        }
        html.raw("</ul></section>");
    }
    if let Some(store) = &status.idempotency_store {
        let class = if store.state == "out" { "bad" } else { "good" };
        html.raw("<section aria-labelledby=\"store-title\"><div class=\"titled\"><h2 id=\"store-title\">Idempotency store</h2>");
        html.raw("<span class=\"pill ").raw(class).raw("\">").text(store.state);
        if let Some(since) = store.since {
            html.raw(" since ").text(clock(since, crate::admin::time::now()));
        }
        html.raw("</span></div>").element("p class=\"muted small\"", &store.address);
        for part in [store.problem.as_deref(), store.fix].into_iter().flatten() {
            html.raw("<p>").prose(&sentence(part)).raw("</p>");
        }
        html.raw("</section>");
    }
}

/// Writes where traces are exported to, and with what result.
pub(super) fn traces(html: &mut Html, status: &Status, now: u64) {
    let Some(traces) = &status.tracing else { return };
    let class = match traces.state {
        "ok" => "good",
        "failing" => "bad",
        _ => "wait",
    };
    html.raw("<section aria-labelledby=\"traces-title\"><div class=\"titled\"><h2 id=\"traces-title\">Traces</h2>");
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
    if let (Some(problem), Some(at)) = (&traces.problem, traces.last_failure) {
        html.raw("<p>").prose(&sentence(&format!("last failure {}: {problem}", clock(at, now)))).raw("</p>");
    }
    if let Some(fix) = traces.fix {
        html.raw("<p>").prose(&sentence(fix)).raw("</p>");
    }
    html.raw("</section>");
}

/// Writes the charts of all calls.
pub(super) fn traffic(html: &mut Html, status: &Status) {
    let traffic = &status.traffic;
    let (last, series) = (&traffic.last_minute, &traffic.series);
    html.raw("<section aria-labelledby=\"traffic-title\"><div class=\"titled\"><h2 id=\"traffic-title\">Traffic</h2>");
    html.raw("<span class=\"muted small end\">figures of the last minute, charts of the last ten</span></div><div class=\"charts\">");
    let line = |class, value: fn(&PointView) -> Option<f64>| Line { class, values: series.iter().map(value).collect() };

    let calls = [line("first", |point| Some(point.calls_per_second))];
    let shown = number(last.calls_per_second);
    let caption = |html: &mut Html| _ = html.element("b", &shown).raw("<span>calls per second</span>");
    let label = format!("calls per second over the last ten minutes, {shown} in the last minute");
    figure(html, ("calls", &label), &calls, None, &number, caption);

    let shares = [
        line("second", |point| (point.calls_per_second > 0.0).then_some(point.share_4xx)),
        line("error", |point| (point.calls_per_second > 0.0).then_some(point.share_5xx)),
    ];
    let (client, server) = (percent(last.share_4xx), percent(last.share_5xx));
    let caption = |html: &mut Html| {
        html.element("b", &server).raw("<span class=\"key error\">5xx</span>");
        html.element("b", &client).raw("<span class=\"key second\">4xx</span>");
    };
    let label = format!(
        "share of responses with an error over the last ten minutes; in the last minute {server} 5xx, {client} 4xx"
    );
    figure(html, ("errors", &label), &shares, Some(0.01), &percent, caption);

    let overhead = [line("first", |point| point.overhead_p50_ms), line("second", |point| point.overhead_p99_ms)];
    let (median, high) = (milliseconds(last.overhead_p50_ms), milliseconds(last.overhead_p99_ms));
    let caption = |html: &mut Html| {
        html.element("b", &median).raw("<span class=\"key\">p50</span>");
        html.element("b", &high).raw("<span class=\"key second\">p99</span><span>added by the gateway</span>");
    };
    let label =
        format!("time that the gateway adds over the last ten minutes; in the last minute p50 {median}, p99 {high}");
    figure(html, ("overhead", &label), &overhead, None, &|value| milliseconds(Some(value)), caption);
    html.raw("</div></section>");
}

/// Writes a chart with its id, its caption and the value at its top, which is at least `least`.
pub(super) fn figure(
    html: &mut Html,
    (id, label): (&str, &str),
    lines: &[Line<'_>],
    least: Option<f64>,
    format: &dyn Fn(f64) -> String,
    caption: impl FnOnce(&mut Html),
) {
    let top = chart::largest(lines).max(least.unwrap_or(0.0));
    html.raw("<figure id=\"").text(id).raw("\"><figcaption>");
    caption(html);
    html.raw("</figcaption>");
    chart::lines(html, label, lines, top);
    html.raw("<div class=\"axis\" aria-hidden=\"true\"><span>−10 min</span><span>");
    if top > 0.0 {
        html.raw("top ").text(format(top));
    }
    html.raw("</span><span>now</span></div></figure>");
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

/// Formats a number with as many digits as a reader needs.
pub(super) fn number(value: f64) -> String {
    match value {
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// Formats a share.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", number(share * 100.0))
}

/// Formats a time; `–` if there is none.
pub(super) fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{} ms", number(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_digits_as_a_reader_needs() {
        for (value, text) in [(0.0, "0"), (0.034, "0.03"), (1.23, "1.2"), (43.7, "44")] {
            assert_eq!(number(value), text);
        }
        assert_eq!((percent(0.256), milliseconds(None)), ("26 %".to_owned(), "–".to_owned()));
    }

    #[test]
    fn lines_are_shown_as_sentences() {
        assert_eq!(sentence("do this: wait"), "Do this: wait.");
    }
}
