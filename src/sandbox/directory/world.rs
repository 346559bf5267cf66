//! The content of a described directory, before Entra has an address. Issuers of managed identities contain that address, so
//! they are added when it is known.

use super::model::{Directory, FederatedCredential, SecretText, v2_issuer};

/// The content of a directory that replaces the built-in scenario, and its files.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) directory: Directory,
    pub(crate) trusts: Vec<Trust>,
    pub(crate) files: Vec<WorldFile>,
}

/// A federated identity credential for a managed identity. Its issuer contains the authority's address.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// The client id of the app registration.
    pub(crate) application: String,
    /// The client id of the trusted managed identity.
    pub(crate) identity: String,
    pub(crate) audience: String,
}

/// A file for a gateway or a test.
#[derive(Clone, Debug)]
pub(crate) struct WorldFile {
    pub(crate) name: String,
    pub(crate) content: WorldContent,
}

/// The content of a file.
#[derive(Clone, Debug)]
pub(crate) enum WorldContent {
    Secret(SecretText),
    /// An assertion that the sandbox signs as an external issuer.
    Assertion {
        issuer: String,
        subject: String,
        audience: String,
    },
}

impl World {
    /// Returns the directory for an authority at this origin.
    pub(crate) fn directory(&self, authority: &str) -> Directory {
        let mut directory = self.directory.clone();
        for trust in &self.trusts {
            let identity = directory.managed_identities.iter().find(|identity| identity.client_id == trust.identity);
            let Some(identity) = identity else { continue };
            let credential = FederatedCredential {
                issuer: v2_issuer(authority, &identity.tenant),
                subject: identity.object_id.clone(),
                audience: trust.audience.clone(),
            };
            if let Some(application) = directory.application_mut(&trust.application) {
                application.federated.push(credential);
            }
        }
        directory
    }
}
