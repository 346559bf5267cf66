//! Requests to identity endpoints over real sockets and through the identity library, with faults.

use std::path::PathBuf;

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::credential::acquire::{Acquire as _, Acquired};
use crate::credential::assertion::SharedAssertions;
use crate::credential::authority::Authorities;
use crate::credential::authority_settings::{AuthoritySettings, Cloud};
use crate::credential::entra::{App, Registration};
use crate::credential::managed_identity::HostIdentity;
use crate::credential::proof_settings::{AssertionSettings, ManagedIdentity, ManagedIdentitySettings, Proof};
use crate::credential::schedule::ErrorClass;
use crate::credential::settings::AppSettings;
use crate::files::SecretSource;
use crate::metrics::{MetricRegistry, TokenMetrics};
use crate::redact::in_one_line;

/// A server that reacts in the same way to every request.
struct Endpoint {
    address: String,
    requests: mpsc::UnboundedReceiver<String>,
    connections: Arc<AtomicUsize>,
}

/// What the server does after it has read a request.
#[derive(Clone)]
enum Reaction {
    Respond(String),
    /// Sends this and keeps the connection open.
    Hang(String),
    /// Sends this and closes the connection.
    Close(String),
}

impl Endpoint {
    async fn http(reaction: Reaction) -> Self {
        Self::start(reaction, None).await
    }

    async fn start(reaction: Reaction, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, requests) = mpsc::unbounded_channel();
        let connections = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                counter.fetch_add(1, Ordering::SeqCst);
                let (reaction, sender, tls) = (reaction.clone(), sender.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, reaction, sender).await,
                        Some(tls) => {
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, reaction, sender).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, requests, connections }
    }

    async fn acquire_by_imds(&self) -> Result<Acquired, CredentialError> {
        self.acquire_within(Duration::from_secs(10)).await
    }

    async fn acquire_within(&self, request_timeout: Duration) -> Result<Acquired, CredentialError> {
        let client = IdentityClient { request_timeout, ..IdentityClient::new(&Trust::None, &Arc::default()).unwrap() };
        let settings = managed_identity(&self.address);
        let identity = HostIdentity { settings, scope: "https://signalr.azure.com/.default".into(), client };
        identity.acquire(&AcquisitionRecord::default()).await
    }
}

async fn serve(
    mut socket: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    reaction: Reaction,
    sender: mpsc::UnboundedSender<String>,
) {
    let mut request = Vec::new();
    while !complete(&request) {
        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    sender.send(String::from_utf8(request).unwrap()).ok();
    let (Reaction::Respond(bytes) | Reaction::Hang(bytes) | Reaction::Close(bytes)) = &reaction;
    socket.write_all(bytes.as_bytes()).await.ok();
    socket.flush().await.ok();
    match reaction {
        Reaction::Hang(_) => drop(socket.read(&mut [0; 1]).await),
        Reaction::Respond(_) | Reaction::Close(_) => drop(socket.shutdown().await),
    }
}

fn complete(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |l| l.parse().unwrap());
    body.len() >= length
}

