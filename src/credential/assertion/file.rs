//! An assertion in a file that another program keeps fresh, such as a Kubernetes projected token.
//!
//! Read at each acquisition: the library's own reader keeps a token for ten minutes and sends a trailing line break along.

use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::credential::error::CredentialError;
use crate::credential::jwt;
use crate::credential::legs::{Legs, NotAfter};
use crate::credential::secret::read_token;
use crate::files::Secret;
use crate::metrics::TokenStage;

/// How long after its expiry an assertion is still sent: this host's clock may be ahead, and Entra has the last word.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Reads the assertion.
pub(super) async fn assertion(path: &Path, legs: &Legs) -> Result<Secret, CredentialError> {
    let started = Instant::now();
    let outcome = read(path, legs).await;
    let claims = outcome.as_ref().ok().and_then(|token| jwt::claims(token.expose()));
    let not_after = claims.as_ref().and_then(jwt::expiry).map(NotAfter::AssertionFile);
    let subject = format!("assertion from file {}", path.display());
    legs.record_local(TokenStage::Assertion, subject, started, not_after, outcome.as_ref());
    outcome
}

/// Reads the assertion and notes whether it looks like one. What it says is for Entra to judge.
pub(super) async fn inspect(path: &Path, legs: &Legs) -> Result<(), CredentialError> {
    let token = read(path, legs).await?;
    if jwt::claims(token.expose()).is_none() {
        legs.remark(format!(
            "file {} holds a token that is not a JWT, and Entra takes no other assertion",
            path.display()
        ));
    }
    Ok(())
}

/// Reads the assertion, if it has not expired.
async fn read(path: &Path, legs: &Legs) -> Result<Secret, CredentialError> {
    let token = read_token(path, legs).await?;
    match jwt::claims(token.expose()).as_ref().and_then(jwt::expiry) {
        Some(expired) if expired + CLOCK_TOLERANCE < SystemTime::now() => {
            Err(CredentialError::ExpiredFile { path: path.to_owned(), expired })
        }
        Some(_) | None => Ok(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::legs::LegOutcome;

    fn expiring(at: SystemTime) -> String {
        format!("e30.{}.sig", jwt::encode(format!(r#"{{"exp":{}}}"#, jwt::unix(at)).as_bytes()))
    }

    #[tokio::test]
    async fn reads_the_file_anew_each_time_and_trims_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let legs = Legs::default();
        for content in ["first", "second"] {
            std::fs::write(&path, format!("{content}\n")).unwrap();
            assert_eq!(assertion(&path, &legs).await.unwrap().expose(), content);
        }
        assert_eq!(legs.take().len(), 2);
    }

    #[tokio::test]
    async fn refuses_an_assertion_that_expired_long_ago_but_allows_for_a_fast_clock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, expiring(SystemTime::now() - Duration::from_secs(60))).unwrap();
        assert!(assertion(&path, &Legs::default()).await.is_ok());
        std::fs::write(&path, expiring(SystemTime::now() - Duration::from_secs(3600))).unwrap();
        let legs = Legs::default();
        let err = assertion(&path, &legs).await.unwrap_err();
        assert!(err.to_string().contains("has stopped"), "{err}");
        assert!(matches!(legs.take()[0].outcome, LegOutcome::Failed { .. }));
    }
}
