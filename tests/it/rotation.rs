//! Secrets, certificates and assertions in files that somebody replaces: used at the next acquisition, and at once when
//! what was there before is refused for good.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use signalr_gateway::sandbox::{
    APP_CLIENT_ID, Application, ClientCertificate, CredentialChoice, EXTERNAL_ISSUER, Fault, FaultKind, Files, Sandbox,
    SecretText,
};

use crate::support::{Lab, wait_until};

/// The life of what files are rotated to.
const ANOTHER_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A credential by what lies in a file.
struct ByFile {
    choice: CredentialChoice,
    file: fn(&Files) -> &Path,
    /// What the directory accepts from now on, as the file has it.
    rotate: fn(&Sandbox) -> String,
    /// The gauge that says when it ends.
    gauge: Option<&'static str>,
}

const BY_FILE: [ByFile; 3] = [
    ByFile {
        choice: CredentialChoice::ClientSecret,
        file: |files| &files.secret,
        rotate: |sandbox| {
            let secret = "another-secret";
            edit_app(sandbox, |app| app.secrets[0].value = SecretText::new(secret));
            format!("{secret}\n")
        },
        gauge: None,
    },
    ByFile {
        choice: CredentialChoice::ClientCertificate,
        file: |files| &files.certificate,
        rotate: |sandbox| {
            let certificate = ClientCertificate::generate_another(ANOTHER_LIFE).unwrap();
            edit_app(sandbox, |app| app.certificates = vec![certificate.der().to_vec()]);
            format!("{}{}", certificate.key_pem(), certificate.certificate_pem())
        },
        gauge: Some("credential_not_after_timestamp_seconds"),
    },
    ByFile {
        choice: CredentialChoice::FederatedFile,
        file: |files| &files.assertion,
        rotate: |sandbox| {
            edit_app(sandbox, |app| {
                let of_issuer = app.federated.iter_mut().filter(|credential| credential.issuer == EXTERNAL_ISSUER);
                of_issuer.for_each(|credential| credential.subject = String::from("another"));
            });
            let ends = (unix_now() + ANOTHER_LIFE).as_secs();
            let audience = "api://AzureADTokenExchange";
            let claims = json!({ "iss": EXTERNAL_ISSUER, "sub": "another", "aud": audience, "exp": ends });
            sandbox.external_token(&claims).unwrap()
        },
        gauge: Some("assertion_file_expiry_timestamp_seconds"),
    },
];

fn edit_app(sandbox: &Sandbox, change: impl FnOnce(&mut Application)) {
    sandbox.directory().edit(|directory| change(directory.application_mut(APP_CLIENT_ID).unwrap()));
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// A gateway, and an Entra that makes another token each time.
async fn lab_with(choice: CredentialChoice) -> Lab {
    let lab = Lab::start(|plan| plan.config = plan.config.clone().with_credential("east", choice)).await;
    lab.sandbox.directory().edit(|directory| directory.tokens.repeat = false);
    lab
}

/// Sends a message to `east` and returns the name of the token that it came with.
async fn token_at_east(lab: &Lab) -> String {
    lab.forget_arrivals();
    lab.hello().await.is(202);
    lab.arrival("east").authorization.unwrap().fingerprint.clone()
}

#[tokio::test]
async fn rotated_file_is_used_at_the_next_acquisition() {
    for ByFile { choice, file, rotate, gauge } in BY_FILE {
        let lab = lab_with(choice).await;
        let first = token_at_east(&lab).await;
        std::fs::write(file(&lab.files), rotate(&lab.sandbox)).unwrap();
        // The endpoint takes the token no longer, which is when the next is due.
        lab.endpoint("east").server.faults().set(Fault::times(1, FaultKind::status(401)));
        lab.hello().await.is(202);
        assert_ne!(token_at_east(&lab).await, first, "{choice:?}");
        if let Some(gauge) = gauge {
            let ends = lab.metrics().await.sum(gauge, &[("credential", "east")]);
            let expected = (unix_now() + ANOTHER_LIFE).as_secs_f64();
            assert!((ends - expected).abs() < 60.0, "{gauge} {ends} is not {expected}");
        }
    }
}

#[tokio::test]
async fn file_that_was_refused_for_good_is_tried_again_as_soon_as_it_changes() {
    for ByFile { choice, file, rotate, .. } in BY_FILE {
        let lab = lab_with(choice).await;
        let content = rotate(&lab.sandbox);
        // The endpoint takes the token no longer, and Entra takes the proof no longer.
        lab.endpoint("east").server.faults().set(Fault::times(1, FaultKind::status(401)));
        lab.hello().await.is(401);
        wait_until("the old one is refused", async || {
            lab.credential("east").await["last_error"].is_string().then_some(())
        })
        .await;
        std::fs::write(file(&lab.files), content).unwrap();
        // Unless a file changes, nobody asks again for half a minute or more: longer than a test waits.
        wait_until("the new one is in use", async || (lab.credential("east").await["state"] == "ready").then_some(()))
            .await;
        lab.hello().await.is(202);
    }
}
