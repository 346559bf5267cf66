//! Acquires tokens from Entra through the identity library.
//!
//! A credential of the library caches its token and cannot refresh it early. Each try therefore creates a new credential, and
//! reads the secret, certificate or assertion again. The cell keeps the tokens.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::TokenCredential;
use azure_core::http::ClientOptions;
use azure_identity::{
    ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
};
use tokio::time::Instant;

use super::acquire::{Acquire, Acquired, FileContent, WatchedFiles};
use super::assertion::{AssertionProvider, AssertionSource, SharedAssertions};
use super::authority::Authority;
use super::authority_settings::Cloud;
use super::error::CredentialError;
use super::proof_settings::Proof;
use super::record::AcquisitionRecord;
use super::response_error::ResponseError;
use super::secret::read_app_secret;
use super::settings::AppSettings;
use super::transport::{Destination, IdentityClient, RecordingClient};
use crate::files::{Secret, SecretSource};
use crate::metrics::TokenStage;

/// An acquirer for an app registration in one tenant: it requests tokens from the tenant's token endpoint.
#[derive(Debug)]
pub(crate) struct App {
    registration: Arc<Registration>,
    tenant: Arc<str>,
}

/// What the tenants of an app registration share.
#[derive(Debug)]
pub(crate) struct Registration {
    settings: Arc<AppSettings>,
    cloud: Arc<CloudConfiguration>,
    proof: AppProof,
    client: IdentityClient,
    authority: Arc<Authority>,
    /// The client for the provider of the assertion, for which other CAs may be configured.
    provider_client: IdentityClient,
}

/// The proof with which the app authenticates.
#[derive(Debug)]
enum AppProof {
    Secret(SecretSource),
    Assertion(AssertionSource),
}

impl Registration {
    /// Creates what the tenants of an app share. Sends nothing. Apps with the same source of assertions share those in
    /// `assertions`.
    pub(crate) fn new(
        settings: Arc<AppSettings>,
        client: IdentityClient,
        provider_client: IdentityClient,
        authority: Arc<Authority>,
        assertions: &SharedAssertions,
    ) -> Self {
        let proof = match &settings.proof {
            Proof::Secret(source) => AppProof::Secret(source.clone()),
            Proof::Federated(source) => AppProof::Assertion(AssertionSource::federated(source, assertions)),
            Proof::Certificate(certificate) => {
                AppProof::Assertion(AssertionSource::Certificate(Arc::new(certificate.clone())))
            }
        };
        let cloud = Arc::new(cloud(&settings.authority.cloud));
        Self { settings, cloud, proof, client, authority, provider_client }
    }
}

impl App {
    /// Creates an acquirer for one tenant of an app.
    pub(crate) const fn new(registration: Arc<Registration>, tenant: Arc<str>) -> Self {
        Self { registration, tenant }
    }

    pub(crate) fn authority(&self) -> &Arc<Authority> {
        &self.registration.authority
    }

    /// Returns the error of the identity library if it rejects the tenant, client id or authority. Sends nothing.
    pub(crate) fn check(&self) -> azure_core::Result<()> {
        let client = self.exchange_client(&AcquisitionRecord::default());
        self.secret_credential(&Secret::new("unused".to_owned()), client.options()).map(drop)
    }

    fn exchange_client(&self, record: &AcquisitionRecord) -> Arc<RecordingClient> {
        let Registration { settings, proof, client, .. } = &*self.registration;
        let subject = format!("app {} in tenant {}", settings.client_id, self.tenant);
        let federated = matches!(proof, AppProof::Assertion(source) if source.is_federated());
        RecordingClient::new(client, record, TokenStage::Exchange, subject, Destination::Entra { federated })
    }

    fn secret_credential(
        &self,
        secret: &Secret,
        options: ClientOptions,
    ) -> azure_core::Result<Arc<ClientSecretCredential>> {
        let secret = secret.expose().to_owned().into();
        let options = ClientSecretCredentialOptions { client_options: self.with_cloud(options) };
        ClientSecretCredential::new(&self.tenant, self.registration.settings.client_id.clone(), secret, Some(options))
    }

    fn assertion_credential(
        &self,
        source: &AssertionSource,
        record: &AcquisitionRecord,
        options: ClientOptions,
    ) -> azure_core::Result<Arc<ClientAssertionCredential<AssertionProvider>>> {
        let Registration { settings, provider_client, .. } = &*self.registration;
        let provider = AssertionProvider {
            source: source.clone(),
            client_id: settings.client_id.clone(),
            token_url: token_url(settings, &self.tenant),
            client: provider_client.clone(),
            record: record.clone(),
        };
        let options = ClientAssertionCredentialOptions { client_options: self.with_cloud(options) };
        ClientAssertionCredential::new(self.tenant.to_string(), settings.client_id.clone(), provider, Some(options))
    }

