//! The table: what is broken, by which credential it shows, and the step that the doctor must name.

use std::time::{Duration, SystemTime};

use serde_json::json;
use signalr_gateway::credential::SetupStep;
use signalr_gateway::sandbox::{
    APP_CLIENT_ID, CredentialChoice, Directory, EXTERNAL_ISSUER, EXTERNAL_SUBJECT, Fault, FaultKind,
    IDENTITY_CLIENT_ID, LOCAL_IDENTITY_CLIENT_ID, SecretText, TENANT_A, TENANT_B, TENANT_C,
};

use super::bench::Bench;

type Break = fn(&mut Bench);

struct Row {
    what: &'static str,
    by: CredentialChoice,
    breaks: Break,
    step: SetupStep,
}

const fn row(what: &'static str, by: CredentialChoice, breaks: Break, step: SetupStep) -> Row {
    Row { what, by, breaks, step }
}

fn edit(bench: &Bench, change: impl FnOnce(&mut Directory)) {
    bench.sandbox.directory().edit(change);
}

/// Writes an assertion of the external issuer that differs in one claim.
fn assert_with(bench: &Bench, claim: &str, value: serde_json::Value) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({
        "iss": EXTERNAL_ISSUER, "sub": EXTERNAL_SUBJECT, "aud": "api://AzureADTokenExchange",
        "iat": now, "nbf": now, "exp": now + 3600,
    });
    claims[claim] = value;
    std::fs::write(&bench.files.assertion, bench.sandbox.external_token(&claims).unwrap()).unwrap();
}

