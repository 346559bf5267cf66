//! The problems that `check` reports, and the fix that each suggests.

use super::*;

#[test]
fn reports_every_problem_at_once_with_its_origin_and_a_hint() {
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
  hint: set it to a whole number: the maximum number of caller connections; further ones wait to be accepted
credentials.fabrikam.tenant: `common` is not one tenant, and an app cannot sign in to it (gateway.toml:8)
  hint: name the tenant that the SignalR resource lives in (tenant B), by GUID or domain
credentials.fabrikam.client_id: is not a GUID (gateway.toml:9)
  hint: copy the application (client) id of the app registration, such as 11111111-2222-3333-4444-555555555555
credentials.fabrikam.secret: is text, must be a table (gateway.toml:10)
  hint: a secret does not belong in the configuration: put it into a file and write { file = \"/path\" }, or into a variable and write { env = \"NAME\" }
endpoints.east.url: the scheme is http and `east.service.signalr.net` is not this host (gateway.toml:13)
  hint: write https://: a bearer token must not cross a network in the clear
endpoints.east.conect_timeout: unknown key (gateway.toml:15)
  hint: did you mean `connect_timeout`?
endpoints.west.url: has more than scheme, host and port (gateway.toml:18)
  hint: remove the user, the path and the query
endpoints.west.credential: there is no credential `fabricam` (gateway.toml:19)
  hint: did you mean `fabrikam`?
endpoints.west.ca_file: the file missing.pem cannot be read: No such file or directory (os error 2) (gateway.toml:20)
  hint: check that it exists and that the gateway's user may read it
routes.0.endpoints.0: there is no endpoint `eats` (gateway.toml:24)
  hint: did you mean `east`?"
    );
}

/// Makes one mistake in a valid configuration, and checks a part of the report.
#[test]
fn reports_each_mistake_in_a_key() {
    for (change, expected) in [
        (("client_secret", "client_sekret"), "credentials.fabrikam.kind: `client_sekret` is not one of"),
        (("client_secret", "client_sekret"), "did you mean `client_secret`?"),
        (("kind = \"client_secret\"\n", ""), "credentials.fabrikam.kind: is missing"),
        (("contoso.onmicrosoft.com", "organizations"), "`organizations` is not one tenant"),
        (("contoso.onmicrosoft.com", "contoso"), "neither a GUID nor a domain"),
        ((GUID, "my-app"), "credentials.fabrikam.client_id: is not a GUID"),
        (
            ("tenant = \"contoso.onmicrosoft.com\"\n", ""),
            "credentials.fabrikam.tenant: is missing, here and in the endpoints (gateway.toml:2)",
        ),
        (("{ file = \"secret\" }", "{ file = \"gone\" }"), "gone cannot be read"),
        (("{ file = \"secret\" }", "{ env = \"GONE\" }"), "the environment variable GONE is not set or empty"),
        (("{ file = \"secret\" }", "{ }"), "names no source of the secret"),
        (("https://east", "ftp://east"), "the scheme must be https"),
        (("[endpoints.east]", "[endpoints.\"ea st\"]"), "`ea st` is not a name"),
        (("[endpoints.east]", "[[routes]]\nname='r'\nendpoints=[]\n[endpoints.east]"), "the route has no endpoint"),
        (
            (
                "[endpoints.east]",
                "[[routes]]\nname='a'\nendpoints=['east']\n[[routes]]\nname='b'\nendpoints=['east']\n[endpoints.east]",
            ),
            "routes.1.match: `b` can never match: the earlier route `a` matches every call (gateway.toml:",
        ),
        (
            (
                "[endpoints.east]",
                "[[routes]]\nname='a'\nmatch={operation='mesages'}\nendpoints=['east']\n[endpoints.east]",
            ),
            "did you mean `messages`?",
        ),
        (
            ("[endpoints.east]", "[[routes]]\nname='a'\nmatch={hub='chat-room'}\nendpoints=['east']\n[endpoints.east]"),
            "routes.0.match.hub: `chat-room` can never match",
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
            "routes.0.hash_by: no operation that the route matches has it",
        ),
        (("[endpoints.east]", "[listeners.a]\nbind='here'\n[endpoints.east]"), "`here` is not an address"),
        (
            ("[endpoints.east]", "[listeners.a]\nbind='127.0.0.1:1'\nclients=['10.0.0.0/99']\n[endpoints.east]"),
            "not a network",
        ),
        (("[endpoints.east]", "[timeouts]\ntry='1m'\n[endpoints.east]"), "is longer than timeouts.request"),
        (("[endpoints.east]", "[timeouts]\nrequest='soon'\n[endpoints.east]"), "`soon` is not a duration"),
        (("[endpoints.east]", "[timeouts]\nidle='0s'\n[endpoints.east]"), "is zero, must be longer"),
        (("[endpoints.east]", "[limits]\nmax_body='1GB'\n[endpoints.east]"), "is not a size"),
        (("[endpoints.east]", "[limits]\nmax_body=true\n[endpoints.east]"), "is true or false, must be"),
        (
            ("[endpoints.east]", "[logging]\nfilter='loud=very'\n[endpoints.east]"),
            "nothing logs with the target `loud`",
        ),
        (("[endpoints.east]", "[endpoints.east"), "not valid TOML"),
    ] {
        let text = minimal().replace(change.0, change.1);
        let report = report(&text);
        assert!(report.contains(expected), "{change:?}:\n{report}");
    }
}

