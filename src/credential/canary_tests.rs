//! Secrets, mangled as people and tools mangle them, go through everything that reads them; nothing that is said gives a part
//! of them away.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::runtime::Runtime;

use super::answer::{Answer, refusal};
use super::assertion::AssertionSource;
use super::leaks::Leaks;
use super::*;
use crate::config::from_connection_strings;
use crate::files;
use crate::redact::Sent;

/// What is done to a secret on its way into a file.
#[derive(Clone, Copy, Debug)]
enum Mutation {
    None,
    LineBreak,
    ByteOrderMark,
    Windows,
    Cut(usize),
    Doubled,
    DoubleQuotes,
    SingleQuotes,
    Blanks,
    Base64,
    Utf16,
    Garbage(usize, u8),
    InOneLine,
    EscapedLineBreaks,
    Json,
    Assignment,
    Header,
    Pem,
    PemOfOneLine,
    ConnectionString,
}

impl Mutation {
    fn of(self, secret: &str) -> Vec<u8> {
        let at = |place: usize| place % secret.len().max(1);
        let text = match self {
            Self::None => secret.to_owned(),
            Self::LineBreak => format!("{secret}\n"),
            Self::ByteOrderMark => format!("\u{feff}{secret}"),
            Self::Windows => format!("{}\r\n", secret.replace('\n', "\r\n")),
            Self::Cut(place) => return secret.as_bytes()[..at(place)].to_vec(),
            Self::Doubled => format!("{secret}{secret}"),
            Self::DoubleQuotes => format!("\"{secret}\""),
            Self::SingleQuotes => format!("'{secret}'"),
            Self::Blanks => format!("\t{secret} "),
            Self::Base64 => STANDARD.encode(secret),
            Self::Utf16 => {
                let units = std::iter::once(0xfeff).chain(secret.encode_utf16());
                return units.flat_map(u16::to_le_bytes).collect();
            }
            Self::Garbage(place, byte) => {
                let mut bytes = secret.as_bytes().to_vec();
                bytes[at(place)] = byte;
                return bytes;
            }
            Self::InOneLine => secret.replace('\n', " "),
            Self::EscapedLineBreaks => secret.replace('\n', "\\n"),
            Self::Json => format!(r#"{{"secret":"{secret}"}}"#),
            Self::Assignment => format!("CLIENT_SECRET={secret}"),
            Self::Header => format!("Authorization: Bearer {secret}"),
            Self::Pem => format!("-----BEGIN PRIVATE KEY-----\n{secret}\n-----END PRIVATE KEY-----\n"),
            Self::PemOfOneLine => format!("-----BEGIN {secret}-----END"),
            Self::ConnectionString => format!("Endpoint=https://a.example;AccessKey={secret};{secret};{secret}=x"),
        };
        text.into_bytes()
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    use Mutation as M;
    prop_oneof![
        Just(M::None),
        Just(M::LineBreak),
        Just(M::ByteOrderMark),
        Just(M::Windows),
        any::<usize>().prop_map(M::Cut),
        Just(M::Doubled),
        Just(M::DoubleQuotes),
        Just(M::SingleQuotes),
        Just(M::Blanks),
        Just(M::Base64),
        Just(M::Utf16),
        (any::<usize>(), any::<u8>()).prop_map(|(place, byte)| M::Garbage(place, byte)),
        Just(M::InOneLine),
        Just(M::EscapedLineBreaks),
        Just(M::Json),
        Just(M::Assignment),
        Just(M::Header),
        Just(M::Pem),
        Just(M::PemOfOneLine),
        Just(M::ConnectionString),
    ]
}

/// Secrets of every alphabet, random enough that 8 bytes of one stand nowhere by chance.
fn secret() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9~._-]{24,64}",
        "[A-Za-z0-9+/]{43}=",
        "[0-9a-f]{40,64}",
        "[!-~]{24,48}",
        "[ -~]{32,48}",
        "[ -~\u{a0}-\u{ff}]{24,48}"
    ]
}

/// Everything that is said about a secret, and the secret.
struct Said {
    leaks: Leaks,
    texts: Vec<String>,
}

impl Said {
    fn error(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.texts.push(format!("{error} {error:?} {}", in_one_line(error)));
    }

    fn legs(&mut self, legs: &Legs) {
        self.texts.extend(legs.take_remarks());
        self.texts.extend(legs.take().iter().map(|leg| format!("{leg:?}")));
    }

    fn check(&self, what: &str) -> Result<(), TestCaseError> {
        for text in &self.texts {
            if let Some(leak) = self.leaks.find(text) {
                return Err(TestCaseError::fail(format!("{what}: {leak} in {text}")));
            }
        }
        Ok(())
    }
}

/// Reads a file as every kind of credential and assertion does.
async fn read_as_everything(path: &Path, said: &mut Said) {
    let source = SecretSource::File(path.to_owned());
    let acquirers: [Box<dyn Acquire>; 2] = [
        Box::new(access_key_source::AccessKeySource { key: source.clone() }),
        Box::new(token_file::TokenFile { path: path.to_owned() }),
    ];
    for acquirer in &acquirers {
        let legs = Legs::default();
        match acquirer.acquire(&legs).await {
            Ok(acquired) => said.texts.push(format!("{acquired:?} {acquirer:?}")),
            Err(err) => said.error(&err),
        }
        said.legs(&legs);
    }
    let certificate = |certificate: &Path, key: Option<&Path>| AssertionSource::Certificate {
        settings: CertificateSettings {
            certificate: certificate.to_owned(),
            key: key.map(Path::to_owned),
            algorithm: AssertionAlgorithm::Ps256,
            send_chain: true,
        },
        client_id: "client".to_owned(),
        token_url: "https://login.example".to_owned(),
    };
    let sources = [
        certificate(path, None),
        certificate(path, Some(path)),
        AssertionSource::Federated(AssertionSettings::File { path: path.to_owned() }),
    ];
    for source in &sources {
        let legs = Legs::default();
        if let Err(err) = source.inspect(&legs).await {
            said.error(&err);
        }
        said.legs(&legs);
    }
    match files::read_in_time(path) {
        Err(err) => said.error(&err),
        Ok(file) => {
            said.texts.push(format!("{file:?}"));
            if let Err(err) = files::pem::Pem::parse(&file.text) {
                said.error(&err);
            }
        }
    }
    for trust in [crate::tls::client_config(&Trust::File(path.to_owned()))] {
        if let Err(err) = trust {
            said.error(&err);
        }
    }
}

