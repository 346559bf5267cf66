//! The links that belong to a credential: the proof on this host, the way to Entra, the assertion, the exchange, the claims
//! of what came back. Done once for all endpoints that share the credential.

use std::time::{Duration, SystemTime};

use futures_util::future::{OptionFuture, join};
use tokio::runtime::Handle;

use super::claims::{self, check_claims, is_guid};
use super::reach::{Part, Server, Way};
use super::verdict::{self, Blame};
use super::{CREDENTIAL_TIME, Check, ENDPOINT_TIME, Verdict};
use crate::credential::{
    Attempt, Bearer, Claims, CredentialError, CredentialKind, CredentialSettings, Credentials, IdentityEndpointKind,
    Leg, LegOutcome, NotAfter, SetupStep, in_one_line,
};
use crate::metrics::{TokenMetrics, TokenStage};
use crate::tls::Trust;

/// When the end of a certificate is near enough to be said. Chosen: people are away for two weeks.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// One acquisition, examined.
#[derive(Clone, Debug)]
pub struct Acquisition {
    /// The token, unless something is broken or an access key signs each request.
    pub bearer: Option<Bearer>,
    pub(super) checks: Vec<Check>,
    pub(super) broken: Option<Link>,
    /// The claims of the assertion, for the remedy.
    pub(super) assertion: Option<Claims>,
    /// The object id that the token carries, for the remedy.
    pub(super) object_id: Option<String>,
}

/// A broken link, before what mends it is known.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) blame: Blame,
    pub(super) tried: String,
    pub(super) came_back: String,
    pub(super) description: Option<String>,
    pub(super) codes: Vec<u32>,
    pub(super) correlation_id: Option<String>,
    pub(super) trace_id: Option<String>,
    /// The part of the way that is missing, if that is it.
    pub(super) part: Option<Part>,
}

impl Link {
    pub(super) fn new(blame: impl Into<Blame>, tried: impl Into<String>, came_back: impl Into<String>) -> Self {
        Self {
            blame: blame.into(),
            tried: tried.into(),
            came_back: came_back.into(),
            description: None,
            codes: Vec::new(),
            correlation_id: None,
            trace_id: None,
            part: None,
        }
    }
}

impl Acquisition {
    /// Makes one with a credential of its own, and puts nothing in service. The way to Entra is tried beside it, so that
    /// the whole takes no longer than the acquisition.
    pub(super) async fn make(settings: &CredentialSettings, metrics: &TokenMetrics) -> Self {
        let mut this = Self {
            bearer: None,
            checks: Vec::new(),
            broken: None,
            assertion: None,
            object_id: settings.object_id.clone(),
        };
        let entra = entra_of(&settings.kind);
        let way: OptionFuture<_> = entra.as_ref().map(|server| server.try_way(ENDPOINT_TIME)).into();
        let (attempt, way) = join(attempt(settings, metrics), way).await;
        this.broken = match attempt {
            Ok(attempt) => this.links(&attempt, way, settings).err().map(|link| *link),
            Err(problem) => Some(Link::new(SetupStep::Configuration, "build the credential", problem)),
        };
        this
    }

    fn links(&mut self, attempt: &Attempt, way: Option<Way>, settings: &CredentialSettings) -> Result<(), Box<Link>> {
        let now = SystemTime::now();
        let failure = attempt.outcome.as_ref().err().map(|err| failed(err, &attempt.legs, &settings.kind, now));
        let (here, there): (Vec<&Leg>, Vec<&Leg>) = attempt.legs.iter().partition(|leg| leg.endpoint.is_none());
        self.checks.extend(attempt.remarks.iter().map(|remark| Check::odd("proof", remark.clone())));
        self.legs(&here, now);
        // What is missing on this host comes before the way to anywhere.
        let failure = match failure {
            Some(failure) if failure.blame.step == SetupStep::Proof && !is_of_entra(&attempt.outcome) => {
                return Err(failure);
            }
            failure => failure,
        };
        self.way(way, failure.is_some())?;
        self.legs(&there, now);
        if let Some(failure) = failure {
            return Err(failure);
        }
        self.bearer = attempt.outcome.as_ref().ok().cloned().flatten();
        self.claims(&attempt.legs, settings, now)
    }

    /// What was obtained, each once however often it was tried.
    fn legs(&mut self, legs: &[&Leg], now: SystemTime) {
        for (index, leg) in legs.iter().enumerate() {
            let is_last = !legs.iter().skip(index + 1).any(|later| later.subject == leg.subject);
            let LegOutcome::Token { fingerprint, claims, endpoint_clock } = &leg.outcome else { continue };
            if !is_last {
                continue;
            }
            let mut result = fingerprint.to_string();
            if leg.stage == TokenStage::Assertion {
                self.assertion.clone_from(claims);
                result.push_str(&presented(claims.as_ref()));
            }
            self.checks.push(Check::held(describe(leg), format!("{result} ({} ms)", leg.took.as_millis())));
            // That of an assertion stands among its claims.
            if let Some(NotAfter::Certificate(ends)) = leg.not_after {
                self.checks.push(certificate_ends(ends, now));
            }
            self.checks.extend(endpoint_clock.map(|theirs| claims::compare_clocks(theirs, now)));
        }
    }