const ROWS: &[Row] = {
    use CredentialChoice as By;
    use SetupStep as Step;
    &[
        row(
            "the tenant does not exist",
            By::ClientSecret,
            |b| b.rewrite(TENANT_B, "dddddddd-0000-4000-8000-00000000000d"),
            Step::Configuration,
        ),
        row(
            "the tenant is another one that has the app",
            By::ClientSecret,
            |b| b.rewrite(TENANT_B, TENANT_C),
            Step::Configuration,
        ),
        row(
            "the tenant is in another cloud",
            By::ClientSecret,
            |b| edit(b, |d| d.tenant_mut(TENANT_B).unwrap().in_other_cloud = true),
            Step::Configuration,
        ),
        row(
            "the client id is nobody's",
            By::ClientSecret,
            |b| b.rewrite(APP_CLIENT_ID, "0a990000-0000-4000-8000-0000000000ff"),
            Step::EnterpriseApplication,
        ),
        row(
            "the app is not provisioned",
            By::ClientSecret,
            |b| {
                edit(b, |d| {
                    d.tenant_mut(TENANT_B).unwrap().service_principals.retain(|p| p.client_id != APP_CLIENT_ID);
                });
            },
            Step::EnterpriseApplication,
        ),
        row(
            "the enterprise application is disabled",
            By::ClientSecret,
            |b| edit(b, |d| d.service_principal_mut(TENANT_B, APP_CLIENT_ID).unwrap().enabled = false),
            Step::EnterpriseApplication,
        ),
        row(
            "the app registration is disabled",
            By::ClientSecret,
            |b| edit(b, |d| d.application_mut(APP_CLIENT_ID).unwrap().enabled = false),
            Step::EnterpriseApplication,
        ),
        row(
            "the app is gone from its own tenant",
            By::ClientSecret,
            |b| edit(b, |d| d.applications.clear()),
            Step::EnterpriseApplication,
        ),
        row(
            "the secret's file is missing",
            By::ClientSecret,
            |b| std::fs::remove_file(&b.files.secret).unwrap(),
            Step::Proof,
        ),
        row(
            "the secret's file is empty",
            By::ClientSecret,
            |b| std::fs::write(&b.files.secret, "\n").unwrap(),
            Step::Proof,
        ),
        row(
            "the secret is wrong",
            By::ClientSecret,
            |b| std::fs::write(&b.files.secret, "wrong").unwrap(),
            Step::AppProof,
        ),
        row(
            "the secret's id was pasted",
            By::ClientSecret,
            |b| {
                let id = b.sandbox.directory().read(|d| d.application(APP_CLIENT_ID).unwrap().secrets[0].id.clone());
                std::fs::write(&b.files.secret, id).unwrap();
            },
            Step::AppProof,
        ),
        row(
            "the secret has expired",
            By::ClientSecret,
            |b| {
                edit(b, |d| {
                    d.application_mut(APP_CLIENT_ID).unwrap().secrets[0].expires =
                        SystemTime::now() - Duration::from_secs(60);
                });
            },
            Step::AppProof,
        ),
        row(
            "the secret was replaced",
            By::ClientSecret,
            |b| edit(b, |d| d.application_mut(APP_CLIENT_ID).unwrap().secrets[0].value = SecretText::new("another")),
            Step::AppProof,
        ),
        row(
            "the certificate is not uploaded",
            By::ClientCertificate,
            |b| edit(b, |d| d.application_mut(APP_CLIENT_ID).unwrap().certificates.clear()),
            Step::AppProof,
        ),
        row(
            "the certificate's file is missing",
            By::ClientCertificate,
            |b| std::fs::remove_file(&b.files.certificate).unwrap(),
            Step::Proof,
        ),
        row(
            "the certificate's file has no key",
            By::ClientCertificate,
            |b| std::fs::write(&b.files.certificate, b.sandbox.client_certificate().certificate_pem()).unwrap(),
            Step::Proof,
        ),
        row(
            "the certificate's file is no PEM",
            By::ClientCertificate,
            |b| std::fs::write(&b.files.certificate, [0x30, 0x82, 1, 2]).unwrap(),
            Step::Proof,
        ),
        row(
            "the program that prints the assertion fails",
            By::FederatedCommand,
            |b| std::fs::write(b.file("get-assertion"), "#!/bin/sh\necho not signed in >&2\nexit 3\n").unwrap(),
            Step::Proof,
        ),
        row(
            "the secret of the OAuth 2.0 client is wrong",
            By::FederatedOAuth2,
            |b| std::fs::write(b.file("idp-secret"), "wrong").unwrap(),
            Step::Proof,
        ),
        row(
            "something answers in place of Google's metadata server",
            By::FederatedGcp,
            |b| b.sandbox.gcp_metadata().faults().set(Fault::always(FaultKind::html(200))),
            Step::Proof,
        ),
        row(
            "Google's issuer is not trusted",
            By::FederatedGcp,
            |b| {
                edit(b, |d| {
                    let app = d.application_mut(APP_CLIENT_ID).unwrap();
                    app.federated.retain(|credential| !credential.issuer.contains("google"));
                });
            },
            Step::Federation,
        ),
        row(
            "the federated credential is missing",
            By::FederatedIdentity,
            |b| edit(b, |d| d.application_mut(APP_CLIENT_ID).unwrap().federated.clear()),
            Step::Federation,
        ),
        row(
            "the federated credential has another issuer",
            By::FederatedFile,
            |b| {
                edit(b, |d| {
                    d.application_mut(APP_CLIENT_ID).unwrap().federated.iter_mut().for_each(|f| f.issuer.push('/'));
                });
            },
            Step::Federation,
        ),
        row(
            "the federated credential has another subject",
            By::FederatedIdentity,
            |b| {
                edit(b, |d| {
                    d.application_mut(APP_CLIENT_ID)
                        .unwrap()
                        .federated
                        .iter_mut()
                        .for_each(|f| "another".clone_into(&mut f.subject));
                });
            },
            Step::Federation,
        ),
        row(
            "the subject differs by case alone",
            By::FederatedFile,
            |b| {
                edit(b, |d| {
                    d.application_mut(APP_CLIENT_ID)
                        .unwrap()
                        .federated
                        .iter_mut()
                        .for_each(|f| f.subject = f.subject.to_uppercase());
                });
            },
            Step::Federation,
        ),
        row(
            "the assertion has another audience",
            By::FederatedFile,
            |b| assert_with(b, "aud", json!("api://Other")),
            Step::Federation,
        ),
        row(
            "the assertion has another issuer",
            By::FederatedFile,
            |b| assert_with(b, "iss", json!("https://other.test")),
            Step::Federation,
        ),
        row(
            "the assertion has another subject",
            By::FederatedFile,
            |b| assert_with(b, "sub", json!("other")),
            Step::Federation,
        ),
        row(
            "the assertion expired long ago",
            By::FederatedFile,
            |b| assert_with(b, "exp", json!(1_700_000_000)),
            Step::Proof,
        ),
        row(
            "the assertion's file is missing",
            By::FederatedFile,
            |b| std::fs::remove_file(&b.files.assertion).unwrap(),
            Step::Proof,
        ),
        row(
            "the assertion's file holds a sentence",
            By::FederatedFile,
            |b| std::fs::write(&b.files.assertion, "not a token").unwrap(),
            Step::Proof,
        ),
        row(
            "Entra's clock is an hour ahead",
            By::ClientCertificate,
            |b| edit(b, |d| d.tokens.clock_offset_secs = 3600),
            Step::Proof,
        ),
        row(
            "the identity is not assigned to the host",
            By::FederatedIdentity,
            |b| edit(b, |d| d.managed_identity_mut(IDENTITY_CLIENT_ID).unwrap().assigned_to_host = false),
            Step::HostIdentity,
        ),
        row(
            "the endpoint's own identity is not assigned to the host",
            By::ManagedIdentity,
            |b| edit(b, |d| d.managed_identity_mut(LOCAL_IDENTITY_CLIENT_ID).unwrap().assigned_to_host = false),
            Step::HostIdentity,
        ),
        row(
            "this is not a host of Azure",
            By::FederatedIdentity,
            |b| {
                let imds = b.sandbox.imds().url();
                b.rewrite(&imds, "http://127.0.0.1:1");
            },
            Step::HostIdentity,
        ),
        row(
            "Entra cannot be reached",
            By::ClientSecret,
            |b| {
                let entra = b.sandbox.entra().url();
                b.rewrite(&entra, "https://127.0.0.1:1");
            },
            Step::IdentityEndpoint,
        ),
        row(
            "Entra breaks off",
            By::ClientSecret,
            |b| b.sandbox.entra().faults().set(Fault::always(FaultKind::Reset)),
            Step::IdentityEndpoint,
        ),
        row(
            "a proxy answers in Entra's place",
            By::ClientSecret,
            |b| b.sandbox.entra().faults().set(Fault::always(FaultKind::html(403))),
            Step::IdentityEndpoint,
        ),
        row(
            "Entra answers an empty success",
            By::ClientSecret,
            |b| b.sandbox.entra().faults().set(Fault::always(FaultKind::json(200, "{}"))),
            Step::IdentityEndpoint,
        ),
        row(
            "Conditional Access blocks the app",
            By::ClientSecret,
            |b| edit(b, |d| d.tenant_mut(TENANT_B).unwrap().conditional_access_blocks = true),
            Step::TenantPolicy,
        ),
        row(
            "the tenant is throttled",
            By::ClientSecret,
            |b| edit(b, |d| d.tenant_mut(TENANT_B).unwrap().throttled = Some(Duration::from_secs(7200))),
            Step::TenantPolicy,
        ),
        row(
            "SignalR is not registered in the tenant",
            By::ClientSecret,
            |b| edit(b, |d| d.tenant_mut(TENANT_B).unwrap().signalr_provider = false),
            Step::ResourceProvider,
        ),
        row(
            "the endpoint cannot be reached",
            By::ClientSecret,
            |b| {
                let east = b.sandbox.endpoint("east").unwrap().url();
                b.rewrite(&east, "https://127.0.0.1:1");
            },
            Step::EndpointNetwork,
        ),
        row(
            "the resource is closed to the public network",
            By::ClientSecret,
            |b| edit(b, |d| d.resource_mut("east").unwrap().public_network = false),
            Step::EndpointNetwork,
        ),
        row(
            "the URL is another tenant's resource",
            By::ClientSecret,
            |b| edit(b, |d| TENANT_A.clone_into(&mut d.resource_mut("east").unwrap().tenant)),
            Step::Configuration,
        ),
        row(
            "the role is missing",
            By::ClientSecret,
            |b| edit(b, |d| d.service_principal_mut(TENANT_B, APP_CLIENT_ID).unwrap().roles.clear()),
            Step::Access,
        ),
        row(
            "the identity's role is missing",
            By::ManagedIdentity,
            |b| edit(b, |d| d.service_principal_mut(TENANT_B, LOCAL_IDENTITY_CLIENT_ID).unwrap().roles.clear()),
            Step::Access,
        ),
        row(
            "access keys are disabled",
            By::AccessKey,
            |b| edit(b, |d| d.resource_mut("east").unwrap().local_auth = false),
            Step::Access,
        ),
        row(
            "the access key is another resource's",
            By::AccessKey,
            |b| std::fs::write(b.file("east-access-key"), "another").unwrap(),
            Step::Access,
        ),
        row(
            "the token's file is missing",
            By::TokenFile,
            |b| std::fs::remove_file(b.file("east-token")).unwrap(),
            Step::Proof,
        ),
    ]
};

#[tokio::test]
async fn names_the_broken_step_and_what_mends_it() {
    assert!(ROWS.len() >= 30);
    let mut wrong = Vec::new();
    for row in ROWS {
        let mut bench = Bench::new(row.by).await;
        (row.breaks)(&mut bench);
        let finding = bench.examine().await;
        match &finding.broken {
            None => wrong.push(format!("{}: nothing is broken: {finding:#?}", row.what)),
            Some(broken) if broken.step != row.step => {
                wrong.push(format!("{}: {} in place of {}: {}", row.what, broken.step, row.step, broken.came_back));
            }
            Some(broken) if broken.mend.is_empty() || broken.came_back.is_empty() || broken.tried.is_empty() => {
                wrong.push(format!("{}: says too little: {broken:#?}", row.what));
            }
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), ROWS.len(), wrong.join("\n"));
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
    let command = broken.mend[0].command.clone().unwrap();
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
    let shown = finding.checks.iter().find(|check| check.what == "claim iss").unwrap();
    assert_eq!(shown.result, "a [2Jb");
}
