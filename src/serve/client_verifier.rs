//! Verifies the certificates of callers: the CA, the validity, the revocation lists, and that the certificate identifies its caller.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::identity::CallerIdentity;
use super::settings::ClientAuthSettings;
use super::tls_files::{TlsFileError, read_pem, read_revocation_lists};

/// What a listener trusts callers' certificates by: a digest of the CAs, the revocation lists and the mode. Connections that were
/// verified by another are closed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientTrust([u8; 32]);

impl Debug for ClientTrust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [first, second, ..] = self.0;
        write!(f, "ClientTrust({first:02x}{second:02x})")
    }
}

/// How the certificates of callers are verified.
pub(super) struct ClientAuth {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    pub(super) trust: ClientTrust,
    /// What to do about the revocation lists that have expired.
    pub(super) expired_lists: Vec<String>,
}

/// Reads the CAs and the revocation lists, and returns the verifier that uses them.
pub(super) fn load(
    settings: &ClientAuthSettings,
    provider: &Arc<CryptoProvider>,
    warnings: &mut Vec<String>,
) -> Result<ClientAuth, TlsFileError> {
    let mut digest = digest::Context::new(&digest::SHA256);
    digest.update(&[u8::from(settings.is_required)]);
    let mut cas = RootCertStore::empty();
    let certificates = read_pem(&settings.ca, warnings)?.certificates;
    for certificate in &certificates {
        digest.update(&certificate.len().to_be_bytes());
        digest.update(certificate);
    }
    cas.add_parsable_certificates(certificates);
    if cas.is_empty() {
        return Err(TlsFileError::NoCa { path: settings.ca.clone() });
    }
    let (mut lists, mut expired_lists) = (Vec::new(), Vec::new());
    for path in &settings.revocation_lists {
        let found = read_revocation_lists(path, warnings)?.revocation_lists;
        if found.is_empty() {
            return Err(TlsFileError::NoRevocationList { path: path.clone() });
        }
        for list in &found {
            digest.update(&list.len().to_be_bytes());
            digest.update(list);
            if let Some(date) = expiry(list) {
                let problem = format!(
                    "`client_crl` {} expired on {date}: callers whose certificates it covers are refused until there is a \
                     newer one",
                    path.display()
                );
                warnings.push(problem.clone());
                expired_lists.push(problem);
            }
        }
        lists.extend(found.into_iter().map(|list| (path, list)));
    }
    let cas = Arc::new(cas);
    let builder = || WebPkiClientVerifier::builder_with_provider(Arc::clone(&cas), Arc::clone(provider));
    let mut with_lists = builder().with_crls(lists.iter().map(|(_, list)| list.clone()));
    if !lists.is_empty() {
        // An outdated list does not say which certificates have been revoked since.
        with_lists = with_lists.enforce_revocation_expiration();
    }
    if !settings.is_required {
        with_lists = with_lists.allow_unauthenticated();
    }
    let verifier = with_lists.build().map_err(|_unshown| {
        // The error does not say which list it is about.
        let is_invalid = |list: &CertificateRevocationListDer<'static>| {
            matches!(builder().with_crls([list.clone()]).build(), Err(VerifierBuilderError::InvalidCrl(_)))
        };
        match lists.iter().find(|(_, list)| is_invalid(list)) {
            Some((path, _)) => TlsFileError::InvalidRevocationList { path: PathBuf::clone(path) },
            None => TlsFileError::Library,
        }
    })?;
    let mut trust = ClientTrust([0; 32]);
    trust.0.copy_from_slice(digest.finish().as_ref());
    Ok(ClientAuth { verifier: Arc::new(IdentifyingVerifier(verifier)), trust, expired_lists })
}

/// Returns when a revocation list expired, if it has.
fn expiry(list: &[u8]) -> Option<String> {
    let (_, list) = CertificateRevocationList::from_der(list).ok()?;
    let next = list.next_update()?;
    (next < x509_parser::time::ASN1Time::now()).then(|| next.to_string())
}

/// A verifier that also rejects certificates that identify no caller.
#[derive(Debug)]
struct IdentifyingVerifier(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for IdentifyingVerifier {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        match CallerIdentity::of_certificate(end_entity) {
            Ok(_identity) => Ok(verified),
            Err(err) => Err(CertificateError::Other(OtherError(Arc::new(err))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
