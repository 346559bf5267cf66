//! Client assertions: how an app authenticates without a secret (RFC 7523 section 2.2).
//!
//! Each source makes or fetches a new assertion for each token request, and records the step.

mod azure_pipelines;
mod certificate;
mod clock;
mod command;
mod file;
mod gcp;
mod github;
mod oauth2;
mod provider;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use azure_core::http::ClientMethodOptions;
use azure_identity::ClientAssertion;

use super::error::CredentialError;
use super::managed_identity::ManagedIdentityRequest;
use super::record::AcquisitionRecord;
use super::settings::{AssertionSettings, CertificateSettings, Proof, SecretSource};
use super::transport::IdentityClient;
use crate::files::Secret;
use crate::metrics::TokenStage;
use crate::tls::Trust;

/// Where an assertion comes from.
#[derive(Clone, Debug)]
pub(crate) enum AssertionSource {
    /// Signed by the gateway with the key of a certificate.
    Certificate { settings: CertificateSettings, client_id: String, token_url: String },
    /// A token of another identity.
    Federated(AssertionSettings),
}

/// A provider of assertions for the identity library.
#[derive(Debug)]
pub(crate) struct AssertionProvider {
    pub(crate) source: AssertionSource,
    pub(crate) client: IdentityClient,
    pub(crate) record: AcquisitionRecord,
}

/// What a source of assertions reads on this host, and whom it calls.
#[derive(Default)]
struct Requirements<'a> {
    /// The file with the assertion.
    file: Option<&'a Path>,
    /// The secret that obtains the assertion.
    secret: Option<&'a SecretSource>,
    /// The trusted CAs for the provider, if the provider is called over TLS.
    provider: Option<Trust>,
}

impl<'a> Requirements<'a> {
    fn of(settings: &'a AssertionSettings) -> Self {
        let provider = |ca_file: &Option<PathBuf>| Some(Trust::from_ca_file(ca_file.as_deref()));
        match settings {
            AssertionSettings::File { path } => Self { file: Some(path), ..Self::default() },
            AssertionSettings::GithubActions { ca_file, .. } => Self { provider: provider(ca_file), ..Self::default() },
            AssertionSettings::AzurePipelines { access_token, ca_file, .. } => {
                Self { secret: Some(access_token), provider: provider(ca_file), ..Self::default() }
            }
            AssertionSettings::OAuth2(settings) => {
                Self { secret: Some(&settings.secret), provider: provider(&settings.ca_file), ..Self::default() }
            }
            AssertionSettings::GcpMetadata { endpoint, .. } if endpoint.starts_with("https:") => {
                Self { provider: provider(&None), ..Self::default() }
            }
            AssertionSettings::GcpMetadata { .. }
            | AssertionSettings::ManagedIdentity { .. }
            | AssertionSettings::Command(_) => Self::default(),
        }
    }
}

impl AssertionSource {
    /// Returns the files whose change starts an acquisition after a failed one.
    pub(crate) fn watched_files(&self) -> Vec<PathBuf> {
        match self {
            Self::Certificate { settings, .. } => {
                let mut files = vec![settings.certificate.clone()];
                files.extend(settings.key.clone());
                files
            }
            Self::Federated(settings) => {
                let Requirements { file, secret, .. } = Requirements::of(settings);
                file.into_iter().chain(secret.and_then(SecretSource::file)).map(Into::into).collect()
            }
        }
    }

    /// Checks the files and secrets on this host. Runs no program.
    pub(crate) async fn inspect(&self, record: &AcquisitionRecord) -> Result<(), CredentialError> {
        let Requirements { file, secret, .. } = match self {
            Self::Certificate { settings, .. } => return certificate::inspect(settings, record).await,
            Self::Federated(settings) => Requirements::of(settings),
        };
        match file {
            Some(path) if path.exists() => file::inspect(path, record).await?,
            // The file may be mounted after the gateway starts.
            Some(path) => record.add_warning(format!("file {} does not exist yet", path.display())),
            None => {}
        }
        if let Some(secret) = secret {
            secret.read(record).await?;
        }
        Ok(())
    }
}

/// Returns the trusted CAs for the provider of a proof, if the proof comes from a provider over TLS.
pub(crate) fn provider_trust(proof: &Proof) -> Option<Trust> {
    let Proof::Federated(assertion) = proof else { return None };
    Requirements::of(assertion).provider
}

impl AssertionProvider {
    async fn assertion(&self) -> Result<Secret, CredentialError> {
        match &self.source {
            AssertionSource::Certificate { settings, client_id, token_url } => {
                certificate::assertion(settings, client_id, token_url, &self.record).await
            }
            AssertionSource::Federated(settings) => self.federated_assertion(settings).await,
        }
    }

    async fn federated_assertion(&self, settings: &AssertionSettings) -> Result<Secret, CredentialError> {
        let (client, record) = (&self.client, &self.record);
        match settings {
            AssertionSettings::ManagedIdentity { identity, audience } => {
                let request = ManagedIdentityRequest { identity, scope: audience, stage: TokenStage::Assertion };
                let (token, _lifetime) = request.token(client, record).await?;
                Ok(token)
            }
            AssertionSettings::File { path } => file::assertion(path, record).await,
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
    use crate::credential::settings::AssertionAlgorithm;

    fn pipeline(access_token: SecretSource) -> AssertionSource {
        let service_connection = "connection".to_owned();
        let settings = AssertionSettings::AzurePipelines { service_connection, access_token, ca_file: None };
        AssertionSource::Federated(settings)
    }

    fn file(path: &str) -> AssertionSource {
        AssertionSource::Federated(AssertionSettings::File { path: path.into() })
    }

    #[test]
    fn watches_the_files_that_hold_the_proof() {
        let certificate = |key: Option<&str>| AssertionSource::Certificate {
            settings: CertificateSettings {
                certificate: "app.pem".into(),
                key: key.map(Into::into),
                algorithm: AssertionAlgorithm::Ps256,
                send_chain: false,
            },
            client_id: "app".to_owned(),
            token_url: "https://login.example".to_owned(),
        };
        for (source, files) in [
            (certificate(None), vec!["app.pem"]),
            (certificate(Some("app.key")), vec!["app.pem", "app.key"]),
            (file("assertion"), vec!["assertion"]),
            (pipeline(SecretSource::File("job-token".into())), vec!["job-token"]),
            (pipeline(SecretSource::Env("JOB_TOKEN".into())), vec![]),
        ] {
            let files: Vec<PathBuf> = files.into_iter().map(Into::into).collect();
            assert_eq!(source.watched_files(), files, "{source:?}");
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
