//! How a command reaches the admin listener of a running gateway.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use rustls_pki_types::ServerName;

use crate::redact::in_one_line;
use crate::tls::{Trust, TrustError, client_config_with, client_config_with_certificate, roots};

/// How a command reaches the admin listener of a running gateway.
#[derive(Debug, Args)]
pub(super) struct AdminOptions {
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

impl AdminOptions {
    /// Returns the address of the admin listener.
    pub(super) const fn address(&self) -> SocketAddr {
        self.admin
    }

    /// Returns the TLS configuration and the name that the certificate must have; `None` for plain HTTP.
    pub(super) fn tls(&self) -> anyhow::Result<Option<(ClientConfig, ServerName<'static>)>> {
        let Some(ca) = &self.ca else { return Ok(None) };
        let trust = Trust::File(ca.clone());
        let roots = roots(&trust).map_err(|err| of_option(&err))?;
        let config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => client_config_with_certificate(&trust, roots, certificate, key)?,
            _ => client_config_with(&trust, roots)?,
        };
        let name = match &self.name {
            Some(name) => ServerName::try_from(name.clone()).with_context(|| format!("`{name}` is not a host name"))?,
            None => ServerName::IpAddress(self.admin.ip().into()),
        };
        Ok(Some((config, name)))
    }

    /// Returns the error of a connection that failed, with the options that it calls for.
    pub(super) fn unreachable(&self, err: &anyhow::Error) -> anyhow::Error {
        let advice = err.chain().find_map(tls_error).map_or("", advice);
        anyhow::anyhow!("no gateway answers at {}: {err:#}{advice}", self.admin)
    }

    /// Returns the error of an answer that is not HTTP.
    pub(super) fn not_http(&self) -> anyhow::Error {
        let advice = if self.ca.is_none() { "; if its admin listener has `tls`, give --ca" } else { "" };
        anyhow::anyhow!("the answer of {} is not HTTP{advice}", self.admin)
    }
}

/// Returns the error of a CA file, which is the value of an option here.
fn of_option(err: &TrustError) -> anyhow::Error {
    anyhow::anyhow!(in_one_line(err).replace("`ca_file`", "`--ca`"))
}

/// Returns the error of TLS that an error wraps.
fn tls_error<'a>(err: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let wrapped = err.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    err.downcast_ref().or_else(|| wrapped?.downcast_ref())
}

/// Returns the option that an error of TLS calls for.
const fn advice(err: &rustls::Error) -> &'static str {
    use rustls::Error::{AlertReceived, InvalidCertificate};
    if matches!(err, AlertReceived(AlertDescription::CertificateRequired)) {
        "; give --certificate and --key"
    } else if matches!(err, InvalidCertificate(CertificateError::UnknownIssuer)) {
        "; give --ca the CA of its certificate"
    } else if matches!(
        err,
        InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. })
    ) {
        "; give --name a name in its certificate"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ca_file_that_cannot_be_read_is_that_of_the_option() {
        let admin = SocketAddr::from(([127, 0, 0, 1], 9090));
        let ca = Some(PathBuf::from("/nowhere.pem"));
        let options = AdminOptions { admin, ca, name: None, certificate: None, key: None };
        let text = format!("{:#}", options.tls().unwrap_err());
        assert!(text.starts_with("`--ca` cannot be used: ") && text.contains("/nowhere.pem"), "{text}");
        assert!(!text.contains("ca_file"), "{text}");
    }
}
