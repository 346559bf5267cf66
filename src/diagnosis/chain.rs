//! The chain of one endpoint: each link is tried when those before it held.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderName, Method, Request, Response};
use http_body_util::Empty;
use tokio::time::timeout;

use super::claims::{is_guid, noteworthy_skew};
use super::mend::{self, Known};
use super::{Broken, Check, ENDPOINT_TIME, Finding, Verdict, check_claims, verdict};
use crate::credential::{
    Attempt, Bearer, BearerSource, Claims, CredentialError, CredentialKind, CredentialSettings, CredentialState,
    CredentialStatus, Credentials, Fingerprint, Leg, LegOutcome, RequestUrl, SetupStep, TokenUnavailable, in_one_line,
};
use crate::endpoint::{Endpoint, EndpointSettings};
use crate::metrics::{Metrics, TokenStage};

/// Tells which thing a 404 is about: without it the answer is not from a SignalR resource.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

const HEALTH: &str = "/api/health";
/// Asks for a user who does not exist, in a hub that need not: changes nothing, and answers 404 to whoever may ask.
const READ: &str = "/api/hubs/signalr_gateway_doctor/users/signalr-gateway-doctor";
const VERSION: &str = "?api-version=2022-06-01";

/// One endpoint under examination.
pub(super) struct Chain<'a> {
    endpoint: &'a EndpointSettings,
    credential: &'a CredentialSettings,
    checks: Vec<Check>,
    /// The claims of the assertion and of the token, for the remedy.
    assertion: Option<Claims>,
    object_id: Option<String>,
}

/// What a broken link is made of, before the remedy is known.
fn broken(step: SetupStep, tried: impl Into<String>, came_back: impl Into<String>) -> Box<Broken> {
    Box::new(Broken {
        step,
        tried: tried.into(),
        came_back: came_back.into(),
        codes: Vec::new(),
        correlation_id: None,
        mend: Vec::new(),
        delay: None,
    })
}

/// The finding about an endpoint whose credential is not configured.
pub(super) fn no_credential(endpoint: &EndpointSettings) -> Finding {
    let problem = format!("the configuration has no credential `{}`", endpoint.credential);
    finding(endpoint, Vec::new(), Some(*broken(SetupStep::Configuration, "find the credential", problem)))
}

fn finding(endpoint: &EndpointSettings, checks: Vec<Check>, broken: Option<Broken>) -> Finding {
    Finding {
        endpoint: endpoint.name.to_string(),
        url: endpoint.origin.to_string(),
        credential: endpoint.credential.to_string(),
        checks,
        broken,
    }
}

impl<'a> Chain<'a> {
    pub(super) fn new(endpoint: &'a EndpointSettings, credential: &'a CredentialSettings) -> Self {
        Self { endpoint, credential, checks: Vec::new(), assertion: None, object_id: None }
    }

    /// Follows the chain to its end or its first broken link.
    pub(super) async fn run(mut self, attempt: Result<Arc<Attempt>, String>, metrics: &Metrics) -> Finding {
        let outcome = self.links(attempt, metrics).await;
        let known = Known {
            kind: &self.credential.kind,
            host: &self.endpoint.origin.host,
            assertion: self.assertion.as_ref(),
            object_id: self.object_id.as_deref(),
        };
        let broken = outcome.err().map(|broken| mend::fill_in(*broken, &known));
        finding(self.endpoint, self.checks, broken)
    }

    async fn links(&mut self, attempt: Result<Arc<Attempt>, String>, metrics: &Metrics) -> Result<(), Box<Broken>> {
        let attempt = attempt.map_err(|problem| broken(SetupStep::Configuration, "build the credential", problem))?;
        self.token(&attempt)?;
        self.address().await?;
        let endpoint = Endpoint::build(self.endpoint, Arc::new(NoBearer), metrics.endpoints())
            .map_err(|err| broken(SetupStep::Configuration, "build the endpoint", in_one_line(&err)))?;
        self.health(&endpoint).await?;
        self.read(&endpoint, &attempt, metrics).await
    }

