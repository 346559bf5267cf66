//! `token`: obtains a token with the credential of one endpoint and shows each step. Shows tokens and secrets only as
//! fingerprints. With `--raw`, prints the token itself.

use clap::Args;

use super::doctor::no_such_endpoint;
use super::finding::checks_to_text;
use super::options::ConfigOptions;
use super::output::{Outcome, eprint, print, usage};
use super::runtime::block_on;
use crate::diagnosis;
use crate::metrics::Metrics;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOptions,
    /// The endpoint whose credential is used.
    endpoint: String,
    /// Print the token itself to stdout, and everything else to stderr. Anyone who has it can call the endpoint.
    #[arg(long)]
    raw: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let settings = options.config.load()?.settings;
    let endpoint = settings.endpoints.iter().find(|endpoint| endpoint.name.as_str() == options.endpoint);
    let endpoint = endpoint.ok_or_else(|| usage(no_such_endpoint(&options.endpoint, &settings.disabled)))?;
    let credential = settings.credentials.iter().find(|credential| credential.id == endpoint.credential);
    let credential = credential
        .ok_or_else(|| usage(anyhow::anyhow!("the configuration has no credential `{}`", endpoint.credential)))?;
    let metrics = Metrics::new()?;
    let (acquisition, finding) = block_on(Box::pin(diagnosis::acquire(credential, endpoint, metrics.token())))?;
    let outcome = match (&acquisition.bearer, &finding.broken) {
        (Some(bearer), _) => format!("token {}", bearer.fingerprint()),
        (None, Some(_)) => "there is no token".to_owned(),
        (None, None) => "the access key signs each request: there is no token to show".to_owned(),
    };
    let text =
        format!("endpoint {}, credential {}: {outcome}\n{}", endpoint.name, credential.id, checks_to_text(&finding));
    if options.raw {
        eprint(format_args!("{}", text.trim_end()));
        let Some(bearer) = &acquisition.bearer else { return Ok(Outcome::ProblemFound) };
        let token = bearer.header().to_str()?;
        print(format_args!("{}", token.strip_prefix("Bearer ").unwrap_or(token)))?;
    } else {
        print(format_args!("{}", text.trim_end()))?;
    }
    Ok(if finding.broken.is_none() { Outcome::Success } else { Outcome::ProblemFound })
}
