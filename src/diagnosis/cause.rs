//! Maps a failure to the step of the setup that caused it, and to configuration keys.

use http::StatusCode;

use crate::credential::{
    AcquisitionStep, CredentialError, CredentialKind, IdentityEndpointKind, ResponseError, SetupStep, StepOutcome,
    remedy,
};
use crate::metrics::TokenStage;
use crate::runbook::{EndpointRefusal, Section};

/// The scope that is valid in every tenant with SignalR.
const SIGNALR_SCOPE: &str = "https://signalr.azure.com/.default";

/// The cause of a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) step: SetupStep,
    /// The configuration keys that may be wrong, such as `tenant`, `assertion.audience` or `url`. Empty for other steps.
    pub(super) keys: Vec<&'static str>,
}

impl From<SetupStep> for Cause {
    fn from(step: SetupStep) -> Self {
        Self { step, keys: Vec::new() }
    }
}

/// Returns the configuration as the cause, with the keys that may be wrong.
fn configuration(keys: &[&'static str]) -> Cause {
    Cause { step: SetupStep::Configuration, keys: keys.to_vec() }
}

/// Returns the cause of a failed acquisition.
pub(super) fn of_acquisition(error: &CredentialError, steps: &[AcquisitionStep], kind: &CredentialKind) -> Cause {
    if error.proxy().is_some() {
        return SetupStep::Proxy.into();
    }
    match error {
        CredentialError::Response(response) => of_response(response, kind),
        CredentialError::OtherRequest(other) => of_acquisition(other.cause(), steps, kind),
        CredentialError::NoResponse { endpoint, .. } => of_no_response(endpoint.kind).into(),
        CredentialError::Unreadable(_)
        | CredentialError::Certificate(_)
        | CredentialError::Command(_)
        | CredentialError::ExpiredFile { .. } => SetupStep::Proof.into(),
        CredentialError::Settings(_) => SetupStep::Configuration.into(),
        CredentialError::RejectedByLibrary(_)
        | CredentialError::NotAToken(_)
        | CredentialError::ExpiredOnArrival
        | CredentialError::Deadline(_)
        | CredentialError::Panicked => unfinished_step(steps, kind).into(),
    }
}

/// Returns the setup step that an acquisition did not finish: that of its last step if that failed, else that of the next one.
fn unfinished_step(steps: &[AcquisitionStep], kind: &CredentialKind) -> SetupStep {
    let last = steps.last();
    if let Some(AcquisitionStep { outcome: StepOutcome::Failed { .. }, endpoint: Some(endpoint), .. }) = last {
        return of_no_response(endpoint.kind);
    }
    let has_proof = last.is_some_and(|step| step.stage == TokenStage::Assertion);
    let is_app = matches!(kind, CredentialKind::App { .. });
    if is_app && has_proof { SetupStep::IdentityEndpoint } else { kind.facts().first_step }
}

fn of_no_response(kind: IdentityEndpointKind) -> SetupStep {
    match kind {
        IdentityEndpointKind::Entra => SetupStep::IdentityEndpoint,
        IdentityEndpointKind::InstanceMetadata | IdentityEndpointKind::AppService => SetupStep::HostIdentity,
        IdentityEndpointKind::Provider(_) => SetupStep::Proof,
    }
}

fn of_response(response: &ResponseError, kind: &CredentialKind) -> Cause {
    let remedy = remedy(&response.codes);
    let known = remedy.map(|remedy| remedy.step);
    if let IdentityEndpointKind::Provider(_) = response.endpoint.kind {
        return SetupStep::Proof.into();
    }
    if response.endpoint.kind != IdentityEndpointKind::Entra {
        // The host's endpoint returns Entra's error if the configured audience or scope is unknown.
        let key = if matches!(kind, CredentialKind::App { .. }) { "assertion.audience" } else { "scope" };
        let wrong_audience = known == Some(SetupStep::ResourceProvider);
        return if wrong_audience { configuration(&[key]) } else { SetupStep::HostIdentity.into() };
    }
    if response.unusable.is_some() {
        return SetupStep::IdentityEndpoint.into();
    }
    match (known, response.status.as_u16(), response.error.as_deref()) {
        (Some(SetupStep::ResourceProvider), ..)
            if kind.facts().identity.is_some_and(|identity| identity.scope() != SIGNALR_SCOPE) =>
        {
            configuration(&["scope"])
        }
        (Some(SetupStep::Configuration), ..) => {
            configuration(&remedy.map(|remedy| remedy.keys().collect::<Vec<_>>()).unwrap_or_default())
        }
        // With a certificate, the gateway signs the assertion itself. If it is invalid, Entra responds with the codes for
        // federated credentials.
        (Some(SetupStep::Federation), ..) if !response.federated => SetupStep::AppProof.into(),
        (Some(step), ..) => step.into(),
        (None, 429, _) => SetupStep::TenantPolicy.into(),
        (None, 408 | 500.., _) | (None, _, None | Some("temporarily_unavailable" | "server_error")) => {
            SetupStep::IdentityEndpoint.into()
        }
        (None, _, Some("invalid_client")) if response.federated => SetupStep::Federation.into(),
        (None, _, Some("invalid_client")) => SetupStep::AppProof.into(),
        (None, _, Some("unauthorized_client")) => SetupStep::EnterpriseApplication.into(),
        (None, _, Some("invalid_resource")) => SetupStep::ResourceProvider.into(),
        (None, _, Some("invalid_scope")) => configuration(&["scope"]),
        (None, _, Some("invalid_request")) => SetupStep::Configuration.into(),
        (None, _, Some(_)) => SetupStep::TenantPolicy.into(),
    }
}

/// Returns the cause of a claim that is not as expected.
pub(super) fn of_claim(claim: &str) -> Cause {
    match claim {
        "exp" => SetupStep::Proof.into(),
        "tid" => configuration(&["tenant"]),
        "appid" => configuration(&["client_id"]),
        "oid" => configuration(&["object_id"]),
        _ => SetupStep::Configuration.into(),
    }
}

/// Returns the cause of an endpoint's response to `/api/health` and its meaning; `None` if the endpoint is healthy.
pub(super) fn of_health(status: StatusCode) -> Option<(Cause, &'static str)> {
    match status.as_u16() {
        200..300 => None,
        403 => Some((SetupStep::EndpointNetwork.into(), "the endpoint's network rules do not allow this host")),
        404 => Some((configuration(&["url"]), NO_RESOURCE)),
        _ => Some((SetupStep::EndpointNetwork.into(), UNHEALTHY)),
    }
}

/// Returns what to do about an endpoint's response that neither its token nor its network explains.
pub(super) const fn remedy_of_status(status: StatusCode) -> Option<&'static str> {
    match EndpointRefusal::of(status.as_u16()) {
        Some(refusal @ (EndpointRefusal::Throttled | EndpointRefusal::ServerError)) => {
            Section::Refusal(refusal).remedy()
        }
        // What to do about these depends on the cause.
        Some(EndpointRefusal::Unauthorized | EndpointRefusal::Forbidden) | None => None,
    }
}

