//! Malformed secret files: what the real binary prints about them at the most verbose level contains no part of a
//! secret, and names the file and the remedy.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use signalr_gateway::sandbox::{CredentialChoice, Fault, FaultKind, GatewayConfig};

use crate::support::{
    BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, HarnessBuilder, Leaks, Process, Program, run, wait_until,
};

/// A client secret in Entra's format.
const SECRET: &str = "Kx38Q~vT9.mRw2Lz-Yb7Hc4Nf6Jd1Gs5Pq0Xe8U";

/// Writes a configuration with every kind of credential that reads a file, each for an endpoint that does not exist.
fn config(folder: &Path, pem: &Path, secret: &Path) -> PathBuf {
    let (pem, secret) = (pem.display(), secret.display());
    let app = "tenant = \"11111111-2222-3333-4444-555555555555\"\nclient_id = \"11111111-2222-3333-4444-555555555556\"\n\
               cloud = \"custom\"\nauthority = \"https://127.0.0.1:9\"\n";
    let command = |redirect: &str| {
        format!(
            "kind = \"federated\"\n{app}assertion = {{ source = \"command\", argv = [\"/bin/sh\", \"-c\", \"cat {secret} {pem} {redirect}\"] }}"
        )
    };
    let credentials = [
        ("secret", format!("kind = \"client_secret\"\n{app}secret = {{ file = \"{secret}\" }}")),
        ("certificate", format!("kind = \"client_certificate\"\n{app}certificate = \"{pem}\"")),
        ("key", format!("kind = \"client_certificate\"\n{app}certificate = \"{pem}\"\nkey = \"{pem}\"")),
        ("swapped", format!("kind = \"client_secret\"\n{app}secret = {{ file = \"{pem}\" }}")),
        ("token", format!("kind = \"token_file\"\npath = \"{secret}\"")),
        ("pem_token", format!("kind = \"token_file\"\npath = \"{pem}\"")),
        ("file", format!("kind = \"federated\"\n{app}assertion = {{ source = \"file\", path = \"{secret}\" }}")),
        ("stdout", command("")),
        ("stderr", command(">&2; exit 1")),
        ("access", format!("kind = \"access_key\"\nkey = {{ file = \"{secret}\" }}")),
    ];
    let mut text = "[listeners.default]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n".to_owned();
    for (name, lines) in &credentials {
        let _infallible = writeln!(
            text,
            "[credentials.{name}]\n{lines}\n[endpoints.{name}]\nurl = \"http://127.0.0.1:1\"\ncredential = \"{name}\"\n\
             [[routes]]\nname = \"{name}\"\nmatch = {{ hub = \"{name}\" }}\nendpoints = [\"{name}\"]"
        );
    }
    let config = folder.join("gateway.toml");
    std::fs::write(&config, text).unwrap();
    config
}

fn mutations(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let utf16 = std::iter::once(0xfeff).chain(secret.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let mut garbage = secret.as_bytes().to_vec();
    garbage[secret.len() / 2] = 0xff;
    vec![
        ("as it is", secret.into()),
        ("line breaks written out", secret.replace('\n', "\\n").into()),
        ("in one line", secret.replace('\n', " ").into()),
        ("with a byte order mark", format!("\u{feff}{secret}\r\n").into()),
        ("cut", secret[..secret.len() * 2 / 3].into()),
        ("doubled and quoted", format!("\"{secret}{secret}\"").into()),
        ("in base64", STANDARD.encode(secret).into()),
        ("UTF-16", utf16),
        ("with a byte that is not UTF-8", garbage),
    ]
}

#[tokio::test]
async fn shows_no_part_of_a_malformed_secret() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let good = std::fs::read_to_string(&files.certificate).unwrap();
    let key = good.split("PRIVATE KEY-----").nth(1).unwrap().trim_end_matches("-----END ");
    let mut leaks = Leaks::default();
    leaks.add(SECRET.as_bytes());
    let body: String = key.split_whitespace().collect();
    leaks.add(body.as_bytes());
    leaks.add(&STANDARD.decode(&body).unwrap());
    let tried = mutations(&good).into_iter().zip(mutations(SECRET));
    let tried = tried.map(|((mutation, pem), (_, secret))| assert_hidden(mutation, pem, secret, &leaks));
    // A few at a time, because each runs eight processes.
    futures_util::stream::iter(tried).buffer_unordered(3).collect::<Vec<()>>().await;
}

