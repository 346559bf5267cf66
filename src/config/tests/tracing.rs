//! The export of traces: its settings, and problems.

use super::*;
use crate::otlp::OtlpSettings;

const CONFIG: &str = r#"
[credentials.app]
kind = "access_key"
key = { env = "SECRET" }

[endpoints.east]
url = "https://east.service.signalr.net"
credential = "app"
"#;

fn loaded(toml: &str) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.toml");
    std::fs::write(dir.path().join("ca.pem"), "ca").unwrap();
    std::fs::write(&file, format!("{CONFIG}{toml}")).unwrap();
    let environment = [("SECRET", "a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2V5a2U="), ("TRACES", "key")];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    load(&Sources { file: Some(file), environment, ..Sources::default() })
}

fn tracing(toml: &str) -> Option<OtlpSettings> {
    loaded(toml).unwrap_or_else(|err| panic!("{toml}: {err}")).settings.tracing
}

#[test]
fn traces_are_exported_only_with_a_collector_and_go_to_its_receiver() {
    assert_eq!(tracing(""), None);
    let settings = tracing("[tracing]\nendpoint = \"http://collector:4318\"").unwrap();
    assert_eq!(
        (settings.url.to_string().as_str(), settings.service_name.as_str()),
        ("http://collector:4318/v1/traces", "signalr-gateway")
    );
    assert!((settings.sample - 0.01).abs() < f64::EPSILON);
    for (endpoint, url) in [
        ("https://c.example/", "https://c.example/v1/traces"),
        ("https://c.example/otlp", "https://c.example/otlp"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
    ] {
        assert_eq!(tracing(&format!("[tracing]\nendpoint = \"{endpoint}\"")).unwrap().url.to_string(), url);
    }
    let more = "sample = 1\nheaders = { X-Key = { env = \"TRACES\" } }\nca_file = \"ca.pem\"\nservice_name = \"gw\"";
    let settings = tracing(&format!("[tracing]\nendpoint = \"https://c.example\"\n{more}")).unwrap();
    assert_eq!(settings.headers[0].0, "x-key");
    assert!(settings.ca_file.unwrap().ends_with("ca.pem"));
}

#[test]
fn mistakes_in_the_export_of_traces_are_reported_without_a_password() {
    for (toml, problem) in [
        ("sample = 1.5\nendpoint = \"http://c:4318\"", "tracing.sample: is 1.5, must be 0 to 1"),
        ("sample = -0.1\nendpoint = \"http://c:4318\"", "tracing.sample: is -0.1, must be 0 to 1"),
        ("sample = nan\nendpoint = \"http://c:4318\"", "tracing.sample: is NaN, must be 0 to 1"),
        ("sample = 1", "tracing.sample: is set without `tracing.endpoint`"),
        ("service_name = \" \"\nendpoint = \"http://c:4318\"", "tracing.service_name: is empty"),
        ("endpoint = \"collector:4318\"", "tracing.endpoint: is not an http:// or https:// URL"),
        ("endpoint = \"grpc://c:4317\"", "tracing.endpoint: is not an http:// or https:// URL"),
        ("endpoint = \"http:// c\"", "tracing.endpoint: is not a URL"),
        ("endpoint = \"https://u:hunter2@c\"", "tracing.endpoint: has a user or a password"),
        ("endpoint = \"https://:4318\"", "tracing.endpoint: has no host"),
        ("endpoint = \"https://c/v1?key=hunter2\"", "tracing.endpoint: has a query"),
        ("endpoint = \"http://c\"\nca_file = \"ca.pem\"", "tracing.ca_file: is set for a collector without TLS"),
        ("endpoint = \"http://c\"\nheaders = { \"a b\" = { env = \"TRACES\" } }", "`a b` is not a header name"),
        ("endpoint = \"http://c\"\nheaders = { host = { env = \"TRACES\" } }", "is set by the exporter itself"),
        ("endpoint = \"http://c\"\nheaders = { x-key = { env = \"NOT_SET\" } }", "NOT_SET is not set or empty"),
    ] {
        let err = loaded(&format!("[tracing]\n{toml}")).err().unwrap_or_else(|| panic!("{toml}")).to_string();
        assert!(err.contains(problem), "{toml}: {err}");
        assert!(!err.contains("hunter2"), "{err}");
    }
}

#[test]
fn secrets_in_the_clear_are_warned_of_unless_the_collector_is_on_this_host() {
    let warnings = |endpoint: &str| {
        let loaded =
            loaded(&format!("[tracing]\nendpoint = \"{endpoint}\"\nheaders = {{ x-key = {{ env = \"TRACES\" }} }}"));
        let warnings = loaded.unwrap().warnings;
        warnings.iter().filter(|warning| warning.to_string().contains("tracing.headers")).count()
    };
    assert_eq!((warnings("http://c:4318"), warnings("https://c"), warnings("http://127.0.0.1:4318")), (1, 0, 0));
}
