//! Runs all rows. A row has what is broken, the kind of credential, the step that `doctor` must report, and a part of its
//! remediation.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use signalr_gateway::credential::SetupStep;
use signalr_gateway::diagnosis::BrokenStep;
use signalr_gateway::sandbox::{
    APP_CLIENT_ID, CredentialChoice, Directory, EXTERNAL_ISSUER, EXTERNAL_SUBJECT, Fault, FaultKind, TENANT_B,
};

use tokio::runtime::Builder;

use super::setup::Setup;
use super::{app, identities, proxies, service};

type Break = fn(&mut Setup);

pub(super) struct Row {
    what: &'static str,
    credential: CredentialChoice,
    break_setup: Break,
    step: SetupStep,
    /// A part of the remediation.
    remediation: &'static str,
}

pub(super) const fn row(
    what: &'static str,
    credential: CredentialChoice,
    break_setup: Break,
    step: SetupStep,
    remediation: &'static str,
) -> Row {
    Row { what, credential, break_setup, step, remediation }
}

pub(super) fn edit(setup: &Setup, change: impl FnOnce(&mut Directory)) {
    setup.sandbox.directory().edit(change);
}

/// Returns the whole remediation as text.
fn remediation_text(broken: &BrokenStep) -> String {
    let lines =
        broken.remediation.iter().flat_map(|action| [action.note.clone(), action.command.clone().unwrap_or_default()]);
    lines.collect::<Vec<_>>().join("\n")
}

/// Breaks one step. Returns what is wrong with the report.
async fn check_row(row: &Row) -> Option<String> {
    let mut setup = Setup::new(row.credential).await;
    (row.break_setup)(&mut setup);
    let finding = setup.examine().await;
    match &finding.broken {
        None => Some(format!("{}: nothing is broken: {finding:#?}", row.what)),
        Some(broken) if broken.step != row.step => {
            Some(format!("{}: {} in place of {}: {}", row.what, broken.step, row.step, broken.result))
        }
        Some(broken) if broken.result.is_empty() || broken.tried.is_empty() => {
            Some(format!("{}: incomplete report: {broken:#?}", row.what))
        }
        Some(broken) if !remediation_text(broken).contains(row.remediation) => {
            Some(format!("{}: no `{}` in the remediation:\n{}", row.what, row.remediation, remediation_text(broken)))
        }
        Some(_) => None,
    }
}

#[test]
fn reports_the_broken_step_and_its_remediation() {
    let rows: Vec<&Row> = app::ROWS.iter().chain(identities::ROWS).chain(service::ROWS).chain(proxies::ROWS).collect();
    assert!(rows.len() >= 60);
    // Concurrent, because most of the time is spent waiting between attempts. Each row has a runtime of its own: the start of a
    // sandbox generates keys, which would use up the time of another row's connection.
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                    if let Some(problem) = runtime.block_on(check_row(row)) {
                        wrong.lock().unwrap().push(problem);
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[tokio::test]
async fn finds_nothing_broken_in_a_correct_setup() {
    for credential in [
        CredentialChoice::ClientSecret,
        CredentialChoice::ClientCertificate,
        CredentialChoice::FederatedIdentity,
        CredentialChoice::FederatedFile,
        CredentialChoice::FederatedGcp,
        CredentialChoice::FederatedOAuth2,
        CredentialChoice::FederatedCommand,
        CredentialChoice::ManagedIdentity,
        CredentialChoice::AccessKey,
        CredentialChoice::TokenFile,
    ] {
        let finding = Setup::new(credential).await.examine().await;
        assert!(finding.broken.is_none(), "{credential:?}: {finding:#?}");
        assert!(finding.checks.len() >= 3, "{credential:?}: {finding:#?}");
    }
}

#[tokio::test]
async fn remediation_command_contains_the_presented_values() {
    let setup = Setup::new(CredentialChoice::FederatedFile).await;
    edit(&setup, |directory| directory.application_mut(APP_CLIENT_ID).unwrap().federated.clear());
    let broken = setup.examine().await.broken.unwrap();
    let command = remediation_text(&broken);
    for part in [APP_CLIENT_ID, EXTERNAL_ISSUER, EXTERNAL_SUBJECT, "api://AzureADTokenExchange"] {
        assert!(command.contains(part), "{command}");
    }
    assert!(broken.delay.is_some() && broken.correlation_id.is_some() && !broken.codes.is_empty(), "{broken:#?}");
}

#[tokio::test]
async fn missing_role_is_assigned_to_the_tokens_object_id() {
    let setup = Setup::new(CredentialChoice::ClientSecret).await;
    let object_id = setup.sandbox.directory().edit(|directory| {
        let principal = directory.service_principal_mut(TENANT_B, APP_CLIENT_ID).unwrap();
        principal.roles.clear();
        principal.object_id.clone()
    });
    let broken = setup.examine().await.broken.unwrap();
    let command = broken.remediation[0].command.clone().unwrap();
    assert!(command.contains("az role assignment create") && command.contains(&object_id), "{command}");
}

#[tokio::test]
async fn reports_a_hanging_entra_in_time() {
    let setup = Setup::new(CredentialChoice::ClientSecret).await;
    setup.sandbox.entra().faults().set(Fault::always(FaultKind::Hang));
    // `examine` times out after fifteen seconds.
    let broken = setup.examine().await.broken.unwrap();
    assert_eq!(broken.step, SetupStep::IdentityEndpoint, "{broken:#?}");
}

#[tokio::test]
async fn escapes_control_characters_of_unverified_claims() {
    let setup = Setup::new(CredentialChoice::TokenFile).await;
    let claims = json!({ "iss": "a\u{1b}[2Jb", "exp": 4_000_000_000_u64 });
    std::fs::write(setup.file("east-token"), setup.sandbox.external_token(&claims).unwrap()).unwrap();
    let finding = setup.examine().await;
    let shown = finding.checks.iter().find(|check| check.what == "iss").unwrap();
    assert_eq!(shown.result, "a [2Jb");
}
