//! What happens once the cause of a problem is repaired: whether the gateway notices by itself, or needs a reload or a restart.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::credential::{AssertionSettings, CredentialKind, Proof, SecretSource, SetupStep};
use crate::diagnosis::{BrokenStep, clock};
use crate::endpoint::{Endpoint, FailureKind};

/// What a credential reads for each token request.
enum Source<'a> {
    File(&'a Path),
    Variable(&'a str),
    /// Another program or service.
    Elsewhere,
}

impl<'a> Source<'a> {
    fn of_secret(secret: &'a SecretSource) -> Self {
        match secret {
            SecretSource::File(path) => Self::File(path),
            SecretSource::Env(name) => Self::Variable(name),
        }
    }
}

/// Returns what happens once the cause of a failed token request is repaired. `next` is when the next one is due.
pub(super) fn of_acquisition(
    broken: &BrokenStep,
    kind: &CredentialKind,
    next: Option<SystemTime>,
    config: Option<&Path>,
) -> String {
    let next = next_request(next);
    // What is presented is right if this host's clock is not.
    let source = if broken.skew.is_some() { Source::Elsewhere } else { source(kind) };
    match (broken.step, source) {
        (SetupStep::Proof | SetupStep::AppProof, Source::File(path)) => format!(
            "{} is read again within 2 s of a change, and a token is requested then; without a change, {next}; no reload or \
             restart is needed",
            path.display()
        ),
        (SetupStep::Proof | SetupStep::AppProof, Source::Variable(name)) => {
            format!("a changed variable {name} needs a restart; after any other repair, {next}")
        }
        (SetupStep::Configuration, _) => format!("{}; after any other repair, {next}", reload(config)),
        _ => format!("the gateway tries again by itself: {next}; no reload or restart is needed"),
    }
}

/// Returns what happens once the cause of an endpoint's failure is repaired; `state` is its state on `/status`.
pub(super) fn of_endpoint(endpoint: &Endpoint, state: &str, config: Option<&Path>) -> String {
    let health = endpoint.health();
    let last = health.history().get().last_failure.map(|last| last.cause.kind());
    if state == "unauthorized" {
        let file = match last {
            Some(FailureKind::Response(status)) if status.as_u16() == 401 => format!("; {}", reload(config)),
            _ => String::new(),
        };
        return format!(
            "calls are sent to the endpoint all the time, and the first one that it accepts ends this; no restart is needed{file}"
        );
    }
    let file = match last {
        Some(FailureKind::Transport(_)) => format!("; {}", reload(config)),
        Some(FailureKind::Response(_)) | None => String::new(),
    };
    if health.closes_by_probe() {
        // Whole seconds are enough, if there are any.
        let every = health.probe_interval();
        let every = if every < Duration::from_secs(1) { every } else { Duration::from_secs(every.as_secs()) };
        let every = humantime::format_duration(every);
        return format!(
            "the gateway probes the endpoint every {every}, and sends calls to it once a probe succeeds; no restart is needed{file}"
        );
    }
    let trial = health.trial_at();
    let from = if trial <= SystemTime::now() { "now".to_owned() } else { clock(trial, SystemTime::now()) };
    format!(
        "the first call that succeeds closes the circuit: a trial call is sent from {from} on; no restart is needed{file}"
    )
}

/// Returns how a change of the configuration comes into force.
pub(super) fn reload(config: Option<&Path>) -> String {
    config.map_or_else(
        || "a change of the configuration needs a reload (SIGHUP)".to_owned(),
        |path| format!("a change of {} is read within 5 s, or at once after SIGHUP", path.display()),
    )
}

fn next_request(next: Option<SystemTime>) -> String {
    let now = SystemTime::now();
    match next.filter(|next| *next > now + Duration::from_millis(500)) {
        Some(next) => format!("the next token request is at {}", clock(next, now)),
        None => "the next token request is due now".to_owned(),
    }
}

/// Returns what the credential reads for each token request.
fn source(kind: &CredentialKind) -> Source<'_> {
    match kind {
        CredentialKind::App { app, .. } => match &app.proof {
            Proof::Secret(secret) => Source::of_secret(secret),
            Proof::Certificate(certificate) => Source::File(&certificate.certificate),
            Proof::Federated(AssertionSettings::File { path }) => Source::File(path),
            Proof::Federated(AssertionSettings::OAuth2(settings)) => Source::of_secret(&settings.secret),
            Proof::Federated(AssertionSettings::AzurePipelines { access_token, .. }) => Source::of_secret(access_token),
            Proof::Federated(
                AssertionSettings::ManagedIdentity { .. }
                | AssertionSettings::GithubActions { .. }
                | AssertionSettings::GcpMetadata { .. }
                | AssertionSettings::Command(_),
            ) => Source::Elsewhere,
        },
        CredentialKind::AccessKey { key } => Source::of_secret(key),
        CredentialKind::TokenFile { path } => Source::File(path),
        CredentialKind::ManagedIdentity { .. } | CredentialKind::AzureCli { .. } => Source::Elsewhere,
    }
}
