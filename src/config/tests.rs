//! What operators write wrong, and what they are told; precedence; that the reference configuration is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::*;

const GUID: &str = "11111111-2222-3333-4444-555555555555";

/// A folder with the files that configurations name.
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

fn load_text(config: &str) -> Result<Loaded, ConfigError> {
    let dir = folder(config);
    load(&sources(dir.path(), &[("SECRET", "x")]))
}

/// The report, with the file's path cut off.
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
fn the_least_that_works_gets_the_documented_defaults() {
    let settings = load_text(&minimal()).unwrap().settings;
    let (listener, admission) = &settings.listeners[0];
    assert_eq!(listener.bind, crate::serve::Bind::Tcp("127.0.0.1:8080".parse().unwrap()));
    assert!(!admission.operations.contains(crate::signalr::Operation::GenerateToken));
    assert_eq!(settings.admin, Some("127.0.0.1:9090".parse().unwrap()));
    assert_eq!(settings.routes.len(), 1);
    assert_eq!(settings.proxy.max_body_bytes, 1024 * 1024);
    assert_eq!(settings.endpoints[0].origin.port, 443);
}

#[test]
fn everything_wrong_is_told_at_once_with_its_place_and_a_hint() {
    let text = report(
        r#"
[limits]
max_boddy = "2MiB"
max_connections = "many"

[credentials.fabrikam]
kind = "client_secret"
tenant = "common"
client_id = "me"
secret = "hunter2"

[endpoints.east]
url = "http://east.service.signalr.net"
credential = "fabrikam"
conect_timeout = "1s"

[endpoints.west]
url = "https://west.service.signalr.net/path"
credential = "fabricam"
ca_file = "missing.pem"

[[routes]]
name = "chat"
endpoints = ["eats"]
"#,
    );
    assert_eq!(
        text,
        "the configuration has 9 problems
limits.max_boddy: unknown key (gateway.toml:3)
  hint: did you mean `max_body`?
limits.max_connections: is text, must be a whole number (gateway.toml:4)
  hint: The most connections of callers at once; more wait to be accepted.
credentials.fabrikam.secret: is text, must be a table (gateway.toml:10)
  hint: a secret does not stand in the configuration: put it into a file and write { file = \"/path\" }, or into a variable and write { env = \"NAME\" }
endpoints.east.url: the scheme is http and `east.service.signalr.net` is not this host (gateway.toml:13)
  hint: write https://: a bearer token must not cross a network in the clear
endpoints.east.conect_timeout: unknown key (gateway.toml:15)
  hint: did you mean `connect_timeout`?
endpoints.west.url: `https://west.service.signalr.net/path` has more than an origin (gateway.toml:18)
  hint: write the scheme, the host and at most a port
endpoints.west.credential: there is no `fabricam` among the credentials (gateway.toml:19)
  hint: did you mean `fabrikam`?
endpoints.west.ca_file: the file missing.pem cannot be read: No such file or directory (os error 2) (gateway.toml:20)
routes.0.endpoints.0: there is no `eats` among the endpoints (gateway.toml:24)
  hint: did you mean `east`?"
    );
}

/// One mistake on top of a configuration that works, and a part of what must be said of it.
#[test]
fn single_mistakes() {
    for (change, expected) in [
        (("client_secret", "client_sekret"), "credentials.fabrikam.kind: `client_sekret` is not one of"),
        (("client_secret", "client_sekret"), "did you mean `client_secret`?"),
        (("kind = \"client_secret\"\n", ""), "credentials.fabrikam.kind: is missing"),
        (("contoso.onmicrosoft.com", "organizations"), "`organizations` is not one tenant"),
        (("contoso.onmicrosoft.com", "contoso"), "neither a GUID nor a domain"),
        ((GUID, "my-app"), "`my-app` is not a GUID"),
        (("tenant = \"contoso.onmicrosoft.com\"\n", ""), "credentials.fabrikam.tenant: is missing (gateway.toml:2)"),
        (("{ file = \"secret\" }", "{ file = \"gone\" }"), "gone cannot be read"),
        (("{ file = \"secret\" }", "{ env = \"GONE\" }"), "the environment variable GONE is not set"),
        (("{ file = \"secret\" }", "{ }"), "does not say where the secret is"),
        (("https://east", "ftp://east"), "the scheme must be https"),
        (("[endpoints.east]", "[endpoints.\"ea st\"]"), "`ea st` is not a name"),
        (("[endpoints.east]", "[[routes]]\nname='r'\nendpoints=[]\n[endpoints.east]"), "the route leads nowhere"),
        (
            (
                "[endpoints.east]",
                "[[routes]]\nname='a'\nendpoints=['east']\n[[routes]]\nname='b'\nendpoints=['east']\n[endpoints.east]",
            ),
            "routes.1.match: `b` can never match: `a` before it takes every call (gateway.toml:",
        ),
        (
            (
                "[endpoints.east]",
                "[[routes]]\nname='a'\nmatch={operation='mesages'}\nendpoints=['east']\n[endpoints.east]",
            ),
            "did you mean `messages`?",
        ),
        (("[endpoints.east]", "[listeners.a]\nbind='here'\n[endpoints.east]"), "`here` is not an address"),
        (
            ("[endpoints.east]", "[listeners.a]\nbind='127.0.0.1:1'\nclients=['10.0.0.0/99']\n[endpoints.east]"),
            "not a network",
        ),
        (("[endpoints.east]", "[timeouts]\ntry='1m'\n[endpoints.east]"), "is longer than timeouts.request"),
        (("[endpoints.east]", "[timeouts]\nrequest='soon'\n[endpoints.east]"), "`soon` is not a duration"),
        (("[endpoints.east]", "[timeouts]\nidle='0s'\n[endpoints.east]"), "must be longer than nothing"),
        (("[endpoints.east]", "[limits]\nmax_body='1GB'\n[endpoints.east]"), "is not a size"),
        (("[endpoints.east]", "[limits]\nmax_body=true\n[endpoints.east]"), "is true or false, must be"),
        (("[endpoints.east]", "[logging]\nfilter='loud=very'\n[endpoints.east]"), "is not a filter"),
        (("[endpoints.east]", "[endpoints.east"), "not valid TOML"),
    ] {
        let text = minimal().replace(change.0, change.1);
        let report = report(&text);
        assert!(report.contains(expected), "{change:?}:\n{report}");
    }
}

#[test]
fn a_secret_in_the_file_is_never_printed() {
    for secret in
        ["secret = \"hunter2\"", "secret = { value = \"hunter2\" }", "secret = [\"hunter2\"]", "secret = \"hunter2"]
    {
        let report = report(&minimal().replace("secret = { file = \"secret\" }", secret));
        assert!(!report.contains("hunter2"), "{report}");
    }
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let dir = folder(&format!("{}\n[limits]\nmax_body = \"2MiB\"\n", minimal()));
    let mut sources = sources(dir.path(), &[("SIGNALR_GATEWAY_LIMITS__MAX_BODY", "3MiB")]);
    assert_eq!(load(&sources).unwrap().settings.proxy.max_body_bytes, 3 << 20);
    sources.overrides.push(("limits.max_body".into(), "4096".into()));
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.settings.proxy.max_body_bytes, 4096);
    let effective = loaded.effective.iter().find(|effective| effective.key == "limits.max_body").unwrap();
    assert_eq!(effective.origin, Some(Origin::Flag("--set limits.max_body".into())));
}

