//! Parses one Azure SignalR connection string by the rules of the SDK. Independent of the gateway's configuration.
//!
//! Source: `ConnectionStringParser.cs` of `Azure/azure-signalr`: parts are split at `;`, key and value at the first `=`; keys
//! ignore case and appear once; an unknown `AuthType` means an access key. The parser reports the parts that the SDK ignores
//! silently, by key and never by value. It rejects a part that may be the end of a secret that contains a `;`.

use super::identifier::is_tenant;
use super::lower::parse_host;
use crate::credential::Secret;
use crate::redact::is_guid;

/// A parsed connection string.
#[derive(Debug)]
pub(super) struct ConnectionString {
    /// The URL for REST calls: `ServerEndpoint`, or `Endpoint` with `Port`.
    pub(super) url: String,
    /// The host of `Endpoint`, which names the resource.
    pub(super) host: String,
    /// The identity of the calls.
    pub(super) auth: Auth,
    /// Explanations of how it was converted.
    pub(super) notes: Vec<String>,
    /// Warnings about parts that may be mistakes.
    pub(super) warnings: Vec<String>,
}

/// The identity of the calls.
#[derive(Debug)]
pub(super) enum Auth {
    /// `AccessKey`.
    AccessKey(Secret),
    /// `AuthType=azure` and `azure.msi`: a managed identity of the host, user-assigned if there is a client id.
    ManagedIdentity { client_id: Option<String> },
    /// `AuthType=azure.app`.
    App { tenant: String, client_id: String, proof: Proof },
}

impl Auth {
    /// Returns whether both are the same identity with the same proof.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::AccessKey(one), Self::AccessKey(other)) => one.expose() == other.expose(),
            (Self::ManagedIdentity { client_id: one }, Self::ManagedIdentity { client_id: other }) => one == other,
            (
                Self::App { tenant, client_id, proof },
                Self::App { tenant: other_tenant, client_id: other_id, proof: other_proof },
            ) => tenant == other_tenant && client_id == other_id && proof.is_same(other_proof),
            (Self::AccessKey(_) | Self::ManagedIdentity { .. } | Self::App { .. }, _) => false,
        }
    }
}

impl Proof {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Secret(one), Self::Secret(other)) => one.expose() == other.expose(),
            (Self::Certificate(one), Self::Certificate(other)) => one == other,
            (Self::Secret(_) | Self::Certificate(_), _) => false,
        }
    }
}

/// The proof of an app's identity.
#[derive(Debug)]
pub(super) enum Proof {
    Secret(Secret),
    /// The path of a certificate.
    Certificate(String),
}

/// The parts of a connection string, by key in lower case.
struct Parts<'a>(Vec<(String, &'a str)>);

impl Parts<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(found, _)| found == key).map(|(_, value)| *value);
        found.filter(|value| !value.is_empty())
    }
}

/// The known keys, as the SDK writes them.
const KEYS: [&str; 12] = [
    "Endpoint",
    "Port",
    "Version",
    "AccessKey",
    "AuthType",
    "ClientId",
    "TenantId",
    "ClientSecret",
    "ClientCert",
    "ClientCertPath",
    "ClientEndpoint",
    "ServerEndpoint",
];

/// The keys whose values are secrets, in lower case.
const SECRETS: [&str; 2] = ["accesskey", "clientsecret"];

/// The keys of the identity, in lower case.
const IDENTITY: [&str; 6] = ["accesskey", "clientid", "tenantid", "clientsecret", "clientcert", "clientcertpath"];

const AS_IN_PORTAL: &str = "copy the connection string from the resource's page in the Azure portal";
const COPY_FROM_APP: &str = "copy it from the app registration's page in the Azure portal";
const CUT_SECRET: &str = "if it is part of the secret, put the secret into a file and name the file in the configuration, since \
                          a secret in a connection string cannot contain a `;`; otherwise remove it";

/// Returns whether a text is a key of a connection string.
pub(super) fn is_key(text: &str) -> bool {
    KEYS.iter().any(|key| key.eq_ignore_ascii_case(text.trim()))
}

