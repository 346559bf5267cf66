//! Lowers listeners and the admin listener.

use std::net::{Ipv4Addr, SocketAddr};

use super::context::{Context, key};
use super::{proxies, values};
use crate::admin::AdminSettings;
use crate::config::file::{AdminFile, ClientAuthFile, ConfigFile, ListenerFile, OneOrMany, TlsFile};
use crate::config::problem::did_you_mean;
use crate::limits::ClientRateSettings;
use crate::proxy::AdmissionSettings;
use crate::route::Constraint;
use crate::serve::{Bind, ClientAuthSettings, ListenerSettings, ListenerTlsSettings};
use crate::signalr::{Operation, OperationClass, OperationSet};

/// The address of the default listener, which exists if the file defines none.
const DEFAULT_BIND: &str = "127.0.0.1:8080";
const DEFAULT_MODE: u32 = 0o660;

pub(super) fn lower(file: &ConfigFile, context: &mut Context<'_>) -> Vec<(ListenerSettings, AdmissionSettings)> {
    let mut listeners: Vec<_> =
        file.listeners.iter().map(|(name, listener)| lower_one(name, listener, context)).collect();
    // The default listener does not replace invalid ones.
    if listeners.is_empty() && context.names("listeners").is_empty() {
        let listener = ListenerFile {
            bind: DEFAULT_BIND.to_owned(),
            mode: None,
            tls: None,
            allowed_hosts: Vec::new(),
            operations: None,
            clients: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            required_header: None,
            max_requests: None,
            client_rate: None,
        };
        listeners.push(lower_one("default", &listener, context));
    }
    for (index, (listener, _)) in listeners.iter().enumerate() {
        let same = |(earlier, _): &&(ListenerSettings, AdmissionSettings)| earlier.bind.overlaps(&listener.bind);
        if let Some((earlier, _)) = listeners.iter().take(index).find(same) {
            let fact = format!("overlaps the address of listener `{}`", earlier.name);
            let fix = "give each listener an address or a port of its own";
            context.problem(&key(&["listeners", &listener.name, "bind"]), fact, fix);
        }
    }
    listeners
}

pub(super) fn lower_admin(
    file: &AdminFile,
    listeners: &[(ListenerSettings, AdmissionSettings)],
    context: &mut Context<'_>,
) -> Option<AdminSettings> {
    if file.bind == "off" {
        return None;
    }
    let at = key(&["admin", "bind"]);
    let Some(address) = parse_address(&file.bind) else {
        let fix = "write `address:port`, such as `127.0.0.1:9090`, or `off`";
        context.problem(&at, format!("`{}` is not an address", file.bind), fix);
        return None;
    };
    if let Some((listener, _)) = listeners.iter().find(|(listener, _)| listener.bind.overlaps(&Bind::Tcp(address))) {
        let fix = "give the admin listener an address or a port of its own";
        context.problem(&at, format!("overlaps the address of listener `{}`", listener.name), fix);
    }
    let at = key(&["admin", "allowed_hosts"]);
    let allowed_hosts = file.allowed_hosts.iter().map(|host| allowed_host(host, &at, context)).collect();
    let tls = file.tls.as_ref().map(|tls| lower_tls(tls, &key(&["admin", "tls"]), context));
    Some(AdminSettings { bind: address, allowed_hosts, tls })
}

/// Parses an address and a port; `localhost` is the IPv4 loopback address.
fn parse_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

fn lower_one(name: &str, file: &ListenerFile, context: &mut Context<'_>) -> (ListenerSettings, AdmissionSettings) {
    let at = |tail: &[&str]| {
        let mut path = key(&["listeners", name]);
        path.extend(key(tail));
        path
    };
    values::check_name(&at(&[]), name, context);
    let bind = bind(file, &at(&["bind"]), &at(&["mode"]), context);
    let trusted_proxies = proxies::trusted(&at(&[]), file, &bind, context);
    let settings = ListenerSettings {
        name: name.to_owned(),
        bind,
        tls: file.tls.as_ref().map(|tls| lower_tls(tls, &at(&["tls"]), context)),
        proxy_protocol: trusted_proxies.clone().filter(|_| file.proxy_protocol),
    };
    if matches!(settings.bind, Bind::Unix { .. }) && file.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) {
        let fix = "remove it, or bind a TCP address: the mode of a Unix socket says who may connect";
        context.problem(&at(&["tls", "client_ca"]), "callers on a Unix socket have no identity", fix);
    }
    let required_header = file.required_header.as_ref().and_then(|header| {
        let name = values::header_name(&at(&["required_header", "name"]), &header.name, context);
        let value_key = at(&["required_header", "value"]);
        let mut value = values::header_value(&value_key, &header.value, context)?;
        if value.is_empty() {
            context.problem(&value_key, "is empty", "write the value that callers must send");
        }
        // The value is a shared secret: neither logs nor `check` show it.
        value.set_sensitive(true);
        context.displayed_values.push((value_key.join("."), "(hidden)".into()));
        Some((name?, value))
    });
    let client_rate = file.client_rate.as_ref().and_then(|file| {
        let at = |tail: &str| at(&["client_rate", tail]);
        for (tail, prefix, longest) in [("ipv4_prefix", file.ipv4_prefix, 32), ("ipv6_prefix", file.ipv6_prefix, 128)] {
            if prefix > longest {
                let fix = format!("write a prefix length from 0 to {longest}");
                context.problem(&at(tail), format!("is {prefix}, must be {longest} at most"), fix);
            }
        }
        let rate = values::rate(&key(&["listeners", name, "client_rate"]), file.per_second, file.burst, context)?;
        Some(ClientRateSettings { rate, ipv4_prefix: file.ipv4_prefix, ipv6_prefix: file.ipv6_prefix })
    });
    let admission = AdmissionSettings {
        listener: name.to_owned(),
        max_requests: values::max_requests(&at(&["max_requests"]), file.max_requests, context),
        client_rate,
        allowed_hosts: file
            .allowed_hosts
            .iter()
            .map(|host| allowed_host(host, &at(&["allowed_hosts"]), context))
            .collect(),
        operations: match &file.operations {
            Some(names) => operations(names, &at(&["operations"]), context),
            None => OperationSet::MESSAGES.union(OperationSet::GROUPS).union(OperationSet::QUERIES),
        },
        clients: match file.clients.as_slice() {
            [] => Constraint::Any,
            networks => values::whole_networks(&at(&["clients"]), networks, context),
        },
        trusted_proxies,
        required_header,
    };
    (settings, admission)
}

