//! Connection strings of every form convert to a valid configuration without a secret.

use super::*;
use crate::config::{Sources, load};
use crate::endpoint::EndpointRole::{Primary, Secondary};

const GUID: &str = "11111111-2222-3333-4444-555555555555";
const TENANT: &str = "99999999-2222-3333-4444-555555555555";

fn converted(text: &str) -> String {
    from_connection_strings(text, Path::new("strings"), None).unwrap_or_else(|err| panic!("{err}")).toml
}

/// Returns the converted tables, without the comment at the top.
fn tables(text: &str) -> String {
    let toml = converted(text);
    toml.strip_prefix(HEAD).unwrap().trim().to_owned()
}

fn report_of(text: &str) -> String {
    from_connection_strings(text, Path::new("strings"), None).unwrap_err().to_string()
}

/// Converts connection strings and loads the result, with every secret in its file.
fn load_converted(text: &str) -> crate::config::Loaded {
    let dir = tempfile::tempdir().unwrap();
    let conversion = from_connection_strings(text, Path::new("strings"), Some(dir.path())).unwrap();
    for (name, secret) in &conversion.secrets {
        std::fs::write(dir.path().join(name), secret.expose()).unwrap();
    }
    std::fs::write(dir.path().join("app.pem"), "x").unwrap();
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, &conversion.toml).unwrap();
    let loaded = load(&Sources { file: Some(file), ..Sources::default() });
    loaded.unwrap_or_else(|err| panic!("{err}\n{}", conversion.toml))
}

#[test]
fn names_the_credential_of_an_access_key_after_the_resource() {
    let text = "Endpoint=https://Contoso.service.signalr.net/;AccessKey=hunter2+/==;Version=1.0;";
    assert_eq!(
        tables(text),
        "[credentials.contoso]\n# set the variable to the AccessKey\nkind = \"access_key\"\n\
         key = { env = \"SIGNALR_CONTOSO_ACCESS_KEY\" }\n\n\
         [endpoints.contoso]\nurl = \"https://contoso.service.signalr.net\"\ncredential = \"contoso\""
    );
    let conversion = from_connection_strings(text, Path::new("strings"), None).unwrap();
    assert_eq!(conversion.secrets[0].1.expose(), "hunter2+/==");
    load_converted(text);
}

#[test]
fn every_auth_type_becomes_a_credential() {
    let endpoint = "Endpoint=https://east.service.signalr.net";
    for (rest, expected) in [
        ("AuthType=azure", "kind = \"managed_identity\"\n\n".to_owned()),
        ("authtype=Azure.MSI", "kind = \"managed_identity\"\n\n".to_owned()),
        ("AuthType=azure.msi;clientId=GUID", format!("kind = \"managed_identity\"\nclient_id = \"{GUID}\"\n\n")),
        ("AuthType=aad", "kind = \"managed_identity\"\n\n".to_owned()),
        ("AuthType=aad;ClientId=GUID", format!("kind = \"managed_identity\"\nclient_id = \"{GUID}\"\n\n")),
        (
            "AuthType=azure.app;ClientId=GUID;TenantId=TENANT;ClientSecret=hunter2",
            format!(
                "kind = \"client_secret\"\ntenant = \"{TENANT}\"\nclient_id = \"{GUID}\"\nsecret = {{ env = \"SIGNALR_EAST_CLIENT_SECRET\" }}\n"
            ),
        ),
        (
            "AuthType=aad;ClientId=GUID;TenantId=contoso.onmicrosoft.com;ClientSecret=hunter2",
            format!("kind = \"client_secret\"\ntenant = \"contoso.onmicrosoft.com\"\nclient_id = \"{GUID}\"\n"),
        ),
        (
            "AuthType=azure.app;ClientId=GUID;TenantId=TENANT;clientCert=app.pem",
            format!(
                "kind = \"client_certificate\"\ntenant = \"{TENANT}\"\nclient_id = \"{GUID}\"\ncertificate = \"app.pem\"\n"
            ),
        ),
        (
            "AuthType=azure.app;ClientId=GUID;TenantId=TENANT;ClientCertPath=C:\\certs\\\"app\".pfx",
            "openssl pkcs12 -in FILE.pfx -nodes -out FILE.pem\ncertificate = \"C:\\\\certs\\\\\\\"app\\\".pfx\"\n"
                .to_owned(),
        ),
        ("AuthType=unknown;AccessKey=hunter2", "kind = \"access_key\"\n".to_owned()),
    ] {
        let text = format!("{endpoint};{rest};Version=1.0;").replace("GUID", GUID).replace("TENANT", TENANT);
        let toml = tables(&text);
        assert!(toml.contains(&expected), "{rest}: no\n{expected}\nin\n{toml}");
        assert!(!converted(&text).contains("hunter2"), "{toml}");
        if !rest.contains("pfx") {
            load_converted(&text);
        }
    }
}

