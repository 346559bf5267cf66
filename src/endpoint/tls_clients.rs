//! TLS clients of endpoints. Endpoints that trust the same CAs share one, with its cache of TLS sessions.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::ConnectError;
use super::settings::HttpVersion;
use crate::redact::in_one_line;
use crate::tls::{self, Trust, TrustError};

/// The ALPN protocol name of HTTP/2.
const HTTP2: &[u8] = b"h2";
/// The number of servers whose TLS sessions one client remembers. Chosen: the default number of idle connections. A server costs
/// about 5 KiB once it was connected to: its tickets and its certificates.
const REMEMBERED_SERVERS: usize = 4096;
/// The number of tickets that rustls keeps for each server. Source: `MAX_TLS13_TICKETS_PER_SERVER` in rustls 0.23.
const TICKETS_PER_SERVER: usize = 8;

/// Opens TLS connections to servers whose certificates are verified against one set of CAs.
pub(super) struct TlsClient {
    trust: Trust,
    roots: Arc<RootCertStore>,
    http1: TlsConnector,
    http2: TlsConnector,
}

/// The TLS clients of the endpoints of one configuration.
#[derive(Default)]
pub struct TlsClients {
    known: HashMap<Trust, Known>,
    /// Why CA files that were read before cannot be used now.
    refused: Vec<String>,
}

struct Known {
    client: Arc<TlsClient>,
    /// Whether the CAs were read for this configuration. Those of the previous one may have changed since.
    is_current: bool,
}

impl TlsClients {
    /// Adds a client of the previous configuration, to be shared by new endpoints while its CAs are the same.
    pub(super) fn add_previous(&mut self, client: &Arc<TlsClient>) {
        // The system's CAs are read once.
        let is_current = client.trust == Trust::System;
        self.known.entry(client.trust.clone()).or_insert_with(|| Known { client: Arc::clone(client), is_current });
    }

    /// Returns whether a client of the previous configuration trusts the CAs that its file has now, or that file cannot be used.
    /// Reads the file, unless it was read before.
    pub(super) fn is_current(&mut self, client: &Arc<TlsClient>) -> bool {
        self.get(client.trust.clone()).is_ok_and(|current| Arc::ptr_eq(&current, client))
    }

    /// Returns why CA files that were read before cannot be used now. Endpoints keep the CAs that were read before.
    pub fn into_refused(self) -> Vec<String> {
        self.refused
    }

    /// Returns the client that trusts these CAs. Reads a CA file once. If one that was read before cannot be used now, what was
    /// read before stays in use.
    pub(super) fn get(&mut self, trust: Trust) -> Result<Arc<TlsClient>, TrustError> {
        let known = match self.known.entry(trust) {
            Entry::Occupied(known) if known.get().is_current => known.into_mut(),
            Entry::Occupied(known) => {
                let roots = tls::roots(known.key());
                let known = known.into_mut();
                known.is_current = true;
                match roots {
                    Ok(roots) if known.client.roots.roots != roots.roots => {
                        known.client = Arc::new(TlsClient::new(known.client.trust.clone(), roots)?);
                    }
                    Ok(_same) => {}
                    Err(err) => self.refused.push(in_one_line(&err)),
                }
                known
            }
            Entry::Vacant(unknown) => {
                let roots = tls::roots(unknown.key())?;
                let client = Arc::new(TlsClient::new(unknown.key().clone(), roots)?);
                unknown.insert(Known { client, is_current: true })
            }
        };
        Ok(Arc::clone(&known.client))
    }
}

impl std::fmt::Debug for TlsClients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.known.keys()).finish()
    }
}

impl TlsClient {
    fn new(trust: Trust, roots: Arc<RootCertStore>) -> Result<Self, TrustError> {
        let mut config = tls::client_config_with(&trust, Arc::clone(&roots))?;
        config.resumption = Resumption::in_memory_sessions(REMEMBERED_SERVERS * TICKETS_PER_SERVER);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let http1 = TlsConnector::from(Arc::new(config.clone()));
        config.alpn_protocols = vec![HTTP2.to_vec()];
        let http2 = TlsConnector::from(Arc::new(config));
        Ok(Self { trust, roots, http1, http2 })
    }

    /// Returns what opens connections for HTTP/1.1.
    pub(super) fn http1(&self) -> &TlsConnector {
        &self.http1
    }

    pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        version: HttpVersion,
        name: ServerName<'static>,
        tcp: S,
    ) -> Result<TlsStream<S>, ConnectError> {
        let connector = match version {
            HttpVersion::Http1 => &self.http1,
            HttpVersion::Http2 => &self.http2,
        };
        let secured = tls::connect(connector, name, tcp).await.map_err(handshake_error)?;
        // A server without ALPN support ignores the requested protocol.
        if version == HttpVersion::Http2 && secured.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(ConnectError::NoHttp2);
        }
        Ok(secured)
    }
}

/// Converts the error of a TLS handshake. The alert `no_application_protocol` states that the server does not offer HTTP/2.
fn handshake_error(err: io::Error) -> ConnectError {
    let alert = err.get_ref().and_then(|err| err.downcast_ref::<rustls::Error>());
    match alert {
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => ConnectError::NoHttp2,
        _ => ConnectError::Tls(err),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn write_ca(path: &Path, name: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        std::fs::write(path, params.self_signed(&key).unwrap().pem()).unwrap();
    }

    #[test]
    fn endpoints_with_the_same_cas_share_a_client_until_the_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let trust = Trust::File(path.clone());
        write_ca(&path, "one");
        let mut first = TlsClients::default();
        let client = first.get(trust.clone()).unwrap();
        assert!(Arc::ptr_eq(&client, &first.get(trust.clone()).unwrap()));

        let mut same = TlsClients::default();
        same.add_previous(&client);
        assert!(same.is_current(&client));
        assert!(Arc::ptr_eq(&client, &same.get(trust.clone()).unwrap()), "the file has not changed");

        write_ca(&path, "two");
        let mut changed = TlsClients::default();
        changed.add_previous(&client);
        assert!(!changed.is_current(&client));
        let other = changed.get(trust.clone()).unwrap();
        assert!(!Arc::ptr_eq(&client, &other));
        assert!(Arc::ptr_eq(&other, &changed.get(trust.clone()).unwrap()));
        assert!(changed.into_refused().is_empty());

        std::fs::write(&path, "half of a file").unwrap();
        let mut refused = TlsClients::default();
        refused.add_previous(&other);
        assert!(refused.is_current(&other), "what was read before");
        assert!(Arc::ptr_eq(&other, &refused.get(trust.clone()).unwrap()), "what was read before");
        assert!(Arc::ptr_eq(&other, &refused.get(trust.clone()).unwrap()));
        let problems = refused.into_refused();
        assert!(problems.len() == 1 && problems[0].contains("is not PEM"), "{problems:?}");
        assert!(TlsClients::default().get(trust).is_err(), "nothing was read before");
    }
}