/// Runs programs that print a file.
async fn print_as_assertion(path: &Path, said: &mut Said) {
    let path = path.display().to_string();
    for script in [
        "cat \"$0\"",
        "cat \"$0\" >&2; exit 1",
        "cat \"$0\"; cat \"$0\" >&2; exit 1",
        "od -An -tu1 \"$0\" >&2; exit 1",
        "od -An -tx1 \"$0\" >&2; exit 1",
    ] {
        let program = process::Program {
            path: Path::new("/bin/sh"),
            arguments: vec!["-c", script, &path],
            environment: vec!["PATH"],
            timeout: Duration::from_secs(20),
        };
        match program.run().await {
            Ok(secret) => said.texts.push(format!("{secret:?}")),
            Err(err) => said.error(&err),
        }
    }
}

/// Lets an identity provider repeat what it was sent.
fn echo(secret: &str, said: &mut Said) {
    let mut sent = Sent::default();
    sent.add(secret);
    let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let hex = secret.bytes().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().concat();
    for repeated in [
        secret.to_owned(),
        form,
        hex,
        STANDARD.encode(secret),
        STANDARD.encode(format!("x{secret}")),
        STANDARD.encode(format!("xy:{secret}")),
    ] {
        let body = serde_json::json!({
            "error": repeated, "error_description": format!("you sent {repeated} which is wrong"), "message": repeated,
            "correlation_id": repeated, "trace_id": repeated, "suberror": repeated, "claims": repeated,
        });
        let (body, headers) = (Bytes::from(body.to_string()), HeaderMap::new());
        let answer = Answer { sent_at: tokio::time::Instant::now(), status: StatusCode::BAD_REQUEST, headers, body };
        for kind in [IdentityEndpointKind::Entra, IdentityEndpointKind::Provider(IdentityProvider::OAuth2)] {
            let endpoint = IdentityEndpoint { kind, authority: "login.example".to_owned() };
            said.error(&refusal(&endpoint, false, &answer, &sent));
        }
    }
}

fn written(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_said_gives_a_secret_away(secret in secret(), mutation in mutation()) {
        let mut said = Said { leaks: Leaks::default(), texts: Vec::new() };
        said.leaks.add(secret.as_bytes());
        let content = mutation.of(&secret);
        let (_folder, path) = written(&content);
        Runtime::new().unwrap().block_on(read_as_everything(&path, &mut said));
        echo(&secret, &mut said);
        let text = String::from_utf8_lossy(&content);
        match from_connection_strings(&text, Path::new("strings"), None) {
            Ok(conversion) => said.texts.extend([conversion.toml, conversion.warnings.join("\n")]),
            Err(err) => said.error(&err),
        }
        said.check(&format!("{mutation:?}"))?;
    }
}

/// What is not known to be a secret is judged by how it looks, so among enough random secrets one looks like words. The same
/// secrets each time, then: another seed is for whoever works on the filter.
const SEED: RngSeed = RngSeed::Fixed(7);

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, rng_seed: SEED, ..ProptestConfig::default() })]

    #[test]
    fn no_program_that_prints_a_secret_gives_it_away(secret in "[A-Za-z0-9~._+/-]{32,64}", mutation in mutation()) {
        let mut said = Said { leaks: Leaks::default(), texts: Vec::new() };
        said.leaks.add(secret.as_bytes());
        let content = mutation.of(&secret);
        // Shorter, and what is left of it may be a word.
        prop_assume!(content.len() >= 24);
        let (_folder, path) = written(&content);
        Runtime::new().unwrap().block_on(print_as_assertion(&path, &mut said));
        said.check(&format!("{mutation:?}"))?;
    }
}

/// A private key and what gives it away: its bytes, and the lines of its PEM.
fn key() -> (String, Leaks) {
    static KEY: std::sync::OnceLock<(String, Vec<u8>)> = std::sync::OnceLock::new();
    let (pem, der) = KEY.get_or_init(|| {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        (key.serialize_pem(), key.serialize_der())
    });
    let mut leaks = Leaks::default();
    leaks.add(der);
    pem.lines().filter(|line| !line.starts_with('-')).for_each(|line| leaks.add(line.as_bytes()));
    (pem.clone(), leaks)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_private_key_is_given_away(mutation in mutation(), second in mutation()) {
        let (pem, leaks) = key();
        let mut said = Said { leaks, texts: Vec::new() };
        for content in [mutation.of(&pem), second.of(&String::from_utf8_lossy(&mutation.of(&pem)))] {
            let (_folder, path) = written(&content);
            Runtime::new().unwrap().block_on(read_as_everything(&path, &mut said));
        }
        said.check(&format!("{mutation:?}, {second:?}"))?;
    }
}