/// Runs every command with a key and a secret, and asserts that no output contains a part of them.
async fn assert_hidden(mutation: &str, pem: Vec<u8>, secret: Vec<u8>, leaks: &Leaks) {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("client.pem"), folder.path().join("client-secret")];
    std::fs::write(&paths[0], pem).unwrap();
    std::fs::write(&paths[1], secret).unwrap();
    let config = config(folder.path(), &paths[0], &paths[1]);
    let config = config.to_str().unwrap();
    let mut outputs = Vec::new();
    let mut commands = vec![
        vec!["check", "--config", config],
        vec!["check", "--config", config, "--json"],
        vec!["doctor", "--config", config],
        vec!["doctor", "--config", config, "--json"],
    ];
    commands.extend(["certificate", "stderr", "access"].map(|endpoint| vec!["token", endpoint, "--config", config]));
    let finished = futures_util::future::join_all(commands.iter().map(|arguments| run(arguments))).await;
    outputs.extend(
        commands
            .iter()
            .zip(finished)
            .map(|(arguments, finished)| (arguments.join(" "), format!("{}{}", finished.stdout, finished.stderr))),
    );
    let filter = "logging.filter=trace,azure_identity=trace,azure_core=trace,typespec_client_core=trace";
    let process = Program::gateway(Path::new(config), &[filter]).start(folder.path()).await;
    wait_until("each credential has requested a token", async || {
        let status = process.status().await;
        let credentials = status["credentials"].as_array()?.clone();
        credentials.iter().all(|credential| credential["state"] != "starting").then_some(())
    })
    .await;
    for hub in ["secret", "certificate", "stderr", "access"] {
        let target = BROADCAST_PATH.replace("chat", hub);
        let response =
            Caller::connect(process.listener()).await.post(&target, "application/json", BROADCAST_BODY).await;
        outputs.push((format!("the response for {hub}"), format!("{:?} {}", response.headers, response.text())));
    }
    for path in ["/", "/status", "/metrics", "/readyz"] {
        outputs.push((path.to_owned(), Caller::connect(process.admin()).await.call("GET", path).await.text()));
    }
    process.terminate().await;
    outputs.push(("the log".to_owned(), process.wait().await.1));
    for (source, text) in outputs {
        assert_eq!(leaks.find(&text), None, "{mutation}: {source}");
    }
}

/// Runs `check` with a client secret and a certificate. Returns its exit code and output.
async fn check(secret: &[u8], pem: &[u8]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let paths = [folder.path().join("client.pem"), folder.path().join("client-secret")];
    for (path, content) in paths.iter().zip([pem, secret]) {
        std::fs::write(path, content).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let text = std::fs::read_to_string(config(folder.path(), &paths[0], &paths[1])).unwrap();
    // The other problems are about the same files.
    let wanted = |table: &&str| {
        ["[credentials.secret]", "[endpoints.secret]", "[credentials.certificate]", "[endpoints.certificate]"]
            .iter()
            .any(|name| table.contains(name))
    };
    let tables: Vec<String> =
        text.split("\n[").map(|table| format!("[{table}\n")).filter(|table| wanted(&table.as_str())).collect();
    let file = folder.path().join("two.toml");
    std::fs::write(&file, tables.concat()).unwrap();
    let finished = run(&["check", "--config", file.to_str().unwrap()]).await;
    (finished.code, finished.stderr)
}

#[tokio::test]
async fn check_reports_what_is_wrong_with_a_secret_or_key() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let pem = std::fs::read_to_string(&files.certificate).unwrap();
    let (code, output) = check(SECRET.as_bytes(), pem.as_bytes()).await;
    assert_eq!((code, output.as_str()), (Some(0), ""));
    for (secret, pem, code, expected) in [
        (format!("\"{SECRET}\""), pem.clone(), 0, "warning: credentials.secret: file "),
        (format!("{SECRET} \n"), pem.clone(), 0, "begins or ends with white space"),
        (SECRET.to_owned(), pem.replace('\n', "\\n"), 0, "has its PEM in one line"),
        (SECRET.to_owned(), pem[..pem.len() / 2].to_owned(), 1, "error: credentials.certificate: "),
        (SECRET.to_owned(), STANDARD.encode(&pem), 1, "decode it with `base64 -d`"),
        (SECRET.to_owned(), "nothing of the kind".to_owned(), 1, "is not PEM"),
    ] {
        let (ended, output) = check(secret.as_bytes(), pem.as_bytes()).await;
        assert_eq!(ended, Some(code), "{output}");
        assert!(output.contains(expected), "{expected}: {output}");
    }
}

