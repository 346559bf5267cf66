//! Remediation for the connections to Entra and to the endpoint.

use super::facts::Facts;
use crate::diagnosis::acquisition::Failure;
use crate::diagnosis::connectivity::Layer;
use crate::diagnosis::finding::Remediation;

/// Environment variables that name proxies. The gateway uses no proxy.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

pub(super) fn identity_endpoint(failure: &Failure, facts: &Facts<'_>) -> Vec<Remediation> {
    let mut remediation = connection(failure.layer, "the authority");
    if failure.layer.is_none() {
        remediation.push(Remediation::note(
            "only Entra may answer at this address: find the proxy or captive portal that answers instead",
        ));
    }
    let discovery = facts.app().map_or_else(
        || "https://login.microsoftonline.com".to_owned(),
        |app| format!("{}/{}/v2.0/.well-known/openid-configuration", app.authority.origin(), facts.tenant()),
    );
    remediation.push(Remediation::command("show which server answers", format!("curl -v --noproxy '*' {discovery}")));
    remediation
}

pub(super) fn endpoint_network(failure: &Failure, facts: &Facts<'_>) -> Vec<Remediation> {
    let mut remediation = connection(failure.layer, "the endpoint");
    if failure.layer == Some(Layer::Name) {
        remediation.push(Remediation::command(
            "compare the name with that of the resource",
            "az signalr list --query \"[].hostName\" -o tsv",
        ));
        return remediation;
    }
    remediation.push(Remediation::note(
        "with a private endpoint, the name of the endpoint must resolve to its private address on this host",
    ));
    let update = "az signalr network-rule update --public-network --allow RESTAPI --ids";
    remediation.push(Remediation::command(
        "or open the resource to the public network for the REST API",
        format!("{update} $({})", facts.resource("id")),
    ));
    remediation
}

/// Returns what to do about the layer at which connecting to a server failed.
fn connection(failed: Option<Layer>, server: &str) -> Vec<Remediation> {
    let mut remediation: Vec<Remediation> = match failed {
        None => Vec::new(),
        Some(Layer::Name) => vec![Remediation::note(format!("allow this host to resolve the name of {server}"))],
        Some(Layer::Connection) => vec![Remediation::note(format!(
            "allow this host to connect to {server}: check firewall, network rules and routing"
        ))],
        Some(Layer::Tls) => vec![Remediation::note(format!(
            "remove the proxy that intercepts TLS between this host and {server}, or set `ca_file` if {server} has a CA of its own"
        ))],
    };
    let proxy = PROXY_VARIABLES.into_iter().find(|name| std::env::var_os(name).is_some());
    if let Some(proxy) = proxy.filter(|_| failed.is_some()) {
        remediation.push(Remediation::note(format!(
            "{proxy} is set, but the gateway uses no proxy: it needs a direct connection"
        )));
    }
    remediation
}
