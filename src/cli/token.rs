//! `token`: obtains a token by one endpoint's credential and shows how. Tokens and secrets are shown by their
//! fingerprints, unless `--raw` asks for the token itself.

use std::fmt::Write as _;
use std::time::SystemTime;

use clap::Args;

use super::{ConfigOptions, Outcome, doctor, eprint, print, usage};
use crate::credential::{Attempt, CredentialKind, LegOutcome, in_one_line};
use crate::diagnosis::{self, Verdict, check_claims};
use crate::metrics::{Metrics, TokenStage};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOptions,
    /// The endpoint whose credential is used.
    endpoint: String,
    /// Print the token itself to stdout, and everything else to stderr. Whoever has it can call the endpoint.
    #[arg(long)]
    raw: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let settings = options.config.load()?.settings;
    let endpoint = settings.endpoints.iter().find(|endpoint| endpoint.name.as_str() == options.endpoint);
    let endpoint = endpoint.ok_or_else(|| usage(doctor::no_such_endpoint(&options.endpoint)))?;
    let credential = settings.credentials.iter().find(|credential| credential.name == endpoint.credential);
    let credential = credential
        .ok_or_else(|| usage(anyhow::anyhow!("the configuration has no credential `{}`", endpoint.credential)))?;
    let metrics = Metrics::new()?;
    let attempt = diagnosis::attempt(credential.clone(), metrics.token().clone());
    let attempt =
        super::run::control_runtime()?.block_on(Box::pin(attempt)).map_err(|err| usage(anyhow::anyhow!(err)))?;
    let (text, good) = describe(&attempt, &credential.kind);
    match &attempt.outcome {
        Ok(Some(bearer)) if options.raw => {
            eprint(format_args!("{text}"));
            let token = bearer.header().to_str()?;
            print(format_args!("{}", token.strip_prefix("Bearer ").unwrap_or(token)))?;
        }
        Ok(_) | Err(_) => drop(print(format_args!("{text}"))?),
    }
    Ok(if good { Outcome::Good } else { Outcome::ProblemFound })
}

fn describe(attempt: &Attempt, kind: &CredentialKind) -> (String, bool) {
    let mut text = String::new();
    let mut good = attempt.outcome.is_ok();
    let mut line = |label: &str, content: String| {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{label:<7} {content}");
    };
    for leg in &attempt.legs {
        let at = leg.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
        let took = leg.took.as_millis();
        match &leg.outcome {
            LegOutcome::Failed { .. } => line("failed", format!("{}{at} ({took} ms)", leg.subject)),
            LegOutcome::Token { fingerprint, claims, .. } => {
                line("ok", format!("{}{at}: {fingerprint} ({took} ms)", leg.subject));
                if leg.stage == TokenStage::Assertion {
                    for claim in ["iss", "sub", "aud", "exp"] {
                        if let Some(value) = claims.as_ref().and_then(|claims| claims.get(claim)) {
                            line("", format!("{claim} = {value}"));
                        }
                    }
                }
            }
        }
    }
    match &attempt.outcome {
        Err(err) => line("failed", in_one_line(err)),
        Ok(None) => line("ok", "the access key signs each request: there is no token to show".to_owned()),
        Ok(Some(bearer)) => {
            let exchanged = attempt.legs.iter().rev().find(|leg| leg.stage == TokenStage::Exchange);
            let claims = match exchanged.map(|leg| &leg.outcome) {
                Some(LegOutcome::Token { claims, .. }) => claims.as_ref(),
                Some(LegOutcome::Failed { .. }) | None => None,
            };
            line("token", bearer.fingerprint().to_string());
            if claims.is_none() {
                line("odd", "it is not a JWT, so its claims cannot be shown; the endpoint may accept it".to_owned());
            }
            for check in claims.map(|claims| check_claims(claims, kind, SystemTime::now())).unwrap_or_default() {
                let expected = check.expected.as_ref().map(|expected| format!("  (expected {expected})"));
                let label = match check.verdict {
                    Verdict::Good => "ok",
                    Verdict::Shown => "",
                    Verdict::Odd => "odd",
                    Verdict::Wrong => "wrong",
                };
                good &= check.verdict != Verdict::Wrong;
                line(label, format!("{} = {}{}", check.claim, check.value, expected.unwrap_or_default()));
            }
        }
    }
    (text.trim_end().to_owned(), good)
}