    /// Goes through the legs of the acquisition, and holds the token against the configuration.
    fn token(&mut self, attempt: &Attempt) -> Result<(), Box<Broken>> {
        let now = SystemTime::now();
        let kind = &self.credential.kind;
        for leg in &attempt.legs {
            let LegOutcome::Token { fingerprint, claims, endpoint_clock } = &leg.outcome else { continue };
            if leg.stage == TokenStage::Assertion {
                self.assertion.clone_from(claims);
            }
            let ends = leg.not_after.map(|ends| humantime::format_rfc3339_seconds(ends.time()));
            let ends = ends.map(|ends| format!(", ends {ends}")).unwrap_or_default();
            self.held(describe(leg), format!("{fingerprint}{ends} ({} ms)", leg.took.as_millis()));
            if let Some(skew) = endpoint_clock.and_then(|theirs| noteworthy_skew(theirs, now)) {
                self.odd("compare clocks", skew);
            }
        }
        if let Err(err) = &attempt.outcome {
            return Err(refused(err, attempt, kind, now));
        }
        let exchanged = attempt.legs.iter().rev().find(|leg| leg.stage == TokenStage::Exchange);
        let Some(LegOutcome::Token { claims: Some(claims), .. }) = exchanged.map(|leg| &leg.outcome) else {
            return Ok(());
        };
        // It goes into a command that people copy, and nobody has verified it.
        self.object_id = claims.get("oid").and_then(|oid| oid.as_str()).filter(|oid| is_guid(oid)).map(str::to_owned);
        for check in check_claims(claims, kind, now) {
            let expected = check.expected.map(|expected| format!(", expected {expected}")).unwrap_or_default();
            let what = format!("claim {}", check.claim);
            match check.verdict {
                Verdict::Good | Verdict::Shown => self.held(what, check.value),
                Verdict::Odd => self.odd(what, format!("{}{expected}", check.value)),
                Verdict::Wrong => {
                    let step = if check.claim == "exp" { SetupStep::Proof } else { SetupStep::Configuration };
                    return Err(broken(step, what, format!("{}{expected}", check.value)));
                }
            }
        }
        Ok(())
    }

    /// Resolves the endpoint's name.
    async fn address(&mut self) -> Result<(), Box<Broken>> {
        let origin = &self.endpoint.origin;
        let tried = format!("resolve {}", origin.host);
        let found = timeout(ENDPOINT_TIME, tokio::net::lookup_host((origin.host.as_str(), origin.port))).await;
        let found: Vec<IpAddr> = match found {
            Err(_elapsed) => return Err(broken(SetupStep::EndpointNetwork, tried, "no answer from name resolution")),
            Ok(Err(err)) => return Err(broken(SetupStep::EndpointNetwork, tried, err.to_string())),
            Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        };
        let shown: Vec<String> = found.iter().map(|ip| format!("{ip} ({})", network_of(*ip))).collect();
        self.held(tried, shown.join(", "));
        Ok(())
    }

    /// Connects and asks without a token.
    async fn health(&mut self, endpoint: &Endpoint) -> Result<(), Box<Broken>> {
        let tried = format!("GET {}{HEALTH}", endpoint.origin());
        let answer = self.ask(endpoint, &tried, Method::GET, HEALTH, None).await?;
        match verdict::of_health(answer.status()) {
            None => self.held(tried, answer.status().to_string()),
            Some((step, meaning)) => return Err(broken(step, tried, format!("{meaning} ({})", answer.status()))),
        }
        Ok(())
    }

    /// Asks with the bearer for something that does not exist.
    async fn read(&mut self, endpoint: &Endpoint, attempt: &Attempt, metrics: &Metrics) -> Result<(), Box<Broken>> {
        let tried = format!("HEAD {}{READ}", endpoint.origin());
        let bearer = match &attempt.outcome {
            Ok(Some(bearer)) => Some(bearer.clone()),
            Ok(None) | Err(_) => self.signed(endpoint.origin(), metrics).await,
        };
        let Some(bearer) = bearer else {
            return Err(broken(SetupStep::Proof, tried, "there is no bearer to send"));
        };
        let answer = self.ask(endpoint, &tried, Method::HEAD, READ, Some(&bearer)).await?;
        let code = answer.headers().get(ERROR_CODE).and_then(|code| code.to_str().ok());
        match verdict::of_read(answer.status(), code.is_some(), &self.credential.kind) {
            None => {
                let code = code.map(|code| format!(" {code}")).unwrap_or_default();
                self.held(tried, format!("{}{code}: the call is authorised", answer.status()));
                Ok(())
            }
            Some((step, meaning)) => {
                let challenge = answer.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
                let challenge = challenge.map(|challenge| format!(", {challenge}")).unwrap_or_default();
                Err(broken(step, tried, format!("{meaning} ({}{challenge})", answer.status())))
            }
        }
    }

