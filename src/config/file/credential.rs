//! The `[credentials.*]` tables.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::egress::ProxyChoiceFile;
use super::secret::SecretFile;

/// A credential.
// `structure` rejects unknown keys by the schema: serde's `deny_unknown_fields` does not work with `flatten`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schemars(deny_unknown_fields)]
pub(crate) enum CredentialFile {
    /// An app registration with a client secret.
    ClientSecret {
        #[serde(flatten)]
        app: AppFile,
        /// The source of the secret, read each time it is used.
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
        /// Whether to send the certificate chain. Default: false.
        #[serde(default)]
        send_chain: bool,
    },
    /// An app registration that trusts another identity, without a secret.
    Federated {
        #[serde(flatten)]
        app: AppFile,
        /// The source of the other identity's token.
        assertion: AssertionFile,
    },
    /// An app registration that trusts the service account of a Kubernetes pod. Keys that are not set have the values of the
    /// variables that Azure's webhook sets in the pod.
    WorkloadIdentity {
        /// The tenant of the SignalR resource, which issues the tokens. Default: that of the endpoint, else `AZURE_TENANT_ID`.
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
    /// A managed identity of the endpoint's tenant.
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
        /// The origin that replaces `http://169.254.169.254`.
        #[serde(skip_serializing_if = "Option::is_none")]
        imds_endpoint: Option<String>,
        /// The requested scope. Default: `https://signalr.azure.com/.default`.
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
    /// The user who is signed in to the Azure CLI on this host, for development.
    AzureCli {
        /// The tenant of the SignalR resource, which issues the tokens. A GUID or a domain. Left out if each endpoint names its
        /// own.
        #[serde(skip_serializing_if = "Option::is_none")]
        tenant: Option<String>,
        /// The requested scope. Default: `https://signalr.azure.com/.default`.
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
    /// A SignalR access key: for the emulator, and for resources with local auth.
    AccessKey {
        /// The source of the key.
        key: SecretFile,
    },
    /// A file with a bearer token that another program updates.
    TokenFile {
        /// The file.
        path: PathBuf,
    },
}

/// The keys that all kinds with an app registration have.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct AppFile {
    /// The tenant of the SignalR resource, which issues the tokens. A GUID or a domain. Left out if each endpoint names its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<String>,
    /// The app registration's client id.
    pub(crate) client_id: String,
    /// The cloud: `public`, `us_government`, `china` or `custom`.
    #[serde(default)]
    pub(crate) cloud: CloudFile,
    #[serde(flatten)]
    pub(crate) optional: OptionalAppFile,
}

/// The optional keys that all kinds with an app registration have.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct OptionalAppFile {
    /// The object id of the app's enterprise application in that tenant. If set, `doctor` and `token` compare it
    /// with the `oid` of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object_id: Option<String>,
    /// The authority, with `cloud = "custom"`: `https://host[:port]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) authority: Option<String>,
    /// PEM file of the CAs for the authority's certificate. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The proxy of its token requests to Entra and identity providers, instead of `egress.proxy` and regardless of
    /// `egress.no_proxy`: a URL, `"environment"`, `"off"`, or `{ url = …, username = …, password = …, ca_file = … }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxy: Option<ProxyChoiceFile>,
    /// The requested scope. Default: `https://signalr.azure.com/.default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scope: Option<String>,
}

/// The source of the client assertion of a federated credential.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "source", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum AssertionFile {
    /// A user-assigned managed identity of the app registration's tenant.
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
        /// The origin that replaces `http://169.254.169.254`.
        #[serde(skip_serializing_if = "Option::is_none")]
        imds_endpoint: Option<String>,
    },
    /// A file that another program updates, such as a Kubernetes projected token.
    File {
        /// The file.
        path: PathBuf,
    },
    /// GitHub Actions: the ID token of the job that the gateway runs in.
    GithubActions {
        /// The requested audience. Default: the cloud's, such as `api://AzureADTokenExchange`.
        #[serde(skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
        /// PEM file of the CAs for the provider's certificate. Default: the system's.
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
        /// PEM file of the CAs for the provider's certificate. Default: the system's.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf>,
    },
    /// Google Cloud: the ID token of a service account, from the metadata server.
    GcpMetadata {
        /// The requested audience. Default: the cloud's, such as `api://AzureADTokenExchange`.
        #[serde(skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
        /// The service account of the host, by its e-mail address. Default: `default`.
        #[serde(skip_serializing_if = "Option::is_none")]
        service_account: Option<String>,
        /// `standard` (default) or `full`, with claims about the instance.
        #[serde(default)]
        format: GcpFormatFile,
        /// The origin that replaces `http://metadata.google.internal`.
        #[serde(skip_serializing_if = "Option::is_none")]
        metadata_endpoint: Option<String>,
    },
    /// Any OAuth 2.0 authorization server that issues JWTs by the client credentials grant.
    #[serde(rename = "oauth2")]
    OAuth2 {
        /// The token endpoint: `https://host[:port]/path`.
        token_url: String,
        /// The client id at the authorization server.
        client_id: String,
        /// The source of the client secret, read each time it is used.
        secret: SecretFile,
        /// The authentication of the client: `basic` (default, in `Authorization`) or `post` (in the form).
        #[serde(default)]
        authentication: ClientAuthenticationFile,
        /// The requested `scope`. Default: none.
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
        /// The requested `audience`. Default: none.
        #[serde(skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
        /// Additional parameters of the request, by name. Not for secrets, since `check` shows them.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        parameters: BTreeMap<String, String>,
        /// The field of the response that contains the assertion: `access_token` (default) or `id_token`.
        #[serde(default)]
        token: OAuth2TokenFile,
        /// PEM file of the CAs for the server's certificate. Default: the system's.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf>,
    },
    /// A program that prints the token, or `{"token": …, "expires_at": …}`. It runs without a shell.
    Command {
        /// The program and its arguments. A program that contains `/` is a path; others are found in `PATH`.
        argv: Vec<String>,
        /// The environment variables that it inherits. Default: `PATH` and `HOME`.
        #[serde(skip_serializing_if = "Option::is_none")]
        environment: Option<Vec<String>>,
        /// The time after which it is killed. Default: `10s`, at most `12s`.
        #[serde(skip_serializing_if = "Option::is_none")]
        timeout: Option<String>,
    },
}

/// The claims that the metadata server of Google Cloud puts into an ID token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GcpFormatFile {
    #[default]
    Standard,
    Full,
}

/// The authentication of a client at a token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientAuthenticationFile {
    #[default]
    Basic,
    Post,
}

/// A field of an OAuth 2.0 token response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OAuth2TokenFile {
    #[default]
    AccessToken,
    IdToken,
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
