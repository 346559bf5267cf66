//! Identities of other platforms, from the platform's provider to the token that the endpoint receives, and the errors
//! when there is none.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use signalr_gateway::sandbox::{
    APP_CLIENT_ID, Authorization, CredentialChoice, Entry, Fault, FaultKind, Files, GatewayConfig, OAUTH2_CLIENT_ID,
    SERVICE_CONNECTION, Server, TENANT_B, fingerprint,
};

use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Caller, HarnessBuilder, Process, Program, wait_until};

/// Proxy variables that must be ignored: nothing listens at their address.
const PROXIES: [(&str, &str); 4] = [
    ("HTTP_PROXY", "http://127.0.0.1:9"),
    ("http_proxy", "http://127.0.0.1:9"),
    ("HTTPS_PROXY", "http://127.0.0.1:9"),
    ("ALL_PROXY", "http://127.0.0.1:9"),
];

/// Writes a configuration with this credential for `east`.
fn write(builder: &HarnessBuilder, choice: CredentialChoice) -> Files {
    let config = GatewayConfig::default().with_credential("east", choice);
    builder.write_files(&config)
}

/// Starts the gateway with the environment of a platform.
async fn start(builder: &HarnessBuilder, files: &Files, environment: &[(&str, &str)]) -> Process {
    let environment: Vec<_> = PROXIES.iter().chain(environment).copied().collect();
    Program::gateway(&files.config, &[]).environment(&environment).start(builder.folder.path()).await
}

/// Sends a message to `east` and returns its bearer token.
async fn bearer_at_east(builder: &HarnessBuilder, gateway: &Process) -> Authorization {
    gateway.wait_until_credentials_are("ready").await;
    Caller::connect(gateway.listener())
        .await
        .post(BROADCAST_PATH, "application/json", BROADCAST_BODY)
        .await
        .assert_status(202);
    let arrivals = builder.sandbox.endpoint("east").unwrap().server.journal().entries();
    let arrived = arrivals.into_iter().find(|entry| entry.path() != "/api/health").unwrap();
    arrived.authorization.unwrap().as_ref().clone()
}

#[track_caller]
fn assert_is_the_app(bearer: &Authorization) {
    let seen = (bearer.claim("tid"), bearer.claim("appid"));
    assert_eq!(seen, (Some(TENANT_B), Some(APP_CLIENT_ID)), "{bearer:?}");
}

/// Returns the only request that a provider received.
fn only_request(provider: &Server) -> Entry {
    let mut request = provider.journal().entries();
    assert_eq!(request.len(), 1, "{request:#?}");
    request.remove(0)
}

/// Returns the last error of `east` on `/status`.
async fn last_error(gateway: &Process) -> String {
    wait_until("/status shows an error", async || {
        let status = gateway.status().await;
        let credentials = status["credentials"].as_array()?.clone();
        let east = credentials.into_iter().find(|credential| credential["name"] == "east")?;
        Some(east["last_error"].as_str()?.to_owned())
    })
    .await
}

#[tokio::test]
async fn obtains_a_token_with_the_id_token_of_github_actions() {
    let builder = HarnessBuilder::start().await;
    let files = write(&builder, CredentialChoice::FederatedGithubActions);
    let (url, token) = builder.sandbox.github_actions();
    let environment = [("ACTIONS_ID_TOKEN_REQUEST_URL", &*url), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", token.expose())];
    let gateway = start(&builder, &files, &environment).await;
    assert_is_the_app(&bearer_at_east(&builder, &gateway).await);
    let request = only_request(builder.sandbox.providers());
    let bearer = request.authorization.as_ref().unwrap();
    assert_eq!((request.method.as_str(), &*bearer.fingerprint), ("GET", &*fingerprint(token.expose())));
    assert!(
        request.target.ends_with("?api-version=2.0&audience=api%3A%2F%2FAzureADTokenExchange"),
        "{}",
        request.target
    );
    assert_eq!(request.header("accept"), Some("application/json"));
}

#[tokio::test]
async fn reports_a_github_job_that_has_ended() {
    let builder = HarnessBuilder::start().await;
    let files = write(&builder, CredentialChoice::FederatedGithubActions);
    let (url, _) = builder.sandbox.github_actions();
    let environment = [("ACTIONS_ID_TOKEN_REQUEST_URL", &*url), ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "of-another-job")];
    let gateway = start(&builder, &files, &environment).await;
    let error = last_error(&gateway).await;
    assert!(error.starts_with("the OIDC provider of GitHub Actions at 127.0.0.1:"), "{error}");
    assert!(
        error.contains(" answered 401") && error.ends_with("the request token is valid only while its job runs"),
        "{error}"
    );
    assert_eq!(builder.sandbox.providers().journal().received(), 1, "the token was requested again");
    assert!(!error.contains("of-another-job"));
}

