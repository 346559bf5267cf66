//! TLS files of listeners that change while the gateway serves: new handshakes get the new certificate, open connections
//! continue, and files that cannot be used change nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::listener_reload::{ReloadableGateway, config};
use crate::listeners::{by_http1, secured, try_secured};
use crate::support::{Harness, HarnessBuilder, wait_until, with_timeout};

/// Returns a certificate for `localhost` and its key, in PEM.
fn issue(change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    change(&mut params);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

/// A folder with the pair of the listener `secure`, and with the last certificate that could be used, for callers.
struct Files {
    folder: tempfile::TempDir,
    /// What callers trust.
    trusted: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap(), trusted: tempfile::tempdir().unwrap() };
        files.renew();
        files
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("listener.pem")
    }

    fn key(&self) -> PathBuf {
        self.folder.path().join("listener.key")
    }

    /// Writes another pair, which callers trust from now on.
    fn renew(&self) {
        let (certificate, key) = issue(|_| {});
        std::fs::write(self.certificate(), &certificate).unwrap();
        std::fs::write(self.key(), key).unwrap();
        std::fs::write(self.trusted.path().join("listener.pem"), certificate).unwrap();
    }

    fn listener(&self) -> String {
        let (certificate, key) = (self.certificate(), self.key());
        format!(
            "[listeners.secure]\nbind = \"127.0.0.1:0\"\ntls = {{ certificate = \"{}\", key = \"{}\" }}\n",
            certificate.display(),
            key.display()
        )
    }
}

async fn start(files: &Files) -> Harness {
    let listener = files.listener();
    HarnessBuilder::start()
        .await
        .start_gateway(|options| {
            options.append_toml(&listener);
        })
        .await
}

async fn wait_until_served(harness: &Harness, trusted: &Path) {
    wait_until("the certificate is served", async || try_secured(harness.listener("secure"), trusted).await.ok()).await;
}

async fn refused(harness: &Harness) -> f64 {
    harness.metrics().await.sum("listener_tls_files_refused", &[("listener", "secure")])
}

