//! What an operator may write: the keys, their types and their defaults. Nothing is decided here; durations, sizes and
//! names are text until `lower` reads them. The doc comments become the descriptions in the JSON Schema.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The configuration of signalr-gateway.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    /// Where callers come in, by name. Without any, one called `default` at 127.0.0.1:8080.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) listeners: BTreeMap<String, ListenerFile>,
    /// The admin listener: metrics, health, status.
    pub(crate) admin: AdminFile,
    /// As whom endpoints are called, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) credentials: BTreeMap<String, CredentialFile>,
    /// The SignalR resources, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) endpoints: BTreeMap<String, EndpointFile>,
    /// Which calls go where, tried in order. Without any, all calls go to all endpoints, the first that works.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<RouteFile>,
    /// Calls, and where they are to go: rehearsed by `check`, and before the configuration is in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tests: Vec<TestFile>,
    /// Limits on what callers may send.
    pub(crate) limits: LimitsFile,
    /// Deadlines.
    pub(crate) timeouts: TimeoutsFile,
    /// What is sent again.
    pub(crate) retry: RetryFile,
    /// Calls that may be repeated.
    pub(crate) idempotency: IdempotencyFile,
    /// When endpoints are taken out.
    pub(crate) health: HealthFile,
    /// What is added to requests.
    pub(crate) forwarding: ForwardingFile,
    /// How the gateway stops.
    pub(crate) shutdown: ShutdownFile,
    /// The process.
    pub(crate) process: ProcessFile,
    /// Logs, which go to stderr.
    pub(crate) logging: LoggingFile,
}

/// A listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerFile {
    /// `address:port`, or `unix:` and a path. Port 0 takes a free one.
    pub(crate) bind: String,
    /// Permission bits of a Unix socket, in octal. Default `0660`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    /// TLS for callers. Default: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<TlsFile>,
    /// Names that `Host` may carry; `*.example.com` stands for any name below. IP addresses and `localhost` always
    /// pass. Default: none.
    #[serde(default)]
    pub(crate) allowed_hosts: Vec<String>,
    /// The operations callers may use: single ones, or the sets `messages`, `groups`, `queries`, `close`,
    /// `credentials`. Default `messages`, `groups`, `queries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operations: Option<Vec<String>>,
    /// Networks callers may come from, such as `10.0.0.0/8`. Default: any.
    #[serde(default)]
    pub(crate) clients: Vec<String>,
    /// A header every call must carry. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) required_header: Option<RequiredHeaderFile>,
    /// The most calls in work at once. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_requests: Option<u32>,
    /// How many calls may come from each network of callers. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_rate: Option<ClientRateFile>,
}

/// How many calls may come from each network of callers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientRateFile {
    /// Calls per second in the long run.
    pub(crate) per_second: u32,
    /// Calls that may come at once. Default: as many as per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u32>,
    /// The prefix length that makes a network of IPv4 addresses. Default 32: each address is one.
    #[serde(default = "ipv4_prefix")]
    pub(crate) ipv4_prefix: u8,
    /// The same of IPv6 addresses. Default 64.
    #[serde(default = "ipv6_prefix")]
    pub(crate) ipv6_prefix: u8,
}

fn ipv4_prefix() -> u8 {
    32
}

fn ipv6_prefix() -> u8 {
    64
}

/// A listener's certificate.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFile {
    /// PEM file with the certificate chain.
    pub(crate) certificate: PathBuf,
    /// PEM file with the private key.
    pub(crate) key: PathBuf,
}

/// A header every call must carry.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequiredHeaderFile {
    /// The header's name.
    pub(crate) name: String,
    /// The value it must have.
    pub(crate) value: String,
}

/// The admin listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdminFile {
    /// `address:port`, or `off`.
    pub(crate) bind: String,
}

impl Default for AdminFile {
    fn default() -> Self {
        Self { bind: "127.0.0.1:9090".to_owned() }
    }
}