#[test]
fn endpoints_of_every_form_become_urls() {
    for (text, url) in [
        ("Endpoint=https://a.example;Port=8443;AccessKey=k", "https://a.example:8443"),
        ("Endpoint=https://a.example:444/;AccessKey=k", "https://a.example:444"),
        ("Endpoint=http://localhost;Port=8888;AccessKey=k;Version=1.0;", "http://localhost:8888"),
        ("Endpoint=http://[::1]:8888;AccessKey=k", "http://[::1]:8888"),
        ("Endpoint=https://a.example;Port=1;ServerEndpoint=https://b.example:2/;AccessKey=k", "https://b.example:2"),
        ("Endpoint=https://a.example;ClientEndpoint=https://c.example;AccessKey=k", "https://a.example"),
        (" endpoint = https://a.example ; Unknown = ignored ; accesskey = k ;;", "https://a.example"),
    ] {
        let settings = load_converted(text).settings;
        assert_eq!(settings.endpoints[0].origin.to_string(), url, "{text}");
    }
}

#[test]
fn several_connection_strings_become_named_endpoints_with_roles_and_a_route_to_all() {
    let app = format!("AuthType=azure.app;ClientId={GUID};TenantId={TENANT};ClientSecret=hunter2");
    let text = format!(
        "# of the app\n\
         Azure:SignalR:ConnectionString:east:primary=Endpoint=https://e.service.signalr.net;{app}\n\
         export Azure__SignalR__ConnectionString__west-eu__secondary=\"Endpoint=https://w.service.signalr.net;{app}\"\n\
         AzureSignalRConnectionString='Endpoint=https://west-eu.service.signalr.net;AuthType=azure'\n\n\
         Endpoint=https://north.service.signalr.net;AccessKey=hunter3\n"
    );
    let settings = load_converted(&text).settings;
    let endpoints: Vec<_> = settings
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.name.as_str(), endpoint.credential.name.as_str(), endpoint.role))
        .collect();
    assert_eq!(
        endpoints,
        [
            ("east", "east", Primary),
            ("north", "north", Primary),
            ("west-eu", "east", Secondary),
            ("west-eu-2", "west-eu-2", Primary),
        ]
    );
    assert_eq!(settings.routes.len(), 1);
    assert_eq!(settings.routes[0].pick, crate::route::Pick::All(crate::signalr::Policy::All));
    assert!(!converted(&text).contains("hunter"));
}

#[test]
fn reads_settings_files_in_json() {
    let text = r#"{
      "Logging": { "LogLevel": "Information" },
      "Azure": { "SignalR": { "ConnectionString": {
        "east": { "primary": "Endpoint=https://e.service.signalr.net;AccessKey=k" },
        "west": { "secondary": "Endpoint=https://w.service.signalr.net;AuthType=azure.msi" } } } }
    }"#;
    let names: Vec<_> =
        load_converted(text).settings.endpoints.iter().map(|endpoint| endpoint.name.to_string()).collect();
    assert_eq!(names, ["east", "west"]);
    let functions =
        r#"{ "Values": { "AzureSignalRConnectionString": "Endpoint=https://f.service.signalr.net;AccessKey=k" } }"#;
    assert_eq!(load_converted(functions).settings.endpoints[0].name.as_str(), "f");
}

#[test]
fn reports_every_problem_at_once_and_shows_no_value() {
    let report = report_of(&format!(
        "Endpoint=https://a.example;AccessKey=hunter2;accesskey=hunter3\n\
         one=Endpoint=a.example;Port=0;Version=2.0;hunter2\n\
         two=Endpoint=https://b.example;AuthType=azure.app;ClientId=hunter2\n\
         three=Endpoint=http://b.example;ServerEndpoint=http://c.example/path;AuthType=azure.msi;ClientId={GUID}x\n\
         Port=1;AccessKey=hunter2\n\
         four=Endpoint=http://b.example;AuthType=hunter2\n"
    ));
    assert_eq!(
        report,
        "the configuration has 15 problems
`AccessKey` occurs twice (strings:1)
  hint: keep one of them
one: part 4 has no `=` (strings:2)
  hint: write KEY=VALUE, or remove it
one: `Port` is not 1 to 65535 (strings:2)
  hint: write a port number, or remove it
one: `Endpoint` is not `https://host` or `https://host:port` (strings:2)
  hint: copy the connection string from the resource's page in the Azure portal
one: `Version` is neither 1.0 nor another version that begins with `1.` (strings:2)
  hint: write Version=1.0, or remove it
one: `AccessKey` is missing, and there is no `AuthType` (strings:2)
  hint: add the AccessKey, or AuthType=azure.msi or azure.app for a token
two: `TenantId` is missing, but an app registration requires it (strings:3)
  hint: copy it from the app registration's page in the Azure portal
two: `ClientId` is not a GUID (strings:3)
  hint: copy it from the app registration's page in the Azure portal
two: `ClientSecret` or `clientCert` is missing, but an app registration requires it (strings:3)
  hint: add the app's secret, or the path of its certificate
three: `ServerEndpoint` is not `https://host` or `https://host:port` (strings:4)
  hint: remove the path, which the URL of an endpoint cannot have
three: `ClientId` is not a GUID (strings:4)
  hint: copy it from the app registration's page in the Azure portal
three: the scheme is http and the host is not this host (strings:4)
  hint: write https://: a token must not cross a network in the clear
`Endpoint` is missing (strings:5)
  hint: copy the connection string from the resource's page in the Azure portal
four: `AccessKey` is missing, and the `AuthType` is none of azure, azure.msi and azure.app (strings:6)
  hint: add the AccessKey, or AuthType=azure.msi or azure.app for a token
four: the scheme is http and the host is not this host (strings:6)
  hint: write https://: a token must not cross a network in the clear"
    );
    assert!(!report.contains("hunter"), "{report}");
    for empty in ["", "# nothing\n", "{}"] {
        assert!(report_of(empty).contains("has no connection string"), "{empty}");
    }
    assert!(report_of("{ // comment").contains("is not valid JSON"));
}

