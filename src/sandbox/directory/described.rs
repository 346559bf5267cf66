//! The directory that a description file defines. Federated credentials for managed identities name an issuer that contains
//! the address of Entra; they are added when Entra has an address.

use super::model::{Directory, FederatedCredential, SecretText, v2_issuer};

/// A described directory, which replaces the built-in scenario, and the files that belong to it.
#[derive(Clone, Debug)]
pub struct DescribedDirectory {
    pub(crate) directory: Directory,
    pub(crate) identity_credentials: Vec<ManagedIdentityCredential>,
    pub(crate) files: Vec<DescribedFile>,
}

/// A federated identity credential for a managed identity, before the address of its issuer is known.
#[derive(Clone, Debug)]
pub(crate) struct ManagedIdentityCredential {
    /// The client id of the app registration.
    pub(crate) application: String,
    /// The client id of the trusted managed identity.
    pub(crate) identity: String,
    pub(crate) audience: String,
}

/// A file that the sandbox writes for a gateway or a test.
#[derive(Clone, Debug)]
pub(crate) struct DescribedFile {
    pub(crate) name: String,
    pub(crate) content: DescribedContent,
}

/// The content of a [`DescribedFile`].
#[derive(Clone, Debug)]
pub(crate) enum DescribedContent {
    Secret(SecretText),
    /// An assertion that the sandbox signs with the key of the external issuers.
    Assertion {
        issuer: String,
        subject: String,
        audience: String,
    },
}

impl DescribedDirectory {
    /// Returns the directory of an authority at this origin.
    pub(crate) fn directory(&self, authority: &str) -> Directory {
        let mut directory = self.directory.clone();
        for declared in &self.identity_credentials {
            let identity = directory.managed_identities.iter().find(|identity| identity.client_id == declared.identity);
            let Some(identity) = identity else { continue };
            let credential = FederatedCredential {
                issuer: v2_issuer(authority, &identity.tenant),
                subject: identity.object_id.clone(),
                audience: declared.audience.clone(),
            };
            if let Some(application) = directory.application_mut(&declared.application) {
                application.federated.push(credential);
            }
        }
        directory
    }
}
