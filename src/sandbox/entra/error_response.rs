//! The error responses of the token endpoint: AADSTS code, OAuth error, status and JSON body.
//!
//! The codes and their meanings are Entra's. The messages are the sandbox's own, in Entra's format.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::sandbox::crypto::ids::guid;
use crate::sandbox::crypto::keys::unix_seconds;

/// An error response of the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ErrorResponse {
    /// The AADSTS number.
    pub(super) code: u32,
    /// The OAuth error (RFC 6749 section 5.2).
    pub(super) error: &'static str,
    /// The HTTP status.
    pub(super) status: StatusCode,
    /// The error description, without the code.
    pub(super) message: String,
    /// The value of `suberror`.
    pub(super) suberror: Option<&'static str>,
    /// The value of `Retry-After`.
    pub(super) retry_after: Option<Duration>,
}

/// The ids of one response.
#[derive(Clone, Debug)]
pub(super) struct ResponseIds {
    /// The trace id, which is also the value of `x-ms-request-id`.
    pub(super) trace: String,
    /// The correlation id.
    pub(super) correlation: String,
}

impl ResponseIds {
    /// Creates ids. The client's `client-request-id`, if any, becomes the correlation id.
    pub(super) fn new(client_request_id: Option<&str>) -> Self {
        Self { trace: guid(), correlation: client_request_id.map_or_else(guid, str::to_owned) }
    }
}

impl ErrorResponse {
    fn new(code: u32, error: &'static str, status: StatusCode, message: String) -> Self {
        Self { code, error, status, message, suberror: None, retry_after: None }
    }

    /// Returns 400 `invalid_request`: the request is invalid.
    fn invalid_request(code: u32, message: String) -> Self {
        Self::new(code, "invalid_request", StatusCode::BAD_REQUEST, message)
    }

    /// Returns 401 `invalid_client`: client authentication failed.
    fn invalid_client(code: u32, message: String) -> Self {
        Self::new(code, "invalid_client", StatusCode::UNAUTHORIZED, message)
    }