#[test]
fn rejects_a_tenant_that_is_invalid_in_a_configuration() {
    for tenant in ["-.b", "-contoso.com", "contoso", "a_b.example"] {
        let report = report_of(&format!(
            "Endpoint=https://a.example;AuthType=azure.app;ClientId={GUID};TenantId={tenant};ClientSecret=hunter2"
        ));
        assert!(report.contains("`TenantId` is neither a GUID nor a domain"), "{tenant}: {report}");
    }
}

#[test]
fn reports_ignored_parts_and_rejects_a_secret_that_contains_a_semicolon() {
    let app = format!("Endpoint=https://a.example;AuthType=azure.app;ClientId={GUID};TenantId={TENANT}");
    for (rest, key) in [
        ("ClientSecret=ab;cd=e~f", "`cd`"),
        ("ClientSecret=ab;Xhunter2hunter2=", "`xhun…`"),
        ("ClientSecret=ab;0a\u{a1}\u{a1}\u{a1} =", "`0a…`"),
    ] {
        let report = report_of(&format!("{app};{rest}"));
        assert!(report.contains(key) && report.contains("follows `ClientSecret`"), "{report}");
        assert!(!report.contains("e~f") && !report.contains("hunter2"), "{report}");
    }
    let report = report_of("Endpoint=https://a.example;AccessKey=ab;hunter2hunter2");
    assert!(report.contains("part 3 has no `=` and follows `AccessKey`") && !report.contains("hunter"), "{report}");
    for (text, warning) in [
        (
            "Endpoint=https://a.example;Foo=x;AccessKey=k",
            "part 2, `foo`, is not a key of a connection string and is ignored",
        ),
        ("Endpoint=https://a.example;F\u{1c}o=x;AccessKey=k", "part 2, `f…`, is not a key"),
        ("Endpoint=https://a.example;AccessKey=\"k\"", "`AccessKey` begins with a quote"),
        ("Endpoint=https://a.example;Port=;AccessKey=k", "`Port` is empty and is ignored"),
        (
            "Endpoint=https://a.example;AuthType=azure.msi;AccessKey=k",
            "`AccessKey` is ignored, since a managed identity is used",
        ),
        (&format!("{app};ClientSecret=s;ClientCert=x.pem"), "`ClientCert` is ignored, since `ClientSecret` is used"),
        ("Endpoint=https://a.example;Port=1;ServerEndpoint=https://b.example;AccessKey=k", "`Port` is ignored"),
    ] {
        let conversion = from_connection_strings(text, Path::new("strings"), None).unwrap();
        assert_eq!(conversion.warnings.len(), 1, "{:?}", conversion.warnings);
        assert!(conversion.warnings[0].contains(warning), "{:?}", conversion.warnings);
        assert!(conversion.toml.contains(warning), "{}", conversion.toml);
    }
    assert!(
        from_connection_strings("Endpoint=https://a.example;AccessKey=k;Version=1.0;", Path::new("x"), None)
            .unwrap()
            .warnings
            .is_empty()
    );
}

#[test]
fn names_endpoints_without_a_name_after_their_host() {
    for (host, name) in [
        ("contoso.service.signalr.net", "contoso"),
        ("localhost", "localhost"),
        ("10.0.0.1", "10-0-0-1"),
        ("[::1]", "1"),
        ("_._", "endpoint"),
    ] {
        assert_eq!(name_of("", host), (name.to_owned(), false), "{host}");
    }
    assert_eq!(name_of("Azure:SignalR:Endpoints:a b:Secondary", "x"), ("a-b".to_owned(), true));
}

#[test]
fn rejects_an_endpoint_that_is_invalid_in_a_configuration() {
    for endpoint in
        ["https://a=b.example", "https://a.example:0", "https://a.example:65536", "https://a.example:", "https://"]
    {
        let err = report_of(&format!("Endpoint={endpoint};AccessKey=k"));
        assert!(err.contains("`Endpoint` is not"), "{endpoint}: {err}");
    }
}

proptest::proptest! {
    #[test]
    fn quoted_text_reads_back_from_toml(text in proptest::prelude::any::<String>(), control in 0..=0x9f_u8) {
        let text = format!("{text}{}", char::from(control));
        let document = format!("key = {}", quoted(&text)).parse::<toml_edit::ImDocument<String>>().unwrap();
        proptest::prop_assert_eq!(document["key"].as_str(), Some(&*text));
    }
}
