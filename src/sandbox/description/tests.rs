//! Valid descriptions, and the reported problems of invalid ones.

use std::path::{Path, PathBuf};

use super::*;
use crate::sandbox::settings::HubSettings;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/sandbox.toml")
}

fn read(text: &str) -> Result<Description, FileError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.toml");
    std::fs::write(&path, text).unwrap();
    Description::read(&path).map_err(|err| {
        let folder = format!("{}/", folder.path().display());
        FileError { problems: err.problems.iter().map(|problem| problem.replace(&folder, "")).collect() }
    })
}

fn problems(text: &str) -> Vec<String> {
    read(text).unwrap_err().problems
}

#[test]
fn the_shipped_file_is_valid_and_shows_every_key() {
    let path = shipped();
    let text = std::fs::read_to_string(&path).unwrap();
    let source = Source::new(&path, &text);
    let description = Description::parse(&source).unwrap();
    source.finish().unwrap();
    let absent = source.missing_keys();
    // Keys that exclude another key are shown in comments.
    let is_commented = |key: &String| {
        let key = key.rsplit('.').next().unwrap();
        text.lines().any(|line| line.starts_with(&format!("# {key} = ")) || line.starts_with(&format!("# [{key}.")))
    };
    let missing: Vec<_> = absent.iter().filter(|key| !is_commented(key)).collect();
    assert!(missing.is_empty(), "config/sandbox.toml does not show {missing:?}");
    assert_eq!(description.settings.public_host.as_deref(), Some("localhost"));
    assert_eq!(description.gateway.hosts, ["localhost"]);
    assert_eq!(description.settings.client_timeouts.poll, ClientTimeouts::default().poll);
}

#[test]
fn the_shipped_file_is_valid_with_its_commented_keys() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(shipped()).unwrap();
    let text = text.replacen("# throttled", "throttled", 1).replace("# refresh_in", "refresh_in");
    std::fs::write(folder.path().join("sandbox.toml"), text).unwrap();
    let description = Description::read(&folder.path().join("sandbox.toml")).unwrap();
    let directory = description.settings.directory.unwrap().directory("https://entra.test");
    let tenant = directory.tenant("northwind.onmicrosoft.com").unwrap();
    assert_eq!(tenant.throttled, Some(std::time::Duration::from_secs(7)));
    assert_eq!(directory.tokens.refresh_in, Some(std::time::Duration::from_secs(1800)));
}

/// Returns the shipped file with its group of tenants.
fn shipped_with_group() -> String {
    let text = std::fs::read_to_string(shipped()).unwrap();
    let (before, rest) = text.split_once("# [tenant_groups.fleet]").unwrap();
    let (group, after) = rest.split_once("\n\n").unwrap();
    format!("{before}[tenant_groups.fleet]{}\n\n{after}", group.replace("\n# ", "\n"))
}

#[test]
fn the_shipped_group_of_tenants_is_valid_and_shows_every_key() {
    let text = shipped_with_group();
    let path = shipped();
    let source = Source::new(&path, &text);
    let description = Description::parse(&source).unwrap();
    source.finish().unwrap();
    assert!(source.missing_keys().iter().all(|key| !key.starts_with("tenant_groups")), "{:?}", source.missing_keys());
    let [group] = description.settings.groups.as_slice() else { panic!("{:?}", description.settings.groups) };
    assert_eq!((group.endpoints.len(), group.domain.as_str()), (1000, "service.localhost"));
    let directory = description.settings.directory.unwrap().directory("https://entra.test");
    let tenant = |number: usize| directory.tenant(&format!("fleet{number}.onmicrosoft.com")).unwrap();
    assert_eq!(tenant(1000).id, "a1b2c3d4-0000-4000-8000-000000001000");
    assert_eq!(directory.resource("fleet1000").unwrap().tenant, tenant(1000).id);
    let app = "44444444-dddd-4ddd-8ddd-444444444444";
    let provisioned = |number: usize| tenant(number).service_principal(app).is_some_and(|p| !p.roles.is_empty());
    assert_eq!([6, 7, 8].map(provisioned), [true, false, true]);
    let five = Some(std::time::Duration::from_secs(5));
    assert_eq!([7, 8].map(|number| tenant(number).throttled), [None, five]);
    assert_eq!([8, 9, 24, 25].map(|number| tenant(number).token_delay), [None, five, five, None]);
    let slow = description.settings.faults.iter().filter(|(server, _)| server == "fleet25").count();
    assert_eq!(slow, 1);
}

