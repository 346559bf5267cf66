//! Configurations on a host that lacks the secrets, files and variables of the gateway's host, such as one of a CI system.

use super::*;

fn shipped() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let examples = std::fs::read_dir(root.join("examples")).unwrap().map(|entry| entry.unwrap().path());
    examples
        .chain([root.join("gateway.toml"), root.join("kubernetes/gateway.toml"), root.join("packages/gateway.toml")])
        .collect()
}

#[test]
fn every_shipped_configuration_loads_without_its_secrets_and_warns_about_each() {
    let mut refused = 0;
    for path in shipped() {
        let sources = Sources { file: Some(path.clone()), ..Sources::default() };
        let loaded = load_for_other_host(&sources).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        assert!(!loaded.settings.endpoints.is_empty(), "{}", path.display());
        for key in &loaded.absent {
            assert!(loaded.warnings.iter().any(|warning| warning.key == *key), "{}: {key}", path.display());
        }
        // The gateway's own host needs all of them.
        assert_eq!(load(&sources).is_err(), !loaded.absent.is_empty(), "{}", path.display());
        refused += usize::from(!loaded.absent.is_empty());
    }
    assert!(refused >= 8, "only {refused} need something");
}

#[test]
fn what_the_host_lacks_is_named_and_everything_else_stays_a_problem() {
    let config = r#"
[credentials.pod]
kind = "workload_identity"

[credentials.app]
kind = "client_secret"
tenant = "fabrikam.com"
client_id = "11111111-2222-3333-4444-555555555555"
secret = { env = "NOT_SET" }
ca_file = "missing.pem"

[endpoints.east]
url = "https://east.service.signalr.net"
credential = "pod"

[endpoints.west]
url = "https://west.service.signalr.net"
credential = "app"
"#;
    let dir = folder(config);
    let loaded = load_for_other_host(&sources(dir.path(), &[])).unwrap();
    let keys = ["pod.client_id", "pod.path", "pod.tenant", "app.ca_file", "app.secret"];
    let mut absent = loaded.absent.clone();
    absent.sort();
    let mut expected = keys.map(|key| format!("credentials.{key}"));
    expected.sort();
    assert_eq!(absent, expected);
    assert_eq!(loaded.settings.endpoints.len(), 2);

    let dir = folder(&config.replace("fabrikam.com", "common").replace("{ env = \"NOT_SET\" }", "\"hunter2\""));
    let problems = load_for_other_host(&sources(dir.path(), &[])).unwrap_err().problems;
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["credentials.app.tenant", "credentials.app.secret"], "{problems:?}");
}
