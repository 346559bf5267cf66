//! Every kind of credential, from its file to the token that the endpoint receives. Each endpoint receives only its
//! own token.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use signalr_gateway::sandbox::{
    APP_CLIENT_ID, Authorization, CredentialChoice, Fault, FaultKind, IDENTITY_CLIENT_ID, LOCAL_IDENTITY_CLIENT_ID,
    Sandbox, TENANT_A, TENANT_B, TENANT_C, fingerprint,
};

use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, HarnessBuilder, Process, wait_until};

/// Two routes: the hub selects the endpoint.
const BY_HUB: &str = "[[routes]]\nname = \"east\"\nmatch = { hub = \"east\" }\nendpoints = [\"east\"]\n\
                      [[routes]]\nname = \"west\"\nmatch = { hub = \"west\" }\nendpoints = [\"west\"]\n";

async fn harness_with(east: CredentialChoice) -> Harness {
    Harness::start(|options| options.config = options.config.clone().with_credential("east", east)).await
}

/// Sends a message to `east` and returns its bearer token. The endpoint checks signature, audience, tenant and lifetime
/// before it answers 202.
async fn bearer_at_east(harness: &Harness) -> Authorization {
    harness.clear_arrivals();
    harness.broadcast().await.assert_status(202);
    let bearer = harness.arrival("east").authorization.unwrap();
    assert_eq!(bearer.scheme, "Bearer");
    bearer.as_ref().clone()
}

/// Returns the object id of the app's enterprise application in a tenant.
fn app_in(sandbox: &Sandbox, tenant: &str) -> String {
    sandbox
        .directory()
        .read(|directory| directory.tenant(tenant).unwrap().service_principal(APP_CLIENT_ID).unwrap().object_id.clone())
}

#[track_caller]
fn assert_is_app_in(harness: &Harness, bearer: &Authorization, tenant: &str) {
    let object_id = app_in(&harness.sandbox, tenant);
    let seen = (bearer.claim("tid"), bearer.claim("oid"), bearer.claim("appid"));
    assert_eq!(seen, (Some(tenant), Some(&*object_id), Some(APP_CLIENT_ID)), "{bearer:?}");
}

/// Returns the fields of the only token request to Entra for a tenant.
fn token_request(harness: &Harness, tenant: &str) -> std::collections::BTreeMap<String, String> {
    let path = format!("/{tenant}/oauth2/v2.0/token");
    let entries = harness.sandbox.entra().journal().entries();
    let mut matching = entries.iter().filter(|entry| entry.path() == path);
    let request = matching.next().unwrap_or_else(|| panic!("no request to {path}"));
    assert!(matching.next().is_none(), "more than one token request");
    request.form().into_iter().collect()
}

/// Returns the header of a JWT.
fn jwt_header(jwt: &str) -> serde_json::Value {
    use base64::Engine as _;
    let header = jwt.split('.').next().unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap()
}

#[tokio::test]
async fn obtains_a_token_with_a_client_secret() {
    let harness = harness_with(CredentialChoice::ClientSecret).await;
    assert_is_app_in(&harness, &bearer_at_east(&harness).await, TENANT_B);
    let form = token_request(&harness, TENANT_B);
    assert_eq!(form["grant_type"], "client_credentials");
    assert_eq!(form["scope"], "https://signalr.azure.com/.default");
    assert!(form["client_secret"] == harness.sandbox.client_secret().expose(), "not the secret of the file");
}

#[tokio::test]
async fn retries_with_a_client_secret_file_that_is_corrected_later() {
    let builder = HarnessBuilder::start().await;
    let secret = builder.sandbox.client_secret();
    builder.sandbox.directory().edit(|directory| {
        let app = directory.application_mut(APP_CLIENT_ID).unwrap();
        app.secrets[0].value = signalr_gateway::sandbox::SecretText::new("not-yet-the-right-one");
    });
    // The file has the wrong secret first, then the right one.
    let harness = builder
        .start_gateway(|options| {
            options.wait_until_ready = false;
            options.config = options.config.clone().with_credential("west", CredentialChoice::TokenFile);
        })
        .await;
    harness.broadcast().await.assert_status(202);
    harness.sandbox.directory().edit(|directory| {
        directory.application_mut(APP_CLIENT_ID).unwrap().secrets[0].value = secret.clone();
    });
    std::fs::write(&harness.files.secret, format!("{}\r\n", secret.expose())).unwrap();
    // The next acquisition reads the file again.
    harness.endpoint("east").server.faults().set(Fault::times(1, FaultKind::status(401)));
    wait_until("a token of the new secret is in use", async || {
        harness.clear_arrivals();
        let _any_status = harness.broadcast().await;
        (harness.credential("east").await["state"] == "ready").then_some(())
    })
    .await;
    assert_is_app_in(&harness, &bearer_at_east(&harness).await, TENANT_B);
}

