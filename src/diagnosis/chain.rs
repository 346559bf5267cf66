//! The checks of one endpoint up to the first failure: those of its credential, then connection, health check and authorised read.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderName, Method, Request, Response};
use http_body_util::Full;
use tokio::time::timeout;

use super::acquisition::Acquisition;
use super::cause::{self, ReadResponse};
use super::connectivity::{SERVER_TIMEOUT, Server};
use super::delivery::{self, Deliver};
use super::details::explained;
use super::failure::Failure;
use super::finding::{BrokenStep, Check, Finding, Progress};
use super::remediation::{self, Facts};
use crate::credential::{Bearer, CredentialSettings, NoBearer, RequestUrl, SetupStep};
use crate::endpoint::{Endpoint, EndpointSettings, Proxies, TlsClients, UnpooledError, is_from_front_end};
use crate::metrics::Label;
use crate::redact::in_one_line;
use crate::tls::Trust;

/// The header with SignalR's error code. A 404 without it is not from a SignalR resource.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

const HEALTH: &str = "/api/health";
/// The existence check of a user that does not exist, in a hub that need not exist. It changes nothing, and SignalR answers 404 to an
/// authorised caller.
const READ: &str = "/api/hubs/signalr_gateway_doctor/users/signalr-gateway-doctor";
const VERSION: &str = "?api-version=2022-06-01";

/// The examination of one endpoint.
pub(super) struct Chain<'a, P> {
    endpoint: &'a Arc<EndpointSettings>,
    credential: &'a CredentialSettings,
    acquisition: &'a Acquisition,
    checks: Vec<Check>,
    progress: P,
}

/// Returns the finding about an endpoint whose credential is not configured.
pub(super) fn no_credential(endpoint: &EndpointSettings) -> Finding {
    let problem = format!("the configuration has no credential `{}`", endpoint.credential);
    let failure = Failure::new(SetupStep::Configuration, "find the credential", problem);
    finding(endpoint, None, Vec::new(), Some(remediation::without_credential(failure)))
}

