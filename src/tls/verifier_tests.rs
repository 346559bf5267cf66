//! What the error of a handshake says about the certificate of the server, over sockets, and which alert the server receives.

use std::io;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, DnValue, IsCa, KeyPair, SanType, date_time_ymd,
};
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(common_name.to_owned()));
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn ca(name: &str) -> Ca {
    CertifiedIssuer::self_signed(ca_params(name), KeyPair::generate().unwrap()).unwrap()
}

fn server(common_name: &str, hosts: &[&str]) -> CertificateParams {
    let mut params = named(common_name);
    params.subject_alt_names = hosts.iter().map(|host| SanType::DnsName((*host).try_into().unwrap())).collect();
    params
}

/// What a server sends, and its key.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

/// Issues a certificate that is sent with these others.
fn issue(params: &CertificateParams, issuer: &Ca, others: &[&Ca]) -> Identity {
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, issuer).unwrap().der().clone();
    Identity { chain: [leaf].into_iter().chain(others.iter().map(|other| other.der().clone())).collect(), key }
}

impl Identity {
    fn acceptor(&self) -> TlsAcceptor {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let key = provider.key_provider.load_private_key(key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            // Unlike `with_single_cert`, this does not check that the key is that of the certificate.
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(rustls::sign::CertifiedKey::new(
                self.chain.clone(),
                key,
            ))));
        TlsAcceptor::from(Arc::new(config))
    }
}

fn trusting(ca: &Ca) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    client_config_with(&Trust::File("/etc/ca.pem".into()), Arc::new(roots)).unwrap()
}

/// Connects to a server as `east.example`. Returns the errors of both sides.
async fn handshake(identity: &Identity, config: ClientConfig) -> (io::Error, io::Error) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = identity.acceptor();
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        // With TLS 1.3, the server's handshake may end before the alert arrives.
        match acceptor.accept(stream).await {
            Ok(mut accepted) => tokio::io::AsyncReadExt::read_u8(&mut accepted).await.unwrap_err(),
            Err(err) => err,
        }
    };
    let connect = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("east.example").unwrap();
        connect(&TlsConnector::from(Arc::new(config)), name, stream).await.unwrap_err()
    };
    tokio::join!(connect, accept)
}

/// Returns the text of the error, what it says about the certificate, and the alert that the server received.
async fn refusal(identity: &Identity, config: ClientConfig) -> (String, RefusedCertificate, AlertDescription) {
    let (err, theirs) = handshake(identity, config).await;
    let refused = RefusedCertificate::find(&err).unwrap_or_else(|| panic!("{err}")).clone();
    assert_eq!(err.to_string(), refused.to_string());
    let theirs = theirs.get_ref().and_then(|err| err.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::AlertReceived(alert)) = theirs else { panic!("{theirs:?}") };
    (err.to_string(), refused, *alert)
}

#[tokio::test]
async fn unknown_issuer_is_named_with_the_cas_in_use_and_how_far_the_chain_goes() {
    let (known, root) = (ca("Known Root"), ca("Contoso Root"));
    let issuing =
        CertifiedIssuer::signed_by(ca_params("Contoso Issuing CA"), KeyPair::generate().unwrap(), &root).unwrap();
    let params = server("east", &["east.example", "west.example"]);

    let (text, refused, alert) = refusal(&issue(&params, &issuing, &[&issuing]), trusting(&known)).await;
    let expected = "its certificate is issued by `CN=Contoso Issuing CA`, whose chain ends at `CN=Contoso Root`, which is not \
                    among the CAs in use (`ca_file` /etc/ca.pem)";
    assert_eq!(
        (text.as_str(), refused.problem(), alert),
        (expected, &CertificateProblem::UnknownIssuer, AlertDescription::UnknownCA)
    );
    let details = refused.details();
    let names: Vec<_> = details.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["certificate", "issuer", "valid", "CAs in use"]);
    assert_eq!(details[0].1, "CN=east, for east.example, west.example");
    assert_eq!(details[1].1, "CN=Contoso Issuing CA; its chain ends at CN=Contoso Root");
    assert_eq!(details[2].1, "1975-01-01T00:00:00Z to 4096-01-01T00:00:00Z");
    assert_eq!(details[3].1, "ca_file /etc/ca.pem");

    // The root is known, but a certificate between is missing.
    let (text, refused, alert) = refusal(&issue(&params, &issuing, &[]), trusting(&root)).await;
    let expected = "its certificate is issued by `CN=Contoso Issuing CA`, which is not among the CAs in use (`ca_file` /etc/ca.pem); \
                    it sent no intermediate certificate";
    assert_eq!((text.as_str(), alert), (expected, AlertDescription::UnknownCA));
    assert!(refused.lacks_chain());

    let key = KeyPair::generate().unwrap();
    let own = params.self_signed(&key).unwrap().der().clone();
    let (text, refused, alert) = refusal(&Identity { chain: vec![own], key }, trusting(&known)).await;
    let expected = "its certificate `CN=east` is self-signed, and not among the CAs in use (`ca_file` /etc/ca.pem)";
    assert_eq!((text.as_str(), alert), (expected, AlertDescription::UnknownCA));
    assert!(!refused.lacks_chain());
}

