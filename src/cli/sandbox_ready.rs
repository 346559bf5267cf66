//! The ready file of `sandbox`: what a test needs to use a sandbox. Also the response to `GET /sandbox/ready`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

/// The version of the ready file. It changes when a key is removed or gets another meaning, and not when one is added.
pub(super) const VERSION: u32 = 1;

/// The ready file of `signalr-gateway sandbox`. Further keys may be added within a version, so readers ignore unknown ones.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) struct SandboxReady {
    /// The version of this contract: 1. It changes when a key is removed or gets another meaning.
    pub(super) version: u32,
    /// The process id of the sandbox.
    pub(super) pid: u32,
    /// The URL of the gateway, without a trailing slash. `null` with `--no-gateway`.
    pub(super) gateway: Option<String>,
    /// The URL of the gateway's admin listener. `null` with `--no-gateway`, or if it is off.
    pub(super) admin: Option<String>,
    /// The URL of the control listener: faults, journals, connections, and client URLs without TLS.
    pub(super) control: String,
    /// The URL of the web page.
    pub(super) page: String,
    /// The URLs of the SignalR endpoints, by name.
    pub(super) endpoints: BTreeMap<String, String>,
    /// The connection strings of the SignalR endpoints, with their access keys, by name.
    pub(super) connection_strings: BTreeMap<String, String>,
    /// The ids of the tenants of the SignalR endpoints, by the endpoint's name.
    pub(super) tenants: BTreeMap<String, String>,
    /// The app registrations.
    pub(super) applications: Vec<ReadyApplication>,
    /// The URL of Entra, which is the authority host of identity libraries.
    pub(super) entra: String,
    /// The URL of the instance metadata service. Azure's identity libraries take it as `AZURE_POD_IDENTITY_AUTHORITY_HOST`.
    pub(super) imds: String,
    /// The identity endpoint of App Service.
    pub(super) app_service: ReadyAppService,
    /// The URL of the identity providers outside Entra.
    pub(super) providers: String,
    /// The token request of a GitHub Actions job.
    pub(super) github_actions: ReadyTokenRequest,
    /// The token request of an Azure Pipelines job.
    pub(super) azure_pipelines: ReadyTokenRequest,
    /// A client of an OAuth 2.0 authorization server.
    pub(super) oauth2: ReadyOAuth2,
    /// The URL of Google Cloud's metadata server. Google's libraries take its host as `GCE_METADATA_HOST`.
    pub(super) gcp_metadata: String,
    /// The folder with the secrets, the CA certificate and the gateway's configuration.
    pub(super) files: PathBuf,
    /// The path of the gateway's configuration. `null` with `--no-gateway`.
    pub(super) config: Option<PathBuf>,
    /// The path of the CA certificate, which clients of `endpoints`, `entra` and `providers` must trust.
    pub(super) ca: PathBuf,
    /// The CA certificate in PEM, for readers that have no access to the path.
    pub(super) ca_pem: String,
}

/// An app registration.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) struct ReadyApplication {
    /// The client id.
    pub(super) client_id: String,
    /// The id of its home tenant.
    pub(super) home_tenant: String,
    /// The first client secret, if it has one.
    pub(super) secret: Option<String>,
}

/// The variables that App Service sets.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) struct ReadyAppService {
    /// `IDENTITY_ENDPOINT`.
    pub(super) endpoint: String,
    /// `IDENTITY_HEADER`.
    pub(super) header: String,
}

/// The variables of a job: where it requests a token of its own, and with which token.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) struct ReadyTokenRequest {
    /// `ACTIONS_ID_TOKEN_REQUEST_URL` or `SYSTEM_OIDCREQUESTURI`.
    pub(super) url: String,
    /// `ACTIONS_ID_TOKEN_REQUEST_TOKEN` or `System.AccessToken`.
    pub(super) token: String,
}

/// A client of an OAuth 2.0 authorization server.
#[derive(Debug, JsonSchema, Serialize)]
pub(super) struct ReadyOAuth2 {
    /// The URL of the token endpoint.
    pub(super) token_url: String,
    /// The client id.
    pub(super) client_id: String,
    /// The client secret.
    pub(super) secret: String,
}

/// Returns the JSON Schema of the ready file.
pub(super) fn schema() -> serde_json::Value {
    schemars::schema_for!(SandboxReady).to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of this snapshot that is not an addition needs another [`VERSION`].
    #[test]
    fn the_ready_file_keeps_its_contract() {
        insta::assert_snapshot!(format!("{VERSION}\n{:#}", schema()));
    }
}
