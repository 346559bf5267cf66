//! `health`: checks that a running gateway is alive, for container images without a shell or curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;

use super::output::Outcome;

/// The timeout for connecting, and for each read.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// The admin listener's address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let address = options.admin;
    let request = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(stream, "GET /livez HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.take(4096).read_to_string(&mut response)?;
        Ok(response)
    };
    let response = request().with_context(|| format!("no gateway answers at {address}"))?;
    let status = response.lines().next().unwrap_or_default();
    if status.contains(" 200 ") {
        Ok(Outcome::Success)
    } else {
        Err(anyhow!("the gateway at {address} answers `{status}`"))
    }
}
