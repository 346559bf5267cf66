//! A sandbox with one endpoint that `doctor` examines, and functions that break it.

use std::path::PathBuf;
use std::time::Duration;

use signalr_gateway::config::{self, ConfigError, Sources};
use signalr_gateway::diagnosis::{self, Deliver, Finding};
use signalr_gateway::gateway::Settings;
use signalr_gateway::metrics::Metrics;
use signalr_gateway::sandbox::{ClientCertificate, CredentialChoice, Files, GatewayConfig, Sandbox, SandboxSettings};

/// A setup that a row may break: the directory, the servers, the files and the configuration.
pub(crate) struct Setup {
    pub(crate) sandbox: Sandbox,
    pub(crate) files: Files,
    /// The settings of the correct setup.
    before: Settings,
    _folder: tempfile::TempDir,
}

impl Setup {
    /// Starts a correct setup whose endpoint `east` has the given credential.
    pub(crate) async fn new(choice: CredentialChoice) -> Self {
        let sandbox = Sandbox::start(SandboxSettings::default()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = GatewayConfig::default().with_credential("east", choice);
        let files = sandbox.write_files(folder.path(), &config).unwrap();
        let before = load(&files).unwrap();
        Self { sandbox, files, before, _folder: folder }
    }

    /// Replaces text of the configuration file.
    pub(crate) fn rewrite(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.files.config).unwrap();
        assert!(text.contains(from), "the configuration has no {from}:\n{text}");
        std::fs::write(&self.files.config, text.replace(from, to)).unwrap();
    }

    /// Replaces the first occurrence of a text of the configuration file.
    pub(crate) fn rewrite_first(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(&self.files.config).unwrap();
        assert!(text.contains(from), "the configuration has no {from}:\n{text}");
        std::fs::write(&self.files.config, text.replacen(from, to, 1)).unwrap();
    }

    /// Writes another certificate and key into the file.
    pub(crate) fn write_certificate(&self, certificate: &ClientCertificate) {
        let pem = format!("{}{}", certificate.certificate_pem(), certificate.key_pem());
        std::fs::write(&self.files.certificate, pem).unwrap();
    }

    /// Returns the path of a file beside the configuration.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.files.config.with_file_name(name)
    }

    /// Examines `east`.
    pub(crate) async fn examine(&self) -> Finding {
        self.examine_with(Deliver::No).await
    }

    /// Examines `east`, and delivers a message to a client if asked to.
    pub(crate) async fn examine_with(&self, deliver: Deliver<'_>) -> Finding {
        // The configuration does not load when a file is missing. Use the correct settings then, as if the file was removed
        // after loading.
        let mut settings = load(&self.files).unwrap_or_else(|_gone| self.before.clone());
        settings.endpoints.retain(|endpoint| endpoint.name.as_str() == "east");
        settings.credentials.retain(|credential| credential.id.name.as_str() == "east");
        let metrics = Metrics::new().unwrap();
        let limit = Duration::from_secs(if matches!(deliver, Deliver::No) { 15 } else { 30 });
        let examination = diagnosis::examine(&settings.credentials, &settings.endpoints, deliver, &metrics, |_| ());
        let examination = tokio::time::timeout(limit, Box::pin(examination)).await.unwrap();
        let mut findings = examination.findings;
        assert_eq!(findings.len(), 1);
        findings.remove(0)
    }
}

fn load(files: &Files) -> Result<Settings, ConfigError> {
    let sources = Sources::of_process(Some(files.config.clone()), Vec::new());
    config::load(&sources).map(|loaded| loaded.settings)
}
