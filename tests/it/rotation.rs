//! Secrets, certificates and assertions in files that are replaced: a secret or certificate is tried within seconds, an assertion is
//! used at the next acquisition, and all of them are used at once after the previous ones were rejected.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use signalr_gateway::sandbox::{
    APP_CLIENT_ID, Application, ClientCertificate, CredentialChoice, EXTERNAL_ISSUER, Fault, FaultKind, Files,
    GatewayConfig, SERVICE_CONNECTION, Sandbox, SecretText,
};

use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, HarnessBuilder, Process, wait_until};

/// How long the replacement is valid.
const REPLACEMENT_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// A credential that reads a file.
struct ByFile {
    choice: CredentialChoice,
    file: fn(&Files) -> &Path,
    /// Registers the replacement with the directory, and returns the content of the file.
    rotate: fn(&Sandbox) -> String,
    /// The gauge of its expiry.
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
            let certificate = ClientCertificate::generate_with_new_key(REPLACEMENT_LIFETIME).unwrap();
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
            let ends = (unix_now() + REPLACEMENT_LIFETIME).as_secs();
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

/// Starts a gateway, and an Entra that issues a different token each time.
async fn harness_with(choice: CredentialChoice) -> Harness {
    let harness =
        Harness::start(|options| options.config = options.config.clone().with_credential("east", choice)).await;
    harness.sandbox.directory().edit(|directory| directory.tokens.repeat = false);
    harness
}

/// Sends a message to `east` and returns the fingerprint of its token.
async fn token_at_east(harness: &Harness) -> String {
    harness.clear_arrivals();
    harness.broadcast().await.assert_status(202);
    harness.arrival("east").authorization.unwrap().fingerprint.clone()
}

#[tokio::test]
async fn uses_a_rotated_file_at_the_next_acquisition() {
    for ByFile { choice, file, rotate, gauge } in BY_FILE {
        let harness = harness_with(choice).await;
        let first = token_at_east(&harness).await;
        std::fs::write(file(&harness.files), rotate(&harness.sandbox)).unwrap();
        // The endpoint rejects the token, which starts the next acquisition.
        harness.endpoint("east").server.faults().set(Fault::times(1, FaultKind::status(401)));
        harness.broadcast().await.assert_status(202);
        assert_ne!(token_at_east(&harness).await, first, "{choice:?}");
        if let Some(gauge) = gauge {
            let ends = harness.metrics().await.sum(gauge, &[("credential", "east")]);
            let expected = (unix_now() + REPLACEMENT_LIFETIME).as_secs_f64();
            assert!((ends - expected).abs() < 60.0, "{gauge} {ends} is not {expected}");
        }
    }
}

/// Returns the fingerprint of a credential's token.
async fn token_of(harness: &Harness, credential: &str) -> String {
    harness.credential(credential).await["token"].as_str().unwrap().to_owned()
}

async fn wait_for_another_token(harness: &Harness, credential: &str, than: &str) -> String {
    wait_until(&format!("{credential} has another token"), async || {
        Some(token_of(harness, credential).await).filter(|token| token != than)
    })
    .await
}

/// Makes a file of a folder a link, as the files of a Kubernetes volume are.
fn link_like_kubernetes(path: &Path) {
    let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap());
    std::fs::create_dir(folder.join("..first")).unwrap();
    std::fs::copy(path, folder.join("..first").join(name)).unwrap();
    std::os::unix::fs::symlink("..first", folder.join("..data")).unwrap();
    std::os::unix::fs::symlink(Path::new("..data").join(name), folder.join("link")).unwrap();
    std::fs::rename(folder.join("link"), path).unwrap();
}

/// Replaces what such a link leads to.
fn swap_like_kubernetes(path: &Path, content: &str) {
    let (folder, name) = (path.parent().unwrap(), path.file_name().unwrap());
    std::fs::create_dir(folder.join("..second")).unwrap();
    std::fs::write(folder.join("..second").join(name), content).unwrap();
    std::os::unix::fs::symlink("..second", folder.join("..new")).unwrap();
    std::fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
}

fn replace_by_rename(path: &Path, content: &str) {
    let beside = path.with_extension("next");
    std::fs::write(&beside, content).unwrap();
    std::fs::rename(beside, path).unwrap();
}

/// How a file is replaced: what happens before, and the replacement.
type Replacement = (fn(&Path), fn(&Path, &str));

#[tokio::test]
async fn a_rotated_secret_or_certificate_is_used_within_seconds_however_it_is_replaced() {
    let in_place: Replacement = (|_| (), |path, content| std::fs::write(path, content).unwrap());
    let by_rename: Replacement = (|_| (), replace_by_rename);
    let by_link: Replacement = (link_like_kubernetes, swap_like_kubernetes);
    let [secret, certificate, _] = BY_FILE;
    for (ByFile { choice, file, rotate, .. }, (prepare, replace)) in
        [(&secret, in_place), (&secret, by_rename), (&secret, by_link), (&certificate, by_rename)]
    {
        let harness = harness_with(*choice).await;
        let path = file(&harness.files);
        prepare(path);
        let first = token_of(&harness, "east").await;
        replace(path, &rotate(&harness.sandbox));
        wait_for_another_token(&harness, "east", &first).await;
        assert!(harness.metrics().await.sum("token_errors_total", &[]) < 0.5, "{choice:?}");
    }
}

