//! Acquires an access key from a file or an environment variable.

use async_trait::async_trait;
use tokio::time::Instant;

use super::access_key::AccessKey;
use super::acquire::{Acquire, Acquired, FileContent, TokenOrKey, WatchedFiles};
use super::error::CredentialError;
use super::record::AcquisitionRecord;
use super::secret::read_secret;
use crate::files::SecretSource;
use crate::metrics::TokenStage;

/// An acquirer that reads an access key and watches the file that holds it.
#[derive(Debug)]
pub(crate) struct AccessKeySource {
    pub(crate) key: SecretSource,
}

#[async_trait]
impl Acquire for AccessKeySource {
    async fn acquire(&self, record: &AcquisitionRecord) -> Result<Acquired, CredentialError> {
        let started = Instant::now();
        let key = read_secret(&self.key, record).await.map_err(CredentialError::from);
        record.add_local_step(
            TokenStage::Exchange,
            format!("access key from {}", self.key),
            started,
            None,
            key.as_ref(),
        );
        let key = key?;
        Ok(Acquired { token_or_key: TokenOrKey::AccessKey(AccessKey::new(key.expose())), lifetime: None })
    }

    fn watched_files(&self) -> WatchedFiles {
        WatchedFiles { paths: self.key.file().into_iter().map(Into::into).collect(), content: FileContent::Token }
    }

    async fn inspect(&self, record: &AcquisitionRecord) -> Result<(), CredentialError> {
        read_secret(&self.key, record).await?;
        Ok(())
    }
}
