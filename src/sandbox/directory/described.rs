//! The content of a described directory, before Entra has an address. Issuers of managed identities contain that address, so
//! they are added when it is known.

use super::model::{Directory, FederatedCredential, SecretText, v2_issuer};

/// The content of a directory that replaces the built-in scenario, and its files.
#[derive(Clone, Debug)]
pub struct DescribedDirectory {
    pub(crate) directory: Directory,
    pub(crate) identity_credentials: Vec<ManagedIdentityCredential>,
    pub(crate) files: Vec<DescribedFile>,
}

/// A federated identity credential for a managed identity. Its issuer contains the authority's address.
#[derive(Clone, Debug)]
pub(crate) struct ManagedIdentityCredential {
    /// The client id of the app registration.
    pub(crate) application: String,
    /// The client id of the trusted managed identity.
    pub(crate) identity: String,
    pub(crate) audience: String,
}

/// A file for a gateway or a test.
#[derive(Clone, Debug)]
pub(crate) struct DescribedFile {
    pub(crate) name: String,
    pub(crate) content: DescribedContent,
}

/// The content of a file.
#[derive(Clone, Debug)]
pub(crate) enum DescribedContent {
    Secret(SecretText),
    /// An assertion that the sandbox signs as an external issuer.
    Assertion {
        issuer: String,
        subject: String,
        audience: String,
    },
}

impl DescribedDirectory {
    /// Returns the directory for an authority at this origin.
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