#[tokio::test]
async fn obtains_a_token_with_a_service_connection_of_azure_pipelines() {
    let builder = HarnessBuilder::start().await;
    let files = write(&builder, CredentialChoice::FederatedAzurePipelines);
    let (url, token) = builder.sandbox.azure_pipelines();
    let environment = [("SYSTEM_OIDCREQUESTURI", &*url), ("SYSTEM_ACCESSTOKEN", token.expose())];
    let gateway = start(&builder, &files, &environment).await;
    assert_is_the_app(&bearer_at_east(&builder, &gateway).await);
    let request = only_request(builder.sandbox.providers());
    assert_eq!((request.method.as_str(), request.body_length), ("POST", 0));
    let query = format!("?api-version=7.1&serviceConnectionId={SERVICE_CONNECTION}");
    assert!(request.target.ends_with(&query), "{}", request.target);
    assert_eq!(request.header("x-tfs-fedauthredirect"), Some("Suppress"));

    let gateway = start(&builder, &files, &[environment[0], ("SYSTEM_ACCESSTOKEN", "wrong")]).await;
    let error = last_error(&gateway).await;
    assert!(
        error.contains("Azure Pipelines") && error.contains("401") && error.contains("`service_connection`"),
        "{error}"
    );
    assert!(error.contains("TF400813"), "the provider's message is missing: {error}");
}

#[tokio::test]
async fn obtains_a_token_with_a_google_service_account() {
    for (account, format) in [("default", "standard"), ("gateway@contoso.iam.gserviceaccount.com", "full")] {
        let builder = HarnessBuilder::start().await;
        let files = write(&builder, CredentialChoice::FederatedGcp);
        let text = std::fs::read_to_string(&files.config).unwrap();
        let source = "source = \"gcp_metadata\"";
        assert!(text.contains(source));
        let more = format!("{source}, service_account = \"{account}\", format = \"{format}\"");
        std::fs::write(&files.config, text.replace(source, &more)).unwrap();
        let gateway = start(&builder, &files, &[]).await;
        assert_is_the_app(&bearer_at_east(&builder, &gateway).await);
        let request = only_request(builder.sandbox.gcp_metadata());
        assert_eq!(request.header("metadata-flavor"), Some("Google"));
        let query = format!("/{account}/identity?audience=api%3A%2F%2FAzureADTokenExchange&format={format}");
        assert!(request.target.ends_with(&query), "{}", request.target);
    }
}

#[tokio::test]
async fn rejects_an_impostor_of_the_google_metadata_server() {
    let builder = HarnessBuilder::start().await;
    let files = write(&builder, CredentialChoice::FederatedGcp);
    let token = builder.sandbox.external_assertion(Duration::from_secs(600)).unwrap();
    builder.sandbox.gcp_metadata().faults().set(Fault::always(FaultKind::body(200, "text/html", &token)));
    let gateway = start(&builder, &files, &[]).await;
    let error = last_error(&gateway).await;
    assert!(error.contains("the response is not from the metadata server"), "{error}");
    let entra = builder.sandbox.entra().journal().entries();
    assert!(entra.iter().all(|entry| !entry.path().contains(TENANT_B)), "the token was sent to Entra");
}