/// A credential.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum CredentialFile {
    /// An app registration with a client secret.
    ClientSecret {
        /// The tenant that is asked for a token: the one the SignalR resource lives in. A GUID or a domain.
        tenant: String,
        /// The app registration's client id.
        client_id: String,
        /// The object id of the app's enterprise application in that tenant. When set, `doctor` and `token` hold the token's
        /// `oid` against it.
        #[serde(skip_serializing_if = "Option::is_none")]
        object_id: Option<String>,
        /// Where the secret is read from, each time it is used.
        secret: SecretFile,
        /// The cloud: `public`, `us_government`, `china` or `custom`.
        #[serde(default)]
        cloud: CloudFile,
        /// The authority, with `cloud = "custom"`: `https://host[:port]`.
        #[serde(skip_serializing_if = "Option::is_none")]
        authority: Option<String>,
        /// PEM file of the CAs that the authority's certificate is checked against. Default: the system's.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf>,
        /// The scope that is asked for. Default `https://signalr.azure.com/.default`.
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
    /// An app registration with a certificate.
    ClientCertificate {
        /// The tenant that is asked for a token: the one the SignalR resource lives in. A GUID or a domain.
        tenant: String,
        /// The app registration's client id.
        client_id: String,
        /// The object id of the app's enterprise application in that tenant. When set, `doctor` and `token` hold the token's
        /// `oid` against it.
        #[serde(skip_serializing_if = "Option::is_none")]
        object_id: Option<String>,
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
        /// The cloud: `public`, `us_government`, `china` or `custom`.
        #[serde(default)]
        cloud: CloudFile,
        /// The authority, with `cloud = "custom"`: `https://host[:port]`.
        #[serde(skip_serializing_if = "Option::is_none")]
        authority: Option<String>,
        /// PEM file of the CAs that the authority's certificate is checked against. Default: the system's.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf>,
        /// The scope that is asked for. Default `https://signalr.azure.com/.default`.
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
    },
    /// An app registration that trusts another identity: no secret at all.
    Federated {
        /// The tenant that is asked for a token: the one the SignalR resource lives in. A GUID or a domain.
        tenant: String,
        /// The app registration's client id.
        client_id: String,
        /// The object id of the app's enterprise application in that tenant. When set, `doctor` and `token` hold the token's
        /// `oid` against it.
        #[serde(skip_serializing_if = "Option::is_none")]
        object_id: Option<String>,
        /// Where the other identity's token comes from.
        assertion: AssertionFile,
        /// The cloud: `public`, `us_government`, `china` or `custom`.
        #[serde(default)]
        cloud: CloudFile,
        /// The authority, with `cloud = "custom"`: `https://host[:port]`.
        #[serde(skip_serializing_if = "Option::is_none")]
        authority: Option<String>,
        /// PEM file of the CAs that the authority's certificate is checked against. Default: the system's.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf>,
        /// The scope that is asked for. Default `https://signalr.azure.com/.default`.
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
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
        /// The object id of the app's enterprise application in that tenant. When set, `doctor` and `token` hold the token's
        /// `oid` against it.
        #[serde(skip_serializing_if = "Option::is_none")]
        object_id: Option<String>,
        /// The file with the service account's token. Default: `AZURE_FEDERATED_TOKEN_FILE`.
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<PathBuf>,
        /// The cloud: `public`, `us_government`, `china` or `custom`. Default: that of `AZURE_AUTHORITY_HOST`.
        #[serde(skip_serializing_if = "Option::is_none")]
        cloud: Option<CloudFile>,
        /// The authority, with `cloud = "custom"`: `https://host[:port]`.
        #[serde(skip_serializing_if = "Option::is_none")]
        authority: Option<String>,
        /// PEM file of the CAs that the authority's certificate is checked against. Default: the system's.
        #[serde(skip_serializing_if = "Option::is_none")]
        ca_file: Option<PathBuf>,
        /// The scope that is asked for. Default `https://signalr.azure.com/.default`.
        #[serde(skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
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

/// An endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointFile {
    /// `https://host[:port]` of the SignalR resource.
    pub(crate) url: String,
    /// The name of the credential its calls carry.
    pub(crate) credential: String,
    /// `primary` (default) or `secondary`: client tokens come from a primary while one is healthy.
    #[serde(default)]
    pub(crate) role: RoleFile,
    /// PEM file of the CAs that its certificate is checked against. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How long a connection may take. Default `2s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connect_timeout: Option<String>,
    /// `"1.1"` (default) or `"2"`: what is spoken with it.
    #[serde(default)]
    pub(crate) http_version: HttpVersionFile,
    /// The most calls it may have in work at once. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_requests: Option<u32>,
    /// How connections to it are kept.
    #[serde(default)]
    pub(crate) pool: PoolFile,
}

/// An endpoint's part in handing out client tokens.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoleFile {
    #[default]
    Primary,
    Secondary,
}

