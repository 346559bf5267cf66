//! `check`: checks a configuration as `run` does before its first network I/O.

use std::collections::HashSet;
use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tokio::runtime::Handle;

use super::options::ConfigOptions;
use super::output::{FileReport, Outcome, eprint, print, problem_to_json, problems_to_json, usage};
use super::runtime::block_on;
use super::service_user::UserOption;
use crate::admin;
use crate::config::{Loaded, Problem};
use crate::credential::{Credentials, Inspection};
use crate::egress::inspect_password;
use crate::endpoint::{Endpoint, Proxies, TlsClients};
use crate::gateway::Settings;
use crate::metrics::{Label, Metrics};
use crate::redact::in_one_line;
use crate::serve::{CertificateReport, check_certificate, check_certificate_alone};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOptions,
    #[command(flatten)]
    user: UserOption,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Accept that this host lacks secrets, certificates, token files and variables of the platform, as in CI: a warning for
    /// each. Those that it has are checked.
    #[arg(long, conflicts_with = "connection_strings")]
    no_secrets: bool,
    /// Convert Azure SignalR connection strings to a configuration, and print it without secrets. The file (`-` for stdin) has
    /// one NAME=VALUE per line, or is an appsettings.json.
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    connection_strings: Option<PathBuf>,
    /// With --connection-strings: write the secrets into files in this folder, readable by their owner only.
    #[arg(long, value_name = "FOLDER", requires = "connection_strings")]
    secrets: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    if let Some(source) = &options.connection_strings {
        return super::convert::run(source, options.secrets.as_deref());
    }
    let loaded = if options.no_secrets { options.config.load_for_other_host() } else { options.config.load() };
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(err) if options.json => return problems_to_json(&err),
        Err(err) => return Err(err.into()),
    };
    let unreadable = options.user.unreadable_files(&loaded)?;
    let FileReports { problems, mut warnings } = build(&loaded)?;
    warnings.extend(unreadable);
    if options.json {
        let effective: Vec<_> = loaded
            .effective()
            .iter()
            .map(|value| {
                json!({
                    "key": value.key,
                    "value": value.value,
                    "origin": value.origin.as_ref().map(ToString::to_string),
                })
            })
            .collect();
        let warning_to_json = |warning: &Problem| {
            let mut json = problem_to_json(warning);
            if let Some(json) = json.as_object_mut() {
                json.insert("absent".to_owned(), loaded.absent.contains(&warning.key).into());
            }
            json
        };
        let warnings: Vec<_> =
            loaded.warnings.iter().map(warning_to_json).chain(warnings.iter().map(report_to_json)).collect();
        let found: Vec<_> = problems.iter().map(report_to_json).collect();
        let (hash, ok) = (&loaded.settings.hash, problems.is_empty());
        print(format_args!(
            "{:#}",
            json!({ "ok": ok, "hash": hash, "settings": effective, "warnings": warnings, "notes": metric_notes(&loaded.settings), "problems": found })
        ))?;
    } else {
        for warning in &loaded.warnings {
            eprint(format_args!("warning: {warning}"));
        }
        for warning in &warnings {
            eprint(format_args!("warning: {warning}"));
        }
        for note in metric_notes(&loaded.settings) {
            eprint(format_args!("note: {note}"));
        }
        for problem in &problems {
            eprint(format_args!("error: {problem}"));
        }
        print(format_args!("{}", table(&loaded, problems.is_empty())))?;
    }
    Ok(if problems.is_empty() { Outcome::Success } else { Outcome::ProblemFound })
}

/// Reports that `run` does not make: problems of credential files, expired certificates, and warnings. `run` starts despite a problem and reads the file again
/// when it changes. Until then, it answers calls that need the credential with 503.
struct FileReports {
    problems: Vec<FileReport>,
    warnings: Vec<FileReport>,
}

