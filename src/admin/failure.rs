//! A failure on `/status`: when, what, and the explanation that `doctor` gives.

use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;

use super::repair;
use super::time::seconds;
use crate::credential::{
    CertificateError, Claims, CredentialError, CredentialSettings, FailedAcquisition, Remedy, SetupStep, remedy,
};
use crate::diagnosis::{self, BrokenStep, Detail, Remediation};
use crate::endpoint::{Endpoint, EndpointFailure, EndpointSettings};
use crate::redact::in_one_line;
use crate::runbook::{EndpointRefusal, Section};

/// A failure on `/status`.
#[derive(Clone, Debug, Serialize)]
pub struct FailureView {
    /// When, in seconds since the Unix epoch.
    pub at: u64,
    /// The metric label of the error: a `reason` of `upstream_errors_total` or `token_errors_total`, or `response` for an error
    /// response of the endpoint.
    pub kind: &'static str,
    /// The status of the endpoint's response, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The error in one line.
    pub error: String,
    /// What is wrong, in a few words, for lists.
    pub fact: String,
    /// The broken step of the setup, as `doctor --json` names it.
    pub step: &'static str,
    /// The broken step in words.
    pub explanation: &'static str,
    /// What is known: where, with which identity, and what the other side said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<DetailView>,
    /// What to do, in order.
    pub remediation: Vec<RemediationView>,
    /// How long a change takes to come into effect, if that is not immediate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<&'static str>,
    /// The section of the runbook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// What happens once the cause is repaired. The verdict shows it of its first problem.
    #[serde(skip)]
    pub once_repaired: Option<String>,
}

/// Something that is known about a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DetailView {
    /// What it is, such as `client_id`: a key of the configuration or a term of the protocol.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

impl From<Detail> for DetailView {
    fn from(Detail { name, value }: Detail) -> Self {
        Self { name, value }
    }
}

/// One action against a failure.
#[derive(Clone, Debug, Serialize)]
pub struct RemediationView {
    /// What to do, where and as whom. Empty if the command continues the one before.
    pub note: String,
    /// The command, with the known ids filled in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl FailureView {
    /// Explains why a credential obtained no token. `endpoint` is one that uses the credential, and `next` is when the next token
    /// request is due.
    pub(super) fn of_acquisition(
        failed: &FailedAcquisition,
        credential: &CredentialSettings,
        endpoint: &EndpointSettings,
        next: Option<SystemTime>,
        config: Option<&Path>,
    ) -> Self {
        let broken = diagnosis::explain_acquisition(failed, credential, endpoint);
        Self {
            kind: failed.cause.reason().label(),
            runbook: Some(Section::Token(failed.cause.reason()).to_string()),
            fact: acquisition_fact(&failed.cause, &broken, failed.at),
            error: in_one_line(&*failed.cause),
            once_repaired: Some(repair::of_acquisition(&broken, &credential.kind, next, config)),
            ..Self::of(failed.at, broken, config)
        }
    }

    /// Explains why an endpoint in this state failed a call or a probe.
    pub(super) fn of_endpoint(
        failure: &EndpointFailure,
        credential: &CredentialSettings,
        (endpoint, state): (&Endpoint, &str),
        token: Option<&Claims>,
        config: Option<&Path>,
    ) -> Self {
        let kind = failure.cause.kind();
        let status = kind.status().map(|status| status.as_u16());
        let broken = diagnosis::explain_endpoint(failure, credential, endpoint.settings(), token);
        let view = Self::of(failure.at, broken, config);
        let runbook = failure.cause.section().map(|section| section.to_string());
        let once_repaired = Some(repair::of_endpoint(endpoint, state, config));
        Self { kind: kind.label(), status, fact: view.error.clone(), runbook, once_repaired, ..view }
    }

    /// Explains that an endpoint refuses `access_key` for want of a role, since then.
    pub(super) fn of_refused_access_key(
        since: SystemTime,
        meaning: &str,
        credential: &CredentialSettings,
        endpoint: &EndpointSettings,
        token: Option<&Claims>,
        config: Option<&Path>,
    ) -> Self {
        let broken = diagnosis::explain_refused_access_key(meaning, credential, endpoint, token);
        let view = Self::of(since, broken, config);
        let runbook = Some(Section::Refusal(EndpointRefusal::Forbidden).to_string());
        Self { kind: "response", status: Some(403), runbook, ..view }
    }

    fn of(at: SystemTime, mut broken: BrokenStep, config: Option<&Path>) -> Self {
        if let Some(config) = config {
            broken.name_config(config);
        }
        let action = remedy(&broken.codes)
            .filter(|_| !broken.is_specific)
            .map(|Remedy { action, .. }| Remediation { note: (*action).to_owned(), command: None });
        let actions = action.into_iter().chain(broken.remediation);
        Self {
            at: seconds(at),
            kind: "",
            status: None,
            fact: broken.result.clone(),
            error: broken.result,
            step: broken.step.name(),
            explanation: broken.step.title(),
            details: broken.details.into_iter().map(DetailView::from).collect(),
            remediation: actions.map(|Remediation { note, command }| RemediationView { note, command }).collect(),
            delay: broken.delay,
            runbook: None,
            once_repaired: None,
        }
    }
}

/// Returns what is wrong with a credential that obtained no token at a time, in a few words.
fn acquisition_fact(cause: &CredentialError, broken: &BrokenStep, at: SystemTime) -> String {
    let skew = broken.skew.as_ref().map(|skew| format!("; {skew}")).unwrap_or_default();
    if let Some(remedy) = remedy(&broken.codes) {
        return format!("{}{skew}", remedy.fact_of(&broken.codes));
    }
    let cause = cause.innermost();
    match cause {
        CredentialError::Certificate(CertificateError::Expired { path, not_after }) => {
            format!("the certificate in {} expired at {}", path.display(), diagnosis::clock(*not_after, at))
        }
        CredentialError::ExpiredFile { path, expired } => {
            format!("the token in {} expired at {}", path.display(), diagnosis::clock(*expired, at))
        }
        CredentialError::NoResponse { endpoint, .. } => {
            let why = cause.root().map(|root| format!(": {root}"));
            let to = if broken.step == SetupStep::IdentityEndpoint {
                format!(" at {}", endpoint.authority)
            } else {
                String::new()
            };
            format!("{}{to} fails{}", broken.step.title(), why.unwrap_or_default())
        }
        // It says itself what is wrong.
        CredentialError::Response(_)
        | CredentialError::Unreadable(_)
        | CredentialError::Certificate(_)
        | CredentialError::Command(_)
        | CredentialError::Settings(_)
        | CredentialError::RejectedByLibrary(_)
        | CredentialError::NotAToken(_)
        | CredentialError::ExpiredOnArrival
        | CredentialError::Deadline(_)
        | CredentialError::OtherRequest(_)
        | CredentialError::Panicked => cause.to_string(),
    }
}
