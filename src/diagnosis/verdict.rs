//! Which step of the set-up a failure is about, and which keys of the configuration. Pure; asks nobody.

use http::StatusCode;

use crate::credential::{
    AssertionSettings, CredentialError, CredentialKind, IdentityEndpointKind, Leg, LegOutcome, Proof, SetupStep,
    TokenHttpError, remedy,
};
use crate::metrics::TokenStage;

/// The scope that is right in every tenant that has SignalR.
const SIGNALR_SCOPE: &str = "https://signalr.azure.com/.default";

/// What is to blame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blame {
    pub(super) step: SetupStep,
    /// The keys to look at, if it is the configuration: `tenant`, `assertion.audience`, `url`.
    pub(super) keys: Vec<&'static str>,
}

impl From<SetupStep> for Blame {
    fn from(step: SetupStep) -> Self {
        Self { step, keys: Vec::new() }
    }
}

/// The configuration is to blame.
fn configured(keys: &[&'static str]) -> Blame {
    Blame { step: SetupStep::Configuration, keys: keys.to_vec() }
}

/// Says which step a failed acquisition is about.
pub(super) fn of_acquisition(error: &CredentialError, legs: &[Leg], kind: &CredentialKind) -> Blame {
    match error {
        CredentialError::Answer(answer) => of_answer(answer, kind),
        CredentialError::NoAnswer { endpoint, .. } => of_silence(endpoint.kind).into(),
        CredentialError::Unreadable(_)
        | CredentialError::Certificate(_)
        | CredentialError::Command(_)
        | CredentialError::ExpiredFile { .. } => SetupStep::Proof.into(),
        CredentialError::Settings(_) => SetupStep::Configuration.into(),
        CredentialError::Misunderstood(_)
        | CredentialError::NotAToken(_)
        | CredentialError::NoLifeLeft
        | CredentialError::Deadline(_)
        | CredentialError::Panicked => under_way(legs, kind).into(),
    }
}

/// What an acquisition was at when it was broken off: the last leg that failed, or the one after the last that ended.
fn under_way(legs: &[Leg], kind: &CredentialKind) -> SetupStep {
    let last = legs.last();
    if let Some(Leg { outcome: LegOutcome::Failed { .. }, endpoint: Some(endpoint), .. }) = last {
        return of_silence(endpoint.kind);
    }
    let has_proof = last.is_some_and(|leg| leg.stage == TokenStage::Assertion);
    match kind {
        CredentialKind::App(_) if has_proof => SetupStep::IdentityEndpoint,
        CredentialKind::App(app) => match &app.proof {
            Proof::Federated(AssertionSettings::ManagedIdentity { .. }) => SetupStep::HostIdentity,
            Proof::Secret(_) | Proof::Certificate(_) | Proof::Federated(_) => SetupStep::Proof,
        },
        CredentialKind::ManagedIdentity { .. } => SetupStep::HostIdentity,
        CredentialKind::AzureCli { .. } | CredentialKind::AccessKey { .. } | CredentialKind::TokenFile { .. } => {
            SetupStep::Proof
        }
    }
}

fn of_silence(kind: IdentityEndpointKind) -> SetupStep {
    match kind {
        IdentityEndpointKind::Entra => SetupStep::IdentityEndpoint,
        IdentityEndpointKind::InstanceMetadata | IdentityEndpointKind::AppService => SetupStep::HostIdentity,
        IdentityEndpointKind::Provider(_) => SetupStep::Proof,
    }
}

fn of_answer(answer: &TokenHttpError, kind: &CredentialKind) -> Blame {
    let remedy = answer.codes.iter().find_map(|code| remedy(*code));
    let known = remedy.map(|remedy| remedy.step);
    if let IdentityEndpointKind::Provider(_) = answer.endpoint.kind {
        return SetupStep::Proof.into();
    }
    if answer.endpoint.kind != IdentityEndpointKind::Entra {
        // The host's endpoint hands on Entra's refusal of a resource: the audience or scope that was configured.
        let key = if matches!(kind, CredentialKind::App(_)) { "assertion.audience" } else { "scope" };
        let wrong_audience = known == Some(SetupStep::ResourceProvider);
        return if wrong_audience { configured(&[key]) } else { SetupStep::HostIdentity.into() };
    }
    if answer.unusable.is_some() {
        return SetupStep::IdentityEndpoint.into();
    }
    match (known, answer.status.as_u16(), answer.error.as_deref()) {
        (Some(SetupStep::ResourceProvider), ..) if scope(kind).is_some_and(|scope| scope != SIGNALR_SCOPE) => {
            configured(&["scope"])
        }
        (Some(SetupStep::Configuration), ..) => {
            configured(&remedy.map(|remedy| remedy.keys().collect::<Vec<_>>()).unwrap_or_default())
        }
        // A certificate's assertion is made here: Entra calls a broken one by the numbers of another identity's.
        (Some(SetupStep::Federation), ..) if !answer.federated => SetupStep::AppProof.into(),
        (Some(step), ..) => step.into(),
        (None, 429, _) => SetupStep::TenantPolicy.into(),
        (None, 408 | 500.., _) | (None, _, None | Some("temporarily_unavailable" | "server_error")) => {
            SetupStep::IdentityEndpoint.into()
        }
        (None, _, Some("invalid_client")) if answer.federated => SetupStep::Federation.into(),
        (None, _, Some("invalid_client")) => SetupStep::AppProof.into(),
        (None, _, Some("unauthorized_client")) => SetupStep::EnterpriseApplication.into(),
        (None, _, Some("invalid_resource")) => SetupStep::ResourceProvider.into(),
        (None, _, Some("invalid_scope")) => configured(&["scope"]),
        (None, _, Some("invalid_request")) => SetupStep::Configuration.into(),
        (None, _, Some(_)) => SetupStep::TenantPolicy.into(),
    }
}

fn scope(kind: &CredentialKind) -> Option<&str> {
    match kind {
        CredentialKind::App(app) => Some(&app.scope),
        CredentialKind::ManagedIdentity { scope, .. } | CredentialKind::AzureCli { scope, .. } => Some(scope),
        CredentialKind::AccessKey { .. } | CredentialKind::TokenFile { .. } => None,
    }
}

/// Says what a wrong claim is about.
pub(super) fn of_claim(claim: &str) -> Blame {
    match claim {
        "exp" => SetupStep::Proof.into(),
        "tid" => configured(&["tenant"]),
        "appid" => configured(&["client_id"]),
        "oid" => configured(&["object_id"]),
        _ => SetupStep::Configuration.into(),
    }
}

/// What an endpoint's answer to `/api/health` is about; `None` if it is well.
pub(super) fn of_health(status: StatusCode) -> Option<(Blame, &'static str)> {
    match status.as_u16() {
        200..300 => None,
        403 => Some((SetupStep::EndpointNetwork.into(), "the endpoint's network rules do not let this host in")),
        404 => Some((configured(&["url"]), NO_RESOURCE)),
        _ => Some((SetupStep::EndpointNetwork.into(), UNWELL)),
    }
}

const NO_RESOURCE: &str = "there is no SignalR resource under this host name";
const UNWELL: &str = "the endpoint is not well, or something stands between it and this host";

/// What an endpoint says to a question with a bearer.
pub(super) struct Read<'a> {
    pub(super) status: StatusCode,
    /// `x-ms-error-code`: without it the answer is not from a SignalR resource.
    pub(super) error_code: Option<&'a str>,
    /// Whether a front module answered in the resource's place.
    pub(super) is_of_front: bool,
}

