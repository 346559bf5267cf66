//! A request to an identity provider outside Entra: sends it, validates the response and records the step.
//!
//! Each provider's file builds its own request.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use http_body_util::Full;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::fresh::FreshAssertion;
use crate::credential::bearer::{Bearer, Fingerprint};
use crate::credential::error::CredentialError;
use crate::credential::identity_endpoint::{IdentityEndpoint, IdentityEndpointKind, IdentityProvider};
use crate::credential::jwt;
use crate::credential::local_error::SecretError;
use crate::credential::record::{AcquisitionRecord, AcquisitionStep, StepOutcome};
use crate::credential::response::{self, IdentityResponse, date};
use crate::credential::response_error::{NoResponse, UnusableResponse};
use crate::credential::transport::IdentityClient;
use crate::files::Secret;
use crate::metrics::TokenStage;
use crate::redact::SentSecrets;

/// The `User-Agent` header, which some providers require.
pub(super) const USER_AGENT: &str = concat!("signalr-gateway/", env!("CARGO_PKG_VERSION"));

/// A request to an identity provider.
pub(super) struct ProviderRequest<'a> {
    pub(super) provider: IdentityProvider,
    /// What is requested, for messages.
    pub(super) subject: String,
    pub(super) request: http::Result<Request<Full<Bytes>>>,
    /// The secret in the request, masked where the response repeats it.
    pub(super) secret: Option<&'a Secret>,
}

impl ProviderRequest<'_> {
    /// Sends the request and returns the assertion. `read` extracts it from a successful response.
    pub(super) async fn send(
        self,
        client: &IdentityClient,
        record: &AcquisitionRecord,
        read: impl Fn(&IdentityResponse) -> Result<Secret, UnusableResponse>,
    ) -> Result<FreshAssertion, CredentialError> {
        let uri = self.request.as_ref().map(Request::uri).ok();
        let authority = uri.and_then(Uri::authority).map(ToString::to_string).unwrap_or_default();
        let endpoint = IdentityEndpoint { kind: IdentityEndpointKind::Provider(self.provider), authority };
        let started = Instant::now();
        let outcome = send((client, record.request_timeout()), self.request, &endpoint, self.secret, read).await;
        let recorded = match &outcome {
            Ok((assertion, response)) => StepOutcome::Token {
                fingerprint: Fingerprint::of(assertion.expose()),
                claims: jwt::claims(assertion.expose()),
                endpoint_clock: date(&response.headers),
            },
            Err(err) => StepOutcome::failed(err),
        };
        record.add_step(AcquisitionStep {
            stage: TokenStage::Assertion,
            subject: self.subject,
            endpoint: Some(endpoint),
            took: started.elapsed(),
            not_after: None,
            outcome: recorded,
        });
        let (assertion, response) = outcome?;
        let now = date(&response.headers).unwrap_or_else(SystemTime::now);
        Ok(FreshAssertion::from_jwt(assertion, response.sent_at, now))
    }
}

async fn send(
    (client, limit): (&IdentityClient, Option<Duration>),
    request: http::Result<Request<Full<Bytes>>>,
    endpoint: &IdentityEndpoint,
    secret: Option<&Secret>,
    read: impl Fn(&IdentityResponse) -> Result<Secret, UnusableResponse>,
) -> Result<(Secret, IdentityResponse), CredentialError> {
    let no_response = |source| CredentialError::NoResponse { endpoint: endpoint.clone(), source };
    let request =
        request.map_err(|_invalid| no_response(NoResponse::InvalidRequest("its address or headers are not valid")))?;
    let response = client.send(request, limit).await.map_err(no_response)?;
    let sent = || {
        let mut sent = SentSecrets::default();
        if let Some(secret) = secret {
            sent.add(secret.expose());
        }
        sent
    };
    let read = |response: &IdentityResponse| read(response).and_then(require_jwt);
    let assertion = response::read_success(endpoint, false, &response, &sent, read)?;
    Ok((assertion, response))
}

/// Checks that a token is a JWT. Entra validates its issuer, audience and expiry.
fn require_jwt(token: Secret) -> Result<Secret, UnusableResponse> {
    Bearer::new(token.expose()).map_err(|_not_a_token| UnusableResponse::NotAToken)?;
    jwt::claims(token.expose()).map(|_| token).ok_or(UnusableResponse::NotAnAssertion)
}

/// Returns the token in a field of a JSON response.
pub(super) fn field(response: &IdentityResponse, name: &'static str) -> Result<Secret, UnusableResponse> {
    let mut fields: Map<String, Value> =
        serde_json::from_slice(&response.body).map_err(|_err| UnusableResponse::NotJson)?;
    match fields.remove(name) {
        Some(Value::String(token)) if !token.is_empty() => Ok(Secret::new(token)),
        _ => Err(UnusableResponse::NoAssertion(name)),
    }
}

/// Parses a URL from an environment variable and appends to its query. Rejects URLs that would send a secret unencrypted over
/// a network.
pub(super) fn url_from_variable(variable: &str, text: &str, query: &[(&str, &str)]) -> Result<String, SecretError> {
    let unusable = |problem| SecretError::Unusable { location: format!("environment variable {variable}"), problem };
    let uri: Uri = text.parse().map_err(|_invalid| unusable("is not a URL"))?;
    // The URL appears in messages, and no platform puts credentials into it.
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(unusable("contains user information"));
    }
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let on_host = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if on_host => {}
        _ => return Err(unusable("is not an https URL")),
    }
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    let separator = if uri.query().is_some() { '&' } else { '?' };
    Ok(format!("{text}{separator}{query}"))
}

/// Formats an `Authorization` value with a secret.
pub(super) fn authorization(scheme: &str, secret: &str, location: &str) -> Result<HeaderValue, SecretError> {
    let value = HeaderValue::try_from(format!("{scheme} {secret}"));
    let mut value = value.map_err(|_invalid| SecretError::Unusable {
        location: location.to_owned(),
        problem: "has characters that are not allowed in a header",
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_of_the_environment_must_be_https_or_loopback() {
        let url = |text: &str| url_from_variable("X", text, &[("audience", "api://a b")]);
        assert_eq!(url("https://a.example/t").unwrap(), "https://a.example/t?audience=api%3A%2F%2Fa+b");
        assert_eq!(url("https://a.example/t?v=1").unwrap(), "https://a.example/t?v=1&audience=api%3A%2F%2Fa+b");
        assert!(url("http://127.0.0.1:1/t").is_ok() && url("http://[::1]:1/t").is_ok());
        for bad in
            ["http://a.example/t", "http://127.0.0.1.example/", "file:///etc/passwd", "a", "", "https://a\r\nx: y"]
        {
            let err = url(bad).unwrap_err().to_string();
            assert!(err.starts_with("environment variable X is not a"), "{bad:?}: {err}");
        }
        let err = url("https://me:hunter2@a.example/t").unwrap_err().to_string();
        assert_eq!(err, "environment variable X contains user information");
    }

    #[test]
    fn rejects_a_secret_with_a_line_break_in_a_header() {
        let err = authorization("Bearer", "one\r\nx-injected: two", "file x").unwrap_err().to_string();
        assert_eq!(err, "file x has characters that are not allowed in a header");
        assert!(authorization("Bearer", "token", "file x").unwrap().is_sensitive());
    }
}