fn lower_tls(file: &TlsFile, at: &[String], context: &mut Context<'_>) -> ListenerTlsSettings {
    let at = |tail: &str| -> Vec<String> { at.iter().cloned().chain([tail.to_owned()]).collect() };
    let lists = file.client_crl.as_ref().map(OneOrMany::as_slice);
    if file.client_ca.is_none() {
        for (name, is_set) in [("client_auth", file.client_auth.is_some()), ("client_crl", lists.is_some())] {
            if is_set {
                let fix = "add `client_ca`, the file with the CAs of callers' certificates, or remove it";
                context.problem(
                    &at(name),
                    "has no effect without `client_ca`: callers are asked for no certificate",
                    fix,
                );
            }
        }
    }
    if lists.is_some_and(<[_]>::is_empty) {
        context.problem(&at("client_crl"), "is empty", "remove it, so that revocation is not checked");
    }
    ListenerTlsSettings {
        certificate: values::existing_file(&at("certificate"), &file.certificate, context),
        key: values::existing_file(&at("key"), &file.key, context),
        client_auth: file.client_ca.as_ref().map(|ca| ClientAuthSettings {
            ca: values::existing_file(&at("client_ca"), ca, context),
            is_required: !matches!(file.client_auth, Some(ClientAuthFile::Optional)),
            revocation_lists: lists
                .unwrap_or_default()
                .iter()
                .map(|path| values::existing_file(&at("client_crl"), path, context))
                .collect(),
        }),
    }
}

fn bind(file: &ListenerFile, bind_key: &[String], mode_key: &[String], context: &mut Context<'_>) -> Bind {
    let mode = file.mode.as_ref().map(|mode| {
        let parsed = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777);
        if parsed.is_none() {
            let fix = "write permission bits in octal, such as `0660`";
            context.problem(mode_key, format!("`{mode}` is not a mode"), fix);
        }
        parsed.unwrap_or(DEFAULT_MODE)
    });
    if let Some(path) = file.bind.strip_prefix("unix:") {
        return Bind::Unix { path: context.path(bind_key, path.as_ref()), mode: mode.unwrap_or(DEFAULT_MODE) };
    }
    if mode.is_some() {
        context.problem(mode_key, "only a Unix socket has permission bits", "remove it");
    }
    let address = parse_address(&file.bind).unwrap_or_else(|| {
        let fix = "write `address:port`, such as `127.0.0.1:8080` or `[::]:8080`, or `unix:/path`";
        context.problem(bind_key, format!("`{}` is not an address", file.bind), fix);
        SocketAddr::from(([127, 0, 0, 1], 0))
    });
    Bind::Tcp(address)
}

fn allowed_host(host: &str, key: &[String], context: &mut Context<'_>) -> String {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_plain) {
        let fix = "write a name without scheme and port, such as `gateway.internal` or `*.svc.cluster.local`";
        context.problem(key, format!("`{host}` is not a host name"), fix);
    }
    // A trailing dot has no meaning.
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Parses the names of operations and of sets of operations.
pub(super) fn operations(names: &[String], key: &[String], context: &mut Context<'_>) -> OperationSet {
    if names.is_empty() {
        context.problem(key, "is empty, which admits no call", "remove it for the default");
    }
    names.iter().fold(OperationSet::EMPTY, |all, name| {
        let set = OperationSet::from_name(name);
        if set.is_none() {
            let sets = OperationClass::ALL.into_iter().map(OperationClass::name);
            let known: Vec<&str> = sets.chain(Operation::ALL.map(Operation::name)).collect();
            let fix = did_you_mean(name, known.iter().copied()).unwrap_or_else(|| {
                "write an operation, or one of the sets messages, execute, groups, queries, close, credentials, \
                 claims"
                    .to_owned()
            });
            context.problem(key, format!("`{name}` is not an operation"), fix);
        }
        all.union(set.unwrap_or_default())
    })
}