#[tokio::test]
async fn ca_of_the_same_name_with_another_key_is_told_apart_from_an_unknown_one() {
    let (old, new) = (ca("Contoso Root"), ca("Contoso Root"));
    let (text, refused, _) = refusal(&issue(&server("east", &["east.example"]), &new, &[]), trusting(&old)).await;
    assert_eq!(refused.problem(), &CertificateProblem::BadSignature, "{text}");
    assert!(
        text.starts_with("its certificate names `CN=Contoso Root` as its issuer, but is not signed with the key"),
        "{text}"
    );
}

#[tokio::test]
async fn certificate_that_is_not_valid_now_is_told_with_its_bound_and_the_clock() {
    let root = ca("Root");
    let valid = |from, to, mut params: CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        params
    };
    let params = server("east", &["east.example"]);
    for (from, to, beginning) in [
        (2020, 2021, "its certificate has expired on 2021-01-01T00:00:00Z; this host's clock says 20"),
        (2080, 2090, "its certificate is not valid yet, but from 2080-01-01T00:00:00Z; this host's clock says 20"),
    ] {
        let (text, _, alert) = refusal(&issue(&valid(from, to, params.clone()), &root, &[]), trusting(&root)).await;
        assert!(text.starts_with(beginning) && text.ends_with(" (issued by `CN=Root`)"), "{text}");
        assert_eq!(alert, AlertDescription::CertificateExpired);
    }
    let old = valid(2020, 2021, ca_params("Issuing CA"));
    let issuing = CertifiedIssuer::signed_by(old, KeyPair::generate().unwrap(), &root).unwrap();
    let (text, ..) = refusal(&issue(&params, &issuing, &[&issuing]), trusting(&root)).await;
    assert!(
        text.starts_with("the certificate `CN=Issuing CA` in its chain has expired on 2021-01-01T00:00:00Z;"),
        "{text}"
    );
}

#[tokio::test]
async fn certificate_for_other_names_is_told_with_those() {
    let root = ca("Root");
    let (text, _, alert) =
        refusal(&issue(&server("x", &["a.example", "b.example"]), &root, &[]), trusting(&root)).await;
    let expected = "its certificate is for `a.example`, `b.example`, and not for `east.example` (issued by `CN=Root`)";
    assert_eq!((text.as_str(), alert), (expected, AlertDescription::BadCertificate));
    let (text, ..) = refusal(&issue(&server("east.example", &[]), &root, &[]), trusting(&root)).await;
    assert_eq!(text, "its certificate `CN=east.example` is for no host (issued by `CN=Root`)");
}

#[tokio::test]
async fn hostile_certificate_is_one_short_line() {
    let root = ca("\u{1b}[2J<script>alert(1)</script>\nERROR `forged` \u{202e}");
    let names: Vec<String> = (0..2500).map(|index| format!("<b>{index}</b>.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let identity = issue(&server(&"x".repeat(10_000), &names), &root, &[]);
    assert!(identity.chain[0].len() > 60_000);
    for known in [&root, &ca("other")] {
        let (text, refused, _) = refusal(&identity, trusting(known)).await;
        let details: String = refused.details().into_iter().map(|(_, value)| value).collect();
        assert!(text.len() < 1000 && details.len() < 1000, "{text}\n{details}");
        let is_plain = |ch: char| !ch.is_control() && ch != '\u{202e}';
        assert!(text.chars().all(is_plain) && details.chars().all(is_plain), "{text}\n{details}");
    }
}

#[tokio::test]
async fn certificate_that_cannot_be_read_is_reported_as_such() {
    let root = ca("Root");
    let mut identity = issue(&server("east", &["east.example"]), &root, &[]);
    identity.chain[0] = CertificateDer::from(vec![0x30, 0x82, 0xff, 0xff, 1, 2, 3]);
    let (text, refused, alert) = refusal(&identity, trusting(&root)).await;
    assert_eq!((text.as_str(), alert), ("its certificate cannot be read", AlertDescription::BadCertificate));
    assert_eq!(refused.details()[0], ("certificate", "cannot be read".to_owned()));
}

#[tokio::test]
async fn server_without_the_key_of_its_certificate_is_refused() {
    let root = ca("Root");
    let mut identity = issue(&server("east", &["east.example"]), &root, &[]);
    identity.key = KeyPair::generate().unwrap();
    let (text, refused, alert) = refusal(&identity, trusting(&root)).await;
    let expected = "it does not prove that it has the key of its certificate (issued by `CN=Root`)";
    assert_eq!((text.as_str(), alert), (expected, AlertDescription::DecryptError));
    assert_eq!(refused.problem(), &CertificateProblem::NoProof);
}

#[tokio::test]
async fn another_error_of_a_handshake_stays_as_it_is() {
    let root = ca("Root");
    let identity = issue(&server("east", &["east.example"]), &root, &[]);
    let mut config = trusting(&root);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    drop(listener.accept().await.unwrap());
    let name = ServerName::try_from("east.example").unwrap();
    let err = connect(&TlsConnector::from(Arc::new(config)), name, stream).await.unwrap_err();
    assert!(RefusedCertificate::find(&err).is_none(), "{err}");
    // The same server is accepted by a client that trusts its CA: the verifier refuses nothing else.
    let (mut ours, theirs) = tokio::io::duplex(16 * 1024);
    let acceptor = identity.acceptor();
    let accept = tokio::spawn(async move { acceptor.accept(theirs).await.map(drop) });
    let name = ServerName::try_from("east.example").unwrap();
    connect(&TlsConnector::from(Arc::new(trusting(&root))), name, &mut ours).await.unwrap();
    accept.await.unwrap().unwrap();
}
