//! An upstream that mimics Azure SignalR: it answers 202 without a body to a correctly forwarded request, and 400 with
//! the reason to any other. Plain HTTP on one port, TLS 1.3 on another, with a new certificate.
//!
//! `upstream --folder F --bearer TOKEN` writes `F/ca.pem` and prints one line of JSON with both addresses. Without `--bearer`, it
//! accepts any.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::{Options, Result, wire};

const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nX-Content-Type-Options: nosniff\r\n\r\n";

/// The headers that a request must have.
struct Expected {
    /// `None` if any bearer is accepted.
    authorization: Option<String>,
    host: String,
}

impl Expected {
    /// Returns the length of the body, and what is wrong with the head, if anything.
    fn check(&self, request: &httparse::Request<'_, '_>) -> Result<(usize, Option<&'static str>)> {
        let length = wire::body_length(request.headers)?;
        let only = |name| {
            let mut values = wire::values(request.headers, name);
            values.next().filter(|_| values.next().is_none())
        };
        let is_authorized = only("authorization").is_some_and(|found| match &self.authorization {
            Some(expected) => found == expected.as_bytes(),
            None => found.starts_with(b"Bearer "),
        });
        let problem = if !is_authorized {
            Some("Authorization is not the configured bearer")
        } else if only("host") != Some(self.host.as_bytes()) {
            Some("Host is not the upstream's")
        } else if wire::values(request.headers, "x-forwarded-for").next().is_none() {
            Some("X-Forwarded-For is missing")
        } else {
            None
        };
        Ok((length, problem))
    }
}

/// Serves until dropped.
pub async fn serve(options: &Options) -> Result<()> {
    let tls = acceptor(Path::new(options.text("folder")?))?;
    let authorization = options.text("bearer").ok().map(|token| format!("Bearer {token}"));
    let (plain, secure) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let plain_host = plain.local_addr()?.to_string();
    let secure_host = format!("localhost:{}", secure.local_addr()?.port());
    println!("{}", serde_json::json!({ "plain": plain_host, "tls": secure_host }));
    let plain_rules = Rc::new(Expected { authorization: authorization.clone(), host: plain_host });
    let secure_rules = Rc::new(Expected { authorization, host: secure_host });
    loop {
        tokio::select! {
            accepted = plain.accept() => {
                let (stream, rules) = (accepted?.0, Rc::clone(&plain_rules));
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(serve_connection(stream, rules));
            }
            accepted = secure.accept() => {
                let (stream, rules, tls) = (accepted?.0, Rc::clone(&secure_rules), tls.clone());
                stream.set_nodelay(true)?;
                tokio::task::spawn_local(async move {
                    match tls.accept(stream).await {
                        Ok(stream) => serve_connection(stream, rules).await,
                        Err(err) => eprintln!("TLS handshake: {err}"),
                    }
                });
            }
        }
    }
}

async fn serve_connection(stream: impl AsyncRead + AsyncWrite + Unpin, rules: Rc<Expected>) {
    if let Err(err) = answer_requests(stream, &rules).await {
        eprintln!("a connection ended: {err}");
    }
}

async fn answer_requests(mut stream: impl AsyncRead + AsyncWrite + Unpin, rules: &Expected) -> Result<()> {
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    loop {
        let head = wire::head(&mut stream, &mut buffer, |bytes| {
            let mut headers = wire::headers();
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(bytes)? {
                httparse::Status::Complete(length) => Ok(Some((length, rules.check(&request)?))),
                httparse::Status::Partial => Ok(None),
            }
        });
        let Some((head, (body, problem))) = head.await? else { return Ok(()) };
        wire::fill(&mut stream, &mut buffer, head + body).await?;
        buffer.advance(head + body);
        match problem {
            None => stream.write_all(ACCEPTED).await?,
            Some(problem) => {
                let length = problem.len();
                let rejection = format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {length}\r\n\r\n{problem}");
                stream.write_all(rejection.as_bytes()).await?;
            }
        }
        stream.flush().await?;
    }
}

/// Makes a CA and a certificate for `localhost`, and writes the CA's certificate for the proxies.
fn acceptor(folder: &Path) -> Result<TlsAcceptor> {
    let mut authority = rcgen::CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    authority.distinguished_name.push(rcgen::DnType::CommonName, "peers-kit");
    let authority_key = rcgen::KeyPair::generate()?;
    std::fs::write(folder.join("ca.pem"), authority.self_signed(&authority_key)?.pem())?;
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate()?;
    let mut leaf = rcgen::CertificateParams::new(vec![String::from("localhost")])?;
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let config = rustls::ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