#[tokio::test]
async fn obtains_an_assertion_from_an_oauth2_server_with_either_client_authentication() {
    for choice in [CredentialChoice::FederatedOAuth2, CredentialChoice::FederatedOAuth2Post] {
        let builder = HarnessBuilder::start().await;
        let files = write(&builder, choice);
        let gateway = start(&builder, &files, &[]).await;
        assert_is_the_app(&bearer_at_east(&builder, &gateway).await);
        let request = only_request(builder.sandbox.providers());
        let form = request.form();
        let field = |name: &str| form.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str());
        assert_eq!((request.method.as_str(), field("grant_type")), ("POST", Some("client_credentials")));
        if choice == CredentialChoice::FederatedOAuth2 {
            assert_eq!(request.authorization.unwrap().scheme, "Basic");
            assert_eq!((field("audience"), field("client_id")), (Some("api://AzureADTokenExchange"), None));
        } else {
            assert!(request.authorization.is_none());
            assert_eq!((field("scope"), field("client_id")), (Some("openid"), Some(OAUTH2_CLIENT_ID)));
        }
    }
}

#[tokio::test]
async fn follows_the_secret_file_of_an_oauth2_client_and_never_shows_it() {
    let builder = HarnessBuilder::start().await;
    let files = write(&builder, CredentialChoice::FederatedOAuth2);
    let file = builder.folder.path().join("idp-secret");
    let secret = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, "not-the-secret-of-the-client").unwrap();
    let gateway = start(&builder, &files, &[]).await;
    let error = last_error(&gateway).await;
    // The server repeats the request in its response.
    assert!(error.contains(&format!("No client '{OAUTH2_CLIENT_ID}' with secret '…'.")), "{error}");
    assert!(error.contains("401 invalid_client") && error.contains("check `client_id`, `secret`"), "{error}");
    // The gateway learns of the change only from the file.
    std::fs::write(&file, secret).unwrap();
    assert_is_the_app(&bearer_at_east(&builder, &gateway).await);
}

#[tokio::test]
async fn does_not_present_an_opaque_token_to_entra() {
    let builder = HarnessBuilder::start().await;
    let files = write(&builder, CredentialChoice::FederatedOAuth2);
    let text = std::fs::read_to_string(&files.config).unwrap();
    std::fs::write(&files.config, text.replace(", audience = \"api://AzureADTokenExchange\" }", " }")).unwrap();
    let gateway = start(&builder, &files, &[]).await;
    let error = last_error(&gateway).await;
    assert!(error.contains("not a JWT, and Entra accepts no other assertion"), "{error}");
    let entra = builder.sandbox.entra().journal().entries();
    assert!(entra.iter().all(|entry| !entry.path().contains(TENANT_B)));
}

#[tokio::test]
async fn uses_the_output_of_the_assertion_command_for_all_token_requests_of_a_minute() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.directory().edit(|directory| directory.tokens.repeat = false);
    let harness = builder
        .start_gateway(|options| {
            options.config = options.config.clone().with_credential("east", CredentialChoice::FederatedCommand);
        })
        .await;
    harness.broadcast().await.assert_status(202);
    assert_is_the_app(&harness.arrival("east").authorization.unwrap());
    let first = std::fs::read_to_string(&harness.files.assertion).unwrap();
    let another = harness.sandbox.external_assertion(Duration::from_secs(600)).unwrap();
    std::fs::write(&harness.files.assertion, another).unwrap();
    harness.endpoint("east").server.faults().set(Fault::times(1, FaultKind::status(401)));
    harness.broadcast().await.assert_status(202);
    let requests = harness.sandbox.entra().journal().entries();
    let mut requests = requests.iter().filter(|entry| entry.path().contains(TENANT_B));
    let is_first =
        |entry: &Entry| entry.form().iter().any(|(field, value)| field == "client_assertion" && *value == first.trim());
    assert_eq!((requests.clone().count(), requests.all(is_first)), (2, true));
}

/// Writes an executable script.
fn program(path: &Path, script: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test]
async fn reports_exit_code_and_stderr_of_a_failed_command_without_tokens() {
    let builder = HarnessBuilder::start().await;
    let files = write(&builder, CredentialChoice::FederatedCommand);
    let script = "cat \"${0%/*}/assertion.jwt\" >&2; printf '\\n\\033[2Jnot signed in\\n' >&2; exit 5";
    program(&builder.folder.path().join("get-assertion"), script);
    let gateway = start(&builder, &files, &[]).await;
    let error = last_error(&gateway).await;
    assert!(error.contains("get-assertion failed with exit status: 5: "), "{error}");
    assert!(error.ends_with("not signed in") && !error.contains("eyJ") && !error.contains('\u{1b}'), "{error}");
}

