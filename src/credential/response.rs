//! Validates the responses of identity endpoints: the token and its lifetime, or the error.
//!
//! The identity library accepts every 200 and loses error descriptions (an escape sequence is enough), so each response is
//! validated here first. A valid one is passed on in a normalized form that the library can read.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::bearer::{Bearer, Fingerprint};
use super::identity_endpoint::{IdentityEndpoint, IdentityEndpointKind};
use super::jwt::{self, Claims};
use super::lifetime;
use super::lifetime::Lifetime;
use super::response_error::{ResponseError, UnusableResponse};
use crate::redact::{self, SentSecrets};

/// The longest lifetime that is accepted. Tokens of managed identities live for 24 hours, the longest of Entra for 28.
const MAX_LIFETIME: Duration = Duration::from_secs(48 * 60 * 60);

/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 600;

/// The longest `error`, in bytes. Those of RFC 6749 and Entra have up to 30.
const MAX_ERROR: usize = 60;

/// A response of an identity endpoint.
pub(crate) struct IdentityResponse {
    /// When the request was sent. Lifetimes start here, so that a slow response does not extend them.
    pub(crate) sent_at: Instant,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A valid token response.
#[derive(Clone, Debug)]
pub(crate) struct TokenResponse {
    /// The lifetime of the token, from when the request was sent.
    pub(crate) lifetime: Lifetime,
    pub(crate) fingerprint: Fingerprint,
    /// The token's claims, if it is a JWT.
    pub(crate) claims: Option<Claims>,
    /// `Date` of the response.
    pub(crate) date: Option<SystemTime>,
    /// The body in a form that each parser of the identity library accepts.
    pub(crate) normalized_body: Bytes,
}

/// Validates the response to a token request. `federated` is whether the request carried an assertion of another identity; `sent`
/// collects the secrets in the request.
pub(crate) fn validate(
    endpoint: &IdentityEndpoint,
    federated: bool,
    response: &IdentityResponse,
    sent: &dyn Fn() -> SentSecrets,
) -> Result<TokenResponse, Box<ResponseError>> {
    if !response.status.is_success() {
        return Err(Box::new(parse_error(endpoint, federated, response, &sent())));
    }
    parse_token(endpoint, response).map_err(|unusable| {
        // Some proxies respond with 200 and an error.
        Box::new(ResponseError { unusable: Some(unusable), ..parse_error(endpoint, federated, response, &sent()) })
    })
}

fn parse_token(endpoint: &IdentityEndpoint, response: &IdentityResponse) -> Result<TokenResponse, UnusableResponse> {
    let fields: Map<String, Value> =
        serde_json::from_slice(&response.body).map_err(|_err| UnusableResponse::NotJson)?;
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let token = field("access_token").and_then(Value::as_str).filter(|token| !token.is_empty());
    let token = token.ok_or(UnusableResponse::NoToken)?;
    let bearer = Bearer::new(token).map_err(|_not_a_token| UnusableResponse::NotAToken)?;
    let (date, claims) = (date(&response.headers), jwt::claims(token));
    let remaining =
        |at: SystemTime| unix_seconds(at).saturating_sub(unix_seconds(date.unwrap_or_else(SystemTime::now)));
    let expires_in = field("expires_in").and_then(lifetime::seconds);
    let expires_on = field("expires_on").and_then(lifetime::timestamp).map(remaining);
    let claimed = claims.as_ref().and_then(jwt::expiry).map(remaining);
    let given = ["expires_on", "expires_in"].into_iter().find(|name| field(name).is_some());
    if let (Some(field), None, None) = (given, expires_in, expires_on) {
        return Err(UnusableResponse::InvalidLifetime(field));
    }
    let lifetime = match endpoint.kind {
        IdentityEndpointKind::Entra => expires_in.or(expires_on).or(claimed),
        // These endpoints cache tokens, and their `expires_in` counts from when the token was issued.
        IdentityEndpointKind::InstanceMetadata | IdentityEndpointKind::AppService => {
            expires_on.or(claimed).or(expires_in)
        }
        IdentityEndpointKind::Provider(_) => expires_in,
    };
    let seconds = lifetime.ok_or(UnusableResponse::NoLifetime)?;
    let duration =
        positive(seconds).filter(|lifetime| *lifetime <= MAX_LIFETIME).ok_or(UnusableResponse::Lifetime(seconds))?;
    let refresh_in = match endpoint.kind {
        IdentityEndpointKind::Entra => field("refresh_in").and_then(lifetime::seconds).and_then(positive),
        IdentityEndpointKind::InstanceMetadata
        | IdentityEndpointKind::AppService
        | IdentityEndpointKind::Provider(_) => None,
    };
    Ok(TokenResponse {
        lifetime: Lifetime {
            starts: response.sent_at,
            duration,
            refresh_in: refresh_in.filter(|refresh_in| *refresh_in < duration),
        },
        fingerprint: bearer.fingerprint(),
        normalized_body: normalized_body(token, duration),
        claims,
        date,
    })
}

/// Formats a token response for both parsers of the identity library: `expires_in` for Entra's, `expires_on` as a string for that
/// of managed identities, and every field that either requires.
fn normalized_body(token: &str, duration: Duration) -> Bytes {
    let expires_on = jwt::unix_seconds(SystemTime::now()).saturating_add(duration.as_secs());
    let response = json!({
        "token_type": "Bearer",
        "access_token": token,
        "expires_in": duration.as_secs(),
        "expires_on": expires_on.to_string(),
        "resource": "",
    });
    response.to_string().into()
}

/// Parses an error response: RFC 6749 section 5.2, the fields that Entra adds, and `message` of App Service. Ignores fields of an
/// unexpected type.
pub(crate) fn parse_error(
    endpoint: &IdentityEndpoint,
    federated: bool,
    response: &IdentityResponse,
    sent: &SentSecrets,
) -> ResponseError {
    let fields: Map<String, Value> = serde_json::from_slice(&response.body).unwrap_or_default();
    let text = |name: &str| fields.get(name)?.as_str().filter(|text| !text.is_empty());
    let id = |name: &str| text(name).and_then(redact::id).map(|id| redact::prose(id, sent));
    let description = text("error_description").or_else(|| text("message")).map(|text| description(text, sent));
    let listed = fields.get("error_codes").and_then(Value::as_array);
    let listed =
        listed.map(|codes| codes.iter().filter_map(Value::as_u64).filter_map(|code| code.try_into().ok()).collect());
    let codes = listed.filter(|codes: &Vec<u32>| !codes.is_empty());
    ResponseError {
        endpoint: endpoint.clone(),
        status: response.status,
        unusable: None,
        error: text("error").map(|text| match redact::code(text) {
            Some(code) => redact::prose(code, sent),
            None => mask(text, MAX_ERROR, sent),
        }),
        codes: codes.unwrap_or_else(|| description.as_deref().map(codes_in).unwrap_or_default()),
        description,
        correlation_id: id("correlation_id"),
        trace_id: id("trace_id"),
        retry_after: retry_after(&response.headers),
        date: date(&response.headers),
        federated,
    }
}

/// Returns a description with secrets masked, truncated, and without the ids that Entra repeats at its end.
fn description(text: &str, sent: &SentSecrets) -> String {
    let text = text.split("Trace ID: ").next().unwrap_or(text);
    mask(text, MAX_DESCRIPTION, sent)
}

fn mask(text: &str, max: usize, sent: &SentSecrets) -> String {
    // Masks more than is kept, so that a truncated secret does not pass as a word.
    let line = redact::prose(truncate(text, 8 * max), sent);
    truncate(&line, max).to_owned()
}

/// Truncates a text at a character boundary.
fn truncate(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or(text)
}

/// Returns the `AADSTS…` codes in a description.
fn codes_in(description: &str) -> Vec<u32> {
    description
        .split("AADSTS")
        .skip(1)
        .filter_map(|rest| {
            let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
            rest.get(..digits)?.parse().ok()
        })
        .collect()
}

/// Parses `Retry-After`: seconds or a date (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let now = date(headers).unwrap_or_else(SystemTime::now);
    Some(at.duration_since(now).unwrap_or_default())
}

