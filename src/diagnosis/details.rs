//! What is known about a broken step: where, with which identity, and what the other side said. What decides comes first.

use std::borrow::Cow;
use std::time::SystemTime;

use super::claims::{self, noteworthy_skew};
use super::clock::clock;
use super::failure::Failure;
use super::finding::{BrokenStep, Detail};
use super::remediation::{self, Facts};
use crate::credential::{
    AcquisitionStep, AppSettings, AssertionSettings, CertificateError, Claims, CredentialError, CredentialKind,
    IdentityEndpoint, IdentityEndpointKind, ManagedIdentitySettings, NoResponse, NotAfter, Proof, ResponseError,
    SetupStep, is_about_time, presented_assertion, token_time,
};
use crate::redact::{is_guid, one_line};
use crate::tls::{CertificateProblem, RefusedCertificate};

/// The most details of one step.
const MAX_DETAILS: usize = 8;
/// The longest value, in characters.
const MAX_VALUE: usize = 300;

/// The details of one step, in order.
struct Details {
    /// When the step was tried.
    at: SystemTime,
    details: Vec<Detail>,
}

/// Returns what is known about an acquisition that failed at a time.
pub(super) fn of_acquisition(
    error: &CredentialError,
    steps: &[AcquisitionStep],
    kind: &CredentialKind,
    step: SetupStep,
    at: SystemTime,
) -> Vec<Detail> {
    let error = error.innermost();
    let response = error.response();
    let (assertion, certificate) = (presented_assertion(steps), certificate_end(steps));
    let mut details = Details { at, details: Vec::new() };
    let entras_clock = response.and_then(|response| response.date);
    if is_about_time(error.codes()) || entras_clock.is_some_and(|theirs| noteworthy_skew(theirs, at).is_some()) {
        details.window(assertion);
        details.clocks(entras_clock);
    }
    if step == SetupStep::Federation {
        details.claims(assertion);
    }
    if let Some(response) = response {
        details.answer(response);
    }
    match error {
        CredentialError::NoResponse { endpoint, source } => details.no_response(endpoint, source, kind),
        CredentialError::Certificate(CertificateError::Expired { .. } | CertificateError::NotYetValid { .. }) => {
            details.certificate(kind, certificate);
            details.clocks(None);
        }
        CredentialError::ExpiredFile { expired, .. } => {
            details.add("token expired", clock(*expired, at));
            details.clocks(None);
        }
        CredentialError::Response(_)
        | CredentialError::Unreadable(_)
        | CredentialError::Certificate(_)
        | CredentialError::Command(_)
        | CredentialError::Settings(_)
        | CredentialError::RejectedByLibrary(_)
        | CredentialError::NotAToken(_)
        | CredentialError::ExpiredOnArrival
        | CredentialError::Deadline(_)
        | CredentialError::OtherRequest(_)
        | CredentialError::Panicked => {}
    }
    details.identity(kind, certificate);
    if let Some(id) = error.correlation_id() {
        details.add("correlation id", id);
    }
    details.finish()
}

/// Adds the remediation to a failure, and what is known if it has no details yet.
pub(super) fn explained(failure: Failure, facts: &Facts<'_>) -> BrokenStep {
    let details = if failure.details.is_empty() { of_endpoint(&failure, facts) } else { failure.details };
    remediation::of(Failure { details, ..failure }, facts)
}

/// Returns what is known about the failure of an endpoint.
fn of_endpoint(failure: &Failure, facts: &Facts<'_>) -> Vec<Detail> {
    let mut details = Details { at: SystemTime::now(), details: Vec::new() };
    let endpoint = facts.endpoint;
    let (name, origin) = (&endpoint.name, &endpoint.origin);
    let url = format!("{} (`endpoints.{name}.url`)", origin.with_port());
    match failure.cause.step {
        SetupStep::Access => {
            details.token(facts, &["oid", "appid"]);
            if !matches!(facts.credential.kind, CredentialKind::AccessKey { .. }) {
                details.add("role", "SignalR REST API Owner, on this resource or above it");
            }
            details.add("url", url);
            details.endpoint_answer(failure);
            details.token(facts, &["tid", "aud"]);
        }
        SetupStep::EndpointNetwork | SetupStep::Proxy | SetupStep::Delivery | SetupStep::Configuration
            if failure.answer.is_some() =>
        {
            details.add("url", url);
            details.endpoint_answer(failure);
            if failure.cause.step == SetupStep::Configuration {
                details.token(facts, &["tid", "aud", "appid", "oid"]);
            }
        }
        SetupStep::EndpointNetwork | SetupStep::Proxy | SetupStep::Delivery => {
            details.add("url", url);
            match &failure.certificate {
                Some(certificate) => details.refused(certificate),
                None => details.add("error", &failure.result),
            }
        }
        SetupStep::Configuration
        | SetupStep::Proof
        | SetupStep::IdentityEndpoint
        | SetupStep::HostIdentity
        | SetupStep::App
        | SetupStep::AppProof
        | SetupStep::Federation
        | SetupStep::EnterpriseApplication
        | SetupStep::TenantPolicy
        | SetupStep::ResourceProvider => {}
    }
    if let Some(proxy) = failure.proxy.as_ref().or(endpoint.proxy.as_ref()).filter(|_| !details.details.is_empty()) {
        details.add("proxy", format!("{proxy} (`{}`)", proxy.configured_by));
    }
    details.finish()
}

