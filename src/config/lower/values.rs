//! Parses values that are written as text: files, names, durations, sizes, URLs, networks, headers.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::context::Context;
use crate::config::file::SizeFile;
use crate::endpoint::Origin;
use crate::files::{self, FileError};
use crate::limits::RateSettings;
use crate::route::Constraint;
use crate::signalr::Name;

/// Chosen: a longer duration is a mistake.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
/// The resolution of ages.
const MIN_AGE: Duration = Duration::from_secs(1);
/// Chosen: more calls per second than one gateway serves.
const MAX_RATE: u32 = 1_000_000;

/// Resolves the path of a file, which must exist and not be empty. Does not read it.
pub(super) fn existing_file(key: &[String], path: &Path, context: &mut Context<'_>) -> PathBuf {
    if is_content(path) {
        let fix = "put it into a file of its own and write the file's path";
        context.problem(key, "is the content of a file, must be its path", fix);
        return path.to_owned();
    }
    let path = context.path(key, path);
    if context.last.has_file(&path) {
        context.memo.add_file(path.clone());
        return path;
    }
    let shown = path.display();
    let fact_and_fix = match files::is_empty(&path) {
        Err(FileError::Unreadable { source, .. }) => {
            let fact = format!("the file {shown} cannot be read: {source}");
            context.absent(key, fact, "check that it exists and that the gateway's user may read it");
            return path;
        }
        Err(FileError::NotAFile { kind, .. }) => {
            (format!("{shown} is {kind}, must be a file"), "write the path of a regular file")
        }
        Err(err) => (err.to_string(), "write the path of a file that the gateway can read at any time"),
        Ok(true) => (format!("the file {shown} is empty"), "write its content, or the path of another file"),
        Ok(false) => {
            context.memo.add_file(path.clone());
            return path;
        }
    };
    let (fact, fix) = fact_and_fix;
    context.problem(key, fact, fix);
    path
}

/// Resolves the path of a file with CAs. Returns `None` if the file is absent and may be: nothing can be built with it.
pub(super) fn ca_file(key: &[String], path: Option<&Path>, context: &mut Context<'_>) -> Option<PathBuf> {
    let path = existing_file(key, path?, context);
    (!context.is_absent(key)).then_some(path)
}

/// Checks that a table defines `name`.
pub(super) fn check_reference(key: &[String], table: &str, name: &str, context: &mut Context<'_>) {
    // A file that could not be parsed may define it.
    if !context.defines(table, name) && !context.merged.has_unknown_names() {
        let fix = context
            .suggest_name(table, name)
            .unwrap_or_else(|| format!("define it as [{table}.{name}], or name one that exists"));
        let kind = table.strip_suffix('s').unwrap_or(table);
        context.problem(key, format!("there is no {kind} `{name}`"), fix);
    }
}

/// Checks a name that becomes a metric label.
pub(super) fn check_name(key: &[String], name: &str, context: &mut Context<'_>) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    // Labels that begin with `_` are reserved, such as `_none`.
    if name.is_empty() || name.len() > 64 || name.starts_with('_') || !name.bytes().all(is_plain) {
        let fix = "names have 1 to 64 letters, digits, `-` and `_`, and do not begin with `_`";
        context.problem(key, format!("`{name}` is not a name"), fix);
    }
}

/// Parses a duration that must not be zero.
pub(super) fn duration(key: &[String], text: &str, context: &mut Context<'_>) -> Duration {
    let duration = duration_or_zero(key, text, context);
    if duration.is_zero() && humantime::parse_duration(text).is_ok() {
        context.problem(key, "is zero, must be longer", "write a number above 0 and a unit, such as `10s`");
    }
    duration
}

/// Parses a duration.
pub(super) fn duration_or_zero(key: &[String], text: &str, context: &mut Context<'_>) -> Duration {
    let fix = || "write a number and a unit, such as `500ms`, `10s` or `2m`";
    match humantime::parse_duration(text) {
        Ok(duration) if duration > MAX_DURATION => {
            context.problem(key, format!("`{text}` is longer than a day"), fix());
            MAX_DURATION
        }
        Ok(duration) => duration,
        Err(_unreadable) => {
            context.problem(key, format!("`{text}` is not a duration"), fix());
            Duration::ZERO
        }
    }
}

