//! Assertions from Azure Pipelines: the ID token of a service connection with workload identity federation.
//!
//! ```text
//! job (env: SYSTEM_ACCESSTOKEN)         Azure DevOps                          tenant B
//! SYSTEM_OIDCREQUESTURI ── POST ──────► ID token of the ── assertion ───────► token ──► SignalR
//!                                       service connection
//! ```
//!
//! The request is the same as that of the identity library's own credential. It is sent here so that each step has its own
//! error, and so that all tenants use the same token. Azure DevOps chooses the audience (`api://AzureADTokenExchange`).
//!
//! Source: Microsoft, "Oidctoken - Create" of the Azure DevOps REST API, version 7.1.

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, Method, Request};
use http_body_util::Full;

use super::fresh::FreshAssertion;
use super::provider::{self, ProviderRequest};
use crate::credential::error::CredentialError;
use crate::credential::identity_endpoint::IdentityProvider;
use crate::credential::record::AcquisitionRecord;
use crate::credential::secret::read_secret;
use crate::credential::transport::IdentityClient;
use crate::files::SecretSource;

/// The variable with the URL of the request, which Azure Pipelines sets in every job.
const URL: &str = "SYSTEM_OIDCREQUESTURI";
/// The version of the REST API that the identity library uses.
const API_VERSION: &str = "7.1";
/// The service rejects a request without this header by a redirect to a sign-in page.
const NO_SIGN_IN_PAGE: HeaderName = HeaderName::from_static("x-tfs-fedauthredirect");

/// Requests the ID token of a service connection.
pub(super) async fn assertion(
    service_connection: &str,
    access_token: &SecretSource,
    client: &IdentityClient,
    record: &AcquisitionRecord,
) -> Result<FreshAssertion, CredentialError> {
    let url = read_secret(&SecretSource::Env(URL.to_owned()), record).await?;
    let query = [("api-version", API_VERSION), ("serviceConnectionId", service_connection)];
    let url = provider::url_from_variable(URL, url.expose(), &query)?;
    let token = read_secret(access_token, record).await?;
    let authorization = provider::authorization("Bearer", token.expose(), &access_token.to_string())?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header(AUTHORIZATION, authorization)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/json")
        .header(CONTENT_LENGTH, "0")
        .header(NO_SIGN_IN_PAGE, "Suppress")
        .header(USER_AGENT, provider::USER_AGENT)
        .body(Full::default());
    let subject = format!("ID token of service connection {service_connection}");
    let request =
        ProviderRequest { provider: IdentityProvider::AzurePipelines, subject, request, secret: Some(&token) };
    request.send(client, record, |response| provider::field(response, "oidcToken")).await
}