impl Details {
    fn add(&mut self, name: &'static str, value: impl AsRef<str>) {
        let value: String = one_line(value.as_ref()).chars().take(MAX_VALUE).collect();
        if !value.is_empty() && !self.details.iter().any(|detail| detail.name == name) {
            self.details.push(Detail { name, value });
        }
    }

    fn finish(mut self) -> Vec<Detail> {
        self.details.truncate(MAX_DETAILS);
        self.details
    }

    /// Adds when the presented assertion is valid.
    fn window(&mut self, assertion: Option<&Claims>) {
        let time = |claim| token_time(assertion?, claim).map(|time| format!("{claim} {}", clock(time, self.at)));
        let window: Vec<String> = ["nbf", "exp"].into_iter().filter_map(time).collect();
        self.add("assertion", window.join(", "));
    }

    /// Formats a period of ISO times as the other times.
    fn period(&self, text: &str) -> String {
        let time = |text| humantime::parse_rfc3339(text).map(|time| clock(time, self.at));
        match text.split_once(" to ").map(|(begins, ends)| (time(begins), time(ends))) {
            Some((Ok(begins), Ok(ends))) => format!("{begins} to {ends}"),
            Some(_) | None => text.to_owned(),
        }
    }

    /// Adds this host's clock when the step was tried, compared with Entra's if that is known.
    fn clocks(&mut self, theirs: Option<SystemTime>) {
        let ours = format!("{} at the last try", clock(self.at, self.at));
        let compared = theirs.map(|theirs| {
            let skew = noteworthy_skew(theirs, self.at);
            let skew = skew.unwrap_or_else(|| "less than a minute apart".to_owned());
            format!(" ({skew}: {})", clock(theirs, self.at))
        });
        self.add("clock of this host", ours + &compared.unwrap_or_default());
    }

    /// Adds the claims that a federated credential must match.
    fn claims(&mut self, assertion: Option<&Claims>) {
        for (name, claim) in [("assertion iss", "iss"), ("assertion sub", "sub"), ("assertion aud", "aud")] {
            if let Some(value) = assertion.and_then(|claims| claims.get(claim)) {
                self.add(name, claims::text(value));
            }
        }
    }

    fn answer(&mut self, response: &ResponseError) {
        let name = match response.endpoint.kind {
            IdentityEndpointKind::Entra => "answer of Entra",
            IdentityEndpointKind::InstanceMetadata
            | IdentityEndpointKind::AppService
            | IdentityEndpointKind::Provider(_) => "answer",
        };
        let error = response.error.as_ref().map(|error| format!(" {error}"));
        let error = format!("{}{}", response.status.as_u16(), error.unwrap_or_default());
        let codes = response.codes.iter().map(|code| format!("AADSTS{code}"));
        self.add(name, std::iter::once(error).chain(codes).collect::<Vec<_>>().join(", "));
        if response.endpoint.kind != IdentityEndpointKind::Entra {
            self.add("identity endpoint", response.endpoint.to_string());
        }
    }

    fn no_response(&mut self, endpoint: &IdentityEndpoint, why: &NoResponse, kind: &CredentialKind) {
        match (endpoint.kind, kind) {
            (IdentityEndpointKind::Entra, CredentialKind::App { app, .. }) => self.authority(app),
            _ => self.add("identity endpoint", endpoint.to_string()),
        }
        match why.certificate() {
            Some(certificate) => self.refused(certificate),
            None => self.add("error", why.root().map_or_else(|| why.to_string(), Cow::into_owned)),
        }
        let CredentialKind::App { app, .. } = kind else { return };
        let origin: Option<http::Uri> = app.authority.origin().parse().ok();
        let host = origin.as_ref().and_then(|origin| origin.host()).unwrap_or_default();
        let proxy = app.egress.proxy_for(host.trim_start_matches('[').trim_end_matches(']'));
        if let Some(proxy) = proxy.filter(|_| endpoint.kind == IdentityEndpointKind::Entra) {
            self.add("proxy", format!("{proxy} (`{}`)", proxy.configured_by));
        }
    }

