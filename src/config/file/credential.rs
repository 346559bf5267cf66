//! As whom endpoints are called.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A credential.
// `structure.rs` refuses unknown keys by the schema: serde's `deny_unknown_fields` does not work with `flatten`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(deny_unknown_fields)]
pub(crate) enum CredentialFile {
    /// An app registration with a client secret.
    ClientSecret {
        #[serde(flatten)]
        app: AppFile,
        /// Where the secret is read from, each time it is used.
        secret: SecretFile,
    },
    /// An app registration with a certificate.
    ClientCertificate {
        #[serde(flatten)]
        app: AppFile,
        /// PEM file with the certificate, and with the key unless `key` names another file.
        certificate: PathBuf,
        /// PEM file with the unencrypted private key.
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<PathBuf>,
        /// The signature algorithm: `PS256` (default) or `RS256`.
        #[serde(default)]
        algorithm: AlgorithmFile,
        /// Whether the certificate chain is sent along. Default false.
        #[serde(default)]
        send_chain: bool,
    },
    /// An app registration that trusts another identity: no secret at all.
    Federated {
        #[serde(flatten)]
        app: AppFile,
        /// Where the other identity's token comes from.
        assertion: AssertionFile,
    },
    /// An app registration that trusts the service account of a Kubernetes pod, with what Azure's webhook puts into the pod:
    /// keys that are not set are taken from its variables.
    WorkloadIdentity {
        /// The tenant that is asked for a token: the one the SignalR resource lives in. Default: `AZURE_TENANT_ID`.
        #[serde(skip_serializing_if = "Option::is_none")]
        tenant: Option<String>,
        /// The app registration's client id. Default: `AZURE_CLIENT_ID`.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<String>,
        /// The file with the service account's token. Default: `AZURE_FEDERATED_TOKEN_FILE`.
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<PathBuf>,
        /// The cloud: `public`, `us_government`, `china` or `custom`. Default: that of `AZURE_AUTHORITY_HOST`.
        #[serde(skip_serializing_if = "Option::is_none")]
        cloud: Option<CloudFile>,
        #[serde(flatten)]
        optional: OptionalAppFile,
    },
    /// A managed identity of the endpoint's own tenant.
    ManagedIdentity {
        /// The client id of a user-assigned identity. Without any id, the system-assigned one.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<String>,
        /// The object id of a user-assigned identity.
        #[serde(skip_serializing_if = "Option::is_none")]
        object_id: Option<String>,
        /// The resource id of a user-assigned identity.
        #[serde(skip_serializing_if = "Option::is_none")]
        resource_id: Option<String>,
        /// What stands in for `http://169.254.169.254`, where something on the host answers for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        imds_endpoint: Option<String>,
        /// The scope that is asked for. Default `https://signalr.azure.com/.default`.
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
    /// Whoever is signed in to the Azure CLI on this host: for a developer's desk.
    AzureCli {
        /// The tenant that is asked for a token: the one the SignalR resource lives in. A GUID or a domain.
        tenant: String,
        /// The scope that is asked for. Default `https://signalr.azure.com/.default`.
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
    /// A SignalR access key: for the emulator, and for resources with local auth.
    AccessKey {
        /// Where the key is read from.
        key: SecretFile,
    },
    /// A file with a ready bearer that another program keeps fresh.
    TokenFile {
        /// The file.
        path: PathBuf,
    },
}

/// The keys that all kinds with an app registration have.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct AppFile {
    /// The tenant that is asked for a token: the one the SignalR resource lives in. A GUID or a domain.
    pub(crate) tenant: String,
    /// The app registration's client id.
    pub(crate) client_id: String,
    /// The cloud: `public`, `us_government`, `china` or `custom`.
    #[serde(default)]
    pub(crate) cloud: CloudFile,
    #[serde(flatten)]
    pub(crate) optional: OptionalAppFile,
}

/// The keys that no kind with an app registration requires.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct OptionalAppFile {
    /// The object id of the app's enterprise application in that tenant. When set, `doctor` and `token` hold the token's
    /// `oid` against it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object_id: Option<String>,
    /// The authority, with `cloud = "custom"`: `https://host[:port]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<String>,
    /// PEM file of the CAs that the authority's certificate is checked against. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The scope that is asked for. Default `https://signalr.azure.com/.default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<String>,
}

