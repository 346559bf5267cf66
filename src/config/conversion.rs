//! Converts the connection strings of applications to a configuration file: endpoints, credentials, and a route that behaves
//! like the SDK. Writes no secret into the file.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::connection_string::{Auth, ConnectionString, ConnectionStringProblem, Proof, is_key, parse};
use super::problem::{ConfigError, Origin, Problem};
use crate::credential::Secret;

/// A converted configuration.
#[derive(Debug)]
pub struct Conversion {
    /// The configuration file.
    pub toml: String,
    /// The secrets that it refers to, each with the name of its file.
    pub secrets: Vec<(String, Secret)>,
    /// The warnings about ignored parts and possible mistakes. The file repeats each as a comment.
    pub warnings: Vec<String>,
}

/// A connection string and its position in the input.
struct Found<'t> {
    /// Its key, such as `Azure:SignalR:ConnectionString:NAME:secondary`; empty without one.
    key: String,
    text: &'t str,
    line: Option<usize>,
}

/// An endpoint of the configuration file.
struct Endpoint {
    name: String,
    is_secondary: bool,
    /// The index of the endpoint whose credential it uses.
    credential: usize,
    parsed: ConnectionString,
}

/// Converts connection strings: one per line, alone or as `NAME=…` as in an environment file, or anywhere in an
/// `appsettings.json` or `local.settings.json`. `origin_path` is the file that `text` comes from. The configuration reads the
/// secrets from files in `folder`, or from variables if there is none.
///
/// # Errors
/// [`ConfigError`] with every problem of every connection string.
pub fn from_connection_strings(
    text: &str,
    origin_path: &Path,
    folder: Option<&Path>,
) -> Result<Conversion, ConfigError> {
    let problem = |key: &str, fact: String, fix: String, line| {
        let origin = Some(Origin::File(origin_path.to_owned(), line));
        Problem { key: key.to_owned(), fact, origin, fix }
    };
    let text = text.trim_start_matches('\u{feff}');
    let json: Option<serde_json::Value> =
        text.trim_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten();
    let mut found = Vec::new();
    match &json {
        Some(json) => find_in_json(json, String::new(), &mut found),
        None if text.trim_start().starts_with('{') => {
            let fact = "is not valid JSON".to_owned();
            let fix = "correct it; JSON has no comments and no comma after the last entry".to_owned();
            return Err(ConfigError::single(problem("", fact, fix, None)));
        }
        None => found.extend(find_in_lines(text)),
    }
    if found.is_empty() {
        let fact = "has no connection string, such as `Endpoint=https://…;AccessKey=…;Version=1.0;`".to_owned();
        let fix = "write one per line, as NAME=VALUE, or give an appsettings.json".to_owned();
        return Err(ConfigError::single(problem("", fact, fix, None)));
    }
    let mut problems = Vec::new();
    let (mut endpoints, mut names) = (Vec::new(), BTreeSet::new());
    for Found { key, text, line } in &found {
        match parse(text) {
            Err(found) => {
                problems.extend(
                    found.into_iter().map(|ConnectionStringProblem { fact, fix }| problem(key, fact, fix, *line)),
                );
            }
            Ok(parsed) => {
                let (name, is_secondary) = name_of(key, &parsed.host);
                let name = unique(&name, &mut names);
                let credential = endpoints.len();
                endpoints.push(Endpoint { name, is_secondary, credential, parsed });
            }
        }
    }
    if !problems.is_empty() {
        return Err(ConfigError { problems });
    }
    share_credentials(&mut endpoints);
    Ok(write_toml(endpoints, folder))
}

fn find_in_json<'t>(value: &'t serde_json::Value, key: String, found: &mut Vec<Found<'t>>) {
    match value {
        serde_json::Value::Object(entries) => {
            for (name, value) in entries {
                let key = if key.is_empty() { name.clone() } else { format!("{key}:{name}") };
                find_in_json(value, key, found);
            }
        }
        serde_json::Value::String(text) if text.to_ascii_lowercase().contains("endpoint=http") => {
            found.push(Found { key, text, line: None });
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| find_in_json(value, key.clone(), found)),
        serde_json::Value::String(_)
        | serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_) => {}
    }
}

fn find_in_lines(text: &str) -> impl Iterator<Item = Found<'_>> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(number, line)| {
        let (key, text) = match line.split_once('=') {
            // `NAME=Endpoint=…`, not `Endpoint=…` alone.
            Some((key, value))
                if !key.contains(';') && !is_key(key) && unquoted(value).to_ascii_lowercase().contains("endpoint=") =>
            {
                (key.trim().trim_start_matches("export ").to_owned(), value)
            }
            _ => (String::new(), line),
        };
        Found { key, text: unquoted(text), line: Some(number) }
    })
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inside = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    inside('"').or_else(|| inside('\'')).unwrap_or(text)
}

/// Returns the name of an endpoint, and whether it is a secondary. The key determines both, as in the SDK. Without a name in
/// the key, the name is the first label of the host.
///
/// Source: `ServiceEndpointProvider` of `Azure/azure-signalr`: `…:ConnectionString:{name}:{primary|secondary}`.
fn name_of(key: &str, host: &str) -> (String, bool) {
    let key = key.replace("__", ":");
    let mut segments: Vec<&str> = key.split(':').collect();
    let role = segments.last().map(|role| role.to_ascii_lowercase()).unwrap_or_default();
    if ["primary", "secondary"].contains(&role.as_str()) {
        segments.pop();
    }
    let plain = |text: &str| {
        let is_plain = |character: char| character.is_ascii_alphanumeric() || character == '-' || character == '_';
        let text: String = text.replace(|character| !is_plain(character), "-").chars().take(60).collect();
        text.trim_matches(['_', '-']).to_owned()
    };
    let name = plain(segments.last().copied().unwrap_or_default());
    let not_names = ["", "connectionstring", "azuresignalrconnectionstring", "endpoints", "signalr"];
    let name = if not_names.contains(&name.replace('_', "").to_ascii_lowercase().as_str()) {
        let is_address = host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
        plain(if is_address { host } else { host.split('.').next().unwrap_or_default() })
    } else {
        name
    };
    (if name.is_empty() { "endpoint".to_owned() } else { name }, role == "secondary")
}