pub(crate) fn date(headers: &HeaderMap) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(header::DATE)?.to_str().ok()?).ok()
}

fn positive(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

fn unix_seconds(at: SystemTime) -> i64 {
    i64::try_from(jwt::unix_seconds(at)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
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
        let body = r#"{"token_type":"Bearer","expires_in":3599,"ext_expires_in":3599,"refresh_in":1800,"access_token":"a.b.c"}"#;
        let token = validate(&entra(), false, &response(200, &[], body), &SentSecrets::default).unwrap();
        assert_eq!(
            (token.lifetime.duration.as_secs(), token.lifetime.refresh_in),
            (3599, Some(Duration::from_secs(1800)))
        );
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
        for echo in [
            "Abc8Q~dEfGhIjKlMnOpQr",
            "client_secret=Abc8Q%7EdEfGhIjKlMnOpQr",
            "Q~dEfGhIj",
            "QWJjOFF+ZEVmR2hJaktsTW5PcFFy",
        ] {
            let body = json!({ "error": echo, "error_description": format!("AADSTS1: {echo} is bad"), "correlation_id": echo });
            let err = validate(&entra(), false, &response(400, &[], &body.to_string()), &sent).unwrap_err();
            let text = format!("{err} {err:?}");
            assert!(!text.contains("EfGhIj") && !text.contains("Vm R2hJ") && text.contains("AADSTS1:"), "{text}");
        }
    }

    #[test]
    fn uses_expires_on_of_a_cached_managed_identity_token() {
        let headers = [("date", "Tue, 15 Jan 2030 08:00:00 GMT")];
        // 1_894_694_400 is the date above; `expires_in` counts from when the cached token was made.
        let body = r#"{"access_token":"t","expires_in":"86400","expires_on":"1894694500","resource":"r","token_type":"Bearer"}"#;
        assert_eq!(
            validate(&imds(), false, &response(200, &headers, body), &SentSecrets::default).unwrap().lifetime.duration,
            Duration::from_secs(100)
        );
        let expired = r#"{"access_token":"t","expires_in":"86400","expires_on":"1894694400"}"#;
        let err = error(&imds(), &response(200, &headers, expired));
        assert_eq!(err.response().unwrap().unusable, Some(UnusableResponse::Lifetime(0)));
    }

    #[test]
    fn refuses_a_200_without_a_usable_token() {
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
             wrong; use the secret's value (not its id), created on the app of `client_id` (correlation id c-1)"
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
            (
                entra(),
                false,
                400,
                r#"{"error":"invalid_request","error_codes":[90002]}"#,
                Permanent,
                Reason::UnknownApp,
            ),
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
}
