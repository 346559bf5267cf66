//! Statuses for the tests of the page: what `/status` has in some situations.

use std::collections::BTreeMap;

use crate::admin::figures::Figures;
use crate::admin::{
    CallsView, Counts, CredentialView, DetailView, EndpointStatus, FailureView, PageView, PointView, ProbeView,
    ProblemView, RemediationView, RouteView, Status, TrafficView, VerdictView, time,
};

/// Returns a status with these endpoints and credentials, and one route to all of them.
pub(super) fn status(verdict: VerdictView, endpoints: Vec<EndpointStatus>, credentials: Vec<CredentialView>) -> Status {
    let count = |total, broken| BTreeMap::from([("total", total), ("broken", broken), ("disabled", 0)]);
    let broken = endpoints.iter().filter(|endpoint| endpoint.state != "ok").count();
    let unavailable = credentials.iter().filter(|credential| credential.state != "ready").count();
    let route = RouteView {
        name: "all".into(),
        pick: "first",
        named_by: None,
        endpoints: endpoints.iter().map(|endpoint| endpoint.name.clone()).collect(),
        calls_per_second: 1.9,
        recent_calls: 100,
    };
    let traffic = TrafficView::of(&Figures::default().recent(), true);
    Status {
        verdict,
        traffic: TrafficView {
            last_minute: PointView { calls_per_second: 1.9, share_5xx: 1.0, ..traffic.last_minute },
            ..traffic
        },
        version: "1.2.3",
        config_hash: "0e64b3b0".into(),
        after_restart: vec![],
        started: time::now() - 412,
        ready: true,
        draining: false,
        listeners: vec![],
        refused_reload: None,
        max_connections: 1,
        lost_lines: 0,
        refused_ca_files: vec![],
        counts: Counts {
            endpoints: count(endpoints.len(), broken),
            credentials: count(credentials.len(), unavailable),
            routes: 1,
        },
        page: PageView {
            number: 1,
            of: 1,
            size: 20,
            endpoints: endpoints.len(),
            credentials: credentials.len(),
            routes: 1,
        },
        metric_labels: BTreeMap::new(),
        idempotency_store: None,
        tracing: None,
        endpoints,
        disabled_endpoints: vec![],
        credentials,
        routes: vec![route],
    }
}

/// Returns an endpoint that accepts calls.
pub(super) fn endpoint(name: &str) -> EndpointStatus {
    EndpointStatus {
        name: name.into(),
        url: format!("https://{name}.service.signalr.net"),
        address: format!("{name}.service.signalr.net:443"),
        credential: "fabrikam".into(),
        tenant: None,
        role: "primary",
        proxy: None,
        available: true,
        state: "ok",
        since: time::now() - 400,
        last_minute: Some(CallsView {
            calls_per_second: 1.9,
            share_failed: 0.0,
            p50_ms: Some(6.6),
            p99_ms: Some(25.0),
        }),
        series: vec![],
        cool_down_until: None,
        last_failure: None,
        last_probe: Some(ProbeView { at: time::now() - 20, ok: true, took_ms: 9 }),
        canary: None,
        note: None,
        access_key_refused: None,
    }
}

/// Returns an endpoint in a state in which no calls are forwarded.
pub(super) fn broken_endpoint(name: &str, state: &'static str, last_failure: Option<FailureView>) -> EndpointStatus {
    EndpointStatus { state, last_minute: None, last_failure, ..endpoint(name) }
}

/// Returns a credential with a token.
pub(super) fn credential(name: &str) -> CredentialView {
    let now = time::now();
    CredentialView {
        name: name.into(),
        tenant: None,
        state: "ready",
        since: Some(now - 400),
        token: Some("7Jd0cQ".into()),
        acquired: Some(now - 400),
        expires: Some(now + 3200),
        expired: None,
        next_acquisition: Some(now + 2000),
        last_success: Some(now - 400),
        failures: 0,
        failing_since: None,
        last_failure: None,
        last_error: None,
    }
}

/// Returns a credential without a token.
pub(super) fn broken_credential(name: &str, failure: FailureView) -> CredentialView {
    CredentialView {
        state: "unavailable",
        token: None,
        acquired: None,
        expires: None,
        failures: 4,
        failing_since: Some(time::now() - 300),
        last_error: Some(failure.error.clone()),
        last_failure: Some(failure),
        ..credential(name)
    }
}

/// Returns a failure of this kind with one detail and two steps.
pub(super) fn failure(kind: &'static str, error: &str) -> FailureView {
    FailureView {
        at: time::now() - 30,
        kind,
        status: None,
        error: error.into(),
        fact: error.into(),
        step: "dns",
        explanation: "name resolution of the endpoint",
        details: vec![DetailView { name: "host", value: "nowhere.invalid:443".into() }],
        remediation: vec![step("correct `url`", None), step("on this host:", Some("getent hosts nowhere.invalid"))],
        delay: None,
        runbook: Some("https://example.com/config/guide/runbook-causes.md#endpoint-dns".into()),
        once_repaired: None,
    }
}

/// Returns the problem of an entry as the banner has it.
pub(super) fn problem(kind: &'static str, name: &str, failure: &FailureView) -> ProblemView {
    ProblemView {
        details: failure.details.clone(),
        commands: failure.remediation.iter().filter(|step| step.command.is_some()).cloned().collect(),
        callers_get: Some("502 with `type` `endpoint_dns`".into()),
        once_repaired: Some("the gateway notices by itself; no reload or restart is needed".into()),
        entry: Some((kind, name.into())),
        runbook: failure.runbook.clone(),
    }
}

fn step(note: &str, command: Option<&str>) -> RemediationView {
    RemediationView { note: note.into(), command: command.map(str::to_owned) }
}
