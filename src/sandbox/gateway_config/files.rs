//! The files of a sandbox: the gateway's configuration and everything that it names. Knows nothing of what is in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::config::{CredentialChoice, GatewayConfig, GatewayCredential, access_key_file, token_file};
use crate::sandbox::directory::world::WorldContent;
use crate::sandbox::{Sandbox, SandboxError};

/// How long a written assertion and a written token are good for.
const WRITTEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The name of the program that prints an assertion.
pub(crate) const PROGRAM: &str = "get-assertion";

/// The files that were written.
#[derive(Clone, Debug)]
pub struct Files {
    /// The configuration.
    pub config: PathBuf,
    /// The certificate authority.
    pub ca: PathBuf,
    /// The app registration's secret.
    pub secret: PathBuf,
    /// Its certificate and key.
    pub certificate: PathBuf,
    /// An assertion of the external issuer.
    pub assertion: PathBuf,
}

/// The files that were written for a described world.
#[derive(Clone, Debug)]
pub struct WorldFiles {
    /// The gateway's configuration, if there is a gateway.
    pub config: Option<PathBuf>,
    /// The certificate authority.
    pub ca: PathBuf,
}

impl Sandbox {
    /// Writes `gateway.toml` and everything it names into a folder, which is made if need be. Secrets can be read by
    /// their owner alone.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_files(&self, folder: &Path, config: &GatewayConfig) -> Result<Files, SandboxError> {
        let write = Writer::new(folder)?;
        let certificate = self.client_certificate();
        self.write_credentials(&write, config)?;
        Ok(Files {
            ca: write.public_file("ca.pem", self.ca_pem())?,
            secret: write.file("client-secret", self.client_secret().expose())?,
            certificate: write
                .file("client.pem", &format!("{}{}", certificate.certificate_pem(), certificate.key_pem()))?,
            assertion: write.file("assertion.jwt", &self.external_assertion(WRITTEN_LIFE)?)?,
            config: write.file("gateway.toml", &self.gateway_config(config))?,
        })
    }

    /// As [`Self::write_files`], for a sandbox with a [`World`](crate::sandbox::World) of its own. Without a gateway's
    /// configuration there is none in the answer.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write_world(&self, folder: &Path, config: Option<&GatewayConfig>) -> Result<WorldFiles, SandboxError> {
        let write = Writer::new(folder)?;
        for file in &self.files {
            let content = match &file.content {
                WorldContent::Secret(secret) => secret.expose().to_owned(),
                WorldContent::Assertion { issuer, subject, audience } => {
                    self.assertion(issuer, subject, audience, WRITTEN_LIFE)?
                }
            };
            write.file(&file.name, &content)?;
        }
        for endpoint in self.endpoints() {
            write.file(&access_key_file(endpoint.name()), endpoint.access_key().expose())?;
        }
        let ca = write.public_file("ca.pem", self.ca_pem())?;
        let Some(config) = config else { return Ok(WorldFiles { config: None, ca }) };
        self.write_credentials(&write, config)?;
        Ok(WorldFiles { config: Some(write.file("gateway.toml", &self.gateway_config(config))?), ca })
    }

    fn write_credentials(&self, write: &Writer<'_>, config: &GatewayConfig) -> Result<(), SandboxError> {
        for endpoint in self.endpoints() {
            let name = endpoint.name();
            match config.credential(name) {
                GatewayCredential::AccessKey => {
                    drop(write.file(&access_key_file(name), endpoint.access_key().expose())?);
                }
                GatewayCredential::Token { client_id } => {
                    drop(write.file(&token_file(name), &self.token_of(&client_id, name, WRITTEN_LIFE)?)?);
                }
                GatewayCredential::Secret { .. }
                | GatewayCredential::Certificate { .. }
                | GatewayCredential::FederatedIdentity { .. }
                | GatewayCredential::FederatedFile { .. }
                | GatewayCredential::ManagedIdentity { .. } => {}
                GatewayCredential::Platform(choice) => self.write_platform(write, choice)?,
            }
        }
        Ok(())
    }

    fn write_platform(&self, write: &Writer<'_>, choice: CredentialChoice) -> Result<(), SandboxError> {
        if matches!(choice, CredentialChoice::FederatedOAuth2 | CredentialChoice::FederatedOAuth2Post) {
            write.file("idp-secret", self.oauth2_client().1.expose())?;
        }
        if choice == CredentialChoice::FederatedCommand {
            write.write(PROGRAM, "#!/bin/sh\nexec cat \"${0%/*}/assertion.jwt\"\n", 0o700)?;
        }
        Ok(())
    }
}

/// Writes files into one folder.
struct Writer<'a>(&'a Path);

impl<'a> Writer<'a> {
    fn new(folder: &'a Path) -> Result<Self, SandboxError> {
        fs::create_dir_all(folder).map_err(|source| SandboxError::Write { path: folder.to_owned(), source })?;
        Ok(Self(folder))
    }

    /// A file for its owner alone.
    fn file(&self, name: &str, content: &str) -> Result<PathBuf, SandboxError> {
        self.write(name, content, 0o600)
    }

    /// A file for everybody: clients in other containers run as other users.
    fn public_file(&self, name: &str, content: &str) -> Result<PathBuf, SandboxError> {
        self.write(name, content, 0o644)
    }

    fn write(&self, name: &str, content: &str, mode: u32) -> Result<PathBuf, SandboxError> {
        let path = self.0.join(name);
        match write(&path, content, mode) {
            Ok(()) => Ok(path),
            Err(source) => Err(SandboxError::Write { path, source }),
        }
    }
}

/// Writes a file whole or not at all, with its mode whatever was there before. A symbolic link is replaced, not followed.
#[cfg(unix)]
fn write(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}-{:08x}", std::process::id(), fastrand::u32(..)));
    let written = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // Whatever the umask leaves of it.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content.as_bytes())?;
        fs::rename(&temporary, path)
    };
    written().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

#[cfg(not(unix))]
fn write(path: &Path, content: &str, _mode: u32) -> io::Result<()> {
    fs::write(path, content)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn file_gets_its_mode_and_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, path) = (dir.path().join("victim"), dir.path().join("client-secret"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        write(&path, "secret", 0o600).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        write(&path, "another", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
    }
}