    fn way(&mut self, way: Option<Way>, is_in_doubt: bool) -> Result<(), Box<Link>> {
        let Some(way) = way else { return Ok(()) };
        self.checks.extend(way.held);
        match way.end {
            Some(end) if is_in_doubt => {
                let link = Link::new(SetupStep::IdentityEndpoint, end.tried, end.came_back);
                Err(Box::new(Link { part: Some(end.part), ..link }))
            }
            // The acquisition came through all the same, a moment before or after.
            Some(end) => {
                self.checks.push(Check::odd(end.tried, end.came_back));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Holds the token against the configuration. All claims are shown, and the first wrong one is the broken link.
    fn claims(&mut self, legs: &[Leg], settings: &CredentialSettings, now: SystemTime) -> Result<(), Box<Link>> {
        let exchanged = legs.iter().rev().find(|leg| leg.stage == TokenStage::Exchange);
        let claims = match exchanged.map(|leg| &leg.outcome) {
            Some(LegOutcome::Token { claims: Some(claims), .. }) => claims,
            Some(LegOutcome::Token { claims: None, .. }) => {
                let opaque = "it is not a JWT, so its claims cannot be shown; the endpoint may accept it";
                self.checks.push(Check { verdict: Verdict::Shown, ..Check::held("claims", opaque) });
                return Ok(());
            }
            Some(LegOutcome::Failed { .. }) | None => return Ok(()),
        };
        // It goes into a command that people copy, and nobody has verified it.
        let object_id = claims.get("oid").and_then(|oid| oid.as_str()).filter(|oid| is_guid(oid));
        self.object_id = object_id.map(str::to_owned).or_else(|| self.object_id.take());
        let checks = check_claims(claims, settings, now);
        let wrong = checks.iter().find(|check| check.verdict == Verdict::Wrong);
        let link = wrong.map(|check| {
            let expected = check.expected.as_ref().map(|expected| format!(", expected {expected}"));
            let came_back = format!("{}{}", check.result, expected.unwrap_or_default());
            Box::new(Link::new(verdict::of_claim(&check.what), format!("claim {}", check.what), came_back))
        });
        self.checks.extend(checks);
        link.map_or(Ok(()), Err)
    }
}

/// Makes one acquisition. The error is what is wrong with the credential's settings.
async fn attempt(settings: &CredentialSettings, metrics: &TokenMetrics) -> Result<Attempt, String> {
    let built = Credentials::build(std::slice::from_ref(settings), metrics, &Handle::current());
    let credentials = built.map_err(|err| err.to_string())?;
    let attempt = credentials.attempt(&settings.name, CREDENTIAL_TIME).await;
    attempt.ok_or_else(|| format!("there is no credential `{}`", settings.name))
}

/// The server that an app asks. Other kinds ask this host, or nobody.
fn entra_of(kind: &CredentialKind) -> Option<Server> {
    let CredentialKind::App(app) = kind else { return None };
    Server::of_https(app.authority.origin(), Trust::of(app.authority.ca_file.as_deref()))
}

/// Whether it was Entra that refused.
fn is_of_entra(outcome: &Result<Option<Bearer>, CredentialError>) -> bool {
    let answer = outcome.as_ref().err().and_then(CredentialError::answer);
    answer.is_some_and(|answer| answer.endpoint.kind == IdentityEndpointKind::Entra)
}

/// Whose assertion it is and for whom: what a federated credential is held against.
fn presented(claims: Option<&Claims>) -> String {
    let shown = ["iss", "sub", "aud"].into_iter().filter_map(|claim| {
        let value = claims.and_then(|claims| claims.get(claim))?;
        Some(format!(", {claim} {}", claims::text(value)))
    });
    let shown: String = shown.collect();
    let expires = claims.and_then(claims::expiry).map(|at| format!(", exp {}", humantime::format_rfc3339_seconds(at)));
    shown + &expires.unwrap_or_default()
}

fn certificate_ends(ends: SystemTime, now: SystemTime) -> Check {
    let at = humantime::format_rfc3339_seconds(ends);
    match ends.duration_since(now) {
        Ok(left) if left < SOON => Check::odd("certificate", format!("ends {at}: renew it")),
        Ok(_) | Err(_) => Check::held("certificate", format!("ends {at}")),
    }
}

fn describe(leg: &Leg) -> String {
    match &leg.endpoint {
        Some(endpoint) => format!("{} at {endpoint}", leg.subject),
        None => leg.subject.clone(),
    }
}

fn failed(err: &CredentialError, legs: &[Leg], kind: &CredentialKind, now: SystemTime) -> Box<Link> {
    let of = legs.iter().rfind(|leg| matches!(leg.outcome, LegOutcome::Failed { .. }));
    let tried = of.map_or_else(|| "obtain a token".to_owned(), describe);
    let tries = of.map_or(0, |of| legs.iter().filter(|leg| leg.subject == of.subject).count());
    let tried = if tries > 1 { format!("{tried} ({tries} times)") } else { tried };
    let mut link = Link::new(verdict::of_acquisition(err, legs, kind), tried, in_one_line(err));
    let answer = err.answer();
    if let Some(skew) = answer.and_then(|answer| claims::noteworthy_skew(answer.date?, now)) {
        link.came_back.push_str("; ");
        link.came_back.push_str(&skew);
    }
    link.description = answer.and_then(|answer| answer.description.clone());
    link.codes = err.codes().to_vec();
    link.correlation_id = err.correlation_id().map(str::to_owned);
    link.trace_id = answer.and_then(|answer| answer.trace_id.clone());
    Box::new(link)
}
