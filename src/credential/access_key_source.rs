//! Acquires an access key from a file or an environment variable.

use async_trait::async_trait;
use tokio::time::Instant;

use super::access_key::AccessKey;
use super::acquire::{Acquire, Acquired, Files, Material};
use super::error::CredentialError;
use super::legs::Legs;
use super::settings::SecretSource;
use crate::metrics::TokenStage;

/// Reads an access key, and follows the file that holds it.
#[derive(Debug)]
pub(crate) struct AccessKeySource {
    pub(crate) key: SecretSource,
}

#[async_trait]
impl Acquire for AccessKeySource {
    async fn acquire(&self, legs: &Legs) -> Result<Acquired, CredentialError> {
        let started = Instant::now();
        let key = self.key.read(legs).await.map_err(CredentialError::from);
        legs.record_local(TokenStage::Exchange, format!("access key from {}", self.key), started, None, key.as_ref());
        let key = key?;
        Ok(Acquired { material: Material::AccessKey(AccessKey::new(key.expose())), lifetime: None })
    }

    fn files(&self) -> Files {
        Files { paths: self.key.file().into_iter().map(Into::into).collect(), always: true }
    }

    async fn inspect(&self, legs: &Legs) -> Result<(), CredentialError> {
        self.key.read(legs).await?;
        Ok(())
    }
}