/// What is spoken with an endpoint.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub(crate) enum HttpVersionFile {
    #[default]
    #[serde(rename = "1.1")]
    Http1,
    #[serde(rename = "2")]
    Http2,
}

/// How connections to an endpoint are kept.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PoolFile {
    /// The most idle connections that each worker keeps.
    pub(crate) max_idle_per_worker: u32,
    /// How long a connection may lie idle.
    pub(crate) idle_timeout: String,
}

impl Default for PoolFile {
    fn default() -> Self {
        Self { max_idle_per_worker: 128, idle_timeout: "60s".to_owned() }
    }
}

/// A route.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteFile {
    /// The route's name, for metrics and logs.
    pub(crate) name: String,
    /// What a call must look like; every condition must hold. Without any, every call matches.
    #[serde(default, rename = "match")]
    pub(crate) matches: MatchFile,
    /// `first` (default; in order, the next only if nothing could be sent), `weighted` (at random), `hash` (what is about
    /// the same goes to the same endpoint), or `all` (every endpoint, one answer).
    #[serde(default)]
    pub(crate) pick: PickFile,
    /// With `pick = "hash"`: what calls are spread by, `hub` (default), `group`, `user`, `connection`, or
    /// `{ header = "name" }`. A call that does not have it is spread by its hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hash_by: Option<HashByFile>,
    /// With `pick = "all"`: how many endpoints must accept a delivery, `all` (default), `any` or `quorum`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PolicyFile>,
    /// What happens while every endpoint is out: `send` (default; the first is tried all the same) or `fail` (503).
    #[serde(default)]
    pub(crate) when_unavailable: WhenUnavailableFile,
    /// Whether a caller may name one of the endpoints by the header `signalr-gateway-endpoint`. Default false.
    #[serde(default)]
    pub(crate) endpoint_header: bool,
    /// How many calls it takes. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<RateFile>,
    /// The endpoints: names, or `{ name = …, weight = … }`.
    pub(crate) endpoints: Vec<RouteEndpointFile>,
}

/// How many calls a route takes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateFile {
    /// Calls per second in the long run.
    pub(crate) per_second: u32,
    /// Calls that may come at once. Default: as many as per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u32>,
}

/// How a route picks an endpoint.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PickFile {
    #[default]
    First,
    Weighted,
    Hash,
    All,
}

/// What calls are spread by.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum HashByFile {
    /// A name in the call's path.
    Name(HashNameFile),
    /// A header.
    Header(HashHeaderFile),
}

/// A name in the path of a call.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HashNameFile {
    Hub,
    Group,
    User,
    Connection,
}

/// A header that calls are spread by.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HashHeaderFile {
    /// The header's name.
    pub(crate) header: String,
}

/// How many endpoints must accept a delivery.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PolicyFile {
    All,
    Any,
    Quorum,
}

/// What a route does while every endpoint is out.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WhenUnavailableFile {
    #[default]
    Send,
    Fail,
}