fn response(status: &str, body: &str) -> Reaction {
    Reaction::Respond(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

fn managed_identity(address: &str) -> ManagedIdentitySettings {
    ManagedIdentitySettings {
        id: ManagedIdentity::ClientId("identity-id".into()),
        imds_endpoint: Some(format!("http://{address}")),
    }
}

fn imds_token() -> Reaction {
    let expires_on = crate::credential::jwt::unix_seconds(std::time::SystemTime::now()) + 3600;
    response(
        "200 OK",
        &format!(
            r#"{{"access_token":"identity-token","expires_on":"{expires_on}","resource":"r","token_type":"Bearer"}}"#
        ),
    )
}

/// A self-signed certificate for 127.0.0.1, and a folder with it and a secret.
struct Authority {
    folder: tempfile::TempDir,
    tls: tokio_rustls::TlsAcceptor,
}

impl Authority {
    fn new() -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), cert.pem()).unwrap();
        std::fs::write(folder.path().join("secret"), "s3cret&=+\n").unwrap();
        std::fs::write(folder.path().join("assertion"), "assertion-token\n").unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], key)
                .unwrap();
        Self { folder, tls: Arc::new(config).into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn app(&self, address: &str, proof: Proof) -> App {
        let ca_file = self.path("ca.pem");
        let client = IdentityClient::new(&Trust::File(ca_file.clone()), &Arc::default()).unwrap();
        let settings = AppSettings {
            authority: AuthoritySettings {
                cloud: Cloud::Custom { authority: format!("https://{address}") },
                ca_file: Some(ca_file),
            },
            egress: Arc::default(),
            client_id: "app-id".into(),
            scope: "https://signalr.azure.com/.default".into(),
            proof,
        };
        let metrics = TokenMetrics::register(&mut MetricRegistry::default()).unwrap();
        let authority = Authorities::new(metrics).get(settings.authority.origin());
        let (settings, tenant) = (Arc::new(settings), "tenant-b".into());
        let registration = Registration::new(settings, client.clone(), client, authority, &SharedAssertions::default());
        App::new(Arc::new(registration), tenant)
    }
}

