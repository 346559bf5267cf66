//! What the log says about an acquisition that failed: the cause, what is known about the request, and what to do. Each is said
//! once, so the cause has no advice.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;

use super::error::CredentialError;
use super::identity_endpoint::IdentityEndpointKind;
use super::jwt;
use super::proof_settings::Proof;
use super::record::{AcquisitionStep, presented_assertion};
use super::remedy::{SetupStep, is_about_time, remedy};
use super::settings::AppSettings;
use crate::files::SecretSource;
use crate::metrics::TokenStage;
use crate::redact::in_one_line;
use crate::runbook::Section;

/// What to do about a client certificate that has expired.
pub const RENEW_CERTIFICATE: &str =
    "make a new certificate, upload it to the app registration, then replace the file: the gateway reads it by itself";

/// The largest clock skew that is not reported. Chosen: far below the five minutes by which assertions are backdated.
const NOTEWORTHY_SKEW: Duration = Duration::from_secs(60);

/// Returns the cause in one line, without what to do.
pub(super) fn cause(err: &CredentialError) -> String {
    if let CredentialError::OtherRequest(other) = err {
        return format!("{}{}", cause(&other.cause), other.relation.consequence());
    }
    if let CredentialError::Response(response) = err {
        return response.fact();
    }
    if let CredentialError::NoResponse { endpoint, source } = err
        && endpoint.kind == IdentityEndpointKind::Entra
    {
        return format!("{endpoint} returned no complete response: {}", in_one_line(source));
    }
    in_one_line(err)
}

/// Returns what to do: the remedy of the AADSTS code if that is known, else that of the cause.
pub(super) fn what_to_do(err: &CredentialError, app: Option<&AppSettings>, at: SystemTime) -> Cow<'static, str> {
    if is_clock_wrong(err, at) {
        return "correct the clock of this host (NTP: `timedatectl set-ntp true`, with chrony `chronyc makestep`); the gateway needs no \
                restart"
            .into();
    }
    let known = remedy(err.codes());
    if let Some(known) = known {
        let client_id = app.map_or("<client_id>", |app| &app.client_id);
        let action = known.action.replace("<client_id>", client_id);
        let is_proof = matches!(known.step, SetupStep::Proof | SetupStep::AppProof);
        return match app.filter(|_| is_proof).and_then(|app| once_replaced(&app.proof)) {
            Some(then) => format!("{action}; {then}").into(),
            None => action.into(),
        };
    }
    if let Some(refused) = err.refused_certificate() {
        return refused.remedy().into();
    }
    if err.is_expired_certificate() {
        return RENEW_CERTIFICATE.into();
    }
    Section::Token(err.reason()).remedy().unwrap_or_default().into()
}

/// Returns how a proof that was replaced comes into effect.
fn once_replaced(proof: &Proof) -> Option<&'static str> {
    match proof {
        Proof::Secret(SecretSource::File(_)) | Proof::Certificate(_) => {
            Some("the gateway reads a changed file by itself")
        }
        Proof::Secret(SecretSource::Env(_)) => Some("a changed variable needs a restart"),
        Proof::Federated(_) => None,
    }
}

/// Returns what was presented, and where it is read from: `client secret from file /run/secrets/x`.
pub(super) fn proof(app: Option<&AppSettings>, steps: &[AcquisitionStep]) -> Option<String> {
    match app.map(|app| &app.proof) {
        Some(Proof::Secret(source)) => Some(format!("client secret from {source}")),
        Some(Proof::Certificate(certificate)) => {
            Some(format!("assertion signed with certificate {}", certificate.certificate.display()))
        }
        Some(Proof::Federated(_)) | None => {
            steps.iter().rfind(|step| step.stage == TokenStage::Assertion).map(|step| step.subject.clone())
        }
    }
}

/// Returns the time window of the assertion that was presented, if it is why the request failed.
pub(super) fn assertion_times(err: &CredentialError, steps: &[AcquisitionStep]) -> Option<String> {
    if !is_about_time(err.codes()) {
        return None;
    }
    let claims = presented_assertion(steps)?;
    let time = |claim| Some(format!("{claim} {}", format_rfc3339_seconds(jwt::time(claims, claim)?)));
    let times: Vec<String> = ["nbf", "exp"].into_iter().filter_map(time).collect();
    (!times.is_empty()).then(|| times.join(", "))
}

/// Compares this host's clock with that of the identity endpoint, if they differ or the assertion was outside of its time.
pub(super) fn clocks(err: &CredentialError, ours: SystemTime) -> Option<String> {
    let response = err.response()?;
    let theirs = response.date?;
    let skew = noteworthy_skew(theirs, ours);
    if skew.is_none() && !is_about_time(err.codes()) {
        return None;
    }
    let skew = skew.unwrap_or_else(|| "they agree within a minute".to_owned());
    Some(format!("this host {}, Entra {}: {skew}", format_rfc3339_seconds(ours), format_rfc3339_seconds(theirs)))
}

/// Returns whether Entra refused an assertion for its time, and this host's clock explains it.
fn is_clock_wrong(err: &CredentialError, ours: SystemTime) -> bool {
    let theirs = err.response().and_then(|response| response.date);
    is_about_time(err.codes()) && theirs.is_some_and(|theirs| noteworthy_skew(theirs, ours).is_some())
}

/// Describes the skew between the clocks of an identity endpoint and this host, if it is above the threshold.
pub(crate) fn noteworthy_skew(theirs: SystemTime, ours: SystemTime) -> Option<String> {
    let (apart, direction) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let whole = humantime::format_duration(Duration::from_secs(apart.as_secs()));
    (apart > NOTEWORTHY_SKEW).then(|| format!("this host's clock is {whole} {direction} Entra's"))
}

#[cfg(test)]
mod tests;
