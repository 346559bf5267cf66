//! Stands for the client in a build without the feature `redis`. Every operation fails.

use tokio::runtime::Handle;

use super::error::{StoreError, StoreFailure};
use super::settings::StoreSettings;

/// No client.
#[derive(Clone, Debug)]
pub(super) struct Client(());

impl Client {
    pub(super) fn new(_settings: &StoreSettings, _control: &Handle) -> Self {
        Self(())
    }

    pub(super) async fn script(
        &self,
        _script: &str,
        _key: &str,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        self.run(arguments).await
    }

    pub(super) async fn run(&self, _command: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, StoreError> {
        std::future::ready(Err(StoreError::new(StoreFailure::NotBuilt, "the feature `redis` is off"))).await
    }
}