/// Parses the age at which connections are closed.
pub(super) fn age(key: &[String], text: Option<&str>, context: &mut Context<'_>) -> Option<Duration> {
    let text = text?;
    let age = duration_or_zero(key, text, context);
    if age < MIN_AGE && humantime::parse_duration(text).is_ok() {
        let fix = "write a longer one, such as `10m`, or leave it out";
        context.problem(key, format!("`{text}` is shorter than a second"), fix);
    }
    Some(age)
}

/// Parses a size of 1 to `max` bytes.
pub(super) fn size(key: &[String], size: &SizeFile, max: u64, context: &mut Context<'_>) -> u64 {
    let bytes = match size {
        SizeFile::Bytes(bytes) => Some(*bytes),
        SizeFile::Text(text) => parse_size(text),
    };
    match bytes {
        Some(bytes) if (1..=max).contains(&bytes) => return bytes,
        Some(bytes) => {
            context.problem(key, format!("is {bytes} bytes, must be 1 to {max}"), format!("write 1 to {max} bytes"));
        }
        None => {
            let fix = "write a number of bytes, or a number with `KiB` or `MiB`";
            context.problem(key, "is not a size", fix);
        }
    }
    max
}

/// Parses `scheme://host[:port]`. Problems never contain any other text, which may be a connection string or a password.
pub(super) fn origin(key: &[String], text: &str, plain_http: PlainHttp, context: &mut Context<'_>) -> Option<Origin> {
    if is_connection_string(text) {
        let fix = "write only the URL after `Endpoint=`; put the access key into a file, and name the file in a credential of \
                   kind `access_key`";
        context.problem(key, "is a connection string, must be a URL", fix);
        return None;
    }
    let fix = || "write `https://host` or `https://host:port`";
    let Some((scheme, authority)) = text.split_once("://") else {
        context.problem(key, "is not a URL", fix());
        return None;
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.contains(['@', '/', '?', '#']) {
        let fix = "remove the user, the path and the query";
        context.problem(key, "has more than scheme, host and port", fix);
        return None;
    }
    let (host, port) = match authority.rsplit_once(':') {
        // The colon belongs to an IPv6 address without a port.
        Some((_, rest)) if rest.ends_with(']') => (authority, None),
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let Some(host) = parse_host(host) else {
        context.problem(key, format!("`{host}` is not a host"), fix());
        return None;
    };
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => false,
        _ => {
            context.problem(key, "the scheme must be https", fix());
            return None;
        }
    };
    if !tls && !plain_http.allows(&host) {
        let fix = match plain_http {
            PlainHttp::Never => "write https://; the identity library rejects anything else".to_owned(),
            PlainHttp::Loopback | PlainHttp::LinkLocal => {
                "write https://: a bearer token must not cross a network in the clear".to_owned()
            }
        };
        let fact = match plain_http {
            PlainHttp::Never => "the scheme is http".to_owned(),
            PlainHttp::Loopback | PlainHttp::LinkLocal => {
                format!("the scheme is http and `{host}` is not this host")
            }
        };
        context.problem(key, fact, fix);
        return None;
    }
    let port = match port {
        None => Some(if tls { 443 } else { 80 }),
        Some(port) => port.parse().ok().filter(|port: &u16| *port != 0),
    };
    let Some(port) = port else {
        context.problem(key, "the port must be 1 to 65535", fix());
        return None;
    };
    Some(Origin { tls, host, port })
}

/// Validates a rate of calls.
pub(super) fn rate(
    key: &[String],
    per_second: u32,
    burst: Option<u32>,
    context: &mut Context<'_>,
) -> Option<RateSettings> {
    let mut number = |name: &str, number: u32| {
        let found = NonZeroU32::new(number).filter(|number| number.get() <= MAX_RATE);
        if found.is_none() {
            let key: Vec<String> = key.iter().cloned().chain([name.to_owned()]).collect();
            let fix = format!("write a number from 1 to {MAX_RATE}, or remove the table for no limit");
            context.problem(&key, format!("is {number}, must be 1 to {MAX_RATE}"), fix);
        }
        found
    };
    let (per_second, burst) = (number("per_second", per_second), number("burst", burst.unwrap_or(per_second.max(1))));
    Some(RateSettings { per_second: per_second?, burst: burst? })
}

/// Validates a maximum number of calls in flight.
pub(super) fn max_requests(key: &[String], number: Option<u32>, context: &mut Context<'_>) -> Option<usize> {
    if number == Some(0) {
        context.problem(key, "is 0, which admits no call", "remove it for no limit");
    }
    number.map(|number| number.max(1) as usize)
}

/// Parses IP addresses and networks. Warns about networks that are written by another address than their first.
pub(super) fn whole_networks(key: &[String], texts: &[String], context: &mut Context<'_>) -> Constraint<IpNet> {
    let networks = networks(key, texts, context);
    let Constraint::OneOf(found) = &networks else { return networks };
    for network in found {
        if let Some((fact, fix)) = host_bits(network) {
            context.warning(key, format!("{fact}, and matches all of it"), fix);
        }
    }
    networks
}

/// Returns the fact and the fix if a network is written by another address than its first.
pub(super) fn host_bits(network: &IpNet) -> Option<(String, String)> {
    let (address, whole) = (network.addr(), network.trunc());
    (address != whole.addr()).then(|| {
        let fact = format!("`{network}` is not the first address of its network");
        let fix = format!("write `{address}` for this host, or `{whole}` for all {} bits", network.prefix_len());
        (fact, fix)
    })
}

/// Parses IP addresses and networks.
pub(super) fn networks(key: &[String], texts: &[String], context: &mut Context<'_>) -> Constraint<IpNet> {
    let mut networks = Vec::with_capacity(texts.len());
    for text in texts {
        let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        if network.is_none() {
            let fix = "write an address or a network, such as `10.0.0.0/8`";
            context.problem(key, format!("`{text}` is not a network"), fix);
        }
        networks.extend(network);
    }
    Constraint::OneOf(networks)
}

/// How a pattern of hubs, a name in which `*` matches any text, relates to the names that hubs can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HubPattern {
    /// It matches hubs.
    Useful,
    /// It matches only hubs of v1 whose application has a hyphen, and does not look as if it were meant to.
    HyphenOfV1,
    /// No hub has such a name.
    Impossible,
}