/// Placeholders replace only missing and invalid values.
#[test]
fn an_invalid_key_hides_no_other_problem() {
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
        "the configuration has 25 problems
credentials.a.client_id: is a number, must be text (gateway.toml:4)
  hint: set it to text: the app registration's client id
credentials.a.scope: `two scopes` is not a scope that an app can request (gateway.toml:5)
  hint: write one resource and `/.default`, such as https://signalr.azure.com/.default
credentials.a.assertion.source: `carrier_pigeon` is not one of `managed_identity`, `file`, `github_actions`, `azure_pipelines`, `gcp_metadata`, `oauth2`, `command` (gateway.toml:6)
  hint: set it to one of these
credentials.b.client_id: is missing (gateway.toml:8)
  hint: add it: the app registration's client id
credentials.b.secret: is missing (gateway.toml:8)
  hint: add it: the source of the secret, read each time it is used
credentials.b.tenant: `consumers` is not one tenant, and an app cannot sign in to it (gateway.toml:10)
  hint: name the tenant that the SignalR resource lives in (tenant B), by GUID or domain
credentials.b.certificate: unknown key (gateway.toml:11)
  hint: it is a key of `client_certificate`
credentials.c.client_id: is a number, must be text (gateway.toml:15)
  hint: set it to text: the client id of a user-assigned identity. Without any id, the system-assigned one
credentials.c.imds_endpoint: the scheme is http and `10.0.0.1` is not this host (gateway.toml:16)
  hint: write https://: a bearer token must not cross a network in the clear
endpoints.east.url: is a number, must be text (gateway.toml:19)
  hint: set it to text: `https://host[:port]` of the SignalR resource
endpoints.east.ca_file: . is a folder, must be a file (gateway.toml:21)
  hint: write the path of a regular file
endpoints.west.url: is missing (gateway.toml:23)
  hint: add it: `https://host[:port]` of the SignalR resource
endpoints.west.credential: there is no credential `d` (gateway.toml:24)
  hint: define it as [credentials.d], or name one that exists
endpoints.west.pool.idle_timeout: `400d` is longer than a day (gateway.toml:25)
  hint: write a number and a unit, such as `500ms`, `10s` or `2m`
endpoints.west.pool.max_idle_per_worker: is a negative number, must be a whole number (gateway.toml:25)
  hint: set it to a whole number: the maximum number of idle connections that each worker keeps
routes.0.match: is text, must be a table (gateway.toml:29)
  hint: set it to a table: the conditions of a route
routes.0.endpoints.0: is a number, must be text or a table (gateway.toml:30)
  hint: set it to text or a table: an endpoint of a route
routes.0.endpoints.1: there is no endpoint `eastt` (gateway.toml:30)
  hint: did you mean `east`?
routes.0.endpoints.2: the weight is 0, must be 1 to 1000000 (gateway.toml:30)
  hint: to use no weight, remove it; to take the endpoint out of the route, remove the endpoint
routes.1.name: is missing (gateway.toml:32)
  hint: add it: the route's name, for metrics and logs
routes.1.match.operation: `mesages` is not an operation (gateway.toml:33)
  hint: did you mean `messages`?
routes.1.match.user: is empty, so no call could ever match (gateway.toml:33)
  hint: remove it to match any
routes.1.endpoints.1: `east` is in this route twice (gateway.toml:34)
  hint: remove one of them
routes.2.name: `_two` is not a name (gateway.toml:37)
  hint: names have 1 to 64 letters, digits, `-` and `_`, and do not begin with `_`
routes.2.endpoints: is text, must be a list (gateway.toml:38)
  hint: set it to a list: the endpoints: names, or `{ name = …, weight = … }`; at most 32. Default: any endpoint, which each call must name, by `{endpoint}` in a pattern of the route or in the `endpoint_header`"
    );
}

