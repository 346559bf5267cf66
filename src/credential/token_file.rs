//! A ready bearer in a file that another program keeps fresh.
//!
//! A JWT is used until its own `exp`. A token that is not a JWT says nothing about its life, so it stays in service while
//! the file can be read and holds it, and for a quarter of an hour after that. A file caught half written, or gone for a
//! moment, therefore costs no request; a file that is taken away stops its token.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;

use super::acquire::{Acquire, Acquired, Files};
use super::error::CredentialError;
use super::jwt;
use super::legs::Legs;
use super::lifetime::Lifetime;
use super::secret::read_token;
use crate::files::Secret;
use crate::metrics::TokenStage;

/// How long a token without a lifetime of its own outlives the last good reading of its file.
const OPAQUE_LIFE: Duration = Duration::from_secs(15 * 60);

/// Reads a bearer from a file and follows the file.
#[derive(Debug)]
pub(crate) struct TokenFile {
    pub(crate) path: PathBuf,
}

impl TokenFile {
    async fn read(&self, legs: &Legs) -> Result<(Secret, Option<SystemTime>), CredentialError> {
        let token = read_token(&self.path, legs).await?;
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
    async fn acquire(&self, legs: &Legs) -> Result<Acquired, CredentialError> {
        let started = Instant::now();
        let outcome = self.read(legs).await;
        let subject = format!("token from file {}", self.path.display());
        let token = outcome.as_ref().map(|(token, _)| token);
        legs.record_local(TokenStage::Exchange, subject, started, None, token);
        let (token, expiry) = outcome?;
        let left = expiry.map(|expiry| expiry.duration_since(SystemTime::now()).unwrap_or_default());
        let life = Lifetime { since: started, lasts: left.unwrap_or(OPAQUE_LIFE), refresh_in: None };
        Acquired::bearer(token.expose(), life)
    }

    fn files(&self) -> Files {
        Files { paths: vec![self.path.clone()], always: true }
    }

    async fn inspect(&self, legs: &Legs) -> Result<(), CredentialError> {
        self.read(legs).await?;
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
        TokenFile { path }.acquire(&Legs::default()).await
    }

    fn expiring(at: SystemTime) -> String {
        format!("e30.{}.sig", jwt::encode(format!(r#"{{"exp":{}}}"#, jwt::unix(at)).as_bytes()))
    }

    #[tokio::test]
    async fn a_jwt_lives_until_its_own_expiry() {
        let acquired = read(&expiring(SystemTime::now() + Duration::from_secs(1000))).await.unwrap();
        let lasts = acquired.life.unwrap().lasts.as_secs();
        assert!((990..=1000).contains(&lasts), "{lasts}");
    }

    #[tokio::test]
    async fn an_expired_jwt_is_refused() {
        let err = read(&expiring(SystemTime::now() - Duration::from_secs(1))).await.unwrap_err();
        assert!(err.to_string().contains("expired at 2"), "{err}");
    }

    #[tokio::test]
    async fn an_opaque_token_is_read_trimmed_and_checked_again() {
        let acquired = read("  opaque-token\n").await.unwrap();
        assert_eq!(acquired.material.fingerprint(), Bearer::new("opaque-token").unwrap().fingerprint());
        assert_eq!(acquired.life.unwrap().lasts, OPAQUE_LIFE);
    }

    #[tokio::test]
    async fn what_is_no_token_never_becomes_a_header() {
        for content in ["", "\n", "two words", "{\"access_token\":\"x\"}"] {
            assert!(read(content).await.is_err(), "{content:?}");
        }
    }
}