    /// The bearer of an access key, which signs each request.
    async fn signed(&self, origin: &str, metrics: &Metrics) -> Option<Bearer> {
        let one = std::slice::from_ref(self.credential);
        let credentials = Credentials::build(one, metrics.token(), &tokio::runtime::Handle::current()).ok()?;
        let source = credentials.get(&self.credential.name)?;
        timeout(ENDPOINT_TIME, source.acquire()).await.ok()?.ok()?;
        source.ready(RequestUrl { origin, path: READ })
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        tried: &str,
        method: Method,
        path: &str,
        bearer: Option<&Bearer>,
    ) -> Result<Response<Bytes>, Box<Broken>> {
        let mut request = Request::builder().method(method).uri(format!("{path}{VERSION}"));
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, bearer.header());
        }
        let no_answer = |err: &dyn std::error::Error| broken(SetupStep::EndpointNetwork, tried, err.to_string());
        let request = request.body(Empty::new()).map_err(|err| no_answer(&err))?;
        let answer = endpoint.ask(request, ENDPOINT_TIME).await;
        answer.map_err(|err| broken(SetupStep::EndpointNetwork, tried, in_one_line(&err)))
    }

    fn held(&mut self, what: impl Into<String>, result: impl Into<String>) {
        self.checks.push(Check { what: what.into(), result: result.into(), warning: false });
    }

    fn odd(&mut self, what: impl Into<String>, result: impl Into<String>) {
        self.checks.push(Check { what: what.into(), result: result.into(), warning: true });
    }
}

fn describe(leg: &Leg) -> String {
    match &leg.endpoint {
        Some(endpoint) => format!("{} at {endpoint}", leg.subject),
        None => leg.subject.clone(),
    }
}

fn refused(err: &CredentialError, attempt: &Attempt, kind: &CredentialKind, now: SystemTime) -> Box<Broken> {
    let step = verdict::of_acquisition(err, &attempt.legs, kind);
    let failed = attempt.legs.iter().rfind(|leg| matches!(leg.outcome, LegOutcome::Failed { .. }));
    let tried = failed.map_or_else(|| "obtain a token".to_owned(), describe);
    let mut broken = broken(step, tried, in_one_line(err));
    let clock = err.answer().and_then(|answer| answer.date);
    if let Some(skew) = clock.and_then(|theirs| noteworthy_skew(theirs, now)) {
        broken.came_back.push_str("; ");
        broken.came_back.push_str(&skew);
    }
    broken.codes = err.codes().to_vec();
    broken.correlation_id = err.correlation_id().map(str::to_owned);
    broken
}

/// Says what kind of network an address is of.
fn network_of(ip: IpAddr) -> &'static str {
    match ip {
        ip if ip.is_loopback() => "this host",
        IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() => "private",
        IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() => "private",
        IpAddr::V4(_) | IpAddr::V6(_) => "public",
    }
}

/// In the place of an endpoint's bearers: the doctor puts its own into the request.
#[derive(Debug)]
struct NoBearer;

impl BearerSource for NoBearer {
    fn ready(&self, _url: RequestUrl<'_>) -> Option<Bearer> {
        None
    }

    fn acquire(&self) -> BoxFuture<'_, Result<(), TokenUnavailable>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn replace(&self, _refused: Fingerprint) -> BoxFuture<'_, Result<(), TokenUnavailable>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn status(&self) -> CredentialStatus {
        CredentialStatus {
            state: CredentialState::Starting,
            fingerprint: None,
            expires_at: None,
            last_success: None,
            last_error: None,
        }
    }
}
