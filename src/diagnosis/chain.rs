//! The chain of one endpoint: what its credential's acquisition found, then each link to the endpoint, tried when those
//! before it held.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, SERVER, WWW_AUTHENTICATE};
use http::{HeaderName, Method, Request, Response};
use http_body_util::Empty;
use tokio::time::timeout;

use super::acquisition::{Acquisition, Link};
use super::mend::{self, Known};
use super::reach::Server;
use super::verdict::{self, Read};
use super::{Broken, Check, ENDPOINT_TIME, Finding, Progress};
use crate::credential::{Bearer, CredentialSettings, Credentials, NoBearer, RequestUrl, SetupStep, in_one_line};
use crate::endpoint::{Endpoint, EndpointSettings};
use crate::metrics::Metrics;
use crate::tls::Trust;

/// Tells which thing a 404 is about: without it the answer is not from a SignalR resource.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

const HEALTH: &str = "/api/health";
/// Asks for a user who does not exist, in a hub that need not: changes nothing, and answers 404 to whoever may ask.
const READ: &str = "/api/hubs/signalr_gateway_doctor/users/signalr-gateway-doctor";
const VERSION: &str = "?api-version=2022-06-01";

/// One endpoint under examination.
pub(super) struct Chain<'a, P> {
    endpoint: &'a EndpointSettings,
    credential: &'a CredentialSettings,
    acquisition: &'a Acquisition,
    checks: Vec<Check>,
    progress: P,
}

/// The finding about an endpoint whose credential is not configured.
pub(super) fn no_credential(endpoint: &EndpointSettings) -> Finding {
    let problem = format!("the configuration has no credential `{}`", endpoint.credential);
    let link = Link::new(SetupStep::Configuration, "find the credential", problem);
    finding(endpoint, Vec::new(), Some(mend::without_credential(link)))
}

/// The finding about an endpoint that was left alone.
pub(super) fn without_endpoint(
    endpoint: &EndpointSettings,
    credential: &CredentialSettings,
    acquisition: &Acquisition,
) -> Finding {
    let chain = Chain::new(endpoint, credential, acquisition, |_: Progress<'_>| ());
    chain.ended(acquisition.broken.clone())
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

impl<'a, P: Fn(Progress<'_>)> Chain<'a, P> {
    pub(super) fn new(
        endpoint: &'a EndpointSettings,
        credential: &'a CredentialSettings,
        acquisition: &'a Acquisition,
        progress: P,
    ) -> Self {
        Self { endpoint, credential, acquisition, checks: acquisition.checks.clone(), progress }
    }

    /// Follows the chain to its end or its first broken link.
    pub(super) async fn run(mut self, metrics: &Metrics) -> Finding {
        let broken = match &self.acquisition.broken {
            Some(link) => Some(link.clone()),
            None => self.links(metrics).await.err().map(|link| *link),
        };
        self.ended(broken)
    }

    fn ended(self, link: Option<Link>) -> Finding {
        let known = Known {
            credential: self.credential,
            endpoint: self.endpoint,
            assertion: self.acquisition.assertion.as_ref(),
            object_id: self.acquisition.object_id.as_deref(),
        };
        let broken = link.map(|link| mend::fill_in(link, &known));
        finding(self.endpoint, self.checks, broken)
    }

    async fn links(&mut self, metrics: &Metrics) -> Result<(), Box<Link>> {
        self.way().await?;
        let endpoint = Endpoint::build(self.endpoint, Arc::new(NoBearer), metrics.endpoints())
            .map_err(|err| Box::new(Link::new(SetupStep::Configuration, "build the endpoint", in_one_line(&err))))?;
        self.health(&endpoint).await?;
        self.read(&endpoint, metrics).await
    }

    /// Tries name resolution, TCP and TLS each by itself.
    async fn way(&mut self) -> Result<(), Box<Link>> {
        let origin = &self.endpoint.origin;
        self.trying(&format!("the way to {origin}"));
        let trust = origin.tls.then(|| Trust::of(self.endpoint.ca_file.as_deref()));
        let server = Server { host: origin.host.clone(), port: origin.port, trust };
        let way = server.try_way(ENDPOINT_TIME).await;
        self.checks.extend(way.held);
        match way.end {
            None => Ok(()),
            Some(end) => {
                let link = Link::new(SetupStep::EndpointNetwork, end.tried, end.came_back);
                Err(Box::new(Link { part: Some(end.part), ..link }))
            }
        }
    }

    /// Asks without a token.
    async fn health(&mut self, endpoint: &Endpoint) -> Result<(), Box<Link>> {
        let tried = format!("GET {}{HEALTH}", endpoint.origin());
        let answer = self.ask(endpoint, &tried, Method::GET, HEALTH, None).await?;
        match verdict::of_health(answer.status()) {
            None => {
                self.checks.push(Check::held(tried, answer.status().to_string()));
                Ok(())
            }
            Some((blame, meaning)) => {
                Err(Box::new(Link::new(blame, tried, format!("{meaning} ({})", answer.status()))))
            }
        }
    }

    /// Asks with the bearer for something that does not exist.
    async fn read(&mut self, endpoint: &Endpoint, metrics: &Metrics) -> Result<(), Box<Link>> {
        let tried = format!("HEAD {}{READ}", endpoint.origin());
        let bearer = match &self.acquisition.bearer {
            Some(bearer) => Some(bearer.clone()),
            None => self.signed(endpoint.origin(), metrics).await,
        };
        let Some(bearer) = bearer else {
            return Err(Box::new(Link::new(SetupStep::Proof, tried, "there is no bearer to send")));
        };
        let answer = self.ask(endpoint, &tried, Method::HEAD, READ, Some(&bearer)).await?;
        let read = Read {
            status: answer.status(),
            error_code: header(&answer, &ERROR_CODE),
            is_of_front: header(&answer, &SERVER).is_some_and(|server| server.contains("nginx"))
                || header(&answer, &CONTENT_TYPE).is_some_and(|content| content.starts_with("text/html")),
        };
        match verdict::of_read(&read, &self.credential.kind) {
            None => {
                let code = read.error_code.map(|code| format!(" {code}")).unwrap_or_default();
                let result = format!("{}{code}: the call is authorised", answer.status());
                self.checks.push(Check::held(tried, result));
                Ok(())
            }
            Some((blame, meaning)) => {
                let challenge = header(&answer, &WWW_AUTHENTICATE);
                let challenge = challenge.map(|challenge| format!(", {challenge}")).unwrap_or_default();
                Err(Box::new(Link::new(blame, tried, format!("{meaning} ({}{challenge})", answer.status()))))
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
    ) -> Result<Response<Bytes>, Box<Link>> {
        self.trying(tried);
        let mut request = Request::builder().method(method).uri(format!("{path}{VERSION}"));
        if let Some(bearer) = bearer {
            request = request.header(AUTHORIZATION, bearer.header());
        }
        let no_answer = |problem: String| Box::new(Link::new(SetupStep::EndpointNetwork, tried, problem));
        let request = request.body(Empty::new()).map_err(|err| no_answer(err.to_string()))?;
        endpoint.ask(request, ENDPOINT_TIME).await.map_err(|err| no_answer(in_one_line(&err)))
    }

    fn trying(&self, what: &str) {
        (self.progress)(Progress::Trying { endpoint: self.endpoint.name.as_str(), what });
    }
}

fn header<'r>(answer: &'r Response<Bytes>, name: &HeaderName) -> Option<&'r str> {
    answer.headers().get(name).and_then(|value| value.to_str().ok())
}