/// Returns a key in a form that reveals no secret. An unknown key may be a part of a secret, so it is shown in full only if it
/// has fewer than eight bytes, all of them printable ASCII.
fn displayable(key: &str) -> String {
    if let Some(known) = KEYS.iter().find(|known| known.eq_ignore_ascii_case(key)) {
        return (*known).to_owned();
    }
    let is_printable = |character: &char| matches!(character, ' '..='~');
    let start: String = key.chars().take(4).take_while(is_printable).collect();
    if key.len() < 8 && key.chars().all(|character| is_printable(&character)) {
        key.to_owned()
    } else {
        format!("{start}…")
    }
}

/// A problem of a connection string. Contains no value: any could be the secret.
#[derive(Debug)]
pub(super) struct ConnectionStringProblem {
    /// What is wrong.
    pub(super) fact: String,
    /// What to do.
    pub(super) fix: String,
}

impl ConnectionStringProblem {
    fn new(fact: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { fact: fact.into(), fix: fix.into() }
    }
}

/// Parses a connection string, or returns every problem that it has.
pub(super) fn parse(text: &str) -> Result<ConnectionString, Vec<ConnectionStringProblem>> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let parts = split(text, &mut problems, &mut warnings);
    let (endpoint, port) = (parts.get("endpoint"), port(&parts, &mut problems));
    let endpoint = match endpoint.map(|endpoint| Url::parse(endpoint, port)) {
        Some(Some(endpoint)) => Some(endpoint),
        Some(None) => {
            problems.push(ConnectionStringProblem::new(
                "`Endpoint` is not `https://host` or `https://host:port`",
                AS_IN_PORTAL,
            ));
            None
        }
        None => {
            problems.push(ConnectionStringProblem::new("`Endpoint` is missing", AS_IN_PORTAL));
            None
        }
    };
    let server = parts.get("serverendpoint").map(|server| Url::parse(server, None));
    if matches!(server, Some(None)) {
        let fact = "`ServerEndpoint` is not `https://host` or `https://host:port`";
        problems.push(ConnectionStringProblem::new(fact, "remove the path, which the URL of an endpoint cannot have"));
    }
    if parts.get("version").is_some_and(|version| !is_version(version)) {
        let fact = "`Version` is neither 1.0 nor another version that begins with `1.`";
        problems.push(ConnectionStringProblem::new(fact, "write Version=1.0, or remove it"));
    }
    let mut notes = notes(&parts);
    let auth = auth(&parts, &mut problems, &mut notes);
    warnings.extend(auth.iter().flat_map(|auth| ignored_keys(&parts, auth)));
    let url = server.flatten().or_else(|| endpoint.clone());
    if let Some(url) = &url
        && !url.is_https_or_local()
    {
        let fact = "the scheme is http and the host is not this host";
        problems
            .push(ConnectionStringProblem::new(fact, "write https://: a token must not cross a network in the clear"));
    }
    match (endpoint, url, auth) {
        (Some(endpoint), Some(url), Some(auth)) if problems.is_empty() => {
            Ok(ConnectionString { url: url.text, host: endpoint.host, auth, notes, warnings })
        }
        _ => Err(problems),
    }
}

