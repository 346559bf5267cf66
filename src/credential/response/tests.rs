use super::*;
use crate::credential::error::CredentialError;
use crate::credential::schedule::ErrorClass;
use crate::metrics::TokenErrorReason;

fn entra() -> IdentityEndpoint {
    IdentityEndpoint { kind: IdentityEndpointKind::Entra, authority: "login.microsoftonline.com".into() }
}

fn imds() -> IdentityEndpoint {
    IdentityEndpoint { kind: IdentityEndpointKind::InstanceMetadata, authority: "169.254.169.254".into() }
}

fn response(status: u16, headers: &[(&'static str, &str)], body: &str) -> IdentityResponse {
    IdentityResponse {
        sent_at: Instant::now(),
        status: StatusCode::from_u16(status).unwrap(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn error(endpoint: &IdentityEndpoint, response: &IdentityResponse) -> CredentialError {
    validate(endpoint, false, response, &SentSecrets::default).unwrap_err().into()
}

#[test]
fn reads_the_lifetime_fields_of_entra() {
    let body =
        r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"refresh_in":1800,"access_token":"a.b.c"}"#;
    let token = validate(&entra(), false, &response(200, &[], body), &SentSecrets::default).unwrap();
    assert_eq!((token.lifetime.duration.as_secs(), token.lifetime.refresh_in), (3599, Some(Duration::from_secs(1800))));
}

#[test]
fn reads_every_lifetime_format_and_normalizes_it() {
    let headers = [("date", "Tue, 15 Jan 2030 08:00:00 GMT")];
    let jwt = format!("e30.{}.sig", jwt::encode(br#"{"exp":1894694500}"#));
    for (endpoint, fields) in [
        (entra(), r#""expires_in":"100""#),
        (entra(), r#""expires_in":100.0"#),
        (entra(), r#""expires_on":"2030-01-15T08:01:40Z""#),
        (entra(), r#""expires_in":null"#),
        (imds(), r#""expires_on":"2030-01-15T08:01:40+00:00","expires_in":"86400""#),
        (imds(), r#""expires_on":1894694500"#),
        (imds(), r#""expires_on":"1894694500""#),
        (imds(), r#""expires_in":"86400""#),
        (imds(), r#""expires_on":"soon","expires_in":86400"#),
        (imds(), ""),
    ] {
        let separator = if fields.is_empty() { "" } else { "," };
        let body = format!(r#"{{"access_token":"{jwt}"{separator}{fields}}}"#);
        let token = validate(&endpoint, false, &response(200, &headers, &body), &SentSecrets::default).unwrap();
        assert_eq!(token.lifetime.duration, Duration::from_secs(100), "{fields}");
        let form: Map<String, Value> = serde_json::from_slice(&token.normalized_body).unwrap();
        assert_eq!((&form["expires_in"], &form["access_token"]), (&json!(100), &json!(jwt)), "{fields}");
        assert!(form["expires_on"].as_str().unwrap().parse::<u64>().is_ok(), "{fields}");
    }
}

#[test]
fn masks_the_sent_secret_in_an_error() {
    let sent = || {
        let mut sent = SentSecrets::default();
        sent.add("Abc8Q~dEfGhIjKlMnOpQr");
        sent
    };
    for echo in
        ["Abc8Q~dEfGhIjKlMnOpQr", "client_secret=Abc8Q%7EdEfGhIjKlMnOpQr", "Q~dEfGhIj", "QWJjOFF+ZEVmR2hJaktsTW5PcFFy"]
    {
        let body =
            json!({ "error": echo, "error_description": format!("AADSTS1: {echo} is bad"), "correlation_id": echo });
        let err = validate(&entra(), false, &response(400, &[], &body.to_string()), &sent).unwrap_err();
        let text = format!("{err} {err:?}");
        assert!(!text.contains("EfGhIj") && !text.contains("Vm R2hJ") && text.contains("AADSTS1:"), "{text}");
    }
}

#[test]
fn uses_expires_on_of_a_cached_managed_identity_token() {
    let headers = [("date", "Tue, 15 Jan 2030 08:00:00 GMT")];
    // 1_894_694_400 is the date above; `expires_in` counts from when the cached token was made.
    let body =
        r#"{"access_token":"t","expires_in":"86400","expires_on":"1894694500","resource":"r","token_type":"Bearer"}"#;
    assert_eq!(
        validate(&imds(), false, &response(200, &headers, body), &SentSecrets::default).unwrap().lifetime.duration,
        Duration::from_secs(100)
    );
    let expired = r#"{"access_token":"t","expires_in":"86400","expires_on":"1894694400"}"#;
    let err = error(&imds(), &response(200, &headers, expired));
    assert_eq!(err.response().unwrap().unusable, Some(UnusableResponse::Lifetime(0)));
}

#[test]
fn rejects_a_200_without_a_usable_token() {
    let lifetime = UnusableResponse::Lifetime;
    for (body, unusable) in [
        ("{}", UnusableResponse::NoToken),
        (r#"{"access_token":"","expires_in":3600}"#, UnusableResponse::NoToken),
        (r#"{"access_token":"two words","expires_in":3600}"#, UnusableResponse::NotAToken),
        (r#"{"access_token":"t"}"#, UnusableResponse::NoLifetime),
        (r#"{"access_token":"t","expires_in":"soon"}"#, UnusableResponse::InvalidLifetime("expires_in")),
        (r#"{"access_token":"t","expires_in":0}"#, lifetime(0)),
        (r#"{"access_token":"t","expires_in":-5}"#, lifetime(-5)),
        (r#"{"access_token":"t","expires_in":9223372036854775807}"#, lifetime(i64::MAX)),
        ("<html>welcome to the hotel</html>", UnusableResponse::NotJson),
        ("", UnusableResponse::NotJson),
        ("[]", UnusableResponse::NotJson),
        (r#"{"access_token":7,"expires_in":3600}"#, UnusableResponse::NoToken),
    ] {
        let err = error(&entra(), &response(200, &[], body));
        assert_eq!(err.response().unwrap().unusable.as_ref(), Some(&unusable), "{body}");
        assert_eq!((err.class(), err.reason()), (ErrorClass::Transient, TokenErrorReason::Malformed), "{body}");
    }
}

#[test]
fn keeps_an_error_description_with_escapes() {
    let body = "{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000215: Invalid client secret provided.\\r\\nTrace ID: 1\\r\\nCorrelation ID: 2\",\
        \"error_codes\":[7000215],\"trace_id\":\"t-1\",\"correlation_id\":\"c-1\",\"suberror\":\"x\",\"claims\":\"{}\"}";
    let err = error(&entra(), &response(401, &[("x-ms-request-id", "r-1"), ("retry-after", "7")], body));
    let http = err.response().unwrap();
    assert_eq!(http.description.as_deref(), Some("AADSTS7000215: Invalid client secret provided."));
    assert_eq!(http.trace_id.as_deref(), Some("t-1"));
    assert_eq!((err.codes(), err.correlation_id()), (&[7_000_215][..], Some("c-1")));
    assert_eq!(err.retry_after(), Some(Duration::from_secs(7)));
    assert_eq!(
        err.to_string(),
        "Entra's token endpoint at login.microsoftonline.com answered 401 invalid_client: AADSTS7000215: the client secret is \
         wrong; use the secret's value (not its id), of a secret that the app of `client_id` has now (correlation id c-1)"
    );
}

#[test]
fn ignores_error_fields_of_an_unexpected_type() {
    let err = error(
        &entra(),
        &response(400, &[], r#"{"error":"invalid_scope","error_description":null,"error_codes":"x","trace_id":5}"#),
    );
    assert_eq!(err.response().unwrap().error.as_deref(), Some("invalid_scope"));
    let err = error(
        &imds(),
        &response(400, &[], r#"{"error":"invalid_resource","error_description":"AADSTS500011: \u0027x\u0027"}"#),
    );
    assert_eq!(err.codes(), &[500_011], "the code is in the description");
}

#[test]
fn removes_control_characters_from_an_error() {
    let body = r#"{"error":"a\nb","error_description":"x\u001b[31mred\u0000\tend","correlation_id":"1\r\n2"}"#;
    let text = error(&entra(), &response(400, &[], body)).to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
}

#[test]
fn classifies_errors_by_oauth_error_and_status() {
    use ErrorClass::{Permanent, Propagation, Transient};
    use TokenErrorReason as Reason;
    let table = [
        (
            entra(),
            false,
            401,
            r#"{"error":"invalid_client","error_codes":[7000215]}"#,
            Permanent,
            Reason::InvalidClient,
        ),
        (entra(), false, 401, r#"{"error":"invalid_client","error_codes":[1]}"#, Permanent, Reason::InvalidClient),
        (
            entra(),
            false,
            401,
            r#"{"error":"invalid_client","error_codes":[700024]}"#,
            Permanent,
            Reason::AssertionExpired,
        ),
        (entra(), true, 401, r#"{"error":"invalid_client","error_codes":[70021]}"#, Propagation, Reason::Refused),
        (entra(), true, 400, r#"{"error":"invalid_request","error_codes":[700213]}"#, Propagation, Reason::Refused),
        (
            entra(),
            false,
            400,
            r#"{"error":"unauthorized_client","error_codes":[700016]}"#,
            Propagation,
            Reason::UnknownApp,
        ),
        (entra(), false, 400, r#"{"error":"unauthorized_client"}"#, Propagation, Reason::UnknownApp),
        (entra(), false, 400, r#"{"error":"invalid_request","error_codes":[90002]}"#, Permanent, Reason::UnknownApp),
        (entra(), false, 400, r#"{"error":"invalid_resource"}"#, Permanent, Reason::Refused),
        (entra(), false, 400, r#"{"error":"temporarily_unavailable"}"#, Transient, Reason::Refused),
        (entra(), false, 429, r#"{"error":"invalid_client"}"#, Transient, Reason::Throttled),
        (entra(), false, 503, "<html>", Transient, Reason::Network),
        (entra(), false, 403, "<html>blocked by the proxy</html>", Transient, Reason::Malformed),
        (entra(), false, 302, "", Transient, Reason::Malformed),
        (
            imds(),
            false,
            400,
            r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
            Permanent,
            Reason::Refused,
        ),
        (imds(), false, 404, "", Transient, Reason::Refused),
        (imds(), false, 410, "", Transient, Reason::Refused),
        (imds(), false, 500, "", Transient, Reason::Network),
    ];
    for (endpoint, federated, status, body, class, reason) in table {
        let err = CredentialError::from(
            validate(&endpoint, federated, &response(status, &[], body), &SentSecrets::default).unwrap_err(),
        );
        assert_eq!((err.class(), err.reason()), (class, reason), "{status} {body}");
    }
}

#[test]
fn parses_a_retry_after_date_by_the_clock_of_the_endpoint() {
    let headers = [("date", "Tue, 15 Jan 2030 08:00:00 GMT"), ("retry-after", "Tue, 15 Jan 2030 08:01:30 GMT")];
    assert_eq!(error(&entra(), &response(429, &headers, "")).retry_after(), Some(Duration::from_secs(90)));
}

#[test]
fn error_says_what_to_check() {
    for (endpoint, status, body, hint) in [
        (
            entra(),
            403,
            "<html>",
            ", which is not an error response of Entra: a proxy or captive portal responded instead",
        ),
        (entra(), 400, r#"{"error":"invalid_scope"}"#, " invalid_scope"),
        (
            imds(),
            400,
            r#"{"error":"invalid_request"}"#,
            " invalid_request; check that the identity exists and is assigned to this host",
        ),
    ] {
        let text = error(&endpoint, &response(status, &[], body)).to_string();
        assert_eq!(text, format!("{endpoint} answered {status}{hint}"));
    }
}
