//! Identity providers outside Entra: issued tokens and refusals.

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

/// Returns a call of a URL.
fn at(sandbox: &Sandbox, method: Method, url: &str) -> Call {
    let path = url.find("://").and_then(|scheme| Some(scheme + 3 + url.get(scheme + 3..)?.find('/')?)).unwrap();
    let (origin, target) = url.split_at(path);
    call(sandbox, method, origin, target)
}

async fn assert_entra_accepts(sandbox: &Sandbox, assertion: &str) {
    let answer = ask_token(sandbox, TENANT_B, &assertion_form(assertion)).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

#[tokio::test]
async fn github_issues_a_token_for_the_request_token() {
    let sandbox = start().await;
    let (url, token) = sandbox.github_actions();
    let with_audience = format!("{url}&audience={AUDIENCE}");
    let answer = at(&sandbox, Method::GET, &with_audience).bearer(token.expose()).send().await;
    assert_entra_accepts(&sandbox, answer.json()["value"].as_str().unwrap()).await;
    // The default audience is the repository's owner, which no federated credential identity_credentials.
    let answer = at(&sandbox, Method::GET, &url).bearer(token.expose()).send().await;
    let form = assertion_form(answer.json()["value"].as_str().unwrap()).clone();
    assert_eq!(refusal(&sandbox, TENANT_B, &form).await.0, 700_212);

    let without_version = with_audience.replace("api-version=2.0&", "");
    for (method, url, bearer, status) in [
        (Method::GET, with_audience.as_str(), "wrong", 401),
        (Method::GET, without_version.as_str(), token.expose(), 400),
        (Method::POST, with_audience.as_str(), token.expose(), 405),
    ] {
        let answer = at(&sandbox, method.clone(), url).bearer(bearer).send().await;
        assert_eq!(answer.status, status, "{method} {url} {bearer}");
    }
}

#[tokio::test]
async fn azure_pipelines_issues_a_token_of_a_service_connection() {
    let sandbox = start().await;
    let (url, token) = sandbox.azure_pipelines();
    let url = |query: &str| format!("{url}?{query}");
    let whole = url(&format!("api-version=7.1&serviceConnectionId={SERVICE_CONNECTION}"));
    let without_length = |url: &str, bearer: &str| at(&sandbox, Method::POST, url).bearer(bearer);
    let post = |url: &str, bearer: &str| without_length(url, bearer).header(CONTENT_LENGTH, "0");
    let answer = post(&whole, token.expose()).send().await;
    assert_entra_accepts(&sandbox, answer.json()["oidcToken"].as_str().unwrap()).await;

    // A browser is redirected to sign in; a program is rejected.
    assert_eq!(post(&whole, "wrong").send().await.status, StatusCode::FOUND);
    let refused = post(&whole, "wrong").header(name("x-tfs-fedauthredirect"), "Suppress").send().await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    for (url, status) in [
        (url(&format!("serviceConnectionId={SERVICE_CONNECTION}")), 400),
        (url("api-version=7.1"), 400),
        (url("api-version=7.1&serviceConnectionId=5c000000-0000-4000-8000-000000000002"), 404),
    ] {
        assert_eq!(post(&url, token.expose()).send().await.status, status, "{url}");
    }
    assert_eq!(without_length(&whole, token.expose()).send().await.status, 411);
    assert_eq!(at(&sandbox, Method::GET, &whole).bearer(token.expose()).send().await.status, 405);
}

#[tokio::test]
async fn googles_metadata_server_requires_its_header() {
    let sandbox = start().await;
    let get = |account: &str, query: &str| {
        let target = format!("/computeMetadata/v1/instance/service-accounts/{account}/identity?{query}");
        call(&sandbox, Method::GET, &sandbox.gcp_metadata().url(), &target)
    };
    let flavored = |call: Call| call.header(name("metadata-flavor"), "Google");
    let audience = format!("audience={AUDIENCE}");
    for query in [audience.clone(), format!("{audience}&format=full")] {
        let answer = flavored(get("default", &query)).send().await;
        assert_eq!(answer.header("metadata-flavor"), Some("Google"));
        assert_entra_accepts(&sandbox, std::str::from_utf8(&answer.body).unwrap()).await;
    }
    for (call, status) in [
        (get("default", &audience), 403),
        (flavored(get("default", &audience)).header(name("x-forwarded-for"), "10.0.0.1"), 403),
        (flavored(get("default", "format=full")), 400),
        (flavored(get("nobody@contoso.iam.gserviceaccount.com", &audience)), 404),
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
    let good = basic(&encoded(secret.expose()));
    let form = "grant_type=client_credentials&audience=api://AzureADTokenExchange&scope=openid";
    let in_form = format!("client_id={}&client_secret={}", encoded(OAUTH2_CLIENT_ID), encoded(secret.expose()));
    let post = |authorization: Option<&str>, form: &str| {
        let call = at(&sandbox, Method::POST, &url).body(FORM, form.to_owned());
        authorization.into_iter().fold(call, |call, value| call.header(AUTHORIZATION, value))
    };
    for call in [post(Some(&good), form), post(None, &format!("{form}&{in_form}"))] {
        let answer = call.send().await.json();
        assert_entra_accepts(&sandbox, answer["access_token"].as_str().unwrap()).await;
        assert_entra_accepts(&sandbox, answer["id_token"].as_str().unwrap()).await;
    }
    let opaque = post(Some(&good), "grant_type=client_credentials").send().await.json();
    assert!(!opaque["access_token"].as_str().unwrap().contains('.') && opaque["id_token"].is_null());
    // Many clients omit the form encoding.
    let plain = format!("Basic {}", STANDARD.encode(format!("{OAUTH2_CLIENT_ID}:{}", secret.expose())));
    for (call, status, error) in [
        (post(Some(&plain), form), 401, "invalid_client"),
        (post(Some(&basic("wrong")), form), 401, "invalid_client"),
        (post(None, form), 401, "invalid_client"),
        (post(Some(&good), &format!("{form}&{in_form}")), 400, "invalid_request"),
        (post(Some(&good), &format!("{form}&scope=more")), 400, "invalid_request"),
        (post(Some(&good), "grant_type=password"), 400, "unsupported_grant_type"),
        (at(&sandbox, Method::POST, &url).json(&json!({ "grant_type": "client_credentials" })), 400, "invalid_request"),
    ] {
        let answer = call.send().await;
        assert_eq!((answer.status.as_u16(), answer.json()["error"].as_str()), (status, Some(error)));
    }
}