#[tokio::test]
async fn accepts_recoverable_secret_files_and_rejects_a_pipe() {
    // A byte order mark, and line breaks as `\n`.
    for choice in [CredentialChoice::ClientSecret, CredentialChoice::ClientCertificate, CredentialChoice::FederatedFile]
    {
        let builder = HarnessBuilder::start().await;
        let config = GatewayConfig::default().with_credential("east", choice);
        let files = builder.write_files(&config);
        let pem = std::fs::read_to_string(&files.certificate).unwrap();
        std::fs::write(&files.certificate, format!("\u{feff}{}", pem.replace('\n', "\\n"))).unwrap();
        for path in [&files.secret, &files.assertion] {
            let text = std::fs::read_to_string(path).unwrap();
            std::fs::write(path, format!("\u{feff}{text}\r\n")).unwrap();
        }
        let process = Process::start_gateway(&files.config, &[]).await;
        process.wait_until_credentials_are("ready").await;
    }
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("client-secret");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let config = config(folder.path(), &pipe, &pipe);
    let finished = run(&["check", "--config", config.to_str().unwrap()]).await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("is a pipe, must be a file"), "{}", finished.stderr);
}

#[tokio::test]
async fn warns_once_of_secrets_that_every_user_can_read() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true), (0o666, true)] {
        std::fs::set_permissions(&files.secret, std::fs::Permissions::from_mode(mode)).unwrap();
        let checked = run(&["check", "--config", files.config.to_str().unwrap()]).await;
        assert_eq!(checked.stderr.contains(&format!("has mode {mode:04o}")), warned, "{}", checked.stderr);
        assert_eq!(checked.code, Some(0));
        let process = Process::start_gateway(&files.config, &[]).await;
        process.wait_until_credentials_are("ready").await;
        process.terminate().await;
        let log = process.wait().await.1;
        assert_eq!(log.matches(&format!("has mode {mode:04o}")).count(), usize::from(warned), "{log}");
    }
}

#[tokio::test]
async fn process_memory_is_never_dumped() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let process = Process::start_gateway(&files.config, &[]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let core: Vec<&str> =
        limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().split_whitespace().collect();
    assert_eq!(&core[4..6], ["0", "0"], "{limits}");
    // The /proc files of a process that is not dumpable belong to root, and it can still read its own.
    let environment = std::fs::metadata(format!("/proc/{}/environ", process.id())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&environment), 0);
    let metrics = Caller::connect(process.admin()).await.call("GET", "/metrics").await.text();
    for own in ["process_open_fds ", "process_resident_memory_bytes ", "process_cpu_seconds_total "] {
        assert!(metrics.contains(own), "{metrics}");
    }
}

#[tokio::test]
async fn reads_the_lifetime_of_a_managed_identity_token_in_every_format() {
    for (fields, is_accepted) in [
        (r#","expires_on":"2099-01-15T08:00:00Z","expires_in":"3599""#, false),
        (r#","expires_in":3599"#, true),
        (r#","expires_on":"soon","expires_in":"3599""#, true),
        (r#","expires_on":"soon""#, false),
        ("", false),
    ] {
        let builder = HarnessBuilder::start().await;
        let body = format!(r#"{{"access_token":"opaque-token"{fields}}}"#);
        builder.sandbox.imds().faults().set(Fault::always(FaultKind::json(200, &body)));
        let harness = builder
            .start_gateway(|options| {
                options.config = options.config.clone().with_credential("east", CredentialChoice::ManagedIdentity);
                options.wait_until_ready = false;
            })
            .await;
        let east = wait_until("a token was requested", async || {
            Some(harness.credential("east").await).filter(|east| east["state"] != "starting")
        })
        .await;
        assert_eq!(east["state"] == "ready", is_accepted, "{fields}: {east}");
        if !is_accepted {
            let output = east["last_error"].as_str().unwrap();
            assert!(output.contains("seconds") || output.contains("expires_"), "{fields}: {output}");
        }
    }
    let harness = Harness::start(|options| options.wait_until_ready = false).await;
    harness.sandbox.directory().edit(|directory| directory.tokens.expires_in = Some(serde_json::json!("3599")));
    harness.wait_until_credentials_are("ready").await;
}
