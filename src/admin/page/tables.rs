//! The routes and listeners.

use super::html::Html;
use super::traffic::number;
use crate::admin::Status;
use crate::admin::time::lasting;

/// Writes the routes in the order in which they are matched.
pub(super) fn routes(html: &mut Html, status: &Status) {
    if status.routes.is_empty() {
        return;
    }
    html.section("routes", "Routes");
    html.raw("<span class=\"muted small\">in the order in which they are matched");
    if status.routes.len() < status.page.routes {
        html.raw("; ").text(status.routes.len()).raw(" of ").text(status.page.routes);
    }
    html.raw("</span></div><table><thead><tr><th scope=\"col\">Route<th scope=\"col\">Pick<th scope=\"col\">Endpoints");
    html.raw("<th scope=\"col\" class=\"number\">Calls<br>per second</tr></thead><tbody>");
    for route in &status.routes {
        html.raw("<tr><th scope=\"row\">").text(&route.name).raw("<td>");
        match &route.named_by {
            Some(by) => _ = html.raw("named by ").text(by),
            None => _ = html.text(route.pick),
        }
        html.raw("<td>").text(if route.endpoints.is_empty() { "any".to_owned() } else { route.endpoints.join(", ") });
        html.raw("<td class=\"number\">").text(number(route.calls_per_second)).raw("</tr>");
    }
    html.raw("</tbody></table></section>");
}

/// Writes the listeners.
pub(super) fn listeners(html: &mut Html, status: &Status, now: u64) {
    html.section("listeners", "Listeners").raw("</div><table><thead><tr>");
    html.raw("<th scope=\"col\">Listener<th scope=\"col\">Address<th scope=\"col\">Certificate</tr></thead><tbody>");
    for listener in &status.listeners {
        html.raw("<tr><th scope=\"row\">").text(&listener.name).raw("<td>").text(&listener.address).raw("<td>");
        match listener.not_after {
            None => _ = html.raw("no TLS"),
            Some(not_after) if not_after <= now => _ = html.raw("<span class=\"pill bad\">expired</span>"),
            Some(not_after) => _ = html.raw("expires in ").text(lasting(not_after - now)),
        }
        if let Some(problem) = &listener.refused_files {
            html.raw("<p><span class=\"pill bad\">files refused</span> ").text(problem).raw("</p>");
        }
        html.raw("</tr>");
    }
    html.raw("</tbody></table></section>");
}