/// Builds the parts and reads the files that `run` needs before its first network I/O, then drops the parts.
fn build(loaded: &Loaded) -> anyhow::Result<FileReports> {
    let mut certificates = certificates(loaded);
    if let Some(err) = certificates.iter_mut().find_map(|report| report.error.take()) {
        return Err(usage(err));
    }
    block_on(async {
        let metrics = Metrics::new()?;
        let settings = &loaded.settings;
        let credentials =
            Credentials::build(&settings.credentials, metrics.token(), &Handle::current()).map_err(usage)?;
        let (mut tls_clients, mut proxies) = (TlsClients::default(), Proxies::default());
        for endpoint in &settings.endpoints {
            if let Some(bearer) = credentials.get(&endpoint.credential) {
                Endpoint::build(endpoint, bearer, Label::other(), &mut tls_clients, &mut proxies).map_err(usage)?;
            }
        }
        let mut reports = FileReports { problems: Vec::new(), warnings: open_listeners(settings) };
        for CertificateReport { listener, problem, warnings, .. } in certificates {
            let key = tls_key(&listener);
            let report = |fact| FileReport { key: key.clone(), fact };
            reports.problems.extend(problem.map(report));
            reports.warnings.extend(warnings.into_iter().map(report));
        }
        for proxy in settings.proxies() {
            let report = |fact| FileReport { key: proxy.configured_by.clone(), fact };
            // The password is at `proxy.password` or at `password`, beside or below the key of the URL.
            let table = proxy.configured_by.rsplit_once('.').map_or("", |(table, _)| table);
            if lacks(loaded, table) {
                continue;
            }
            match inspect_password(proxy).await {
                Ok(warnings) => reports.warnings.extend(warnings.into_iter().map(report)),
                Err(problem) => reports.problems.push(report(in_one_line(&problem))),
            }
        }
        // The token lives of one credential have the same files.
        let mut inspected = HashSet::new();
        for credential in &settings.credentials {
            if !inspected.insert(&credential.id.name) {
                continue;
            }
            let key = format!("credentials.{}", credential.id.name);
            if lacks(loaded, &key) {
                continue;
            }
            let Some(Inspection { problem, warnings }) = credentials.inspect(&credential.id).await else { continue };
            let report = |fact| FileReport { key: key.clone(), fact };
            reports.problems.extend(problem.map(|problem| report(in_one_line(&problem))));
            reports.warnings.extend(warnings.into_iter().map(report));
        }
        Ok(reports)
    })?
}

/// Returns whether this host lacks something that is configured in a table.
fn lacks(loaded: &Loaded, table: &str) -> bool {
    loaded.absent.iter().any(|key| key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.')))
}

/// Returns the key of a listener's TLS.
fn tls_key(listener: &str) -> String {
    if listener == admin::LISTENER_NAME { "admin.tls".to_owned() } else { format!("listeners.{listener}.tls") }
}

/// Checks the TLS files of the listeners. If this host lacks one of a listener's, checks the certificate alone.
fn certificates(loaded: &Loaded) -> Vec<CertificateReport> {
    let checked = loaded.settings.tls_listeners().filter_map(|(name, tls)| {
        let key = tls_key(name);
        if loaded.absent.contains(&format!("{key}.certificate")) {
            None
        } else if lacks(loaded, &key) {
            Some(check_certificate_alone(name, tls))
        } else {
            Some(check_certificate(name, tls))
        }
    });
    checked.collect()
}

/// Returns warnings about listeners that other hosts can reach: what everybody who reaches them may do.
fn open_listeners(settings: &Settings) -> Vec<FileReport> {
    let mut reports = Vec::new();
    for (name, admission, address) in settings.open_listeners() {
        if admission.required_header.is_some() {
            continue;
        }
        let fact = format!(
            "every host that reaches {address} may call the endpoints with the gateway's credentials; name the networks of the \
             callers in `clients`, require certificates with `tls.client_ca`, or let a firewall or network policy decide"
        );
        reports.push(FileReport { key: format!("listeners.{name}.bind"), fact });
    }
    if let Some(address) = settings.open_admin() {
        let fact = format!(
            "every host that reaches {address} may read the names of endpoints, tenants and callers, without TLS; bind 127.0.0.1, add \
             `admin.tls`, or let a firewall or network policy decide"
        );
        reports.push(FileReport { key: "admin.bind".to_owned(), fact });
    }
    reports
}

/// Returns which names will share the metric label `_other`, by the setting that limits them.
fn metric_notes(settings: &Settings) -> Vec<String> {
    let labels = settings.metric_labels();
    let tables = [
        ("max_endpoints", "endpoint labels", &labels.endpoints),
        ("max_routes", "routes", &labels.routes),
        ("max_credentials", "credentials", &labels.credentials),
        ("max_callers", "callers", &labels.callers),
    ];
    let over = tables.into_iter().filter(|(.., table)| table.shared() > 0);
    over.map(|(key, what, table)| {
        let (own, shared) = (table.own(), table.shared());
        format!(
            "metrics.{key}: {own} {what} have metric series of their own, the other {shared} share the label `_other`"
        )
    })
    .collect()
}

fn report_to_json(FileReport { key, fact }: &FileReport) -> serde_json::Value {
    json!({ "key": key, "fact": fact, "origin": null, "hint": null })
}

fn table(loaded: &Loaded, is_ready: bool) -> String {
    let rows: Vec<_> = loaded
        .effective()
        .iter()
        .map(|value| {
            let origin = value.origin.as_ref().map(ToString::to_string).unwrap_or_default();
            (format!("{} = {}", value.key, value.value), origin)
        })
        .collect();
    let width = rows.iter().map(|(row, _)| row.chars().count()).max().unwrap_or_default().min(80);
    let verdict = if is_ready { "is valid" } else { "is valid, but a credential or certificate cannot be used" };
    let mut table = format!("the configuration {verdict} (hash {})\n", loaded.settings.hash);
    for (row, origin) in rows {
        let _infallible = write!(table, "\n{row:width$}  # {origin}");
    }
    table
}
