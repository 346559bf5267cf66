//! The entry of a credential.

use super::chart;
use super::failure::{self, Extent};
use super::html::Html;
use crate::admin::CredentialView;
use crate::admin::time::{clock, lasting};

/// Returns the class and the words of a credential's state.
pub(super) fn state(credential: &CredentialView) -> (&'static str, &'static str) {
    match credential.state {
        "ready" => ("good", "ready"),
        "stale" => ("wait", "cannot be renewed"),
        "unavailable" => ("bad", "no valid token"),
        other => ("", other),
    }
}

/// Writes how long the token is valid in a few words.
pub(super) fn summary(html: &mut Html, credential: &CredentialView, now: u64) {
    if let Some(expires) = credential.expires.filter(|expires| *expires > now) {
        html.raw("<span class=\"muted small end\">token expires in ").text(lasting(expires - now)).raw("</span>");
    }
}

/// Writes what is known about a credential, without its name and state.
pub(super) fn body(html: &mut Html, (credential, id): (&CredentialView, &str), extent: Extent, now: u64) {
    chart::token(html, credential, now);
    facts(html, credential, now);
    match (&credential.last_failure, &credential.last_error) {
        (Some(failure), _) => {
            let extent = if credential.failures > 0 { extent } else { Extent::Closed };
            failure::failure(html, (id, &credential.name), failure, extent, now);
        }
        (None, Some(error)) => _ = html.element("p class=\"failure\"", error),
        (None, None) => {}
    }
}

fn facts(html: &mut Html, credential: &CredentialView, now: u64) {
    html.raw("<dl class=\"facts\"><div>").element("dt", "Token").raw("<dd>");
    match &credential.token {
        Some(token) => html.element("code", token),
        None => html.text("none"),
    };
    html.raw("</dd></div>");
    // Without a token, it is the last time that there was one.
    match (credential.acquired, credential.last_success) {
        (Some(acquired), _) => _ = html.fact("Acquired", clock(acquired, now)),
        (None, Some(at)) => _ = html.fact("Last token acquired", clock(at, now)),
        (None, None) => {}
    }
    if let Some(next) = credential.next_acquisition {
        let name = if credential.failures == 0 { "Renews" } else { "Next try" };
        if next > now {
            html.fact(name, format_args!("{}, in {}", clock(next, now), lasting(next - now)));
        } else {
            html.fact(name, "now");
        }
    }
    match (credential.expires, credential.expired) {
        (Some(at), _) => {
            html.fact("Expires", format_args!("{}, in {}", clock(at, now), lasting(at.saturating_sub(now))));
        }
        (None, Some(at)) if at > now => {
            html.fact("Expires", format_args!("{}; not used shortly before", clock(at, now)));
        }
        (None, Some(at)) => {
            html.fact("Expired", format_args!("{}, {} ago", clock(at, now), lasting(now.saturating_sub(at))));
        }
        (None, None) => {}
    }
    if let Some(since) = credential.failing_since {
        html.fact("Failures", format_args!("{} since {}", credential.failures, clock(since, now)));
    } else if credential.acquired.is_some() {
        html.fact("Failures", "none");
    }
    html.raw("</dl>");
}
