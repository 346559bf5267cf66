//! The settings of a loaded configuration: defaults, secrets, the hash, and the variables of a platform.

mod callers;
mod egress;
mod included;
mod other_host;
mod problems;
mod routes;
mod routing_tests;
mod shipped_files;
mod sources;
mod tenants;
mod tracing;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::*;
use crate::credential::{AssertionSettings, Cloud, CredentialKind, Proof};

const GUID: &str = "11111111-2222-3333-4444-555555555555";

/// The variables that platforms set.
const PLATFORM: [(&str, &str); 8] = [
    ("AZURE_TENANT_ID", "33333333-2222-3333-4444-555555555555"),
    ("AZURE_CLIENT_ID", "44444444-2222-3333-4444-555555555555"),
    ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/secrets/azure/tokens/azure-identity-token"),
    ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/"),
    ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://run.actions.githubusercontent.com/token?api-version=2.0"),
    ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "x"),
    ("SYSTEM_OIDCREQUESTURI", "https://dev.azure.com/contoso/_apis/oidctoken"),
    ("SYSTEM_ACCESSTOKEN", "x"),
];

/// Creates a folder with the files that the configurations name.
fn folder(config: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.toml"), config).unwrap();
    for name in ["secret", "ca.pem", "certificate.pem", "token"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    dir
}

fn sources(dir: &Path, environment: &[(&str, &str)]) -> Sources {
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { file: Some(dir.join("gateway.toml")), environment, overrides: Vec::new() }
}

fn load_toml(config: &str) -> Result<Loaded, ConfigError> {
    let dir = folder(config);
    load(&sources(dir.path(), &[("SECRET", "x")]))
}

/// Returns the report, without the folder of the file.
fn report(config: &str) -> String {
    let dir = folder(config);
    let err = load(&sources(dir.path(), &[])).unwrap_err();
    err.to_string().replace(&format!("{}/", dir.path().display()), "")
}

fn minimal() -> String {
    format!(
        r#"
[credentials.fabrikam]
kind = "client_secret"
tenant = "contoso.onmicrosoft.com"
client_id = "{GUID}"
secret = {{ file = "secret" }}

[endpoints.east]
url = "https://east.service.signalr.net"
credential = "fabrikam"
"#
    )
}

#[test]
fn a_minimal_configuration_has_the_documented_defaults() {
    let settings = load_toml(&minimal()).unwrap().settings;
    let (listener, admission) = &settings.listeners[0];
    assert_eq!(listener.bind, crate::serve::Bind::Tcp("127.0.0.1:8080".parse().unwrap()));
    assert!(!admission.operations.contains(crate::signalr::Operation::GenerateToken));
    assert_eq!(settings.admin.unwrap().bind, "127.0.0.1:9090".parse().unwrap());
    assert_eq!(settings.routes.len(), 1);
    assert_eq!(settings.proxy.max_body_bytes, 1024 * 1024);
    assert_eq!(settings.endpoints[0].origin.port, 443);
}

/// Pastes a secret into each key that it may be confused with, in the file and in a variable.
#[test]
fn never_prints_a_secret_that_was_pasted_into_the_wrong_key() {
    let secret = "secret = { file = \"secret\" }";
    let url = "url = \"https://east.service.signalr.net\"";
    let client_id = format!("client_id = \"{GUID}\"");
    for (key, pasted) in [
        (secret, "secret = \"hunter2\""),
        (secret, "secret = { value = \"hunter2\" }"),
        (secret, "secret = { file = [\"hunter2\"] }"),
        (secret, "secret = [\"hunter2\"]"),
        (secret, "secret = \"hunter2"),
        (secret, "secret = hunter2"),
        (secret, "secret = { env = \"hunter2\" }"),
        (secret, "secret = { file = \"-----BEGIN PRIVATE KEY-----\\nhunter2\" }"),
        (client_id.as_str(), "client_id = \"hunter2\""),
        (url, "url = \"Endpoint=https://east.service.signalr.net;AccessKey=hunter2;Version=1.0;\""),
        (url, "url = \"https://me:hunter2@east.service.signalr.net\""),
        (url, "url = \"https://east.service.signalr.net/?key=hunter2\""),
    ] {
        let text = minimal().replace(key, pasted);
        assert_ne!(text, minimal());
        let report = report(&text);
        assert!(!report.contains("hunter2"), "{pasted}:\n{report}");
    }
    let dir = folder(&minimal().replace(secret, ""));
    let environment = [("SIGNALR_GATEWAY_CREDENTIALS__FABRIKAM__SECRET", "hunter2")];
    let report = load(&sources(dir.path(), &environment)).unwrap_err().to_string();
    assert!(report.contains("a secret does not belong in the configuration"), "{report}");
    assert!(!report.contains("hunter2"), "{report}");
}

#[test]
fn never_shows_the_value_of_a_required_header() {
    let listener =
        "[listeners.a]\nbind = \"127.0.0.1:0\"\nrequired_header = { name = \"x-key\", value = \"hunter2\" }\n";
    let loaded = load_toml(&format!("{}{listener}", minimal())).unwrap();
    assert!(loaded.settings.listeners[0].1.required_header.is_some());
    assert!(!format!("{loaded:?}").contains("hunter2"), "{loaded:?}");
}

#[test]
fn reports_listeners_with_overlapping_addresses() {
    for (one, other, overlap) in [
        ("127.0.0.1:80", "127.0.0.1:80", true),
        ("127.0.0.1:80", "127.0.0.2:80", false),
        ("127.0.0.1:80", "0.0.0.0:80", true),
        ("[::]:80", "127.0.0.1:80", true),
        ("127.0.0.1:0", "127.0.0.1:0", false),
        ("127.0.0.1:80", "127.0.0.1:81", false),
        ("unix:/run/a", "unix:/run/a", true),
        ("unix:/run/a", "unix:/run/b", false),
    ] {
        let listeners = format!("[listeners.a]\nbind = '{one}'\n[listeners.b]\nbind = '{other}'\n");
        assert_eq!(load_toml(&format!("{}{listeners}", minimal())).is_err(), overlap, "{one} {other}");
    }
    let admin = report(&format!("{}[admin]\nbind = \"localhost:8080\"\n", minimal()));
    assert!(admin.starts_with("admin.bind: overlaps the address of listener `default` (gateway.toml:"), "{admin}");
}

#[test]
fn accepts_https_origins_and_http_to_this_host() {
    for (url, expected) in [
        ("https://east.service.signalr.net", Ok("https://east.service.signalr.net")),
        ("https://east.service.signalr.net/", Ok("https://east.service.signalr.net")),
        ("HTTPS://East.Service.SignalR.net:443", Ok("https://east.service.signalr.net")),
        ("https://east.service.signalr.net:8443", Ok("https://east.service.signalr.net:8443")),
        ("http://localhost:8888", Ok("http://localhost:8888")),
        ("http://[::1]:8888", Ok("http://[::1]:8888")),
        ("https://[::1]", Ok("https://[::1]")),
        ("http://10.0.0.1:8888", Err("`10.0.0.1` is not this host")),
        ("http://127.0.0.1.example", Err("is not this host")),
        ("east.service.signalr.net", Err("is not a URL")),
        ("https://", Err("is not a host")),
        ("https://east:0", Err("the port must be 1 to 65535")),
        ("https://east:65536", Err("the port must be 1 to 65535")),
        ("https://east:", Err("the port must be 1 to 65535")),
        ("https://east/hubs", Err("has more than scheme, host and port")),
        ("https://east?", Err("has more than scheme, host and port")),
        ("wss://east", Err("the scheme must be https")),
    ] {
        let loaded = load_toml(&minimal().replace("https://east.service.signalr.net", url));
        match (loaded, expected) {
            (Ok(loaded), Ok(origin)) => assert_eq!(loaded.settings.endpoints[0].origin.to_string(), origin, "{url}"),
            (Err(err), Err(fact)) => assert!(err.to_string().contains(fact), "{url}: {err}"),
            (loaded, expected) => panic!("{url}: {loaded:?} is not {expected:?}"),
        }
    }
}

#[test]
fn the_default_attempt_timeout_is_at_most_the_request_timeout() {
    let loaded = load_toml(&format!("{}[timeouts]\nrequest = \"3s\"\n", minimal())).unwrap();
    assert_eq!(loaded.settings.proxy.delivery.try_timeout, std::time::Duration::from_secs(3));
    let shown = loaded.effective().into_iter().find(|effective| effective.key == "timeouts.try").unwrap();
    assert_eq!(shown.value, "3s");
}

#[test]
fn a_variable_with_the_prefix_may_hold_a_secret() {
    let dir = folder(&minimal().replace("{ file = \"secret\" }", "{ env = \"SIGNALR_GATEWAY_SECRET\" }"));
    load(&sources(dir.path(), &[("SIGNALR_GATEWAY_SECRET", "x")])).unwrap();
}

#[test]
fn the_hash_depends_only_on_the_settings() {
    let hash = |config: &str| load(&sources(folder(config).path(), &[])).map(|loaded| loaded.settings.hash);
    let dir = folder(&minimal());
    let one = load(&sources(dir.path(), &[])).unwrap().settings.hash;
    std::fs::write(dir.path().join("secret"), "another").unwrap();
    assert_eq!(load(&sources(dir.path(), &[])).unwrap().settings.hash, one);
    std::fs::write(dir.path().join("gateway.toml"), format!("# a comment\n{}", minimal())).unwrap();
    assert_eq!(load(&sources(dir.path(), &[])).unwrap().settings.hash, one);
    assert_ne!(hash(&minimal().replace("east.service", "other.service")).ok(), Some(one));
}

#[test]
fn warns_about_an_unused_credential() {
    let extra = "[credentials.spare]\nkind = \"token_file\"\npath = \"token\"\n";
    let loaded = load_toml(&format!("{}{extra}", minimal())).unwrap();
    assert_eq!(loaded.warnings[0].key, "credentials.spare");
    assert_eq!(loaded.settings.credentials.len(), 1);
}

#[test]
fn workload_identity_uses_the_variables_of_the_pod_as_defaults() {
    let config = "[credentials.pod]\nkind = \"workload_identity\"\n\
                  [endpoints.east]\nurl = \"https://east.service.signalr.net\"\ncredential = \"pod\"\n";
    let app = |config: &str, environment: &[(&str, &str)]| {
        let loaded = load(&sources(folder(config).path(), environment)).unwrap_or_else(|err| panic!("{err}"));
        let CredentialKind::App { app, tenant } = loaded.settings.credentials[0].kind.clone() else {
            panic!("{loaded:?}")
        };
        (tenant, app)
    };
    let (tenant, pod) = app(config, &PLATFORM);
    assert_eq!((&*tenant, pod.client_id.as_str()), (PLATFORM[0].1, PLATFORM[1].1));
    assert_eq!(pod.authority.cloud, Cloud::UsGovernment);
    let path = PathBuf::from(PLATFORM[2].1);
    assert_eq!(pod.proof, Proof::Federated(AssertionSettings::File { path }));

    let written = config.replace("\n[endpoints", "\ntenant = \"contoso.com\"\ncloud = \"public\"\n[endpoints");
    let (tenant, pod) = app(&written, &PLATFORM);
    assert_eq!((&*tenant, &pod.authority.cloud), ("contoso.com", &Cloud::Public));

    let report = report(config);
    for variable in ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"] {
        assert!(report.contains(&format!("is missing, and {variable} is not set")), "{report}");
    }
}