#[tokio::test]
async fn a_rotated_assertion_file_starts_no_request() {
    let harness = Harness::start(|options| {
        let config = options.config.clone().with_credential("east", CredentialChoice::FederatedFile);
        options.config = config.with_credential("west", CredentialChoice::ClientSecret);
    })
    .await;
    harness.sandbox.directory().edit(|directory| directory.tokens.repeat = false);
    let [secret, _, assertion] = BY_FILE;
    let (east, west) = (token_of(&harness, "east").await, token_of(&harness, "west").await);
    std::fs::write((assertion.file)(&harness.files), (assertion.rotate)(&harness.sandbox)).unwrap();
    // A file that is followed and changes later is noticed.
    std::fs::write((secret.file)(&harness.files), (secret.rotate)(&harness.sandbox)).unwrap();
    wait_for_another_token(&harness, "west", &west).await;
    assert_eq!(token_of(&harness, "east").await, east);
}

#[tokio::test]
async fn retries_a_rejected_file_as_soon_as_it_changes() {
    for ByFile { choice, file, rotate, .. } in BY_FILE {
        let harness = harness_with(choice).await;
        let content = rotate(&harness.sandbox);
        // The endpoint rejects the token, and Entra rejects the old file.
        harness.endpoint("east").server.faults().set(Fault::times(1, FaultKind::status(401)));
        harness.broadcast().await.assert_status(401);
        wait_until("the old file is rejected", async || {
            harness.credential("east").await["last_error"].is_string().then_some(())
        })
        .await;
        std::fs::write(file(&harness.files), content).unwrap();
        // Without a change of the file, the next attempt would be half a minute later, longer than a test waits.
        wait_until("the new file is in use", async || {
            (harness.credential("east").await["state"] == "ready").then_some(())
        })
        .await;
        harness.broadcast().await.assert_status(202);
    }
}

/// Starts the real binary with a client secret for `east`, and an Entra that issues a different token each time.
async fn process_with_secret(builder: &HarnessBuilder) -> (Process, Files) {
    let more = "[[routes]]\nname = \"only\"\nendpoints = [\"east\"]\n".to_owned();
    let config = GatewayConfig { more, ..GatewayConfig::default() };
    let config = config.with_credential("east", CredentialChoice::ClientSecret);
    let files = builder.write_files(&config);
    builder.sandbox.directory().edit(|directory| directory.tokens.repeat = false);
    let process = Process::start_gateway(&files.config, &[]).await;
    process.wait_until_credentials_are("ready").await;
    (process, files)
}

/// Changes the settings of the configuration, and waits until they are in force.
async fn reload(process: &Process, files: &Files, from: &str, to: &str) {
    let before = process.config_hash().await;
    let text = std::fs::read_to_string(&files.config).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    replace_by_rename(&files.config, &text.replacen(from, to, 1));
    process.apply_configuration(before).await;
}

#[tokio::test]
async fn a_wrong_secret_is_reported_when_it_is_put_in_place_while_calls_succeed() {
    let builder = HarnessBuilder::start().await;
    let (process, files) = process_with_secret(&builder).await;
    let right = std::fs::read_to_string(&files.secret).unwrap();
    let broadcast = async || {
        let mut caller = Caller::connect(process.listener()).await;
        caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
    };
    assert_eq!(process.verdict().await.0, "healthy");
    std::fs::write(&files.secret, "wrong-secret").unwrap();
    let lines = wait_until("the verdict is attention", async || {
        let (state, lines) = process.verdict().await;
        (state == "attention").then_some(lines)
    })
    .await;
    let lines = lines.join("\n");
    assert!(lines.contains("cannot be renewed") && lines.contains("calls succeed until"), "{lines}");
    process.wait_for_log("AADSTS7000215").await;
    let log = process.log();
    let warning = log.lines().find(|line| line.contains("AADSTS7000215")).unwrap();
    assert!(warning.contains("WARN") && warning.contains("the current one stays in service"), "{warning}");
    broadcast().await;
    std::fs::write(&files.secret, right).unwrap();
    wait_until("the verdict is healthy", async || (process.verdict().await.0 == "healthy").then_some(())).await;
    broadcast().await;
}

