//! Which step of the set-up a failure is about. Pure; asks nobody.

use http::StatusCode;

use crate::credential::{
    CredentialError, CredentialKind, IdentityEndpointKind, Leg, LegOutcome, SetupStep, TokenHttpError, remedy,
};

/// The scope that is right in every tenant that has SignalR.
const SIGNALR_SCOPE: &str = "https://signalr.azure.com/.default";

/// Says which step a failed acquisition is about.
pub(super) fn of_acquisition(error: &CredentialError, legs: &[Leg], kind: &CredentialKind) -> SetupStep {
    match error {
        CredentialError::Answer(answer) => of_answer(answer, kind),
        CredentialError::NoAnswer { endpoint, .. } => of_silence(endpoint.kind),
        CredentialError::Unreadable(_)
        | CredentialError::Certificate(_)
        | CredentialError::Command(_)
        | CredentialError::ExpiredFile { .. }
        | CredentialError::NotATokenFile { .. } => SetupStep::Proof,
        CredentialError::Settings(_) => SetupStep::Configuration,
        CredentialError::Misunderstood(_)
        | CredentialError::NoLifeLeft
        | CredentialError::Deadline(_)
        | CredentialError::Panicked => {
            let failed = legs.iter().rfind(|leg| matches!(leg.outcome, LegOutcome::Failed { .. }));
            let endpoint = failed.and_then(|leg| leg.endpoint.as_ref());
            endpoint.map_or(SetupStep::IdentityEndpoint, |endpoint| of_silence(endpoint.kind))
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

fn of_answer(answer: &TokenHttpError, kind: &CredentialKind) -> SetupStep {
    let known = answer.codes.iter().find_map(|code| remedy(*code)).map(|remedy| remedy.step);
    if let IdentityEndpointKind::Provider(_) = answer.endpoint.kind {
        return SetupStep::Proof;
    }
    if answer.endpoint.kind != IdentityEndpointKind::Entra {
        // The host's endpoint hands on Entra's refusal of a resource: the audience that was configured.
        let wrong_audience = known == Some(SetupStep::ResourceProvider);
        return if wrong_audience { SetupStep::Configuration } else { SetupStep::HostIdentity };
    }
    if answer.unusable.is_some() {
        return SetupStep::IdentityEndpoint;
    }
    match (known, answer.status.as_u16(), answer.error.as_deref()) {
        (Some(SetupStep::ResourceProvider), ..) if scope(kind).is_some_and(|scope| scope != SIGNALR_SCOPE) => {
            SetupStep::Configuration
        }
        // A certificate's assertion is made here: Entra calls a broken one by the numbers of another identity's.
        (Some(SetupStep::Federation), ..) if !answer.federated => SetupStep::AppProof,
        (Some(step), ..) => step,
        (None, 429, _) => SetupStep::TenantPolicy,
        (None, 408 | 500.., _) | (None, _, None | Some("temporarily_unavailable" | "server_error")) => {
            SetupStep::IdentityEndpoint
        }
        (None, _, Some("invalid_client")) if answer.federated => SetupStep::Federation,
        (None, _, Some("invalid_client")) => SetupStep::AppProof,
        (None, _, Some("unauthorized_client")) => SetupStep::EnterpriseApplication,
        (None, _, Some("invalid_resource")) => SetupStep::ResourceProvider,
        (None, _, Some("invalid_request" | "invalid_scope")) => SetupStep::Configuration,
        (None, _, Some(_)) => SetupStep::TenantPolicy,
    }
}

fn scope(kind: &CredentialKind) -> Option<&str> {
    match kind {
        CredentialKind::App(app) => Some(&app.scope),
        CredentialKind::ManagedIdentity { scope, .. } | CredentialKind::AzureCli { scope, .. } => Some(scope),
        CredentialKind::AccessKey { .. } | CredentialKind::TokenFile { .. } => None,
    }
}

/// Says which step an endpoint's answer to `/api/health` is about; `None` if it is well.
pub(super) fn of_health(status: StatusCode) -> Option<(SetupStep, &'static str)> {
    match status.as_u16() {
        200..300 => None,
        403 => Some((SetupStep::EndpointNetwork, "the endpoint's network rules do not let this host in")),
        404 => Some((SetupStep::Configuration, "there is no SignalR resource under this host name: check `url`")),
        _ => {
            Some((SetupStep::EndpointNetwork, "the endpoint is not well, or something stands between it and this host"))
        }
    }
}

/// Says which step an endpoint's answer to a question with a bearer is about; `None` if the caller is authorised.
pub(super) fn of_read(
    status: StatusCode,
    has_error_code: bool,
    kind: &CredentialKind,
) -> Option<(SetupStep, &'static str)> {
    match (status.as_u16(), kind) {
        (200..300, _) => None,
        (404, _) if has_error_code => None,
        (404, _) => Some((SetupStep::Configuration, "there is no SignalR resource under this host name: check `url`")),
        (401, CredentialKind::AccessKey { .. }) => Some((
            SetupStep::Access,
            "the access key is not one of this resource, or the resource has access keys disabled",
        )),
        (401, CredentialKind::TokenFile { .. }) => Some((
            SetupStep::Proof,
            "the endpoint does not accept the token in the file: it has ended or is not for it",
        )),
        (401, CredentialKind::App(_) | CredentialKind::ManagedIdentity { .. } | CredentialKind::AzureCli { .. }) => {
            Some((
                SetupStep::Configuration,
                "the endpoint does not accept tokens of this tenant: it lives in another, or `url` is another resource's",
            ))
        }
        (403, _) => {
            Some((SetupStep::Access, "the token is good, but there is no role on the resource that allows the call"))
        }
        _ => {
            Some((SetupStep::EndpointNetwork, "the endpoint is not well, or something stands between it and this host"))
        }
    }
}
