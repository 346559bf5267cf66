use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::StatusCode;
use serde_json::json;

use super::*;
use crate::credential::{AssertionAlgorithm, CredentialId, CredentialSettings};
use crate::credential::{AuthoritySettings, CertificateSettings, Cloud, Fingerprint, SecretSource, StepOutcome};
use crate::endpoint::{EndpointFailure, ErrorResponse, FailureCause};
use crate::metrics::TokenStage;

const CLIENT: &str = "0a990000-0000-4000-8000-000000000001";
const OBJECT: &str = "0b1ec700-0000-4000-8000-000000000001";
const NOON: u64 = 1_800_014_400;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn app(proof: Proof) -> CredentialKind {
    let app = AppSettings {
        authority: AuthoritySettings { cloud: Cloud::Public, ca_file: None },
        egress: Arc::default(),
        client_id: CLIENT.to_owned(),
        scope: "https://signalr.azure.com/.default".to_owned(),
        proof,
    };
    CredentialKind::App { app: app.into(), tenant: "tenant-b".into() }
}

fn certificate() -> Proof {
    Proof::Certificate(CertificateSettings {
        certificate: "/etc/app.pem".into(),
        key: None,
        algorithm: AssertionAlgorithm::Ps256,
        send_chain: false,
    })
}

fn refused(code: u32, date: Option<SystemTime>) -> CredentialError {
    let response = ResponseError {
        error: Some("invalid_client".to_owned()),
        codes: vec![code],
        correlation_id: Some("c-1".to_owned()),
        date,
        ..ResponseError::of_entra(StatusCode::UNAUTHORIZED)
    };
    Box::new(response).into()
}

fn signed(not_after: Option<NotAfter>) -> AcquisitionStep {
    let claims = json!({ "nbf": NOON - 300, "exp": NOON + 300, "iss": CLIENT, "sub": CLIENT, "aud": "a" });
    AcquisitionStep {
        stage: TokenStage::Assertion,
        subject: "assertion".to_owned(),
        endpoint: None,
        took: Duration::ZERO,
        not_after,
        outcome: StepOutcome::Token {
            fingerprint: Fingerprint::of("x"),
            claims: claims.as_object().cloned(),
            endpoint_clock: None,
        },
    }
}

fn shown(details: &[Detail]) -> Vec<String> {
    details.iter().map(|Detail { name, value }| format!("{name}: {value}")).collect()
}

#[test]
fn refused_secret_is_shown_with_its_source_and_the_answer_first() {
    let kind = app(Proof::Secret(SecretSource::Env("EAST_SECRET".to_owned())));
    let details = of_acquisition(&refused(7_000_215, None), &[], &kind, SetupStep::AppProof, at(NOON));
    let expected = [
        "answer of Entra: 401 invalid_client, AADSTS7000215",
        "client_id: 0a990000-0000-4000-8000-000000000001",
        "client secret: environment variable EAST_SECRET",
        "endpoint's tenant: tenant-b",
        "authority: https://login.microsoftonline.com:443",
        "correlation id: c-1",
    ];
    assert_eq!(shown(&details), expected);
}

#[test]
fn assertion_outside_of_its_time_begins_with_the_times_of_both_hosts() {
    let steps = [signed(Some(NotAfter::Certificate(at(NOON + 90_000))))];
    let error = refused(700_024, Some(at(NOON - 1200)));
    let details = shown(&of_acquisition(&error, &steps, &app(certificate()), SetupStep::Proof, at(NOON)));
    let expected = [
        "assertion: nbf 11:55:00 UTC, exp 12:05:00 UTC",
        "clock of this host: 12:00:00 UTC at the last try (this host's clock is 20m ahead of Entra's: 11:40:00 UTC)",
        "answer of Entra: 401 invalid_client, AADSTS700024",
    ];
    assert_eq!(details[..3], expected);
    assert!(details.contains(&"certificate: /etc/app.pem, expires 2027-01-16 13:00:00 UTC".to_owned()), "{details:?}");
    assert!(details.len() <= MAX_DETAILS, "{details:?}");
}

#[test]
fn expired_certificate_begins_with_its_end_and_the_clock() {
    let (path, not_after) = ("/etc/app.pem".into(), at(NOON - 60));
    let error = CredentialError::Certificate(CertificateError::Expired { path, not_after });
    let step =
        AcquisitionStep { outcome: StepOutcome::failed(&error), ..signed(Some(NotAfter::Certificate(at(NOON - 60)))) };
    let details = shown(&of_acquisition(&error, &[step], &app(certificate()), SetupStep::Proof, at(NOON)));
    let expected =
        ["certificate: /etc/app.pem, expired 11:59:00 UTC", "clock of this host: 12:00:00 UTC at the last try"];
    assert_eq!(details[..2], expected);
}

#[test]
fn values_from_outside_are_one_line_and_of_limited_length() {
    let mut details = Details { at: at(NOON), details: Vec::new() };
    details.add("answer", format!("a\u{1b}[2J\n{}", "x".repeat(1000)));
    let value = &details.details[0].value;
    assert!(value.starts_with("a [2J x") && value.chars().count() == MAX_VALUE, "{value}");
    details.add("answer", "again");
    details.add("empty", "");
    assert_eq!(details.finish().len(), 1);
}

#[test]
fn only_ids_of_a_token_that_are_guids_are_shown() {
    let endpoint = crate::endpoint::tests::settings(9);
    let kind = app(Proof::Secret(SecretSource::Env("X".to_owned())));
    let credential = CredentialSettings { id: CredentialId::without_tenant("x"), kind, object_id: None };
    let status = StatusCode::FORBIDDEN;
    let response = ErrorResponse { status, challenge: None, is_from_front_end: false, was_authorized: true };
    let failure = EndpointFailure { at: at(NOON), cause: FailureCause::Response(response) };
    for (oid, is_shown) in [(OBJECT, true), ("$(reboot)", false)] {
        let claims = json!({ "oid": oid, "appid": CLIENT, "tid": "t", "aud": "https://signalr.azure.com" });
        let explained = crate::diagnosis::explain_endpoint(&failure, &credential, &endpoint, claims.as_object());
        let details = shown(&explained.details);
        assert_eq!(details[0].contains(OBJECT), is_shown, "{details:?}");
        assert!(details.contains(&"answer: 403 Forbidden".to_owned()), "{details:?}");
        let command = explained.remediation[0].command.as_ref().unwrap();
        assert_eq!(command.contains(&format!("--assignee-object-id {OBJECT} ")), is_shown, "{command}");
        assert!(!command.contains("reboot"), "{command}");
    }
}
