//! The banner: the verdict, what is known about the first problem, and apart from both whether this process takes calls.

use super::failure;
use super::html::Html;
use super::target::Target;
use crate::admin::time::lasting;
use crate::admin::{ProblemView, Status};

/// How the verdict begins the line that says what to do.
const ACTION: &str = "do this: ";

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

/// Writes the verdict.
pub(super) fn verdict(html: &mut Html, status: &Status) {
    let verdict = &status.verdict;
    let (word, class) = word(verdict.state);
    html.raw("<section id=\"verdict\" class=\"verdict ").raw(class).raw("\" aria-labelledby=\"verdict-title\">");
    // Announced when it changes. What is known changes with each attempt, so it is not part of this.
    html.raw("<div class=\"lines\" role=\"status\" aria-live=\"polite\"><h2 id=\"verdict-title\">");
    html.text(word).raw("</h2>");
    for line in &verdict.lines {
        match line.strip_prefix(ACTION) {
            Some(action) => _ = html.raw("<p class=\"action\"><b>Do this:</b> ").prose(&ended(action)).raw("</p>"),
            None => _ = html.raw("<p>").prose(&sentence(line)).raw("</p>"),
        }
    }
    html.raw("</div>");
    if let Some(problem) = &verdict.problem {
        self::problem(html, status, problem);
    }
    html.raw("</section>");
}

/// Writes what is known about a problem.
fn problem(html: &mut Html, status: &Status, problem: &ProblemView) {
    let ProblemView { details, commands, callers_get, once_repaired, runbook, .. } = problem;
    html.raw("<div class=\"known\">");
    if !details.is_empty() {
        html.raw("<dl class=\"details\">");
        failure::details(html, details);
        html.raw("</dl>");
    }
    if !commands.is_empty() {
        html.raw("<div class=\"commands\">");
        for command in commands {
            let is_said = status.verdict.lines.iter().any(|line| line.strip_prefix(ACTION) == Some(&command.note));
            let note = if is_said { "" } else { &command.note };
            failure::action(html, note, command.command.as_deref());
        }
        html.raw("</div>");
    }
    if callers_get.is_some() || once_repaired.is_some() {
        html.raw("<dl class=\"details effects\">");
        for (name, text) in [("Callers get", callers_get), ("Once repaired", once_repaired)] {
            if let Some(text) = text {
                html.raw("<div>").element("dt", name).raw("<dd>").prose(text).raw("</dd></div>");
            }
        }
        html.raw("</dl>");
    }
    let target = Target::of(status);
    if target.is_some() || runbook.is_some() {
        html.raw("<p class=\"links\">");
        if let Some(target) = target {
            html.raw("<a href=\"").text(target.href(status)).raw("\">").text(target.title()).raw(" on this page</a>");
        }
        if let Some(runbook) = runbook {
            html.raw("<a rel=\"noreferrer\" href=\"").text(runbook).raw("\">Runbook: ");
            html.text(runbook.rsplit_once('#').map_or(runbook.as_str(), |(_, section)| section)).raw("</a>");
        }
        html.raw("</p>");
    }
    html.raw("</div>");
}

/// Writes whether this process takes calls, and what runs, in a line.
pub(super) fn process(html: &mut Html, status: &Status, now: u64) {
    let ready = match (status.draining, status.ready) {
        (true, _) => "stopping, takes no new calls",
        (false, true) => "ready, takes calls",
        (false, false) => "not ready, waits for a token",
    };
    html.raw("<dl class=\"process\">").fact("This process", ready);
    for (name, counts) in [("Endpoints", &status.counts.endpoints), ("Credentials", &status.counts.credentials)] {
        let count = |name: &str| counts.get(name).copied().unwrap_or_default();
        let total = count("total") - count("disabled");
        match count("broken") {
            0 => html.fact(name, total),
            broken => html.fact(name, format_args!("{broken} of {total} with a problem")),
        };
    }
    html.fact("Running for", lasting(now.saturating_sub(status.started))).fact("Version", status.version);
    html.raw("<div>").element("dt", "Configuration").raw("<dd>").element("code", &status.config_hash);
    html.raw("</dd></div></dl>");
}

/// Returns a line as a sentence.
pub(super) fn sentence(line: &str) -> String {
    let mut characters = line.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    ended(&format!("{first}{}", characters.as_str()))
}

/// Returns a line with the full stop of a sentence.
fn ended(line: &str) -> String {
    let end = if line.ends_with(['.', '!', '?', '…']) { "" } else { "." };
    format!("{line}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_shown_as_sentences() {
        assert_eq!(sentence("do this: wait"), "Do this: wait.");
    }
}
