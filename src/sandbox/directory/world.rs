//! A directory as somebody described it, before Entra has an address: what it takes to fill the directory once it has,
//! and the files that go with it. Pure data; how it was written down, it does not know.

use super::model::{Directory, FederatedCredential, SecretText, v2_issuer};

/// What stands in the directory, in place of the ready-made scenario.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) directory: Directory,
    pub(crate) trusts: Vec<Trust>,
    pub(crate) files: Vec<WorldFile>,
}

/// A federated credential for a managed identity, whose issuer has the authority's address in it.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    /// The client id of the app registration that trusts.
    pub(crate) application: String,
    /// The client id of the managed identity that is trusted.
    pub(crate) identity: String,
    pub(crate) audience: String,
}

/// A file that a gateway, or whoever tests one, may need.
#[derive(Clone, Debug)]
pub(crate) struct WorldFile {
    pub(crate) name: String,
    pub(crate) content: WorldContent,
}

/// What such a file holds.
#[derive(Clone, Debug)]
pub(crate) enum WorldContent {
    Secret(SecretText),
    /// An assertion that the sandbox signs in place of an issuer.
    Assertion {
        issuer: String,
        subject: String,
        audience: String,
    },
}

impl World {
    /// The directory of an authority at this origin.
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