/// An endpoint of a route.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum RouteEndpointFile {
    /// Its name.
    Name(String),
    /// Its name and its weight.
    Weighted(WeightedEndpointFile),
}

/// An endpoint of a route, with its weight.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WeightedEndpointFile {
    /// Its name.
    pub(crate) name: String,
    /// Its share under `pick = "weighted"` or `"hash"`, from 1 to 1000000. Default 1.
    #[serde(default = "one")]
    pub(crate) weight: u32,
}

fn one() -> u32 {
    1
}

/// The conditions of a route.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MatchFile {
    /// Hub names or `*` patterns, without case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hub: Option<OneOrMany<String>>,
    /// Operations, or the sets `messages`, `groups`, `queries`, `close`, `credentials`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operation: Option<OneOrMany<String>>,
    /// Group names or `*` patterns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<OneOrMany<String>>,
    /// User ids or `*` patterns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<OneOrMany<String>>,
    /// Values or `*` patterns of the `application` parameter, without case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) application: Option<OneOrMany<String>>,
    /// Headers that must all be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) header: Option<OneOrMany<HeaderMatchFile>>,
    /// Names of listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listener: Option<OneOrMany<String>>,
    /// Networks of callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<OneOrMany<String>>,
}

impl MatchFile {
    /// Whether there is no condition at all, so that every call matches.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { hub, operation, group, user, application, header, listener, client } = self;
        let texts = [hub, operation, group, user, application, listener, client];
        texts.into_iter().all(Option::is_none) && header.is_none()
    }
}

/// A header a call must carry.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderMatchFile {
    /// The header's name.
    pub(crate) name: String,
    /// The value it must have. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
}

/// One value, or a list of them.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany<T> {
    /// One.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub(crate) fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// A call, and where it is to go.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestFile {
    /// What it is called in a report. Default: its method and URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The method. Default `POST`.
    #[serde(default = "post")]
    pub(crate) method: String,
    /// The URL, or its path and query.
    pub(crate) url: String,
    /// The headers, by name.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// The listener it comes in by. Default: the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listener: Option<String>,
    /// The caller's IP address. Default: this host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    /// The route that is to take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<String>,
    /// The endpoints it is to go to, in the order in which they are tried; in any order where the route has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoints: Option<OneOrMany<String>>,
    /// In place of both: the kind of error it is to be refused with, such as `no_route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
}

fn post() -> String {
    "POST".to_owned()
}

/// Limits on what callers may send.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsFile {
    /// The largest request body: bytes, or with `KiB` or `MiB`. The service takes 1 MiB.
    pub(crate) max_body: SizeFile,
    /// The largest request head, the token that is added included. The service takes 16 KiB; at most 64 KiB.
    pub(crate) max_header: SizeFile,
    /// The most connections of callers at once; more wait to be accepted.
    pub(crate) max_connections: u32,
    /// The most calls that wait for a place at one listener or endpoint where `max_requests` is reached.
    pub(crate) queue: u32,
    /// How long each may wait.
    pub(crate) queue_time: String,
}

/// A number of bytes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum SizeFile {
    /// Bytes.
    Bytes(u64),
    /// With `KiB` or `MiB`.
    Text(String),
}

impl Default for LimitsFile {
    fn default() -> Self {
        let text = |text: &str| SizeFile::Text(text.to_owned());
        Self {
            max_body: text("1MiB"),
            max_header: text("16KiB"),
            max_connections: 10_000,
            queue: 100,
            queue_time: "500ms".to_owned(),
        }
    }
}

/// Deadlines.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TimeoutsFile {
    /// How long a request may take until the head of its answer, attempts and waits included. The body of an answer gets
    /// the same time again.
    pub(crate) request: String,
    /// How long one attempt may take until the head of its answer. Unless it is set, no longer than `request`.
    #[serde(rename = "try")]
    pub(crate) attempt: String,
    /// How long a caller's connection may lie idle, or take to send the head of a request. Keep it longer than callers
    /// keep idle connections, or they will meet closed ones.
    pub(crate) idle: String,
}