#[tokio::test]
async fn client_secret_is_read_from_the_environment() {
    let builder = HarnessBuilder::start().await;
    let secret = builder.sandbox.client_secret().expose().to_owned();
    let mut text = builder.sandbox.gateway_config(&signalr_gateway::sandbox::GatewayConfig::default());
    assert!(text.contains("{ file = \"client-secret\" }"));
    text = text.replace("{ file = \"client-secret\" }", "{ env = \"APP_SECRET\" }");
    let files = builder.sandbox.write_files(builder.folder.path(), &signalr_gateway::sandbox::GatewayConfig::default());
    let files = files.unwrap();
    std::fs::remove_file(&files.secret).unwrap();
    std::fs::write(&files.config, text).unwrap();
    let arguments = ["run", "--config", files.config.to_str().unwrap()];
    let gateway = Process::start(&arguments, &[("APP_SECRET", &secret)], builder.folder.path()).await;
    gateway.wait_until_credentials_are("ready").await;
    Caller::connect(gateway.listener())
        .await
        .post(BROADCAST_PATH, "application/json", BROADCAST_BODY)
        .await
        .assert_status(202);
}

#[tokio::test]
async fn client_certificate_signs_ps256_with_the_sha256_thumbprint() {
    let harness = harness_with(CredentialChoice::ClientCertificate).await;
    assert_is_app_in(&harness, &bearer_at_east(&harness).await, TENANT_B);
    let header = jwt_header(&token_request(&harness, TENANT_B)["client_assertion"]);
    assert_eq!((&header["alg"], header["x5t#S256"].is_string()), (&"PS256".into(), true), "{header}");
    assert!(header["x5c"].is_null(), "{header}");
}

#[tokio::test]
async fn client_certificate_signs_rs256_and_sends_its_chain_on_request() {
    let harness = harness_with(CredentialChoice::ClientCertificateRs256).await;
    assert_is_app_in(&harness, &bearer_at_east(&harness).await, TENANT_B);
    let header = jwt_header(&token_request(&harness, TENANT_B)["client_assertion"]);
    assert_eq!((&header["alg"], header["x5c"].is_array()), (&"RS256".into(), true), "{header}");
}

#[tokio::test]
async fn federated_credential_uses_the_managed_identity_of_the_apps_tenant() {
    let harness = harness_with(CredentialChoice::FederatedIdentity).await;
    assert_is_app_in(&harness, &bearer_at_east(&harness).await, TENANT_B);
    let requests = harness.sandbox.imds().journal().entries();
    assert!(!requests.is_empty());
    for entry in &requests {
        assert_eq!(entry.header("metadata"), Some("true"), "{entry:?}");
        assert!(entry.target.contains(&format!("client_id={IDENTITY_CLIENT_ID}")), "{entry:?}");
        assert!(entry.target.contains("resource=api%3A%2F%2FAzureADTokenExchange"), "{entry:?}");
    }
    let form = token_request(&harness, TENANT_B);
    assert_eq!(form["client_assertion_type"], "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    assert!(!form.contains_key("client_secret"));
}

#[tokio::test]
async fn federated_credential_of_a_sovereign_cloud_requests_that_clouds_audience() {
    for audience in ["api://AzureADTokenExchangeUSGov", "api://AzureADTokenExchangeChina"] {
        let builder = HarnessBuilder::start().await;
        // Only that audience is trusted, so any other assertion would be rejected.
        builder.sandbox.directory().edit(|directory| {
            let app = directory.application_mut(APP_CLIENT_ID).unwrap();
            app.federated.retain(|credential| credential.audience == audience);
        });
        let harness = builder
            .start_gateway(|options| {
                options.set("credentials.west.assertion.audience", audience);
            })
            .await;
        let requests = harness.sandbox.imds().journal().entries();
        let encoded = audience.replace(':', "%3A").replace('/', "%2F");
        assert!(requests.iter().all(|entry| entry.target.contains(&format!("resource={encoded}"))), "{requests:?}");
    }
}

#[tokio::test]
async fn federated_credential_follows_a_rotated_token_file() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.directory().edit(|directory| directory.tokens.repeat = false);
    let harness = builder
        .start_gateway(|options| {
            options.config = options.config.clone().with_credential("east", CredentialChoice::FederatedFile);
        })
        .await;
    let first = bearer_at_east(&harness).await;
    assert_is_app_in(&harness, &first, TENANT_B);

    let rotated = harness.sandbox.external_assertion(Duration::from_secs(600)).unwrap();
    std::fs::write(&harness.files.assertion, format!("{rotated}\n")).unwrap();
    harness.endpoint("east").server.faults().set(Fault::times(1, FaultKind::status(401)));
    harness.broadcast().await.assert_status(202);
    let requests = harness.sandbox.entra().journal().entries();
    let last = requests.iter().rfind(|entry| entry.path().contains(TENANT_B)).unwrap().form();
    let sent = last.iter().find(|(field, _)| field == "client_assertion").unwrap();
    assert!(sent.1 == rotated, "the file was not read again");
}

