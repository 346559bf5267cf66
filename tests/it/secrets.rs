//! Searches everything that the gateway shows, at the most verbose level, for secrets.

use std::time::Duration;

use signalr_gateway::sandbox::{APP_CLIENT_ID, CredentialChoice, Fault, FaultKind, GatewayConfig, TENANT_B, TENANT_C};

use crate::support::{
    ALL_OPERATIONS, BROADCAST_BODY, BROADCAST_PATH, Caller, HarnessBuilder, Process, Program, RawConnection, Response,
    broadcast_request, request, run_in, wait_until,
};

/// The secrets to search for, each with a name that a failing test may print.
struct Canaries(Vec<(String, String)>);

impl Canaries {
    /// Asserts that a text contains no secret and nothing that looks like a token.
    #[track_caller]
    fn assert_absent(&self, source: &str, text: &str) {
        for (name, secret) in &self.0 {
            assert!(!text.contains(secret.as_str()), "{name} is shown by {source}");
        }
        // Every JWT begins with this: `{"` in base64url.
        let token = text.match_indices("eyJ").find(|(at, _)| {
            text[at + 3..].bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte)).count() > 16
        });
        assert!(token.is_none(), "a token is shown by {source}: {token:?}");
    }
}

fn canaries(builder: &HarnessBuilder, folder: &std::path::Path) -> Canaries {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let mut found = vec![("the client secret".to_owned(), read("client-secret").unwrap())];
    let (_, header) = builder.sandbox.app_service_identity();
    found.push(("the secret of App Service".to_owned(), header.expose().to_owned()));
    found.push(("GitHub's request token".to_owned(), builder.sandbox.github_actions().1.expose().to_owned()));
    found.push(("a job's access token".to_owned(), builder.sandbox.azure_pipelines().1.expose().to_owned()));
    found.push(("an OAuth 2.0 secret".to_owned(), builder.sandbox.oauth2_client().1.expose().to_owned()));
    for endpoint in ["east", "west"] {
        found.extend(read(&format!("{endpoint}-access-key")).map(|key| ("an access key".to_owned(), key)));
        found.extend(read(&format!("{endpoint}-token")).map(|token| ("a token file".to_owned(), token)));
    }
    for (name, file) in [("the assertion", "assertion.jwt"), ("the token of the Azure CLI", "az.token")] {
        let Some(token) = read(file) else { continue };
        // The end of a token is enough to recognise it.
        found.push((format!("the signature of {name}"), token.rsplit('.').next().unwrap().to_owned()));
        found.push((format!("the end of {name}"), token[token.len() - 40..].to_owned()));
    }
    let pem = read("client.pem").unwrap();
    let key = pem.split("PRIVATE KEY-----").nth(1).unwrap();
    let lines = key.lines().filter(|line| line.len() > 40);
    found.extend(lines.map(|line| ("a line of the private key".to_owned(), line.to_owned())));
    assert!(found.len() > 10 && found.iter().all(|(_, secret)| secret.len() >= 8));
    Canaries(found)
}

/// Causes every kind of failure.
async fn cause_failures(builder: &HarnessBuilder, process: &Process, outputs: &mut Vec<(String, String)>) {
    let mut caller = Caller::connect(process.listener()).await;
    let mut record = |what: &str, response: Response| {
        outputs.push((what.to_owned(), format!("{:?} {}", response.headers, String::from_utf8_lossy(&response.body))));
    };
    for hub in ["east", "west"] {
        let faults = builder.sandbox.endpoint(hub).unwrap().server.faults();
        let send = |id: &str| {
            request("POST", &format!("/api/hubs/{hub}/:send?api-version=2022-11-01"))
                .header("content-type", "application/json")
                .header("authorization", "Bearer of-the-caller-canary")
                .header("cookie", "of-the-caller-canary")
                .header("x-request-id", id)
        };
        record("a successful response", caller.send(send("good"), BROADCAST_BODY).await);
        faults.set(Fault::times(1, FaultKind::status(401)));
        record("a response after a rejected token", caller.send(send("replaced"), BROADCAST_BODY).await);
        faults.set(Fault::times(1, FaultKind::html(403)));
        record("a 403", caller.send(send("forbidden"), BROADCAST_BODY).await);
        faults.set(Fault::times(1, FaultKind::Reset));
        record("a 502", caller.send(send("reset"), BROADCAST_BODY).await);
        faults.refuse().await;
        record("an unreachable endpoint", caller.send(send("refused"), BROADCAST_BODY).await);
        faults.clear().await;
    }
    record("an unknown path", caller.post("/of-the-caller", "text/plain", BROADCAST_BODY).await);
    record("a foreign host", caller.send(broadcast_request().header("host", "evil.example"), BROADCAST_BODY).await);
    for path in ["/", "/status", "/metrics", "/readyz", "/livez"] {
        let response = Caller::connect(process.admin()).await.call("GET", path).await;
        outputs.push((path.to_owned(), response.text()));
    }
}

