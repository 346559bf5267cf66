//! The metadata service and the identity endpoint of App Service.

use super::*;
use crate::sandbox::{IDENTITY_CLIENT_ID, IDENTITY_OBJECT_ID, TENANT_A};

async fn imds(sandbox: &Sandbox, query: &str) -> TestResponse {
    let target = format!("/metadata/identity/oauth2/token?{query}");
    request(sandbox, Method::GET, &sandbox.imds().url(), &target)
        .header(http::HeaderName::from_static("metadata"), "true")
        .send()
        .await
}

const RESOURCE: &str = "api-version=2019-08-01&resource=https://signalr.azure.com";

#[tokio::test]
async fn finds_an_identity_by_each_of_its_ids() {
    let sandbox = start().await;
    let resource_id = sandbox.directory().edit(|directory| {
        directory.managed_identity_mut(IDENTITY_CLIENT_ID).map(|identity| identity.resource_id.clone()).unwrap()
    });
    for name in [
        format!("client_id={IDENTITY_CLIENT_ID}"),
        format!("object_id={IDENTITY_OBJECT_ID}"),
        format!("msi_res_id={resource_id}"),
    ] {
        let response = imds(&sandbox, &format!("{RESOURCE}&{name}")).await;
        assert_eq!(response.status, StatusCode::OK, "{name} {response:?}");
        let body = response.json();
        assert_eq!(body["client_id"], IDENTITY_CLIENT_ID);
        // Times are strings.
        assert!(body["expires_on"].as_str().unwrap().parse::<u64>().is_ok());
        let (_, claims) =
            crate::sandbox::crypto::keys::decode_unverified(body["access_token"].as_str().unwrap()).unwrap();
        assert_eq!((&claims["tid"], &claims["oid"]), (&TENANT_A.into(), &IDENTITY_OBJECT_ID.into()));
    }
    let system = imds(&sandbox, RESOURCE).await.json();
    assert_ne!(system["client_id"], IDENTITY_CLIENT_ID);
}

#[tokio::test]
async fn the_metadata_service_reports_why_it_rejects_a_request() {
    let sandbox = start().await;
    let rows = [
        (format!("{RESOURCE}&client_id=unknown"), "invalid_request"),
        (String::from("api-version=2019-08-01"), "invalid_request"),
        (String::from("resource=https://signalr.azure.com"), "invalid_request"),
        (String::from("api-version=2019-08-01&resource=https://other.test"), "invalid_resource"),
    ];
    for (query, error) in rows {
        let response = imds(&sandbox, &query).await;
        assert_eq!(
            (response.status, response.json()["error"].as_str()),
            (StatusCode::BAD_REQUEST, Some(error)),
            "{query}"
        );
    }
    sandbox.directory().edit(|d| d.managed_identity_mut(IDENTITY_CLIENT_ID).unwrap().assigned_to_host = false);
    let response = imds(&sandbox, &format!("{RESOURCE}&client_id={IDENTITY_CLIENT_ID}")).await;
    assert_eq!(response.json()["error_description"], "Identity not found");

    let target = format!("/metadata/identity/oauth2/token?{RESOURCE}");
    let response = request(&sandbox, Method::GET, &sandbox.imds().url(), &target).send().await;
    assert_eq!(response.json()["error"], "bad_request_102");
}

#[tokio::test]
async fn app_service_requires_its_header() {
    let sandbox = start().await;
    let (url, secret) = sandbox.app_service_identity();
    let origin = sandbox.app_service().url();
    let target = format!("{}?{RESOURCE}&client_id={IDENTITY_CLIENT_ID}", url.strip_prefix(&origin).unwrap());
    let rejected = request(&sandbox, Method::GET, &origin, &target).send().await;
    assert_eq!(rejected.status, StatusCode::UNAUTHORIZED);
    let header = http::HeaderName::from_static("x-identity-header");
    let response =
        request(&sandbox, Method::GET, &origin, &target).header(header.clone(), secret.expose()).send().await;
    assert_eq!((response.status, &response.json()["client_id"]), (StatusCode::OK, &IDENTITY_CLIENT_ID.into()));
    let unknown = format!("/msi/token?{RESOURCE}&client_id=unknown");
    let response = request(&sandbox, Method::GET, &origin, &unknown).header(header, secret.expose()).send().await;
    assert_eq!((response.status, &response.json()["statusCode"]), (StatusCode::BAD_REQUEST, &400.into()));
}
