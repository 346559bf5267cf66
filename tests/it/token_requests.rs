//! The token requests of many tenants: how many run at once, which assertions they share, and what a tenant that hangs or is
//! throttled means for the others.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use signalr_gateway::config::{self, Sources};
use signalr_gateway::credential::{
    AppSettings, AssertionSettings, AuthoritySettings, BearerSource, ClientAuthentication, Cloud, CredentialId,
    CredentialKind, CredentialName, CredentialSettings, Credentials, ManagedIdentity, ManagedIdentitySettings,
    OAuth2Settings, OAuth2Token, Proof, RequestUrl, SecretSource, SetupStep, TokenUnavailable,
};
use signalr_gateway::diagnosis::{self, Deliver};
use signalr_gateway::metrics::{MetricRegistry, Metrics, TokenMetrics};
use signalr_gateway::sandbox::{
    APP_CLIENT_ID, Fault, FaultKind, FederatedCredential, IDENTITY_CLIENT_ID, OAUTH2_CLIENT_ID, Sandbox,
    SandboxSettings, ServicePrincipal, Tenant,
};
use tempfile::TempDir;
use tokio::runtime::Handle;

use crate::support::{wait_until, with_timeout};

const URL: RequestUrl<'_> = RequestUrl { origin: "https://east", path: "/api" };

/// The limit that the gateway has by default.
const MAX_REQUESTS: usize = 16;

/// A sandbox with many tenants in which the app is provisioned, and the credentials of a gateway.
struct Fleet {
    sandbox: Sandbox,
    folder: TempDir,
    metrics: TokenMetrics,
}

/// Returns the domain of a tenant. It is the beginning of the path of its token requests.
fn domain(tenant: usize) -> String {
    format!("t{tenant}.example")
}

impl Fleet {
    async fn start(tenants: usize) -> Self {
        let sandbox = Sandbox::start(SandboxSettings::default()).await.unwrap();
        sandbox.directory().edit(|directory| {
            directory.tenants.extend((0..tenants).map(|number| {
                let principal = ServicePrincipal {
                    client_id: APP_CLIENT_ID.to_owned(),
                    object_id: format!("0b000000-0000-4000-8000-{number:012}"),
                    enabled: true,
                    roles: Vec::new(),
                };
                let tenant = Tenant::new(&format!("7e000000-0000-4000-8000-{number:012}"), &domain(number));
                Tenant { service_principals: vec![principal], ..tenant }
            }));
        });
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), sandbox.ca_pem()).unwrap();
        std::fs::write(folder.path().join("secret"), sandbox.client_secret().expose()).unwrap();
        let metrics = TokenMetrics::register(&mut MetricRegistry::default()).unwrap();
        Self { sandbox, folder, metrics }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn client_secret(&self) -> Proof {
        Proof::Secret(SecretSource::File(self.path("secret")))
    }

    fn managed_identity(&self) -> Proof {
        let identity = ManagedIdentitySettings {
            id: ManagedIdentity::ClientId(IDENTITY_CLIENT_ID.to_owned()),
            imds_endpoint: Some(self.sandbox.imds().url()),
        };
        Proof::Federated(AssertionSettings::ManagedIdentity {
            identity,
            audience: "api://AzureADTokenExchange".to_owned(),
        })
    }

    /// Builds the credential of one app for these tenants.
    fn credentials(&self, tenants: impl Iterator<Item = usize>, proof: &Proof) -> Credentials {
        let settings: Vec<_> = tenants.map(|tenant| self.settings(tenant, proof)).collect();
        Credentials::build(&settings, &self.metrics, &Handle::current()).unwrap()
    }

    fn settings(&self, tenant: usize, proof: &Proof) -> CredentialSettings {
        let authority = AuthoritySettings {
            cloud: Cloud::Custom { authority: self.sandbox.entra().url() },
            ca_file: Some(self.path("ca.pem")),
        };
        let app = AppSettings {
            authority,
            egress: Arc::default(),
            client_id: APP_CLIENT_ID.to_owned(),
            scope: "https://signalr.azure.com/.default".to_owned(),
            proof: proof.clone(),
        };
        let kind = CredentialKind::App { app: Arc::new(app), tenant: domain(tenant).into() };
        CredentialSettings { id: id(tenant), kind, object_id: None }
    }
}

fn source(credentials: &Credentials, tenant: usize) -> Arc<dyn BearerSource> {
    credentials.get(&id(tenant)).unwrap()
}

fn id(tenant: usize) -> CredentialId {
    CredentialId { name: CredentialName::new("saas"), tenant: Some(domain(tenant).into()) }
}

