//! Acquires tokens of the user who is signed in to the Azure CLI, for development without an app registration.
//!
//! ```text
//! this host                                              tenant B
//! az account get-access-token --tenant B ── token of the signed-in user ── request ──► SignalR ◄── role ── user
//! ```
//!
//! The CLI runs without a shell and with a deadline, and is killed when the acquisition is cancelled. The Azure CLI credential
//! of the identity library uses a shell and has no deadline. Source of the output format: Azure CLI reference, `az account
//! get-access-token`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::acquire::{Acquire, Acquired, WatchedFiles};
use super::error::CredentialError;
use super::jwt;
use super::lifetime;
use super::lifetime::Lifetime;
use super::process::{CommandError, Program};
use super::record::AcquisitionRecord;
use crate::files::Secret;
use crate::metrics::TokenStage;

/// The program, found in `PATH`.
const PROGRAM: &str = "az";

/// The deadline of the CLI. Chosen: it is a Python program, which takes seconds on a slow machine and may call Entra.
const TIMEOUT: Duration = Duration::from_secs(12);

/// The variables that the CLI needs for its installation, its sign-in state and an outbound proxy.
const ENVIRONMENT: [&str; 14] = [
    "PATH",
    "HOME",
    "LANG",
    "AZURE_CONFIG_DIR",
    "XDG_CONFIG_HOME",
    "DBUS_SESSION_BUS_ADDRESS",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "USERPROFILE",
    "SystemRoot",
];

/// An acquirer that runs the Azure CLI.
#[derive(Debug)]
pub(crate) struct AzureCli {
    pub(crate) tenant: Arc<str>,
    pub(crate) scope: String,
}

/// The output of the CLI. `expires_on` exists since version 2.54.0.
#[derive(Deserialize)]
struct Output {
    #[serde(rename = "accessToken")]
    access_token: String,
    expires_on: Option<Value>,
}

impl AzureCli {
    async fn token(&self) -> Result<(Secret, SystemTime), CommandError> {
        let arguments =
            ["account", "get-access-token", "--output", "json", "--scope", &self.scope, "--tenant", &self.tenant];
        let program = Program {
            path: Path::new(PROGRAM),
            arguments: arguments.to_vec(),
            environment: ENVIRONMENT.to_vec(),
            timeout: TIMEOUT,
        };
        let stdout = program.run().await?;
        let (token, expires) =
            read(&stdout).ok_or_else(|| CommandError::NotAToken { program: PathBuf::from(PROGRAM) })?;
        if expires <= SystemTime::now() {
            return Err(CommandError::Expired { program: PathBuf::from(PROGRAM), expired: expires });
        }
        Ok((token, expires))
    }
}

fn read(stdout: &Secret) -> Option<(Secret, SystemTime)> {
    let output: Output = serde_json::from_str(stdout.expose()).ok()?;
    let token = Secret::new(output.access_token);
    let given = output.expires_on.as_ref().and_then(lifetime::timestamp);
    let expires = given.or_else(|| jwt::expiry(&jwt::claims(token.expose())?))?;
    Some((token, expires))
}

#[async_trait]
impl Acquire for AzureCli {
    async fn acquire(&self, record: &AcquisitionRecord) -> Result<Acquired, CredentialError> {
        let starts = Instant::now();
        let outcome = self.token().await.map_err(CredentialError::from);
        let subject = format!("token of the Azure CLI for tenant {}", self.tenant);
        record.add_local_step(TokenStage::Exchange, subject, starts, None, outcome.as_ref().map(|(token, _)| token));
        let (token, expires) = outcome?;
        let duration = expires.duration_since(SystemTime::now()).unwrap_or_default();
        Acquired::bearer(token.expose(), Lifetime { starts, duration, refresh_in: None })
    }

    fn watched_files(&self) -> WatchedFiles {
        WatchedFiles::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_output_of_new_and_old_versions() {
        let read = |text: &str| read(&Secret::new(text.to_owned())).map(|(_, expires)| jwt::unix_seconds(expires));
        let token = format!("e30.{}.sig", jwt::encode(br#"{"exp":1800000000}"#));
        let new = r#"{"accessToken":"opaque","expiresOn":"2030-01-15 09:00:00.000000","expires_on":1800000001,"tokenType":"Bearer"}"#;
        assert_eq!(read(new), Some(1_800_000_001));
        // `expiresOn` is local time without a zone, so the `exp` claim is used.
        assert_eq!(
            read(&format!(r#"{{"accessToken":"{token}","expiresOn":"2030-01-15 09:00:00"}}"#)),
            Some(1_800_000_000)
        );
        for bad in ["", "{}", "Please run 'az login'", r#"{"accessToken":"opaque","expires_on":null}"#] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
