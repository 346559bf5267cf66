//! The lists of endpoints and credentials: those with a problem first, in a section of their own.

use super::failure::Extent;
use super::html::Html;
use super::target::{Target, credential_id, endpoint_id};
use super::{credential, endpoint};
use crate::admin::query::Query;
use crate::admin::time::clock;
use crate::admin::{CredentialView, EndpointStatus, FailureView, Status};

/// With more cards of problems than this, what to do is closed in all of them.
const MAX_OPEN: usize = 3;

/// Writes the endpoints and credentials with a problem, those whose credential has no token last, in a line each.
pub(super) fn problems(html: &mut Html, status: &Status, now: u64) {
    let credentials: Vec<_> = status.credentials.iter().filter(|credential| is_problem(credential)).collect();
    let (waiting, endpoints): (Vec<_>, Vec<_>) =
        status.endpoints.iter().filter(|endpoint| has_problem(endpoint)).partition(|one| one.state == "no_token");
    if credentials.is_empty() && endpoints.is_empty() && waiting.is_empty() {
        return;
    }
    let target = Target::of(status);
    let known = target.and_then(|target| target.failure(status));
    let is_open = credentials.len() + endpoints.len() <= MAX_OPEN;
    let extent = |is_target: bool, failure: Option<&FailureView>| match (is_target, failure, known) {
        (true, ..) => Extent::InBanner,
        // The same steps stand in the banner.
        (false, Some(failure), Some(known)) if (failure.kind, failure.step) == (known.kind, known.step) => {
            Extent::Closed
        }
        (false, ..) => {
            if is_open {
                Extent::Open
            } else {
                Extent::Closed
            }
        }
    };
    html.section("problems", "Problems").raw("</div><ul class=\"entries wide\">");
    for view in credentials {
        let is_target = target.is_some_and(|target| target.is_credential(view));
        let extent = extent(is_target, view.last_failure.as_ref());
        credential_entry(html, view, (Shape::Problem, extent), now);
    }
    for view in endpoints {
        let is_target = target.is_some_and(|target| target.is_endpoint(view));
        let extent = extent(is_target, view.last_failure.as_ref());
        endpoint_entry(html, view, status, (Shape::Problem, extent), now);
    }
    for view in waiting {
        endpoint_entry(html, view, status, (Shape::ProblemLine, Extent::Closed), now);
    }
    html.raw("</ul></section>");
}

/// Writes the endpoints without a problem, and the form that filters all lists.
pub(super) fn endpoints(html: &mut Html, status: &Status, query: &Query, now: u64) {
    let others: Vec<_> = status.endpoints.iter().filter(|endpoint| !has_problem(endpoint)).collect();
    let is_split = others.len() < status.endpoints.len();
    html.section("endpoints", if is_split { "Other endpoints" } else { "Endpoints" });
    shown(html, status.endpoints.len(), status.page.endpoints);
    filter(html, query);
    html.raw("</div>");
    pages(html, status, query);
    if others.is_empty() && status.disabled_endpoints.is_empty() {
        html.raw("<p class=\"muted\">None.</p></section>");
        return;
    }
    let shape = Shape::without_problem(status);
    html.raw("<ul class=\"entries ").raw(shape.list()).raw("\">");
    for view in others {
        endpoint_entry(html, view, status, (shape, Extent::Closed), now);
    }
    for disabled in &status.disabled_endpoints {
        html.raw("<li id=\"").text(endpoint_id(&disabled.name)).raw("\"><div class=\"titled\">");
        html.element("h3", &disabled.name).raw("<span class=\"pill\">disabled</span>");
        html.element("span class=\"muted small\"", &disabled.url).raw("</div></li>");
    }
    html.raw("</ul></section>");
}

