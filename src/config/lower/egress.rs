//! Lowers the proxies: that of `[egress]`, those of endpoints and credentials, and those of the environment.

use std::path::Path;
use std::sync::Arc;

use super::context::{Context, Key, below, key};
use super::identity::secret_source;
use super::values;
use crate::config::file::{EgressFile, ProxyChoiceFile, ProxyFile, SecretFile};
use crate::egress::{Egress, EgressProxy, NoProxy, ProxyCredentials, ProxyUrl};

/// The variables that name the proxy of https URLs; the first that is set applies. Source: curl, "Environment" in `man curl`.
const PROXY_VARIABLES: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
/// The variables with the exceptions.
const NO_PROXY_VARIABLES: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The keys of a proxy besides its URL.
struct Details<'f> {
    username: Option<&'f str>,
    password: Option<&'f SecretFile>,
    ca_file: Option<&'f Path>,
}

/// Lowers `[egress]`.
pub(super) fn lower(file: &EgressFile, context: &mut Context<'_>) -> Arc<Egress> {
    let at = key(&["egress"]);
    let no_proxy = file.no_proxy.as_ref().map(|entries| lower_no_proxy(&below(&at, "no_proxy"), entries, context));
    let details = Details {
        username: file.username.as_deref(),
        password: file.password.as_ref(),
        ca_file: file.ca_file.as_deref(),
    };
    if file.proxy.is_none()
        && let Some((name, _)) = variable(&PROXY_VARIABLES, context)
    {
        let fix = "set `egress.proxy` to \"environment\" to use it, or to \"off\" if connections should be direct";
        context.warning(
            &below(&at, "proxy"),
            format!("{name} is set, but it is not used: connections are direct"),
            fix,
        );
    }
    let mut egress = choose(&at, &below(&at, "proxy"), file.proxy.as_deref().unwrap_or(OFF), &details, context);
    if let Some(no_proxy) = no_proxy {
        egress.no_proxy = no_proxy;
    }
    Arc::new(egress)
}

/// Lowers the `proxy` of an endpoint or credential. Without one, that of `[egress]` applies.
pub(super) fn lower_choice(
    at: &Key,
    choice: Option<&ProxyChoiceFile>,
    common: &Arc<Egress>,
    context: &mut Context<'_>,
) -> Arc<Egress> {
    let none = Details { username: None, password: None, ca_file: None };
    match choice {
        None => Arc::clone(common),
        Some(ProxyChoiceFile::Text(text)) => Arc::new(choose(at, at, text, &none, context)),
        Some(ProxyChoiceFile::Table(ProxyFile { url, username, password, ca_file })) => {
            let details =
                Details { username: username.as_deref(), password: password.as_ref(), ca_file: ca_file.as_deref() };
            Arc::new(choose(at, &below(at, "url"), url, &details, context))
        }
    }
}

const OFF: &str = "off";
const ENVIRONMENT: &str = "environment";

/// Lowers a proxy whose URL has the key `url_key`, and whose details stand in the table `at`.
fn choose(at: &Key, url_key: &Key, text: &str, details: &Details<'_>, context: &mut Context<'_>) -> Egress {
    match text {
        OFF => {
            let unused = [
                ("username", details.username.is_some()),
                ("password", details.password.is_some()),
                ("ca_file", details.ca_file.is_some()),
            ];
            for (name, _) in unused.into_iter().filter(|(_, is_set)| *is_set) {
                let fix = "write the proxy's URL, or remove it";
                context.problem(&below(at, name), format!("has no effect: `{}` is \"off\"", url_key.join(".")), fix);
            }
            Egress::default()
        }
        ENVIRONMENT => {
            let unused = [("username", details.username.is_some()), ("password", details.password.is_some())];
            for (name, _) in unused.into_iter().filter(|(_, is_set)| *is_set) {
                let fix =
                    "write them into the variable (`http://user:password@host:port`), or write the proxy's URL here";
                context.problem(&below(at, name), "has no effect: the proxy is that of the environment", fix);
            }
            let ca_file = values::ca_file(&below(at, "ca_file"), details.ca_file, context);
            let mut egress = environment(url_key, context);
            if let Some(proxy) = egress.proxy.as_mut().filter(|_| ca_file.is_some()) {
                Arc::make_mut(proxy).ca_file = ca_file;
            }
            egress
        }
        text => {
            Egress { proxy: proxy(at, url_key, text, details, context).map(Arc::new), no_proxy: NoProxy::default() }
        }
    }
}

