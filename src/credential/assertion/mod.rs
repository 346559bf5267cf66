//! Client assertions: how an app registration proves that it is itself without a secret.
//!
//! Each source makes or fetches a fresh assertion for each token request (RFC 7523 section 2.2), and records the leg. Does not
//! know what the assertion is exchanged for.

mod certificate;
mod file;
mod managed_identity;

use std::path::PathBuf;

use async_trait::async_trait;
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;

pub use certificate::CertificateError;
pub(crate) use managed_identity::ManagedIdentityRequest;

use super::acquire::Legs;
use super::error::CredentialError;
use super::secret::Secret;
use super::settings::{AssertionSettings, CertificateSettings};
use super::transport::IdentityClient;
use crate::metrics::TokenStage;

/// What an assertion is made from.
#[derive(Clone, Debug)]
pub(crate) enum AssertionSource {
    /// Signed here with the key of a certificate.
    Certificate { settings: CertificateSettings, client_id: String, token_url: String },
    /// Another identity's token.
    Federated(AssertionSettings),
}

/// Hands assertions to the identity library.
#[derive(Debug)]
pub(crate) struct Asserter {
    pub(crate) source: AssertionSource,
    pub(crate) client: IdentityClient,
    pub(crate) legs: Legs,
}

impl AssertionSource {
    /// Returns the files whose change is worth another try.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Certificate { settings, .. } => {
                let mut files = vec![settings.certificate.clone()];
                files.extend(settings.key.clone());
                files
            }
            Self::Federated(AssertionSettings::File { path }) => vec![path.clone()],
            Self::Federated(AssertionSettings::ManagedIdentity { .. }) => Vec::new(),
        }
    }
}

impl Asserter {
    async fn assertion(&self) -> Result<Secret, CredentialError> {
        match &self.source {
            AssertionSource::Certificate { settings, client_id, token_url } => {
                certificate::assertion(settings, client_id, token_url, &self.legs).await
            }
            AssertionSource::Federated(AssertionSettings::File { path }) => file::assertion(path, &self.legs).await,
            AssertionSource::Federated(AssertionSettings::ManagedIdentity { identity, audience }) => {
                let request = ManagedIdentityRequest { identity, scope: audience, stage: TokenStage::Assertion };
                let (token, _life) = request.token(&self.client, &self.legs).await?;
                Ok(token)
            }
        }
    }
}

#[async_trait]
impl ClientAssertion for Asserter {
    async fn secret(&self, _options: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let assertion = self.assertion().await.map_err(CredentialError::wrap)?;
        Ok(assertion.expose().to_owned())
    }
}