/// What an endpoint's answer to a question with a bearer is about; `None` if the caller is authorised.
pub(super) fn of_read(read: &Read<'_>, kind: &CredentialKind) -> Option<(Blame, &'static str)> {
    match (read.status.as_u16(), kind) {
        (404, _) if read.error_code.is_some() => None,
        // There is no such user, so whatever says that there is answers anything.
        (200..300 | 404, _) => Some((configured(&["url"]), NO_RESOURCE)),
        (401, CredentialKind::AccessKey { .. }) => Some((
            SetupStep::Access.into(),
            "the access key is not one of this resource, or the resource has access keys disabled",
        )),
        (401, CredentialKind::TokenFile { .. }) => Some((
            SetupStep::Proof.into(),
            "the endpoint does not accept the token in the file: it has ended or is not for it",
        )),
        (401, CredentialKind::App(_) | CredentialKind::AzureCli { .. }) => Some((
            configured(&["tenant", "url"]),
            "the endpoint does not accept tokens of this tenant: it lives in another, or `url` is another resource's",
        )),
        (401, CredentialKind::ManagedIdentity { .. }) => Some((
            configured(&["url"]),
            "the endpoint does not accept tokens of this identity's tenant: it lives in another",
        )),
        // A denial by network rules comes from a front module with a page of its own, unlike one for want of a role.
        // Source: the Management SDK, which tells the two apart by the page.
        (403, _) if read.is_of_front => Some((
            SetupStep::EndpointNetwork.into(),
            "the endpoint's network rules do not let this host use the REST API",
        )),
        (403, _) => Some((
            SetupStep::Access.into(),
            "the token is good, but there is no role on the resource that allows the call",
        )),
        _ => Some((SetupStep::EndpointNetwork.into(), UNWELL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{REMEDIES, SecretSource};

    #[test]
    fn a_refusal_of_the_configuration_names_the_keys_to_look_at() {
        for remedy in REMEDIES.iter().filter(|remedy| remedy.step == SetupStep::Configuration) {
            assert!(remedy.keys().next().is_some(), "{:?}: {}", remedy.codes, remedy.action);
        }
    }

    #[test]
    fn a_denial_of_a_front_module_is_not_a_missing_role() {
        let kind = CredentialKind::AccessKey { key: SecretSource::Env("X".to_owned()) };
        let step = |is_of_front| {
            let read = Read { status: StatusCode::FORBIDDEN, error_code: None, is_of_front };
            of_read(&read, &kind).unwrap().0.step
        };
        assert_eq!((step(true), step(false)), (SetupStep::EndpointNetwork, SetupStep::Access));
    }
}
