//! The token endpoint: issued tokens, and the error code of each rejection.

use serde_json::json;

use super::*;
use crate::sandbox::{ClientSecret, Role, SecretText, TENANT_A, TENANT_C};

#[tokio::test]
async fn issues_a_token_of_the_requested_tenant_for_a_secret() {
    let sandbox = start().await;
    let response = request_token(&sandbox, TENANT_B, &secret_form(&sandbox)).await;
    assert_eq!(response.status, StatusCode::OK);
    let body = response.json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&"Bearer".into(), &3599.into()));
    assert_eq!(body.get("refresh_in"), None);
    let (header, claims) =
        crate::sandbox::crypto::keys::decode_unverified(body["access_token"].as_str().unwrap()).unwrap();
    assert_eq!(header.alg, jsonwebtoken::Algorithm::RS256);
    assert_eq!(claims["tid"], TENANT_B);
    assert_eq!(claims["iss"], format!("https://sts.windows.net/{TENANT_B}/"));
    assert_eq!(claims["aud"], "https://signalr.azure.com");
    assert_eq!(claims["appid"], APP_CLIENT_ID);
    assert_eq!(claims["appidacr"], "1");
    let object_id = sandbox.directory().read(|directory| {
        directory.tenant(TENANT_B).unwrap().service_principal(APP_CLIENT_ID).unwrap().object_id.clone()
    });
    assert_eq!((&claims["oid"], &claims["sub"]), (&object_id.clone().into(), &object_id.into()));
    for name in ["iat", "nbf", "exp", "idp", "uti", "ver"] {
        assert!(claims.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn an_app_gets_a_different_token_in_each_tenant() {
    let sandbox = start().await;
    let mut seen = Vec::new();
    for tenant in [TENANT_B, TENANT_C, "northwind.onmicrosoft.com"] {
        let response = request_token(&sandbox, tenant, &secret_form(&sandbox)).await.json();
        let (_, claims) =
            crate::sandbox::crypto::keys::decode_unverified(response["access_token"].as_str().unwrap()).unwrap();
        seen.push((claims["tid"].clone(), claims["oid"].clone()));
    }
    assert_ne!(seen[0], seen[1]);
    assert_eq!(seen[1], seen[2]);
}

#[tokio::test]
async fn rejects_each_invalid_request_with_its_error_code() {
    let sandbox = start().await;
    let valid = secret_form(&sandbox);
    let rows = [
        (TENANT_B, without(valid.clone(), "grant_type"), (900_144, 400)),
        (TENANT_B, with(valid.clone(), "grant_type", "password"), (70_003, 400)),
        (TENANT_B, without(valid.clone(), "client_id"), (900_144, 400)),
        (TENANT_B, without(valid.clone(), "scope"), (900_144, 400)),
        ("dddddddd-0000-4000-8000-00000000000d", valid.clone(), (90_002, 400)),
        ("nowhere.onmicrosoft.com", valid.clone(), (90_002, 400)),
        ("not-a-tenant", valid.clone(), (900_023, 400)),
        ("common", valid.clone(), (50_059, 400)),
        (TENANT_B, with(valid.clone(), "client_id", TENANT_A), (700_016, 400)),
        (TENANT_B, without(valid.clone(), "client_secret"), (7_000_218, 401)),
        (TENANT_B, with(valid.clone(), "client_secret", "wrong"), (7_000_215, 401)),
        (TENANT_B, with(valid.clone(), "client_secret", "5ec2e700-0000-4000-8000-000000000001"), (7_000_215, 401)),
        (TENANT_B, with(valid.clone(), "scope", "https://signalr.azure.com"), (1_002_012, 400)),
        (TENANT_B, with(valid.clone(), "scope", "a/.default b/.default"), (70_011, 400)),
        (TENANT_B, with(valid.clone(), "scope", "https://signalr.azure.test/.default"), (500_011, 400)),
    ];
    for (tenant, form, expected) in rows {
        assert_eq!(rejection(&sandbox, tenant, &form).await, expected, "{tenant} {form:?}");
    }
    assert_eq!(request_token(&sandbox, TENANT_B, &valid).await.status, StatusCode::OK);
}

#[tokio::test]
async fn rejects_a_request_after_each_missing_step_of_the_setup_with_its_error_code() {
    type Change = fn(&mut crate::sandbox::Directory);
    let rows: [(&str, Change, (u64, u16)); 10] = [
        ("single tenant", |d| d.application_mut(APP_CLIENT_ID).unwrap().multi_tenant = false, (700_016, 400)),
        ("not provisioned", |d| d.tenant_mut(TENANT_B).unwrap().service_principals.clear(), (7_000_229, 401)),
        ("app disabled", |d| d.application_mut(APP_CLIENT_ID).unwrap().enabled = false, (7_000_112, 400)),
        (
            "sign-in disabled",
            |d| d.service_principal_mut(TENANT_B, APP_CLIENT_ID).unwrap().enabled = false,
            (7_000_112, 400),
        ),
        (
            "secret expired",
            |d| d.application_mut(APP_CLIENT_ID).unwrap().secrets[0].expires = std::time::UNIX_EPOCH,
            (7_000_222, 401),
        ),
        ("no secret", |d| d.application_mut(APP_CLIENT_ID).unwrap().secrets.clear(), (7_000_215, 401)),
        ("provider missing", |d| d.tenant_mut(TENANT_B).unwrap().signalr_provider = false, (500_011, 400)),
        ("blocked", |d| d.tenant_mut(TENANT_B).unwrap().conditional_access_blocks = true, (53_003, 400)),
        ("other cloud", |d| d.tenant_mut(TENANT_B).unwrap().in_other_cloud = true, (90_038, 400)),
        ("throttled", |d| d.tenant_mut(TENANT_B).unwrap().throttled = Some(Duration::from_secs(7200)), (90_055, 429)),
    ];
    let sandbox = start().await;
    let form = secret_form(&sandbox);
    let original = sandbox.directory().snapshot();
    for (what, remove_step, expected) in rows {
        sandbox.directory().edit(remove_step);
        assert_eq!(rejection(&sandbox, TENANT_B, &form).await, expected, "{what}");
        sandbox.directory().edit(|directory| *directory = (*original).clone());
    }
    sandbox.directory().edit(|d| d.application_mut(APP_CLIENT_ID).unwrap().multi_tenant = false);
    assert_eq!(rejection(&sandbox, "organizations", &form).await, (50_194, 400));
    assert_eq!(request_token(&sandbox, TENANT_A, &form).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_error_response_has_the_ids_of_its_request() {
    let sandbox = start().await;
    let response = request(&sandbox, Method::POST, &sandbox.entra().url(), &format!("/{TENANT_B}/oauth2/v2.0/token"))
        .header(http::HeaderName::from_static("client-request-id"), "11111111-2222-4333-8444-555555555555")
        .body("application/x-www-form-urlencoded", "")
        .send()
        .await;
    let body = response.json();
    assert_eq!(body["correlation_id"], "11111111-2222-4333-8444-555555555555");
    assert_eq!(body["trace_id"], response.header("x-ms-request-id").unwrap());
    assert_eq!(body["error_description"].as_str().unwrap().matches("\r\n").count(), 3);
    assert_eq!(response.header("cache-control"), Some("no-store, no-cache"));
}

#[tokio::test]
async fn a_throttled_request_is_rejected_with_retry_after() {
    let sandbox = start().await;
    sandbox.directory().edit(|d| d.tenant_mut(TENANT_B).unwrap().throttled = Some(Duration::from_secs(7200)));
    let response = request_token(&sandbox, TENANT_B, &secret_form(&sandbox)).await;
    assert_eq!(response.header("retry-after"), Some("7200"));
}

#[tokio::test]
async fn the_token_policy_sets_lifetime_refresh_time_clock_and_reuse() {
    let sandbox = start().await;
    let form = secret_form(&sandbox);
    sandbox.directory().edit(|directory| {
        directory.tokens.lifetime = Duration::from_secs(5);
        directory.tokens.refresh_in = Some(Duration::from_secs(2));
    });
    let body = request_token(&sandbox, TENANT_B, &form).await.json();
    assert_eq!((&body["expires_in"], &body["refresh_in"]), (&5.into(), &2.into()));

    sandbox.directory().edit(|directory| {
        directory.tokens.expires_in = Some(serde_json::json!(u64::MAX));
        directory.tokens.lifetime = Duration::from_secs(3600);
        directory.tokens.clock_offset_secs = -600;
        directory.tokens.repeat = true;
    });
    let first = request_token(&sandbox, TENANT_B, &form).await;
    let date = httpdate::parse_http_date(first.header("date").unwrap()).unwrap();
    let behind = std::time::SystemTime::now().duration_since(date).unwrap().as_secs();
    assert!((599..=620).contains(&behind), "{behind}");
    assert_eq!(first.json()["expires_in"], u64::MAX);
    // A token of five seconds is still valid for a clock that is ten minutes slow, so Entra returns it again.
    let second = request_token(&sandbox, TENANT_B, &form).await.json();
    assert_eq!(first.json()["access_token"], second["access_token"]);
}

#[tokio::test]
async fn accepts_any_of_several_secrets() {
    let sandbox = start().await;
    sandbox.directory().edit(|directory| {
        let expires = std::time::SystemTime::now() + Duration::from_secs(60);
        let secret = ClientSecret { id: String::from("2"), value: SecretText::new("rotated"), expires };
        directory.application_mut(APP_CLIENT_ID).unwrap().secrets.push(secret);
    });
    let form = with(secret_form(&sandbox), "client_secret", "rotated");
    assert_eq!(request_token(&sandbox, TENANT_B, &form).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_published_keys_verify_issued_tokens() {
    let sandbox = start().await;
    let url = sandbox.entra().url();
    let discovery = format!("/{TENANT_B}/v2.0/.well-known/openid-configuration");
    let discovery = request(&sandbox, Method::GET, &url, &discovery).send().await.json();
    assert_eq!(discovery["token_endpoint"], format!("{url}/{TENANT_B}/oauth2/v2.0/token"));
    let target = discovery["jwks_uri"].as_str().unwrap().strip_prefix(&url).unwrap().to_owned();
    let keys = request(&sandbox, Method::GET, &url, &target).send().await.json();
    let key = &keys["keys"][0];
    let verification_key =
        jsonwebtoken::DecodingKey::from_rsa_components(key["n"].as_str().unwrap(), key["e"].as_str().unwrap());
    let token = token(&sandbox).await;
    let verified =
        crate::sandbox::crypto::keys::verify(&token, &verification_key.unwrap(), &[jsonwebtoken::Algorithm::RS256]);
    assert!(verified.is_some());
    assert_eq!(crate::sandbox::crypto::keys::decode_unverified(&token).unwrap().0.kid.as_deref(), key["kid"].as_str());
}

#[tokio::test]
async fn rejects_other_paths_and_methods() {
    let sandbox = start().await;
    let url = sandbox.entra().url();
    let target = format!("/{TENANT_B}/oauth2/v2.0/token");
    assert_eq!(request(&sandbox, Method::GET, &url, &target).send().await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(request(&sandbox, Method::POST, &url, "/token").send().await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn debug_does_not_show_secrets() {
    let sandbox = start().await;
    let secret = sandbox.client_secret();
    let shown = format!("{sandbox:?} {:?} {secret:?}", sandbox.directory());
    assert!(!shown.contains(secret.expose()));
    assert!(!shown.contains(east(&sandbox).access_key().expose()));
    assert!(!shown.contains("PRIVATE KEY"));
    assert_eq!(Role::RestApiOwner.name(), "SignalR REST API Owner");
}

#[tokio::test]
async fn discovery_documents_have_what_identity_libraries_require() {
    let sandbox = start().await;
    let url = sandbox.entra().url();
    let get = async |target: &str| request(&sandbox, Method::GET, &url, target).send().await;
    for (version, issuer, token) in [
        ("/v2.0", format!("{url}/{TENANT_B}/v2.0"), "oauth2/v2.0/token"),
        ("", format!("https://sts.windows.net/{TENANT_B}/"), "oauth2/token"),
    ] {
        for end in ["", "/"] {
            let target = format!("/{TENANT_B}{version}/.well-known/openid-configuration{end}");
            let document = get(&target).await.json();
            assert_eq!(document["issuer"], issuer, "{target}");
            assert_eq!(document["token_endpoint"], format!("{url}/{TENANT_B}/{token}"), "{target}");
            assert!(document["authorization_endpoint"].is_string(), "{target}");
            let keys = document["jwks_uri"].as_str().unwrap().strip_prefix(&url).unwrap();
            assert!(get(keys).await.json()["keys"][0]["kid"].is_string(), "{keys}");
        }
    }
    let shared = get("/organizations/v2.0/.well-known/openid-configuration").await.json();
    assert_eq!(shared["issuer"], format!("{url}/{{tenantid}}/v2.0"));
    let unknown = get("/nowhere.onmicrosoft.com/v2.0/.well-known/openid-configuration").await;
    assert_eq!((unknown.status, &unknown.json()["error_codes"]), (StatusCode::BAD_REQUEST, &json!([90_002])));
    let instance = get("/common/discovery/instance?api-version=1.1").await.json();
    assert_eq!(instance["metadata"][0]["aliases"], json!([url.strip_prefix("https://").unwrap()]));
}

#[tokio::test]
async fn v1_token_endpoint_takes_a_resource_and_returns_strings() {
    let sandbox = start().await;
    let mut form = without(secret_form(&sandbox), "scope");
    form.push(("resource", String::from("https://signalr.azure.com")));
    let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(&form).finish();
    let target = format!("/{TENANT_B}/oauth2/token");
    let call = request(&sandbox, Method::POST, &sandbox.entra().url(), &target);
    let answer = call.body("application/x-www-form-urlencoded", body).send().await.json();
    assert_eq!((&answer["expires_in"], &answer["resource"]), (&json!("3599"), &json!("https://signalr.azure.com")));
    let claims = crate::sandbox::crypto::keys::decode_unverified(answer["access_token"].as_str().unwrap()).unwrap().1;
    assert_eq!((&claims["ver"], &claims["tid"]), (&json!("1.0"), &json!(TENANT_B)));
    assert_eq!(answer["expires_on"], json!(claims["exp"].to_string()));
}

#[tokio::test]
async fn device_codes_are_refused() {
    let sandbox = start().await;
    for path in ["oauth2/devicecode", "oauth2/v2.0/devicecode"] {
        let target = format!("/{TENANT_B}/{path}");
        let answer = request(&sandbox, Method::POST, &sandbox.entra().url(), &target).send().await;
        assert_eq!((answer.status, &answer.json()["error_codes"]), (StatusCode::UNAUTHORIZED, &json!([70_002])));
    }
}
