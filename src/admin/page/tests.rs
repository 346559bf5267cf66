//! Tests of the whole page.

use super::fixtures::{broken_credential, broken_endpoint, credential, endpoint, failure, problem, status};
use super::*;
use crate::admin::{DetailView, FailureView, ProblemView, VerdictView};

fn rendered(status: &Status) -> String {
    render(status, &Query::parse(None, true).unwrap())
}

fn verdict(state: &'static str, lines: &[&str], problem: Option<ProblemView>) -> VerdictView {
    VerdictView { state, lines: lines.iter().map(|line| (*line).to_owned()).collect(), problem }
}

/// Returns the part of a page between two texts.
fn between<'a>(page: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = page.split_once(from).unwrap_or_else(|| panic!("no {from} in {page}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to} after {from}")).0
}

fn with_dns_failure() -> Status {
    let dns = failure("dns", "name resolution failed");
    let problem = problem("endpoint", "east", &dns);
    let endpoints = vec![broken_endpoint("east", "circuit_open", Some(dns)), endpoint("west")];
    let lines = ["1 of 2 endpoints: east fails calls", "calls to east fail since 13:27 UTC", "do this: correct `url`"];
    status(verdict("broken", &lines, Some(problem)), endpoints, vec![credential("fabrikam")])
}

#[test]
fn external_text_is_escaped() {
    let script = "<script>alert('x')</script>";
    let mut status = with_dns_failure();
    status.verdict.lines.push(script.into());
    status.verdict.problem.as_mut().unwrap().details.push(DetailView { name: "issuer", value: script.into() });
    status.endpoints[0].last_failure.as_mut().unwrap().error = script.into();
    status.credentials = vec![broken_credential(script, failure("local", script))];
    status.routes[0].name = "a&b".into();
    status.routes[0].endpoints.push(script.into());
    let page = render(&status, &Query::parse(Some("name=<script>"), true).unwrap());
    assert_eq!(page.matches("<script>").count(), 1, "the page's own");
    assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)") && page.contains("a&amp;b"));
    assert!(!page.contains(" style=") && !page.contains(" onclick="), "the policy forbids them");
}

#[test]
fn banner_has_what_is_known_the_command_and_both_links() {
    let page = rendered(&with_dns_failure());
    let banner = between(&page, "id=\"verdict\"", "</section>");
    for part in [
        "<p class=\"action\"><b>Do this:</b> correct <code>url</code>.</p>",
        "<dt>host</dt><dd><code>nowhere.invalid:443</code>",
        "<code><span>getent</span> <span>hosts</span> <span>nowhere.invalid</span></code>",
        "<dt>Callers get</dt><dd>502",
        "<dt>Once repaired</dt><dd>the gateway notices by itself",
        "<a href=\"#endpoint-east\">Endpoint east on this page</a>",
        "#endpoint-dns\">Runbook: endpoint-dns</a>",
    ] {
        assert!(banner.contains(part), "no {part} in {banner}");
    }
    assert!(!between(banner, "role=\"status\"", "</div>").contains("nowhere.invalid"), "details are not announced");
}

#[test]
fn entry_that_the_banner_describes_does_not_repeat_it() {
    let page = rendered(&with_dns_failure());
    let entry = between(&page, "id=\"endpoint-east\"", "</li>");
    assert!(!entry.contains("name resolution failed") && !entry.contains("<dl class=\"details\">"), "{entry}");
    assert!(entry.contains("<a href=\"#verdict\">at the top of the page</a>"), "{entry}");
    assert!(entry.contains("<details><summary>All steps"), "{entry}");
}

#[test]
fn second_broken_endpoint_has_its_own_cause_and_steps() {
    let mut status = with_dns_failure();
    let refused = FailureView { step: "connect", ..failure("connect", "connection refused") };
    status.endpoints.insert(1, broken_endpoint("north", "circuit_open", Some(refused)));
    let page = rendered(&status);
    let entry = between(&page, "id=\"endpoint-north\"", "id=\"endpoint-west\"");
    assert!(entry.contains("connection refused") && entry.contains("<details open>"), "{entry}");

    let same = failure("dns", "name resolution of north failed");
    status.endpoints[1].last_failure = Some(same);
    let page = rendered(&status);
    let entry = between(&page, "id=\"endpoint-north\"", "id=\"endpoint-west\"");
    assert!(entry.contains("name resolution of north failed") && !entry.contains("<details open>"), "{entry}");
}

