//! Assertions from Google Cloud: the ID token of a service account, from the metadata server of the host.
//!
//! ```text
//! host (Compute Engine, GKE, Cloud Run)                                       tenant B
//! metadata server ── ID token of its service account ── assertion ──────────► token ──► SignalR
//! ```
//!
//! Its issuer is `https://accounts.google.com`, its subject the service account's unique id (a number).
//! Source: Google Cloud, "Verify the identity of a Compute Engine instance" and "View and query VM metadata".

use http::header::USER_AGENT;
use http::{HeaderName, Method, Request};
use http_body_util::Full;

use super::fresh::FreshAssertion;
use super::provider::{self, ProviderRequest};
use crate::credential::error::CredentialError;
use crate::credential::identity_endpoint::IdentityProvider;
use crate::credential::record::AcquisitionRecord;
use crate::credential::response::IdentityResponse;
use crate::credential::response_error::UnusableResponse;
use crate::credential::transport::IdentityClient;
use crate::files::Secret;

/// The header that the metadata server requires in every request and sets in every response.
const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");

/// A request for the ID token of a service account.
pub(super) struct IdentityRequest<'a> {
    pub(super) audience: &'a str,
    /// `default`, or an e-mail address.
    pub(super) service_account: &'a str,
    /// Whether to include claims about the instance.
    pub(super) full: bool,
    pub(super) endpoint: &'a str,
}

impl IdentityRequest<'_> {
    /// Sends the request to the metadata server.
    pub(super) async fn assertion(
        &self,
        client: &IdentityClient,
        record: &AcquisitionRecord,
    ) -> Result<FreshAssertion, CredentialError> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(self.url())
            .header(FLAVOR, "Google")
            .header(USER_AGENT, provider::USER_AGENT)
            .body(Full::default());
        let subject = format!("ID token of Google service account {} for {}", self.service_account, self.audience);
        let request = ProviderRequest { provider: IdentityProvider::GcpMetadata, subject, request, secret: None };
        request.send(client, record, token_in_body).await
    }

    fn url(&self) -> String {
        let (endpoint, account) = (self.endpoint, self.service_account);
        let format = if self.full { "full" } else { "standard" };
        let mut query = form_urlencoded::Serializer::new(String::new());
        let query = query.append_pair("audience", self.audience).append_pair("format", format).finish();
        format!("{endpoint}/computeMetadata/v1/instance/service-accounts/{account}/identity?{query}")
    }
}

/// Returns the body, which is the token, if the response is from the metadata server.
fn token_in_body(response: &IdentityResponse) -> Result<Secret, UnusableResponse> {
    if response.headers.get(FLAVOR).is_none_or(|flavor| flavor.as_bytes() != b"Google") {
        return Err(UnusableResponse::NotGoogle);
    }
    match std::str::from_utf8(&response.body).map(str::trim) {
        Ok(token) if !token.is_empty() => Ok(Secret::new(token.to_owned())),
        Ok(_) | Err(_) => Err(UnusableResponse::NoToken),
    }
}
