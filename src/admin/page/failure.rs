//! The failure of an endpoint or credential: the error, what is known, and what to do.

use super::html::Html;
use crate::admin::time::clock;
use crate::admin::{DetailView, FailureView};

/// How much of a failure an entry shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Open,
    /// What to do is closed, because it is over, or there are many.
    Closed,
    /// The banner shows it: all steps alone, closed.
    InBanner,
}

/// Writes a failure of what has this id and name.
pub(super) fn failure(html: &mut Html, (id, name): (&str, &str), failure: &FailureView, extent: Extent, now: u64) {
    html.raw("<div class=\"failure\" id=\"failure-").text(id).raw("\">");
    html.raw("<p><b>Last failure, ").text(clock(failure.at, now)).raw("</b> <code>").text(failure.kind);
    if let Some(status) = failure.status {
        html.raw(" ").text(status);
    }
    html.raw("</code>");
    if extent == Extent::InBanner {
        html.raw(" · cause, facts and commands are <a href=\"#verdict\">at the top of the page</a></p>");
    } else {
        html.raw(" · ").text(failure.explanation).raw("</p><p>").prose(&failure.error).raw("</p>");
        if !failure.details.is_empty() {
            html.raw("<dl class=\"details\">");
            details(html, &failure.details);
            html.raw("</dl>");
        }
    }
    html.raw("<details").raw(if extent == Extent::Open { " open" } else { "" }).raw("><summary>");
    html.raw(if extent == Extent::InBanner { "All steps" } else { "What to do" });
    html.raw("<span class=\"sr\"> about ").text(name).raw("</span></summary><ol>");
    for one in &failure.remediation {
        html.raw("<li>");
        action(html, &one.note, one.command.as_deref());
        html.raw("</li>");
    }
    html.raw("</ol>");
    let after = [failure.once_repaired.as_deref(), failure.delay];
    if after.iter().any(Option::is_some) && extent != Extent::InBanner {
        let after = after.into_iter().flatten().collect::<Vec<_>>().join("; ");
        html.raw("<p><span class=\"muted\">Once repaired</span> ").prose(&after).raw("</p>");
    }
    if let Some(runbook) = &failure.runbook {
        html.raw("<p><a rel=\"noreferrer\" href=\"").text(runbook).raw("\">Runbook<span class=\"sr\"> on ");
        html.text(failure.kind).raw("</span></a></p>");
    }
    html.raw("</details></div>");
}

/// Writes the rows of a description list.
pub(super) fn details(html: &mut Html, details: &[DetailView]) {
    for DetailView { name, value } in details {
        html.raw("<div>").element("dt", name).raw("<dd>");
        if value.contains(char::is_whitespace) {
            html.prose(value);
        } else {
            html.element("code", value);
        }
        html.raw("</dd></div>");
    }
}

/// Writes an action: what to do, and the command.
pub(super) fn action(html: &mut Html, note: &str, command: Option<&str>) {
    if !note.is_empty() {
        html.raw("<p>").prose(note).raw("</p>");
    }
    if let Some(command) = command {
        // The script shows the button.
        html.raw("<div class=\"command\"><code>");
        // Lines break between words, not within an id or before the second hyphen of an option.
        for part in command.split_inclusive(char::is_whitespace) {
            let word = part.trim_end();
            html.element("span", word).text(part.strip_prefix(word).unwrap_or_default());
        }
        html.raw("</code><button type=\"button\" class=\"copy\">Copy<span class=\"sr\"> command</span></button></div>");
    }
}