/// Returns why the files are refused, by `/status`.
async fn problem(harness: &Harness) -> Option<String> {
    let status = harness.admin("/status").await.json();
    let listeners = status["listeners"].as_array().unwrap();
    let secure = listeners.iter().find(|listener| listener["name"] == "secure").unwrap();
    secure["refused_files"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn renewed_certificate_is_served_without_a_restart_and_open_connections_continue() {
    let files = Files::new();
    let harness = start(&files).await;
    let not_after =
        async || harness.metrics().await.sum("listener_not_after_timestamp_seconds", &[("listener", "secure")]);
    let (before, kept) = (not_after().await, secured(harness.listener("secure"), files.trusted.path(), &[]).await);
    let old = tempfile::tempdir().unwrap();
    std::fs::copy(files.certificate(), old.path().join("listener.pem")).unwrap();

    let (certificate, key) = issue(|params| params.not_after = date_time_ymd(2100, 1, 1));
    std::fs::write(files.certificate(), &certificate).unwrap();
    std::fs::write(files.key(), key).unwrap();
    std::fs::write(files.trusted.path().join("listener.pem"), certificate).unwrap();
    wait_until_served(&harness, files.trusted.path()).await;
    assert!(try_secured(harness.listener("secure"), old.path()).await.is_err(), "the old certificate is served");
    assert_eq!(by_http1(kept).await, 202, "the connection was closed");
    assert!((before - not_after().await).abs() > 1.0);
    let status = harness.admin("/status").await.json();
    assert_eq!(status["listeners"][1]["not_after"], 4_102_444_800_u64, "{status}");
    assert!(refused(&harness).await < 0.5);
}

#[tokio::test]
async fn files_that_cannot_be_used_keep_the_old_certificate_and_say_so() {
    let files = Files::new();
    let harness = start(&files).await;
    let write = |pair: (String, String)| {
        std::fs::write(files.certificate(), pair.0).unwrap();
        std::fs::write(files.key(), pair.1).unwrap();
    };
    let ways: [(&dyn Fn(), &str); 6] = [
        (&|| std::fs::write(files.certificate(), issue(|_| {}).0).unwrap(), "does not belong to the first certificate"),
        (&|| std::fs::remove_file(files.key()).unwrap(), "cannot read"),
        (
            &|| {
                let (certificate, key) = issue(|_| {});
                write((certificate[..certificate.len() / 2].to_owned(), key));
            },
            "it is incomplete",
        ),
        (&|| write((String::new(), String::new())), "is not PEM"),
        (&|| write(issue(|params| params.not_after = date_time_ymd(2020, 1, 1))), "expired on 2020-01-01"),
        (&|| write(issue(|params| params.not_before = date_time_ymd(2100, 1, 1))), "is not valid before 2100-01-01"),
    ];
    for (break_files, expected) in ways {
        break_files();
        let shown =
            wait_until(expected, async || problem(&harness).await.filter(|shown| shown.contains(expected))).await;
        assert!(refused(&harness).await > 0.5, "{shown}");
        assert!(!shown.contains("PRIVATE KEY"), "{shown}");
        let stream = secured(harness.listener("secure"), files.trusted.path(), &[]).await;
        assert_eq!(by_http1(stream).await, 202, "{shown}");
    }
    files.renew();
    wait_until_served(&harness, files.trusted.path()).await;
    wait_until("nothing is refused", async || (refused(&harness).await < 0.5).then_some(())).await;
    assert_eq!(problem(&harness).await, None);
}

#[tokio::test]
async fn swapped_links_of_a_kubernetes_volume_are_one_change() {
    let volume = tempfile::tempdir().unwrap();
    let add = |name: &str| {
        let (certificate, key) = issue(|_| {});
        std::fs::create_dir(volume.path().join(name)).unwrap();
        std::fs::write(volume.path().join(name).join("listener.pem"), certificate).unwrap();
        std::fs::write(volume.path().join(name).join("listener.key"), key).unwrap();
        std::os::unix::fs::symlink(name, volume.path().join("..next")).unwrap();
        std::fs::rename(volume.path().join("..next"), volume.path().join("..data")).unwrap();
    };
    add("..2026_01");
    for file in ["listener.pem", "listener.key"] {
        std::os::unix::fs::symlink(format!("..data/{file}"), volume.path().join(file)).unwrap();
    }
    let pair = ["certificate = \"listener.pem\"", "key = \"listener.key\""];
    let pair = pair.map(|line| line.replace("listener.", &format!("{}/listener.", volume.path().display())));
    let toml = format!("[listeners.secure]\nbind = \"127.0.0.1:0\"\ntls = {{ {} }}\n", pair.join(", "));
    let gateway = ReloadableGateway::start(config(toml)).await;
    let address = gateway.tcp_address("secure").await;
    try_secured(address, volume.path()).await.unwrap();
    add("..2026_02");
    std::fs::remove_dir_all(volume.path().join("..2026_01")).unwrap();
    wait_until("the new certificate is served", async || try_secured(address, volume.path()).await.ok()).await;

    // A problem is logged once, and its end.
    std::fs::write(volume.path().join("..data/part"), "no key").unwrap();
    // At once: an empty key would be another problem.
    std::fs::rename(volume.path().join("..data/part"), volume.path().join("..data/listener.key")).unwrap();
    let refused = async || gateway.process.metrics().await.sum("listener_tls_files_refused", &[]);
    wait_until("the key is refused", async || (refused().await > 0.5).then_some(())).await;
    add("..2026_03");
    wait_until("the new certificate is served", async || try_secured(address, volume.path()).await.ok()).await;
    wait_until("nothing is refused", async || (refused().await < 0.5).then_some(())).await;
    gateway.process.terminate().await;
    let (_, log) = gateway.process.wait().await;
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("the TLS files of a listener cannot be used"), 1, "{log}");
    assert_eq!(count("the TLS files of a listener can be used again"), 1, "{log}");
    assert_eq!(count("the changed TLS files of a listener are in force"), 2, "{log}");
}

/// A CA of callers.
struct CallerCa(CertifiedIssuer<'static, KeyPair>);

impl CallerCa {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Opens a connection of a caller with a certificate of this CA.
    async fn connect(&self, harness: &Harness, files: &Files) -> std::io::Result<TlsStream<TcpStream>> {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(["caller.example".to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let mut roots = RootCertStore::empty();
        let pem = std::fs::read(files.trusted.path().join("listener.pem")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_client_auth_cert(vec![certificate.der().clone()], key);
        let tcp = TcpStream::connect(harness.listener("secure")).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config.unwrap()));
        let mut stream = with_timeout("a handshake", connector.connect(name, tcp)).await?;
        // In TLS 1.3 the listener verifies the certificate after the caller's handshake has ended.
        stream.write_all(b"GET /api/health HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        let mut answer = [0; 12];
        with_timeout("an answer", stream.read_exact(&mut answer)).await?;
        assert_eq!(&answer, b"HTTP/1.1 200");
        Ok(stream)
    }
}

#[tokio::test]
async fn replaced_ca_of_callers_applies_to_new_connections_and_closes_those_that_it_did_not_verify() {
    let files = Files::new();
    let (old, new) = (CallerCa::new("old"), CallerCa::new("new"));
    let ca = files.folder.path().join("callers.pem");
    std::fs::write(&ca, old.0.pem()).unwrap();
    let listener = files.listener().replace(" }", &format!(", client_ca = \"{}\" }}", ca.display()));
    let harness = HarnessBuilder::start()
        .await
        .start_gateway(|options| {
            options.append_toml(&listener);
        })
        .await;
    let mut before = old.connect(&harness, &files).await.unwrap();
    assert!(new.connect(&harness, &files).await.is_err());

    // A renewed certificate of the listener closes no connection.
    files.renew();
    wait_until("it is served", async || old.connect(&harness, &files).await.ok()).await;
    std::fs::write(&ca, new.0.pem()).unwrap();
    let _ended = with_timeout("the end of the connection", before.read_to_end(&mut Vec::new())).await;
    let closed = harness.metrics().await.sum("connections_closed_total", &[("reason", "trust")]);
    assert!(closed > 0.5);
    new.connect(&harness, &files).await.unwrap();
    assert!(old.connect(&harness, &files).await.is_err());

    // Both, while callers change over.
    std::fs::write(&ca, old.0.pem() + &new.0.pem()).unwrap();
    wait_until("the old CA is trusted again", async || old.connect(&harness, &files).await.ok()).await;
    new.connect(&harness, &files).await.unwrap();
}

#[tokio::test]
async fn reload_keeps_the_certificate_while_its_files_cannot_be_used() {
    let files = Files::new();
    let gateway = ReloadableGateway::start(config(files.listener())).await;
    let address = gateway.tcp_address("secure").await;
    std::fs::write(files.key(), "no key").unwrap();
    // A tenant can be added meanwhile.
    let more = format!("{}[[routes]]\nname = \"west\"\nendpoints = [\"west\"]\n", files.listener());
    gateway.reload(&config(more)).await;
    assert_eq!(by_http1(secured(address, files.trusted.path(), &[]).await).await, 202);
    assert_eq!(gateway.hubs_at("west").len(), 1);
    // Other files that cannot be used are a problem of the configuration.
    let other = files.listener().replace("listener.pem", "listener.key");
    gateway.write(&config(other));
    gateway.process.hang_up().await;
    gateway.process.wait_for_reloads("failure", 1.0).await;
}