#[test]
fn variables_take_numbers_lists_and_truth_where_the_key_does() {
    let dir = folder(&minimal());
    let environment = [
        ("SIGNALR_GATEWAY_LIMITS__MAX_CONNECTIONS", "7"),
        ("SIGNALR_GATEWAY_FORWARDING__CLIENT_ADDRESS", "true"),
        ("SIGNALR_GATEWAY_LISTENERS__DEFAULT__BIND", "127.0.0.1:0"),
        ("SIGNALR_GATEWAY_LISTENERS__DEFAULT__ALLOWED_HOSTS", "[gw.internal]"),
        ("SIGNALR_GATEWAY_CONFIG", "/etc/gateway.toml"),
    ];
    let settings = load(&sources(dir.path(), &environment)).unwrap().settings;
    assert_eq!(settings.serve.max_connections, 7);
    assert!(settings.proxy.forward_client_address);
    assert_eq!(settings.listeners[0].1.allowed_hosts, ["gw.internal"]);
}

#[test]
fn a_stray_variable_is_named_with_the_key_it_may_have_meant() {
    let dir = folder(&minimal());
    let err = load(&sources(dir.path(), &[("SIGNALR_GATEWAY_LIMITS__MAX_BODI", "1")])).unwrap_err();
    assert_eq!(
        err.to_string(),
        "limits.max_bodi: unknown key (environment variable SIGNALR_GATEWAY_LIMITS__MAX_BODI)\n  hint: did you mean `max_body`?"
    );
}

