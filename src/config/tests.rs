//! What operators write wrong, and what they are told; precedence; that the reference configuration is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::*;
use crate::credential::{AssertionSettings, Cloud, CredentialKind, Proof};

const GUID: &str = "11111111-2222-3333-4444-555555555555";

/// What platforms put into the environment.
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
    assert_eq!(settings.admin.unwrap().bind, "127.0.0.1:9090".parse().unwrap());
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
        "the configuration has 11 problems
limits.max_boddy: unknown key (gateway.toml:3)
  hint: did you mean `max_body`?
limits.max_connections: is text, must be a whole number (gateway.toml:4)
  hint: The most connections of callers at once; more wait to be accepted.
credentials.fabrikam.tenant: `common` is not one tenant, and an app cannot sign in to it (gateway.toml:8)
  hint: name the tenant that the SignalR resource lives in (tenant B), by GUID or domain
credentials.fabrikam.client_id: is not a GUID (gateway.toml:9)
  hint: copy the application (client) id of the app registration, such as 11111111-2222-3333-4444-555555555555
credentials.fabrikam.secret: is text, must be a table (gateway.toml:10)
  hint: a secret does not stand in the configuration: put it into a file and write { file = \"/path\" }, or into a variable and write { env = \"NAME\" }
endpoints.east.url: the scheme is http and `east.service.signalr.net` is not this host (gateway.toml:13)
  hint: write https://: a bearer token must not cross a network in the clear
endpoints.east.conect_timeout: unknown key (gateway.toml:15)
  hint: did you mean `connect_timeout`?
endpoints.west.url: has more than an origin (gateway.toml:18)
  hint: write the scheme, the host and at most a port: no user, path or query
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
        ((GUID, "my-app"), "credentials.fabrikam.client_id: is not a GUID"),
        (("tenant = \"contoso.onmicrosoft.com\"\n", ""), "credentials.fabrikam.tenant: is missing (gateway.toml:2)"),
        (("{ file = \"secret\" }", "{ file = \"gone\" }"), "gone cannot be read"),
        (("{ file = \"secret\" }", "{ env = \"GONE\" }"), "the environment variable GONE is not set or empty"),
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
        (
            ("[endpoints.east]", "[[routes]]\nname='a'\nmatch={hub='chat-*'}\nendpoints=['east']\n[endpoints.east]"),
            "routes.0.match.hub: `chat-*` can never match",
        ),
        (
            ("[endpoints.east]", "[[routes]]\nname='a'\nhash_by='hub'\nendpoints=['east']\n[endpoints.east]"),
            "routes.0.hash_by: is only for pick = \"hash\" (gateway.toml:",
        ),
        (
            (
                "[endpoints.east]",
                "[[routes]]\nname='a'\npick='hash'\nhash_by='grup'\nendpoints=['east']\n[endpoints.east]",
            ),
            "did you mean `group`?",
        ),
        (
            (
                "[endpoints.east]",
                "[[routes]]\nname='a'\npick='hash'\nhash_by='user'\nmatch={operation='hub_send'}\nendpoints=['east']\n[endpoints.east]",
            ),
            "routes.0.hash_by: none of the operations that the route takes has it",
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

/// Whatever key a secret was pasted into, by whatever source.
#[test]
fn a_secret_in_the_wrong_place_is_never_printed() {
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
    assert!(report.contains("a secret does not stand in the configuration"), "{report}");
    assert!(!report.contains("hunter2"), "{report}");
}

#[test]
fn the_value_of_a_required_header_is_shown_nowhere() {
    let listener =
        "[listeners.a]\nbind = \"127.0.0.1:0\"\nrequired_header = { name = \"x-key\", value = \"hunter2\" }\n";
    let loaded = load_text(&format!("{}{listener}", minimal())).unwrap();
    assert!(loaded.settings.listeners[0].1.required_header.is_some());
    assert!(!format!("{loaded:?}").contains("hunter2"), "{loaded:?}");
}

/// One wrong key must not hide the next: what is missing or of a wrong type is stood in for, and only that.
#[test]
fn a_wrong_key_hides_none_of_its_neighbours() {
    let text = report(
        r#"
[credentials.a]
kind = "federated"
client_id = 7
scope = "two scopes"
assertion = { source = "carrier_pigeon" }

[credentials.b]
kind = "client_secret"
tenant = "consumers"
certificate = "certificate.pem"

[credentials.c]
kind = "managed_identity"
client_id = 7
imds_endpoint = "http://10.0.0.1"

[endpoints.east]
url = 5
credential = "c"
ca_file = "."

[endpoints.west]
credential = "d"
pool = { max_idle_per_worker = -1, idle_timeout = "400d" }

[[routes]]
name = "one"
match = "chat"
endpoints = [7, "eastt", { name = "west", weight = 0 }]

[[routes]]
match = { operation = ["mesages"], user = "" }
endpoints = ["east", "east"]

[[routes]]
name = "_two"
endpoints = "east"
"#,
    );
    assert_eq!(
        text,
        "the configuration has 26 problems
credentials.a.tenant: is missing (gateway.toml:2)
  hint: The tenant that is asked for a token: the one the SignalR resource lives in. A GUID or a domain.
credentials.a.client_id: is a number, must be text (gateway.toml:4)
  hint: The app registration's client id.
credentials.a.scope: `two scopes` is not a scope that an app can ask for (gateway.toml:5)
  hint: write one resource and `/.default`, such as https://signalr.azure.com/.default
credentials.a.assertion.source: `carrier_pigeon` is not one of `managed_identity`, `file`, `github_actions`, `azure_pipelines`, `gcp_metadata`, `oauth2`, `command` (gateway.toml:6)
credentials.b.client_id: is missing (gateway.toml:8)
  hint: The app registration's client id.
credentials.b.secret: is missing (gateway.toml:8)
  hint: Where the secret is read from, each time it is used.
credentials.b.tenant: `consumers` is not one tenant, and an app cannot sign in to it (gateway.toml:10)
  hint: name the tenant that the SignalR resource lives in (tenant B), by GUID or domain
credentials.b.certificate: unknown key (gateway.toml:11)
  hint: it is a key of `client_certificate`
credentials.c.client_id: is a number, must be text (gateway.toml:15)
  hint: The client id of a user-assigned identity. Without any id, the system-assigned one.
credentials.c.imds_endpoint: the scheme is http and `10.0.0.1` is not this host (gateway.toml:16)
  hint: write https://: a bearer token must not cross a network in the clear
endpoints.east.url: is a number, must be text (gateway.toml:19)
  hint: `https://host[:port]` of the SignalR resource.
endpoints.east.ca_file: . is a folder, must be a file (gateway.toml:21)
endpoints.west.url: is missing (gateway.toml:23)
  hint: `https://host[:port]` of the SignalR resource.
endpoints.west.credential: there is no `d` among the credentials (gateway.toml:24)
  hint: define it as [credentials.d], or name one that exists
endpoints.west.pool.idle_timeout: `400d` is longer than a day (gateway.toml:25)
  hint: write a number and a unit, such as `500ms`, `10s` or `2m`
endpoints.west.pool.max_idle_per_worker: is a negative number, must be a whole number (gateway.toml:25)
  hint: The most idle connections that each worker keeps.
routes.0.match: is text, must be a table (gateway.toml:29)
  hint: The conditions of a route.
routes.0.endpoints.0: is a number, must be text or a table (gateway.toml:30)
  hint: An endpoint of a route.
routes.0.endpoints.1: there is no `eastt` among the endpoints (gateway.toml:30)
  hint: did you mean `east`?
routes.0.endpoints.2: the weight is 0, must be 1 to 1000000 (gateway.toml:30)
  hint: to take an endpoint out, remove it
routes.1.name: is missing (gateway.toml:32)
  hint: The route's name, for metrics and logs.
routes.1.match.operation: `mesages` is not an operation (gateway.toml:33)
  hint: did you mean `messages`?
routes.1.match.user: is empty, so no call could ever match (gateway.toml:33)
  hint: remove it to match any
routes.1.endpoints.1: `east` stands in this route twice (gateway.toml:34)
routes.2.name: `_two` is not a name (gateway.toml:37)
  hint: names have 1 to 64 letters, digits, `-` and `_`, and do not begin with `_`
routes.2.endpoints: is text, must be a list (gateway.toml:38)
  hint: The endpoints: names, or `{ name = …, weight = … }`."
    );
}

#[test]
fn the_deployed_configuration_holds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/kubernetes/gateway.toml");
    let loaded = load(&Sources { file: Some(path), ..Sources::default() }).unwrap_or_else(|err| panic!("{err}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn alerts_watch_metrics_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = std::fs::read_to_string(root.join("src/metrics.rs")).unwrap();
    for entry in std::fs::read_dir(root.join("src/metrics")).unwrap() {
        sources.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let alerts = std::fs::read_to_string(root.join("config/prometheus/alerts.yaml")).unwrap();
    let names = alerts.split("signalr_gateway_").skip(1).map(|rest| {
        let name = rest.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_').next().unwrap();
        name.trim_end_matches("_bucket").trim_end_matches("_count")
    });
    for name in names {
        assert!(sources.contains(&format!("\"{name}\"")), "no metric is called {name}");
    }
}

#[test]
fn listeners_that_would_meet_are_told() {
    for (one, other, meets) in [
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
        assert_eq!(load_text(&format!("{}{listeners}", minimal())).is_err(), meets, "{one} {other}");
    }
    let admin = report(&format!("{}[admin]\nbind = \"localhost:8080\"\n", minimal()));
    assert!(admin.starts_with("admin.bind: listens where listener `default` does (gateway.toml:"), "{admin}");
}

#[test]
fn origins_of_endpoints() {
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
        ("https://east/hubs", Err("has more than an origin")),
        ("https://east?", Err("has more than an origin")),
        ("wss://east", Err("the scheme must be https")),
    ] {
        let loaded = load_text(&minimal().replace("https://east.service.signalr.net", url));
        match (loaded, expected) {
            (Ok(loaded), Ok(origin)) => assert_eq!(loaded.settings.endpoints[0].origin.to_string(), origin, "{url}"),
            (Err(err), Err(fact)) => assert!(err.to_string().contains(fact), "{url}: {err}"),
            (loaded, expected) => panic!("{url}: {loaded:?} is not {expected:?}"),
        }
    }
}

#[test]
fn an_attempt_is_no_longer_than_its_request_unless_somebody_says_so() {
    let loaded = load_text(&format!("{}[timeouts]\nrequest = \"3s\"\n", minimal())).unwrap();
    assert_eq!(loaded.settings.proxy.delivery.try_timeout, std::time::Duration::from_secs(3));
    let shown = loaded.effective.iter().find(|effective| effective.key == "timeouts.try").unwrap();
    assert_eq!(shown.value, "3s");
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
        "limits.max_bodi: unknown key (environment variable SIGNALR_GATEWAY_LIMITS__MAX_BODI)\n  hint: did you mean `SIGNALR_GATEWAY_LIMITS__MAX_BODY`?"
    );
}

#[test]
fn a_variable_with_too_few_underscores_is_told_the_whole_name() {
    let dir = folder(&minimal());
    for (variable, meant) in [
        ("SIGNALR_GATEWAY_LIMITS_MAX_BODY", "SIGNALR_GATEWAY_LIMITS__MAX_BODY"),
        ("SIGNALR_GATEWAY_ENDPOINTS_EAST_URL", "SIGNALR_GATEWAY_ENDPOINTS__EAST__URL"),
        ("SIGNALR_GATEWAY_CREDENTIALS_FABRIKAM_TENANT", "SIGNALR_GATEWAY_CREDENTIALS__FABRIKAM__TENANT"),
        ("SIGNALR_GATEWAY_LOG", "SIGNALR_GATEWAY_LOGGING__FILTER"),
    ] {
        let err = load(&sources(dir.path(), &[(variable, "1")])).unwrap_err().to_string();
        assert!(err.contains(&format!("unknown key (environment variable {variable})")), "{err}");
        if variable != "SIGNALR_GATEWAY_LOG" {
            assert!(err.ends_with(&format!("did you mean `{meant}`?")), "{err}");
        }
    }
}

#[test]
fn variables_find_names_whatever_their_case_and_hyphens() {
    let dir = folder(&minimal().replace("[endpoints.east]", "[endpoints.West-Europe]"));
    let variable = ("SIGNALR_GATEWAY_ENDPOINTS__WEST_EUROPE__CONNECT_TIMEOUT", "7s");
    let settings = load(&sources(dir.path(), &[variable])).unwrap().settings;
    assert_eq!(settings.endpoints.len(), 1);
    assert_eq!(settings.endpoints[0].connect_timeout, std::time::Duration::from_secs(7));
}

#[test]
fn a_secret_may_stand_in_a_variable_with_our_prefix() {
    let dir = folder(&minimal().replace("{ file = \"secret\" }", "{ env = \"SIGNALR_GATEWAY_SECRET\" }"));
    load(&sources(dir.path(), &[("SIGNALR_GATEWAY_SECRET", "x")])).unwrap();
}

/// Kubernetes describes each service of a namespace to its pods; one called `signalr-gateway` has our prefix.
#[test]
fn what_kubernetes_says_of_services_is_no_setting() {
    let dir = folder(&minimal());
    let links = [
        ("SIGNALR_GATEWAY_SERVICE_HOST", "10.0.0.11"),
        ("SIGNALR_GATEWAY_SERVICE_PORT", "80"),
        ("SIGNALR_GATEWAY_SERVICE_PORT_HTTP", "80"),
        ("SIGNALR_GATEWAY_PORT", "tcp://10.0.0.11:80"),
        ("SIGNALR_GATEWAY_PORT_80_TCP", "tcp://10.0.0.11:80"),
        ("SIGNALR_GATEWAY_PORT_80_TCP_PROTO", "tcp"),
        ("SIGNALR_GATEWAY_PORT_80_TCP_PORT", "80"),
        ("SIGNALR_GATEWAY_PORT_80_TCP_ADDR", "10.0.0.11"),
        ("SIGNALR_GATEWAY_ADMIN_SERVICE_HOST", "10.0.0.12"),
    ];
    load(&sources(dir.path(), &links)).unwrap();
    // Who means to set a port is told that there is no such key.
    let loaded = load(&sources(dir.path(), &[("SIGNALR_GATEWAY_PORT", "8080")])).unwrap();
    assert!(loaded.warnings[0].to_string().contains("SIGNALR_GATEWAY_PORT: is no key"), "{:?}", loaded.warnings);
}

#[test]
fn relative_paths_are_relative_to_the_file_only_in_the_file() {
    let dir = folder(&minimal());
    let variable = ("SIGNALR_GATEWAY_ENDPOINTS__EAST__CA_FILE", "Cargo.toml");
    let loaded = load(&sources(dir.path(), &[variable])).unwrap();
    assert_eq!(loaded.settings.endpoints[0].ca_file.as_deref(), Some(Path::new("Cargo.toml")));
    let report = load(&sources(dir.path(), &[("SIGNALR_GATEWAY_ENDPOINTS__EAST__CA_FILE", "ca.pem")])).unwrap_err();
    assert!(report.to_string().contains("(environment variable SIGNALR_GATEWAY_ENDPOINTS__EAST__CA_FILE)"), "{report}");
}

#[test]
fn without_any_configuration_it_says_how_to_begin() {
    let err = load(&Sources::default()).unwrap_err();
    assert_eq!(err.to_string(), "endpoints: there is no endpoint\n  hint: give a configuration with --config FILE");
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
        let mut environment: BTreeMap<_, _> = text
            .split("env = \"")
            .skip(1)
            .filter_map(|rest| Some((rest.split('"').next()?.to_owned(), "x".to_owned())))
            .collect();
        environment.extend(PLATFORM.map(|(name, value)| (name.to_owned(), value.to_owned())));
        // Files that only an operator has.
        let dir = tempfile::tempdir().unwrap();
        let mut local = text.clone();
        let paths = text.split("= \"/").skip(1).filter_map(|rest| rest.split('"').next());
        for file in paths.filter(|path| !path.starts_with("api/")) {
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
    assert!(count >= 14, "only {count} examples");
}

/// One mistake in an assertion, and a part of what must be said of it.
#[test]
fn single_mistakes_in_assertions() {
    let oauth2 =
        "source = 'oauth2', token_url = 'https://idp.example/token', client_id = 'a', secret = { file = 'secret' }";
    let command = "source = 'command', argv = ['get-token']";
    for (assertion, expected) in [
        ("source = 'github_actions'".to_owned(), "variable ACTIONS_ID_TOKEN_REQUEST_URL is not set or empty"),
        ("source = 'github_actions'".to_owned(), "`permissions: id-token: write`"),
        (
            format!("source = 'azure_pipelines', service_connection = '{GUID}'"),
            "variable SYSTEM_ACCESSTOKEN is not set or empty",
        ),
        ("source = 'azure_pipelines', service_connection = 'prod'".to_owned(), "service_connection: is not a GUID"),
        ("source = 'gcp_metadata', service_account = 'a/b'".to_owned(), "`a/b` is not a service account"),
        (
            "source = 'gcp_metadata', metadata_endpoint = 'http://10.0.0.1'".to_owned(),
            "metadata_endpoint: the scheme is http and `10.0.0.1` is not this host",
        ),
        ("source = 'gcp_metadata', audience = 'x/.default'".to_owned(), "is a scope, not an audience"),
        ("source = 'gcp_metadata', audience = ''".to_owned(), "audience: is empty"),
        (oauth2.replace("https", "http"), "token_url: the scheme is http and `idp.example` is not this host"),
        (oauth2.replace("idp.example", "me:hunter2@idp.example"), "token_url: is not a URL"),
        (oauth2.replace("https://idp.example/token", "token"), "token_url: is not a URL"),
        (oauth2.replace("'a'", "''"), "client_id: is empty"),
        (format!("{oauth2}, parameters = {{ scope = 'x' }}"), "scope: is not one of the extra parameters"),
        (format!("{oauth2}, authentication = 'digest'"), "`digest` is not one of `basic`, `post`"),
        (command.replace("'get-token'", ""), "argv: names no program"),
        (command.replace("get-token", "./gone"), "gone cannot be read"),
        (format!("{command}, timeout = '1m'"), "timeout: is longer than 12s"),
        (format!("{command}, environment = ['KEY=hunter2']"), "environment: has something that is no name"),
    ] {
        let secret = "kind = \"client_secret\"";
        let text = minimal().replace(secret, "kind = \"federated\"").replace("secret = { file = \"secret\" }", "");
        let text = text.replace("[endpoints", &format!("assertion = {{ {assertion} }}\n[endpoints"));
        let report = report(&text);
        assert!(report.contains(expected), "{assertion}:\n{report}");
        assert!(!report.contains("hunter2"), "{assertion}:\n{report}");
    }
}

#[test]
fn workload_identity_takes_from_the_pod_what_is_not_written() {
    let config = "[credentials.pod]\nkind = \"workload_identity\"\n\
                  [endpoints.east]\nurl = \"https://east.service.signalr.net\"\ncredential = \"pod\"\n";
    let app = |config: &str, environment: &[(&str, &str)]| {
        let loaded = load(&sources(folder(config).path(), environment)).unwrap_or_else(|err| panic!("{err}"));
        let CredentialKind::App(app) = loaded.settings.credentials[0].kind.clone() else { panic!("{loaded:?}") };
        app
    };
    let pod = app(config, &PLATFORM);
    assert_eq!((pod.tenant.as_str(), pod.client_id.as_str()), (PLATFORM[0].1, PLATFORM[1].1));
    assert_eq!(pod.authority.cloud, Cloud::UsGovernment);
    let path = PathBuf::from(PLATFORM[2].1);
    assert_eq!(pod.proof, Proof::Federated(AssertionSettings::File { path }));

    let written = config.replace("\n[endpoints", "\ntenant = \"contoso.com\"\ncloud = \"public\"\n[endpoints");
    let pod = app(&written, &PLATFORM);
    assert_eq!((pod.tenant.as_str(), pod.authority.cloud), ("contoso.com", Cloud::Public));

    let report = report(config);
    for variable in ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_FEDERATED_TOKEN_FILE"] {
        assert!(report.contains(&format!("is missing, and {variable} is not set")), "{report}");
    }
}
