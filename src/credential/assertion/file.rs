//! Assertions from a file that another program updates, such as a Kubernetes projected token.
//!
//! The file is read for each token request. The identity library has a reader too, but it caches the content for ten minutes and
//! sends trailing line breaks.

use std::path::Path;
use std::time::SystemTime;

use tokio::time::Instant;

use super::clock;
use crate::credential::error::CredentialError;
use crate::credential::jwt;
use crate::credential::record::{AcquisitionRecord, NotAfter};
use crate::credential::secret::read_token;
use crate::files::Secret;
use crate::metrics::TokenStage;

/// Reads the assertion.
pub(super) async fn assertion(path: &Path, record: &AcquisitionRecord) -> Result<Secret, CredentialError> {
    let started = Instant::now();
    let outcome = read(path, record).await;
    let claims = outcome.as_ref().ok().and_then(|token| jwt::claims(token.expose()));
    let not_after = claims.as_ref().and_then(jwt::expiry).map(NotAfter::AssertionFile);
    let subject = format!("assertion from file {}", path.display());
    record.add_local_step(TokenStage::Assertion, subject, started, not_after, outcome.as_ref());
    outcome
}

/// Reads the assertion and warns if it is not a JWT. Entra validates its claims.
pub(super) async fn inspect(path: &Path, record: &AcquisitionRecord) -> Result<(), CredentialError> {
    let token = read(path, record).await?;
    if jwt::claims(token.expose()).is_none() {
        record.add_warning(format!(
            "file {} holds a token that is not a JWT, and Entra accepts no other assertion",
            path.display()
        ));
    }
    Ok(())
}

/// Reads the assertion. Fails if it has expired.
async fn read(path: &Path, record: &AcquisitionRecord) -> Result<Secret, CredentialError> {
    let token = read_token(path, record).await?;
    match jwt::claims(token.expose()).as_ref().and_then(jwt::expiry) {
        Some(expired) if clock::has_expired(expired, SystemTime::now()) => {
            Err(CredentialError::ExpiredFile { path: path.to_owned(), expired })
        }
        Some(_) | None => Ok(token),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::credential::record::StepOutcome;

    fn expiring(at: SystemTime) -> String {
        format!("e30.{}.sig", jwt::encode(format!(r#"{{"exp":{}}}"#, jwt::unix_seconds(at)).as_bytes()))
    }

    #[tokio::test]
    async fn reads_and_trims_the_file_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let record = AcquisitionRecord::default();
        for content in ["first", "second"] {
            std::fs::write(&path, format!("{content}\n")).unwrap();
            assert_eq!(assertion(&path, &record).await.unwrap().expose(), content);
        }
        assert_eq!(record.take_steps().len(), 2);
    }

    #[tokio::test]
    async fn rejects_an_assertion_that_expired_before_the_clock_tolerance() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, expiring(SystemTime::now() - Duration::from_secs(60))).unwrap();
        assert!(assertion(&path, &AcquisitionRecord::default()).await.is_ok());
        std::fs::write(&path, expiring(SystemTime::now() - Duration::from_secs(3600))).unwrap();
        let record = AcquisitionRecord::default();
        let err = assertion(&path, &record).await.unwrap_err();
        assert!(err.to_string().contains("has stopped"), "{err}");
        assert!(matches!(record.take_steps()[0].outcome, StepOutcome::Failed { .. }));
    }
}
