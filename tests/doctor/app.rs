//! Rows about the app registration, its enterprise application, its secret and certificate, and their configuration.

use std::time::{Duration, SystemTime};

use signalr_gateway::credential::SetupStep;
use signalr_gateway::sandbox::{APP_CLIENT_ID, ClientCertificate, CredentialChoice, SecretText, TENANT_B, TENANT_C};

use super::table::{Row, edit, row};

pub(super) const ROWS: &[Row] = {
    use CredentialChoice as Choice;
    use SetupStep as Step;
    &[
        row(
            "the tenant does not exist",
            Choice::ClientSecret,
            |setup| setup.rewrite(TENANT_B, "dddddddd-0000-4000-8000-00000000000d"),
            Step::Configuration,
            "credentials.east.tenant",
        ),
        row(
            "the tenant is another one that has the app",
            Choice::ClientSecret,
            |setup| setup.rewrite(TENANT_B, TENANT_C),
            Step::Configuration,
            "credentials.east.tenant",
        ),
        row(
            "the tenant is in another cloud",
            Choice::ClientSecret,
            |setup| edit(setup, |d| d.tenant_mut(TENANT_B).unwrap().in_other_cloud = true),
            Step::Configuration,
            "credentials.east.cloud",
        ),
        row(
            "the client id does not exist",
            Choice::ClientSecret,
            |setup| setup.rewrite(APP_CLIENT_ID, "0a990000-0000-4000-8000-0000000000ff"),
            Step::EnterpriseApplication,
            "credentials.east.client_id",
        ),
        row(
            "the app is not provisioned",
            Choice::ClientSecret,
            |setup| {
                edit(setup, |d| {
                    d.tenant_mut(TENANT_B).unwrap().service_principals.retain(|p| p.client_id != APP_CLIENT_ID);
                });
            },
            Step::EnterpriseApplication,
            "az ad sp create --id 0a990000",
        ),
        row(
            "the enterprise application is disabled",
            Choice::ClientSecret,
            |setup| edit(setup, |d| d.service_principal_mut(TENANT_B, APP_CLIENT_ID).unwrap().enabled = false),
            Step::EnterpriseApplication,
            "--set accountEnabled=true",
        ),
        row(
            "the app registration is disabled",
            Choice::ClientSecret,
            |setup| edit(setup, |d| d.application_mut(APP_CLIENT_ID).unwrap().enabled = false),
            Step::EnterpriseApplication,
            "app registration itself is disabled",
        ),
        row(
            "the app was deleted from its own tenant",
            Choice::ClientSecret,
            |setup| edit(setup, |d| d.applications.clear()),
            Step::EnterpriseApplication,
            "credentials.east.client_id",
        ),
        row(
            "the secret's file is missing",
            Choice::ClientSecret,
            |setup| std::fs::remove_file(&setup.files.secret).unwrap(),
            Step::Proof,
            "readable by the process",
        ),
        row(
            "the secret's file is empty",
            Choice::ClientSecret,
            |setup| std::fs::write(&setup.files.secret, "\n").unwrap(),
            Step::Proof,
            "readable by the process",
        ),
        row(
            "the secret is wrong",
            Choice::ClientSecret,
            |setup| std::fs::write(&setup.files.secret, "wrong").unwrap(),
            Step::AppProof,
            "az ad app credential reset --id 0a990000",
        ),
        row(
            "the secret's id is used instead of its value",
            Choice::ClientSecret,
            |setup| {
                let id =
                    setup.sandbox.directory().read(|d| d.application(APP_CLIENT_ID).unwrap().secrets[0].id.clone());
                std::fs::write(&setup.files.secret, id).unwrap();
            },
            Step::AppProof,
            "the value (not the id) of a secret",
        ),
        row(
            "the secret has expired",
            Choice::ClientSecret,
            |setup| {
                edit(setup, |d| {
                    d.application_mut(APP_CLIENT_ID).unwrap().secrets[0].expires =
                        SystemTime::now() - Duration::from_secs(60);
                });
            },
            Step::AppProof,
            "az ad app credential reset --id 0a990000",
        ),
        row(
            "the secret was replaced",
            Choice::ClientSecret,
            |setup| {
                edit(setup, |d| {
                    d.application_mut(APP_CLIENT_ID).unwrap().secrets[0].value = SecretText::new("another");
                });
            },
            Step::AppProof,
            "az ad app credential reset --id 0a990000",
        ),
        row(
            "the certificate is not uploaded",
            Choice::ClientCertificate,
            |setup| edit(setup, |d| d.application_mut(APP_CLIENT_ID).unwrap().certificates.clear()),
            Step::AppProof,
            "--cert @certificate-only.pem",
        ),
        row(
            "the certificate's file is missing",
            Choice::ClientCertificate,
            |setup| std::fs::remove_file(&setup.files.certificate).unwrap(),
            Step::Proof,
            "openssl x509 -in",
        ),
        row(
            "the certificate's file has no key",
            Choice::ClientCertificate,
            |setup| {
                std::fs::write(&setup.files.certificate, setup.sandbox.client_certificate().certificate_pem()).unwrap();
            },
            Step::Proof,
            "openssl x509 -in",
        ),
        row(
            "the certificate's file is not PEM",
            Choice::ClientCertificate,
            |setup| std::fs::write(&setup.files.certificate, [0x30, 0x82, 1, 2]).unwrap(),
            Step::Proof,
            "openssl x509 -in",
        ),
        row(
            "Entra's clock is an hour ahead",
            Choice::ClientCertificate,
            |setup| edit(setup, |d| d.tokens.clock_offset_secs = 3600),
            Step::Proof,
            "timedatectl",
        ),
        row(
            "the app is single-tenant",
            Choice::ClientSecret,
            |setup| edit(setup, |d| d.application_mut(APP_CLIENT_ID).unwrap().multi_tenant = false),
            Step::EnterpriseApplication,
            "--sign-in-audience AzureADMultipleOrgs",
        ),
        row(
            "the scope is another service's",
            Choice::ClientSecret,
            |setup| setup.rewrite("[credentials.east]", "[credentials.east]\nscope = \"https://other.test/.default\""),
            Step::Configuration,
            "credentials.east.scope",
        ),
        row(
            "the object id is another enterprise application's",
            Choice::ClientSecret,
            |setup| setup.rewrite("[credentials.east]", &format!("[credentials.east]\nobject_id = \"{TENANT_C}\"")),
            Step::Configuration,
            "credentials.east.object_id",
        ),
        row(
            "the certificate has expired",
            Choice::ClientCertificate,
            |setup| setup.write_certificate(&ClientCertificate::generate_with_new_key(Duration::ZERO).unwrap()),
            Step::Proof,
            "-keyout new-key.pem",
        ),
        row(
            "the key is another certificate's",
            Choice::ClientCertificate,
            |setup| {
                let another = ClientCertificate::generate_with_new_key(Duration::from_secs(3600)).unwrap();
                let own = setup.sandbox.client_certificate().certificate_pem();
                std::fs::write(&setup.files.certificate, format!("{own}{}", another.key_pem())).unwrap();
            },
            Step::Proof,
            "openssl x509 -in",
        ),
        row(
            "the certificate was renewed on this host only",
            Choice::ClientCertificate,
            |setup| {
                setup.write_certificate(&ClientCertificate::generate_with_new_key(Duration::from_secs(3600)).unwrap());
            },
            Step::AppProof,
            "-fingerprint -sha1",
        ),
    ]
};
