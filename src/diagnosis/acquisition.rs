//! The checks of a credential: the proof on this host, the connection to Entra, the assertion, the exchange, and the claims of the
//! token. They run once for all endpoints that share the credential.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::{OptionFuture, join};
use http::StatusCode;
use tokio::runtime::Handle;

use super::cause;
use super::claims::{self, check_claims};
use super::connectivity::{Connectivity, Layer, SERVER_TIMEOUT, Server};
use super::details;
use super::failure::Failure;
use super::finding::{Check, Verdict};
use crate::credential::{
    AcquisitionReport, AcquisitionStep, Authorization, Bearer, Claims, CredentialError, CredentialId, CredentialKind,
    CredentialSettings, Credentials, IdentityEndpointKind, NotAfter, RENEW_CERTIFICATE, SetupStep, SigningKey,
    StepOutcome,
};
use crate::files::expires_soon;
use crate::metrics::{TokenErrorReason, TokenMetrics, TokenStage};
use crate::redact::{in_one_line, is_guid};
use crate::tls::Trust;

/// How long an acquisition may take. Chosen: a request to Entra times out after ten seconds; the rest is enough to report which
/// request that was.
const CREDENTIAL_TIMEOUT: Duration = Duration::from_millis(10_300);

/// AADSTS codes for throttling: 90055 for too many requests in the tenant, 50196 for repeating one request in a loop.
const THROTTLED: [u32; 2] = [90055, 50196];

/// The result of an acquisition and its checks.
#[derive(Clone, Debug)]
pub struct Acquisition {
    /// The token. `None` if a step is broken, or if an access key signs each request.
    pub bearer: Option<Bearer>,
    /// The access key, if the credential is one.
    pub(super) key: Option<SigningKey>,
    pub(super) checks: Vec<Check>,
    pub(super) failure: Option<Failure>,
    /// The claims of the assertion, for the remediation.
    pub(super) assertion: Option<Claims>,
    /// The object id that the token carries, for the remediation.
    pub(super) object_id: Option<String>,
}

/// The credentials of an examination. They are built together, so that those of one app share its assertion, as in a gateway: the
/// metadata service of Azure answers 20 requests a second.
pub(super) struct NewCredentials {
    credentials: Credentials,
    /// Those that cannot be built, which affects no others.
    problems: HashMap<CredentialId, String>,
}

impl NewCredentials {
    /// Builds credentials.
    pub(super) fn build<'a>(
        settings: impl IntoIterator<Item = &'a CredentialSettings>,
        metrics: &TokenMetrics,
    ) -> Self {
        let mut usable: Vec<CredentialSettings> = settings.into_iter().cloned().collect();
        let mut problems = HashMap::new();
        loop {
            let err = match Credentials::build(&usable, metrics, &Handle::current()) {
                Ok(credentials) => return Self { credentials, problems },
                Err(err) => err,
            };
            for (ids, problem) in err.problems {
                let problem = in_one_line(&problem);
                problems.extend(ids.into_iter().map(|id| {
                    let text = format!("credentials.{id}: {problem}");
                    (id, text)
                }));
            }
            usable.retain(|settings| !problems.contains_key(&settings.id));
        }
    }

    async fn acquire_once(&self, id: &CredentialId) -> Result<AcquisitionReport, String> {
        if let Some(problem) = self.problems.get(id) {
            return Err(problem.clone());
        }
        let report = self.credentials.acquire_once(id, CREDENTIAL_TIMEOUT).await;
        report.ok_or_else(|| format!("there is no credential `{id}`"))
    }
}

impl Acquisition {
    /// Obtains a token with one of the new credentials. Tests the connection to Entra at the same time, so that the test adds no
    /// time.
    pub(super) async fn make(settings: &CredentialSettings, credentials: &NewCredentials) -> Self {
        let mut this = Self {
            bearer: None,
            key: None,
            checks: Vec::new(),
            failure: None,
            assertion: None,
            object_id: settings.object_id.as_deref().map(str::to_owned),
        };
        let entra = entra_server(&settings.kind);
        let connectivity: OptionFuture<_> = entra.as_ref().map(|server| server.test(SERVER_TIMEOUT)).into();
        let (report, connectivity) = join(credentials.acquire_once(&settings.id), connectivity).await;
        this.failure = match report {
            Ok(report) => this.evaluate(&report, connectivity, settings).err().map(|failure| *failure),
            Err(problem) => Some(Failure::new(SetupStep::Configuration, "build the credential", problem)),
        };
        this
    }