/// Where the client assertion of a federated credential comes from.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "source", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum AssertionFile {
    /// A user-assigned managed identity of the app registration's own tenant.
    ManagedIdentity {
        /// The identity's client id.
        #[serde(skip_serializing_if = "Option::is_none")]
        client_id: Option<String>,
        /// The identity's object id.
        #[serde(skip_serializing_if = "Option::is_none")]
        object_id: Option<String>,
        /// The identity's resource id.
        #[serde(skip_serializing_if = "Option::is_none")]
        resource_id: Option<String>,
        /// The exchange audience. Default: the cloud's, such as `api://AzureADTokenExchange`.
        #[serde(skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
        /// What stands in for `http://169.254.169.254`, where something on the host answers for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        imds_endpoint: Option<String>,
    },
    /// A file that another program keeps fresh, such as a Kubernetes projected token.
    File {
        /// The file.
        path: PathBuf,
    },
    /// GitHub Actions: the ID token of the job that the gateway runs in.
    GithubActions {
        /// The audience that is asked for. Default: the cloud's, such as `api://AzureADTokenExchange`.
        #[serde(skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
        /// PEM file of the CAs that the provider's certificate is checked against. Default: the system's.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf>,
    },
    /// Azure Pipelines: the ID token of a service connection.
    AzurePipelines {
        /// The id of the service connection.
        service_connection: String,
        /// The job's access token. Default: the variable `SYSTEM_ACCESSTOKEN`.
        #[serde(skip_serializing_if = "Option::is_none")]
        access_token: Option<SecretFile>,
        /// PEM file of the CAs that the provider's certificate is checked against. Default: the system's.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf>,
    },
    /// Google Cloud: the ID token of a service account, from the metadata server.
    GcpMetadata {
        /// The audience that is asked for. Default: the cloud's, such as `api://AzureADTokenExchange`.
        #[serde(skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
        /// The service account of the host, by its e-mail address. Default `default`.
        #[serde(skip_serializing_if = "Option::is_none")]
        service_account: Option<String>,
        /// `standard` (default) or `full`, with claims about the instance.
        #[serde(default)]
        format: GcpFormatFile,
        /// What stands in for `http://metadata.google.internal`.
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata_endpoint: Option<String>,
    },
    /// Any OAuth 2.0 authorization server that hands out JWTs by client credentials.
    #[serde(rename = "oauth2")]
    OAuth2 {
        /// The token endpoint: `https://host[:port]/path`.
        token_url: String,
        /// The client id there.
        client_id: String,
        /// Where the client secret is read from, each time it is used.
        secret: SecretFile,
        /// How the client authenticates: `basic` (default, in `Authorization`) or `post` (in the form).
        #[serde(default)]
        authentication: ClientAuthenticationFile,
        /// The `scope` that is asked for. Default: none.
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
        /// The `audience` that is asked for. Default: none.
        #[serde(skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
        /// More parameters of the request, by name. Not for secrets: they are shown.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        parameters: BTreeMap<String, String>,
        /// Which token of the answer is the assertion: `access_token` (default) or `id_token`.
        #[serde(default)]
        token: OAuth2TokenFile,
        /// PEM file of the CAs that the server's certificate is checked against. Default: the system's.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf>,
    },
    /// A program that prints the token, or `{"token": …, "expires_at": …}`. No shell is involved.
    Command {
        /// The program and its arguments. A program with a `/` is a path, any other is looked for in `PATH`.
        argv: Vec<String>,
        /// The environment variables that it sees. Default `PATH` and `HOME`.
        #[serde(skip_serializing_if = "Option::is_none")]
        environment: Option<Vec<String>>,
        /// How long it may take; it is killed then. Default `10s`, at most `12s`.
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout: Option<String>,
    },
}

/// What the metadata server of Google Cloud puts into an ID token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GcpFormatFile {
    #[default]
    Standard,
    Full,
}

/// How a client authenticates at a token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientAuthenticationFile {
    #[default]
    Basic,
    Post,
}

/// A token of an OAuth 2.0 answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OAuth2TokenFile {
    #[default]
    AccessToken,
    IdToken,
}

/// Where a secret is read from: `{ file = … }` or `{ env = … }`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretFile {
    /// A file that holds the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    /// The name of an environment variable that holds the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) env: Option<String>,
}

/// A Microsoft cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CloudFile {
    #[default]
    Public,
    UsGovernment,
    China,
    Custom,
}

/// A signature algorithm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum AlgorithmFile {
    #[default]
    Ps256,
    Rs256,
}
