//! Feeds secrets to all code that reads them, also in the damaged forms that people and tools produce. No error, warning or
//! debug output may contain any part of a secret.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::acquire::Acquire;
use super::assertion::AssertionSource;
use super::leaks::Leaks;
use super::record::AcquisitionRecord;
use super::response::{IdentityResponse, parse_error};
use super::*;
use crate::config::from_connection_strings;
use crate::files;
use crate::redact::{SentSecrets, in_one_line};

/// A way in which a secret is changed when it is written to a file.
#[derive(Clone, Copy, Debug)]
enum Mutation {
    None,
    LineBreak,
    ByteOrderMark,
    WindowsLineBreaks,
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
        let at = |index: usize| index % secret.len().max(1);
        let text = match self {
            Self::None => secret.to_owned(),
            Self::LineBreak => format!("{secret}\n"),
            Self::ByteOrderMark => format!("\u{feff}{secret}"),
            Self::WindowsLineBreaks => format!("{}\r\n", secret.replace('\n', "\r\n")),
            Self::Cut(index) => return secret.as_bytes()[..at(index)].to_vec(),
            Self::Doubled => format!("{secret}{secret}"),
            Self::DoubleQuotes => format!("\"{secret}\""),
            Self::SingleQuotes => format!("'{secret}'"),
            Self::Blanks => format!("\t{secret} "),
            Self::Base64 => STANDARD.encode(secret),
            Self::Utf16 => {
                let units = std::iter::once(0xfeff).chain(secret.encode_utf16());
                return units.flat_map(u16::to_le_bytes).collect();
            }
            Self::Garbage(index, byte) => {
                let mut bytes = secret.as_bytes().to_vec();
                bytes[at(index)] = byte;
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
        Just(M::WindowsLineBreaks),
        any::<usize>().prop_map(M::Cut),
        Just(M::Doubled),
        Just(M::DoubleQuotes),
        Just(M::SingleQuotes),
        Just(M::Blanks),
        Just(M::Base64),
        Just(M::Utf16),
        (any::<usize>(), any::<u8>()).prop_map(|(index, byte)| M::Garbage(index, byte)),
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

/// Generates secrets of several alphabets, random enough that 8 bytes of one occur nowhere else by chance.
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

/// All messages and debug output about a secret, and the parts of the secret that they must not contain.
struct Output {
    leaks: Leaks,
    texts: Vec<String>,
}

impl Output {
    fn error(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.texts.push(format!("{error} {error:?} {}", in_one_line(error)));
    }

    fn record(&mut self, record: &AcquisitionRecord) {
        self.texts.extend(record.take_warnings());
        self.texts.extend(record.take_steps().iter().map(|step| format!("{step:?}")));
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

/// Reads a file with each kind of credential and assertion.
async fn read_as_each_kind(path: &Path, output: &mut Output) {
    let source = SecretSource::File(path.to_owned());
    let acquirers: [Box<dyn Acquire>; 2] = [
        Box::new(access_key_source::AccessKeySource { key: source.clone() }),
        Box::new(token_file::TokenFile { path: path.to_owned() }),
    ];
    for acquirer in &acquirers {
        let record = AcquisitionRecord::default();
        match acquirer.acquire(&record).await {
            Ok(acquired) => output.texts.push(format!("{acquired:?} {acquirer:?}")),
            Err(err) => output.error(&err),
        }
        output.record(&record);
    }
    let certificate = |certificate: &Path, key: Option<&Path>| {
        AssertionSource::Certificate(Arc::new(CertificateSettings {
            certificate: certificate.to_owned(),
            key: key.map(Path::to_owned),
            algorithm: AssertionAlgorithm::Ps256,
            send_chain: true,
        }))
    };
    let sources = [certificate(path, None), certificate(path, Some(path)), AssertionSource::File(path.to_owned())];
    for source in &sources {
        let record = AcquisitionRecord::default();
        if let Err(err) = source.inspect(&record).await {
            output.error(&err);
        }
        output.record(&record);
    }
    match files::read_with_timeout(path) {
        Err(err) => output.error(&err),
        Ok(file) => {
            output.texts.push(format!("{file:?}"));
            if let Err(err) = files::pem::Pem::parse(&file.text) {
                output.error(&err);
            }
        }
    }
    for trust in [crate::tls::client_config(&crate::tls::Trust::File(path.to_owned()))] {
        if let Err(err) = trust {
            output.error(&err);
        }
    }
}

/// Runs programs that print a file to stdout or stderr.
async fn print_from_program(path: &Path, output: &mut Output) {
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
            Ok(secret) => output.texts.push(format!("{secret:?}")),
            Err(err) => output.error(&err),
        }
    }
}

/// Parses an error response that repeats the secret that was sent.
fn echo(secret: &str, output: &mut Output) {
    let mut sent = SentSecrets::default();
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
        let response =
            IdentityResponse { sent_at: tokio::time::Instant::now(), status: StatusCode::BAD_REQUEST, headers, body };
        for kind in [IdentityEndpointKind::Entra, IdentityEndpointKind::Provider(IdentityProvider::OAuth2)] {
            let endpoint = IdentityEndpoint { kind, authority: "login.example".to_owned() };
            output.error(&parse_error(&endpoint, false, &response, &sent));
        }
    }
}

fn write_file(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, content).unwrap();
    (folder, path)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn errors_warnings_and_debug_output_contain_no_part_of_a_secret(secret in secret(), mutation in mutation()) {
        let mut output = Output { leaks: Leaks::default(), texts: Vec::new() };
        output.leaks.add(secret.as_bytes());
        let content = mutation.of(&secret);
        let (_folder, path) = write_file(&content);
        Runtime::new().unwrap().block_on(read_as_each_kind(&path, &mut output));
        echo(&secret, &mut output);
        let text = String::from_utf8_lossy(&content);
        match from_connection_strings(&text, Path::new("strings"), None) {
            Ok(conversion) => output.texts.extend([conversion.toml, conversion.warnings.join("\n")]),
            Err(err) => output.error(&err),
        }
        output.check(&format!("{mutation:?}"))?;
    }
}

/// Secrets that never look like prose: in every group of 4 bytes, a digit precedes a letter, as in the secrets of Entra
/// (`…8Q~…`). Without this rule, some random secrets consist of words.
const PRINTED_SECRET: &str = "([A-Za-z0-9~._+/-][0-9][A-Za-z][A-Za-z0-9~._+/-]){8,16}";

/// Returns whether a digit precedes a letter in each word of 8 bytes or more. The base64 of a secret may lack such a pair.
fn is_distinguishable(content: &[u8]) -> bool {
    let has_mark = |word: &[u8]| word.windows(2).any(|pair| pair[0].is_ascii_digit() && pair[1].is_ascii_alphabetic());
    let mut words = content.split(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control());
    words.all(|word| word.len() < 8 || has_mark(word))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn stderr_of_a_program_is_shown_without_a_secret_in_it(secret in PRINTED_SECRET, mutation in mutation()) {
        let mut output = Output { leaks: Leaks::default(), texts: Vec::new() };
        output.leaks.add(secret.as_bytes());
        let content = mutation.of(&secret);
        // The rest of a shorter secret may look like a word.
        prop_assume!(content.len() >= 24 && is_distinguishable(&content));
        let (_folder, path) = write_file(&content);
        Runtime::new().unwrap().block_on(print_from_program(&path, &mut output));
        output.check(&format!("{mutation:?}"))?;
    }
}

/// Returns a private key in PEM, and the parts that no output may contain: parts of its DER and of its PEM lines.
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
    fn errors_warnings_and_debug_output_contain_no_part_of_a_private_key(mutation in mutation(), second in mutation()) {
        let (pem, leaks) = key();
        let mut output = Output { leaks, texts: Vec::new() };
        for content in [mutation.of(&pem), second.of(&String::from_utf8_lossy(&mutation.of(&pem)))] {
            let (_folder, path) = write_file(&content);
            Runtime::new().unwrap().block_on(read_as_each_kind(&path, &mut output));
        }
        output.check(&format!("{mutation:?}, {second:?}"))?;
    }
}
