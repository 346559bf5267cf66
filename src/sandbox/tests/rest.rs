//! The REST API: authorization, rejections and statuses.

use serde_json::json;

use super::*;
use crate::sandbox::{Role, TENANT_A, TENANT_C};

const SEND: &str = "/api/hubs/chat/:send?api-version=2024-12-01";

fn message() -> Value {
    json!({ "target": "hello", "arguments": ["world"] })
}

fn code(response: &TestResponse) -> Option<&str> {
    response.header("x-ms-error-code")
}

#[tokio::test]
async fn accepts_an_entra_token() {
    let sandbox = start().await;
    let response = rest(&sandbox, "POST", SEND).await.json(&message()).send().await;
    assert_eq!((response.status, response.json()), (StatusCode::ACCEPTED, json!({})));
}

#[tokio::test]
async fn health_requires_no_token() {
    let sandbox = start().await;
    for (method, target) in [("HEAD", "/api/health"), ("GET", "/api/v1/health"), ("HEAD", "/api/health?api-version=x")]
    {
        let response = request(&sandbox, method.parse().unwrap(), &east(&sandbox).url(), target).send().await;
        assert_eq!(response.status, StatusCode::OK, "{method} {target}");
    }
}

#[tokio::test]
async fn rejects_an_invalid_token_with_the_reason_in_its_challenge() {
    let sandbox = start().await;
    let form = secret_form(&sandbox);
    let issue = async |tenant: &str, form: &[(&'static str, String)]| {
        request_token(&sandbox, tenant, form).await.json()["access_token"].as_str().unwrap().to_owned()
    };
    let other_tenant = issue(TENANT_C, &form).await;
    let other_audience = issue(TENANT_B, &with(form.clone(), "scope", "https://webpubsub.azure.com/.default")).await;
    let extra_slash = issue(TENANT_B, &with(form.clone(), "scope", "https://signalr.azure.com//.default")).await;
    let valid = issue(TENANT_B, &form).await;
    let expired = sandbox.access_token("east", Duration::ZERO).unwrap();
    let foreign = sandbox.external_assertion(TIMEOUT).unwrap();
    let (head, _) = valid.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", valid.rsplit_once('.').unwrap().1.chars().rev().collect::<String>());
    for (token, reason) in [
        (other_tenant, "issuer"),
        (other_audience, "audience"),
        (expired, "expired"),
        (foreign, "key was not found"),
        (forged, "signature"),
        (String::from("opaque"), "malformed"),
    ] {
        let response =
            request(&sandbox, Method::POST, &east(&sandbox).url(), SEND).bearer(&token).json(&message()).send().await;
        assert_eq!((response.status, response.body.len()), (StatusCode::UNAUTHORIZED, 0), "{reason}");
        let challenge = response.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Bearer error=\"invalid_token\", error_description=\""), "{challenge}");
        assert!(challenge.contains(reason), "{challenge}");
    }
    for token in [valid, extra_slash] {
        let response =
            request(&sandbox, Method::POST, &east(&sandbox).url(), SEND).bearer(&token).json(&message()).send().await;
        assert_eq!(response.status, StatusCode::ACCEPTED);
    }
    let bare = request(&sandbox, Method::POST, &east(&sandbox).url(), SEND).json(&message()).send().await;
    assert_eq!((bare.status, bare.header("www-authenticate")), (StatusCode::UNAUTHORIZED, Some("Bearer")));
}

#[tokio::test]
async fn forbids_operations_that_the_role_does_not_allow() {
    let sandbox = start().await;
    let set_roles = |roles: Vec<(String, Role)>| {
        sandbox.directory().edit(|d| d.service_principal_mut(TENANT_B, APP_CLIENT_ID).unwrap().roles = roles);
    };
    let user = "/api/hubs/chat/users/u?api-version=2024-12-01";
    let key = "/api/auth/accessKey?api-version=2024-12-01";
    let on_east = |role| vec![(String::from("east"), role)];
    for (roles, send, exists, access_key) in [
        (Vec::new(), 403, 403, 403),
        (vec![(String::from("west"), Role::ServiceOwner)], 403, 403, 403),
        (on_east(Role::RestApiReader), 403, 404, 403),
        (on_east(Role::RestApiOwner), 202, 404, 403),
        (on_east(Role::AppServer), 403, 403, 200),
        (on_east(Role::ServiceOwner), 202, 404, 200),
    ] {
        set_roles(roles.clone());
        let sent = rest(&sandbox, "POST", SEND).await.json(&message()).send().await.status;
        let user_exists = rest(&sandbox, "HEAD", user).await.send().await.status;
        let fetched = rest(&sandbox, "GET", key).await.send().await.status;
        assert_eq!([sent, user_exists, fetched].map(|s| s.as_u16()), [send, exists, access_key], "{roles:?}");
    }
}