impl HubPattern {
    /// Judges a pattern by the grammar of [`Name::hub`] and [`Name::v1_hub`]: hubs of v1 may have a hyphen before the `_` that
    /// ends the name of their application.
    pub(super) fn of(text: &str) -> Self {
        let begins_well = text.starts_with(|first: char| first == '*' || first.is_ascii_alphabetic());
        let is_byte = |byte| byte == b'*' || Name::is_hub_byte(byte);
        let literals = text.bytes().filter(|byte| *byte != b'*').count();
        if !begins_well || literals > MAX_HUB || !text.bytes().all(|byte| byte == b'-' || is_byte(byte)) {
            return Self::Impossible;
        }
        match text.rsplit_once('-') {
            None => Self::Useful,
            Some((_, hub)) if hub.contains('_') => Self::Useful,
            Some((_, hub)) if hub.contains('*') => Self::HyphenOfV1,
            Some(_) => Self::Impossible,
        }
    }
}

/// The maximum length of a hub's name, as in [`Name::hub`].
const MAX_HUB: usize = 128;

/// Checks a pattern of hubs; `shown` is the text of the file.
pub(super) fn check_hub(text: &str, shown: &str, at: &[String], fix: &str, context: &mut Context<'_>) {
    match HubPattern::of(text) {
        HubPattern::Useful => {}
        HubPattern::Impossible => context.problem(at, format!("`{shown}` can never match"), fix),
        HubPattern::HyphenOfV1 => {
            let fact = format!(
                "hub names have no `-`, so `{shown}` matches only hubs of the API's version 1 (`application_hub`) whose application \
                 has one"
            );
            let fix = "write `_` instead of `-`; or for version 1, write the `_` too, such as `my-app_*`";
            context.warning(at, fact, fix);
        }
    }
}

