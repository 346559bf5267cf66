//! Many servers on one port, as the resources of the real service are: the host name of a request selects the server.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::exchange::{DEFAULT_WRITE_TIMEOUT, Service};
use super::listen::{ConnectionState, IDLE_TIMEOUT, Server, serve_http};
use super::port::{Port, RETRY_PAUSE};
use super::stream::ResettableStream;

/// Servers with their services, by host name in lower case.
pub(crate) struct Hosts<S>(HashMap<String, (Server, Arc<S>)>);

impl<S: Service> Hosts<S> {
    /// Creates the servers of one port.
    pub(crate) fn new(servers: impl IntoIterator<Item = (String, Server, Arc<S>)>) -> Self {
        let servers = servers.into_iter();
        Self(servers.map(|(host, server, service)| (host.to_ascii_lowercase(), (server, service))).collect())
    }

    /// Accepts and serves connections. Dropping the future closes them.
    pub(crate) async fn serve(self, port: Port, tls: TlsAcceptor) {
        let hosts = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = port.accept() => match accepted {
                    Ok(stream) => {
                        connections.spawn(serve_connection(Arc::clone(&hosts), stream, tls.clone()));
                    }
                    Err(_) => tokio::time::sleep(RETRY_PAUSE).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// Returns the server of a host, which may have a port.
    fn get(&self, host: &str) -> Option<&(Server, Arc<S>)> {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        self.0.get(&name.to_ascii_lowercase())
    }
}

async fn serve_connection<S: Service>(hosts: Arc<Hosts<S>>, stream: TcpStream, tls: TlsAcceptor) {
    let state = Arc::new(ConnectionState::default());
    // Nagle's algorithm would delay small responses.
    let _ = stream.set_nodelay(true);
    // The host, and with it the service's own timeout, is not known yet.
    let stream = ResettableStream::new(stream, Arc::clone(&state.reset), DEFAULT_WRITE_TIMEOUT);
    let Ok(Ok(stream)) = tokio::time::timeout(IDLE_TIMEOUT, tls.accept(stream)).await else { return };
    let named = stream.get_ref().1.server_name().and_then(|name| hosts.get(name));
    if named.is_some_and(|(server, _)| server.faults().is_refusing()) {
        state.reset.store(true, Ordering::Relaxed);
        return;
    }
    serve_http(move |host| hosts.get(host).cloned(), stream, state).await;
}
