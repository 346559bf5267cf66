//! Bearer tokens from a file that another program updates.
//!
//! A JWT is used until its `exp`. The lifetime of an opaque token is unknown: it is used for 15 minutes after the last
//! successful read. A file that is incomplete or missing for a moment therefore fails no request, and the token of a deleted
//! file is not used for long.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;

use super::acquire::{Acquire, Acquired, FileContent, WatchedFiles};
use super::error::CredentialError;
use super::jwt;
use super::lifetime::Lifetime;
use super::record::AcquisitionRecord;
use super::secret::read_token;
use crate::files::Secret;
use crate::metrics::TokenStage;

/// The time after a successful read in which an opaque token is used.
const OPAQUE_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// An acquirer that reads a token from a file and watches the file.
#[derive(Debug)]
pub(crate) struct TokenFile {
    pub(crate) path: PathBuf,
}

impl TokenFile {
    async fn read(&self, record: &AcquisitionRecord) -> Result<(Secret, Option<SystemTime>), CredentialError> {
        let token = read_token(&self.path, record).await?;
        let expiry = jwt::claims(token.expose()).as_ref().and_then(jwt::expiry);
        match expiry {
            Some(expired) if expired <= SystemTime::now() => {
                Err(CredentialError::ExpiredFile { path: self.path.clone(), expired })
            }
            Some(_) | None => Ok((token, expiry)),
        }
    }
}

#[async_trait]
impl Acquire for TokenFile {
    async fn acquire(&self, record: &AcquisitionRecord) -> Result<Acquired, CredentialError> {
        let started = Instant::now();
        let outcome = self.read(record).await;
        let subject = format!("token from file {}", self.path.display());
        let token = outcome.as_ref().map(|(token, _)| token);
        record.add_local_step(TokenStage::Exchange, subject, started, None, token);
        let (token, expiry) = outcome?;
        let left = expiry.map(|expiry| expiry.duration_since(SystemTime::now()).unwrap_or_default());
        let lifetime = Lifetime { starts: started, duration: left.unwrap_or(OPAQUE_LIFETIME), refresh_in: None };
        Acquired::bearer(token.expose(), lifetime)
    }

    fn watched_files(&self) -> WatchedFiles {
        WatchedFiles { paths: vec![self.path.clone()], content: FileContent::Token }
    }

    async fn inspect(&self, record: &AcquisitionRecord) -> Result<(), CredentialError> {
        self.read(record).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::bearer::Bearer;

    async fn read(content: &str) -> Result<Acquired, CredentialError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, content).unwrap();
        TokenFile { path }.acquire(&AcquisitionRecord::default()).await
    }

    fn expiring(at: SystemTime) -> String {
        format!("e30.{}.sig", jwt::encode(format!(r#"{{"exp":{}}}"#, jwt::unix_seconds(at)).as_bytes()))
    }

    #[tokio::test]
    async fn uses_a_jwt_until_its_exp() {
        let acquired = read(&expiring(SystemTime::now() + Duration::from_secs(1000))).await.unwrap();
        let duration = acquired.lifetime.unwrap().duration.as_secs();
        assert!((990..=1000).contains(&duration), "{duration}");
    }

    #[tokio::test]
    async fn rejects_an_expired_jwt() {
        let err = read(&expiring(SystemTime::now() - Duration::from_secs(1))).await.unwrap_err();
        assert!(err.to_string().contains("expired at 2"), "{err}");
    }

    #[tokio::test]
    async fn uses_an_opaque_token_for_15_minutes() {
        let acquired = read("  opaque-token\n").await.unwrap();
        assert_eq!(acquired.token_or_key.fingerprint(), Bearer::new("opaque-token").unwrap().fingerprint());
        assert_eq!(acquired.lifetime.unwrap().duration, OPAQUE_LIFETIME);
    }

    #[tokio::test]
    async fn rejects_a_file_without_a_token() {
        for content in ["", "\n", "two words", "{\"access_token\":\"x\"}"] {
            assert!(read(content).await.is_err(), "{content:?}");
        }
    }
}
