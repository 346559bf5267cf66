//! Assertions from GitHub Actions: the ID token of the job.
//!
//! ```text
//! job (permissions: id-token: write)      GitHub                                tenant B
//! ACTIONS_ID_TOKEN_REQUEST_URL, …TOKEN ──► ID token (5 minutes) ── assertion ──► token ──► SignalR
//! ```
//!
//! GitHub sets the variables for steps of the job. The request token is valid while the job runs. The ID token names the
//! job and the audience, so all tenants use it, for most of its lifetime of five minutes.
//! Source: GitHub, "`OpenID` Connect reference", "Methods for requesting the OIDC token".

use http::header::{ACCEPT, AUTHORIZATION, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;

use super::fresh::FreshAssertion;
use super::provider::{self, ProviderRequest};
use crate::credential::error::CredentialError;
use crate::credential::identity_endpoint::IdentityProvider;
use crate::credential::record::AcquisitionRecord;
use crate::credential::secret::read_secret;
use crate::credential::transport::IdentityClient;
use crate::files::SecretSource;

/// The variable with the URL of the request, which already has a query.
const URL: &str = "ACTIONS_ID_TOKEN_REQUEST_URL";
/// The variable with the bearer of the request.
const TOKEN: &str = "ACTIONS_ID_TOKEN_REQUEST_TOKEN";

/// Requests the ID token of the job. Always sends an audience: GitHub's default is the owner of the repository.
pub(super) async fn assertion(
    audience: &str,
    client: &IdentityClient,
    record: &AcquisitionRecord,
) -> Result<FreshAssertion, CredentialError> {
    let url = read_secret(&SecretSource::Env(URL.to_owned()), record).await?;
    let url = provider::url_from_variable(URL, url.expose(), &[("audience", audience)])?;
    let source = SecretSource::Env(TOKEN.to_owned());
    let token = read_secret(&source, record).await?;
    let authorization = provider::authorization("Bearer", token.expose(), &source.to_string())?;
    let request = Request::builder()
        .method(Method::GET)
        .uri(url)
        .header(AUTHORIZATION, authorization)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, provider::USER_AGENT)
        .body(Full::default());
    let subject = format!("ID token of the GitHub Actions job for {audience}");
    let request = ProviderRequest { provider: IdentityProvider::GithubActions, subject, request, secret: Some(&token) };
    request.send(client, record, |response| provider::field(response, "value")).await
}