impl Default for TimeoutsFile {
    fn default() -> Self {
        Self { request: "30s".to_owned(), attempt: "10s".to_owned(), idle: "90s".to_owned() }
    }
}

/// What is sent again. What was never sent, and what was refused with 401, always is.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetryFile {
    /// Messages: `never` (default: none is sent twice) or `sdk` (after a status above 500, as the Management SDK does).
    pub(crate) messages: MessageRetryFile,
    /// The most attempts of one request; going on to the next endpoint because nothing was sent does not count.
    pub(crate) attempts: u32,
    /// Retries an endpoint may get, in percent of the requests it gets.
    pub(crate) budget_percent: u32,
}

impl Default for RetryFile {
    fn default() -> Self {
        Self { messages: MessageRetryFile::default(), attempts: 3, budget_percent: 20 }
    }
}

/// What is sent again of messages.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MessageRetryFile {
    #[default]
    Never,
    Sdk,
}

/// Calls to several endpoints that carry an `Idempotency-Key`: a repeat goes only to those that did not accept.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IdempotencyFile {
    /// How long a key is remembered.
    pub(crate) keep: String,
    /// The most keys that are remembered; the oldest make way. Each takes up to 2 KiB.
    pub(crate) keys: u32,
}

impl Default for IdempotencyFile {
    fn default() -> Self {
        Self { keep: "5m".to_owned(), keys: 10_000 }
    }
}

/// When endpoints are taken out.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HealthFile {
    /// How many failures in a row take an endpoint out: unreachable, broken off, too slow, or a status of 500 and above.
    pub(crate) failures: u32,
    /// How long it stays out at first; twice as long each time in a row, a minute at most.
    pub(crate) pause: String,
    /// How often `/api/health` of each endpoint is asked, without a token. While an endpoint is out, six times as often.
    pub(crate) probe_interval: String,
}

impl Default for HealthFile {
    fn default() -> Self {
        Self { failures: 5, pause: "5s".to_owned(), probe_interval: "2m".to_owned() }
    }
}

/// What is added to requests.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ForwardingFile {
    /// Whether the caller's address is appended to `X-Forwarded-For`. The endpoint's tenant gets to see it.
    pub(crate) client_address: bool,
}

/// How the gateway stops.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ShutdownFile {
    /// How long it goes on accepting while it is not ready any more and asks callers to close their connections. In
    /// Kubernetes, give it the time that endpoints take to be withdrawn, such as `5s`.
    pub(crate) delay: String,
    /// How long requests in flight may take after that.
    pub(crate) timeout: String,
}

impl Default for ShutdownFile {
    fn default() -> Self {
        Self { delay: "1s".to_owned(), timeout: "25s".to_owned() }
    }
}

/// The process.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ProcessFile {
    /// The number of workers, each a thread; 0 for one per core.
    pub(crate) workers: u32,
}

/// Logs, which go to stderr.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LoggingFile {
    /// A level, or a filter such as `info,signalr_gateway::credential=debug`.
    pub(crate) filter: String,
    /// `auto` (text on a terminal, JSON otherwise), `text` or `json`.
    pub(crate) format: FormatFile,
    /// Which requests get a line: `all`, `failures` (answered 400 and above, or broken off) or `off`.
    pub(crate) access: AccessFile,
    /// How many percent of the requests that succeed get a line with `all`; those that fail always do.
    pub(crate) access_percent: u8,
}

impl Default for LoggingFile {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: FormatFile::default(),
            access: AccessFile::default(),
            access_percent: 100,
        }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FormatFile {
    #[default]
    Auto,
    Text,
    Json,
}

/// Which requests get a log line.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccessFile {
    #[default]
    All,
    Failures,
    Off,
}
