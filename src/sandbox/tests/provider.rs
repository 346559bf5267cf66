//! Identity providers outside Entra: issued tokens and rejected requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::header::CONTENT_LENGTH;
use serde_json::json;

use super::*;
use crate::sandbox::{OAUTH2_CLIENT_ID, SERVICE_CONNECTION};

const AUDIENCE: &str = "api://AzureADTokenExchange";
const FORM: &str = "application/x-www-form-urlencoded";

fn name(name: &'static str) -> HeaderName {
    HeaderName::from_static(name)
}

/// Creates a request to a URL.
fn at(sandbox: &Sandbox, method: Method, url: &str) -> TestRequest {
    let path = url.find("://").and_then(|scheme| Some(scheme + 3 + url.get(scheme + 3..)?.find('/')?)).unwrap();
    let (origin, target) = url.split_at(path);
    request(sandbox, method, origin, target)
}

async fn assert_entra_accepts(sandbox: &Sandbox, assertion: &str) {
    let response = request_token(sandbox, TENANT_B, &assertion_form(assertion)).await;
    assert_eq!(response.status, StatusCode::OK, "{response:?}");
}

#[tokio::test]
async fn github_issues_a_token_for_the_request_token() {
    let sandbox = start().await;
    let (url, token) = sandbox.github_actions();
    let with_audience = format!("{url}&audience={AUDIENCE}");
    let response = at(&sandbox, Method::GET, &with_audience).bearer(token.expose()).send().await;
    assert_entra_accepts(&sandbox, response.json()["value"].as_str().unwrap()).await;
    // The default audience is the repository's owner, which no federated credential trusts.
    let response = at(&sandbox, Method::GET, &url).bearer(token.expose()).send().await;
    let form = assertion_form(response.json()["value"].as_str().unwrap()).clone();
    assert_eq!(rejection(&sandbox, TENANT_B, &form).await.0, 700_212);

    let without_version = with_audience.replace("api-version=2.0&", "");
    for (method, url, bearer, status) in [
        (Method::GET, with_audience.as_str(), "wrong", 401),
        (Method::GET, without_version.as_str(), token.expose(), 400),
        (Method::POST, with_audience.as_str(), token.expose(), 405),
    ] {
        let response = at(&sandbox, method.clone(), url).bearer(bearer).send().await;
        assert_eq!(response.status, status, "{method} {url} {bearer}");
    }
}

#[tokio::test]
async fn azure_pipelines_issues_a_token_of_a_service_connection() {
    let sandbox = start().await;
    let (url, token) = sandbox.azure_pipelines();
    let url = |query: &str| format!("{url}?{query}");
    let valid = url(&format!("api-version=7.1&serviceConnectionId={SERVICE_CONNECTION}"));
    let without_length = |url: &str, bearer: &str| at(&sandbox, Method::POST, url).bearer(bearer);
    let post = |url: &str, bearer: &str| without_length(url, bearer).header(CONTENT_LENGTH, "0");
    let response = post(&valid, token.expose()).send().await;
    assert_entra_accepts(&sandbox, response.json()["oidcToken"].as_str().unwrap()).await;

    // A browser is redirected to sign in; a program is rejected.
    assert_eq!(post(&valid, "wrong").send().await.status, StatusCode::FOUND);
    let rejected = post(&valid, "wrong").header(name("x-tfs-fedauthredirect"), "Suppress").send().await;
    assert_eq!(rejected.status, StatusCode::UNAUTHORIZED);
    for (url, status) in [
        (url(&format!("serviceConnectionId={SERVICE_CONNECTION}")), 400),
        (url("api-version=7.1"), 400),
        (url("api-version=7.1&serviceConnectionId=5c000000-0000-4000-8000-000000000002"), 404),
    ] {
        assert_eq!(post(&url, token.expose()).send().await.status, status, "{url}");
    }
    assert_eq!(without_length(&valid, token.expose()).send().await.status, 411);
    assert_eq!(at(&sandbox, Method::GET, &valid).bearer(token.expose()).send().await.status, 405);
}

#[tokio::test]
async fn googles_metadata_server_requires_its_header() {
    let sandbox = start().await;
    let get = |account: &str, query: &str| {
        let target = format!("/computeMetadata/v1/instance/service-accounts/{account}/identity?{query}");
        request(&sandbox, Method::GET, &sandbox.gcp_metadata().url(), &target)
    };
    let with_flavor = |call: TestRequest| call.header(name("metadata-flavor"), "Google");
    let audience = format!("audience={AUDIENCE}");
    for query in [audience.clone(), format!("{audience}&format=full")] {
        let response = with_flavor(get("default", &query)).send().await;
        assert_eq!(response.header("metadata-flavor"), Some("Google"));
        assert_entra_accepts(&sandbox, std::str::from_utf8(&response.body).unwrap()).await;
    }
    for (call, status) in [
        (get("default", &audience), 403),
        (with_flavor(get("default", &audience)).header(name("x-forwarded-for"), "10.0.0.1"), 403),
        (with_flavor(get("default", "format=full")), 400),
        (with_flavor(get("nobody@contoso.iam.gserviceaccount.com", &audience)), 404),
    ] {
        assert_eq!(call.send().await.status, status);
    }
}

#[tokio::test]
async fn the_authorization_server_accepts_one_authentication_method_at_a_time() {
    let sandbox = start().await;
    let (url, secret) = sandbox.oauth2_client();
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let basic = |secret: &str| format!("Basic {}", STANDARD.encode(format!("{}:{secret}", encoded(OAUTH2_CLIENT_ID))));
    let valid = basic(&encoded(secret.expose()));
    let form = "grant_type=client_credentials&audience=api://AzureADTokenExchange&scope=openid";
    let in_form = format!("client_id={}&client_secret={}", encoded(OAUTH2_CLIENT_ID), encoded(secret.expose()));
    let post = |authorization: Option<&str>, form: &str| {
        let call = at(&sandbox, Method::POST, &url).body(FORM, form.to_owned());
        authorization.into_iter().fold(call, |call, value| call.header(AUTHORIZATION, value))
    };
    for call in [post(Some(&valid), form), post(None, &format!("{form}&{in_form}"))] {
        let response = call.send().await.json();
        assert_entra_accepts(&sandbox, response["access_token"].as_str().unwrap()).await;
        assert_entra_accepts(&sandbox, response["id_token"].as_str().unwrap()).await;
    }
    let opaque = post(Some(&valid), "grant_type=client_credentials").send().await.json();
    assert!(!opaque["access_token"].as_str().unwrap().contains('.') && opaque["id_token"].is_null());
    // Many clients omit the form encoding.
    let plain = format!("Basic {}", STANDARD.encode(format!("{OAUTH2_CLIENT_ID}:{}", secret.expose())));
    for (call, status, error) in [
        (post(Some(&plain), form), 401, "invalid_client"),
        (post(Some(&basic("wrong")), form), 401, "invalid_client"),
        (post(None, form), 401, "invalid_client"),
        (post(Some(&valid), &format!("{form}&{in_form}")), 400, "invalid_request"),
        (post(Some(&valid), &format!("{form}&scope=more")), 400, "invalid_request"),
        (post(Some(&valid), "grant_type=password"), 400, "unsupported_grant_type"),
        (at(&sandbox, Method::POST, &url).json(&json!({ "grant_type": "client_credentials" })), 400, "invalid_request"),
    ] {
        let response = call.send().await;
        assert_eq!((response.status.as_u16(), response.json()["error"].as_str()), (status, Some(error)));
    }
}
