//! Assertions of generated certificates, verified with the crypto library.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::signature::{
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, date_time_ymd};
use tempfile::TempDir;

use super::*;
use crate::credential::schedule::ErrorClass;

const TOKEN_URL: &str = "https://login.microsoftonline.com/tenant-b/oauth2/v2.0/token";

struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn pair() -> Pair {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let certificate = CertificateParams::new(vec!["gateway".into()]).unwrap().self_signed(&key).unwrap();
    Pair { certificate, key }
}

/// Writes a PEM file and returns the settings that name it.
fn settings(folder: &TempDir, pem: &str) -> CertificateSettings {
    let path = folder.path().join("client.pem");
    fs::write(&path, pem).unwrap();
    CertificateSettings { certificate: path, key: None, algorithm: AssertionAlgorithm::Ps256, send_chain: false }
}

async fn sign(settings: &CertificateSettings) -> Result<(Value, Value, Secret), CredentialError> {
    let token = assertion(settings, "app-id", TOKEN_URL, &AcquisitionRecord::default()).await?;
    let part = |index| {
        let segment = URL_SAFE_NO_PAD.decode(token.expose().split('.').nth(index).unwrap()).unwrap();
        serde_json::from_slice(&segment).unwrap()
    };
    Ok((part(0), part(1), token))
}

async fn refusal(settings: &CertificateSettings) -> String {
    let err = sign(settings).await.unwrap_err();
    assert_eq!(err.class(), ErrorClass::Permanent);
    err.to_string()
}

fn verify(token: &Secret, certificate: &rcgen::Certificate, algorithm: &'static dyn VerificationAlgorithm) {
    let (_, parsed) = parse_x509_certificate(certificate.der()).unwrap();
    let (signed, signature) = token.expose().rsplit_once('.').unwrap();
    let key = UnparsedPublicKey::new(algorithm, &parsed.public_key().subject_public_key.data);
    key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
}

#[tokio::test]
async fn signs_ps256_with_the_sha256_thumbprint() {
    let (folder, pair) = (tempfile::tempdir().unwrap(), pair());
    let settings = settings(&folder, &(pair.certificate.pem() + &pair.key.serialize_pem()));
    let (header, claims, token) = sign(&settings).await.unwrap();
    let thumbprint = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, pair.certificate.der()));
    assert_eq!(header, json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint }));
    assert_eq!(
        (&claims["aud"], &claims["iss"], &claims["sub"]),
        (&json!(TOKEN_URL), &json!("app-id"), &json!("app-id"))
    );
    let now = jwt::unix_seconds(SystemTime::now());
    let (nbf, exp) = (claims["nbf"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert!(nbf + 299 <= now && now + 295 <= exp && exp - nbf == 600, "nbf {nbf} now {now} exp {exp}");
    assert_ne!(claims["jti"], sign(&settings).await.unwrap().1["jti"], "each assertion has its own id");
    verify(&token, &pair.certificate, &RSA_PSS_2048_8192_SHA256);
}

#[tokio::test]
async fn signs_rs256_with_both_thumbprints_and_an_optional_chain() {
    let (folder, leaf, other) = (tempfile::tempdir().unwrap(), pair(), pair());
    // Some tools write the leaf certificate last.
    let pem = other.certificate.pem() + &leaf.certificate.pem() + &leaf.key.serialize_pem();
    let settings =
        CertificateSettings { algorithm: AssertionAlgorithm::Rs256, send_chain: true, ..settings(&folder, &pem) };
    let (header, _, token) = sign(&settings).await.unwrap();
    let sha1 = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, leaf.certificate.der());
    assert_eq!((&header["alg"], &header["x5t"]), (&json!("RS256"), &json!(URL_SAFE_NO_PAD.encode(sha1))));
    assert_eq!(
        header["x5c"],
        json!([STANDARD.encode(leaf.certificate.der()), STANDARD.encode(other.certificate.der())])
    );
    verify(&token, &leaf.certificate, &RSA_PKCS1_2048_8192_SHA256);
}

