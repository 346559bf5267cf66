//! Callers by certificate, seen by OpenSSL and curl: certificates and revocation lists that `openssl` makes, and sessions that it
//! tries to resume.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::support::{BROADCAST_BODY, BROADCAST_PATH, Harness, HarnessBuilder, wait_until, with_timeout};

/// A CA of `openssl ca` in a folder, with the certificate of a listener.
struct Ca {
    folder: TempDir,
}

async fn run(program: &str, arguments: &[&str], folder: &Path, input: &str) -> (Option<i32>, String) {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).kill_on_drop(true);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // The program may have ended.
    let _ended = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = with_timeout(program, child.wait_with_output()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

impl Ca {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configuration = "[ca]\ndefault_ca = gateway\n[gateway]\ndatabase = index.txt\nserial = serial\nnew_certs_dir = .\n\
            certificate = ca.pem\nprivate_key = ca.key\ndefault_md = sha256\ndefault_days = 2\ndefault_crl_days = 2\npolicy = any\n\
            copy_extensions = copy\nunique_subject = no\nutf8 = yes\nstring_mask = utf8only\nx509_extensions = leaf\n\
            crl_extensions = crl\n[leaf]\nauthorityKeyIdentifier = keyid\n[crl]\nauthorityKeyIdentifier = keyid\n[any]\n\
            countryName = optional\norganizationName = optional\ncommonName = optional\nemailAddress = optional\n";
        std::fs::write(folder.path().join("ca.cnf"), configuration).unwrap();
        std::fs::write(folder.path().join("index.txt"), "").unwrap();
        std::fs::write(folder.path().join("serial"), "01\n").unwrap();
        let ca = Self { folder };
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        ca.openssl(
            &[&["req", "-x509", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem"], &new_key[..]].concat(),
        )
        .await;
        ca.issue("server", "/CN=localhost", Some("DNS:localhost,IP:127.0.0.1")).await;
        ca.revocation_list().await;
        ca
    }

    async fn openssl(&self, arguments: &[&str]) -> String {
        let (code, output) = run("/usr/bin/openssl", arguments, self.folder.path(), "").await;
        assert_eq!(code, Some(0), "openssl {arguments:?}: {output}");
        output
    }

    /// Issues `NAME.pem` with `NAME.key`.
    async fn issue(&self, name: &str, subject: &str, alternative_names: Option<&str>) {
        let (key, request, certificate) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        let names = format!("subjectAltName={}", alternative_names.unwrap_or_default());
        let mut arguments =
            vec!["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-utf8"];
        arguments.extend(["-subj", subject, "-keyout", &key, "-out", &request]);
        if alternative_names.is_some() {
            arguments.extend(["-addext", &names]);
        }
        self.openssl(&arguments).await;
        self.openssl(&["ca", "-batch", "-notext", "-config", "ca.cnf", "-in", &request, "-out", &certificate]).await;
    }

    async fn revoke(&self, name: &str) {
        self.openssl(&["ca", "-config", "ca.cnf", "-revoke", &format!("{name}.pem")]).await;
        self.revocation_list().await;
    }

    async fn revocation_list(&self) {
        self.openssl(&["ca", "-config", "ca.cnf", "-gencrl", "-out", "crl.pem"]).await;
    }

    /// Starts a gateway whose listener `mesh` verifies callers, with routes.
    async fn gateway(&self, routes: &str) -> Harness {
        let path = self.folder.path().display();
        let toml = format!(
            "[listeners.mesh]\nbind = \"127.0.0.1:0\"\ntls = {{ certificate = \"{path}/server.pem\", key = \"{path}/server.key\", \
             client_ca = \"{path}/ca.pem\", client_auth = \"optional\", client_crl = \"{path}/crl.pem\" }}\n{routes}"
        );
        HarnessBuilder::start().await.start_gateway(|options| _ = options.append_toml(&toml)).await
    }

    /// Sends a broadcast with curl. Returns its exit code, the status and the protocol version.
    async fn curl(&self, address: SocketAddr, certificate: Option<&str>, version: &str) -> (Option<i32>, String) {
        let url = format!("https://localhost:{}{BROADCAST_PATH}", address.port());
        let mut arguments = vec!["--silent", "--noproxy", "*", "--max-time", "15", "--cacert", "ca.pem", version];
        arguments.extend(["--output", "/dev/null", "--write-out", "%{http_code} %{http_version}"]);
        arguments.extend(["--header", "content-type: application/json", "--data", BROADCAST_BODY]);
        let files = certificate.map(|name| (format!("{name}.pem"), format!("{name}.key")));
        if let Some((certificate, key)) = &files {
            arguments.extend(["--cert", certificate.as_str(), "--key", key.as_str()]);
        }
        arguments.push(&url);
        run("/usr/bin/curl", &arguments, self.folder.path(), "").await
    }
}

fn arrived(harness: &Harness) -> (usize, usize) {
    let counts = (harness.arrivals("east").len(), harness.arrivals("west").len());
    harness.clear_arrivals();
    counts
}

#[tokio::test]
async fn curl_is_routed_by_its_certificate_over_both_protocols() {
    let ca = Ca::new().await;
    ca.issue("orders", "/CN=orders", Some("DNS:orders.internal,URI:spiffe://prod/orders")).await;
    ca.issue("billing", "/CN=billing", Some("DNS:Billing.internal")).await;
    let routes = "[[routes]]\nname = \"known\"\nmatch = { caller = [\"spiffe://prod/*\", \"billing.internal\"] }\n\
                  endpoints = [\"west\"]\n[[routes]]\nname = \"rest\"\nendpoints = [\"east\"]\n";
    let harness = ca.gateway(routes).await;
    let mesh = harness.listener("mesh");
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for (certificate, expected) in [(Some("orders"), (0, 1)), (Some("billing"), (0, 1)), (None, (1, 0))] {
            let outcome = ca.curl(mesh, certificate, option).await;
            assert_eq!(outcome, (Some(0), format!("202 {version}")), "{certificate:?}");
            assert_eq!(arrived(&harness), expected, "{certificate:?}");
        }
    }
}

#[tokio::test]
async fn subject_is_the_text_that_openssl_prints() {
    let ca = Ca::new().await;
    for (name, subject) in [
        ("plain", "/C=DE/O=Example/CN=orders"),
        ("special", "/O=Müller, Söhne + \"Co\" <x>;#1/CN= #a\\\\b "),
        ("mail", "/CN=orders/emailAddress=orders@example.com"),
    ] {
        ca.issue(name, subject, None).await;
        let file = format!("{name}.pem");
        let printed =
            ca.openssl(&["x509", "-in", &file, "-noout", "-subject", "-nameopt", "RFC2253,-esc_msb,utf8"]).await;
        let identity = printed.trim_end_matches('\n').strip_prefix("subject=").unwrap();
        let routes = format!(
            "[[routes]]\nname = \"known\"\nmatch = {{ caller = '''{identity}''' }}\nendpoints = [\"west\"]\n\
             [[routes]]\nname = \"rest\"\nendpoints = [\"east\"]\n"
        );
        let harness = ca.gateway(&routes).await;
        assert_eq!(ca.curl(harness.listener("mesh"), Some(name), "--http1.1").await.0, Some(0));
        assert_eq!(arrived(&harness), (0, 1), "{identity}");
    }
}

#[tokio::test]
async fn certificate_that_openssl_has_revoked_is_refused() {
    let ca = Ca::new().await;
    ca.issue("good", "/CN=good", None).await;
    ca.issue("revoked", "/CN=revoked", None).await;
    ca.revoke("revoked").await;
    let harness = ca.gateway("").await;
    assert_eq!(ca.curl(harness.listener("mesh"), Some("good"), "--http1.1").await, (Some(0), "202 1.1".to_owned()));
    assert_ne!(ca.curl(harness.listener("mesh"), Some("revoked"), "--http1.1").await.0, Some(0));
    let labels = [("listener", "mesh"), ("reason", "revoked")];
    wait_until("the refusal is counted", async || {
        (harness.metrics().await.sum("tls_refused_total", &labels) > 0.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn openssl_resumes_no_session() {
    let ca = Ca::new().await;
    ca.issue("orders", "/CN=orders", Some("URI:spiffe://prod/orders")).await;
    let harness = ca.gateway("").await;
    let address = harness.listener("mesh").to_string();
    let head = "GET /api/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let connect = async |session: &[&str]| {
            let mut arguments = vec!["s_client", "-connect", &address, "-CAfile", "ca.pem", "-cert", "orders.pem"];
            arguments.extend(["-key", "orders.key", "-ign_eof", version]);
            arguments.extend(session);
            run("/usr/bin/openssl", &arguments, ca.folder.path(), head).await.1
        };
        let first = connect(&["-sess_out", "session.pem"]).await;
        assert!(first.contains("HTTP/1.1 200") && first.contains("New, TLSv1."), "{first}");
        // With TLS 1.3 there is no ticket, so OpenSSL may have written no session.
        if ca.folder.path().join("session.pem").exists() {
            let second = connect(&["-sess_in", "session.pem"]).await;
            assert!(second.contains("New, TLSv1.") && !second.contains("Reused"), "{second}");
        }
    }
}
