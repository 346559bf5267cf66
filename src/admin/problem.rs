//! More about the first problem of the verdict.

use serde::Serialize;

use super::entries::{CredentialView, EndpointStatus};
use super::failure::{DetailView, FailureView, RemediationView};

/// The most commands of a problem. The others are at the entry of the endpoint or credential.
const MAX_COMMANDS: usize = 3;

/// What an operator needs to repair a problem without looking elsewhere.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProblemView {
    /// What is known: where, with which identity, and what the other side said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<DetailView>,
    /// The commands that show or repair the cause, with the known ids filled in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<RemediationView>,
    /// What callers get meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callers_get: Option<String>,
    /// What happens once the cause is repaired: whether the gateway notices by itself, or needs a reload or a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub once_repaired: Option<String>,
    /// `endpoint` or `credential` and its name, if the problem has an entry of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<(&'static str, String)>,
    /// The section of the runbook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
}

impl ProblemView {
    /// Makes the problem of a credential.
    pub(super) fn of_credential(credential: &CredentialView) -> Self {
        let tenant = credential.tenant.as_ref().map(|tenant| format!(" ({tenant})")).unwrap_or_default();
        let entry = Some(("credential", format!("{}{tenant}", credential.name)));
        Self { entry, ..credential.last_failure.as_ref().map(Self::of_failure).unwrap_or_default() }
    }

    /// Makes the problem of an endpoint.
    pub(super) fn of_endpoint(endpoint: &EndpointStatus) -> Self {
        let entry = Some(("endpoint", endpoint.name.clone()));
        Self { entry, ..endpoint.last_failure.as_ref().map(Self::of_failure).unwrap_or_default() }
    }

    fn of_failure(failure: &FailureView) -> Self {
        let commands = failure.remediation.iter().filter(|action| action.command.is_some());
        let delay = failure.delay.map(|delay| format!("; {delay}")).unwrap_or_default();
        Self {
            details: failure.details.clone(),
            commands: commands.take(MAX_COMMANDS).cloned().collect(),
            callers_get: None,
            once_repaired: failure.once_repaired.as_ref().map(|text| format!("{text}{delay}")),
            entry: None,
            runbook: failure.runbook.clone(),
        }
    }
}
