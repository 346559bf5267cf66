//! A CA in a folder: certificates of a listener and of its callers, and revocation lists.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::with_timeout;

/// A CA that writes into a folder: its own certificate `NAME.pem`, and that of a listener, `NAME-server.pem` and `.key`.
pub(crate) struct Pki {
    folder: PathBuf,
    name: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
    serial: AtomicU64,
}

/// The certificate of a caller and its key, in PEM.
pub(crate) struct CallerCertificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    serial: u64,
}

/// The years in which a certificate is valid, from the first to the last.
pub(crate) const VALID: (i32, i32) = (2020, 2090);
pub(crate) const EXPIRED: (i32, i32) = (2020, 2021);

impl Pki {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let pki = Self { folder: folder.to_owned(), name: name.to_owned(), issuer, serial: AtomicU64::new(1) };
        std::fs::write(pki.ca(), pki.issuer.pem()).unwrap();
        let names = [SanType::DnsName("localhost".try_into().unwrap()), SanType::IpAddress([127, 0, 0, 1].into())];
        pki.issue(&format!("{name}-server"), "server", names.to_vec(), VALID);
        pki
    }

    /// The file with the certificate of the CA.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// Returns the `tls` of a listener, with more keys.
    pub(crate) fn tls(&self, more: &str) -> String {
        let (folder, name) = (self.folder.display(), &self.name);
        format!(
            "tls = {{ certificate = \"{folder}/{name}-server.pem\", key = \"{folder}/{name}-server.key\", client_ca = \
             \"{folder}/{name}.pem\"{more} }}\n"
        )
    }

    /// Issues a certificate with these URIs.
    pub(crate) fn caller(&self, file: &str, uris: &[&str]) -> CallerCertificate {
        self.caller_valid(file, uris, VALID)
    }

    pub(crate) fn caller_valid(&self, file: &str, uris: &[&str], years: (i32, i32)) -> CallerCertificate {
        let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        self.issue(file, "caller", uris.collect(), years)
    }

    pub(crate) fn issue(&self, file: &str, subject: &str, names: Vec<SanType>, years: (i32, i32)) -> CallerCertificate {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, subject);
        params.serial_number = Some(SerialNumber::from(serial));
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let path = |kind: &str| self.folder.join(format!("{file}.{kind}"));
        std::fs::write(path("pem"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        CallerCertificate { certificate: path("pem"), key: path("key"), serial }
    }

    /// Writes a revocation list, valid in these years, into a file of the folder. Replaces it by rename.
    pub(crate) fn revoke(&self, file: &str, revoked: &[&CallerCertificate], years: (i32, i32)) -> PathBuf {
        let revoked = revoked.iter().map(|one| RevokedCertParams {
            serial_number: SerialNumber::from(one.serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(years.0, 1, 1),
            next_update: date_time_ymd(years.1, 1, 1),
            crl_number: SerialNumber::from(self.serial.fetch_add(1, Ordering::Relaxed)),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let (path, next) = (self.folder.join(file), self.folder.join("next-crl"));
        std::fs::write(&next, list.signed_by(&self.issuer).unwrap().pem().unwrap()).unwrap();
        std::fs::rename(next, &path).unwrap();
        path
    }

    /// Returns a TLS configuration of a caller that trusts this CA and sends a certificate, if it has one.
    pub(crate) fn client(&self, certificate: Option<&CallerCertificate>) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        match certificate {
            None => config.with_no_client_auth(),
            Some(own) => {
                let chain = vec![CertificateDer::from_pem_file(&own.certificate).unwrap()];
                let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }
}

/// Opens a TLS connection to `localhost`.
pub(crate) async fn tls_connect(
    address: std::net::SocketAddr,
    config: rustls::ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    with_timeout("a handshake", TlsConnector::from(Arc::new(config)).connect(name, tcp)).await
}