#[tokio::test]
async fn managed_identity_of_the_endpoints_own_tenant_obtains_a_token() {
    let harness = harness_with(CredentialChoice::ManagedIdentity).await;
    let bearer = bearer_at_east(&harness).await;
    assert_eq!((bearer.claim("tid"), bearer.claim("appid")), (Some(TENANT_B), Some(LOCAL_IDENTITY_CLIENT_ID)));
    let entra = harness.sandbox.entra().journal().entries();
    assert!(entra.iter().all(|entry| !entry.path().contains(TENANT_B)), "a token was requested from Entra: {entra:?}");
}

#[tokio::test]
async fn managed_identity_of_app_service_is_found_through_the_environment() {
    for choice in [CredentialChoice::ManagedIdentity, CredentialChoice::FederatedIdentity] {
        let builder = HarnessBuilder::start().await;
        let config = signalr_gateway::sandbox::GatewayConfig::default().with_credential("east", choice);
        let files = builder.write_files(&config);
        let (endpoint, header) = builder.sandbox.app_service_identity();
        let environment = [("IDENTITY_ENDPOINT", endpoint.as_str()), ("IDENTITY_HEADER", header.expose())];
        let arguments = ["run", "--config", files.config.to_str().unwrap()];
        let gateway = Process::start(&arguments, &environment, builder.folder.path()).await;
        gateway.wait_until_credentials_are("ready").await;
        Caller::connect(gateway.listener())
            .await
            .post(BROADCAST_PATH, "application/json", BROADCAST_BODY)
            .await
            .assert_status(202);
        assert_eq!(builder.sandbox.imds().journal().received(), 0, "the metadata service was called");
        let requests = builder.sandbox.app_service().journal().entries();
        assert!(!requests.is_empty());
        assert!(requests.iter().all(|entry| entry.header("x-identity-header") == Some(header.expose())));
    }
}

#[tokio::test]
async fn access_key_signs_a_token_for_each_url() {
    let harness = harness_with(CredentialChoice::AccessKey).await;
    let bearer = bearer_at_east(&harness).await;
    let east = harness.endpoint("east").url();
    assert_eq!(bearer.claim("aud"), Some(&*format!("{east}/api/hubs/chat/:send")));
    harness.clear_arrivals();
    harness
        .caller()
        .await
        .post("/api/hubs/other/users/a%2Fb/:send?api-version=2024-12-01", "application/json", BROADCAST_BODY)
        .await
        .assert_status(202);
    let bearer = harness.arrival("east").authorization.unwrap();
    assert_eq!(bearer.claim("aud"), Some(&*format!("{east}/api/hubs/other/users/a%2Fb/:send")));
}

#[tokio::test]
async fn token_file_is_read_again_when_it_changes() {
    let harness = harness_with(CredentialChoice::TokenFile).await;
    let first = bearer_at_east(&harness).await;
    assert_is_app_in(&harness, &first, TENANT_B);
    let rotated = harness.sandbox.access_token("east", Duration::from_secs(1800)).unwrap();
    // Replaces the file by rename, as programs do that write files atomically.
    let (path, partial) = (harness.folder.path().join("east-token"), harness.folder.path().join("east-token.part"));
    std::fs::write(&partial, &rotated).unwrap();
    std::fs::rename(&partial, &path).unwrap();
    wait_until("the new token is in use", async || {
        (bearer_at_east(&harness).await.fingerprint == fingerprint(&rotated)).then_some(())
    })
    .await;
    let entra = harness.sandbox.entra().journal().entries();
    assert!(entra.iter().all(|entry| !entry.path().contains(TENANT_B)), "{entra:?}");
}

