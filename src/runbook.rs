//! Links to the runbook: one section for each error kind, each cause of a failure and each condition that the log reports.
//!
//! The pages are `config/guide/runbook*.md`. A section's anchor is derived from its heading, as GitHub and mdBook derive it,
//! and does not change. Alerts link to `runbook.md` themselves; a test checks them too.

use std::fmt;
use std::sync::OnceLock;

use crate::metrics::{ErrorKind, LostLine, TokenErrorReason, UpstreamErrorReason, label_enum};

/// The folder of the pages.
const GUIDE: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/config/guide");

/// The configuration file of this process as an argument of a shell, for commands.
static CONFIG: OnceLock<String> = OnceLock::new();

/// Sets the configuration file of this process, as an argument of a shell, for the commands that the log shows.
pub fn set_config(argument: String) {
    // The first one counts: it is that of the process.
    let _is_set = CONFIG.set(argument);
}

/// Returns a command of the gateway with the configuration file of this process, if it has one.
fn command(name: &str) -> String {
    match CONFIG.get() {
        Some(config) => format!("signalr-gateway {name} --config {config}"),
        None => format!("signalr-gateway {name}"),
    }
}

/// A section of the runbook. It displays as the section's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// An error response of the gateway.
    Error(ErrorKind),
    /// Why an attempt at an endpoint failed.
    Endpoint(UpstreamErrorReason),
    /// A response by which an endpoint refuses calls.
    Refusal(EndpointRefusal),
    /// Why there is no new token.
    Token(TokenErrorReason),
    /// A condition that the log reports.
    Condition(Condition),
}

label_enum! {
    /// A response by which an endpoint refuses calls.
    EndpointRefusal {
        /// It rejects the token.
        Unauthorized = "401",
        /// The token lacks a permission, or the network rules block the gateway.
        Forbidden = "403",
        /// It throttles its callers.
        Throttled = "429",
        /// It failed.
        ServerError = "5xx",
    }
}

impl EndpointRefusal {
    /// Returns the refusal that a status stands for.
    pub const fn of(status: u16) -> Option<Self> {
        match status {
            401 => Some(Self::Unauthorized),
            403 => Some(Self::Forbidden),
            429 => Some(Self::Throttled),
            500.. => Some(Self::ServerError),
            _ => None,
        }
    }
}

label_enum! {
    /// A condition that the log reports and that is no failure of a single call.
    Condition {
        /// The canary of an endpoint fails.
        CanaryFailed = "canary_failed",
        /// The circuit of an endpoint is open.
        CircuitOpen = "circuit_open",
        /// A new configuration was rejected.
        ConfigurationRejected = "configuration_rejected",
        /// A part of the configuration takes effect only after a restart.
        RestartNeeded = "restart_needed",
        /// The TLS files of a listener cannot be used, or need attention.
        TlsFiles = "tls_files",
        /// A CA file cannot be used, or needs attention.
        CaFile = "ca_file",
        /// A secret, key, certificate or token file needs attention.
        CredentialFile = "credential_file",
        /// A certificate of a caller identifies nobody.
        CallerWithoutIdentity = "caller_without_identity",
        /// A caller was refused because of its certificate.
        CallerCertificate = "caller_certificate",
        /// A connection had no valid PROXY header.
        ProxyProtocol = "proxy_protocol",
        /// The shared idempotency store is out of reach.
        StoreOut = "store_out",
        /// The settings of the shared idempotency store do not fit.
        StoreSettings = "store_settings",
        /// Connections of callers cannot be accepted.
        CannotAccept = "cannot_accept",
        /// The limit of open files is low.
        OpenFiles = "open_files",
        /// A file system does not respond.
        SlowFiles = "slow_files",
        /// Log lines were dropped or left out.
        LostLines = "lost_lines",
        /// The trace collector does not accept spans.
        TraceCollector = "trace_collector",
        /// Requests or connections were cut off.
        CutOff = "cut_off",
        /// The configuration is valid, and something in it is probably not meant.
        ConfigurationWarning = "configuration_warning",
        /// The service manager cannot be informed, or its sockets do not fit the listeners.
        ServiceManager = "service_manager",
        /// The ready file cannot be written.
        ReadyFile = "ready_file",
        /// The path of a closed Unix socket cannot be removed.
        SocketFile = "socket_file",
        /// A worker does not respond, or a part of the gateway panicked.
        WorkerFailed = "worker_failed",
    }
}