#[tokio::test]
async fn accepts_an_access_key_while_local_auth_is_enabled() {
    let sandbox = start().await;
    let endpoint = east(&sandbox).clone();
    let sign = |audience: &str| {
        let now = crate::sandbox::crypto::keys::unix_seconds(std::time::SystemTime::now());
        let key = jsonwebtoken::EncodingKey::from_secret(endpoint.access_key().expose().as_bytes());
        let claims = json!({ "aud": audience, "iat": now, "exp": now + 60 });
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let status = async |token: String| {
        request(&sandbox, Method::POST, &endpoint.url(), SEND).bearer(&token).json(&message()).send().await.status
    };
    let url = endpoint.url();
    for audience in [
        format!("{url}/api/hubs/chat/:send"),
        format!("{url}{SEND}"),
        String::from("https://127.0.0.1/api/hubs/chat/:send"),
        format!("{url}/api/hubs/CHAT/:send/"),
    ] {
        assert_eq!(status(sign(&audience)).await, StatusCode::ACCEPTED, "{audience}");
    }
    for audience in [format!("{url}/api/hubs/other/:send"), format!("{url}/client/?hub=chat"), String::new()] {
        assert_eq!(status(sign(&audience)).await, StatusCode::UNAUTHORIZED, "{audience}");
    }
    sandbox.directory().edit(|directory| directory.resource_mut("east").unwrap().local_auth = false);
    assert_eq!(status(sign(&format!("{url}{SEND}"))).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn accepts_a_temporary_key_without_local_auth() {
    let sandbox = start().await;
    sandbox.directory().edit(|directory| {
        directory.resource_mut("east").unwrap().local_auth = false;
        let roles = vec![(String::from("east"), Role::ServiceOwner)];
        directory.service_principal_mut(TENANT_B, APP_CLIENT_ID).unwrap().roles = roles;
    });
    let key = rest(&sandbox, "GET", "/api/v1/auth/accessKey").await.send().await.json();
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
    header.kid = key["KeyId"].as_str().map(str::to_owned);
    let now = crate::sandbox::crypto::keys::unix_seconds(std::time::SystemTime::now());
    let claims = json!({ "aud": format!("{}{SEND}", east(&sandbox).url()), "exp": now + 60 });
    let signing = jsonwebtoken::EncodingKey::from_secret(key["AccessKey"].as_str().unwrap().as_bytes());
    let token = jsonwebtoken::encode(&header, &claims, &signing).unwrap();
    let response =
        request(&sandbox, Method::POST, &east(&sandbox).url(), SEND).bearer(&token).json(&message()).send().await;
    assert_eq!(response.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_client_token_is_signed_for_the_client_url() {
    let sandbox = start().await;
    let target = "/api/hubs/Chat/:generateToken?api-version=2022-11-01&userId=ann&minutesToExpire=5";
    let response = rest(&sandbox, "POST", target).await.send().await;
    let token = response.json()["token"].as_str().unwrap().to_owned();
    let (url, now) = (east(&sandbox).url(), std::time::SystemTime::now());
    let check = |hub: &str| east(&sandbox).keys().check_client_token(&token, &url, hub, false, now);
    assert!(check("other").is_err());
    let claims = check("Chat").unwrap();
    assert_eq!(claims["aud"], format!("{}/client/?hub=chat", east(&sandbox).url()));
    assert_eq!(claims["asrs.s.uid"], "ann");
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 300);
    // A client token does not authorize calls of the REST API.
    let response =
        request(&sandbox, Method::POST, &east(&sandbox).url(), SEND).bearer(&token).json(&message()).send().await;
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn reports_the_name_of_an_invalid_parameter() {
    let sandbox = start().await;
    let rows = [
        ("POST", "/api/hubs/chat/:send", "api-version"),
        ("POST", "/api/hubs/chat/:send?api-version=2019-01-01", "api-version"),
        ("POST", "/api/hubs/1chat/:send?api-version=2024-12-01", "hub"),
        ("POST", "/api/hubs/chat/:send?api-version=2024-12-01&application=a-b", "application"),
        ("POST", "/api/hubs/chat/groups/%20/:send?api-version=2024-12-01", "group"),
        ("POST", "/api/hubs/chat/users//:send?api-version=2024-12-01", "user"),
        ("PUT", "/api/hubs/chat/users/u/groups/g?api-version=2024-12-01&ttl=-1", "ttl"),
        ("POST", "/api/hubs/chat/:generateToken?api-version=2024-12-01&minutesToExpire=0", "minutesToExpire"),
        ("GET", "/api/hubs/chat/groups/g/connections?api-version=2024-12-01&maxpagesize=201", "maxpagesize"),
        ("GET", "/api/hubs/chat/groups/g/connections?api-version=2024-12-01&top=0", "top"),
        ("POST", "/api/hubs/chat/:execute?api-version=2024-12-01&filter=userId", "filter"),
        ("POST", "/api/hubs/chat/connections/c/streams/s/:send?api-version=2024-12-01&completed=1", "completed"),
    ];
    for (method, target, parameter) in rows {
        let response = rest(&sandbox, method, target).await.json(&message()).send().await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST, "{target}");
        assert_eq!(response.json()["target"], parameter, "{target}");
        assert_eq!(code(&response), Some("Error.Request.Invalid"));
    }
    let response = rest(&sandbox, "POST", SEND).await.json(&json!({})).send().await;
    assert_eq!(response.json()["target"], "payload");
    let response = rest(&sandbox, "POST", SEND).await.body("text/plain", "x").send().await;
    assert_eq!(response.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let response = rest(&sandbox, "POST", "/api/v1/hubs/1chat").await.json(&message()).send().await;
    assert_eq!(
        (response.status, response.header("content-type")),
        (StatusCode::BAD_REQUEST, Some("text/plain; charset=utf-8"))
    );
}

#[tokio::test]
async fn reports_a_missing_connection_user_or_group_with_its_error_code() {
    let sandbox = start().await;
    let _connection = east(&sandbox).hubs.connect("chat", Some("u"));
    let rows = [
        ("HEAD", "connections/x", 404, Some("Warning.Connection.NotExisted")),
        ("HEAD", "groups/x", 404, Some("Warning.Group.NotExisted")),
        ("HEAD", "users/x", 404, Some("Warning.User.NotExisted")),
        ("HEAD", "users/u", 200, None),
        ("GET", "users/u/groups/x", 404, Some("Info.User.NotInGroup")),
        ("PUT", "groups/g/connections/x", 404, Some("Error.Connection.NotExisted")),
        ("DELETE", "groups/g/connections/x", 404, Some("Error.Connection.NotExisted")),
        ("DELETE", "connections/x", 200, None),
        ("DELETE", "connections/x/groups", 200, None),
        ("DELETE", "users/x/groups", 204, None),
        ("DELETE", "users/x/groups/g", 204, None),
        ("PUT", "users/x/groups/g", 200, None),
        ("POST", "groups/x/:closeConnections", 204, None),
        ("GET", "groups/x/connections", 200, None),
    ];
    for (method, path, status, expected) in rows {
        let target = format!("/api/hubs/chat/{path}?api-version=2024-12-01");
        let response = rest(&sandbox, method, &target).await.send().await;
        assert_eq!((response.status.as_u16(), code(&response)), (status, expected), "{method} {path}");
        assert!(method != "HEAD" || response.body.is_empty());
        assert_eq!(response.body.is_empty(), response.header("content-type").is_none(), "{method} {path}");
    }
    for target in ["connections/x/:invoke", "users/x/:send", "connections/x/:send", "groups/x/:send"] {
        let target = format!("/api/hubs/chat/{target}?api-version=2024-12-01");
        let response = rest(&sandbox, "POST", &target).await.json(&message()).send().await;
        let expected = if target.contains(":invoke") { 404 } else { 202 };
        assert_eq!(response.status.as_u16(), expected, "{target}");
    }
    for (method, target, status) in [("POST", "/api/nothing", 404), ("PATCH", SEND, 405), ("GET", "/", 404)] {
        let response = rest(&sandbox, method, target).await.send().await;
        assert_eq!((response.status.as_u16(), code(&response)), (status, None), "{method} {target}");
    }
}

#[tokio::test]
async fn claims_of_a_connection_are_read_and_replaced_by_its_token() {
    const PATH: &str = "/api/hubs/chat/connections";
    let sandbox = start().await;
    let ann = east(&sandbox).hubs.connect("chat", Some("ann"));
    let token = ann.token().unwrap();
    let call = async |method: &str, path: &str, body: Value| {
        let target = format!("{PATH}/{path}?api-version=2026-07-01");
        let response = rest(&sandbox, method, &target).await.json(&body).send().await;
        (response.status.as_u16(), code(&response).map(str::to_owned), response.json())
    };
    let claim = |name: &str, value: &str| json!([{ "type": name, "value": value }]);
    let claims = json!({ "claims": claim("nameid", "ann") });
    for method in ["POST", "QUERY"] {
        let read = call(method, "claims", json!({ "connectionToken": token })).await;
        assert_eq!(read, (200, None, claims.clone()), "{method}");
    }
    // Without claims, those of the connection stay.
    let refresh = json!({ "connectionToken": token, "expireTime": "2030-01-01T00:00:00+00:00" });
    assert_eq!(call("POST", ":refreshAuth", refresh).await, (200, None, claims));
    let refresh = json!({ "connectionToken": token, "claims": claim("role", "admin") });
    let admin = json!({ "claims": claim("role", "admin") });
    assert_eq!(call("POST", ":refreshAuth", refresh).await, (200, None, admin.clone()));
    let refresh = json!({ "connectionToken": token, "claims": claim("nameid", "ben") });
    let (status, code, body) = call("POST", ":refreshAuth", refresh).await;
    assert_eq!((status, code.as_deref()), (403, Some("ConnectionUserMismatch")), "{body}");
    assert_eq!(body["code"], "ConnectionUserMismatch");
    assert_eq!(call("POST", "claims", json!({ "connectionToken": token })).await, (200, None, admin));
    for path in [":refreshAuth", "claims"] {
        let (status, code, _) = call("POST", path, json!({ "connectionToken": ann.id() })).await;
        assert_eq!((status, code.as_deref()), (404, Some("ConnectionNotFound")), "{path}");
        assert_eq!(call("POST", path, json!({})).await.0, 400, "{path}");
    }
    let refresh = json!({ "connectionToken": token, "expireTime": "soon" });
    assert_eq!(call("POST", ":refreshAuth", refresh).await.0, 400);
    let earlier = format!("{PATH}/claims?api-version=2024-12-01");
    let response = rest(&sandbox, "POST", &earlier).await.json(&json!({ "connectionToken": token })).send().await;
    assert_eq!(response.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn hubs_of_v1_may_have_a_hyphen_in_the_name_of_their_application() {
    let sandbox = start().await;
    for (target, status) in [
        ("/api/v1/hubs/my-app_chat", 202),
        ("/api/v1/hubs/my-chat", 400),
        ("/api/hubs/my-app_chat/:send?api-version=2024-12-01", 400),
    ] {
        let response = rest(&sandbox, "POST", target).await.json(&message()).send().await;
        assert_eq!(response.status.as_u16(), status, "{target}");
    }
}

#[tokio::test]
async fn the_v1_form_has_its_own_statuses() {
    let sandbox = start().await;
    let _connection = east(&sandbox).hubs.connect("chat", Some("u"));
    for (method, path, status) in [
        ("POST", "", 202),
        ("POST", "/users/u", 202),
        ("POST", "/groups/g", 202),
        ("PUT", "/groups/g/users/u", 202),
        ("GET", "/groups/g/users/u", 200),
        ("GET", "/groups/g", 200),
        ("PUT", "/users/u/groups/g2", 202),
        ("DELETE", "/groups/g/users/u", 202),
        ("DELETE", "/users/u/groups", 200),
        ("GET", "/users/u", 200),
        ("DELETE", "/connections/x", 202),
    ] {
        let target = format!("/api/v1/hubs/chat{path}");
        let response = rest(&sandbox, method, &target).await.json(&message()).send().await;
        assert_eq!(response.status.as_u16(), status, "{method} {target}");
    }
}

#[tokio::test]
async fn enforces_the_size_limits() {
    let sandbox = start().await;
    let largest = 1024 * 1024;
    let wrap = |size: usize| format!("{{\"target\":\"t\",\"arguments\":[\"{}\"]}}", "a".repeat(size - 31));
    assert_eq!(wrap(largest).len(), largest);
    let send =
        async |body: String| rest(&sandbox, "POST", SEND).await.body("application/json", body).send().await.status;
    assert_eq!(send(wrap(largest)).await, StatusCode::ACCEPTED);
    assert_eq!(send(wrap(largest + 1)).await, StatusCode::PAYLOAD_TOO_LARGE);
    let header = http::HeaderName::from_static("x-long");
    let long = rest(&sandbox, "POST", SEND).await.header(header, &"a".repeat(16 * 1024)).json(&message()).send().await;
    assert_eq!(long.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    let target = format!("{SEND}&excluded={}", "a".repeat(12 * 1024));
    assert_eq!(rest(&sandbox, "POST", &target).await.json(&message()).send().await.status, StatusCode::URI_TOO_LONG);
}

#[tokio::test]
async fn rejects_a_request_for_another_host() {
    let sandbox = start().await;
    let response = rest(&sandbox, "POST", SEND).await.header(HOST, "127.0.0.1:8080").json(&message()).send().await;
    assert_eq!(response.status, StatusCode::NOT_FOUND);
    let port = east(&sandbox).server.address().port();
    let named =
        rest(&sandbox, "POST", SEND).await.header(HOST, &format!("localhost:{port}")).json(&message()).send().await;
    assert_eq!(named.status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn a_network_rule_rejects_a_request_before_the_service() {
    let sandbox = start().await;
    sandbox.directory().edit(|directory| directory.resource_mut("east").unwrap().public_network = false);
    let response = rest(&sandbox, "POST", SEND).await.json(&message()).send().await;
    assert_eq!(response.status, StatusCode::FORBIDDEN);
    assert!(String::from_utf8_lossy(&response.body).contains("nginx"));
}

#[tokio::test]
async fn supports_any_number_of_endpoints_with_or_without_tls() {
    let mut settings = SandboxSettings::default();
    settings.endpoints[0].tls = false;
    let north = crate::sandbox::EndpointSettings {
        name: String::from("north"),
        tenant: TENANT_A.to_owned(),
        ..settings.endpoints[0].clone()
    };
    settings.endpoints.push(north);
    let sandbox = Sandbox::start(settings).await.unwrap();
    assert!(east(&sandbox).url().starts_with("http://"));
    assert_eq!(rest(&sandbox, "POST", SEND).await.json(&message()).send().await.status, StatusCode::ACCEPTED);
    let token = sandbox.access_token("north", TIMEOUT).unwrap();
    let north = sandbox.endpoint("north").unwrap().url();
    assert_eq!(
        request(&sandbox, Method::POST, &north, SEND).bearer(&token).json(&message()).send().await.status,
        StatusCode::ACCEPTED
    );
}

#[tokio::test]
async fn reports_a_duplicate_name_and_a_port_in_use() {
    let mut settings = SandboxSettings::default();
    settings.endpoints[1].name = String::from("east");
    let err = Sandbox::start(settings).await.unwrap_err();
    assert_eq!(err.to_string(), "two sandbox servers are named east; rename one of the endpoints");
    let sandbox = start().await;
    let settings = SandboxSettings { entra: sandbox.entra().address(), ..SandboxSettings::default() };
    let err = Sandbox::start(settings).await.unwrap_err();
    assert!(err.to_string().starts_with("sandbox server entra cannot listen on 127.0.0.1:"), "{err}");
}

#[tokio::test]
async fn the_port_is_free_after_shutdown() {
    let sandbox = start().await;
    let address = east(&sandbox).server.address();
    sandbox.shutdown().await;
    assert!(TcpStream::connect(address).await.is_err());
}
