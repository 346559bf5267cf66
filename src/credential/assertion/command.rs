//! Assertions from the output of a program, for identity providers without built-in support.
//!
//! ```text
//! this host                                                     tenant B
//! program, no shell ── stdout: a JWT, or {"token", "expires_at"} ── assertion ──► token ──► SignalR
//! ```
//!
//! The program learns nothing about the tenant, so all tenants use its output for a minute, unless it expires sooner. Output
//! without an expiry is used for one token request, and by those that wait for it. Messages never contain stdout.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::clock;
use super::fresh::FreshAssertion;
use crate::credential::bearer::Bearer;
use crate::credential::error::CredentialError;
use crate::credential::jwt;
use crate::credential::lifetime;
use crate::credential::process::{CommandError, Program};
use crate::credential::proof_settings::CommandSettings;
use crate::credential::record::AcquisitionRecord;
use crate::files::Secret;
use crate::metrics::TokenStage;

/// The JSON form of the output. The other form is the bare token.
#[derive(Deserialize)]
struct JsonOutput {
    token: String,
    /// RFC 3339, or seconds since 1970.
    expires_at: Option<Value>,
}

/// Runs the program and reads the assertion from its output.
pub(super) async fn assertion(
    settings: &CommandSettings,
    record: &AcquisitionRecord,
) -> Result<FreshAssertion, CredentialError> {
    let started = Instant::now();
    let outcome = run(settings).await.map_err(CredentialError::from);
    let subject = format!("assertion printed by {}", settings.program.display());
    let token = outcome.as_ref().map(|(token, _)| token);
    record.add_local_step(TokenStage::Assertion, subject, started, None, token);
    let (token, expires_at) = outcome?;
    Ok(FreshAssertion::new(token, Instant::now(), SystemTime::now(), expires_at))
}

async fn run(settings: &CommandSettings) -> Result<(Secret, Option<SystemTime>), CommandError> {
    let program = Program {
        path: &settings.program,
        arguments: settings.arguments.iter().map(String::as_str).collect(),
        environment: settings.environment.iter().map(String::as_str).collect(),
        timeout: settings.timeout,
    };
    let stdout = program.run().await?;
    read(&stdout, SystemTime::now()).map_err(|problem| problem.into_error(&settings.program))
}

/// Why the output is not a usable assertion.
#[derive(Debug, PartialEq, Eq)]
enum OutputError {
    NotAToken,
    Expired(SystemTime),
}

impl OutputError {
    fn into_error(self, program: &std::path::Path) -> CommandError {
        let program = program.to_owned();
        match self {
            Self::NotAToken => CommandError::NotAToken { program },
            Self::Expired(expired) => CommandError::Expired { program, expired },
        }
    }
}

/// Returns the assertion and its expiry.
fn read(stdout: &Secret, now: SystemTime) -> Result<(Secret, Option<SystemTime>), OutputError> {
    let text = stdout.expose().trim_start_matches('\u{feff}').trim();
    let (token, expires_at) = if text.starts_with('{') {
        let output: JsonOutput = serde_json::from_str(text).map_err(|_err| OutputError::NotAToken)?;
        let expires_at = output.expires_at.filter(|at| !at.is_null());
        let expires_at = expires_at.map(|at| lifetime::timestamp(&at).ok_or(OutputError::NotAToken)).transpose()?;
        (Secret::new(output.token), expires_at)
    } else {
        (Secret::new(text.to_owned()), None)
    };
    let claims = jwt::claims(token.expose()).filter(|_| Bearer::new(token.expose()).is_ok());
    let claims = claims.ok_or(OutputError::NotAToken)?;
    match expires_at.or_else(|| jwt::expiry(&claims)) {
        Some(at) if clock::has_expired(at, now) => Err(OutputError::Expired(at)),
        expires_at => Ok((token, expires_at)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.sig", jwt::encode(claims.as_bytes()))
    }

    #[test]
    fn accepts_only_a_bare_token_or_json() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let token = jwt("{}");
        let read = |text: &str| read(&Secret::new(text.to_owned()), now).map(|(token, _)| token.expose().to_owned());
        for good in [
            format!("  {token}\r\n"),
            format!(r#"{{"token":"{token}"}}"#),
            format!(r#"{{"token":"{token}","expires_at":1800003600,"more":1}}"#),
            format!(r#"{{"token":"{token}","expires_at":"2030-01-15T08:00:00Z"}}"#),
            format!(r#"{{"token":"{token}","expires_at":"1800003600"}}"#),
            format!(r#"{{"token":"{token}","expires_at":null}}"#),
            ["\u{feff}", token.as_str()].concat(),
        ] {
            assert_eq!(read(&good), Ok(token.clone()), "{good}");
        }
        for bad in [
            String::new(),
            "opaque".to_owned(),
            format!("Token: {token}"),
            format!("{token}\n{token}"),
            format!(r#"{{"value":"{token}"}}"#),
            format!(r#"{{"token":"{token}","expires_at":"soon"}}"#),
            r#"{"token":"opaque"}"#.to_owned(),
        ] {
            assert_eq!(read(&bad), Err(OutputError::NotAToken), "{bad}");
        }
    }

    #[test]
    fn rejects_an_assertion_that_expired_before_the_clock_tolerance() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let an_hour_ago = UNIX_EPOCH + Duration::from_secs(1_799_996_400);
        for text in [
            jwt(r#"{"exp":1799996400}"#),
            format!(r#"{{"token":"{}","expires_at":1799996400}}"#, jwt(r#"{"exp":1800000600}"#)),
            format!(r#"{{"token":"{}","expires_at":"{}"}}"#, jwt("{}"), humantime::format_rfc3339(an_hour_ago)),
        ] {
            assert_eq!(read(&Secret::new(text), now).map(drop), Err(OutputError::Expired(an_hour_ago)));
        }
        assert!(read(&Secret::new(jwt(r#"{"exp":1799999940}"#)), now).is_ok(), "this host's clock may be ahead");
    }
}
