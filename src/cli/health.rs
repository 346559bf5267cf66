//! `health`: checks that a running gateway is alive, for container images without a shell or curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use super::admin_options::AdminOptions;
use super::output::{Outcome, usage};

/// The timeout for connecting, and for each read.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    admin: AdminOptions,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let address = options.admin.address();
    let tls = options.admin.tls().map_err(usage)?;
    let response = request(address, tls).map_err(|err| options.admin.unreachable(&err))?;
    if !response.starts_with("HTTP/") {
        return Err(options.admin.not_http());
    }
    let status = response.lines().next().unwrap_or_default();
    if status.contains(" 200 ") {
        Ok(Outcome::Success)
    } else {
        Err(anyhow!("the gateway at {address} answers `{status}`"))
    }
}

/// Asks a gateway whether it lives. Returns the beginning of the response.
fn request(address: SocketAddr, tls: Option<(ClientConfig, ServerName<'static>)>) -> anyhow::Result<String> {
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    match tls {
        None => exchange(stream, address),
        Some((config, name)) => {
            exchange(StreamOwned::new(ClientConnection::new(Arc::new(config), name)?, stream), address)
        }
    }
}

fn exchange(mut stream: impl Read + Write, address: SocketAddr) -> anyhow::Result<String> {
    let request = format!("GET /livez HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    // A gateway that refuses the connection may close it before it has read the request, and has then said why.
    let written = stream.write_all(request.as_bytes()).and_then(|()| stream.flush());
    let mut response = String::new();
    match (stream.take(4096).read_to_string(&mut response), written) {
        // The connection may end without the end of TLS.
        _ if !response.is_empty() => Ok(response),
        (Err(err), _) | (Ok(_), Err(err)) => Err(err.into()),
        (Ok(_), Ok(())) => Err(anyhow!("the connection was closed without a response")),
    }
}
