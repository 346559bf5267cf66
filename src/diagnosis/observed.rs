//! Explains failures that the running gateway has observed, in the words of an examination. Contacts nothing.

use std::sync::Arc;

use super::acquisition::failure_of;
use super::cause::{self, ReadResponse};
use super::connectivity::Layer;
use super::details::explained;
use super::failure::Failure;
use super::finding::BrokenStep;
use super::remediation::Facts;
use crate::credential::{Claims, CredentialSettings, FailedAcquisition, SetupStep, presented_assertion};
use crate::endpoint::{EndpointFailure, EndpointSettings, ErrorResponse, FailureCause};
use crate::metrics::UpstreamErrorReason;
use crate::redact::is_guid;

/// Explains why a credential obtained no token. `endpoint` is one that uses the credential.
pub fn explain_acquisition(
    failed: &FailedAcquisition,
    credential: &CredentialSettings,
    endpoint: &EndpointSettings,
) -> BrokenStep {
    let failure = failure_of(&failed.cause, &failed.steps, &credential.kind, failed.at);
    explained(*failure, &facts(credential, endpoint, presented_assertion(&failed.steps), None))
}

/// Explains why an endpoint failed a call or a probe. `token` are the claims of its token, if they are known.
pub fn explain_endpoint(
    failure: &EndpointFailure,
    credential: &CredentialSettings,
    endpoint: &EndpointSettings,
    token: Option<&Claims>,
) -> BrokenStep {
    let failure = match &failure.cause {
        FailureCause::Transport { reason, error, proxy, certificate } => {
            let layer = match proxy {
                Some((_, layer)) => Some(Layer::Proxy(*layer)),
                None => layer_of(*reason),
            };
            let step = if proxy.is_some() { SetupStep::Proxy } else { SetupStep::EndpointNetwork };
            let tried = format!("call {}", endpoint.origin);
            Failure {
                layer,
                proxy: proxy.as_ref().map(|(proxy, _)| Arc::clone(proxy)),
                certificate: certificate.clone(),
                ..Failure::new(step, tried, error)
            }
        }
        FailureCause::Response(response) => of_response(response, credential, endpoint),
    };
    explained(failure, &facts(credential, endpoint, None, token))
}

/// Explains that an endpoint refuses `access_key` for want of a role. `token` are the claims of its token, if they are known.
pub fn explain_refused_access_key(
    meaning: &str,
    credential: &CredentialSettings,
    endpoint: &EndpointSettings,
    token: Option<&Claims>,
) -> BrokenStep {
    let failure = Failure::new(SetupStep::Access, format!("call {}", endpoint.origin), meaning);
    explained(failure, &facts(credential, endpoint, None, token))
}

fn of_response(response: &ErrorResponse, credential: &CredentialSettings, endpoint: &EndpointSettings) -> Failure {
    let ErrorResponse { status, challenge, is_from_front_end, was_authorized } = response;
    let read = ReadResponse { status: *status, error_code: None, is_from_front_end: *is_from_front_end };
    let explained = if *was_authorized { cause::of_read(&read, &credential.kind) } else { cause::of_health(*status) };
    let tried = format!("call {}", endpoint.origin);
    let challenge = challenge.as_ref().map(|challenge| format!(", {challenge}")).unwrap_or_default();
    let answer = format!("{status}{challenge}");
    let failure = match explained {
        Some((cause, meaning)) => Failure::new(cause, tried, format!("{meaning} ({answer})")),
        None => Failure::new(SetupStep::EndpointNetwork, tried, format!("the endpoint responded {answer}")),
    };
    Failure { remedy: cause::remedy_of_status(*status), answer: Some(answer), ..failure }
}

fn layer_of(reason: UpstreamErrorReason) -> Option<Layer> {
    match reason {
        UpstreamErrorReason::Dns => Some(Layer::Name),
        UpstreamErrorReason::Connect | UpstreamErrorReason::ConnectTimeout => Some(Layer::Connection),
        UpstreamErrorReason::Tls => Some(Layer::Tls),
        UpstreamErrorReason::Proxy
        | UpstreamErrorReason::TryTimeout
        | UpstreamErrorReason::RequestTimeout
        | UpstreamErrorReason::ResetBeforeSend
        | UpstreamErrorReason::ResetAfterSend
        | UpstreamErrorReason::Local
        | UpstreamErrorReason::Protocol
        | UpstreamErrorReason::Body => None,
    }
}

fn facts<'a>(
    credential: &'a CredentialSettings,
    endpoint: &'a EndpointSettings,
    assertion: Option<&'a Claims>,
    token: Option<&'a Claims>,
) -> Facts<'a> {
    // The claim is not verified and becomes part of a command that users copy, so only a GUID is used.
    let object_id = token.and_then(|claims| claims.get("oid")?.as_str()).filter(|oid| is_guid(oid));
    Facts { credential, endpoint, assertion, token, object_id: object_id.or(credential.object_id.as_deref()) }
}
