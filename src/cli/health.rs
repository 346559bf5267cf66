//! `health`: checks that a running gateway is alive, for container images without a shell or curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

use super::output::{Outcome, usage};
use crate::tls::{Trust, client_config_with, client_config_with_certificate, roots};

/// The timeout for connecting, and for each read.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The admin listener's address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// PEM file with the CA of the admin listener's certificate, if it has `tls`.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The name in that certificate. Default: the IP address.
    #[arg(long, value_name = "NAME", requires = "ca")]
    name: Option<String>,
    /// PEM file with a client certificate, if the admin listener requires one (`client_auth`).
    #[arg(long, value_name = "FILE", requires = "ca", requires = "key")]
    certificate: Option<PathBuf>,
    /// PEM file with the key of the client certificate.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let address = options.admin;
    let tls = options.tls().map_err(usage)?;
    let response = request(address, tls).with_context(|| format!("no gateway answers at {address}"))?;
    let status = response.lines().next().unwrap_or_default();
    if status.contains(" 200 ") {
        Ok(Outcome::Success)
    } else {
        Err(anyhow!("the gateway at {address} answers `{status}`"))
    }
}

impl Options {
    /// Returns the TLS configuration and the name that the certificate must have; `None` for plain HTTP.
    fn tls(&self) -> anyhow::Result<Option<(ClientConfig, ServerName<'static>)>> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let roots = roots(&Trust::File(ca.clone()))?;
        let config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => client_config_with_certificate(roots, certificate, key)?,
            _ => client_config_with(roots)?,
        };
        let name = match &self.name {
            Some(name) => ServerName::try_from(name.clone()).with_context(|| format!("`{name}` is not a host name"))?,
            None => ServerName::IpAddress(self.admin.ip().into()),
        };
        Ok(Some((config, name)))
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
    write!(stream, "GET /livez HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut response = String::new();
    match stream.take(4096).read_to_string(&mut response) {
        // The connection may end without the end of TLS.
        Ok(_) | Err(_) if !response.is_empty() => Ok(response),
        Ok(_) => Err(anyhow!("the connection was closed without a response")),
        Err(err) => Err(err.into()),
    }
}