/// Returns the finding about an endpoint that was not contacted, from the acquisition alone.
pub(super) fn acquisition_only(
    endpoint: &Arc<EndpointSettings>,
    credential: &CredentialSettings,
    acquisition: &Acquisition,
) -> Finding {
    let chain = Chain::new(endpoint, credential, acquisition, |_: Progress<'_>| ());
    chain.finish(acquisition.failure.clone())
}

fn finding(
    endpoint: &EndpointSettings,
    credential: Option<&CredentialSettings>,
    checks: Vec<Check>,
    broken: Option<BrokenStep>,
) -> Finding {
    let identity = credential.and_then(|credential| credential.kind.facts().identity);
    Finding {
        endpoint: endpoint.name.to_string(),
        url: endpoint.origin.to_string(),
        credential: endpoint.credential.to_string(),
        tenant: identity.and_then(|identity| identity.tenant().map(str::to_owned)),
        checks,
        broken,
    }
}

impl<'a, P: Fn(Progress<'_>)> Chain<'a, P> {
    pub(super) fn new(
        endpoint: &'a Arc<EndpointSettings>,
        credential: &'a CredentialSettings,
        acquisition: &'a Acquisition,
        progress: P,
    ) -> Self {
        Self { endpoint, credential, acquisition, checks: acquisition.checks.clone(), progress }
    }

    /// Runs the checks up to the first failure.
    pub(super) async fn run(mut self, deliver: Deliver<'_>) -> Finding {
        let failure = match &self.acquisition.failure {
            Some(failure) => Some(failure.clone()),
            None => self.check_endpoint(deliver).await.err().map(|failure| *failure),
        };
        self.finish(failure)
    }

    fn finish(self, failure: Option<Failure>) -> Finding {
        let token = self.acquisition.bearer.as_ref().and_then(Bearer::claims);
        let facts = Facts {
            credential: self.credential,
            endpoint: self.endpoint,
            assertion: self.acquisition.assertion.as_ref(),
            token: token.as_ref(),
            object_id: self.acquisition.object_id.as_deref(),
        };
        let broken = failure.map(|failure| explained(failure, &facts));
        finding(self.endpoint, Some(self.credential), self.checks, broken)
    }

    async fn check_endpoint(&mut self, deliver: Deliver<'_>) -> Result<(), Box<Failure>> {
        self.check_connectivity().await?;
        let (mut tls_clients, mut proxies) = (TlsClients::default(), Proxies::default());
        let endpoint =
            Endpoint::build(self.endpoint, Arc::new(NoBearer), Label::other(), &mut tls_clients, &mut proxies);
        let endpoint = endpoint
            .map_err(|err| Box::new(Failure::new(SetupStep::Configuration, "build the endpoint", in_one_line(&err))))?;
        self.check_health(&endpoint).await?;
        self.check_read(&endpoint).await?;
        let Some(hub) = deliver.hub() else { return Ok(()) };
        self.check_delivery(&endpoint, hub).await
    }

    /// Delivers a message to a client.
    async fn check_delivery(&mut self, endpoint: &Endpoint, hub: &str) -> Result<(), Box<Failure>> {
        let name = self.endpoint.name.as_str();
        let report = |what: &str| (self.progress)(Progress::Trying { endpoint: name, what });
        let delivered = delivery::deliver(endpoint, hub, self.acquisition, report).await;
        self.checks.extend(delivered.passed);
        delivered.failure.map_or(Ok(()), |failure| Err(Box::new(failure)))
    }

    async fn check_connectivity(&mut self) -> Result<(), Box<Failure>> {
        let origin = &self.endpoint.origin;
        self.report(&format!("connect to {origin}"));
        let trust = origin.tls.then(|| Trust::from_ca_file(self.endpoint.ca_file.as_deref()));
        let proxy = self.endpoint.proxy.clone();
        let server = Server { host: origin.host.clone(), port: origin.port, trust, proxy };
        let connectivity = server.test(SERVER_TIMEOUT).await;
        self.checks.extend(connectivity.passed);
        match connectivity.failure {
            None => Ok(()),
            Some(failed) => Err(Box::new(Failure::of_layer(failed, SetupStep::EndpointNetwork))),
        }
    }

    /// Requests `/api/health`, without a token.
    async fn check_health(&mut self, endpoint: &Endpoint) -> Result<(), Box<Failure>> {
        let tried = format!("GET {}{HEALTH}", endpoint.origin());
        let response = self.request(endpoint, &tried, Method::GET, HEALTH, None).await?;
        match cause::of_health(response.status()) {
            None => {
                self.checks.push(Check::passed(tried, response.status().to_string()));
                Ok(())
            }
            Some((cause, meaning)) => {
                let answer = response.status().to_string();
                let failure = Failure::new(cause, tried, format!("{meaning} ({answer})"));
                let remedy = cause::remedy_of_status(response.status());
                Err(Box::new(Failure { remedy, answer: Some(answer), ..failure }))
            }
        }
    }

    /// Requests [`READ`], with the bearer.
    async fn check_read(&mut self, endpoint: &Endpoint) -> Result<(), Box<Failure>> {
        let tried = format!("HEAD {}{READ}", endpoint.origin());
        let url = RequestUrl { origin: endpoint.origin(), path: READ };
        let signed = || self.acquisition.key.as_ref().and_then(|key| key.sign(url));
        let bearer = self.acquisition.bearer.clone().or_else(signed);
        let Some(bearer) = bearer else {
            return Err(Box::new(Failure::new(SetupStep::Proof, tried, "there is no bearer to send")));
        };
        let response = self.request(endpoint, &tried, Method::HEAD, READ, Some(&bearer)).await?;
        let read = ReadResponse {
            status: response.status(),
            error_code: header(&response, &ERROR_CODE),
            is_from_front_end: is_from_front_end(response.headers()),
        };
        match cause::of_read(&read, &self.credential.kind) {
            None => {
                let code = read.error_code.map(|code| format!(" {code}")).unwrap_or_default();
                let result = format!("{}{code}: the call is authorised", response.status());
                self.checks.push(Check::passed(tried, result));
                Ok(())
            }
            Some((cause, meaning)) => {
                let challenge = header(&response, &WWW_AUTHENTICATE);
                let challenge = challenge.map(|challenge| format!(", {challenge}")).unwrap_or_default();
                let answer = format!("{}{challenge}", response.status());
                let failure = Failure::new(cause, tried, format!("{meaning} ({answer})"));
                let remedy = cause::remedy_of_status(response.status());
                Err(Box::new(Failure { remedy, answer: Some(answer), ..failure }))
            }
        }
    }

    async fn request(
        &self,
        endpoint: &Endpoint,
        tried: &str,
        method: Method,
        path: &str,
        bearer: Option<&Bearer>,
    ) -> Result<Response<Bytes>, Box<Failure>> {
        self.report(tried);
        let mut request = Request::builder().method(method).uri(format!("{path}{VERSION}"));
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, bearer.header());
        }
        let no_response = |problem: String| Box::new(Failure::new(SetupStep::EndpointNetwork, tried, problem));
        let request = request.body(Full::default()).map_err(|err| no_response(err.to_string()))?;
        // The endpoint's own timeouts of the connection are longer than the time of a check.
        let response = timeout(SERVER_TIMEOUT, endpoint.send_unpooled(request, SERVER_TIMEOUT)).await;
        let response = response.unwrap_or(Err(UnpooledError::Timeout(SERVER_TIMEOUT)));
        response.map_err(|err| no_response(in_one_line(&err)))
    }

    fn report(&self, what: &str) {
        (self.progress)(Progress::Trying { endpoint: self.endpoint.name.as_str(), what });
    }
}

fn header<'r>(response: &'r Response<Bytes>, name: &HeaderName) -> Option<&'r str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}
