//! Remediation for the connections to Entra and to the endpoint.

use std::net::IpAddr;

use super::certificate::{self, Server};
use super::facts::Facts;
use crate::diagnosis::connectivity::Layer;
use crate::diagnosis::failure::Failure;
use crate::diagnosis::finding::Remediation;

/// Environment variables that name proxies. The gateway uses them only if it is configured to.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

pub(super) fn identity_endpoint(failure: &Failure, facts: &Facts<'_>) -> Vec<Remediation> {
    let ca_file = format!("credentials.{}.ca_file", facts.credential.id.name);
    let origin = facts.app().map(|app| app.authority.origin());
    let uri = origin.and_then(|origin| origin.parse::<http::Uri>().ok());
    let host = uri.as_ref().and_then(|uri| uri.host()).unwrap_or("the authority");
    let port = uri.as_ref().and_then(http::Uri::port_u16).unwrap_or(443);
    let server = format!("{host}:{port}");
    let names = Names { server: &server, name: host, url: None, ca_file: &ca_file };
    let mut remediation = connection(failure, &names);
    if let Some(certificate) = &failure.certificate {
        let authority = facts.path("authority");
        let server = Server { what: "the authority", ca_file: &format!("`{ca_file}`"), url: &authority };
        remediation.push(certificate::refused(certificate, &server));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        remediation.push(certificate::show(host, port, failure.proxy.as_deref()));
        return remediation;
    }
    if failure.is_unreachable {
        remediation.push(Remediation::note(format!(
            "allow this host to reach {server}: check name resolution, firewall and proxy; if others cannot reach it either, \
             see https://status.azure.com and wait"
        )));
    } else if failure.layer.is_none() {
        remediation.push(Remediation::note(
            "only Entra may answer at this address: find the proxy or captive portal that answers instead",
        ));
    }
    let discovery = origin.map_or_else(
        || "https://login.microsoftonline.com".to_owned(),
        |origin| format!("{origin}/{}/v2.0/.well-known/openid-configuration", facts.tenant()),
    );
    remediation.push(Remediation::command("show which server answers", curl(failure, &discovery)));
    remediation
}

pub(super) fn endpoint_network(failure: &Failure, facts: &Facts<'_>) -> Vec<Remediation> {
    let ca_file = format!("endpoints.{}.ca_file", facts.endpoint.name);
    let (origin, url) = (&facts.endpoint.origin, facts.path("url"));
    let server = origin.host_and_port();
    let names = Names { server: &server, name: &origin.host, url: Some(&url), ca_file: &ca_file };
    let mut remediation = connection(failure, &names);
    if let Some(certificate) = &failure.certificate {
        let server = Server { what: "the endpoint", ca_file: &format!("`{ca_file}`"), url: &url };
        remediation.push(certificate::refused(certificate, &server));
        remediation.push(certificate::show(&origin.host, origin.port, failure.proxy.as_deref()));
        return remediation;
    }
    let show = Remediation::command("show what answers this host", curl(failure, &format!("{origin}/api/health")));
    if failure.answer.is_some() && failure.remedy.is_some() {
        remediation.extend(failure.remedy.map(Remediation::note));
        remediation.push(show);
        return remediation;
    }
    if failure.layer == Some(Layer::Name) {
        let other = facts.app().and_then(|app| app.authority.origin().parse::<http::Uri>().ok());
        // An address needs no name resolution, so it would show nothing.
        let other = other.as_ref().and_then(http::Uri::host).filter(|host| host.parse::<IpAddr>().is_err());
        let other = other.unwrap_or("login.microsoftonline.com");
        remediation.push(Remediation::command(
            format!("if this prints an address, the DNS of this host works: correct `{url}`"),
            format!("getent hosts {other}"),
        ));
        remediation.push(Remediation::command(
            "signed in to the endpoint's tenant: compare the name with those of the resources",
            "az signalr list --query \"[].hostName\" -o tsv",
        ));
        return remediation;
    }
    remediation.extend(failure.remedy.map(Remediation::note));
    if failure.layer == Some(Layer::Connection) {
        remediation.push(Remediation::command(
            "signed in to the endpoint's tenant: show whether the resource still exists",
            facts.resource("{state: provisioningState, public_network: publicNetworkAccess}"),
        ));
    }
    remediation.push(show);
    match failure.layer {
        Some(Layer::Connection) => remediation.push(Remediation::command(
            "with a private endpoint, this must print its private address",
            format!("getent hosts {}", origin.host),
        )),
        // Network rules deny with a response.
        None => {
            let update = "az signalr network-rule update --public-network --allow RESTAPI --ids";
            remediation.push(Remediation::note(
                "with a private endpoint, the name of the endpoint must resolve to its private address on this host",
            ));
            remediation.push(Remediation::command(
                "or open the resource to the public network for the REST API",
                format!("{update} $({})", facts.resource("id")),
            ));
        }
        Some(Layer::Name | Layer::Tls | Layer::Proxy(_)) => {}
    }
    remediation
}

/// Returns the command that requests a URL in the way of the gateway: through its proxy, or without one.
fn curl(failure: &Failure, url: &str) -> String {
    match &failure.proxy {
        Some(proxy) => format!("curl -v --proxy {proxy} {url}"),
        None => format!("curl -v --noproxy '*' {url}"),
    }
}

/// How a server is named in a remediation.
struct Names<'a> {
    server: &'a str,
    /// What is resolved.
    name: &'a str,
    /// The configuration key of its URL, if it has one.
    url: Option<&'a str>,
    ca_file: &'a str,
}

/// Returns what to do about the layer at which connecting to a server failed.
fn connection(failure: &Failure, names: &Names<'_>) -> Vec<Remediation> {
    let Names { server, name, url, ca_file } = names;
    let mut remediation: Vec<Remediation> = match failure.layer {
        // The steps of a proxy have a remediation of their own.
        None | Some(Layer::Proxy(_)) => Vec::new(),
        Some(Layer::Name) => vec![Remediation::note(match url {
            Some(url) => format!("correct `{url}`, or repair the DNS of this host: it does not resolve {name}"),
            None => format!("repair the DNS of this host: it does not resolve {name}"),
        })],
        Some(Layer::Connection) => vec![Remediation::note(format!(
            "allow this host to connect to {server}: check firewall, network rules and routing, and that the server still exists{}",
            url.map(|url| format!(" (else correct `{url}`)")).unwrap_or_default()
        ))],
        // What is wrong with the certificate has a remediation of its own.
        Some(Layer::Tls) if failure.certificate.is_some() => Vec::new(),
        Some(Layer::Tls) => vec![Remediation::note(match &failure.proxy {
            Some(proxy) => format!(
                "if the proxy {proxy} inspects TLS: set `{ca_file}` to the PEM file of its CA, which its operator has, or \
                 have {server} exempted from inspection"
            ),
            None => format!(
                "find out what answers at {server}: it must be a TLS server, and no proxy that inspects TLS may break the \
                 handshake"
            ),
        })],
    };
    if failure.proxy.is_some() || failure.certificate.is_some() {
        return remediation;
    }
    let proxy = PROXY_VARIABLES.into_iter().find(|name| std::env::var_os(name).is_some());
    if let Some(proxy) = proxy.filter(|_| failure.layer.is_some()) {
        remediation.push(Remediation::note(format!(
            "{proxy} is set, but the gateway does not use it: set `egress.proxy` to \"environment\" if it must"
        )));
    }
    remediation
}
