//! `check`: everything `run` does up to the first network I/O.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{ConfigOptions, Outcome, eprint, print, usage};
use crate::config::{ConfigError, Loaded};
use crate::credential::Credentials;
use crate::endpoint::Endpoint;
use crate::metrics::Metrics;
use crate::serve::check_certificates;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOptions,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print a configuration made of the Azure SignalR connection strings of a file, `-` for stdin: one a line, as
    /// NAME=VALUE, or in an appsettings.json. No secret is printed.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    connection_strings: Option<PathBuf>,
    /// With --connection-strings: write the secrets into files of this folder, for the owner alone.
    #[arg(long, value_name = "FOLDER", requires = "connection_strings")]
    secrets: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    if let Some(source) = &options.connection_strings {
        return super::convert::run(source, options.secrets.as_deref());
    }
    let loaded = match options.config.load() {
        Ok(loaded) => loaded,
        Err(err) if options.json => return problems_to_json(&err),
        Err(err) => return Err(err.into()),
    };
    build(&loaded)?;
    if options.json {
        let effective: Vec<_> = loaded
            .effective
            .iter()
            .map(|value| {
                json!({
                    "key": value.key,
                    "value": value.value,
                    "origin": value.origin.as_ref().map(ToString::to_string),
                })
            })
            .collect();
        let warnings: Vec<_> = loaded.warnings.iter().map(problem).collect();
        let hash = &loaded.settings.hash;
        return print(format_args!(
            "{:#}",
            json!({ "ok": true, "hash": hash, "settings": effective, "warnings": warnings })
        ));
    }
    for warning in &loaded.warnings {
        eprint(format_args!("warning: {warning}"));
    }
    print(format_args!("{}", table(&loaded)))
}

/// Prints what is wrong with a configuration for programs, and ends as a wrong configuration does.
pub(super) fn problems_to_json(err: &ConfigError) -> anyhow::Result<Outcome> {
    let problems: Vec<_> = err.problems.iter().map(problem).collect();
    print(format_args!("{:#}", json!({ "ok": false, "problems": problems })))?;
    Err(usage(anyhow::anyhow!("the configuration has {} problems", problems.len())))
}

/// Builds what `run` would build, and drops it.
fn build(loaded: &Loaded) -> anyhow::Result<()> {
    check_certificates(&loaded.settings.listener_settings()).map_err(usage)?;
    let runtime = super::run::control_runtime()?;
    let metrics = Metrics::new()?;
    let credentials =
        Credentials::build(&loaded.settings.credentials, metrics.token(), runtime.handle()).map_err(usage)?;
    for endpoint in &loaded.settings.endpoints {
        if let Some(bearer) = credentials.get(&endpoint.credential) {
            Endpoint::build(endpoint, bearer, metrics.endpoints()).map_err(usage)?;
        }
    }
    Ok(())
}

fn problem(problem: &crate::config::Problem) -> serde_json::Value {
    json!({
        "key": problem.key,
        "fact": problem.fact,
        "origin": problem.origin.as_ref().map(ToString::to_string),
        "hint": problem.fix,
    })
}

fn table(loaded: &Loaded) -> String {
    let rows: Vec<_> = loaded
        .effective
        .iter()
        .map(|value| {
            let origin = value.origin.as_ref().map(ToString::to_string).unwrap_or_default();
            (format!("{} = {}", value.key, value.value), origin)
        })
        .collect();
    let width = rows.iter().map(|(row, _)| row.chars().count()).max().unwrap_or_default().min(80);
    let mut table = format!("the configuration is good (hash {})\n", loaded.settings.hash);
    for (row, origin) in rows {
        let _infallible = write!(table, "\n{row:width$}  # {origin}");
    }
    table
}