#[test]
fn broken_credential_comes_before_its_endpoints_which_have_a_line_each() {
    let secret = failure("invalid_client", "the client secret is wrong");
    let problem = problem("credential", "fabrikam", &secret);
    let mut endpoints: Vec<_> = (0..12).map(|n| broken_endpoint(&format!("e{n}"), "no_token", None)).collect();
    endpoints.push(endpoint("west"));
    let verdict = verdict("broken", &["1 of 2 credentials is broken: fabrikam"], Some(problem));
    let page = rendered(&status(verdict, endpoints, vec![broken_credential("fabrikam", secret), credential("other")]));
    let problems = between(&page, "id=\"problems\"", "</section>");
    assert!(problems.find("Credential fabrikam") < problems.find("Endpoint e0"), "{problems}");
    assert_eq!(problems.matches("<details><summary class=\"titled\">").count(), 12, "{problems}");
    assert!(between(&page, "id=\"endpoints\"", "</section>").contains("id=\"endpoint-west\""), "{page}");
    assert!(between(&page, "id=\"credentials\"", "</section>").contains("id=\"credential-other\""), "{page}");
    assert!(between(&page, "id=\"verdict\"", "</section>").contains("href=\"#credential-fabrikam\""));
}

#[test]
fn link_to_an_entry_on_another_page_searches_for_it() {
    let mut status = with_dns_failure();
    status.endpoints.remove(0);
    let page = rendered(&status);
    assert!(page.contains("href=\"/?name=east#problems\""), "{page}");
    assert!(!page.contains("id=\"problems\""), "nothing on this page has a problem");
}

#[test]
fn entries_are_cards_while_all_is_well_and_lines_while_something_is_not() {
    let healthy =
        status(verdict("healthy", &["all is well"], None), vec![endpoint("east")], vec![credential("fabrikam")]);
    let page = rendered(&healthy);
    assert!(!page.contains("<summary class=\"titled\">") && !page.contains("id=\"problems\""));
    let attention = Status { verdict: verdict("attention", &["a setting waits"], None), ..healthy };
    assert_eq!(rendered(&attention).matches("<summary class=\"titled\">").count(), 2);
}

#[test]
fn broken_endpoint_says_why_nothing_is_forwarded_and_why_its_probe_succeeds() {
    let mut status = with_dns_failure();
    status.endpoints[0].state = "no_token";
    let page = rendered(&status);
    assert!(page.contains("none forwarded: its credential has no valid token"));
    assert!(page.contains("no calls forwarded: credential fabrikam has no valid token"));
    assert!(page.contains("it asks <code>/api/health</code>, which needs no token"));
    status.routes[0].calls_per_second = 0.0;
    let page = rendered(&status);
    assert!(!page.contains("none forwarded") && !page.contains("no calls forwarded"), "there were no calls");
}

#[test]
fn use_of_an_endpoint_is_shown_if_one_is_secondary() {
    let mut status = with_dns_failure();
    assert!(!rendered(&status).contains("primary"));
    status.endpoints[1].role = "secondary";
    let page = rendered(&status);
    assert!(page.contains("<dt>Used as</dt><dd>primary") && page.contains("<dt>Used as</dt><dd>secondary"));
}

#[test]
fn problems_of_a_configuration_are_listed_if_the_banner_lacks_some() {
    let lines = ["the last configuration was rejected: a: unknown key hint: did you mean `b`?"];
    let mut status = status(verdict("attention", &lines, None), vec![endpoint("east")], vec![]);
    status.refused_reload = Some("a: unknown key\n  hint: did you mean `b`?".into());
    status.after_restart = vec!["process.workers"];
    let page = rendered(&status);
    assert!(!page.contains("Rejected configuration") && page.contains("Settings that wait for a restart"), "{page}");
    status.refused_reload = Some("a: unknown key\nc: unknown key".into());
    status.verdict.lines.push("settings wait for a restart: process.workers".into());
    let page = rendered(&status);
    assert!(page.contains("Rejected configuration") && !page.contains("Settings that wait for a restart"), "{page}");
}

#[test]
fn credential_without_a_token_says_when_the_last_one_expired() {
    let mut credential = broken_credential("fabrikam", failure("invalid_client", "the client secret is wrong"));
    let now = time::now();
    for (expired, shown) in [(now - 60, "<dt>Expired</dt>"), (now + 60, "not used shortly before")] {
        credential.expired = Some(expired);
        let page = rendered(&status(verdict("broken", &["no token"], None), vec![], vec![credential]));
        assert!(page.contains(shown), "{page}");
        credential = broken_credential("fabrikam", failure("invalid_client", "the client secret is wrong"));
    }
}