impl Section {
    /// Returns every section.
    pub fn all() -> impl Iterator<Item = Self> {
        let errors = ErrorKind::ALL.iter().copied().map(Self::Error);
        let endpoints = UpstreamErrorReason::ALL.iter().copied().map(Self::Endpoint);
        let refusals = EndpointRefusal::ALL.iter().copied().map(Self::Refusal);
        let tokens = TokenErrorReason::ALL.iter().copied().map(Self::Token);
        let conditions = Condition::ALL.iter().copied().map(Self::Condition);
        errors.chain(endpoints).chain(refusals).chain(tokens).chain(conditions)
    }

    /// Returns what the operator can do, in one sentence for the log; `None` for errors that only the caller can correct.
    #[cold]
    pub const fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Error(kind) => error_remedy(kind),
            Self::Endpoint(reason) => Some(endpoint_remedy(reason)),
            Self::Refusal(refusal) => Some(match refusal {
                EndpointRefusal::Unauthorized => {
                    "correct the `tenant` of the credential, or `url`: the token must be of the resource's tenant; `signalr-gateway \
                     doctor` compares tenant and audience"
                }
                EndpointRefusal::Forbidden => {
                    "as an owner of the resource, assign the role SignalR REST API Owner on it to the object id in the token; \
                     `signalr-gateway doctor` prints the command; a new role takes up to 30 minutes"
                }
                EndpointRefusal::Throttled => "add units to the resource, or send less: it throttles the gateway",
                EndpointRefusal::ServerError => {
                    "see the resource's health in the Azure portal (Help, Resource health): the service itself fails; if it is \
                     available there, open a support request"
                }
            }),
            Self::Token(reason) => Some(token_remedy(reason)),
            Self::Condition(condition) => Some(condition_remedy(condition)),
        }
    }

    /// Returns what the operator can do, with the configuration file of this process in its commands.
    pub fn remedy_here(self) -> Option<String> {
        Some(self.remedy()?.replace("signalr-gateway check`", &format!("{}`", command("check"))))
    }

    /// Returns what the operator can do about an endpoint, with the keys of its configuration and the command that examines it.
    pub fn remedy_at(self, endpoint: &str) -> Option<String> {
        let doctor = format!("{} --endpoint {endpoint}`", command("doctor"));
        let mut remedy = self.remedy()?.replace("signalr-gateway doctor`", &doctor);
        for key in ["url", "ca_file"] {
            remedy = remedy.replace(&format!("`{key}`"), &format!("`endpoints.{endpoint}.{key}`"));
        }
        Some(remedy)
    }

    /// Returns the URL without its anchor, the beginning of the anchor, and the label that completes it.
    const fn parts(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Error(kind) => ("runbook-errors.md", "error", kind.label()),
            Self::Endpoint(reason) => ("runbook-causes.md", "endpoint", reason.label()),
            Self::Refusal(refusal) => ("runbook-causes.md", "endpoint", refusal.label()),
            Self::Token(reason) => ("runbook-causes.md", "token", reason.label()),
            Self::Condition(condition) => ("runbook-log.md", "log", condition.label()),
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (page, beginning, label) = self.parts();
        write!(f, "{GUIDE}/{page}#{beginning}")?;
        label.split('_').try_for_each(|word| write!(f, "-{word}"))
    }
}

