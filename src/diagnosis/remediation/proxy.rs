//! Remediation for the forward proxy of outgoing connections.

use super::certificate::{self, Server};
use super::facts::Facts;
use crate::diagnosis::connectivity::Layer;
use crate::diagnosis::failure::Failure;
use crate::diagnosis::finding::Remediation;
use crate::egress::{ProxyLayer, RefusalKind};

pub(super) fn proxy(failure: &Failure, facts: &Facts<'_>) -> Vec<Remediation> {
    let endpoint = facts.endpoint.origin.to_string();
    let authority = facts.app().map(|app| app.authority.origin());
    let (url, key) = failure.proxy.as_ref().map_or_else(
        || ("<proxy>".to_owned(), "egress.proxy"),
        |proxy| (proxy.to_string(), proxy.configured_by.as_str()),
    );
    let layer = match failure.layer {
        Some(Layer::Proxy(layer)) => layer,
        Some(Layer::Name | Layer::Connection | Layer::Tls) | None => ProxyLayer::Answer,
    };
    let note = match layer {
        ProxyLayer::Name => format!("allow this host to resolve the name of the proxy, or correct `{key}`, now {url}"),
        ProxyLayer::Connection => {
            format!("start the proxy {url} and allow this host to connect to it, or correct `{key}`")
        }
        ProxyLayer::Tls => format!(
            "set `ca_file` of the proxy to the CA of its certificate, or write http:// in `{key}` if the proxy itself expects no TLS"
        ),
        ProxyLayer::Password => "put the password of the proxy into the configured file or variable, readable by the \
                                 process"
            .to_owned(),
        ProxyLayer::Refused(RefusalKind::NoCredentials) => format!(
            "set `username` and `password` of the proxy (`{key}`); it must accept `Basic` authentication, or allow this \
             host without any"
        ),
        ProxyLayer::Refused(RefusalKind::WrongCredentials) => format!(
            "correct `username` and `password` of the proxy (`{key}`); many wrong tries may have locked the account"
        ),
        ProxyLayer::Refused(RefusalKind::Forbidden) => format!(
            "have the operator of the proxy {url} allow CONNECT from this host to {}",
            [Some(endpoint.as_str()), authority].into_iter().flatten().collect::<Vec<_>>().join(" and ")
        ),
        ProxyLayer::Refused(RefusalKind::Unreachable) => format!(
            "have the operator of the proxy {url} find out why it cannot resolve or reach the destination; with a private \
             endpoint, the proxy must be in its network"
        ),
        ProxyLayer::Refused(RefusalKind::Other) | ProxyLayer::Answer => {
            format!("make sure that `{key}`, now {url}, is a forward proxy that allows CONNECT to port 443")
        }
    };
    let mut remediation = vec![Remediation::note(note)];
    if let (Some(refused), Some(proxy)) = (&failure.certificate, &failure.proxy)
        && layer == ProxyLayer::Tls
    {
        let server = Server { what: "the proxy", ca_file: "`ca_file` of the proxy", url: key };
        return vec![certificate::refused(refused, &server), certificate::show(&proxy.host, proxy.port, None)];
    }
    if matches!(layer, ProxyLayer::Refused(RefusalKind::Forbidden | RefusalKind::Unreachable)) {
        remediation.push(Remediation::note(
            "or, if this host reaches the destination directly: add it to `egress.no_proxy`, or set `proxy = \"off\"` of the \
             endpoint or credential",
        ));
    }
    remediation.push(Remediation::command(
        "show what the proxy answers",
        format!("curl -v --proxy {url} {}", authority.unwrap_or(&endpoint)),
    ));
    remediation
}