/// Checks names of hubs and patterns that name no endpoint.
pub(super) fn check_hubs(texts: &[String], at: &[String], context: &mut Context<'_>) {
    let fix =
        "hub names begin with a letter and have only letters, digits and _`,.[], at most 128; `*` matches any text";
    for text in texts {
        check_hub(text, text, at, fix, context);
    }
}

pub(super) fn header_name(key: &[String], text: &str, context: &mut Context<'_>) -> Option<HeaderName> {
    let name = text.parse().ok();
    if name.is_none() {
        let fix = "write letters, digits and `-`, such as `x-region`";
        context.problem(key, format!("`{text}` is not a header name"), fix);
    }
    name
}

pub(super) fn header_value(key: &[String], text: &str, context: &mut Context<'_>) -> Option<HeaderValue> {
    let value = text.parse().ok();
    if value.is_none() {
        context.problem(key, "is not a header value: it has control characters", "remove them");
    }
    value
}

/// Returns whether a path is the content of a file instead: a key or a certificate in PEM, or a token. Messages must not contain
/// it then.
pub(super) fn is_content(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.contains(['\n', '\r']) || text.contains("-----BEGIN") || text.starts_with("eyJ")
}

/// The hosts to which plain HTTP is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlainHttp {
    /// None.
    Never,
    /// This host.
    Loopback,
    /// This host, and the link-local addresses of metadata servers.
    LinkLocal,
}

impl PlainHttp {
    pub(super) fn allows(self, host: &str) -> bool {
        let address = host.parse::<IpAddr>();
        let is_loopback = host == "localhost" || address.as_ref().is_ok_and(IpAddr::is_loopback);
        let is_link_local = matches!(address, Ok(IpAddr::V4(address)) if address.is_link_local());
        match self {
            Self::Never => false,
            Self::Loopback => is_loopback,
            // Google's name for its link-local metadata server.
            Self::LinkLocal => is_loopback || is_link_local || host == "metadata.google.internal",
        }
    }
}

/// Returns whether a text is a connection string of an SDK: `Endpoint=https://…;AccessKey=…;Version=1.0;`.
fn is_connection_string(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.contains("endpoint=") || text.contains("accesskey=")
}

/// Parses a DNS name, an IPv4 address or an IPv6 address in brackets. Returns it in lower case, without brackets.
pub(in crate::config) fn parse_host(text: &str) -> Option<String> {
    if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().ok().map(|address| address.to_string());
    }
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(is_plain)
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let is_host = name.len() <= 253 && name.split('.').all(is_label);
    is_host.then(|| text.to_ascii_lowercase())
}

fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1024,
        "MiB" => 1024 * 1024,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_sizes_with_binary_units_or_none() {
        for (text, bytes) in [
            ("1048576", Some(1_048_576)),
            ("1MiB", Some(1_048_576)),
            ("16 KiB", Some(16_384)),
            ("1MB", None),
            ("-1", None),
            ("MiB", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
    }

    #[test]
    fn parses_names_and_addresses_as_hosts() {
        for (text, host) in [
            ("East.Service.SignalR.net", Some("east.service.signalr.net")),
            ("east.service.signalr.net.", Some("east.service.signalr.net.")),
            ("10.0.0.1", Some("10.0.0.1")),
            ("[::1]", Some("::1")),
            ("[0:0::1]", Some("::1")),
            ("::1", None),
            ("[east]", None),
            ("", None),
            ("a..b", None),
            ("a b", None),
            ("*.signalr.net", None),
            ("b\u{fc}ro.example", None),
        ] {
            assert_eq!(parse_host(text).as_deref(), host, "{text}");
        }
    }

    #[test]
    fn plain_http_is_allowed_to_this_host_only() {
        assert!(PlainHttp::Loopback.allows("127.0.0.9") && PlainHttp::Loopback.allows("::1"));
        assert!(!PlainHttp::Loopback.allows("169.254.169.254") && PlainHttp::LinkLocal.allows("169.254.169.254"));
        assert!(!PlainHttp::LinkLocal.allows("10.0.0.1") && !PlainHttp::Never.allows("localhost"));
    }
}