/// Waits for the token of each tenant at once, as a caller of each does.
async fn acquire(credentials: &Credentials, tenants: impl Iterator<Item = usize>) -> Vec<Result<(), TokenUnavailable>> {
    let sources: Vec<_> = tenants.map(|tenant| source(credentials, tenant)).collect();
    with_timeout("the tokens", join_all(sources.iter().map(|source| source.acquire()))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_tenants_without_a_token_ask_the_metadata_service_once_and_entra_at_most_sixteen_times_at_once() {
    const TENANTS: usize = 1000;
    let fleet = Fleet::start(TENANTS).await;
    let credentials = fleet.credentials(0..TENANTS, &fleet.managed_identity());
    let sources: Vec<_> = (0..TENANTS).map(|tenant| source(&credentials, tenant)).collect();
    let outcomes =
        tokio::time::timeout(Duration::from_secs(300), join_all(sources.iter().map(|source| source.acquire()))).await;
    for outcome in outcomes.unwrap() {
        outcome.unwrap();
    }
    let (imds, entra) = (fleet.sandbox.imds(), fleet.sandbox.entra());
    assert_eq!((imds.journal().received(), entra.journal().received()), (1, TENANTS as u64));
    assert!(entra.peak_requests() <= MAX_REQUESTS, "{} at once", entra.peak_requests());
    let tokens: std::collections::HashSet<_> =
        sources.iter().map(|source| source.current(URL).unwrap().fingerprint()).collect();
    assert_eq!(tokens.len(), TENANTS, "each tenant has its own token");
}

#[tokio::test]
async fn sixteen_tenants_whose_requests_hang_stop_no_other() {
    let fleet = Fleet::start(MAX_REQUESTS + 2).await;
    for tenant in 0..MAX_REQUESTS {
        let hang = Fault::always(FaultKind::Hang).on_path(&format!("/{}/", domain(tenant)));
        fleet.sandbox.entra().faults().set(hang);
    }
    let credentials = fleet.credentials(0..MAX_REQUESTS + 2, &fleet.client_secret());
    let hung: Vec<_> = (0..MAX_REQUESTS).map(|tenant| source(&credentials, tenant)).collect();
    let mut hanging = std::pin::pin!(join_all(hung.iter().map(|source| source.acquire())));
    let both = async {
        fleet.sandbox.entra().journal().wait_for(MAX_REQUESTS, |_| true).await;
        acquire(&credentials, MAX_REQUESTS..MAX_REQUESTS + 2).await
    };
    tokio::select! {
        _ = &mut hanging => panic!("the requests that hang ended first"),
        others = both => others.into_iter().for_each(|outcome| outcome.unwrap()),
    }
}

#[tokio::test]
async fn a_metadata_service_that_fails_is_not_asked_by_each_tenant() {
    const TENANTS: usize = 200;
    let fleet = Fleet::start(TENANTS).await;
    fleet.sandbox.imds().faults().set(Fault::always(FaultKind::status(500)));
    let credentials = fleet.credentials(0..TENANTS, &fleet.managed_identity());
    for outcome in acquire(&credentials, 0..TENANTS).await {
        let cause = outcome.unwrap_err().cause.to_string();
        assert!(cause.starts_with("the instance metadata service at ") && cause.contains("500"), "{cause}");
    }
    let asked = fleet.sandbox.imds().journal().received();
    assert!(asked < TENANTS as u64 / 2, "it was asked {asked} times");
    assert_eq!(fleet.sandbox.entra().journal().received(), 0);
}

#[tokio::test]
async fn doctor_asks_the_metadata_service_once_for_all_tenants_of_an_app() {
    const TENANTS: usize = 40;
    let fleet = Fleet::start(TENANTS).await;
    let (entra, imds) = (fleet.sandbox.entra().url(), fleet.sandbox.imds().url());
    let mut config = format!(
        "[credentials.saas]\nkind = \"federated\"\ncloud = \"custom\"\nclient_id = \"{APP_CLIENT_ID}\"\nauthority = \"{entra}\"\n\
         ca_file = \"ca.pem\"\nassertion = {{ source = \"managed_identity\", client_id = \"{IDENTITY_CLIENT_ID}\", \
         imds_endpoint = \"{imds}\" }}\n[[routes]]\nname = \"all\"\nmatch = {{ hub = \"{{endpoint}}_*\" }}\n"
    );
    for tenant in 0..TENANTS {
        let domain = domain(tenant);
        writeln!(
            config,
            "[endpoints.t{tenant}]\nurl = \"http://127.0.0.1:1\"\ncredential = \"saas\"\ntenant = \"{domain}\""
        )
        .unwrap();
    }
    let path = fleet.path("gateway.toml");
    std::fs::write(&path, config).unwrap();
    let settings = config::load(&Sources::of_process(Some(path), Vec::new())).unwrap().settings;
    let metrics = Metrics::new().unwrap();
    let examination =
        diagnosis::examine(&settings.credentials, &settings.endpoints, Deliver::No, &metrics, |_| ()).await;
    assert_eq!(examination.findings.len(), TENANTS, "{:?}", examination.not_reached);
    for finding in &examination.findings {
        assert_eq!(finding.broken.as_ref().unwrap().step, SetupStep::EndpointNetwork, "{finding:?}");
    }
    assert_eq!(fleet.sandbox.imds().journal().received(), 1);
}

fn oauth2(fleet: &Fleet, secret: &Path) -> Proof {
    Proof::Federated(AssertionSettings::OAuth2(Box::new(OAuth2Settings {
        token_url: fleet.sandbox.oauth2_client().0,
        client_id: OAUTH2_CLIENT_ID.to_owned(),
        secret: SecretSource::File(secret.to_owned()),
        authentication: ClientAuthentication::Basic,
        scope: None,
        audience: Some("api://AzureADTokenExchange".to_owned()),
        parameters: Vec::new(),
        token: OAuth2Token::Access,
        ca_file: Some(fleet.path("ca.pem")),
    })))
}

#[tokio::test]
async fn a_changed_secret_of_an_oauth2_client_is_used_at_once() {
    let fleet = Fleet::start(5).await;
    let (path, right) = (fleet.path("idp-secret"), fleet.sandbox.oauth2_client().1);
    std::fs::write(&path, right.expose()).unwrap();
    let credentials = fleet.credentials(0..5, &oauth2(&fleet, &path));
    let asked = || fleet.sandbox.providers().journal().received();
    for outcome in acquire(&credentials, 0..2).await {
        outcome.unwrap();
    }
    assert_eq!(asked(), 1);
    std::fs::write(&path, "wrong").unwrap();
    let error = acquire(&credentials, 2..3).await.remove(0).unwrap_err();
    assert!(error.cause.to_string().contains("401"), "{}", error.cause);
    std::fs::write(&path, right.expose()).unwrap();
    for outcome in acquire(&credentials, 3..5).await {
        outcome.unwrap();
    }
    assert_eq!(asked(), 3);
}

#[tokio::test]
async fn an_assertion_that_entra_rejects_is_requested_again() {
    let fleet = Fleet::start(1).await;
    let distrust = |directory: &mut signalr_gateway::sandbox::Directory| {
        std::mem::take(&mut directory.application_mut(APP_CLIENT_ID).unwrap().federated)
    };
    let trusted: Vec<FederatedCredential> = fleet.sandbox.directory().edit(distrust);
    let credentials = fleet.credentials(0..1, &fleet.managed_identity());
    acquire(&credentials, 0..1).await.remove(0).unwrap_err();
    fleet.sandbox.directory().edit(|directory| {
        directory.application_mut(APP_CLIENT_ID).unwrap().federated = trusted;
    });
    wait_until("the metadata service is asked again", async || {
        let report = credentials.acquire_once(&id(0), Duration::from_secs(30)).await.unwrap();
        report.outcome.unwrap();
        (fleet.sandbox.imds().journal().received() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_app_that_entra_throttles_in_three_tenants_pauses_in_all() {
    let fleet = Fleet::start(4).await;
    for tenant in 0..3 {
        let throttled = FaultKind::status_after(429, Duration::from_secs(60));
        fleet.sandbox.entra().faults().set(Fault::always(throttled).on_path(&format!("/{}/", domain(tenant))));
    }
    let credentials = fleet.credentials(0..4, &fleet.client_secret());
    for outcome in acquire(&credentials, 0..3).await {
        outcome.unwrap_err();
    }
    let paused = acquire(&credentials, 3..4).await.remove(0).unwrap_err();
    let cause = paused.cause.to_string();
    assert!(cause.contains("429") && cause.contains("throttles this app in several tenants"), "{cause}");
    assert!((50..=66).contains(&paused.retry_after.as_secs()), "{:?}", paused.retry_after);
    assert_eq!(fleet.sandbox.entra().journal().received(), 3, "no request was sent for the fourth tenant");
}

#[tokio::test]
async fn tenants_that_entra_throttles_by_themselves_delay_no_other() {
    let fleet = Fleet::start(5).await;
    fleet.sandbox.directory().edit(|directory| {
        for tenant in 0..4 {
            directory.tenant_mut(&domain(tenant)).unwrap().throttled = Some(Duration::from_secs(60));
        }
    });
    let credentials = fleet.credentials(0..5, &fleet.client_secret());
    for outcome in acquire(&credentials, 0..4).await {
        let cause = outcome.unwrap_err().cause.to_string();
        assert!(cause.contains("429") && cause.contains("this tenant"), "{cause}");
    }
    acquire(&credentials, 4..5).await.remove(0).unwrap();
}
