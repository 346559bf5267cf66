//! Validates the responses of identity endpoints: the token and its lifetime, or the error.
//!
//! The identity library accepts every 200, and drops an error description that contains an escape sequence. Each response is
//! therefore validated here first. A valid response is passed on in a normalized form that the library can read.

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

/// The longest lifetime that is accepted. Tokens of managed identities live for 24 hours, those of Entra for up to 28.
const MAX_LIFETIME: Duration = Duration::from_secs(48 * 60 * 60);

/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 600;

/// The longest `error`, in bytes. Those of RFC 6749 and Entra have at most 30.
const MAX_ERROR: usize = 60;

/// A response of an identity endpoint.
pub(crate) struct IdentityResponse {
    /// When the request was sent. Lifetimes are counted from here, so that a slow response does not extend them.
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

/// Validates the response to a token request. `federated` is whether the request carried a token of another identity; `sent`
/// returns the secrets in the request.
pub(crate) fn validate(
    endpoint: &IdentityEndpoint,
    federated: bool,
    response: &IdentityResponse,
    sent: &dyn Fn() -> SentSecrets,
) -> Result<TokenResponse, Box<ResponseError>> {
    read_success(endpoint, federated, response, sent, |response| parse_token(endpoint, response))
}

/// Extracts the token from a response with a success status by `read`. Any other response, or one without a usable token, is an
/// error. The other arguments are those of [`validate`].
pub(crate) fn read_success<T>(
    endpoint: &IdentityEndpoint,
    federated: bool,
    response: &IdentityResponse,
    sent: &dyn Fn() -> SentSecrets,
    read: impl FnOnce(&IdentityResponse) -> Result<T, UnusableResponse>,
) -> Result<T, Box<ResponseError>> {
    let unusable = if response.status.is_success() {
        match read(response) {
            Ok(token) => return Ok(token),
            Err(unusable) => Some(unusable),
        }
    } else {
        None
    };
    // Some proxies respond with 200 and an error, so the body is parsed in both cases.
    Err(Box::new(ResponseError { unusable, ..parse_error(endpoint, federated, response, &sent()) }))
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
        // These endpoints cache tokens, and their `expires_in` is relative to the time of issue.
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

/// Formats a token response for both parsers of the identity library: `expires_in` for Entra's, `expires_on` as a string for
/// that of managed identities, and every field that one of them requires.
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

/// Masks the secrets in a description and truncates it. Removes the ids at its end, which Entra also sends as fields.
fn description(text: &str, sent: &SentSecrets) -> String {
    let text = text.split("Trace ID: ").next().unwrap_or(text);
    mask(text, MAX_DESCRIPTION, sent)
}

fn mask(text: &str, max: usize, sent: &SentSecrets) -> String {
    // Masks more than is kept, so that the rest of a truncated secret is not mistaken for a word.
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

/// Parses `Date`.
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
mod tests;