const fn error_remedy(kind: ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::TokenUnavailable => "see the credential's error at /status, or run `signalr-gateway doctor`",
        ErrorKind::EndpointUnavailable => "see the endpoint's last error at /status, or run `signalr-gateway doctor`",
        ErrorKind::UpstreamBroken => {
            "see what closes connections between the gateway and the endpoint: the resource, a proxy, a firewall"
        }
        ErrorKind::PartialDelivery => {
            "`signalr-gateway doctor` finds why it did not accept the call; the others have delivered it"
        }
        ErrorKind::SeveralOwners => "check that the endpoints of the route are different resources",
        ErrorKind::Deadline => {
            "see the endpoint's latency at /status; raise `timeouts.try` or `timeouts.request` if it is expected"
        }
        ErrorKind::Overload => "see what is slow at /status; raise the limit, or run more replicas",
        ErrorKind::StoreUnavailable => "see the store's error at /status, or run `signalr-gateway doctor`",
        ErrorKind::OutcomeUnknown => "see the line of the first call with the key: why it got no response",
        ErrorKind::Draining => "nothing, if the gateway was stopped or the listener removed on purpose",
        ErrorKind::EndpointDisabled => "enable the endpoint, or remove it from the route",
        ErrorKind::Internal => "report this defect with the lines before this one",
        ErrorKind::Malformed
        | ErrorKind::KeyReused
        | ErrorKind::KeyInUse
        | ErrorKind::HostNotAllowed
        | ErrorKind::OriginNotAllowed
        | ErrorKind::ClientNotAllowed
        | ErrorKind::OperationNotAllowed
        | ErrorKind::CallerNotAllowed
        | ErrorKind::CertificateRequired
        | ErrorKind::UnknownPath
        | ErrorKind::NoRoute
        | ErrorKind::NoEndpoint
        | ErrorKind::MethodNotAllowed
        | ErrorKind::SlowRequest
        | ErrorKind::HeaderRequired
        | ErrorKind::BodyBroken
        | ErrorKind::BodyTooLarge
        | ErrorKind::HeadersTooLarge
        | ErrorKind::RateLimited => return None,
    })
}

const fn endpoint_remedy(reason: UpstreamErrorReason) -> &'static str {
    match reason {
        UpstreamErrorReason::Dns => "correct `url`, or repair the DNS of this host: it does not resolve the name in it",
        UpstreamErrorReason::Connect => {
            "allow this host to connect to the endpoint: check firewall, network rules and routing, and that the resource still \
             exists (else correct `url`)"
        }
        UpstreamErrorReason::Tls => {
            "check what answers at `url`, and `ca_file`: it may be no TLS server, or present another certificate"
        }
        UpstreamErrorReason::Proxy => "check `[egress]` and the proxy's own log: it opened no tunnel",
        UpstreamErrorReason::ConnectTimeout => {
            "check the network path to the endpoint: a firewall may drop packets, or a private endpoint may be gone"
        }
        UpstreamErrorReason::TryTimeout | UpstreamErrorReason::RequestTimeout => {
            "see the resource's health and load; raise `timeouts.try` or `timeouts.request` if this is expected"
        }
        UpstreamErrorReason::ResetBeforeSend | UpstreamErrorReason::ResetAfterSend | UpstreamErrorReason::Body => {
            "see what closes connections between the gateway and the endpoint: the resource, a proxy, a firewall"
        }
        UpstreamErrorReason::Local => "raise the limit of open files (`LimitNOFILE`), or the memory of this host",
        UpstreamErrorReason::Protocol => "check what answers at `url`: its responses are not valid HTTP",
    }
}

const fn token_remedy(reason: TokenErrorReason) -> &'static str {
    match reason {
        TokenErrorReason::InvalidClient => {
            "replace the secret or certificate of the app: it is wrong, expired or of another app"
        }
        TokenErrorReason::AssertionExpired => {
            "check this host's clock: synchronize it (NTP); if it is right, repair the program that renews the assertion"
        }
        TokenErrorReason::UnknownApp => {
            "check `client_id` and `tenant`, and that the tenant has the app's enterprise application"
        }
        TokenErrorReason::Refused => {
            "run `signalr-gateway doctor`: it names the consent, policy or federated credential that is missing"
        }
        TokenErrorReason::Throttled => {
            "wait: the gateway asks again when Entra allows it; share credentials to request fewer tokens"
        }
        TokenErrorReason::Proxy => "check `[egress]` and the proxy's own log: it opened no tunnel",
        TokenErrorReason::Network => {
            "allow this host to reach the authority: check name resolution, firewall and proxy, and `ca_file` if it has a CA of its \
             own; if others cannot reach it either, see https://status.azure.com and wait"
        }
        TokenErrorReason::Malformed => "check `authority`: what answers there is not the identity endpoint",
        TokenErrorReason::Local => {
            "correct the file, variable or program that the line names: the gateway reads a changed file by itself, a variable needs \
             a restart"
        }
        TokenErrorReason::Other => "run `signalr-gateway doctor`",
    }
}