/// Lowers the URL of a proxy with its user name, password and CAs.
fn proxy(at: &Key, url_key: &Key, text: &str, details: &Details<'_>, context: &mut Context<'_>) -> Option<EgressProxy> {
    let credentials = credentials(at, details, context);
    let ca_file = values::ca_file(&below(at, "ca_file"), details.ca_file, context);
    let fix = "write `http://host:port`, `https://host:port`, \"environment\" or \"off\"";
    if !text.contains("://") {
        context.problem(url_key, "is not the URL of a proxy", fix);
        return None;
    }
    let url = match ProxyUrl::parse(text) {
        Ok(url) => url,
        Err(problem) => {
            context.problem(url_key, problem.to_string(), fix);
            return None;
        }
    };
    if url.user.is_some() {
        let fix = "remove them from the URL, and set `username` and `password = { file = … }` of the proxy";
        context.problem(url_key, "has a user name or a password in the URL", fix);
    }
    let Some(port) = url.port else {
        context.problem(url_key, "has no port", "add the port of the proxy, such as 3128 or 8080");
        return None;
    };
    if ca_file.is_some() && !url.tls {
        let fix = "remove it, or write https:// if the proxy itself expects TLS; for a proxy that inspects TLS, set \
                   `ca_file` of the endpoints and credentials";
        context.problem(&below(at, "ca_file"), "has no effect: connections to an http:// proxy use no TLS", fix);
    }
    Some(EgressProxy { tls: url.tls, host: url.host, port, ca_file, credentials, configured_by: url_key.join(".") })
}

fn credentials(at: &Key, details: &Details<'_>, context: &mut Context<'_>) -> Option<ProxyCredentials> {
    let password = details.password.map(|file| secret_source(&below(at, "password"), file, context));
    match (details.username, password) {
        (Some(username), Some(password)) => {
            if username.is_empty() || username.contains(|ch: char| ch == ':' || ch.is_control()) {
                let fix = "write the user name at the proxy";
                context.problem(&below(at, "username"), "is empty, or has a colon or a control character", fix);
            }
            Some(ProxyCredentials::Configured { username: username.to_owned(), password: password? })
        }
        (Some(_), None) => {
            context.problem(
                &below(at, "password"),
                "is missing, but there is a `username`",
                "add password = { file = \"…\" }",
            );
            None
        }
        (None, Some(_)) => {
            context.problem(&below(at, "username"), "is missing, but there is a `password`", "add username = \"…\"");
            None
        }
        (None, None) => None,
    }
}

/// Returns the proxy and the exceptions of the environment.
fn environment(at: &Key, context: &mut Context<'_>) -> Egress {
    let Some((name, text)) = variable(&PROXY_VARIABLES, context) else {
        let fact = format!("none of {} is set, so connections are direct", PROXY_VARIABLES.join(", "));
        context.warning(at, fact, "set one of them where the gateway starts, or write the proxy's URL");
        return Egress::default();
    };
    let url = match ProxyUrl::parse(text) {
        Ok(url) => url,
        Err(problem) => {
            context.problem(at, format!("{name} {problem}"), "set it to `http://host:port` or `https://host:port`");
            return Egress::default();
        }
    };
    let no_proxy = variable(&NO_PROXY_VARIABLES, context).map(|(name, text)| {
        let entries: Vec<&str> = NoProxy::split_variable(text).collect();
        let (no_proxy, problems) = NoProxy::parse(entries.iter().copied());
        for (index, problem) in problems {
            let entry = entries.get(index).copied().unwrap_or_default();
            let fix = "write names, addresses or networks, separated by commas";
            context.warning(at, format!("`{entry}` in {name} matches no host: it {problem}"), fix);
        }
        no_proxy
    });
    let port = url.port_or_default();
    let credentials = url.user.is_some().then(|| ProxyCredentials::UrlInVariable(name.to_owned()));
    let (tls, host, configured_by) = (url.tls, url.host, name.to_owned());
    let proxy = EgressProxy { tls, host, port, ca_file: None, credentials, configured_by };
    Egress { proxy: Some(Arc::new(proxy)), no_proxy: no_proxy.unwrap_or_default() }
}

/// Returns the first of these variables that is set and not empty.
fn variable<'e>(names: &[&'static str], context: &Context<'e>) -> Option<(&'static str, &'e str)> {
    let value = |name: &&'static str| {
        let text = context.environment.get(*name)?.as_str();
        Some((*name, text)).filter(|(_, text)| !text.is_empty())
    };
    names.iter().find_map(value)
}

fn lower_no_proxy(at: &Key, entries: &[String], context: &mut Context<'_>) -> NoProxy {
    let (no_proxy, problems) = NoProxy::parse(entries.iter().map(String::as_str));
    for (index, problem) in problems {
        let entry = entries.get(index).map(String::as_str).unwrap_or_default();
        let fix = "write a name such as `corp.example`, an address, a network such as `10.0.0.0/8`, or `\"*\"` alone";
        context.problem(at, format!("`{entry}` {problem}"), fix);
    }
    no_proxy
}
