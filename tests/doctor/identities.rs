//! Rows about identities that replace a secret: federated credentials, assertions, managed identities.

use std::time::SystemTime;

use serde_json::json;
use signalr_gateway::credential::SetupStep;
use signalr_gateway::sandbox::{
    APP_CLIENT_ID, CredentialChoice, EXTERNAL_ISSUER, EXTERNAL_SUBJECT, Fault, FaultKind, IDENTITY_CLIENT_ID,
    LOCAL_IDENTITY_CLIENT_ID, TENANT_A, TENANT_C,
};

use super::setup::Setup;
use super::table::{Row, edit, row};

/// Writes an assertion of the external issuer with one changed claim.
fn assert_with(setup: &Setup, claim: &str, value: serde_json::Value) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({
        "iss": EXTERNAL_ISSUER, "sub": EXTERNAL_SUBJECT, "aud": "api://AzureADTokenExchange",
        "iat": now, "nbf": now, "exp": now + 3600,
    });
    claims[claim] = value;
    std::fs::write(&setup.files.assertion, setup.sandbox.external_token(&claims).unwrap()).unwrap();
}

pub(super) const ROWS: &[Row] = {
    use CredentialChoice as By;
    use SetupStep as Step;
    &[
        row(
            "the program that prints the assertion fails",
            By::FederatedCommand,
            |b| std::fs::write(b.file("get-assertion"), "#!/bin/sh\necho not signed in >&2\nexit 3\n").unwrap(),
            Step::Proof,
            "run the program by hand",
        ),
        row(
            "the secret of the OAuth 2.0 client is wrong",
            By::FederatedOAuth2,
            |b| std::fs::write(b.file("idp-secret"), "wrong").unwrap(),
            Step::Proof,
            "check `token_url`",
        ),
        row(
            "something answers in place of Google's metadata server",
            By::FederatedGcp,
            |b| b.sandbox.gcp_metadata().faults().set(Fault::always(FaultKind::html(200))),
            Step::Proof,
            "metadata.google.internal",
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
            "federated-credential create --id 0a990000",
        ),
        row(
            "the federated credential is missing",
            By::FederatedIdentity,
            |b| edit(b, |d| d.application_mut(APP_CLIENT_ID).unwrap().federated.clear()),
            Step::Federation,
            "federated-credential create --id 0a990000",
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
            "federated-credential create --id 0a990000",
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
            "federated-credential create --id 0a990000",
        ),
        row(
            "the subject differs only in case",
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
            "federated-credential create --id 0a990000",
        ),
        row(
            "the assertion has another audience",
            By::FederatedFile,
            |b| assert_with(b, "aud", json!("api://Other")),
            Step::Federation,
            "federated-credential create --id 0a990000",
        ),
        row(
            "the assertion has another issuer",
            By::FederatedFile,
            |b| assert_with(b, "iss", json!("https://other.test")),
            Step::Federation,
            "federated-credential create --id 0a990000",
        ),
        row(
            "the assertion has another subject",
            By::FederatedFile,
            |b| assert_with(b, "sub", json!("other")),
            Step::Federation,
            "federated-credential create --id 0a990000",
        ),
        row(
            "the assertion expired long ago",
            By::FederatedFile,
            |b| assert_with(b, "exp", json!(1_700_000_000)),
            Step::Proof,
            "kept fresh",
        ),
        row(
            "the assertion's file is missing",
            By::FederatedFile,
            |b| std::fs::remove_file(&b.files.assertion).unwrap(),
            Step::Proof,
            "kept fresh",
        ),
        row(
            "the assertion's file holds a sentence",
            By::FederatedFile,
            |b| std::fs::write(&b.files.assertion, "not a token").unwrap(),
            Step::Proof,
            "kept fresh",
        ),
        row(
            "the identity is not assigned to the host",
            By::FederatedIdentity,
            |b| edit(b, |d| d.managed_identity_mut(IDENTITY_CLIENT_ID).unwrap().assigned_to_host = false),
            Step::HostIdentity,
            "az vm identity assign",
        ),
        row(
            "the endpoint's own identity is not assigned to the host",
            By::ManagedIdentity,
            |b| edit(b, |d| d.managed_identity_mut(LOCAL_IDENTITY_CLIENT_ID).unwrap().assigned_to_host = false),
            Step::HostIdentity,
            "az vm identity assign",
        ),
        row(
            "the host is not in Azure",
            By::FederatedIdentity,
            |b| {
                let imds = b.sandbox.imds().url();
                b.rewrite(&imds, "http://127.0.0.1:1");
            },
            Step::HostIdentity,
            "169.254.169.254",
        ),
        row(
            "the federated credential is for another cloud",
            By::FederatedIdentity,
            |b| {
                edit(b, |d| {
                    d.application_mut(APP_CLIENT_ID).unwrap().federated.retain(|f| f.audience.ends_with("China"));
                });
            },
            Step::Federation,
            "federated-credential list",
        ),
        row(
            "the identity is of another tenant than the app",
            By::FederatedIdentity,
            |b| edit(b, |d| TENANT_C.clone_into(&mut d.application_mut(APP_CLIENT_ID).unwrap().home_tenant)),
            Step::Federation,
            "az identity create",
        ),
        row(
            "the assertion's issuer is of the first version",
            By::FederatedFile,
            |b| assert_with(b, "iss", json!(format!("https://sts.windows.net/{TENANT_A}/"))),
            Step::Federation,
            "user-assigned managed identity",
        ),
        row(
            "the requested audience does not exist",
            By::FederatedIdentity,
            |b| b.rewrite("api://AzureADTokenExchange\"", "api://Other\""),
            Step::Configuration,
            "credentials.east.assertion.audience",
        ),
    ]
};
