//! The configuration file of a gateway in front of a sandbox.

use std::fmt::Write;

use super::credential::{CredentialChoice, GatewayCredential, Urls, quote};

/// An endpoint in the configuration.
pub(crate) struct ConfiguredEndpoint {
    /// The name.
    pub(crate) name: String,
    /// The origin.
    pub(crate) url: String,
    /// The id of its tenant.
    pub(crate) tenant: String,
}

/// A group of endpoints in the configuration. They share a credential, and each names its tenant.
pub(crate) struct ConfiguredGroup {
    /// The name of the group, of its credential and of its route.
    pub(crate) name: String,
    /// The endpoints.
    pub(crate) endpoints: Vec<ConfiguredEndpoint>,
}

/// The maximum number of endpoints of a route.
const MAX_ROUTE_ENDPOINTS: usize = 32;

/// The keys of an endpoint with TLS. A sandbox often runs on a busy machine, where a handshake takes longer than in production.
const BY_TLS: &str = "ca_file = \"ca.pem\"\nconnect_timeout = \"30s\"\n";

/// The settings of the configuration file.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// The address of the listener, such as `127.0.0.1:8080`. Port 0 selects a free port.
    pub listen: String,
    /// The host names that callers may use, in addition to IP addresses and `localhost`.
    pub hosts: Vec<String>,
    /// The address of the admin listener, or `off`.
    pub admin: String,
    /// The credentials by the name of an endpoint or a group. The default is a client secret.
    pub credentials: Vec<(String, GatewayCredential)>,
    /// The operations that the listener allows. If empty, the gateway's default applies.
    pub operations: Vec<String>,
    /// TOML to append, such as routes, limits and timeouts.
    pub more: String,
}

impl Default for GatewayConfig {
    /// Returns settings with free loopback ports, a client secret for `east`, and a federated managed identity for `west`.
    fn default() -> Self {
        Self {
            listen: String::from("127.0.0.1:0"),
            hosts: Vec::new(),
            admin: String::from("127.0.0.1:0"),
            credentials: vec![
                (String::from("east"), CredentialChoice::ClientSecret.into()),
                (String::from("west"), CredentialChoice::FederatedIdentity.into()),
            ],
            operations: Vec::new(),
            more: String::new(),
        }
    }
}

impl GatewayConfig {
    /// Sets the credential of one endpoint.
    #[must_use]
    pub fn with_credential(mut self, endpoint: &str, choice: CredentialChoice) -> Self {
        self.credentials.retain(|(name, _)| name != endpoint);
        self.credentials.push((endpoint.to_owned(), choice.into()));
        self
    }

    /// Returns the credential of an endpoint.
    pub(crate) fn credential(&self, endpoint: &str) -> GatewayCredential {
        let named = self.credentials.iter().find(|(name, _)| name == endpoint);
        named.map_or_else(|| CredentialChoice::ClientSecret.into(), |(_, credential)| credential.clone())
    }

    /// Formats the configuration as TOML. File paths are relative to it.
    pub(crate) fn toml(&self, endpoints: &[ConfiguredEndpoint], groups: &[ConfiguredGroup], urls: &Urls) -> String {
        let mut toml = format!("[listeners.default]\nbind = {}\n", quote(&self.listen));
        for (key, values) in [("allowed_hosts", &self.hosts), ("operations", &self.operations)] {
            if !values.is_empty() {
                let values: Vec<String> = values.iter().map(|value| quote(value)).collect();
                add(&mut toml, &format!("{key} = [{}]\n", values.join(", ")));
            }
        }
        add(&mut toml, &format!("\n[admin]\nbind = {}\n", quote(&self.admin)));
        for ConfiguredEndpoint { name, tenant, .. } in endpoints {
            let body = self.credential(name).toml(name, Some(tenant), urls);
            add(&mut toml, &format!("\n[credentials.{name}]\n{body}"));
        }
        for ConfiguredGroup { name, .. } in groups {
            let body = self.credential(name).toml(name, None, urls);
            add(&mut toml, &format!("\n[credentials.{name}]\n{body}"));
        }
        for ConfiguredEndpoint { name, url, .. } in endpoints {
            add(&mut toml, &format!("\n[endpoints.{name}]\nurl = {}\ncredential = {}\n", quote(url), quote(name)));
            if url.starts_with("https://") {
                add(&mut toml, BY_TLS);
            }
        }
        for group in groups {
            let credential = quote(&group.name);
            for ConfiguredEndpoint { name, url, tenant } in &group.endpoints {
                let (url, tenant) = (quote(url), quote(tenant));
                add(
                    &mut toml,
                    &format!(
                        "\n[endpoints.{name}]\nurl = {url}\ncredential = {credential}\ntenant = {tenant}\n{BY_TLS}"
                    ),
                );
            }
        }
        if !groups.is_empty() {
            add(&mut toml, &self.routes(endpoints));
        }
        if !self.more.is_empty() {
            add(&mut toml, &format!("\n{}", self.more));
        }
        toml
    }

    /// Formats the routes of a configuration with groups: the call names the endpoint by its hub, and other calls go to the
    /// endpoints outside groups, unless there are more routes.
    fn routes(&self, others: &[ConfiguredEndpoint]) -> String {
        let mut toml = String::from("\n[[routes]]\nname = \"tenants\"\nmatch = { hub = \"{endpoint}_*\" }\n");
        if !others.is_empty() && !self.more.contains("[[routes]]") {
            let names: Vec<String> = others.iter().take(MAX_ROUTE_ENDPOINTS).map(|other| quote(&other.name)).collect();
            add(&mut toml, &format!("\n[[routes]]\nname = \"others\"\nendpoints = [{}]\n", names.join(", ")));
        }
        toml
    }
}

fn add(toml: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = toml.write_str(text);
}
