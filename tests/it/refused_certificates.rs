//! Servers whose certificate is refused: the log, `/status`, the page and `doctor` say what was presented and what to do, and
//! callers learn nothing of it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::SanType;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use signalr_gateway::sandbox::{Files, GatewayConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::pki::{CallerCertificate, EXPIRED, Pki, VALID};
use crate::support::{
    BROADCAST_BODY, Caller, ConnectProxy, Harness, HarnessBuilder, Process, broadcast_request, run, wait_until,
};

/// A name that is markup, controls a terminal and begins a line of its own.
const HOSTILE: &str = "Contoso<img src=x onerror=alert(1)>\u{1b}[2J\nERROR forged";

/// Starts a server that presents a certificate, and nothing more.
async fn serve(certificate: &CallerCertificate) -> SocketAddr {
    let chain = vec![CertificateDer::from_pem_file(&certificate.certificate).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&certificate.key).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move { acceptor.accept(stream).await.map(drop) });
        }
    });
    address
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// Returns the first line of the log with this message about an endpoint or credential.
async fn line(process: &Process, message: &str, key: &str, name: &str) -> Value {
    wait_until(&format!("a line {message:?} about {name}"), async || {
        let log = process.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.into_iter().find(|line| line["message"].as_str().unwrap().contains(message) && line[key] == name)
    })
    .await
}

fn entry(status: &Value, list: &str, name: &str) -> Value {
    let entries = status[list].as_array().unwrap();
    entries.iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("{status}")).clone()
}

/// Returns the value of a detail of a failure.
fn detail(failure: &Value, name: &str) -> Value {
    let details = failure["details"].as_array().unwrap();
    details.iter().find(|detail| detail["name"] == name).unwrap_or_else(|| panic!("{failure}"))["value"].clone()
}

fn contains(value: &Value, words: &str) {
    assert!(value.as_str().is_some_and(|text| text.contains(words)), "{words:?} is not in {value}");
}

/// Asserts that a text has nothing of a hostile certificate that could control a terminal or forge a line.
fn assert_harmless(text: &str) {
    let mut controls = text.chars().filter(|ch| ch.is_control() && *ch != '\n');
    assert_eq!(controls.next(), None, "{text}");
    assert!(!text.lines().any(|line| line.starts_with("ERROR forged")), "{text}");
}

async fn page(process: &Process) -> String {
    let mut browser = Caller::connect(process.admin()).await;
    browser.send(http::Request::get("/").header("accept", "text/html"), "").await.text()
}

#[tokio::test]
async fn certificates_of_endpoints_that_are_refused_are_explained_to_operators_alone() {
    let builder = HarnessBuilder::start().await;
    let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (Pki::new(ours.path(), "Our CA"), Pki::new(theirs.path(), HOSTILE));
    let many = (0..2000).map(|index| dns(&format!("<b>{index}</b>.contoso.example"))).collect();
    let certificates = [
        ("unknown", theirs.issue("unknown", "contoso-proxy", vec![dns("localhost")], VALID)),
        ("hostile", theirs.issue("hostile", HOSTILE, many, VALID)),
        ("expired", ours.issue("expired", "contoso-old", vec![dns("localhost")], EXPIRED)),
        ("misnamed", ours.issue("misnamed", "contoso-other", vec![dns("west.contoso.example")], VALID)),
    ];
    let mut more = "[health]\nfailures = 1\nfailure_ratio = 0.0001\n".to_owned();
    for (name, certificate) in &certificates {
        let port = serve(certificate).await.port();
        let ca = ours.ca();
        writeln!(
            more,
            "[endpoints.{name}]\nurl = \"https://localhost:{port}\"\ncredential = \"east\"\nca_file = \"{}\"",
            ca.display()
        )
        .unwrap();
    }
    more += "[[routes]]\nname = \"broken\"\nendpoints = [\"unknown\", \"hostile\", \"expired\", \"misnamed\"]\npick = \"all\"\n";
    let files = builder.write_files(&GatewayConfig { more, ..GatewayConfig::default() });
    let process = Process::start_gateway(&files.config, &[]).await;
    process.wait_until_credentials_are("ready").await;

    let mut caller = Caller::connect(process.listener()).await;
    let answer = caller.send(broadcast_request(), BROADCAST_BODY).await;
    assert_eq!(answer.status, 503);
    let received = format!("{:?}{}", answer.headers, answer.text()).to_lowercase();
    for secret in ["contoso", "our ca", "ca_file", "localhost"] {
        assert!(!received.contains(secret), "{received}");
    }

    let ca = format!("(`ca_file` {})", ours.ca().display());
    for (name, cause, remedy) in [
        (
            "unknown",
            "its certificate is issued by `CN=Contoso\\<img src=x onerror=alert(1)\\>",
            "set `endpoints.unknown.ca_file` to its CA",
        ),
        ("hostile", "which is not among the CAs in use", "do not trust it"),
        ("expired", "its certificate has expired on 2021-01-01T00:00:00Z; this host's clock says 20", "clock"),
        ("misnamed", "its certificate is for `west.contoso.example`, and not for `localhost`", "another server"),
    ] {
        let line = line(&process, "circuit is open", "endpoint", name).await;
        contains(&line["error.cause"], "the TLS handshake with the endpoint failed: its certificate ");
        contains(&line["error.cause"], cause);
        contains(&line["remedy"], remedy);
        contains(&line["runbook"], "#endpoint-tls");
        assert!(line["error.cause"].as_str().unwrap().len() < 700, "{line}");
        let failure = entry(&process.status().await, "endpoints", name)["last_failure"].clone();
        assert_eq!((&failure["error"], &failure["kind"]), (&line["error.cause"], &"tls".into()));
    }
    let status = process.status().await;
    let failure = entry(&status, "endpoints", "unknown")["last_failure"].clone();
    contains(&failure["error"], &ca);
    contains(&failure["remediation"][0]["note"], "set `endpoints.unknown.ca_file` to the PEM file of its CA");
    contains(&failure["remediation"][1]["command"], "openssl s_client -connect localhost:");
    for (name, words) in [
        ("certificate", "CN=contoso-proxy,O=Example, for localhost"),
        ("issuer", "CN=Contoso\\<img"),
        ("valid", "2090-01-01"),
        ("CAs in use", "ca_file /"),
    ] {
        contains(&detail(&failure, name), words);
    }
    assert_harmless(&process.log());
    let page = page(&process).await;
    assert!(page.contains("Contoso") && !page.contains("<img src=x") && !page.contains("<b>0</b>.contoso"), "{page}");

    for (name, words) in [("unknown", "its certificate is issued by"), ("expired", "has expired on 2021-01-01")] {
        let config = files.config.to_str().unwrap();
        let examined = run(&["doctor", "--config", config, "--endpoint", name]).await;
        let text = examined.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(words), "{examined:?}");
        assert_harmless(&examined.stdout);
    }
}

