//! Tokens of a managed identity of this host: for SignalR itself, or as an assertion for an app registration that trusts the
//! identity.
//!
//! The identity library detects whether the host is a virtual machine (IMDS) or App Service (`IDENTITY_ENDPOINT`). Each
//! request makes a new credential of the library, which bypasses its cache.

use azure_core::credentials::TokenCredential as _;
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};

use crate::credential::error::CredentialError;
use crate::credential::lifetime::Lifetime;
use crate::credential::record::AcquisitionRecord;
use crate::credential::settings::{ManagedIdentity, ManagedIdentitySettings};
use crate::credential::transport::{Destination, IdentityClient, RecordingClient};
use crate::files::Secret;
use crate::metrics::TokenStage;

/// A request for a token of a managed identity.
pub(crate) struct ManagedIdentityRequest<'a> {
    pub(crate) identity: &'a ManagedIdentitySettings,
    /// A scope, or the resource without `/.default`.
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

fn user_assigned(id: &ManagedIdentity) -> Option<UserAssignedId> {
    match id {
        ManagedIdentity::System => None,
        ManagedIdentity::ClientId(id) => Some(UserAssignedId::ClientId(id.clone())),
        ManagedIdentity::ObjectId(id) => Some(UserAssignedId::ObjectId(id.clone())),
        ManagedIdentity::ResourceId(id) => Some(UserAssignedId::ResourceId(id.clone())),
    }
}