#[test]
fn reports_the_problems_of_a_group_of_tenants() {
    let text = r#"[tenants.home]
id = "22222222-bbbb-4bbb-8bbb-222222222222"
[applications.saas]
client_id = "44444444-dddd-4ddd-8ddd-444444444444"
tenant = "home"
[endpoints.t2]
tenant = "home"
[tenant_groups.t]
count = 3
application = "sas"
roles = ["Owner"]
not_provisioned = [0, "2-5", "x"]
throttled = [4]
slow_tokens = ["3-1"]
[tenant_groups.u]
application = "saas"
name = "u"
id = "x-{n}"
domain = "same.onmicrosoft.com"
hosts = "*.localhost"
[tenant_groups.v]
count = 0
application = "saas"
name = "v_{n}"
[gateway.credentials.v]
kind = "access_key"
[gateway.credentials.w]
kind = "access_key"
"#;
    insta::assert_snapshot!(problems(text).join("\n"));
}

#[test]
fn only_endpoints_are_required() {
    let text = "[tenants.t]\nid = \"22222222-bbbb-4bbb-8bbb-222222222222\"\n[endpoints.only]\ntenant = \"t\"\n";
    let description = read(text).unwrap();
    assert_eq!(description.settings.endpoints.len(), 1);
    assert_eq!(description.gateway.listen, "127.0.0.1:8080");
    assert_eq!(
        description.gateway.credentials,
        [(String::from("only"), crate::sandbox::gateway_config::credential::GatewayCredential::AccessKey)]
    );
}

#[test]
fn a_hub_is_on_every_endpoint_by_default() {
    let text = "[tenants.t]\nid = \"22222222-bbbb-4bbb-8bbb-222222222222\"\n[endpoints.a]\ntenant = \"t\"\n\
                [endpoints.b]\ntenant = \"t\"\n[hubs.Chat]\nusers = { ann = [\"g\", \"h\"] }\n\
                [hubs.\"news.of[1]\"]\nendpoints = [\"b\"]\n[hubs.\"news.of[1]\".users]\n\"b/c\" = []\n";
    let hub = |name: &str, endpoints: &[&str], user: &str, groups: &[&str]| HubSettings {
        name: name.to_owned(),
        endpoints: endpoints.iter().map(|&name| name.to_owned()).collect(),
        users: vec![(user.to_owned(), groups.iter().map(|&name| name.to_owned()).collect())],
    };
    let expected = [hub("Chat", &["a", "b"], "ann", &["g", "h"]), hub("news.of[1]", &["b"], "b/c", &[])];
    assert_eq!(read(text).unwrap().settings.hubs, expected);
}

#[test]
fn reports_all_problems_with_their_lines() {
    let text = r#"bind = "0.0.0.0"
colour = "red"
[ports]
entra = 70000
entraa = 1
[tenants.a]
id = "22222222-bbbb-4bbb-8bbb-222222222222"
[tenants.b]
id = "22222222-BBBB-4bbb-8bbb-222222222222"
domain = 5
[applications.gateway]
client_id = "nonsense"
tenant = "aa"
secrets = [{ valeu = "x" }]
certificates = ["nowhere.pem"]
federated = [{ identity = "none" }, { issuer = "https://i" }]
[[service_principals]]
application = "gatevay"
tenant = "a"
roles = { east = ["SignalR REST Owner"], north = [] }
[external_issuers.i]
issuer = "i"
[endpoints.east]
tenant = "a"
access_key = "short"
tls = "yes"
[endpoints.entra]
[hubs.1st]
endpoints = ["easst", "east"]
[hubs.chat]
endpoints = "east"
users = { ann = "operators", ben = ["", "a", "\n"], "" = [] }
[hubs.Chat]
endpoints = []
[hubs.chat-room]
user = {}
[[faults]]
server = "easst"
fault = { delay = { delay_ms = "long" } }
[gateway]
listen = "8080"
[gateway.credentials.east]
kind = "secret"
"#;
    insta::assert_snapshot!(problems(text).join("\n"));
}

#[test]
fn rejects_more_groups_of_a_user_than_the_service_allows() {
    let text = |count: usize| {
        let groups: Vec<String> = (0..count).map(|number| format!("\"g{number}\"")).collect();
        format!(
            "[tenants.t]\nid = \"22222222-bbbb-4bbb-8bbb-222222222222\"\n[endpoints.a]\ntenant = \"t\"\n\
             [hubs.chat.users]\nann = [{}]\n",
            groups.join(", ")
        )
    };
    assert!(read(&text(100)).is_ok());
    let problem = "hubs.chat.users.ann: a user can be in at most 100 groups without a ttl, not in 101 (s.toml:6)";
    assert_eq!(problems(&text(101)), [problem]);
}

#[test]
fn reports_a_syntax_error_with_its_line() {
    let problems = problems("[tenants.a]\nid = \n");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("not valid TOML") && problems[0].ends_with("(s.toml:2)"), "{problems:?}");
    assert!(read("").unwrap_err().to_string().starts_with("endpoints: is empty"));
}