    /// Handles the error of a token request: whether Entra throttles the tenant or the app, or rejects the assertion.
    fn request_failed(&self, error: CredentialError) -> CredentialError {
        let Registration { settings, proof, authority, .. } = &*self.registration;
        if let AppProof::Assertion(source) = proof
            && error.response().is_some_and(ResponseError::rejects_assertion)
        {
            source.rejected();
        }
        authority.request_failed(&self.tenant, &settings.client_id, error)
    }

    /// Sets the cloud, so that the library ignores the variable `AZURE_AUTHORITY_HOST`.
    fn with_cloud(&self, options: ClientOptions) -> ClientOptions {
        ClientOptions { cloud: Some(Arc::clone(&self.registration.cloud)), ..options }
    }
}

#[async_trait]
impl Acquire for App {
    async fn acquire(&self, record: &AcquisitionRecord) -> Result<Acquired, CredentialError> {
        let Registration { settings, proof, authority, .. } = &*self.registration;
        authority.check_pause(&self.tenant, &settings.client_id)?;
        let exchange_client = self.exchange_client(record);
        let credential: Arc<dyn TokenCredential> = match proof {
            AppProof::Secret(source) => {
                let secret = read_client_secret(source, record).await?;
                self.secret_credential(&secret, exchange_client.options())
                    .map_err(|err| CredentialError::settings(&err))?
            }
            AppProof::Assertion(source) => self
                .assertion_credential(source, record, exchange_client.options())
                .map_err(|err| CredentialError::settings(&err))?,
        };
        let token = credential.get_token(&[&settings.scope], None).await;
        let token = token.map_err(|err| self.request_failed(CredentialError::unwrap(err)))?;
        Acquired::bearer(token.token.secret(), exchange_client.take_lifetime()?)
    }

    fn watched_files(&self) -> WatchedFiles {
        let mut files = match &self.registration.proof {
            AppProof::Secret(source) => WatchedFiles {
                paths: source.file().into_iter().map(Path::to_owned).collect(),
                content: FileContent::Proof,
            },
            AppProof::Assertion(source) => source.watched_files(),
        };
        files.paths.extend(self.registration.settings.egress.password_file().map(Path::to_owned));
        files
    }

    fn app(&self) -> Option<&AppSettings> {
        Some(&self.registration.settings)
    }

    async fn inspect(&self, record: &AcquisitionRecord) -> Result<(), CredentialError> {
        match &self.registration.proof {
            AppProof::Secret(source) => read_app_secret(source, record).await.map(drop).map_err(Into::into),
            AppProof::Assertion(source) => source.inspect(record).await,
        }
    }
}

async fn read_client_secret(source: &SecretSource, record: &AcquisitionRecord) -> Result<Secret, CredentialError> {
    let started = Instant::now();
    let outcome = read_app_secret(source, record).await.map_err(CredentialError::from);
    record.add_local_step(
        TokenStage::Assertion,
        format!("client secret from {source}"),
        started,
        None,
        outcome.as_ref(),
    );
    outcome
}

fn cloud(cloud: &Cloud) -> CloudConfiguration {
    match cloud {
        Cloud::Public => CloudConfiguration::AzurePublic,
        Cloud::UsGovernment => CloudConfiguration::AzureGovernment,
        Cloud::China => CloudConfiguration::AzureChina,
        Cloud::Custom { authority } => {
            let mut custom = CustomConfiguration::default();
            custom.authority_host.clone_from(authority);
            custom.into()
        }
    }
}

/// Returns the URL of the token endpoint, which is the audience of an assertion that the app signs.
fn token_url(settings: &AppSettings, tenant: &str) -> String {
    format!("{}/{tenant}/oauth2/v2.0/token", settings.authority.origin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::authority_settings::AuthoritySettings;

    #[test]
    fn assertion_is_for_the_token_endpoint_of_the_tenant() {
        let settings = |cloud| AppSettings {
            authority: AuthoritySettings { cloud, ca_file: None },
            egress: Arc::default(),
            client_id: "app-id".into(),
            scope: "https://signalr.azure.com/.default".into(),
            proof: Proof::Secret(SecretSource::Env("UNUSED".into())),
        };
        let custom = Cloud::Custom { authority: "https://login.example:8443".into() };
        for (cloud, expected) in [
            (Cloud::Public, "https://login.microsoftonline.com/tenant-b/oauth2/v2.0/token"),
            (Cloud::China, "https://login.chinacloudapi.cn/tenant-b/oauth2/v2.0/token"),
            (custom, "https://login.example:8443/tenant-b/oauth2/v2.0/token"),
        ] {
            assert_eq!(token_url(&settings(cloud), "tenant-b"), expected);
        }
    }
}