#[tokio::test]
async fn a_second_name_for_a_credential_starts_no_request() {
    let builder = HarnessBuilder::start().await;
    let (process, files) = process_with_secret(&builder).await;
    let asked = || builder.sandbox.entra().journal().received();
    let before = asked();
    let text = std::fs::read_to_string(&files.config).unwrap();
    let of_east = text.split("[credentials.east]").nth(1).unwrap().split("\n[").next().unwrap();
    let named = |name: &str| {
        format!(
            "[credentials.{name}]{of_east}\n[endpoints.{name}]\nurl = \"http://127.0.0.1:1\"\ncredential = \"{name}\"\n"
        )
    };
    reload(&process, &files, "[[routes]]", &format!("{}\n[[routes]]", named("second"))).await;
    process.wait_until_credentials_are("ready").await;
    assert_eq!(asked(), before);
    // Both names belong to the requests that follow.
    std::fs::write(&files.secret, "wrong-secret").unwrap();
    wait_until("the error counts for both names", async || {
        let errors = process.metrics().await;
        let of = |name| errors.sum("token_errors_total", &[("credential", name)]);
        (of("east") > 0.5 && of("second") > 0.5).then_some(())
    })
    .await;
    assert_eq!(asked(), before + 1);
    reload(&process, &files, &named("second"), &named("third")).await;
    assert_eq!(asked(), before + 1);
}

#[tokio::test]
async fn credential_with_a_new_secret_keeps_its_token_until_it_has_another() {
    let builder = HarnessBuilder::start().await;
    let (process, files) = process_with_secret(&builder).await;
    let broadcast = async || {
        let mut caller = Caller::connect(process.listener()).await;
        caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
        let arrivals = builder.sandbox.endpoint("east").unwrap().server.journal().entries();
        let last = arrivals.into_iter().rfind(|entry| entry.path() != "/api/health").unwrap();
        last.authorization.unwrap().fingerprint.clone()
    };
    let first = broadcast().await;
    // Entra does not answer during the reload.
    builder.sandbox.entra().faults().set(Fault::always(FaultKind::Hang));
    std::fs::copy(&files.secret, builder.folder.path().join("moved")).unwrap();
    reload(&process, &files, "\"client-secret\"", "\"moved\"").await;
    assert_eq!(broadcast().await, first);
    let expiry = process.metrics().await.sum("token_expiry_timestamp_seconds", &[("credential", "east")]);
    assert!(expiry > unix_now().as_secs_f64(), "the gauge is not that of the token in use: {expiry}");
    builder.sandbox.entra().faults().clear().await;
    wait_until("a token was obtained with the new secret", async || (broadcast().await != first).then_some(())).await;
}

#[tokio::test]
async fn new_identity_never_uses_the_token_of_the_previous_one() {
    for (key, value) in [("tenant = ", SERVICE_CONNECTION), ("client_id = ", SERVICE_CONNECTION)] {
        let builder = HarnessBuilder::start().await;
        let (process, files) = process_with_secret(&builder).await;
        builder.sandbox.entra().faults().set(Fault::always(FaultKind::Reset));
        let text = std::fs::read_to_string(&files.config).unwrap();
        let of_east = text.split("[credentials.east]").nth(1).unwrap();
        let line = of_east.lines().find(|line| line.starts_with(key)).unwrap();
        let other = of_east.replacen(line, &format!("{key}\"{value}\""), 1);
        reload(&process, &files, of_east, &other).await;
        let mut caller = Caller::connect(process.listener()).await;
        builder.sandbox.endpoint("east").unwrap().server.journal().clear();
        caller
            .post(BROADCAST_PATH, "application/json", BROADCAST_BODY)
            .await
            .assert_gateway_error(503, "token_unavailable");
        let arrivals = builder.sandbox.endpoint("east").unwrap().server.journal().entries();
        assert!(arrivals.iter().all(|entry| entry.authorization.is_none()), "{arrivals:#?}");
    }
}

#[tokio::test]
async fn notices_a_symbolic_link_to_another_file_of_equal_time_and_length() {
    let builder = HarnessBuilder::start().await;
    let folder = builder.folder.path();
    let store = tempfile::tempdir().unwrap();
    let config = GatewayConfig::default().with_credential("east", CredentialChoice::TokenFile);
    let files = builder.sandbox.write_files(folder, &config).unwrap();
    let tokens = ["one", "two"].map(|name| store.path().join(name));
    for (path, letter) in tokens.iter().zip(["a", "b"]) {
        std::fs::write(path, letter.repeat(40)).unwrap();
        std::fs::File::options().write(true).open(path).unwrap().set_modified(UNIX_EPOCH).unwrap();
    }
    let link = folder.join("east-token");
    let switch = |to: &Path| {
        let beside = folder.join("beside");
        std::os::unix::fs::symlink(to, &beside).unwrap();
        std::fs::rename(beside, &link).unwrap();
    };
    switch(&tokens[0]);
    let process = Process::start_gateway(&files.config, &[]).await;
    let fingerprint = async || {
        let status = process.status().await;
        let east = status["credentials"].as_array()?.iter().find(|credential| credential["name"] == "east")?.clone();
        east["token"].as_str().map(str::to_owned)
    };
    let first = wait_until("the first token is in use", fingerprint).await;
    switch(&tokens[1]);
    wait_until("the other token is in use", async || fingerprint().await.filter(|other| *other != first)).await;
}
