//! What opens the way to Entra and to the endpoint.

use super::{Known, note, run};
use crate::diagnosis::Mend;
use crate::diagnosis::acquisition::Link;
use crate::diagnosis::reach::Part;

/// Proxies of the environment, which the gateway does not use.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

pub(super) fn identity_endpoint(link: &Link, known: &Known<'_>) -> Vec<Mend> {
    let mut mends = way(link.part, "the authority");
    if link.part.is_none() {
        mends.push(note("nothing but Entra may answer there: a proxy or a captive portal in between does not do"));
    }
    let discovery = known.app().map_or_else(
        || "https://login.microsoftonline.com".to_owned(),
        |app| format!("{}/{}/v2.0/.well-known/openid-configuration", app.authority.origin(), app.tenant),
    );
    mends.push(run("see what answers", format!("curl -v --noproxy '*' {discovery}")));
    mends
}

pub(super) fn endpoint_network(link: &Link, known: &Known<'_>) -> Vec<Mend> {
    let mut mends = way(link.part, "the endpoint");
    if link.part == Some(Part::Name) {
        mends.push(run("compare the name with the resource's", "az signalr list --query \"[].hostName\" -o tsv"));
        return mends;
    }
    mends.push(note("with a private endpoint, its name must resolve to the private address here"));
    let update = "az signalr network-rule update --public-network --allow RESTAPI --ids";
    mends.push(run(
        "or open the resource to the public network for the REST API",
        format!("{update} $({})", known.resource("id")),
    ));
    mends
}

/// What opens the way to a server.
fn way(missing: Option<Part>, server: &str) -> Vec<Mend> {
    let mut mends = match missing {
        None => Vec::new(),
        Some(Part::Name) => vec![note(&format!("let this host resolve the name of {server}"))],
        Some(Part::Connection) => {
            vec![note(&format!("let this host connect to {server}: firewall, network rules, routing"))]
        }
        Some(Part::Tls) => vec![note(&format!(
            "let nothing take TLS apart between this host and {server}; with a CA of its own it needs `ca_file`"
        ))],
    };
    let proxy = PROXY_VARIABLES.into_iter().find(|name| std::env::var_os(name).is_some());
    if let Some(proxy) = proxy.filter(|_| missing.is_some()) {
        mends.push(note(&format!("{proxy} is set, but the gateway uses no proxy: it needs the direct way")));
    }
    mends
}
