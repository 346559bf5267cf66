//! Assertions from any OAuth 2.0 authorization server, by the client credentials grant.
//!
//! ```text
//! this host                 authorization server                             tenant B
//! client id and secret ──► token endpoint ── JWT ── assertion ─────────────► token ──► SignalR
//! ```
//!
//! The token must be a JWT signed with RS256 whose issuer publishes its keys, and whose `iss`, `sub` and `aud` are those of
//! the federated credential. Source: RFC 6749 sections 2.3.1 (client authentication) and 4.4 (client credentials).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::{Serializer, byte_serialize};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{Method, Request};
use http_body_util::Full;

use super::fresh::FreshAssertion;
use super::provider::{self, ProviderRequest};
use crate::credential::error::CredentialError;
use crate::credential::identity_endpoint::IdentityProvider;
use crate::credential::local_error::SecretError;
use crate::credential::proof_settings::{ClientAuthentication, OAuth2Settings, OAuth2Token};
use crate::credential::record::AcquisitionRecord;
use crate::credential::secret::read_secret;
use crate::credential::transport::IdentityClient;
use crate::files::Secret;

/// Requests a token.
pub(super) async fn assertion(
    settings: &OAuth2Settings,
    client: &IdentityClient,
    record: &AcquisitionRecord,
) -> Result<FreshAssertion, CredentialError> {
    let secret = read_secret(&settings.secret, record).await?;
    let request = request(settings, &secret)?;
    let subject = format!("token of OAuth 2.0 client {}", settings.client_id);
    let request = ProviderRequest { provider: IdentityProvider::OAuth2, subject, request, secret: Some(&secret) };
    let field = match settings.token {
        OAuth2Token::Access => "access_token",
        OAuth2Token::Id => "id_token",
    };
    request.send(client, record, |response| provider::field(response, field)).await
}

fn request(settings: &OAuth2Settings, secret: &Secret) -> Result<http::Result<Request<Full<Bytes>>>, SecretError> {
    let mut form = Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    let optional = [("scope", &settings.scope), ("audience", &settings.audience)];
    for (name, value) in optional {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    form.extend_pairs(&settings.parameters);
    let mut request = Request::builder().method(Method::POST).uri(&settings.token_url);
    match settings.authentication {
        ClientAuthentication::Basic => {
            // Both are form-encoded (RFC 6749 section 2.3.1): a colon in the id would otherwise end it.
            let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
            let pair = Secret::new(format!("{}:{}", encoded(&settings.client_id), encoded(secret.expose())));
            let value = Secret::new(STANDARD.encode(pair.expose()));
            let location = settings.secret.to_string();
            request = request.header(AUTHORIZATION, provider::authorization("Basic", value.expose(), &location)?);
        }
        ClientAuthentication::Post => {
            form.append_pair("client_id", &settings.client_id).append_pair("client_secret", secret.expose());
        }
    }
    Ok(request
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(USER_AGENT, provider::USER_AGENT)
        .body(Full::from(form.finish())))
}
