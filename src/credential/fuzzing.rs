//! Fuzz targets for the parsers of secrets, tokens and token responses.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use azure_identity::ClientAssertion as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::acquire::Acquire as _;
use super::assertion::{AssertionProvider, AssertionSource};
use super::bearer::Bearer;
use super::error::CredentialError;
use super::identity_endpoint::{IdentityEndpoint, IdentityEndpointKind};
use super::proof_settings::{AssertionAlgorithm, CertificateSettings};
use super::record::{AcquisitionRecord, NotAfter};
use super::response::{IdentityResponse, validate};
use super::secret::read_secret;
use super::state::CurrentToken;
use super::token_file::TokenFile;
use super::transport::IdentityClient;
use super::{jwt, schedule};
use crate::files::SecretSource;
use crate::redact::{SentSecrets, in_one_line};
use crate::tls::Trust;

/// The shortest part of a secret that counts as a leak, in bytes.
const WINDOW: usize = 8;

/// Checks that an error contains no part of a secret, in any form in which errors print bytes. Ignores the words of the
/// gateway's own messages.
pub(super) fn assert_hidden(secret: &[u8], err: &(dyn Error + 'static)) {
    const WORDS: [&str; 8] = [
        include_str!("../files/read.rs"),
        include_str!("../files/pem.rs"),
        include_str!("error.rs"),
        include_str!("identity_endpoint.rs"),
        include_str!("local_error.rs"),
        include_str!("process.rs"),
        include_str!("response_error.rs"),
        include_str!("secret.rs"),
    ];
    let shown = format!("{err} {err:?} {}", in_one_line(err));
    for window in secret.windows(WINDOW) {
        let list = format!("{window:?}");
        let list = list.trim_matches(['[', ']']);
        let hex = window.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let base64 = STANDARD.encode(window);
        let text = String::from_utf8_lossy(window);
        for form in [list, &hex, base64.trim_end_matches('='), &text] {
            let is_shown = shown.contains(form) && !WORDS.iter().any(|words| words.contains(form));
            assert!(!is_shown, "{form:?} of the secret is shown: {shown}");
        }
    }
}

/// Parses a token response: `kind-and-federated status-index header-lines \n\n body`. Checks that the lifetime of an accepted
/// token is valid, and that an error is short and has no control characters.
pub(crate) fn token_response(data: &[u8]) {
    let Some((&[kind, status], rest)) = data.split_first_chunk() else { return };
    let kind_of = match kind % 3 {
        0 => IdentityEndpointKind::Entra,
        1 => IdentityEndpointKind::InstanceMetadata,
        _ => IdentityEndpointKind::AppService,
    };
    let endpoint = IdentityEndpoint { kind: kind_of, authority: "login.example".to_owned() };
    let statuses = [200, 201, 204, 301, 400, 401, 403, 404, 408, 410, 429, 500, 503, 599];
    let status = statuses.get(usize::from(status) % statuses.len()).copied().unwrap_or(200);
    let end = rest.windows(2).position(|end| end == b"\n\n");
    let (lines, body) = end
        .map_or((&[][..], rest), |end| (rest.get(..end).unwrap_or_default(), rest.get(end + 2..).unwrap_or_default()));
    let headers: HeaderMap = lines.split(|byte| *byte == b'\n').filter_map(header).collect();
    let response = IdentityResponse {
        sent_at: Instant::now(),
        status: StatusCode::from_u16(status).unwrap_or_default(),
        headers,
        body: Bytes::copy_from_slice(body),
    };
    match validate(&endpoint, kind & 0x80 != 0, &response, &SentSecrets::default) {
        Ok(token) => {
            assert!(response.status.is_success(), "{status} is accepted");
            let lifetime = token.lifetime;
            assert!(
                !lifetime.duration.is_zero() && lifetime.duration <= Duration::from_secs(48 * 60 * 60),
                "{lifetime:?}"
            );
            assert!(lifetime.refresh_in.is_none_or(|refresh_in| refresh_in < lifetime.duration), "{lifetime:?}");
            let _margin = schedule::margin(lifetime.duration);
            assert!(
                schedule::refresh_after(lifetime.duration, lifetime.refresh_in, 1.0) <= lifetime.duration,
                "{lifetime:?}"
            );
        }
        Err(error) => {
            let wait = schedule::back_off(CredentialError::from(error.clone()).class(), 1, error.retry_after, 1.0);
            assert!(wait <= Duration::from_secs(6 * 60), "{wait:?}");
            let err = CredentialError::from(error);
            let shown = in_one_line(&err);
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            assert!(shown.len() < 16 * 1024, "{} bytes are shown", shown.len());
        }
    }
}

fn header(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
    Some((name, HeaderValue::from_bytes(line.get(colon + 1..)?.trim_ascii()).ok()?))
}

/// Reads a file with a secret: `kind content`. Checks that an error contains no part of the file, and that an accepted
/// assertion is a valid bearer token.
pub(crate) fn secret_file(data: &[u8]) {
    let Some((kind, content)) = data.split_first() else { return };
    HARNESS.with(|harness| {
        harness.runtime.block_on(async {
            let path = harness.folder.join("secret");
            if std::fs::write(&path, content).is_err() {
                return;
            }
            let outcome = match kind % 4 {
                0 => harness.certificate(path, None).await,
                1 => harness.certificate(harness.folder.join("certificate.pem"), Some(path)).await,
                2 => harness.assertion(AssertionSource::File(path)).await,
                _ => harness.token_file(path).await,
            };
            let source = SecretSource::File(harness.folder.join("secret"));
            let secret = read_secret(&source, &AcquisitionRecord::default()).await;
            let secret = secret.map_err(CredentialError::from);
            for err in [outcome.err(), secret.err()].into_iter().flatten() {
                assert_hidden(content, &err);
            }
        });
    });
}

thread_local! {
    static HARNESS: Harness = Harness::new();
}

/// A runtime, a client and a folder, reused for all inputs of a thread.
struct Harness {
    runtime: tokio::runtime::Runtime,
    folder: PathBuf,
    client: IdentityClient,
}

impl Harness {
    fn new() -> Self {
        let name = format!("signalr-gateway-fuzz-{}-{:?}", std::process::id(), std::thread::current().id());
        let folder = std::env::temp_dir().join(name);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (Ok(runtime), Ok(client), Ok(())) = (
            runtime,
            IdentityClient::new(&Trust::from_ca_file(None), &std::sync::Arc::default()),
            std::fs::create_dir_all(&folder),
        ) else {
            panic!("the setup fails");
        };
        let certificate = include_str!("../../tests/fuzz/parsers/certificate.pem");
        assert!(std::fs::write(folder.join("certificate.pem"), certificate).is_ok());
        Self { runtime, folder, client }
    }

    async fn certificate(&self, certificate: PathBuf, key: Option<PathBuf>) -> Result<(), CredentialError> {
        let settings = CertificateSettings { certificate, key, algorithm: AssertionAlgorithm::Ps256, send_chain: true };
        self.assertion(AssertionSource::Certificate(Arc::new(settings))).await
    }

    async fn assertion(&self, source: AssertionSource) -> Result<(), CredentialError> {
        let record = AcquisitionRecord::default();
        let (client_id, token_url) = ("client".to_owned(), "https://login.example/token".to_owned());
        let client = self.client.clone();
        let provider = AssertionProvider { source, client_id, token_url, client, record: record.clone() };
        let assertion = provider.secret(None).await.map_err(CredentialError::unwrap)?;
        assert!(Bearer::new(&assertion).is_ok(), "an assertion is no token");
        for step in record.take_steps() {
            let not_after = step.not_after.map(NotAfter::time);
            assert!(not_after.is_none_or(|at| at > SystemTime::UNIX_EPOCH), "{not_after:?}");
        }
        Ok(())
    }

    async fn token_file(&self, path: PathBuf) -> Result<(), CredentialError> {
        let acquired = TokenFile { path }.acquire(&AcquisitionRecord::default()).await?;
        let lifetime = acquired.lifetime;
        let in_service = CurrentToken::new(acquired);
        assert!(in_service.is_none_or(|token| token.expires_at.is_some() == lifetime.is_some()));
        Ok(())
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.folder);
    }
}

/// Reads the claims of a token. Uses the input as the whole token, then as its payload.
pub(crate) fn token(data: &[u8]) {
    let payload = format!("e30.{}.sig", jwt::encode(data));
    let token = std::str::from_utf8(data).unwrap_or_default();
    for token in [token, &payload] {
        let Some(claims) = jwt::claims(token) else { continue };
        assert!(token.split('.').count() >= 3);
        let _in_range = jwt::expiry(&claims);
    }
}
