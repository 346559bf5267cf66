//! Assertions of other issuers, which federated identity credentials trust.

use std::time::SystemTime;

use serde_json::json;

use super::*;
use crate::sandbox::crypto::keys::unix_seconds;
use crate::sandbox::{EXTERNAL_ISSUER, EXTERNAL_SUBJECT, IDENTITY_CLIENT_ID, TENANT_A};

const AUDIENCE: &str = "api://AzureADTokenExchange";

async fn identity_token(sandbox: &Sandbox, client_id: &str, resource: &str) -> String {
    let target =
        format!("/metadata/identity/oauth2/token?api-version=2019-08-01&resource={resource}&client_id={client_id}");
    let response = request(sandbox, Method::GET, &sandbox.imds().url(), &target)
        .header(http::HeaderName::from_static("metadata"), "true")
        .send()
        .await;
    response.json()["access_token"].as_str().unwrap().to_owned()
}

fn external(sandbox: &Sandbox, issuer: &str, subject: &str, audience: &str, life: i64) -> String {
    let now = unix_seconds(SystemTime::now());
    let claims = json!({ "iss": issuer, "sub": subject, "aud": audience, "nbf": now - 1000, "exp": now + life });
    sandbox.external_token(&claims).unwrap()
}

#[tokio::test]
async fn accepts_a_managed_identitys_token_in_another_tenant() {
    let sandbox = start().await;
    let assertion = identity_token(&sandbox, IDENTITY_CLIENT_ID, AUDIENCE).await;
    let response = request_token(&sandbox, TENANT_B, &assertion_form(&assertion)).await;
    assert_eq!(response.status, StatusCode::OK, "{response:?}");
    // The token can be used again until it expires.
    assert_eq!(request_token(&sandbox, TENANT_B, &assertion_form(&assertion)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn accepts_an_assertion_of_an_external_issuer() {
    let sandbox = start().await;
    let assertion = sandbox.external_assertion(TIMEOUT).unwrap();
    assert_eq!(request_token(&sandbox, TENANT_B, &assertion_form(&assertion)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn rejects_each_wrong_claim_with_its_error_code() {
    let sandbox = start().await;
    let upper = EXTERNAL_SUBJECT.to_uppercase();
    let rows = [
        (EXTERNAL_ISSUER, EXTERNAL_SUBJECT, "api://other", 60, 700_212),
        (EXTERNAL_ISSUER, "system:serviceaccount:default:other", AUDIENCE, 60, 700_213),
        (EXTERNAL_ISSUER, upper.as_str(), AUDIENCE, 60, 7_002_138),
        ("https://issuer.sandbox.test/", EXTERNAL_SUBJECT, AUDIENCE, 60, 700_211),
        (EXTERNAL_ISSUER, EXTERNAL_SUBJECT, AUDIENCE, -400, 700_024),
        ("https://sts.windows.net/a/", EXTERNAL_SUBJECT, AUDIENCE, 60, 700_227),
    ];
    for (issuer, subject, audience, life, expected) in rows {
        let assertion = external(&sandbox, issuer, subject, audience, life);
        assert_eq!(rejection(&sandbox, TENANT_B, &assertion_form(&assertion)).await, (expected, 401), "{expected}");
    }
    sandbox.directory().edit(|d| d.application_mut(APP_CLIENT_ID).unwrap().federated.clear());
    let assertion = sandbox.external_assertion(TIMEOUT).unwrap();
    assert_eq!(rejection(&sandbox, TENANT_B, &assertion_form(&assertion)).await, (70_021, 400));
}

#[tokio::test]
async fn rejects_an_assertion_with_the_wrong_key() {
    let sandbox = start().await;
    // Signed by the external issuer, but issued by tenant A.
    let issuer = format!("{}/{TENANT_A}/v2.0", sandbox.entra().url());
    let forged = external(&sandbox, &issuer, crate::sandbox::IDENTITY_OBJECT_ID, AUDIENCE, 60);
    assert_eq!(rejection(&sandbox, TENANT_B, &assertion_form(&forged)).await, (50_013, 401));
    // The issuer's keys are not available.
    sandbox.directory().edit(|directory| directory.external_issuers.clear());
    let assertion = sandbox.external_assertion(TIMEOUT).unwrap();
    assert_eq!(rejection(&sandbox, TENANT_B, &assertion_form(&assertion)).await, (50_013, 401));
}

#[tokio::test]
async fn rejects_a_managed_identity_of_a_tenant_other_than_the_apps() {
    let sandbox = start().await;
    let identity = sandbox.directory().edit(|directory| {
        let issuer = format!("{}/{TENANT_B}/v2.0", sandbox.entra().url());
        let identity = directory.managed_identities.iter().find(|i| i.tenant == TENANT_B).unwrap().clone();
        let credential = crate::sandbox::FederatedCredential {
            issuer,
            subject: identity.object_id.clone(),
            audience: AUDIENCE.to_owned(),
        };
        directory.application_mut(APP_CLIENT_ID).unwrap().federated.push(credential);
        identity
    });
    let assertion = identity_token(&sandbox, &identity.client_id, AUDIENCE).await;
    assert_eq!(rejection(&sandbox, TENANT_B, &assertion_form(&assertion)).await, (700_236, 401));
}

#[tokio::test]
async fn rejects_an_access_token_as_assertion() {
    let sandbox = start().await;
    let access_token = identity_token(&sandbox, IDENTITY_CLIENT_ID, "https://signalr.azure.com").await;
    assert_eq!(rejection(&sandbox, TENANT_B, &assertion_form(&access_token)).await, (700_227, 401));
}
