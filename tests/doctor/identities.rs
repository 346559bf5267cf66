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

/// Writes an assertion of the external issuer with one other claim.
fn write_assertion_with(setup: &Setup, claim: &str, value: serde_json::Value) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({
        "iss": EXTERNAL_ISSUER, "sub": EXTERNAL_SUBJECT, "aud": "api://AzureADTokenExchange",
        "iat": now, "nbf": now, "exp": now + 3600,
    });
    claims[claim] = value;
    std::fs::write(&setup.files.assertion, setup.sandbox.external_token(&claims).unwrap()).unwrap();
}

pub(super) const ROWS: &[Row] = {
    use CredentialChoice as Choice;
    use SetupStep as Step;
    &[
        row(
            "the program that prints the assertion fails",
            Choice::FederatedCommand,
            |setup| std::fs::write(setup.file("get-assertion"), "#!/bin/sh\necho not signed in >&2\nexit 3\n").unwrap(),
            Step::Proof,
            "run the program by hand",
        ),
        row(
            "the secret of the OAuth 2.0 client is wrong",
            Choice::FederatedOAuth2,
            |setup| std::fs::write(setup.file("idp-secret"), "wrong").unwrap(),
            Step::Proof,
            "check `token_url`",
        ),
        row(
            "another server answers instead of Google's metadata server",
            Choice::FederatedGcp,
            |setup| setup.sandbox.gcp_metadata().faults().set(Fault::always(FaultKind::html(200))),
            Step::Proof,
            "metadata.google.internal",
        ),
        row(
            "Google's issuer is not trusted",
            Choice::FederatedGcp,
            |setup| {
                edit(setup, |d| {
                    let app = d.application_mut(APP_CLIENT_ID).unwrap();
                    app.federated.retain(|credential| !credential.issuer.contains("google"));
                });
            },
            Step::Federation,
            "federated-credential create --id 0a990000",
        ),
        row(
            "the federated credential is missing",
            Choice::FederatedIdentity,
            |setup| edit(setup, |d| d.application_mut(APP_CLIENT_ID).unwrap().federated.clear()),
            Step::Federation,
            "federated-credential create --id 0a990000",
        ),
        row(
            "the federated credential has another issuer",
            Choice::FederatedFile,
            |setup| {
                edit(setup, |d| {
                    d.application_mut(APP_CLIENT_ID).unwrap().federated.iter_mut().for_each(|f| f.issuer.push('/'));
                });
            },
            Step::Federation,
            "federated-credential create --id 0a990000",
        ),
        row(
            "the federated credential has another subject",
            Choice::FederatedIdentity,
            |setup| {
                edit(setup, |d| {
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
            Choice::FederatedFile,
            |setup| {
                edit(setup, |d| {
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
            Choice::FederatedFile,
            |setup| write_assertion_with(setup, "aud", json!("api://Other")),
            Step::Federation,
            "federated-credential create --id 0a990000",
        ),
        row(
            "the assertion has another issuer",
            Choice::FederatedFile,
            |setup| write_assertion_with(setup, "iss", json!("https://other.test")),
            Step::Federation,
            "federated-credential create --id 0a990000",
        ),
        row(
            "the assertion has another subject",
            Choice::FederatedFile,
            |setup| write_assertion_with(setup, "sub", json!("other")),
            Step::Federation,
            "federated-credential create --id 0a990000",
        ),
        row(
            "the assertion expired long ago",
            Choice::FederatedFile,
            |setup| write_assertion_with(setup, "exp", json!(1_700_000_000)),
            Step::Proof,
            "kept fresh",
        ),
        row(
            "the assertion's file is missing",
            Choice::FederatedFile,
            |setup| std::fs::remove_file(&setup.files.assertion).unwrap(),
            Step::Proof,
            "kept fresh",
        ),
        row(
            "the assertion's file contains no token",
            Choice::FederatedFile,
            |setup| std::fs::write(&setup.files.assertion, "not a token").unwrap(),
            Step::Proof,
            "kept fresh",
        ),
        row(
            "the identity is not assigned to the host",
            Choice::FederatedIdentity,
            |setup| edit(setup, |d| d.managed_identity_mut(IDENTITY_CLIENT_ID).unwrap().assigned_to_host = false),
            Step::HostIdentity,
            "az vm identity assign",
        ),
        row(
            "the endpoint's own identity is not assigned to the host",
            Choice::ManagedIdentity,
            |setup| edit(setup, |d| d.managed_identity_mut(LOCAL_IDENTITY_CLIENT_ID).unwrap().assigned_to_host = false),
            Step::HostIdentity,
            "az vm identity assign",
        ),
        row(
            "the host is not in Azure",
            Choice::FederatedIdentity,
            |setup| {
                let imds = setup.sandbox.imds().url();
                setup.rewrite(&imds, "http://127.0.0.1:1");
            },
            Step::HostIdentity,
            "169.254.169.254",
        ),
        row(
            "the federated credential is for another cloud",
            Choice::FederatedIdentity,
            |setup| {
                edit(setup, |d| {
                    d.application_mut(APP_CLIENT_ID).unwrap().federated.retain(|f| f.audience.ends_with("China"));
                });
            },
            Step::Federation,
            "federated-credential list",
        ),
        row(
            "the identity is in another tenant than the app",
            Choice::FederatedIdentity,
            |setup| edit(setup, |d| TENANT_C.clone_into(&mut d.application_mut(APP_CLIENT_ID).unwrap().home_tenant)),
            Step::Federation,
            "az identity create",
        ),
        row(
            "the assertion's issuer is that of version 1.0",
            Choice::FederatedFile,
            |setup| write_assertion_with(setup, "iss", json!(format!("https://sts.windows.net/{TENANT_A}/"))),
            Step::Federation,
            "user-assigned managed identities",
        ),
        row(
            "the requested audience does not exist",
            Choice::FederatedIdentity,
            |setup| setup.rewrite("api://AzureADTokenExchange\"", "api://Other\""),
            Step::Configuration,
            "credentials.east.assertion.audience",
        ),
    ]
};
