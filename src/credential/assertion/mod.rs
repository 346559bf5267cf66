//! Client assertions: how an app authenticates without a secret (RFC 7523 section 2.2).
//!
//! A certificate signs a new assertion for each token request, and a file is read for each. Assertions of all other sources are
//! shared by the tenants of an app while they live. Each source records the step.

mod azure_pipelines;
mod certificate;
mod clock;
mod command;
mod federated;
mod file;
mod fresh;
mod gcp;
mod github;
mod oauth2;
mod provider;
mod shared;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;

pub(crate) use shared::{SharedAssertion, SharedAssertions};

use super::acquire::{FileContent, WatchedFiles};
use super::error::CredentialError;
use super::proof_settings::{AssertionSettings, CertificateSettings, Proof};
use super::record::AcquisitionRecord;
use super::secret::read_secret;
use super::transport::IdentityClient;
use crate::files::{Secret, SecretSource};
use crate::tls::Trust;

/// Where an assertion comes from.
#[derive(Clone, Debug)]
pub(crate) enum AssertionSource {
    /// Signed by the gateway with the key of a certificate.
    Certificate(Arc<CertificateSettings>),
    /// A token of another identity in a file.
    File(PathBuf),
    /// A token of another identity, shared by all credentials with the same source.
    Shared(Arc<SharedAssertion>),
}

/// A provider of assertions for the identity library.
#[derive(Debug)]
pub(crate) struct AssertionProvider {
    pub(crate) source: AssertionSource,
    /// The client id of the app, which an assertion that it signs names as its issuer.
    pub(crate) client_id: String,
    /// The token endpoint, which is the audience of such an assertion.
    pub(crate) token_url: String,
    pub(crate) client: IdentityClient,
    pub(crate) record: AcquisitionRecord,
}

impl AssertionSource {
    /// Creates the source of a token of another identity.
    pub(crate) fn federated(settings: &AssertionSettings, shared: &SharedAssertions) -> Self {
        if let AssertionSettings::File { path } = settings {
            return Self::File(path.clone());
        }
        Self::Shared(shared.get(settings))
    }

    /// Returns whether the assertion is a token of another identity.
    pub(crate) const fn is_federated(&self) -> bool {
        !matches!(self, Self::Certificate(_))
    }

    /// Tells the source that Entra rejects its assertion.
    pub(crate) fn rejected(&self) {
        if let Self::Shared(shared) = self {
            shared.rejected();
        }
    }

    /// Returns the files that the assertion is made from.
    pub(crate) fn watched_files(&self) -> WatchedFiles {
        match self {
            Self::Certificate(settings) => {
                let mut paths = vec![settings.certificate.clone()];
                paths.extend(settings.key.clone());
                WatchedFiles { paths, content: FileContent::Proof }
            }
            Self::File(path) => WatchedFiles { paths: vec![path.clone()], content: FileContent::Assertion },
            Self::Shared(shared) => {
                let secret = federated::secret(shared.settings()).and_then(SecretSource::file);
                // The token of a job is replaced by the job.
                let is_operators = matches!(shared.settings(), AssertionSettings::OAuth2(_));
                WatchedFiles {
                    paths: secret.into_iter().map(Path::to_owned).collect(),
                    content: if is_operators { FileContent::Proof } else { FileContent::Assertion },
                }
            }
        }
    }

    /// Checks the files and secrets on this host. Runs no program.
    pub(crate) async fn inspect(&self, record: &AcquisitionRecord) -> Result<(), CredentialError> {
        match self {
            Self::Certificate(settings) => certificate::inspect(settings, record).await?,
            Self::File(path) if path.exists() => file::inspect(path, record).await?,
            // The file may be mounted after the gateway starts.
            Self::File(path) => record.add_warning(format!("file {} does not exist yet", path.display())),
            Self::Shared(shared) => {
                if let Some(secret) = federated::secret(shared.settings()) {
                    read_secret(secret, record).await?;
                }
            }
        }
        Ok(())
    }
}

