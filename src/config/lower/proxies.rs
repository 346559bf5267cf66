//! Lowers the proxies in front of a listener.

use std::sync::Arc;

use ipnet::IpNet;

use super::context::{Context, below};
use super::values;
use crate::config::file::ListenerFile;
use crate::route::Constraint;
use crate::serve::{Bind, TrustedProxies};

/// The name of the peers of a Unix socket.
const UNIX: &str = "unix";

/// Lowers `trusted_proxies` and `proxy_protocol` of the listener at `key`.
pub(super) fn trusted(
    key: &[String],
    file: &ListenerFile,
    bind: &Bind,
    context: &mut Context<'_>,
) -> Option<Arc<TrustedProxies>> {
    let at = below(key, "trusted_proxies");
    let is_unix = matches!(bind, Bind::Unix { .. });
    if file.trusted_proxies.is_empty() {
        if file.proxy_protocol {
            let fact = "is on, but no peer is trusted, so every connection would be closed";
            let fix = "name the proxies in `trusted_proxies`, or remove it";
            context.problem(&below(key, "proxy_protocol"), fact, fix);
        }
        return None;
    }
    let (unix, networks): (Vec<_>, Vec<_>) = file.trusted_proxies.iter().cloned().partition(|text| text == UNIX);
    let has_unix_peers = !unix.is_empty();
    if has_unix_peers && !is_unix {
        context.problem(&at, "`unix` means the peers of a Unix socket, and this is a TCP listener", "remove it");
    }
    if is_unix && !has_unix_peers {
        let fix = "add `unix`, which trusts all peers of the socket";
        context.problem(&at, "the peers of a Unix socket have no address, so none is trusted", fix);
    }
    let Constraint::OneOf(networks) = values::networks(&at, &networks, context) else { return None };
    for network in &networks {
        check(&at, network, context);
    }
    Some(Arc::new(TrustedProxies { networks, has_unix_peers }))
}

fn check(key: &[String], network: &IpNet, context: &mut Context<'_>) {
    if let Some((fact, fix)) = values::host_bits(network) {
        context.problem(key, fact, fix);
    } else if network.prefix_len() == 0 {
        let fix = "name the networks of the proxies alone";
        context.warning(key, format!("`{network}` lets every caller choose the address that it is known by"), fix);
    }
}