    /// Returns 400 `unauthorized_client`: the client may not use the tenant.
    fn unauthorized_client(code: u32, message: String) -> Self {
        Self::new(code, "unauthorized_client", StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn missing_parameter(name: &str) -> Self {
        Self::invalid_request(900_144, format!("The request body must contain the following parameter: '{name}'."))
    }

    pub(super) fn unsupported_grant(grant: &str) -> Self {
        let message = format!("The app requested an unsupported grant type '{grant}'.");
        Self::new(70_003, "unsupported_grant_type", StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn device_code() -> Self {
        let message = "The client is confidential and has no device code flow; it must be marked as 'mobile' for that.";
        Self::invalid_client(70_002, message.to_owned())
    }

    pub(super) fn tenant_not_found(tenant: &str) -> Self {
        let message =
            format!("Tenant '{tenant}' not found. Check that the tenant id and the cloud are the right ones.");
        Self::invalid_request(90_002, message)
    }

    pub(super) fn tenant_malformed(tenant: &str) -> Self {
        let message = format!("Specified tenant identifier '{tenant}' is neither a valid DNS name nor a valid GUID.");
        Self::invalid_request(900_023, message)
    }

    pub(super) fn tenant_unspecified(tenant: &str) -> Self {
        let message = format!("No tenant-identifying information can be derived from '{tenant}' for this request.");
        Self::invalid_request(50_059, message)
    }

    pub(super) fn single_tenant_at_common(client_id: &str, tenant: &str) -> Self {
        let message = format!(
            "Application '{client_id}' is not configured as a multi-tenant application. The /{tenant} endpoint is not \
             supported for such applications."
        );
        Self::invalid_request(50_194, message)
    }

    pub(super) fn other_cloud(tenant: &str) -> Self {
        Self::invalid_request(90_038, format!("Tenant '{tenant}' belongs to another national cloud."))
    }

    pub(super) fn throttled(retry_after: Duration) -> Self {
        let message = String::from("There are too many requests for this tenant. Try again later.");
        let error = Self::new(90_055, "temporarily_unavailable", StatusCode::TOO_MANY_REQUESTS, message);
        Self { retry_after: Some(retry_after), ..error }
    }

    pub(super) fn application_not_found(client_id: &str, tenant: &str) -> Self {
        let message = format!(
            "Application with identifier '{client_id}' was not found in the directory '{tenant}'. It is not installed \
             there by an administrator, or the request went to the wrong tenant."
        );
        Self::unauthorized_client(700_016, message)
    }

    pub(super) fn service_principal_missing(client_id: &str, tenant: &str) -> Self {
        let message =
            format!("The client application {client_id} is missing service principal in the tenant {tenant}.");
        Self::invalid_client(7_000_229, message)
    }

    pub(super) fn application_disabled(client_id: &str) -> Self {
        Self::unauthorized_client(7_000_112, format!("Application '{client_id}' is disabled."))
    }

    pub(super) fn no_credential() -> Self {
        let message = String::from(
            "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
        );
        Self::invalid_client(7_000_218, message)
    }

    pub(super) fn wrong_secret(client_id: &str) -> Self {
        let message = format!(
            "Invalid client secret provided. Ensure the secret being sent is the client secret value, not the client \
             secret ID, for a secret added to app '{client_id}'."
        );
        Self::invalid_client(7_000_215, message)
    }

    pub(super) fn secret_expired(client_id: &str) -> Self {
        let message = format!("The provided client secret keys for app '{client_id}' are expired. Create new keys.");
        Self::invalid_client(7_000_222, message)
    }

    pub(super) fn assertion_malformed(detail: &str) -> Self {
        Self::invalid_request(50_027, format!("JWT token is invalid or malformed. {detail}"))
    }

    pub(super) fn certificate_rejected(reason: &str) -> Self {
        let message = format!("Client assertion contains an invalid signature. [Reason - {reason}]");
        Self::invalid_client(700_027, message)
    }

    pub(super) fn assertion_issuer(client_id: &str) -> Self {
        let message =
            format!("Client assertion application identifier doesn't match 'client_id' parameter '{client_id}'.");
        Self::invalid_client(700_021, message)
    }

    pub(super) fn assertion_subject() -> Self {
        Self::invalid_client(50_048, String::from("Subject must match Issuer claim in the client assertion."))
    }

    pub(super) fn assertion_audience(audience: &str) -> Self {
        let message = format!("Client assertion audience claim '{audience}' does not match Realm issuer.");
        Self::invalid_client(700_023, message)
    }

    pub(super) fn assertion_time(now: SystemTime, not_before: Option<i64>, expires: i64) -> Self {
        let from = not_before.map_or_else(|| String::from("unspecified"), timestamp);
        let message = format!(
            "Client assertion is not within its valid time range. Current time: {}, assertion valid from {from}, \
             expiry time of assertion {}.",
            timestamp(unix_seconds(now)),
            timestamp(expires),
        );
        Self::invalid_client(700_024, message)
    }

    pub(super) fn assertion_invalid(reason: &str) -> Self {
        let message = format!("Assertion failed signature validation. [Reason - {reason}]");
        Self::invalid_client(50_013, message)
    }

    pub(super) fn assertion_replayed() -> Self {
        // Entra documents that `jti` prevents replay, but no error code for it. This is the general code for assertions.
        let message = String::from("Assertion is invalid. [Reason - An assertion with this 'jti' was used before.]");
        Self::invalid_client(50_013, message)
    }

    pub(super) fn no_federated_credential(issuer: &str, subject: &str, audience: &str) -> Self {
        let message = format!(
            "No matching federated identity record found for presented assertion. Assertion Issuer: '{issuer}'. \
             Assertion Subject: '{subject}'. Assertion Audience: '{audience}'."
        );
        Self::invalid_request(70_021, message)
    }

    pub(super) fn federated_issuer(issuer: &str) -> Self {
        let message = format!("No matching federated identity record found for presented assertion issuer '{issuer}'.");
        Self::invalid_client(700_211, message)
    }

    pub(super) fn federated_audience(audience: &str) -> Self {
        let message =
            format!("No matching federated identity record found for presented assertion audience '{audience}'.");
        Self::invalid_client(700_212, message)
    }

    pub(super) fn federated_subject(subject: &str) -> Self {
        let message =
            format!("No matching federated identity record found for presented assertion subject '{subject}'.");
        Self::invalid_client(700_213, message)
    }

    pub(super) fn federated_subject_case(subject: &str) -> Self {
        let message = format!(
            "No matching federated identity record found for presented assertion subject '{subject}'. The subject \
             matches with case-insensitive comparison, but not with case-sensitive comparison."
        );
        Self::invalid_client(7_002_138, message)
    }

    pub(super) fn identity_of_other_tenant(identity_tenant: &str, home_tenant: &str) -> Self {
        let message = format!(
            "The managed identity of tenant '{identity_tenant}' cannot be used by an application of tenant \
             '{home_tenant}': both must be in one tenant."
        );
        Self::invalid_client(700_236, message)
    }

    pub(super) fn not_a_managed_identity() -> Self {
        let message = String::from("Only tokens of managed identities may be presented as an Entra-issued assertion.");
        Self::invalid_client(700_226, message)
    }

    pub(super) fn version_1_issuer(issuer: &str) -> Self {
        let message = format!("The issuer form '{issuer}' is not allowed in an assertion: a v2.0 issuer is needed.");
        Self::invalid_client(700_227, message)
    }

    pub(super) fn scope_malformed(scope: &str) -> Self {
        let message = format!(
            "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with \
             /.default suffixed to the resource identifier."
        );
        Self::new(1_002_012, "invalid_scope", StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn several_scopes(scope: &str) -> Self {
        let message = format!("The provided value for the input parameter 'scope' is not valid: '{scope}'.");
        Self::new(70_011, "invalid_scope", StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn resource_not_found(resource: &str, tenant: &str) -> Self {
        let message = format!(
            "The resource principal named {resource} was not found in the tenant named {tenant}. The application is \
             not installed there, or the request went to the wrong tenant."
        );
        Self::new(500_011, "invalid_resource", StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn conditional_access() -> Self {
        let message = String::from(
            "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.",
        );
        let error = Self::new(53_003, "invalid_grant", StatusCode::BAD_REQUEST, message);
        Self { suberror: Some("message_only"), ..error }
    }

    /// Returns the body of the response. CRLF separates the lines of the description.
    ///
    /// Source: the sample response in Microsoft's documentation of the client credentials flow.
    pub(super) fn body(&self, ids: &ResponseIds, authority: &str, now: SystemTime) -> Value {
        let at = timestamp(unix_seconds(now));
        let mut body = json!({
            "error": self.error,
            "error_description": self.description(ids, &at),
            "error_codes": [self.code],
            "timestamp": at,
            "trace_id": ids.trace,
            "correlation_id": ids.correlation,
            "error_uri": format!("{authority}/error?code={}", self.code),
        });
        if let (Some(suberror), Some(fields)) = (self.suberror, body.as_object_mut()) {
            fields.insert(String::from("suberror"), Value::from(suberror));
        }
        body
    }

    fn description(&self, ids: &ResponseIds, at: &str) -> String {
        format!(
            "AADSTS{}: {}\r\nTrace ID: {}\r\nCorrelation ID: {}\r\nTimestamp: {at}",
            self.code, self.message, ids.trace, ids.correlation
        )
    }
}

/// Formats a time as Entra does: `2026-01-31 09:07:41Z`.
fn timestamp(seconds: i64) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| at.format(format).ok())
        .unwrap_or_else(|| seconds.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn formats_an_error_as_entra_does() {
        let ids = ResponseIds::new(Some("11111111-2222-4333-8444-555555555555"));
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let body = ErrorResponse::wrong_secret("app").body(&ids, "https://login.test", now);
        assert_eq!(body["error"], "invalid_client");
        assert_eq!(body["error_codes"], json!([7_000_215]));
        assert_eq!(body["timestamp"], "2023-11-14 22:13:20Z");
        assert_eq!(body["correlation_id"], "11111111-2222-4333-8444-555555555555");
        assert_eq!(body["error_uri"], "https://login.test/error?code=7000215");
        let lines: Vec<&str> = body["error_description"].as_str().unwrap().split("\r\n").collect();
        assert!(lines[0].starts_with("AADSTS7000215: Invalid client secret provided."), "{}", lines[0]);
        assert_eq!(lines[1], format!("Trace ID: {}", ids.trace));
        assert_eq!(lines[2], "Correlation ID: 11111111-2222-4333-8444-555555555555");
        assert_eq!(lines[3], "Timestamp: 2023-11-14 22:13:20Z");
    }
}
