use std::sync::Arc;
use std::time::UNIX_EPOCH;

use http::StatusCode;
use serde_json::json;

use super::*;
use crate::credential::authority_settings::{AuthoritySettings, Cloud};
use crate::credential::bearer::Fingerprint;
use crate::credential::error::{OtherRequestError, Relation};
use crate::credential::identity_endpoint::IdentityEndpoint;
use crate::credential::local_error::CertificateError;
use crate::credential::record::StepOutcome;
use crate::credential::response_error::{NoResponse, ResponseError};
use crate::redact::MaskedError;

const CLIENT_ID: &str = "0a990000-0000-4000-8000-000000000001";

fn app(proof: Proof) -> AppSettings {
    AppSettings {
        authority: AuthoritySettings { cloud: Cloud::Public, ca_file: None },
        egress: Arc::default(),
        client_id: CLIENT_ID.to_owned(),
        scope: "https://signalr.azure.com/.default".to_owned(),
        proof,
    }
}

fn secret_file() -> AppSettings {
    app(Proof::Secret(SecretSource::File("/run/secrets/east".into())))
}

fn entra() -> IdentityEndpoint {
    IdentityEndpoint { kind: IdentityEndpointKind::Entra, authority: "login.example".to_owned() }
}

fn refused(code: u32, date: Option<SystemTime>) -> CredentialError {
    let response = ResponseError {
        error: Some("invalid_client".to_owned()),
        codes: vec![code],
        description: Some(format!("AADSTS{code}: text of Entra")),
        correlation_id: Some("c-1".to_owned()),
        date,
        ..ResponseError::of_entra(StatusCode::UNAUTHORIZED)
    };
    Box::new(response).into()
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn known_code_has_its_own_remedy_and_the_cause_does_not_repeat_it() {
    let err = refused(7_000_215, None);
    assert_eq!(
        cause(&err),
        "Entra's token endpoint at login.example answered 401 invalid_client: AADSTS7000215: the client secret is wrong \
         (correlation id c-1)"
    );
    let remedy = what_to_do(&err, Some(&secret_file()), at(0));
    assert!(remedy.starts_with("use the secret's value (not its id)"), "{remedy}");
    assert!(remedy.ends_with("; the gateway reads a changed file by itself"), "{remedy}");
    let variable = app(Proof::Secret(SecretSource::Env("SECRET".to_owned())));
    assert!(what_to_do(&err, Some(&variable), at(0)).ends_with("; a changed variable needs a restart"));
    assert_eq!(proof(Some(&variable), &[]).as_deref(), Some("client secret from environment variable SECRET"));
    let shared = OtherRequestError { cause: Arc::new(err), relation: Relation::TenantThrottled, retry_at: None };
    let shared = CredentialError::from(shared);
    assert!(
        cause(&shared).ends_with("(correlation id c-1); token requests for this tenant pause as long as Entra asks")
    );
    assert!(what_to_do(&shared, None, at(0)).starts_with("use the secret's value"));
}

#[test]
fn command_in_a_remedy_has_the_client_id() {
    let remedy = what_to_do(&refused(700_016, None), Some(&secret_file()), at(0));
    assert!(remedy.ends_with(&format!("az ad sp create --id {CLIENT_ID}")), "{remedy}");
}

#[test]
fn unknown_codes_and_missing_responses_have_the_remedy_of_their_reason() {
    let section = |err: &CredentialError| Section::Token(err.reason()).remedy().unwrap();
    let unknown = refused(1, None);
    assert_eq!(what_to_do(&unknown, None, at(0)), section(&unknown));
    let source = NoResponse::Connect(MaskedError::new(&std::io::Error::other("Connection refused")));
    let none = CredentialError::NoResponse { endpoint: entra(), source };
    assert_eq!(
        cause(&none),
        "Entra's token endpoint at login.example returned no complete response: the connection failed: Connection refused"
    );
    assert_eq!(what_to_do(&none, None, at(0)), section(&none));
}

#[test]
fn expired_certificate_is_renewed_in_three_steps() {
    let expired = CertificateError::Expired { path: "/etc/client.pem".into(), not_after: at(1_800_000_000) };
    let err = CredentialError::from(expired);
    assert_eq!(cause(&err), "the certificate in /etc/client.pem expired at 2027-01-15T08:00:00Z");
    assert_eq!(what_to_do(&err, None, at(0)), RENEW_CERTIFICATE);
}

#[test]
fn assertion_outside_of_its_time_is_shown_beside_both_clocks() {
    let claims = json!({ "nbf": 1_800_000_000, "exp": 1_800_000_600 });
    let signed = AcquisitionStep {
        stage: TokenStage::Assertion,
        subject: "assertion from file /run/token".to_owned(),
        endpoint: None,
        took: Duration::ZERO,
        not_after: None,
        outcome: StepOutcome::Token {
            fingerprint: Fingerprint::of("x"),
            claims: claims.as_object().cloned(),
            endpoint_clock: None,
        },
    };
    let err = refused(700_024, Some(at(1_800_001_200)));
    let steps = [signed];
    assert_eq!(assertion_times(&err, &steps).as_deref(), Some("nbf 2027-01-15T08:00:00Z, exp 2027-01-15T08:10:00Z"));
    assert_eq!(
        clocks(&err, at(1_800_000_000)).as_deref(),
        Some("this host 2027-01-15T08:00:00Z, Entra 2027-01-15T08:20:00Z: this host's clock is 20m behind Entra's")
    );
    assert!(clocks(&err, at(1_800_001_200)).unwrap().ends_with("they agree within a minute"));
    assert!(what_to_do(&err, None, at(1_800_000_000)).starts_with("correct the clock of this host"));
    assert!(!what_to_do(&err, None, at(1_800_001_200)).starts_with("correct the clock of this host"));
    assert_eq!(proof(None, &steps).as_deref(), Some("assertion from file /run/token"));
    let other = refused(7_000_215, Some(at(1_800_000_000)));
    assert_eq!((assertion_times(&other, &steps), clocks(&other, at(1_800_000_001))), (None, None));
    assert!(clocks(&other, at(1_800_000_900)).is_some(), "a skew is reported with any refusal");
}