#[test]
fn without_any_configuration_it_says_how_to_begin() {
    let err = load(&Sources::default()).unwrap_err();
    assert_eq!(
        err.to_string(),
        "endpoints: there is no endpoint\n  hint: define at least one as [endpoints.NAME], with the url of a SignalR resource"
    );
    let missing = Sources { file: Some("/nowhere/gateway.toml".into()), ..Sources::default() };
    assert!(load(&missing).unwrap_err().to_string().contains("/nowhere/gateway.toml cannot be read"));
}

#[test]
fn the_hash_follows_the_settings_and_nothing_else() {
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
fn an_unused_credential_is_a_warning() {
    let extra = "[credentials.spare]\nkind = \"token_file\"\npath = \"token\"\n";
    let loaded = load_text(&format!("{}{extra}", minimal())).unwrap();
    assert_eq!(loaded.warnings[0].key, "credentials.spare");
    assert_eq!(loaded.settings.credentials.len(), 1);
}

/// Collects the keys of a schema, each kind of a tagged table included.
fn keys_of(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(object) => {
            if let Some(properties) = object.get("properties").and_then(|properties| properties.as_object()) {
                found.extend(properties.keys().cloned());
            }
            object.values().for_each(|value| keys_of(value, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys_of(item, found)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

#[test]
fn the_reference_configuration_holds_and_names_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gateway.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut keys = BTreeSet::new();
    keys_of(&schema(), &mut keys);
    for key in &keys {
        let is_there = text.lines().any(|line| {
            let line = line.trim_start_matches(['#', ' ']);
            line.starts_with(&format!("{key} ="))
                || line.contains(&format!("[{key}"))
                || line.contains(&format!("{{ {key} ="))
                || line.contains(&format!(", {key} ="))
        });
        assert!(is_there, "config/gateway.toml does not show `{key}`");
    }
    let environment = BTreeMap::from([("FABRIKAM_SECRET".to_owned(), "x".to_owned())]);
    let loaded = load(&Sources { file: Some(path), environment, overrides: Vec::new() });
    assert!(loaded.is_ok(), "{}", loaded.unwrap_err());
}

#[test]
fn every_example_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let environment: BTreeMap<_, _> = text
            .split("env = \"")
            .skip(1)
            .filter_map(|rest| Some((rest.split('"').next()?.to_owned(), "x".to_owned())))
            .collect();
        // Files that only an operator has.
        let dir = tempfile::tempdir().unwrap();
        let mut local = text.clone();
        for file in text.split("= \"/").skip(1).filter_map(|rest| rest.split('"').next()) {
            let stand_in = dir.path().join(file.replace('/', "-"));
            std::fs::write(&stand_in, "x").unwrap();
            local = local.replace(&format!("/{file}\""), &format!("{}\"", stand_in.display()));
        }
        let config = dir.path().join("gateway.toml");
        std::fs::write(&config, local).unwrap();
        let loaded = load(&Sources { file: Some(config), environment, overrides: Vec::new() });
        assert!(loaded.is_ok(), "{}: {}", path.display(), loaded.unwrap_err());
        count += 1;
    }
    assert!(count >= 6, "only {count} examples");
}
