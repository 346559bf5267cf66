//! Tokens of a managed identity of this host: for SignalR itself, or as an assertion for an app registration that trusts the
//! identity.
//!
//! The identity library detects whether the host is a virtual machine (IMDS) or App Service (`IDENTITY_ENDPOINT`). Each
//! request makes a new credential of the library, which bypasses its cache.

use async_trait::async_trait;
use azure_core::credentials::TokenCredential as _;
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};

use super::acquire::{Acquire, Acquired, WatchedFiles};
use super::error::CredentialError;
use super::lifetime::Lifetime;
use super::proof_settings::{ManagedIdentity, ManagedIdentitySettings};
use super::record::AcquisitionRecord;
use super::transport::{Destination, IdentityClient, RecordingClient};
use crate::files::Secret;
use crate::metrics::TokenStage;

/// A request for a token of a managed identity.
pub(crate) struct ManagedIdentityRequest<'a> {
    pub(crate) identity: &'a ManagedIdentitySettings,
    /// The requested scope, or the resource: the scope without `/.default`.
    pub(crate) scope: &'a str,
    pub(crate) stage: TokenStage,
}

impl ManagedIdentityRequest<'_> {
    /// Sends the request to the identity endpoint of the host.
    pub(crate) async fn token(
        &self,
        client: &IdentityClient,
        record: &AcquisitionRecord,
    ) -> Result<(Secret, Lifetime), CredentialError> {
        let destination = Destination::Host { imds_endpoint: self.identity.imds_endpoint.clone() };
        let recorder = RecordingClient::new(client, record, self.stage, self.identity.id.to_string(), destination);
        let options = ManagedIdentityCredentialOptions {
            user_assigned_id: user_assigned(&self.identity.id),
            client_options: recorder.options(),
        };
        let credential =
            ManagedIdentityCredential::new(Some(options)).map_err(|err| CredentialError::settings(&err))?;
        let token = credential.get_token(&[self.scope], None).await.map_err(CredentialError::unwrap)?;
        let lifetime = recorder.take_lifetime()?;
        Ok((Secret::new(token.token.secret().to_owned()), lifetime))
    }
}

/// An acquirer for a managed identity in the endpoint's tenant: its token is sent to the endpoint.
#[derive(Debug)]
pub(crate) struct HostIdentity {
    pub(crate) settings: ManagedIdentitySettings,
    pub(crate) scope: String,
    pub(crate) client: IdentityClient,
}

#[async_trait]
impl Acquire for HostIdentity {
    async fn acquire(&self, record: &AcquisitionRecord) -> Result<Acquired, CredentialError> {
        let (identity, scope) = (&self.settings, self.scope.as_str());
        let request = ManagedIdentityRequest { identity, scope, stage: TokenStage::Exchange };
        let (token, lifetime) = request.token(&self.client, record).await?;
        Acquired::bearer(token.expose(), lifetime)
    }

    fn watched_files(&self) -> WatchedFiles {
        WatchedFiles::default()
    }
}

fn user_assigned(id: &ManagedIdentity) -> Option<UserAssignedId> {
    match id {
        ManagedIdentity::System => None,
        ManagedIdentity::ClientId(id) => Some(UserAssignedId::ClientId(id.clone())),
        ManagedIdentity::ObjectId(id) => Some(UserAssignedId::ObjectId(id.clone())),
        ManagedIdentity::ResourceId(id) => Some(UserAssignedId::ResourceId(id.clone())),
    }
}
