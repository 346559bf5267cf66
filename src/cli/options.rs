//! The options that select a command's configuration.

use std::path::PathBuf;

use clap::Args;

use crate::config::{ConfigError, Loaded, Sources};

/// The options that select the configuration.
#[derive(Clone, Debug, Args)]
pub(super) struct ConfigOptions {
    /// TOML file, or `-` for stdin.
    #[arg(long, short, value_name = "FILE", env = "SIGNALR_GATEWAY_CONFIG")]
    config: Option<PathBuf>,
    /// Override one key of file and environment, such as `limits.max_body=2MiB`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
}

impl ConfigOptions {
    pub(super) fn load(&self) -> Result<Loaded, ConfigError> {
        crate::config::load(&self.sources())
    }

    /// Loads the configuration on a host that may lack the secrets and files of the gateway's host.
    pub(super) fn load_for_other_host(&self) -> Result<Loaded, ConfigError> {
        crate::config::load_for_other_host(&self.sources())
    }

    pub(super) fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), self.overrides.clone())
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}