fn entra_token() -> Reaction {
    response("200 OK", r#"{"token_type":"Bearer","expires_in":3599,"refresh_in":1800,"access_token":"entra-token"}"#)
}

#[tokio::test]
async fn sends_one_request_to_imds() {
    let mut endpoint = Endpoint::http(imds_token()).await;
    let acquired = endpoint.acquire_by_imds().await.unwrap();
    assert!((3590..=3600).contains(&acquired.lifetime.unwrap().duration.as_secs()));
    let request = endpoint.requests.recv().await.unwrap();
    let line = "GET /metadata/identity/oauth2/token?api-version=2019-08-01&resource=https%3A%2F%2Fsignalr.azure.com&client_id=identity-id HTTP/1.1";
    assert!(request.starts_with(line), "{request}");
    assert!(request.contains("metadata: true\r\n"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", endpoint.address)), "{request}");
}

#[tokio::test]
async fn a_fault_causes_one_request_and_a_typed_error() {
    let large = format!("HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n{}", "x".repeat(MAX_BODY_BYTES + 1));
    for (reaction, expected) in [
        (response("500 Internal Server Error", "{}"), "answered 500"),
        (response("503 Service Unavailable", "<html>down</html>"), "answered 503"),
        (response("404 Not Found", ""), "answered 404"),
        (response("302 Found", ""), "answered 302"),
        (response("200 OK", "<html>captive portal</html>"), "not a JSON object"),
        (response("200 OK", "{}"), "no access token"),
        (
            Reaction::Close("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"acc".into()),
            "the connection closed before the response was complete",
        ),
        (Reaction::Close(String::new()), "the connection closed before the response was complete"),
        (Reaction::Close("SSH-2.0-OpenSSH\r\n".into()), "the connection closed before the response was complete"),
        (Reaction::Close(large), "larger than 262144 bytes"),
    ] {
        let endpoint = Endpoint::http(reaction).await;
        let err = endpoint.acquire_by_imds().await.unwrap_err();
        let text = in_one_line(&err);
        assert!(text.starts_with(&format!("the instance metadata service at http://{}", endpoint.address)), "{text}");
        assert!(text.contains(expected), "{expected}: {text}");
        assert_eq!(err.class() == ErrorClass::Transient, !expected.contains("302"), "{text}");
        assert_eq!(endpoint.connections.load(Ordering::SeqCst), 1, "the library retries nothing: {text}");
    }
}

#[tokio::test]
async fn a_request_to_an_endpoint_that_hangs_times_out() {
    for sent in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"] {
        let endpoint = Endpoint::http(Reaction::Hang(sent.into())).await;
        let started = std::time::Instant::now();
        let err = endpoint.acquire_within(Duration::from_millis(200)).await.unwrap_err();
        assert!(in_one_line(&err).ends_with("no response within 200ms"), "{}", in_one_line(&err));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert_eq!(endpoint.connections.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn a_closed_port_is_a_transient_error_with_a_hint() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = IdentityClient::new(&Trust::None, &Arc::default()).unwrap();
    let identity = HostIdentity { settings: managed_identity(&address), scope: "s".into(), client };
    let err = identity.acquire(&AcquisitionRecord::default()).await.unwrap_err();
    let text = in_one_line(&err);
    assert!(text.contains("exists only on Azure hosts") && text.contains("refused"), "{text}");
    assert_eq!(err.class(), ErrorClass::Transient);
}

#[tokio::test]
async fn sends_a_secret_as_a_form_over_tls() {
    let authority = Authority::new();
    let mut endpoint = Endpoint::start(entra_token(), Some(authority.tls.clone())).await;
    let app = authority.app(&endpoint.address, Proof::Secret(SecretSource::File(authority.path("secret"))));
    let lifetime = app.acquire(&AcquisitionRecord::default()).await.unwrap().lifetime.unwrap();
    assert_eq!((lifetime.duration.as_secs(), lifetime.refresh_in), (3599, Some(Duration::from_secs(1800))));
    let request = endpoint.requests.recv().await.unwrap();
    assert!(request.starts_with("POST /tenant-b/oauth2/v2.0/token HTTP/1.1\r\n"), "{request}");
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(
        body,
        "client_id=app-id&client_secret=s3cret%26%3D%2B&grant_type=client_credentials&scope=https%3A%2F%2Fsignalr.azure.com%2F.default"
    );
}

#[tokio::test]
async fn sends_no_secret_to_an_authority_with_an_untrusted_certificate() {
    let (authority, impostor) = (Authority::new(), Authority::new());
    let mut endpoint = Endpoint::start(entra_token(), Some(impostor.tls.clone())).await;
    let app = authority.app(&endpoint.address, Proof::Secret(SecretSource::File(authority.path("secret"))));
    let err = app.acquire(&AcquisitionRecord::default()).await.unwrap_err();
    let text = in_one_line(&err);
    let expected = format!(
        "returned no complete response (its certificate is refused, so nothing was sent): the TLS handshake failed: its certificate \
         names `CN=rcgen self signed cert` as its issuer, but is not signed with the key that this CA has among the CAs in use \
         (`ca_file` {})",
        authority.path("ca.pem").display()
    );
    assert!(text.ends_with(&expected), "{text}");
    assert_eq!(err.reason(), crate::metrics::TokenErrorReason::Network);
    assert!(err.refused_certificate().is_some());
    assert!(endpoint.requests.try_recv().is_err(), "nothing was sent");
}

#[tokio::test]
async fn an_error_response_passes_through_the_identity_library_unchanged() {
    let authority = Authority::new();
    let body = r#"{"error":"invalid_client","error_description":"AADSTS7000222: The keys are \u0027expired\u0027.\r\nTrace ID: t","error_codes":[7000222],"correlation_id":"c-7"}"#;
    let endpoint = Endpoint::start(response("401 Unauthorized", body), Some(authority.tls.clone())).await;
    let app = authority.app(&endpoint.address, Proof::Secret(SecretSource::File(authority.path("secret"))));
    let record = AcquisitionRecord::default();
    let err = app.acquire(&record).await.unwrap_err();
    assert_eq!((err.codes(), err.correlation_id()), (&[7_000_222][..], Some("c-7")));
    assert!(err.to_string().contains("the client secret has expired; create a new secret"), "{err}");
    let steps = record.take_steps();
    assert_eq!(steps[0].subject, format!("client secret from file {}", authority.path("secret").display()));
    assert_eq!(steps[1].subject, "app app-id in tenant tenant-b");
    assert!(matches!(steps[1].outcome, StepOutcome::Failed { class: ErrorClass::Permanent, .. }), "{steps:?}");
}

#[tokio::test]
async fn uses_the_token_of_a_managed_identity_as_assertion() {
    let authority = Authority::new();
    let mut imds = Endpoint::http(imds_token()).await;
    let mut entra = Endpoint::start(entra_token(), Some(authority.tls.clone())).await;
    let identity = managed_identity(&imds.address);
    let audience = "api://AzureADTokenExchange".to_owned();
    let proof = Proof::Federated(AssertionSettings::ManagedIdentity { identity, audience });
    let record = AcquisitionRecord::default();
    authority.app(&entra.address, proof).acquire(&record).await.unwrap();
    let assertion = imds.requests.recv().await.unwrap();
    assert!(assertion.contains("&resource=api%3A%2F%2FAzureADTokenExchange&client_id=identity-id "), "{assertion}");
    let exchange = entra.requests.recv().await.unwrap();
    assert!(exchange.contains("client_assertion=identity-token&"), "{exchange}");
    assert!(exchange.contains("&client_id=app-id&"), "{exchange}");
    let stages: Vec<_> =
        record.take_steps().iter().map(|step| (step.stage, step.endpoint.clone().unwrap().kind)).collect();
    assert_eq!(
        stages,
        [
            (TokenStage::Assertion, IdentityEndpointKind::InstanceMetadata),
            (TokenStage::Exchange, IdentityEndpointKind::Entra)
        ]
    );
}

#[tokio::test]
async fn the_error_of_an_assertion_passes_through_both_layers_of_the_library() {
    let authority = Authority::new();
    let imds = Endpoint::http(response(
        "400 Bad Request",
        r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
    ))
    .await;
    let mut entra = Endpoint::start(entra_token(), Some(authority.tls.clone())).await;
    let identity = managed_identity(&imds.address);
    let proof = Proof::Federated(AssertionSettings::ManagedIdentity { identity, audience: "api://x".into() });
    let err = authority.app(&entra.address, proof).acquire(&AcquisitionRecord::default()).await.unwrap_err();
    assert_eq!(err.response().unwrap().endpoint.kind, IdentityEndpointKind::InstanceMetadata);
    assert!(err.to_string().contains("400 invalid_request: Identity not found"), "{err}");
    assert!(entra.requests.try_recv().is_err(), "no request was sent to Entra");
}

#[tokio::test]
async fn trims_an_assertion_file() {
    let authority = Authority::new();
    let mut entra = Endpoint::start(entra_token(), Some(authority.tls.clone())).await;
    let proof = Proof::Federated(AssertionSettings::File { path: authority.path("assertion") });
    authority.app(&entra.address, proof).acquire(&AcquisitionRecord::default()).await.unwrap();
    let exchange = entra.requests.recv().await.unwrap();
    assert!(exchange.contains("client_assertion=assertion-token&"), "{exchange}");
}

/// A log writer that collects the lines of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn logs_and_debug_output_contain_no_secret_assertion_or_token() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let authority = Authority::new();
    let rejection = response("401 Unauthorized", r#"{"error":"invalid_client","error_codes":[7000215]}"#);
    let mut printed = Vec::new();
    for reaction in [entra_token(), rejection, response("200 OK", "{}")] {
        let imds = Endpoint::http(imds_token()).await;
        let entra = Endpoint::start(reaction, Some(authority.tls.clone())).await;
        let identity = managed_identity(&imds.address);
        for proof in [
            Proof::Secret(SecretSource::File(authority.path("secret"))),
            Proof::Federated(AssertionSettings::File { path: authority.path("assertion") }),
            Proof::Federated(AssertionSettings::ManagedIdentity { identity, audience: "api://x".into() }),
        ] {
            let record = AcquisitionRecord::default();
            let outcome = authority.app(&entra.address, proof).acquire(&record).await;
            printed.push(format!("{outcome:?} {:?}", record.take_steps()));
            printed.extend(outcome.err().map(|err| in_one_line(&err)));
        }
    }
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("oauth2/v2.0/token"), "the log contains the library's lines");
    for canary in ["s3cret", "entra-token", "assertion-token", "identity-token"] {
        assert!(!logged.contains(canary), "{canary} is in the log: {logged}");
        assert!(!printed.concat().contains(canary), "{canary} is printed: {printed:?}");
    }
}