    fn evaluate(
        &mut self,
        report: &AcquisitionReport,
        connectivity: Option<Connectivity>,
        settings: &CredentialSettings,
    ) -> Result<(), Box<Failure>> {
        let now = SystemTime::now();
        let failure = report.outcome.as_ref().err().map(|err| failure_of(err, &report.steps, &settings.kind, now));
        let (local, remote): (Vec<&AcquisitionStep>, Vec<&AcquisitionStep>) =
            report.steps.iter().partition(|step| step.endpoint.is_none());
        self.checks.extend(report.warnings.iter().map(|warning| Check::warning("proof", warning.clone())));
        self.add_steps(&local, now);
        // A proof that this host lacks is reported before the checks of a connection.
        let failure = match failure {
            Some(failure) if failure.cause.step == SetupStep::Proof && !is_response_of_entra(&report.outcome) => {
                return Err(failure);
            }
            failure => failure,
        };
        self.add_connectivity(connectivity, failure.is_some())?;
        self.add_steps(&remote, now);
        if let Some(failure) = failure {
            return Err(failure);
        }
        match &report.outcome {
            Ok(Authorization::Bearer(bearer)) => self.bearer = Some(bearer.clone()),
            Ok(Authorization::Key(key)) => self.key = Some(key.clone()),
            Err(_) => {}
        }
        self.add_claims(&report.steps, settings, now)
    }

    /// Adds a check for each step that succeeded. Only the last try of a step counts.
    fn add_steps(&mut self, steps: &[&AcquisitionStep], now: SystemTime) {
        for (index, step) in steps.iter().enumerate() {
            let is_last = !steps.iter().skip(index + 1).any(|later| later.subject == step.subject);
            let StepOutcome::Token { fingerprint, claims, endpoint_clock } = &step.outcome else { continue };
            if !is_last {
                continue;
            }
            let mut result = fingerprint.to_string();
            if step.stage == TokenStage::Assertion {
                self.assertion.clone_from(claims);
                result.push_str(&assertion_claims(claims.as_ref()));
            }
            self.checks.push(Check::passed(describe(step), format!("{result} ({} ms)", step.took.as_millis())));
            // The claims of an assertion already show its expiry.
            if let Some(NotAfter::Certificate(ends)) = step.not_after {
                self.checks.push(certificate_end(ends, now));
            }
            self.checks.extend(endpoint_clock.map(|theirs| claims::compare_clocks(theirs, now)));
        }
    }