/// Starts a gateway with other settings and waits until a token request of `east` has failed. Returns the line of the log.
async fn failed_token(files: &Files, settings: &[&str]) -> (Process, Value) {
    let process = Process::start_gateway(&files.config, settings).await;
    let line = line(&process, "no valid token", "credential", "east").await;
    (process, line)
}

#[tokio::test]
async fn certificate_of_entra_that_is_refused_is_explained_to_operators_alone() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let other = tempfile::tempdir().unwrap();
    let pki = Pki::new(other.path(), HOSTILE);
    let hostile = serve(&pki.issue("entra", HOSTILE, vec![dns("localhost")], VALID)).await;
    let settings =
        ["east", "west"].map(|name| format!("credentials.{name}.authority=https://localhost:{}", hostile.port()));
    let (process, line) = failed_token(&files, &[&settings[0], &settings[1]]).await;
    contains(&line["error"], "the TLS handshake failed: its certificate is issued by `CN=Contoso\\<img");
    contains(&line["remedy"], "if you know the issuer, such as a proxy of your organisation that inspects TLS");
    let credential = entry(&process.status().await, "credentials", "east");
    let failure = &credential["last_failure"];
    contains(&failure["error"], "its certificate is issued by `CN=Contoso\\<img");
    contains(&detail(failure, "issuer"), "CN=Contoso\\<img");
    contains(&failure["remediation"][0]["note"], "set `credentials.east.ca_file` to the PEM file of its CA");
    contains(&failure["remediation"][1]["command"], "openssl s_client -connect localhost:");
    let page = page(&process).await;
    assert!(page.contains("Contoso") && !page.contains("<img src=x"), "{page}");
    assert_harmless(&process.log());

    let mut caller = Caller::connect(process.listener()).await;
    let answer = caller.send(broadcast_request(), BROADCAST_BODY).await;
    assert_eq!(answer.status, 503);
    let received = format!("{:?}{}", answer.headers, answer.text()).to_lowercase();
    assert!(!received.contains("contoso") && !received.contains("certificate"), "{received}");
}

#[tokio::test]
async fn certificate_of_a_proxy_that_is_refused_is_explained() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let proxy = ConnectProxy::start_tls();
    let ca = files.config.parent().unwrap().join("ca.pem");
    let settings = [format!("egress.proxy={}", proxy.url()), format!("egress.ca_file={}", ca.display())];
    let (process, line) = failed_token(&files, &[&settings[0], &settings[1]]).await;
    contains(
        &line["error"],
        "the TLS handshake with the proxy failed: its certificate `CN=rcgen self signed cert` is self-signed",
    );
    contains(&line["remedy"], "if you know the issuer");
    let failure = entry(&process.status().await, "credentials", "east")["last_failure"].clone();
    contains(&failure["remediation"][0]["note"], "set `ca_file` of the proxy to the PEM file of its CA");
}

#[tokio::test]
async fn certificate_of_a_trace_collector_that_is_refused_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::new(folder.path(), "Contoso CA");
    let collector = serve(&pki.issue("collector", "collector", vec![dns("localhost")], VALID)).await;
    let harness = Harness::start(|options| {
        let ca = folder.path().join("Contoso CA-server.pem");
        options.append_toml(&format!(
            "[tracing]\nendpoint = \"https://localhost:{}\"\nca_file = \"{}\"\nsample = 1\n",
            collector.port(),
            ca.display()
        ));
    })
    .await;
    harness.broadcast().await.assert_status(202);
    let traces = wait_until("an export fails", async || {
        let traces = harness.admin("/status").await.json()["tracing"].clone();
        (traces["state"] == "failing").then_some(traces)
    })
    .await;
    contains(&traces["problem"], "the TLS handshake failed: its certificate is issued by `CN=Contoso CA`");
    contains(&traces["fix"], "set `ca_file` to its CA");
}
