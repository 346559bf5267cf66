//! Requests an assertion from its source: the host's identity endpoint, an identity provider or a program.

use super::fresh::FreshAssertion;
use super::{azure_pipelines, command, file, gcp, github, oauth2};
use crate::credential::error::CredentialError;
use crate::credential::managed_identity::ManagedIdentityRequest;
use crate::credential::proof_settings::AssertionSettings;
use crate::credential::record::AcquisitionRecord;
use crate::credential::transport::IdentityClient;
use crate::files::SecretSource;
use crate::metrics::TokenStage;

/// Returns where the secret is that obtains the assertion, if there is one.
pub(super) fn secret(settings: &AssertionSettings) -> Option<&SecretSource> {
    match settings {
        AssertionSettings::AzurePipelines { access_token, .. } => Some(access_token),
        AssertionSettings::OAuth2(settings) => Some(&settings.secret),
        AssertionSettings::ManagedIdentity { .. }
        | AssertionSettings::File { .. }
        | AssertionSettings::GithubActions { .. }
        | AssertionSettings::GcpMetadata { .. }
        | AssertionSettings::Command(_) => None,
    }
}

/// Requests an assertion.
pub(super) async fn request(
    settings: &AssertionSettings,
    client: &IdentityClient,
    record: &AcquisitionRecord,
) -> Result<FreshAssertion, CredentialError> {
    match settings {
        AssertionSettings::ManagedIdentity { identity, audience } => {
            let request = ManagedIdentityRequest { identity, scope: audience, stage: TokenStage::Assertion };
            let (token, lifetime) = request.token(client, record).await?;
            Ok(FreshAssertion { token, lifetime: Some(lifetime) })
        }
        AssertionSettings::File { path } => {
            let token = file::assertion(path, record).await?;
            Ok(FreshAssertion { token, lifetime: None })
        }
        AssertionSettings::GithubActions { audience, .. } => github::assertion(audience, client, record).await,
        AssertionSettings::AzurePipelines { service_connection, access_token, .. } => {
            azure_pipelines::assertion(service_connection, access_token, client, record).await
        }
        AssertionSettings::GcpMetadata { audience, service_account, full, endpoint } => {
            let request = gcp::IdentityRequest { audience, service_account, full: *full, endpoint };
            request.assertion(client, record).await
        }
        AssertionSettings::OAuth2(settings) => oauth2::assertion(settings, client, record).await,
        AssertionSettings::Command(settings) => command::assertion(settings, record).await,
    }
}