const NO_RESOURCE: &str = "there is no SignalR resource under this host name";
const UNHEALTHY: &str = "the endpoint is not healthy, or another server answers at its address";

/// An endpoint's response to a request with a bearer.
pub(super) struct ReadResponse<'a> {
    pub(super) status: StatusCode,
    /// `x-ms-error-code`. A 404 without it is not from a SignalR resource.
    pub(super) error_code: Option<&'a str>,
    /// Whether a front end responded instead of the resource.
    pub(super) is_from_front_end: bool,
}

/// Returns the cause of an endpoint's response to a request with a bearer and its meaning; `None` if the caller is authorised.
pub(super) fn of_read(read: &ReadResponse<'_>, kind: &CredentialKind) -> Option<(Cause, &'static str)> {
    match (read.status.as_u16(), kind) {
        (404, _) if read.error_code.is_some() => None,
        // The user does not exist, so a server that says it does is not a SignalR resource.
        (200..300 | 404, _) => Some((configuration(&["url"]), NO_RESOURCE)),
        (401, _) => Some(of_unauthorized(kind)),
        // Network rules deny with an HTML page of the front end, a missing role does not.
        // Source: the Management SDK, which distinguishes the two by the page.
        (403, _) if read.is_from_front_end => Some((
            SetupStep::EndpointNetwork.into(),
            "the endpoint's network rules do not allow this host to use the REST API",
        )),
        (403, _) => Some((
            SetupStep::Access.into(),
            "the token is valid, but no role assignment on the resource allows the call",
        )),
        _ => Some((SetupStep::EndpointNetwork.into(), UNHEALTHY)),
    }
}

/// Returns the cause of an endpoint's 401 and its meaning.
fn of_unauthorized(kind: &CredentialKind) -> (Cause, &'static str) {
    match kind.facts().identity {
        Some(identity) if identity.tenant().is_some() => (
            configuration(&["tenant", "url"]),
            "the endpoint does not accept tokens of this tenant: the resource is in another tenant, or `url` is that of another resource",
        ),
        Some(_) => (
            configuration(&["url"]),
            "the endpoint does not accept tokens of this identity's tenant: the resource is in another",
        ),
        None if matches!(kind, CredentialKind::AccessKey { .. }) => (
            SetupStep::Access.into(),
            "the access key is not one of this resource, or the resource has access keys disabled",
        ),
        None => (
            SetupStep::Proof.into(),
            "the endpoint does not accept the token in the file: it has expired or is for another resource",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{REMEDIES, SecretSource};

    #[test]
    fn every_remedy_of_the_configuration_names_keys() {
        for remedy in REMEDIES.iter().filter(|remedy| remedy.step == SetupStep::Configuration) {
            assert!(remedy.keys().next().is_some(), "{:?}: {}", remedy.codes, remedy.action);
        }
    }

    #[test]
    fn denial_by_the_front_end_is_not_a_missing_role() {
        let kind = CredentialKind::AccessKey { key: SecretSource::Env("X".to_owned()) };
        let step = |is_from_front_end| {
            let read = ReadResponse { status: StatusCode::FORBIDDEN, error_code: None, is_from_front_end };
            of_read(&read, &kind).unwrap().0.step
        };
        assert_eq!((step(true), step(false)), (SetupStep::EndpointNetwork, SetupStep::Access));
    }
}