/// Returns what to do about lines that the log has lost, for the log and `/status`.
pub const fn lost_lines_remedy(cause: LostLine) -> &'static str {
    match cause {
        LostLine::SlowReader => {
            "make what reads the gateway's stderr read on: restart the log collector (`systemctl restart systemd-journald`), or the \
             gateway with the program that reads its pipe"
        }
        LostLine::WriteError => {
            "free the disk that the log is written to (a deleted file that is open frees nothing: truncate it); the gateway needs no \
             restart"
        }
        LostLine::RateLimit => "raise `logging.failures_per_second` to see all of them",
    }
}

const fn condition_remedy(condition: Condition) -> &'static str {
    match condition {
        Condition::CanaryFailed => "run `signalr-gateway doctor --deliver`, and do what `fix` says",
        Condition::CircuitOpen => "repair the cause; the circuit closes by itself",
        Condition::ConfigurationRejected => {
            "correct the file, and test it as the service's user with `runuser -u signalr-gateway -- signalr-gateway check`: a restart \
             would fail"
        }
        Condition::RestartNeeded => "restart the gateway when it suits, replicas one after another",
        Condition::TlsFiles => "replace certificate and key together; the previous ones serve until they expire",
        Condition::CredentialFile => "correct the file's mode or content",
        Condition::CaFile => {
            "correct the file: it must have the CA's certificate as PEM; a restart would fail while it cannot be used"
        }
        Condition::CallerWithoutIdentity => {
            "issue the caller a certificate with a name that `callers` or a route expects"
        }
        Condition::CallerCertificate => {
            "have the caller use a valid certificate of a CA in the listener's `client_ca`, or add its CA there"
        }
        Condition::ProxyProtocol => {
            "make `proxy_protocol` and `trusted_proxies` of the listener agree with the proxy in front of it"
        }
        Condition::StoreSettings => "change the settings of the store as the line says, or accept what may be lost",
        Condition::StoreOut => "do what `fix` says; `idempotency.when_store_is_out` decides what calls get meanwhile",
        Condition::CannotAccept => "raise the limit of open files (`LimitNOFILE`), or lower `limits.max_connections`",
        Condition::OpenFiles => {
            "raise the hard limit (`LimitNOFILE`, `ulimit -Hn`) to 65536, or lower `limits.max_connections`"
        }
        Condition::SlowFiles => "repair the mount; the gateway keeps serving",
        Condition::LostLines => lost_lines_remedy(LostLine::RateLimit),
        Condition::TraceCollector => "start the collector, or correct `[tracing]`",
        Condition::CutOff => "raise `shutdown.timeout`, and the time that the service manager gives above it",
        Condition::ConfigurationWarning => {
            "change the key that the line names; `signalr-gateway check` prints it again while it is so"
        }
        Condition::ServiceManager => {
            "make the units agree with the configuration: `FileDescriptorName=` with the names of listeners, `ListenStream=` with \
             their `bind`, and `Type=notify` with access to the socket in NOTIFY_SOCKET"
        }
        Condition::ReadyFile => "let the gateway write to the folder of `--ready-file`; it serves all the same",
        Condition::SocketFile => "remove the file; until then, no listener can bind its path",
        Condition::WorkerFailed => {
            "report this defect with the lines around this one; the service manager restarts the gateway"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    /// The largest size of a page of the guide, in bytes.
    const MAX_PAGE: usize = 12 * 1024;

    fn in_config(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(path)
    }

    /// Returns the anchors of a page and the text of their sections.
    fn sections(page: &str) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(in_config("guide").join(page)).unwrap();
        assert!(text.len() <= MAX_PAGE, "{page} has {} bytes", text.len());
        let sections = text.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap());
        sections.map(|(heading, text)| (anchor(heading), text.to_owned())).collect()
    }

    /// Derives an anchor from a heading, as GitHub and mdBook do.
    fn anchor(heading: &str) -> String {
        let kept = heading.trim().chars().filter(|character| character.is_alphanumeric() || " -_".contains(*character));
        kept.map(|character| if character == ' ' { '-' } else { character.to_ascii_lowercase() }).collect()
    }

    /// Returns the URLs of all sections that the runbook has.
    fn found() -> Vec<String> {
        let mut urls = Vec::new();
        for page in ["runbook.md", "runbook-errors.md", "runbook-causes.md", "runbook-log.md"] {
            for (anchor, text) in sections(page) {
                for part in ["- **Means**: ", "- **Look at**: ", "- **Do**: "] {
                    assert_eq!(text.matches(part).count(), 1, "{page}#{anchor} has not one `{part}`");
                }
                urls.push(format!("{GUIDE}/{page}#{anchor}"));
            }
        }
        urls
    }

    /// Returns the names of the alerts and their `runbook_url`.
    fn alerts() -> Vec<(String, Option<String>)> {
        let text = std::fs::read_to_string(in_config("prometheus/alerts.yaml")).unwrap();
        let value = |rule: &str, key: &str| {
            let mut lines = rule.lines().filter_map(|line| line.trim().strip_prefix(key));
            lines.next().map(|value| value.trim().trim_matches('"').to_owned())
        };
        let rules = text.split("- alert: ").skip(1);
        rules.map(|rule| (rule.lines().next().unwrap().to_owned(), value(rule, "runbook_url:"))).collect()
    }

    #[test]
    fn every_error_cause_and_alert_has_one_section_of_the_runbook() {
        let mut expected: Vec<String> = Section::all().map(|section| section.to_string()).collect();
        let alerts = alerts();
        assert!(alerts.len() > 20, "{alerts:?}");
        for (name, url) in alerts {
            let section = format!("{GUIDE}/runbook.md#{}", name.to_ascii_lowercase());
            assert_eq!(url.as_ref(), Some(&section), "runbook_url of {name}");
            expected.push(section);
        }
        let mut found = found();
        let set = |urls: &[String]| urls.iter().cloned().collect::<BTreeSet<_>>();
        let (wanted, there) = (set(&expected), set(&found));
        let missing: Vec<_> = wanted.difference(&there).collect();
        assert!(missing.is_empty(), "no section: {missing:#?}");
        let dead: Vec<_> = there.difference(&wanted).collect();
        assert!(dead.is_empty(), "nothing links to: {dead:#?}");
        expected.sort();
        found.sort();
        assert_eq!(expected, found, "a section is there twice");
    }

    #[test]
    fn every_alert_is_tested() {
        let tests = std::fs::read_to_string(in_config("prometheus/alerts_test.yaml")).unwrap();
        // An alert that fires has its own line, one that does not is in braces.
        let fires = |name: &str| tests.lines().any(|line| line.trim().strip_prefix("alertname: ") == Some(name));
        let untested: Vec<String> = alerts().into_iter().map(|(name, _)| name).filter(|name| !fires(name)).collect();
        assert!(untested.is_empty(), "{untested:?} never fire in alerts_test.yaml");
    }

    #[test]
    fn url_of_a_section_names_its_page_and_a_stable_anchor() {
        let url = Section::Error(ErrorKind::EndpointUnavailable).to_string();
        assert_eq!(url, format!("{GUIDE}/runbook-errors.md#error-endpoint-unavailable"));
        assert!(GUIDE.starts_with("https://"), "{GUIDE}");
        assert_eq!(EndpointRefusal::of(404), None);
        assert_eq!(EndpointRefusal::of(503).map(EndpointRefusal::label), Some("5xx"));
    }
}