    /// Adds what the certificate of a server says that is refused, and which CAs are trusted.
    fn refused(&mut self, certificate: &RefusedCertificate) {
        for (name, value) in certificate.details() {
            let value = if name == "valid" { self.period(&value) } else { value };
            self.add(name, value);
        }
        if matches!(certificate.problem(), CertificateProblem::NotValid { .. }) {
            self.clocks(None);
        }
    }

    fn authority(&mut self, app: &AppSettings) {
        let origin = app.authority.origin();
        let has_port = origin.rsplit(':').next().is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        self.add("authority", if has_port { origin.to_owned() } else { format!("{origin}:443") });
    }

    /// Adds the identity that the credential has, and what proves it.
    fn identity(&mut self, kind: &CredentialKind, certificate: Option<SystemTime>) {
        match kind {
            CredentialKind::App { app, tenant } => {
                self.add("client_id", &app.client_id);
                match &app.proof {
                    Proof::Secret(source) => self.add("client secret", source.to_string()),
                    Proof::Certificate(_) => self.certificate(kind, certificate),
                    Proof::Federated(source) => self.add("assertion from", assertion_source(source)),
                }
                self.add("endpoint's tenant", tenant);
                self.authority(app);
            }
            CredentialKind::ManagedIdentity { identity, .. } => self.managed_identity(identity),
            CredentialKind::AzureCli { tenant, .. } => {
                self.add("identity", "the user who is signed in to `az` on this host");
                self.add("tenant", tenant);
            }
            CredentialKind::AccessKey { key } => self.add("access key", key.to_string()),
            CredentialKind::TokenFile { path } => self.add("token file", path.display().to_string()),
        }
    }

    fn managed_identity(&mut self, identity: &ManagedIdentitySettings) {
        self.add("identity", identity.id.to_string());
        if let Some(endpoint) = &identity.imds_endpoint {
            self.add("imds_endpoint", endpoint);
        }
    }

    fn certificate(&mut self, kind: &CredentialKind, ends: Option<SystemTime>) {
        let CredentialKind::App { app, .. } = kind else { return };
        let Proof::Certificate(certificate) = &app.proof else { return };
        let ends = ends.map(|ends| {
            let verb = if ends <= self.at { "expired" } else { "expires" };
            format!(", {verb} {}", clock(ends, self.at))
        });
        self.add("certificate", format!("{}{}", certificate.certificate.display(), ends.unwrap_or_default()));
    }

    /// Adds claims of the endpoint's token. They are not verified.
    fn token(&mut self, facts: &Facts<'_>, claims: &[&str]) {
        let claim = |names: &[&str]| {
            let claims = facts.token?;
            names.iter().find_map(|name| claims.get(*name)).map(claims::text)
        };
        for name in claims {
            let (name, value) = match *name {
                "oid" => ("object id", claim(&["oid"]).filter(|id| is_guid(id))),
                "appid" => ("app id", claim(&["appid", "azp"]).filter(|id| is_guid(id))),
                "tid" => ("tenant of the token", claim(&["tid"])),
                _ => ("audience of the token", claim(&["aud"])),
            };
            self.add(name, value.unwrap_or_default());
        }
    }

    fn endpoint_answer(&mut self, failure: &Failure) {
        self.add("answer", failure.answer.as_deref().unwrap_or_default());
    }
}

/// Returns when the certificate that was read ends.
fn certificate_end(steps: &[AcquisitionStep]) -> Option<SystemTime> {
    steps.iter().rev().find_map(|step| match step.not_after {
        Some(NotAfter::Certificate(ends)) => Some(ends),
        Some(NotAfter::AssertionFile(_)) | None => None,
    })
}

/// Returns where the assertion of a federated credential comes from.
fn assertion_source(source: &AssertionSettings) -> String {
    match source {
        AssertionSettings::ManagedIdentity { identity, .. } => identity.id.to_string(),
        AssertionSettings::File { path } => format!("file {}", path.display()),
        AssertionSettings::GithubActions { .. } => "the OIDC provider of GitHub Actions".to_owned(),
        AssertionSettings::AzurePipelines { service_connection, .. } => {
            format!("the OIDC provider of Azure Pipelines, service connection {service_connection}")
        }
        AssertionSettings::GcpMetadata { endpoint, service_account, .. } => {
            format!("the metadata server {endpoint}, service account {service_account}")
        }
        AssertionSettings::OAuth2(settings) => format!("{} (client {})", settings.token_url, settings.client_id),
        AssertionSettings::Command(command) => format!("the program {}", command.program.display()),
    }
}

#[cfg(test)]
mod tests;