#[tokio::test]
async fn hanging_assertion_command_delays_no_other_credential() {
    let harness = HarnessBuilder::start()
        .await
        .start_gateway(|options| {
            options.config = options.config.clone().with_credential("east", CredentialChoice::FederatedCommand);
            options.wait_until_ready = false;
            options.set("credentials.east.assertion.argv", "[sleep, \"1000\"]");
            options.set("credentials.east.assertion.timeout", "300ms");
        })
        .await;
    wait_until("west is ready", async || (harness.credential("west").await["state"] == "ready").then_some(())).await;
    let error = wait_until("the program was killed", async || {
        let east = harness.credential("east").await;
        Some(east["last_error"].as_str()?.to_owned())
    })
    .await;
    assert_eq!(error, "sleep did not end within 300ms and was killed");
}

#[tokio::test]
async fn workload_identity_is_read_from_the_pods_environment() {
    let builder = HarnessBuilder::start().await;
    let token = builder.folder.path().join("projected-token");
    std::fs::write(&token, builder.sandbox.external_assertion(Duration::from_secs(600)).unwrap()).unwrap();
    let harness = builder
        .start_gateway(|options| {
            options.config = options.config.clone().with_credential("east", CredentialChoice::WorkloadIdentity);
            options.environment = [
                ("AZURE_CLIENT_ID", APP_CLIENT_ID),
                ("AZURE_TENANT_ID", "00000000-0000-4000-8000-000000000000"),
                ("AZURE_FEDERATED_TOKEN_FILE", token.to_str().unwrap()),
                ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        })
        .await;
    harness.broadcast().await.assert_status(202);
    assert_is_the_app(&harness.arrival("east").authorization.unwrap());
}

/// Writes an `az` that prints a token and records its arguments.
fn azure_cli(builder: &HarnessBuilder, token: &str) -> String {
    let folder = builder.folder.path().join("bin");
    std::fs::create_dir(&folder).unwrap();
    let expires = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 600;
    let printed = serde_json::json!({
        "accessToken": token, "expiresOn": "2030-01-15 09:00:00.000000", "expires_on": expires, "tokenType": "Bearer",
    });
    let script = format!(
        "printf '%s\\n' \"$@\" > \"${{0%/*}}/arguments\"; env > \"${{0%/*}}/environment\"\ncat <<'.'\n{printed}\n."
    );
    program(&folder.join("az"), &script);
    format!("{}:/usr/bin:/bin", folder.display())
}

#[tokio::test]
async fn obtains_a_token_from_azure_cli() {
    let builder = HarnessBuilder::start().await;
    let files = write(&builder, CredentialChoice::AzureCli);
    let token = builder.sandbox.access_token("east", Duration::from_secs(600)).unwrap();
    let path = azure_cli(&builder, &token);
    let gateway = start(&builder, &files, &[("PATH", &path), ("FOREIGN_SECRET", "x"), ("HOME", "/nowhere")]).await;
    assert_eq!(bearer_at_east(&builder, &gateway).await.fingerprint, fingerprint(&token));
    let read = |name: &str| std::fs::read_to_string(builder.folder.path().join("bin").join(name)).unwrap();
    let scope = "https://signalr.azure.com/.default";
    let request = ["account", "get-access-token", "--output", "json", "--scope", scope, "--tenant", TENANT_B];
    assert_eq!(read("arguments").lines().collect::<Vec<_>>(), request);
    assert!(read("environment").contains("HOME=/nowhere") && !read("environment").contains("FOREIGN_SECRET"));
}

#[tokio::test]
async fn reports_that_azure_cli_is_not_signed_in() {
    let builder = HarnessBuilder::start().await;
    let files = write(&builder, CredentialChoice::AzureCli);
    let path = azure_cli(&builder, "unused");
    let message = "ERROR: Please run 'az login' to setup account.";
    program(&builder.folder.path().join("bin/az"), &format!("echo \"{message}\" >&2; exit 1"));
    let gateway = start(&builder, &files, &[("PATH", &path)]).await;
    assert_eq!(last_error(&gateway).await, format!("az failed with exit status: 1: {message}"));
    let gateway = start(&builder, &files, &[("PATH", "/nowhere")]).await;
    assert!(last_error(&gateway).await.starts_with("az cannot be started: check that it is installed"));
}
