//! The files that the sandbox writes for a gateway.

use std::path::Path;

use super::*;
use crate::sandbox::{CredentialChoice, GatewayConfig};

#[tokio::test]
async fn the_configuration_names_the_sandbox_and_its_files() {
    let sandbox = start().await;
    let folder = tempfile::tempdir().unwrap();
    let files = sandbox.write_files(folder.path(), &GatewayConfig::default()).unwrap();
    let text = std::fs::read_to_string(&files.config).unwrap();
    let toml: toml_edit::DocumentMut = text.parse().unwrap();
    assert_eq!(toml["listeners"]["default"]["bind"].as_str(), Some("127.0.0.1:0"));
    assert_eq!(toml["credentials"]["east"]["kind"].as_str(), Some("client_secret"));
    assert_eq!(toml["credentials"]["east"]["tenant"].as_str(), Some(TENANT_B));
    assert_eq!(toml["credentials"]["east"]["authority"].as_str(), Some(sandbox.entra().url().as_str()));
    assert_eq!(toml["credentials"]["west"]["kind"].as_str(), Some("federated"));
    let assertion = &toml["credentials"]["west"]["assertion"];
    assert_eq!(assertion["imds_endpoint"].as_str(), Some(sandbox.imds().url().as_str()));
    assert_eq!(toml["endpoints"]["east"]["url"].as_str(), Some(east(&sandbox).url().as_str()));
    assert_eq!(toml["endpoints"]["east"]["ca_file"].as_str(), Some("ca.pem"));
    assert_eq!(std::fs::read_to_string(&files.secret).unwrap(), sandbox.client_secret().expose());
    assert_eq!(std::fs::read_to_string(&files.ca).unwrap(), sandbox.ca_pem());
    assert!(!text.contains(sandbox.client_secret().expose()));
}

#[tokio::test]
async fn writes_the_files_of_every_credential() {
    let sandbox = start().await;
    for choice in [
        CredentialChoice::ClientSecret,
        CredentialChoice::ClientCertificate,
        CredentialChoice::ClientCertificateRs256,
        CredentialChoice::FederatedIdentity,
        CredentialChoice::FederatedFile,
        CredentialChoice::FederatedGithubActions,
        CredentialChoice::FederatedAzurePipelines,
        CredentialChoice::FederatedGcp,
        CredentialChoice::FederatedOAuth2,
        CredentialChoice::FederatedOAuth2Post,
        CredentialChoice::FederatedCommand,
        CredentialChoice::WorkloadIdentity,
        CredentialChoice::AzureCli,
        CredentialChoice::ManagedIdentity,
        CredentialChoice::AccessKey,
        CredentialChoice::TokenFile,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = GatewayConfig {
            operations: vec![String::from("messages")],
            more: String::from("[limits]\nmax_body = 1024\n"),
            ..GatewayConfig::default().with_credential("east", choice)
        };
        let files = sandbox.write_files(folder.path(), &config).unwrap();
        let toml: toml_edit::DocumentMut = std::fs::read_to_string(&files.config).unwrap().parse().unwrap();
        assert_eq!(toml["limits"]["max_body"].as_integer(), Some(1024));
        let credential = &toml["credentials"]["east"];
        let named = [
            credential.get("path"),
            credential.get("key").and_then(|key| key.get("file")),
            credential.get("secret").and_then(|secret| secret.get("file")),
            credential.get("certificate"),
            credential.get("assertion").and_then(|assertion| assertion.get("path")),
            credential.get("assertion").and_then(|assertion| assertion.get("secret")?.get("file")),
            credential.get("assertion").and_then(|assertion| assertion.get("argv")?.get(0)),
        ];
        for file in named.into_iter().flatten() {
            assert!(folder.path().join(file.as_str().unwrap()).exists(), "{choice:?} {file}");
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_secrets_but_every_user_the_ca() {
    use std::os::unix::fs::PermissionsExt;
    let sandbox = start().await;
    let folder = tempfile::tempdir().unwrap();
    let files = sandbox.write_files(folder.path(), &GatewayConfig::default()).unwrap();
    let mode = |file: &Path| std::fs::metadata(file).unwrap().permissions().mode() & 0o777;
    for file in [&files.secret, &files.certificate, &files.assertion] {
        assert_eq!(mode(file), 0o600);
    }
    // The umask of the process applies.
    let other = folder.path().join("other");
    std::fs::write(&other, "").unwrap();
    assert_eq!(mode(&files.ca), mode(&other) & 0o644);
}
