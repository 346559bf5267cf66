//! The figures and charts of all calls.

use super::chart::{self, Line};
use super::html::Html;
use crate::admin::{PointView, Status};

/// Writes the charts of all calls.
pub(super) fn traffic(html: &mut Html, status: &Status) {
    let traffic = &status.traffic;
    let (last, series) = (&traffic.last_minute, &traffic.series);
    html.section("traffic", "Traffic");
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
        for (value, text, key) in
            [(last.overhead_p50_ms, &median, "key\">p50"), (last.overhead_p99_ms, &high, "key second\">p99")]
        {
            if value.is_some() {
                html.element("b", text);
            }
            html.raw("<span class=\"").raw(key).raw("</span>");
        }
        html.raw("<span>overhead</span>");
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
}