    /// Adds the checks of the connection to Entra. A failed connection breaks the chain only if the acquisition failed too.
    fn add_connectivity(
        &mut self,
        connectivity: Option<Connectivity>,
        acquisition_failed: bool,
    ) -> Result<(), Box<Failure>> {
        let Some(connectivity) = connectivity else { return Ok(()) };
        self.checks.extend(connectivity.passed);
        match connectivity.failure {
            Some(failed) if acquisition_failed => Err(Box::new(Failure::of_layer(failed, SetupStep::IdentityEndpoint))),
            // Not a failure, since the acquisition itself connected.
            Some(failed) => {
                self.checks.push(Check::warning(failed.tried, failed.error));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Compares the token with the configuration. Adds a check for each claim; the first wrong one is the failure.
    fn add_claims(
        &mut self,
        steps: &[AcquisitionStep],
        settings: &CredentialSettings,
        now: SystemTime,
    ) -> Result<(), Box<Failure>> {
        let exchanged = steps.iter().rev().find(|step| step.stage == TokenStage::Exchange);
        let claims = match exchanged.map(|step| &step.outcome) {
            Some(StepOutcome::Token { claims: Some(claims), .. }) => claims,
            Some(StepOutcome::Token { claims: None, .. }) => {
                let opaque = "the token is not a JWT, so its claims cannot be shown; the endpoint may accept it";
                self.checks.push(Check::shown("claims", opaque));
                return Ok(());
            }
            Some(StepOutcome::Failed { .. }) | None => return Ok(()),
        };
        // The claim is not verified and becomes part of a command that users copy, so only a GUID is used.
        let object_id = claims.get("oid").and_then(|oid| oid.as_str()).filter(|oid| is_guid(oid));
        self.object_id = object_id.map(str::to_owned).or_else(|| self.object_id.take());
        let checks = check_claims(claims, settings, now);
        let wrong = checks.iter().find(|check| check.verdict == Verdict::Wrong);
        let failure = wrong.map(|check| {
            let expected = check.expected.as_ref().map(|expected| format!(", expected {expected}"));
            let result = format!("{}{}", check.result, expected.unwrap_or_default());
            Box::new(Failure::new(cause::of_claim(&check.what), format!("claim {}", check.what), result))
        });
        self.checks.extend(checks);
        failure.map_or(Ok(()), Err)
    }
}

/// Returns Entra's server for an app. Credentials of other kinds connect to no server outside this host.
fn entra_server(kind: &CredentialKind) -> Option<Server> {
    let CredentialKind::App { app, .. } = kind else { return None };
    Server::of_https(app.authority.origin(), Trust::from_ca_file(app.authority.ca_file.as_deref()), &app.egress)
}

/// Returns whether Entra responded with an error.
fn is_response_of_entra(outcome: &Result<Authorization, CredentialError>) -> bool {
    let response = outcome.as_ref().err().and_then(CredentialError::response);
    response.is_some_and(|response| response.endpoint.kind == IdentityEndpointKind::Entra)
}

/// Formats the claims of an assertion that must match a federated credential, and its expiry.
fn assertion_claims(claims: Option<&Claims>) -> String {
    let shown = ["iss", "sub", "aud"].into_iter().filter_map(|claim| {
        let value = claims.and_then(|claims| claims.get(claim))?;
        Some(format!(", {claim} {}", claims::text(value)))
    });
    let shown: String = shown.collect();
    let expires = claims.and_then(claims::expiry).map(|at| format!(", exp {}", humantime::format_rfc3339_seconds(at)));
    shown + &expires.unwrap_or_default()
}

fn certificate_end(ends: SystemTime, now: SystemTime) -> Check {
    let at = humantime::format_rfc3339_seconds(ends);
    if expires_soon(ends, now) {
        Check::warning("certificate", format!("ends {at}: renew it"))
    } else {
        Check::passed("certificate", format!("ends {at}"))
    }
}

fn describe(step: &AcquisitionStep) -> String {
    match &step.endpoint {
        Some(endpoint) => format!("{} at {endpoint}", step.subject),
        None => step.subject.clone(),
    }
}

/// Makes the failure of an acquisition.
pub(super) fn failure_of(
    err: &CredentialError,
    steps: &[AcquisitionStep],
    kind: &CredentialKind,
    now: SystemTime,
) -> Box<Failure> {
    let failed = steps.iter().rfind(|step| matches!(step.outcome, StepOutcome::Failed { .. }));
    let tried = failed.map_or_else(|| "obtain a token".to_owned(), describe);
    let times = failed.map_or(0, |failed| steps.iter().filter(|step| step.subject == failed.subject).count());
    let tried = if times > 1 { format!("{tried} ({times} times)") } else { tried };
    let mut failure = Failure::new(cause::of_acquisition(err, steps, kind), tried, in_one_line(err));
    let response = err.response();
    if let Some(skew) = response.and_then(|response| claims::noteworthy_skew(response.date?, now)) {
        failure.result.push_str("; ");
        failure.result.push_str(&skew);
        failure.skew = Some(skew);
    }
    failure.description = response.and_then(|response| response.description.clone());
    failure.codes = err.codes().to_vec();
    failure.is_unusable_response = response.is_some_and(|response| response.unusable.is_some());
    if err.is_expired_certificate() {
        failure.remedy = Some(RENEW_CERTIFICATE);
    }
    failure.is_unreachable = response.is_none() && err.reason() == TokenErrorReason::Network;
    failure.is_throttled = response.is_some_and(|response| response.status == StatusCode::TOO_MANY_REQUESTS)
        || failure.codes.iter().any(|code| THROTTLED.contains(code));
    if let Some(refused) = err.refused_certificate() {
        failure.certificate = Some(refused.clone());
        failure.layer = Some(Layer::Tls);
    }
    if let Some((proxy, layer)) = err.proxy() {
        failure.proxy = Some(Arc::clone(proxy));
        failure.layer = Some(Layer::Proxy(layer));
    }
    failure.correlation_id = err.correlation_id().map(str::to_owned);
    failure.trace_id = response.and_then(|response| response.trace_id.clone());
    failure.details = details::of_acquisition(err, steps, kind, failure.cause.step, now);
    Box::new(failure)
}