/// Returns the variables that platforms set, and the path of `az`.
fn environment(builder: &HarnessBuilder) -> Vec<(&'static str, String)> {
    let folder = builder.folder.path();
    let ((github, github_token), (pipelines, pipelines_token)) =
        (builder.sandbox.github_actions(), builder.sandbox.azure_pipelines());
    vec![
        ("ACTIONS_ID_TOKEN_REQUEST_URL", github),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", github_token.expose().to_owned()),
        ("SYSTEM_OIDCREQUESTURI", pipelines),
        ("SYSTEM_ACCESSTOKEN", pipelines_token.expose().to_owned()),
        ("AZURE_CLIENT_ID", APP_CLIENT_ID.to_owned()),
        ("AZURE_FEDERATED_TOKEN_FILE", folder.join("assertion.jwt").display().to_string()),
        ("PATH", format!("{}:/usr/bin:/bin", folder.display())),
    ]
}

/// Writes an `az` that fails during a whole acquisition and then prints a token. It always prints the token on stderr.
fn write_azure_cli(builder: &HarnessBuilder) {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = builder.folder.path();
    std::fs::write(folder.join("az.token"), builder.sandbox.access_token("east", Duration::from_secs(600)).unwrap())
        .unwrap();
    let script = "#!/bin/sh\ntoken=$(cat \"$0.token\")\necho \"debug: $token\" >&2\n\
                  echo >> \"$0.ran\"; [ $(wc -l < \"$0.ran\") -gt 3 ] || exit 1\n\
                  echo \"{\\\"accessToken\\\":\\\"$token\\\",\\\"expires_on\\\":4000000000}\"\n";
    std::fs::write(folder.join("az"), script).unwrap();
    std::fs::set_permissions(folder.join("az"), std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn shows_no_secret_in_any_output() {
    use CredentialChoice::{
        AccessKey, AzureCli, ClientCertificate, ClientCertificateRs256, ClientSecret, FederatedAzurePipelines,
        FederatedCommand, FederatedFile, FederatedGcp, FederatedGithubActions, FederatedIdentity, FederatedOAuth2,
        FederatedOAuth2Post, ManagedIdentity, TokenFile, WorkloadIdentity,
    };
    for (east, west) in [
        (ClientSecret, FederatedIdentity),
        (ClientCertificate, AccessKey),
        (ClientCertificateRs256, TokenFile),
        (ManagedIdentity, FederatedFile),
        (FederatedOAuth2, FederatedGithubActions),
        (FederatedOAuth2Post, FederatedAzurePipelines),
        (WorkloadIdentity, FederatedCommand),
        (AzureCli, FederatedGcp),
    ] {
        let builder = HarnessBuilder::start().await;
        let config = GatewayConfig {
            operations: ALL_OPERATIONS.map(str::to_owned).to_vec(),
            more: "[[routes]]\nname = \"east\"\nmatch = { hub = \"east\" }\nendpoints = [\"east\"]\n\
                   [[routes]]\nname = \"west\"\nendpoints = [\"west\"]\n"
                .to_owned(),
            ..GatewayConfig::default().with_credential("east", east).with_credential("west", west)
        };
        let folder = builder.folder.path();
        let files = builder.sandbox.write_files(folder, &config).unwrap();
        // Entra rejects the first request, with a long description.
        let description = r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret provided.\r\nTrace ID: 1\r\nCorrelation ID: 2","error_codes":[7000215]}"#;
        // Not for credentials without a file: they retry only after a minute.
        let tenant = if west == FederatedFile { TENANT_C } else { TENANT_B };
        let rejected = Fault::times(1, FaultKind::json(401, description)).on_path(&format!("/{tenant}"));
        builder.sandbox.entra().faults().set(rejected);
        for host in [builder.sandbox.imds(), builder.sandbox.providers(), builder.sandbox.gcp_metadata()] {
            host.faults().set(Fault::times(1, FaultKind::status(500)));
        }
        write_azure_cli(&builder);
        let environment = environment(&builder);
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let filter = "logging.filter=trace,azure_identity=trace,azure_core=trace,typespec_client_core=trace";
        let process = Program::gateway(&files.config, &[filter]).environment(&environment).start(folder).await;
        let canaries = canaries(&builder, folder);
        let mut outputs = Vec::new();
        // Rewriting the files makes the gateway read them at once.
        wait_until("all credentials are ready", async || {
            let followed = ["idp-secret"].map(|name| folder.join(name));
            for file in [&files.secret, &files.certificate, &files.assertion].into_iter().chain(&followed) {
                if let Ok(content) = std::fs::read(file) {
                    std::fs::write(file, content).unwrap();
                }
            }
            let status = Caller::connect(process.admin()).await.call("GET", "/status").await;
            outputs.push(("/status at the start".to_owned(), status.text()));
            let credentials = status.json()["credentials"].as_array().unwrap().clone();
            credentials.iter().all(|credential| credential["state"] == "ready").then_some(())
        })
        .await;
        let mut tail = RawConnection::connect(process.admin()).await;
        tail.write(format!("GET /tail HTTP/1.1\r\nhost: {}\r\n\r\n", process.admin())).await;
        tail.read_to(b"\r\n\r\n").await.unwrap();
        cause_failures(&builder, &process, &mut outputs).await;
        let last = request("GET", "/last").header("x-request-id", "the-last-call");
        Caller::connect(process.listener()).await.send(last, "").await;
        let lines = String::from_utf8(tail.read_to(b"the-last-call").await.unwrap()).unwrap();
        assert!(lines.lines().count() > 12, "{lines}");
        outputs.push(("/tail".to_owned(), lines));
        let sent: usize =
            builder.sandbox.endpoints().iter().map(|endpoint| endpoint.server.journal().entries().len()).sum();
        assert!(sent >= 8, "{sent}");
        let config = files.config.to_str().unwrap();
        for arguments in [vec!["doctor", "--config", config], vec!["token", "east", "--config", config]] {
            let finished = run_in(&environment, &arguments).await;
            outputs.push((arguments.join(" "), format!("{}{}", finished.stdout, finished.stderr)));
        }
        process.terminate().await;
        let (_, log) = process.wait().await;
        assert!(log.contains("\"TRACE\"") || log.contains("\"DEBUG\""), "the log is not verbose: {log}");
        outputs.push(("the log".to_owned(), log));
        for (source, text) in &outputs {
            canaries.assert_absent(&format!("{source} ({east:?}, {west:?})"), text);
            assert!(!text.contains("of-the-caller-canary"), "{source} shows what callers authenticate with");
        }
    }
}

#[tokio::test]
async fn check_shows_no_secret() {
    let builder = HarnessBuilder::start().await;
    let config = GatewayConfig::default().with_credential("east", CredentialChoice::AccessKey);
    let files = builder.write_files(&config);
    let canaries = canaries(&builder, builder.folder.path());
    let config = files.config.to_str().unwrap();
    for arguments in [
        vec!["check", "--config", config],
        vec!["check", "--config", config, "--json"],
        vec!["explain", "--config", config, "POST", BROADCAST_PATH],
    ] {
        let finished = crate::support::run(&arguments).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        canaries.assert_absent(&arguments.join(" "), &format!("{}{}", finished.stdout, finished.stderr));
    }
    // A secret in the wrong key is not repeated.
    let pasted = builder.sandbox.client_secret().expose().to_owned();
    let text = std::fs::read_to_string(&files.config).unwrap();
    let text = text.replacen("key = { file = \"east-access-key\" }", &format!("key = \"{pasted}\""), 1);
    assert!(text.contains(&pasted));
    std::fs::write(&files.config, text).unwrap();
    for arguments in [
        vec!["check", "--config", config],
        vec!["check", "--config", config, "--json"],
        vec!["run", "--config", config],
    ] {
        let finished = crate::support::run(&arguments).await;
        assert_eq!(finished.code, Some(2), "{finished:?}");
        canaries.assert_absent(&arguments.join(" "), &format!("{}{}", finished.stdout, finished.stderr));
    }
}