#[test]
fn suggests_a_configuration_file_if_there_is_none() {
    let err = load(&Sources::default()).unwrap_err();
    assert_eq!(err.to_string(), "endpoints: there is no endpoint\n  hint: give a configuration with --config FILE");
    let missing = Sources { file: Some("/nowhere/gateway.toml".into()), ..Sources::default() };
    assert!(load(&missing).unwrap_err().to_string().contains("/nowhere/gateway.toml cannot be read"));
}

#[test]
fn reports_an_age_of_connections_that_is_too_short() {
    let report = |age: &str| report(&format!("{}\n[timeouts]\nconnection_age = '{age}'\n", minimal()));
    assert!(
        report("500ms").contains("timeouts.connection_age: `500ms` is shorter than a second"),
        "{}",
        report("500ms")
    );
    assert!(report("soon").contains("timeouts.connection_age: `soon` is not a duration"), "{}", report("soon"));
}

/// Makes one mistake in an assertion, and checks a part of the report.
#[test]
fn reports_each_mistake_in_an_assertion() {
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
        (format!("{oauth2}, parameters = {{ scope = 'x' }}"), "scope: is not an additional parameter"),
        (format!("{oauth2}, authentication = 'digest'"), "`digest` is not one of `basic`, `post`"),
        (command.replace("'get-token'", ""), "argv: names no program"),
        (command.replace("get-token", "./gone"), "gone cannot be read"),
        (format!("{command}, timeout = '1m'"), "timeout: is longer than 12s"),
        (format!("{command}, environment = ['KEY=hunter2']"), "environment: has an entry that is not the name"),
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
#[cfg(feature = "redis")]
fn reports_what_is_wrong_with_the_idempotency_store_without_its_password() {
    for (keys, expected) in [
        ("store = \"redis://gateway:hunter2@cache\"", "idempotency.store: contains a user or a password"),
        ("store = \"cache:6379\"", "idempotency.store: is not a redis://, rediss:// or unix:// address"),
        ("store = \"redis://cache/first\"", "idempotency.store: has a database that is not a number"),
        ("username = \"gateway\"", "idempotency.username: is set without `idempotency.store`"),
        ("when_store_is_out = \"local\"", "idempotency.when_store_is_out: is set without `idempotency.store`"),
        ("store = \"redis://cache\"\nusername = \"a\"", "idempotency.username: is set without `idempotency.password`"),
        ("store = \"redis://cache\"\nca_file = \"ca.pem\"", "idempotency.ca_file: is set for a store without TLS"),
        ("store = \"redis://cache\"\nstore_timeout = \"1m\"", "idempotency.store_timeout: `1m` is longer than 10s"),
        ("keep = \"5m\"", "idempotency.keep: unknown key"),
    ] {
        let text = report(&format!("[idempotency]\n{keys}\n"));
        assert!(text.contains(expected) && !text.contains("hunter2"), "{keys}\n{text}");
    }
}

#[test]
fn a_canary_needs_a_hub_and_an_interval_that_its_messages_can_keep() {
    let with = |canary: &str| {
        let endpoint = "[endpoints.east]\nurl = \"https://east.service.signalr.net\"\ncredential = \"east\"\n";
        report(&format!("{endpoint}canary = {canary}\n"))
    };
    let text = with("{ hub = \"1 hub\", interval = \"9s\" }");
    for part in [
        "endpoints.east.canary.hub: `1 hub` is not the name of a hub",
        "endpoints.east.canary.interval: `9s` is too short, the minimum is `10s`",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!with("{}").contains("canary"), "both have a default");
}
