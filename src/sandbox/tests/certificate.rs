//! Assertions that an app signs with its certificate.

use std::time::SystemTime;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use super::*;
use crate::sandbox::crypto::certificates::{thumbprint_sha1, thumbprint_sha256};
use crate::sandbox::crypto::keys::unix_seconds;
use crate::sandbox::{ClientCertificate, TENANT_A};

/// Returns the claims of a valid assertion.
fn claims(sandbox: &Sandbox) -> Value {
    let now = unix_seconds(SystemTime::now());
    json!({
        "aud": format!("{}/{TENANT_B}/oauth2/v2.0/token", sandbox.entra().url()),
        "iss": APP_CLIENT_ID,
        "sub": APP_CLIENT_ID,
        "jti": fastrand::u64(..).to_string(),
        "nbf": now,
        "exp": now + 300,
    })
}

fn sign(certificate: &ClientCertificate, header: &Header, claims: &Value) -> String {
    let key = EncodingKey::from_rsa_pem(certificate.key_pem().as_bytes()).unwrap();
    jsonwebtoken::encode(header, claims, &key).unwrap()
}

fn header(certificate: &ClientCertificate) -> Header {
    let mut header = Header::new(Algorithm::PS256);
    header.x5t_s256 = Some(thumbprint_sha256(certificate.der()));
    header
}

#[tokio::test]
async fn accepts_both_algorithms_and_both_thumbprints() {
    let sandbox = start().await;
    let certificate = sandbox.client_certificate();
    let mut older = Header::new(Algorithm::RS256);
    older.x5t = Some(thumbprint_sha1(certificate.der()));
    for header in [header(certificate), older] {
        let assertion = sign(certificate, &header, &claims(&sandbox));
        let response = request_token(&sandbox, TENANT_B, &assertion_form(&assertion)).await;
        assert_eq!(response.status, StatusCode::OK, "{response:?}");
        let token = response.json()["access_token"].as_str().unwrap().to_owned();
        assert_eq!(crate::sandbox::crypto::keys::decode_unverified(&token).unwrap().1["appidacr"], "2");
    }
}

#[tokio::test]
async fn rejects_each_wrong_claim_with_its_error_code() {
    let sandbox = start().await;
    let certificate = sandbox.client_certificate();
    let url = sandbox.entra().url();
    let now = unix_seconds(SystemTime::now());
    let rows = [
        ("iss", json!(TENANT_A), 700_021),
        ("sub", json!(TENANT_A), 50_048),
        ("aud", json!(format!("{url}/{TENANT_A}/oauth2/v2.0/token")), 700_023),
        ("aud", json!("https://login.microsoftonline.com/x"), 700_023),
        ("exp", json!(now - 400), 700_024),
        ("nbf", json!(now + 400), 700_024),
        ("exp", Value::Null, 50_027),
    ];
    for (name, value, expected) in rows {
        let mut claims = claims(&sandbox);
        claims[name] = value.clone();
        let assertion = sign(certificate, &header(certificate), &claims);
        let (code, _) = rejection(&sandbox, TENANT_B, &assertion_form(&assertion)).await;
        assert_eq!(code, expected, "{name} {value}");
    }
}

#[tokio::test]
async fn rejects_a_certificate_that_is_not_registered() {
    let sandbox = start().await;
    let registered = sandbox.client_certificate();
    let other = ClientCertificate::generate_with_new_key(Duration::from_secs(60)).unwrap();
    let mut no_thumbprint = header(registered);
    no_thumbprint.x5t_s256 = None;
    for (what, certificate, header) in [
        ("other certificate", &other, header(&other)),
        ("wrong key", &other, header(registered)),
        ("no thumbprint", registered, no_thumbprint),
    ] {
        let assertion = sign(certificate, &header, &claims(&sandbox));
        assert_eq!(rejection(&sandbox, TENANT_B, &assertion_form(&assertion)).await, (700_027, 401), "{what}");
    }
    sandbox.directory().edit(|d| d.application_mut(APP_CLIENT_ID).unwrap().certificates.push(other.der().to_vec()));
    let assertion = sign(&other, &header(&other), &claims(&sandbox));
    assert_eq!(request_token(&sandbox, TENANT_B, &assertion_form(&assertion)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn rejects_an_expired_certificate() {
    let sandbox = start().await;
    let certificate = ClientCertificate::generate(SystemTime::UNIX_EPOCH, SystemTime::now() - TIMEOUT).unwrap();
    sandbox
        .directory()
        .edit(|d| d.application_mut(APP_CLIENT_ID).unwrap().certificates = vec![certificate.der().to_vec()]);
    let assertion = sign(&certificate, &header(&certificate), &claims(&sandbox));
    assert_eq!(rejection(&sandbox, TENANT_B, &assertion_form(&assertion)).await, (700_027, 401));
}

#[tokio::test]
async fn rejects_an_assertion_that_was_used_before() {
    let sandbox = start().await;
    let certificate = sandbox.client_certificate();
    let assertion = sign(certificate, &header(certificate), &claims(&sandbox));
    let form = assertion_form(&assertion);
    assert_eq!(request_token(&sandbox, TENANT_B, &form).await.status, StatusCode::OK);
    assert_eq!(rejection(&sandbox, TENANT_B, &form).await, (50_013, 401));
}

#[tokio::test]
async fn rejects_malformed_assertions() {
    let sandbox = start().await;
    assert_eq!(rejection(&sandbox, TENANT_B, &assertion_form("no.jwt.here")).await, (50_027, 400));
    let certificate = sandbox.client_certificate();
    let assertion = sign(certificate, &header(certificate), &claims(&sandbox));
    let form = with(assertion_form(&assertion), "client_assertion_type", "jwt");
    assert_eq!(rejection(&sandbox, TENANT_B, &form).await, (900_144, 400));
}