fn split<'a>(text: &'a str, problems: &mut Vec<ConnectionStringProblem>, warnings: &mut Vec<String>) -> Parts<'a> {
    let mut parts: Vec<(String, &str)> = Vec::new();
    // The secret that the next part may belong to.
    let mut secret: Option<String> = None;
    for (index, part) in text.split(';').map(str::trim).enumerate().filter(|(_, part)| !part.is_empty()) {
        let number = index + 1;
        let follows_secret = secret.as_ref().map(|secret| format!(" and follows `{secret}`"));
        let Some((key, value)) = part.split_once('=') else {
            let fix = if follows_secret.is_some() { CUT_SECRET } else { "write KEY=VALUE, or remove it" };
            problems.push(ConnectionStringProblem::new(
                format!("part {number} has no `=`{}", follows_secret.unwrap_or_default()),
                fix,
            ));
            continue;
        };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        let name = displayable(&key);
        if !is_key(&key) {
            let fact = format!("part {number}, `{name}`, is not a key of a connection string");
            match follows_secret {
                Some(follows_secret) => problems.push(ConnectionStringProblem::new(fact + &follows_secret, CUT_SECRET)),
                None => warnings.push(fact + " and is ignored"),
            }
            continue;
        }
        if parts.iter().any(|(known, _)| *known == key) {
            problems.push(ConnectionStringProblem::new(format!("`{name}` occurs twice"), "keep one of them"));
        }
        if value.is_empty() {
            warnings.push(format!("`{name}` is empty and is ignored"));
        }
        let is_secret = SECRETS.contains(&key.as_str());
        if is_secret && (value.starts_with('"') || value.starts_with('\'')) {
            warnings.push(format!("`{name}` begins with a quote, which is part of the secret"));
        }
        secret = is_secret.then_some(name);
        parts.push((key, value));
    }
    Parts(parts)
}

/// Returns warnings about keys without effect, each with the key that takes precedence.
fn ignored_keys(parts: &Parts<'_>, auth: &Auth) -> Vec<String> {
    let (used, by): (&[&str], &str) = match auth {
        Auth::AccessKey(_) => (&["accesskey"], "`AccessKey`"),
        Auth::ManagedIdentity { client_id: Some(_) } => (&["clientid"], "a managed identity"),
        Auth::ManagedIdentity { client_id: None } => (&[], "a managed identity"),
        Auth::App { proof: Proof::Secret(_), .. } => (&["clientid", "tenantid", "clientsecret"], "`ClientSecret`"),
        Auth::App { proof: Proof::Certificate(_), .. } if parts.get("clientcert").is_some() => {
            (&["clientid", "tenantid", "clientcert"], "`ClientCert`")
        }
        Auth::App { proof: Proof::Certificate(_), .. } => {
            (&["clientid", "tenantid", "clientcertpath"], "`ClientCertPath`")
        }
    };
    let given = IDENTITY.into_iter().filter(|key| parts.get(key).is_some() && !used.contains(key));
    let mut warnings: Vec<_> =
        given.map(|key| format!("`{}` is ignored, since {by} is used", displayable(key))).collect();
    if parts.get("serverendpoint").is_some() && parts.get("port").is_some() {
        warnings.push("`Port` is ignored, since it belongs to `Endpoint` and `ServerEndpoint` is used".to_owned());
    }
    warnings
}

fn port(parts: &Parts<'_>, problems: &mut Vec<ConnectionStringProblem>) -> Option<u16> {
    let port = parts.get("port")?;
    let parsed = port.parse().ok().filter(|port| *port != 0);
    if parsed.is_none() {
        problems.push(ConnectionStringProblem::new("`Port` is not 1 to 65535", "write a port number, or remove it"));
    }
    parsed
}

/// Returns whether a text matches `^1\.\d+(?:[\w-.]+)?$`.
fn is_version(text: &str) -> bool {
    let rest = text.strip_prefix("1.").unwrap_or_default();
    let is_word_character = |character: char| character.is_alphanumeric() || "_-.".contains(character);
    rest.starts_with(|digit: char| digit.is_ascii_digit()) && rest.chars().all(is_word_character)
}

fn notes(parts: &Parts<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    if parts.get("clientendpoint").is_some() {
        notes.push("ClientEndpoint is ignored: clients do not connect through the gateway".to_owned());
    }
    if parts.get("serverendpoint").is_some() {
        notes.push("the URL is that of ServerEndpoint, where the SDK sends REST calls".to_owned());
    }
    notes
}

