//! The table: what is broken, by which credential it shows, the step that the doctor must name, and what must mend it.

use futures_util::StreamExt as _;
use serde_json::json;
use signalr_gateway::credential::SetupStep;
use signalr_gateway::diagnosis::Broken;
use signalr_gateway::sandbox::{
    APP_CLIENT_ID, CredentialChoice, Directory, EXTERNAL_ISSUER, EXTERNAL_SUBJECT, Fault, FaultKind, TENANT_B,
};

use super::bench::Bench;
use super::{app, identities, service};

type Break = fn(&mut Bench);

pub(super) struct Row {
    what: &'static str,
    by: CredentialChoice,
    breaks: Break,
    step: SetupStep,
    /// A part of what mends it.
    mend: &'static str,
}

pub(super) const fn row(
    what: &'static str,
    by: CredentialChoice,
    breaks: Break,
    step: SetupStep,
    mend: &'static str,
) -> Row {
    Row { what, by, breaks, step, mend }
}

pub(super) fn edit(bench: &Bench, change: impl FnOnce(&mut Directory)) {
    bench.sandbox.directory().edit(change);
}

/// All that is said of what mends it.
fn mends(broken: &Broken) -> String {
    let lines = broken.mend.iter().flat_map(|mend| [mend.note.clone(), mend.command.clone().unwrap_or_default()]);
    lines.collect::<Vec<_>>().join("\n")
}

/// Breaks one thing and returns what is wrong with what the doctor says of it.
async fn try_out(row: &Row) -> Option<String> {
    let mut bench = Bench::new(row.by).await;
    (row.breaks)(&mut bench);
    let finding = bench.examine().await;
    match &finding.broken {
        None => Some(format!("{}: nothing is broken: {finding:#?}", row.what)),
        Some(broken) if broken.step != row.step => {
            Some(format!("{}: {} in place of {}: {}", row.what, broken.step, row.step, broken.came_back))
        }
        Some(broken) if broken.came_back.is_empty() || broken.tried.is_empty() => {
            Some(format!("{}: says too little: {broken:#?}", row.what))
        }
        Some(broken) if !mends(broken).contains(row.mend) => {
            Some(format!("{}: no `{}` in what mends it:\n{}", row.what, row.mend, mends(broken)))
        }
        Some(_) => None,
    }
}

#[tokio::test]
async fn names_the_broken_step_and_what_mends_it() {
    let rows: Vec<&Row> = app::ROWS.iter().chain(identities::ROWS).chain(service::ROWS).collect();
    assert!(rows.len() >= 60);
    let total = rows.len();
    // Side by side, since most of the time is spent on waiting between tries.
    let wrong = futures_util::stream::iter(rows).map(try_out).buffer_unordered(8);
    let wrong: Vec<String> = wrong.filter_map(async |wrong| wrong).collect().await;
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), total, wrong.join("\n"));
}

#[tokio::test]
async fn finds_nothing_broken_in_a_whole_set_up() {
    for by in [
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
        let finding = Bench::new(by).await.examine().await;
        assert!(finding.broken.is_none(), "{by:?}: {finding:#?}");
        assert!(finding.checks.len() >= 3, "{by:?}: {finding:#?}");
    }
}

#[tokio::test]
async fn the_command_is_filled_in_with_what_was_presented() {
    let bench = Bench::new(CredentialChoice::FederatedFile).await;
    edit(&bench, |directory| directory.application_mut(APP_CLIENT_ID).unwrap().federated.clear());
    let broken = bench.examine().await.broken.unwrap();
    let command = mends(&broken);
    for part in [APP_CLIENT_ID, EXTERNAL_ISSUER, EXTERNAL_SUBJECT, "api://AzureADTokenExchange"] {
        assert!(command.contains(part), "{command}");
    }
    assert!(broken.delay.is_some() && broken.correlation_id.is_some() && !broken.codes.is_empty(), "{broken:#?}");
}

#[tokio::test]
async fn a_missing_role_is_assigned_to_the_object_id_of_the_token() {
    let bench = Bench::new(CredentialChoice::ClientSecret).await;
    let object_id = bench.sandbox.directory().edit(|directory| {
        let principal = directory.service_principal_mut(TENANT_B, APP_CLIENT_ID).unwrap();
        principal.roles.clear();
        principal.object_id.clone()
    });
    let broken = bench.examine().await.broken.unwrap();
    let command = broken.mend[0].command.clone().unwrap();
    assert!(command.starts_with("az role assignment create") && command.contains(&object_id), "{command}");
}

#[tokio::test]
async fn an_entra_that_hangs_is_named_in_time() {
    let bench = Bench::new(CredentialChoice::ClientSecret).await;
    bench.sandbox.entra().faults().set(Fault::always(FaultKind::Hang));
    // The bench gives the doctor fifteen seconds.
    let broken = bench.examine().await.broken.unwrap();
    assert_eq!(broken.step, SetupStep::IdentityEndpoint, "{broken:#?}");
}

#[tokio::test]
async fn claims_move_no_cursor_though_nobody_has_verified_them() {
    let bench = Bench::new(CredentialChoice::TokenFile).await;
    let claims = json!({ "iss": "a\u{1b}[2Jb", "exp": 4_000_000_000_u64 });
    std::fs::write(bench.file("east-token"), bench.sandbox.external_token(&claims).unwrap()).unwrap();
    let finding = bench.examine().await;
    let shown = finding.checks.iter().find(|check| check.what == "iss").unwrap();
    assert_eq!(shown.result, "a [2Jb");
}