/// Writes the credentials without a problem.
pub(super) fn credentials(html: &mut Html, status: &Status, now: u64) {
    let others: Vec<_> = status.credentials.iter().filter(|credential| !is_problem(credential)).collect();
    let is_split = others.len() < status.credentials.len();
    if others.is_empty() {
        return;
    }
    html.section("credentials", if is_split { "Other credentials" } else { "Credentials" });
    shown(html, status.credentials.len(), status.page.credentials);
    let shape = Shape::without_problem(status);
    html.raw("</div><ul class=\"entries ").raw(shape.list()).raw("\">");
    for view in others {
        credential_entry(html, view, (shape, Extent::Closed), now);
    }
    html.raw("</ul></section>");
}

/// The look of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A card among others.
    Card,
    /// A line that opens.
    Line,
    /// A card as wide as the page.
    Problem,
    /// A line that opens, among the problems.
    ProblemLine,
}

impl Shape {
    /// Returns the look of what has no problem: a line if something else needs the reader.
    fn without_problem(status: &Status) -> Self {
        if matches!(status.verdict.state, "broken" | "attention") { Self::Line } else { Self::Card }
    }

    fn list(self) -> &'static str {
        if self == Self::Card { "" } else { "wide" }
    }

    fn is_line(self) -> bool {
        matches!(self, Self::Line | Self::ProblemLine)
    }

    fn title(self, kind: &str, name: &str) -> String {
        if matches!(self, Self::Card | Self::Line) { name.to_owned() } else { format!("{kind} {name}") }
    }

    /// Begins an entry, up to the end of its title.
    fn open(self, html: &mut Html, (id, class): (&str, &str), title: impl FnOnce(&mut Html)) {
        let class = if matches!(self, Self::Card | Self::Line) { "" } else { class };
        html.raw("<li class=\"").raw(class).raw(if self.is_line() { " line" } else { "" });
        html.raw("\" id=\"").text(id).raw("\">");
        html.raw(if self.is_line() { "<details><summary class=\"titled\">" } else { "<div class=\"titled\">" });
        title(html);
        html.raw(if self.is_line() { "</summary>" } else { "</div>" }).raw("<div class=\"body\">");
    }

    fn close(self, html: &mut Html) {
        html.raw(if self.is_line() { "</div></details></li>" } else { "</div></li>" });
    }
}

fn endpoint_entry(html: &mut Html, view: &EndpointStatus, status: &Status, (shape, extent): (Shape, Extent), now: u64) {
    let (class, state) = endpoint::state(view);
    let class = if class == "good" { "wait" } else { class };
    shape.open(html, (&endpoint_id(&view.name), class), |html| {
        html.element("h3", shape.title("Endpoint", &view.name)).raw("<span class=\"pill ").raw(endpoint::state(view).0);
        html.raw("\">").text(state).raw(" since ").text(clock(view.since, now)).raw("</span>");
        html.element("span class=\"muted small\"", &view.url);
        if view.state == "no_token" {
            let none = if endpoint::is_called(view, status) { "no calls forwarded: " } else { "" };
            html.raw("<span class=\"small\">").raw(none).raw("credential ").text(&view.credential);
            html.raw(" has no valid token</span>");
        }
        if shape.is_line() {
            endpoint::summary(html, view);
        }
    });
    endpoint::body(html, view, status, extent, now);
    shape.close(html);
}

fn credential_entry(html: &mut Html, view: &CredentialView, (shape, extent): (Shape, Extent), now: u64) {
    let (class, state) = credential::state(view);
    let id = credential_id(view);
    shape.open(html, (&id, class), |html| {
        html.element("h3", shape.title("Credential", &view.name)).raw("<span class=\"pill ").raw(class).raw("\">");
        html.text(state);
        if let Some(since) = view.since {
            html.raw(" since ").text(clock(since, now));
        }
        html.raw("</span>");
        if let Some(tenant) = &view.tenant {
            html.raw("<span class=\"muted small\">tenant ").text(tenant).raw("</span>");
        }
        if shape.is_line() {
            credential::summary(html, view, now);
        }
    });
    credential::body(html, (view, &id), extent, now);
    shape.close(html);
}

fn has_problem(endpoint: &EndpointStatus) -> bool {
    endpoint.state != "ok" || endpoint::needs_attention(endpoint)
}

fn is_problem(credential: &CredentialView) -> bool {
    matches!(credential.state, "unavailable" | "stale")
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
