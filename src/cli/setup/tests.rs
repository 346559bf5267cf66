//! What `setup` writes, in each format and without a secret.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::config::{Sources, load_for_other_host};
use crate::setup::{Format, Plan, write};

const FORMATS: [Format; 4] = [Format::Az, Format::Bicep, Format::Terraform, Format::Page];
const TENANT: &str = "22222222-2222-2222-2222-222222222222";

/// One endpoint for each way to be called.
const CONFIG: &str = r#"
[listeners.default]
bind = "127.0.0.1:0"
operations = ["messages", "access_key"]

[credentials.trusted]
kind = "federated"
client_id = "11111111-1111-1111-1111-111111111111"
assertion = { source = "managed_identity", client_id = "33333333-3333-3333-3333-333333333333" }

[credentials.secret]
kind = "client_secret"
tenant = "22222222-2222-2222-2222-222222222222"
client_id = "44444444-4444-4444-4444-444444444444"
secret = { env = "SECRET" }

[credentials.certificate]
kind = "client_certificate"
tenant = "22222222-2222-2222-2222-222222222222"
client_id = "55555555-5555-5555-5555-555555555555"
certificate = "/run/secrets/it's ${here}.pem"

[credentials.job]
kind = "federated"
tenant = "22222222-2222-2222-2222-222222222222"
client_id = "66666666-6666-6666-6666-666666666666"
cloud = "us_government"
assertion = { source = "github_actions" }

[credentials.host]
kind = "managed_identity"

[credentials.key]
kind = "access_key"
key = { file = "/run/secrets/key" }

[endpoints.east]
url = "https://contoso-east.service.signalr.net"
credential = "trusted"
tenant = "fabrikam.onmicrosoft.com"

[endpoints.east-2]
url = "https://contoso-east-2.service.signalr.net"
credential = "trusted"
tenant = "fabrikam.onmicrosoft.com"

[endpoints.west]
url = "https://signalr.northwind.example"
credential = "secret"

[endpoints.north]
url = "https://north.service.signalr.net"
credential = "certificate"

[endpoints.government]
url = "https://government.signalr.azure.us"
credential = "job"

[endpoints.own]
url = "https://own.service.signalr.net"
credential = "host"

[endpoints.local]
url = "http://127.0.0.1:8888"
credential = "key"
"#;

fn written(config: &Path, environment: BTreeMap<String, String>, format: Format) -> String {
    let sources = Sources { file: Some(config.to_owned()), environment, overrides: Vec::new() };
    let loaded = load_for_other_host(&sources).unwrap_or_else(|err| panic!("{err}"));
    let tenant = (format == Format::Bicep).then_some(TENANT);
    write(&Plan::new(&loaded.settings, &[], tenant), format)
}

fn written_of(config: &str, format: Format) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config).unwrap();
    written(file.path(), BTreeMap::new(), format)
}

#[test]
fn each_format_is_written_in_the_same_way_every_time() {
    for format in FORMATS {
        let text = written_of(CONFIG, format);
        assert_eq!(text, written_of(CONFIG, format));
        insta::assert_snapshot!(format!("{format:?}").to_lowercase(), text);
    }
}

/// Asserts that a shell can parse a text. Runs nothing of it.
fn assert_is_shell(text: &str) {
    let mut shell = Command::new("bash").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_shell_can_parse_the_commands() {
    assert_is_shell(&written_of(CONFIG, Format::Az));
    let page = written_of(CONFIG, Format::Page);
    let blocks: Vec<&str> = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 6, "{page}");
    blocks.into_iter().for_each(assert_is_shell);
}

#[test]
fn no_format_shows_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (config, secret) = (folder.path().join("gateway.toml"), folder.path().join("secret"));
    std::fs::write(&secret, "canary-in-file").unwrap();
    // Operators may paste the secret in place of the variable's name.
    let pasted = format!(
        "[credentials.pasted]\nkind = \"client_secret\"\ntenant = \"{TENANT}\"\n\
         client_id = \"44444444-4444-4444-4444-444444444444\"\nsecret = {{ env = \"canary~pasted\" }}\n\
         [endpoints.pasted]\nurl = \"https://pasted.service.signalr.net\"\ncredential = \"pasted\"\n"
    );
    let text = CONFIG.replace("/run/secrets/key", secret.to_str().unwrap()) + &pasted;
    std::fs::write(&config, text).unwrap();
    for format in FORMATS {
        let environment = BTreeMap::from([("SECRET".to_owned(), "canary-in-variable".to_owned())]);
        let text = written(&config, environment, format);
        assert!(text.contains("pasted"), "{format:?}: the endpoint is missing");
        assert!(!text.contains("canary"), "{format:?}: {text}");
    }
}

#[test]
fn every_example_can_be_written() {
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")).unwrap() {
        let path = entry.unwrap().path();
        assert_is_shell(&written(&path, BTreeMap::new(), Format::Az));
        assert!(
            written(&path, BTreeMap::new(), Format::Terraform).contains("required_providers"),
            "{}",
            path.display()
        );
    }
}

/// Returns what the lines that begin with a keyword declare, in lower case. Asserts that nothing is declared twice.
fn declared(text: &str, keywords: &[&str], name: impl Fn(&str) -> String) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| keywords.iter().any(|keyword| line.starts_with(keyword)));
    let names: Vec<String> = lines.map(|line| name(line).to_lowercase()).collect();
    let distinct: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(distinct.len(), names.len(), "declared twice: {names:#?}");
    distinct
}

#[test]
fn names_that_differ_by_case_or_punctuation_only_are_declared_once_each() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/names.toml");
    let terraform = written(&config, BTreeMap::new(), Format::Terraform);
    let blocks = declared(&terraform, &["resource ", "data ", "variable "], str::to_owned);
    assert!(blocks.len() > 30, "{blocks:#?}");
    // Bicep has one namespace for all of them.
    let symbol = |line: &str| line.split(' ').nth(1).unwrap_or_default().to_owned();
    let symbols = declared(&written(&config, BTreeMap::new(), Format::Bicep), &["resource ", "param "], symbol);
    assert!(symbols.len() > 20, "{symbols:#?}");
}
