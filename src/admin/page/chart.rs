//! Charts as inline SVG: lines over the last ten minutes, and the life of a token.

use std::fmt::Write;

use super::html::Html;
use crate::admin::CredentialView;
use crate::admin::figures::POINTS;

/// The size of a chart's coordinates. The page stretches it.
const WIDTH: usize = 300;
const HEIGHT: f64 = 60.0;
/// What stays free at both sides, so that the latest point is seen.
const MARGIN: usize = 3;

/// One line of a chart. It has a gap where there is no value.
pub(super) struct Line<'a> {
    /// The class of the line, which gives it its look.
    pub(super) class: &'a str,
    pub(super) values: Vec<Option<f64>>,
}

/// Writes a chart whose top is `top`.
pub(super) fn lines(html: &mut Html, label: &str, lines: &[Line<'_>], top: f64) {
    html.raw("<svg class=\"chart\" role=\"img\" aria-label=\"").text(label);
    html.raw("\" viewBox=\"0 0 300 62\" preserveAspectRatio=\"none\"><path class=\"base\" d=\"M0 61H300\"/>");
    for line in lines {
        html.raw("<path class=\"").raw(line.class).raw("\" d=\"").raw(&path(&line.values, top)).raw("\"/>");
    }
    html.raw("</svg>");
}

/// Returns the largest value of the lines.
pub(super) fn largest(lines: &[Line<'_>]) -> f64 {
    lines.iter().flat_map(|line| line.values.iter().flatten()).fold(0.0, |largest, value| value.max(largest))
}

/// Returns the path of a line whose last point is at the right edge.
fn path(values: &[Option<f64>], top: f64) -> String {
    let mut path = String::new();
    let mut is_drawing = false;
    let first = POINTS.saturating_sub(values.len());
    for (index, value) in values.iter().enumerate() {
        let Some(value) = value else {
            is_drawing = false;
            continue;
        };
        let x = MARGIN + (first + index) * (WIDTH - 2 * MARGIN) / (POINTS - 1);
        let y = HEIGHT - if top > 0.0 { (value / top).min(1.0) * (HEIGHT - 2.0) } else { 0.0 };
        let command = if is_drawing { 'L' } else { 'M' };
        // Writing to a string cannot fail. A point without neighbours is a short line.
        let _infallible = write!(path, "{command}{x} {y:.0}");
        if !is_drawing {
            path.push_str("h1");
        }
        is_drawing = true;
    }
    path
}

/// Writes the life of a token from its acquisition to its expiry: now, the renewal and failures. The page lists the same times.
pub(super) fn token(html: &mut Html, credential: &CredentialView, now: u64) {
    let (Some(acquired), Some(expires)) = (credential.acquired, credential.expires) else { return };
    let whole = expires.saturating_sub(acquired).max(1);
    let percent = |at: u64| (at.saturating_sub(acquired).min(whole) * 1000 / whole).to_string();
    let place = |at: u64| {
        let percent = percent(at);
        let (whole, tenth) = percent.split_at(percent.len() - 1);
        format!("{}.{tenth}%", if whole.is_empty() { "0" } else { whole })
    };
    html.raw(
        "<svg class=\"life\" aria-hidden=\"true\"><rect class=\"left\" y=\"8\" width=\"100%\" height=\"8\" rx=\"4\"/>",
    );
    html.raw("<rect class=\"used\" y=\"8\" width=\"").raw(&place(now)).raw("\" height=\"8\" rx=\"4\"/>");
    let mut mark = |class: &str, at: Option<u64>| {
        if let Some(at) = at.filter(|at| (acquired..=expires).contains(at)) {
            let at = place(at);
            html.raw("<line class=\"")
                .raw(class)
                .raw("\" x1=\"")
                .raw(&at)
                .raw("\" x2=\"")
                .raw(&at)
                .raw("\" y1=\"3\" y2=\"21\"/>");
        }
    };
    mark("next", credential.next_acquisition);
    if credential.failures > 0 {
        mark("failed", credential.failing_since);
        mark("failed", credential.last_failure.as_ref().map(|failure| failure.at));
    }
    html.raw("</svg>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_the_right_edge_and_have_gaps() {
        assert_eq!(path(&[Some(1.0), Some(2.0), None, Some(0.0)], 2.0), "M282 31h1L287 2M297 60h1");
        assert_eq!(path(&[], 1.0), "");
    }
}