/// Returns the trusted CAs for the provider of a proof, if the proof comes from a provider over TLS.
pub(crate) fn provider_trust(proof: &Proof) -> Option<Trust> {
    let Proof::Federated(assertion) = proof else { return None };
    match assertion {
        AssertionSettings::GithubActions { .. }
        | AssertionSettings::AzurePipelines { .. }
        | AssertionSettings::OAuth2(_) => Some(Trust::from_ca_file(assertion.ca_file())),
        AssertionSettings::GcpMetadata { endpoint, .. } => {
            endpoint.starts_with("https:").then(|| Trust::from_ca_file(None))
        }
        AssertionSettings::ManagedIdentity { .. } | AssertionSettings::File { .. } | AssertionSettings::Command(_) => {
            None
        }
    }
}

impl AssertionProvider {
    async fn assertion(&self) -> Result<Arc<Secret>, CredentialError> {
        let record = &self.record;
        match &self.source {
            AssertionSource::Certificate(settings) => {
                certificate::assertion(settings, &self.client_id, &self.token_url, record).await.map(Arc::new)
            }
            AssertionSource::File(path) => file::assertion(path, record).await.map(Arc::new),
            AssertionSource::Shared(shared) => shared.get(&self.client, record).await,
        }
    }
}

#[async_trait]
impl ClientAssertion for AssertionProvider {
    async fn secret(&self, _options: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let assertion = self.assertion().await.map_err(CredentialError::wrap)?;
        Ok(assertion.expose().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::proof_settings::{AssertionAlgorithm, ClientAuthentication, OAuth2Settings, OAuth2Token};

    fn pipeline(access_token: SecretSource) -> AssertionSource {
        let service_connection = "connection".to_owned();
        let settings = AssertionSettings::AzurePipelines { service_connection, access_token, ca_file: None };
        AssertionSource::federated(&settings, &SharedAssertions::default())
    }

    fn oauth2_client(secret: &str) -> AssertionSource {
        let settings = OAuth2Settings {
            token_url: "https://idp.example/token".to_owned(),
            client_id: "gateway".to_owned(),
            secret: SecretSource::File(secret.into()),
            authentication: ClientAuthentication::Basic,
            scope: None,
            audience: None,
            parameters: Vec::new(),
            token: OAuth2Token::Access,
            ca_file: None,
        };
        AssertionSource::federated(&AssertionSettings::OAuth2(Box::new(settings)), &SharedAssertions::default())
    }

    fn file(path: &str) -> AssertionSource {
        AssertionSource::File(path.into())
    }

    #[test]
    fn watches_the_files_that_hold_the_proof() {
        let certificate = |key: Option<&str>| {
            AssertionSource::Certificate(Arc::new(CertificateSettings {
                certificate: "app.pem".into(),
                key: key.map(Into::into),
                algorithm: AssertionAlgorithm::Ps256,
                send_chain: false,
            }))
        };
        for (source, files, content) in [
            (certificate(None), vec!["app.pem"], FileContent::Proof),
            (certificate(Some("app.key")), vec!["app.pem", "app.key"], FileContent::Proof),
            (file("assertion"), vec!["assertion"], FileContent::Assertion),
            (pipeline(SecretSource::File("job-token".into())), vec!["job-token"], FileContent::Assertion),
            (pipeline(SecretSource::Env("JOB_TOKEN".into())), vec![], FileContent::Assertion),
            (oauth2_client("secret"), vec!["secret"], FileContent::Proof),
        ] {
            let files: Vec<PathBuf> = files.into_iter().map(Into::into).collect();
            let watched = source.watched_files();
            assert_eq!((watched.paths, watched.content), (files, content), "{source:?}");
        }
    }

    #[tokio::test]
    async fn missing_file_is_a_warning_and_an_unusable_one_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("assertion");
        let source = file(path.to_str().unwrap());
        let record = AcquisitionRecord::default();
        source.inspect(&record).await.unwrap();
        assert_eq!(record.take_warnings(), [format!("file {} does not exist yet", path.display())]);
        std::fs::write(&path, "").unwrap();
        assert!(source.inspect(&record).await.is_err());
        assert!(pipeline(SecretSource::File(path)).inspect(&record).await.is_err());
    }
}
