//! A minimal proxy on hyper: one thread, the caller's request with another bearer, another `Host` and
//! `X-Forwarded-For`, and persistent connections. No routes, limits, deadlines, retries, metrics or logs.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::header::{AUTHORIZATION, CONNECTION, HOST};
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::{Options, Result};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The upstream, and the idle connections to it.
struct Upstream {
    address: SocketAddr,
    host: HeaderValue,
    bearer: HeaderValue,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: RefCell<Vec<SendRequest<Incoming>>>,
}

pub(crate) async fn serve(options: &Options) -> Result<()> {
    let tls = match options.text("ca") {
        Ok(file) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(file)?)?;
            let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            Some((TlsConnector::from(Arc::new(config)), ServerName::try_from("localhost")?))
        }
        Err(_plain) => None,
    };
    let bearer = std::fs::read_to_string(options.text("bearer-file")?)?;
    let upstream = Rc::new(Upstream {
        address: options.number("upstream")?,
        host: options.text("host")?.parse()?,
        bearer: format!("Bearer {}", bearer.trim()).parse()?,
        tls,
        idle: RefCell::default(),
    });
    let listener = TcpListener::bind(options.number::<SocketAddr>("listen")?).await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (upstream, peer) = (Rc::clone(&upstream), HeaderValue::try_from(peer.ip().to_string())?);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| forward(Rc::clone(&upstream), request, peer.clone()));
            // Ends when the caller disconnects.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn forward(
    upstream: Rc<Upstream>,
    mut request: Request<Incoming>,
    peer: HeaderValue,
) -> std::result::Result<Response<Incoming>, Infallible> {
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.insert(AUTHORIZATION, upstream.bearer.clone());
    headers.insert(HOST, upstream.host.clone());
    headers.insert(X_FORWARDED_FOR, peer);
    let idle = upstream.idle.borrow_mut().pop().filter(SendRequest::is_ready);
    let mut sender = match idle {
        Some(sender) => sender,
        None => upstream.connect().await.expect("the upstream runs"),
    };
    let response = sender.send_request(request).await.expect("the upstream answers");
    // The responses of this benchmark are empty, so the connection can be reused.
    if sender.is_ready() || hyper::body::Body::is_end_stream(response.body()) {
        upstream.idle.borrow_mut().push(sender);
    }
    Ok(response)
}

impl Upstream {
    async fn connect(&self) -> Result<SendRequest<Incoming>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => handshake(stream).await,
            Some((tls, name)) => handshake(tls.connect(name.clone(), stream).await?).await,
        }
    }
}

async fn handshake(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
) -> Result<SendRequest<Incoming>> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}