#[tokio::test]
async fn uses_a_renewed_certificate_for_the_next_assertion_and_reports_its_expiry() {
    let (folder, old, new) = (tempfile::tempdir().unwrap(), pair(), pair());
    let settings = CertificateSettings {
        key: Some(folder.path().join("client.key")),
        ..settings(&folder, &old.certificate.pem())
    };
    let record = AcquisitionRecord::default();
    for pair in [&old, &new] {
        fs::write(&settings.certificate, pair.certificate.pem()).unwrap();
        fs::write(settings.key.as_ref().unwrap(), pair.key.serialize_pem()).unwrap();
        let token = assertion(&settings, "app-id", TOKEN_URL, &record).await.unwrap();
        verify(&token, &pair.certificate, &RSA_PSS_2048_8192_SHA256);
    }
    let steps = record.take_steps();
    assert_eq!(steps.len(), 2);
    assert!(
        steps.iter().all(|step| matches!(step.not_after, Some(NotAfter::Certificate(end)) if end > SystemTime::now())),
        "{steps:?}"
    );
}

#[tokio::test]
async fn rejects_an_expired_certificate_before_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let mut params = CertificateParams::new(vec!["gateway".into()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2021, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let settings = settings(&folder, &(certificate.pem() + &key.serialize_pem()));
    let text = refusal(&settings).await;
    assert!(text.contains("expired at 2021-01-01T00:00:00Z"), "{text}");
    let record = AcquisitionRecord::default();
    assertion(&settings, "app-id", TOKEN_URL, &record).await.unwrap_err();
    assert_eq!(
        record.take_steps()[0].not_after,
        Some(NotAfter::Certificate(UNIX_EPOCH + Duration::from_secs(1_609_459_200))),
        "for the gauge"
    );
}

#[tokio::test]
async fn the_error_about_an_unusable_file_states_the_command_that_converts_it() {
    let (folder, good) = (tempfile::tempdir().unwrap(), pair());
    let certificate = good.certificate.pem();
    let other_key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap().serialize_pem();
    let elliptic = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let elliptic_pem = CertificateParams::new(vec!["gateway".into()]).unwrap().self_signed(&elliptic).unwrap().pem();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIFHDBOBgkq\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let encrypted_older = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    for (pem, expected) in [
        (certificate.clone() + encrypted, "-out client-key.pem`, and set `key` to the new file"),
        (certificate.clone() + encrypted_older, "-out client-key.pem`, and set `key` to the new file"),
        (elliptic_pem + &elliptic.serialize_pem(), "openssl req -x509 -newkey rsa:3072"),
        (certificate.clone() + &other_key, "belongs to no certificate in"),
        (certificate.clone(), "holds no private key: set `key`"),
        (good.key.serialize_pem(), "holds no certificate"),
        ("plain text".into(), "openssl pkcs12 -in "),
        ("-----BEGIN CERTIFICATE-----\n%%%\n-----END CERTIFICATE-----\n".into(), "not valid PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned() + &other_key, "is not X.509"),
        (certificate + "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "-noout -check`"),
    ] {
        let text = refusal(&settings(&folder, &pem)).await;
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let pkcs12 = settings(&folder, "");
    fs::write(&pkcs12.certificate, [0x30, 0x82, 0x0a, 0xff, 0xfe]).unwrap();
    let text = refusal(&pkcs12).await;
    let path = pkcs12.certificate.display();
    for line in [
        format!("`openssl pkcs12 -in {path} -nodes -out client.pem` (and `-legacy` if it says `unsupported`)"),
        format!("`openssl x509 -inform DER -in {path} -out client.pem`"),
    ] {
        assert!(text.contains(&line), "{text}");
    }
}

#[tokio::test]
async fn an_inspection_finds_a_certificate_that_is_not_valid_yet_or_expires_soon() {
    let inspected = async |not_before: SystemTime, not_after: SystemTime| {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
        let mut params = CertificateParams::new(vec!["gateway".into()]).unwrap();
        (params.not_before, params.not_after) = (not_before.into(), not_after.into());
        let certificate = params.self_signed(&key).unwrap();
        let settings = settings(&folder, &(certificate.pem() + &key.serialize_pem()));
        let record = AcquisitionRecord::default();
        let problem = inspect(&settings, &record).await.err().map(|err| err.to_string());
        (problem.unwrap_or_default(), record.take_warnings().join("\n"))
    };
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 60 * 60));
    let (problem, _) = inspected(now + day, now + 99 * day).await;
    assert!(problem.contains("is not valid before"), "{problem}");
    let (problem, warnings) = inspected(now - day, now + 7 * day).await;
    assert!(problem.is_empty() && warnings.contains("renew it"), "{problem} {warnings}");
    let (problem, warnings) = inspected(now - day, now + 99 * day).await;
    assert!(problem.is_empty() && !warnings.contains("renew it"), "{problem} {warnings}");
}