fn auth(parts: &Parts<'_>, problems: &mut Vec<ConnectionStringProblem>, notes: &mut Vec<String>) -> Option<Auth> {
    let id = |key: &str, problems: &mut Vec<ConnectionStringProblem>, shown: &str| {
        let id = parts.get(key)?;
        if key == "tenantid" {
            if !is_tenant(id) {
                problems.push(ConnectionStringProblem::new(
                    format!("`{shown}` is neither a GUID nor a domain"),
                    COPY_FROM_APP,
                ));
            }
        } else if !is_guid(id) {
            problems.push(ConnectionStringProblem::new(format!("`{shown}` is not a GUID"), COPY_FROM_APP));
        }
        Some(id.to_owned())
    };
    let auth_type = parts.get("authtype").unwrap_or_default().to_ascii_lowercase();
    let is_whole_app = parts.get("clientid").is_some()
        && parts.get("tenantid").is_some()
        && ["clientsecret", "clientcert", "clientcertpath"].iter().any(|key| parts.get(key).is_some());
    match auth_type.as_str() {
        "azure" => {
            notes.push(
                "AuthType=azure tries several identities in turn; this is the system-assigned one of the host"
                    .to_owned(),
            );
            Some(Auth::ManagedIdentity { client_id: None })
        }
        "azure.app" => app(parts, problems, id),
        "aad" if is_whole_app => app(parts, problems, id),
        "azure.msi" | "aad" => Some(Auth::ManagedIdentity { client_id: id("clientid", problems, "ClientId") }),
        other => {
            let key = parts.get("accesskey");
            if key.is_some() && !other.is_empty() {
                notes.push(
                    "its AuthType is none of azure, azure.msi, azure.app and aad, so the access key is used".to_owned(),
                );
            }
            if key.is_none() {
                let known = "azure, azure.msi and azure.app";
                let why = if other.is_empty() { "and there is no `AuthType`" } else { "and the `AuthType` is none of" };
                let known = if other.is_empty() { String::new() } else { format!(" {known}") };
                let fix = "add the AccessKey, or AuthType=azure.msi or azure.app for a token";
                problems.push(ConnectionStringProblem::new(format!("`AccessKey` is missing, {why}{known}"), fix));
            }
            key.map(|key| Auth::AccessKey(Secret::new(key.to_owned())))
        }
    }
}

fn app(
    parts: &Parts<'_>,
    problems: &mut Vec<ConnectionStringProblem>,
    id: impl Fn(&str, &mut Vec<ConnectionStringProblem>, &str) -> Option<String>,
) -> Option<Auth> {
    let mut needed = |key: &str, shown: &str| {
        let found = id(key, problems, shown);
        if found.is_none() {
            problems.push(ConnectionStringProblem::new(
                format!("`{shown}` is missing, but an app registration requires it"),
                COPY_FROM_APP,
            ));
        }
        found
    };
    let (tenant, client_id) = (needed("tenantid", "TenantId"), needed("clientid", "ClientId"));
    let certificate = parts.get("clientcert").or_else(|| parts.get("clientcertpath"));
    let proof = match (parts.get("clientsecret"), certificate) {
        (Some(secret), _) => Some(Proof::Secret(Secret::new(secret.to_owned()))),
        (None, Some(path)) => Some(Proof::Certificate(path.to_owned())),
        (None, None) => {
            let fact = "`ClientSecret` or `clientCert` is missing, but an app registration requires it";
            problems.push(ConnectionStringProblem::new(fact, "add the app's secret, or the path of its certificate"));
            None
        }
    };
    Some(Auth::App { tenant: tenant?, client_id: client_id?, proof: proof? })
}

/// An absolute URL without a path.
#[derive(Clone)]
struct Url {
    text: String,
    host: String,
    is_https: bool,
}

impl Url {
    /// Parses a URL; `port` replaces its own.
    fn parse(text: &str, port: Option<u16>) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let authority = authority.trim_end_matches('/');
        let (host, own_port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, Some(port.parse().ok().filter(|port: &u16| *port != 0)?)),
            None => (authority, None),
        };
        // The configuration accepts no other host.
        parse_host(host)?;
        let (host, scheme) = (host.to_ascii_lowercase(), if is_https { "https" } else { "http" });
        let text = match port.or(own_port) {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        };
        Some(Self { text, host, is_https })
    }

    fn is_https_or_local(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        self.is_https || is_loopback || self.host == "localhost"
    }
}