/// Makes a name unique by appending a number. Names that differ only in case, or in `-` and `_`, would share a variable.
fn unique(name: &str, taken: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let name = std::iter::once(name.to_owned()).chain(numbered).find(|name| !taken.contains(&variable(name)));
    let name = name.unwrap_or_default();
    taken.insert(variable(&name));
    name
}

fn variable(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

/// Lets endpoints with the same identity share one credential.
fn share_credentials(endpoints: &mut [Endpoint]) {
    for index in 0..endpoints.len() {
        let (before, rest) = endpoints.split_at_mut(index);
        if let Some(endpoint) = rest.first_mut()
            && let Some(same) = before.iter().position(|other| other.parsed.auth.is_same(&endpoint.parsed.auth))
        {
            endpoint.credential = before.get(same).map_or(same, |other| other.credential);
        }
    }
}

/// Returns a text as a TOML string. JSON's escapes are valid in TOML, which also requires one for DEL.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

const HEAD: &str = "\
# Converted from Azure SignalR connection strings. This file contains no secret: each credential names the source of its own.
#
# Applications keep their SDK (.NET 1.21.5 or newer, transient transport) and change their connection string to this one.
# The key may be any text of 16 bytes or more: the gateway replaces the token that the SDK signs with it.
#
#   Endpoint=<as before>;AccessKey=not-a-secret-0000000;ServerEndpoint=http://127.0.0.1:8080;Version=1.0;
";

fn write_toml(endpoints: Vec<Endpoint>, folder: Option<&Path>) -> Conversion {
    let names: Vec<String> = endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    let (mut toml, mut secrets, mut warnings) = (HEAD.to_owned(), Vec::new(), Vec::new());
    for (index, endpoint) in endpoints.into_iter().enumerate() {
        let Endpoint { name, is_secondary, credential, parsed } = endpoint;
        if credential == index {
            let (lines, secret) = credential_lines(&name, parsed.auth, folder);
            let _infallible = write!(toml, "\n[credentials.{name}]\n{lines}");
            secrets.extend(secret.map(|secret| (name.clone(), secret)));
        }
        let _infallible = write!(toml, "\n[endpoints.{name}]\n");
        for note in parsed.notes.iter().chain(&parsed.warnings) {
            let _infallible = writeln!(toml, "# {note}");
        }
        warnings.extend(parsed.warnings.iter().map(|warning| format!("endpoints.{name}: {warning}")));
        let credential = names.get(credential).map_or(name.as_str(), String::as_str);
        let _infallible = writeln!(toml, "url = {}\ncredential = {}", quoted(&parsed.url), quoted(credential));
        if is_secondary {
            toml.push_str("role = \"secondary\"\n");
        }
    }
    if names.len() > 1 {
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        let _infallible = write!(
            toml,
            "\n# As in the SDK with several endpoints: messages go to all of them.\n[[routes]]\nname = \"all\"\npick = \"all\"\n\
             endpoints = [{}]\n",
            names.join(", ")
        );
    }
    Conversion { toml, secrets, warnings }
}

fn credential_lines(name: &str, auth: Auth, folder: Option<&Path>) -> (String, Option<Secret>) {
    let source = |what: &str| match folder {
        Some(folder) => format!("{{ file = {} }}", quoted(&folder.join(name).to_string_lossy())),
        None => format!("{{ env = \"SIGNALR_{}_{what}\" }}", variable(name)),
    };
    let hint = if folder.is_some() { "its file contains" } else { "set the variable to" };
    match auth {
        Auth::AccessKey(key) => {
            let source = source("ACCESS_KEY");
            (format!("# {hint} the AccessKey\nkind = \"access_key\"\nkey = {source}\n"), Some(key))
        }
        Auth::ManagedIdentity { client_id } => {
            let id = client_id.map(|id| format!("client_id = {}\n", quoted(&id))).unwrap_or_default();
            (format!("kind = \"managed_identity\"\n{id}"), None)
        }
        Auth::App { tenant, client_id, proof } => {
            let ids = format!("tenant = {}\nclient_id = {}\n", quoted(&tenant), quoted(&client_id));
            match proof {
                Proof::Secret(secret) => {
                    let source = source("CLIENT_SECRET");
                    let lines =
                        format!("# {hint} the ClientSecret\nkind = \"client_secret\"\n{ids}secret = {source}\n");
                    (lines, Some(secret))
                }
                Proof::Certificate(path) => {
                    let hint = "# PEM with certificate and key; from a .pfx: openssl pkcs12 -in FILE.pfx -nodes -out FILE.pem\n";
                    let hint = if is_pem(&path) { "" } else { hint };
                    let path = quoted(&path);
                    (format!("kind = \"client_certificate\"\n{ids}{hint}certificate = {path}\n"), None)
                }
            }
        }
    }
}

fn is_pem(path: &str) -> bool {
    PathBuf::from(path).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("pem"))
}

#[cfg(test)]
#[path = "conversion_tests.rs"]
mod tests;