#[tokio::test]
async fn tenants_with_the_same_client_id_never_receive_each_others_tokens() {
    let builder = HarnessBuilder::start().await;
    // Short lifetimes, so that both are refreshed while calls go to both.
    builder.sandbox.directory().edit(|directory| directory.tokens.lifetime = Duration::from_secs(8));
    let harness = builder
        .start_gateway(|options| {
            let config = options.config.clone().with_credential("west", CredentialChoice::ClientSecret);
            options.config = config;
            options.append_toml(BY_HUB);
        })
        .await;
    let tokens = async || {
        let (east, west) = (harness.credential("east").await, harness.credential("west").await);
        [east["token"].clone(), west["token"].clone()]
    };
    let (before, are_refreshed) = (tokens().await, Cell::new(false));
    let callers = (0..4).map(async |_| {
        let mut caller = harness.caller().await;
        // Some calls after the refreshes as well.
        let mut after = 0;
        while after < 10 {
            for hub in ["east", "west"] {
                let target = format!("/api/hubs/{hub}/:send?api-version=2022-11-01");
                caller.post(&target, "application/json", BROADCAST_BODY).await.assert_status(202);
            }
            after += usize::from(are_refreshed.get());
        }
    });
    tokio::join!(futures_util::future::join_all(callers), async {
        wait_until("both tokens are refreshed", async || {
            let tokens = tokens().await;
            tokens.iter().zip(&before).all(|(now, before)| now != before && !now.is_null()).then_some(())
        })
        .await;
        are_refreshed.set(true);
    });
    for (endpoint, tenant) in [("east", TENANT_B), ("west", TENANT_C)] {
        let arrivals = harness.arrivals(endpoint);
        let mut tokens: Vec<_> = Vec::new();
        for arrival in &arrivals {
            let bearer = arrival.authorization.as_ref().unwrap();
            assert_is_app_in(&harness, bearer, tenant);
            assert_eq!(arrival.path(), format!("/api/hubs/{endpoint}/:send"));
            tokens.push(bearer.fingerprint.clone());
        }
        tokens.dedup();
        assert!(tokens.len() > 1, "{endpoint} received only one token");
    }
}

#[tokio::test]
async fn calls_with_a_hanging_credential_fail_and_others_succeed() {
    let builder = HarnessBuilder::start().await;
    let hang = Fault::always(FaultKind::Hang).on_path(&format!("/{TENANT_C}"));
    builder.sandbox.entra().faults().set(hang);
    let harness = builder
        .start_gateway(|options| {
            options.wait_until_ready = false;
            options.set("timeouts.request", "4s").set("timeouts.try", "3s");
            options.append_toml(BY_HUB);
        })
        .await;
    wait_until("east is ready", async || (harness.credential("east").await["state"] == "ready").then_some(())).await;
    let mut caller = harness.caller().await;
    caller
        .post("/api/hubs/west/:send?api-version=2022-11-01", "application/json", BROADCAST_BODY)
        .await
        .assert_gateway_error(503, "token_unavailable");
    caller
        .post("/api/hubs/east/:send?api-version=2022-11-01", "application/json", BROADCAST_BODY)
        .await
        .assert_status(202);
    assert_eq!(harness.arrivals("west").len(), 0);
    assert_eq!(harness.admin("/readyz").await.status, 200);
}

#[tokio::test]
async fn tenant_can_be_given_by_domain() {
    let harness = Harness::start(|options| {
        options.set("credentials.east.tenant", "fabrikam.onmicrosoft.com");
    })
    .await;
    assert_is_app_in(&harness, &bearer_at_east(&harness).await, TENANT_B);
    assert_ne!(app_in(&harness.sandbox, TENANT_A), app_in(&harness.sandbox, TENANT_B));
    let expires = harness.arrival("east").authorization.unwrap().claims["exp"].as_u64().unwrap();
    assert!(expires > SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
}
