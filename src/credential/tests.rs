//! Credentials that are built from settings and read files in a temporary folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::{Encoder as _, TextEncoder};
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::*;
use crate::metrics::{MetricRegistry, TokenMetrics};

const URL: RequestUrl<'_> = RequestUrl { origin: "https://east", path: "/api" };

const AT_START: TokenSettings = TokenSettings { release_after: None, max_requests: 16 };
const ON_DEMAND: TokenSettings = TokenSettings { release_after: Some(Duration::from_secs(3600)), max_requests: 16 };

struct Gateway {
    registry: MetricRegistry,
    credentials: Credentials,
}

fn gateway(settings: &[CredentialSettings]) -> Gateway {
    let mut registry = MetricRegistry::default();
    let metrics = TokenMetrics::register(&mut registry).unwrap();
    let credentials = Credentials::build(settings, &metrics, &Handle::current()).unwrap();
    Gateway { registry, credentials }
}

impl Gateway {
    fn source(&self, name: &str) -> Arc<dyn BearerSource> {
        self.credentials.get(&CredentialId::without_tenant(name)).unwrap()
    }

    fn metrics(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }
}

fn token_file(name: &str, path: &Path) -> CredentialSettings {
    CredentialSettings {
        id: CredentialId::without_tenant(name),
        kind: CredentialKind::TokenFile { path: path.to_owned() },
        object_id: None,
    }
}

fn app(name: &str, tenant: &str, cloud: Cloud, ca_file: Option<&Path>) -> CredentialSettings {
    let app = AppSettings {
        authority: AuthoritySettings { cloud, ca_file: ca_file.map(Into::into) },
        egress: Arc::default(),
        client_id: "app-id".into(),
        scope: "https://signalr.azure.com/.default".into(),
        proof: Proof::Secret(SecretSource::Env("SIGNALR_GATEWAY_TEST_IS_NOT_SET".into())),
    };
    let kind = CredentialKind::App { app: app.into(), tenant: tenant.into() };
    CredentialSettings { id: CredentialId::without_tenant(name), kind, object_id: None }
}

fn ca(folder: &TempDir) -> std::path::PathBuf {
    let path = folder.path().join("ca.pem");
    let certificate = rcgen::generate_simple_self_signed(vec!["login.example".into()]).unwrap();
    std::fs::write(&path, certificate.cert.pem()).unwrap();
    path
}

async fn wait_until(condition: impl Fn() -> bool) {
    tokio::time::timeout(Duration::from_secs(20), async {
        while !condition() {
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the condition was not met in time");
}

#[tokio::test]
async fn follows_changes_of_a_token_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let gateway = gateway(&[token_file("fabrikam", &path)]);
    let source = gateway.source("fabrikam");
    gateway.credentials.start(&AT_START);
    let unavailable = source.acquire().await.unwrap_err();
    assert!(unavailable.cause.to_string().starts_with("cannot read "), "{}", unavailable.cause);
    assert_eq!(source.status().state, CredentialState::Unavailable);
    for token in ["first", "second-token"] {
        std::fs::write(&path, token).unwrap();
        let expected = Bearer::new(token).unwrap().fingerprint();
        wait_until(|| source.current(URL).is_some_and(|bearer| bearer.fingerprint() == expected)).await;
    }
    std::fs::write(&path, "").unwrap();
    wait_until(|| source.status().state == CredentialState::Stale).await;
    assert!(source.current(URL).is_some(), "the token stays in service while its file is incomplete");
}

#[tokio::test]
async fn follows_changes_of_an_access_key_which_never_expires() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "first").unwrap();
    let key = SecretSource::File(path.clone());
    let id = CredentialId::without_tenant("emulator");
    let gateway = gateway(&[CredentialSettings { id, kind: CredentialKind::AccessKey { key }, object_id: None }]);
    let source = gateway.source("emulator");
    source.acquire().await.unwrap();
    let signed = source.current(URL).unwrap();
    assert!(signed.header().to_str().unwrap().starts_with("Bearer eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."));
    assert_eq!(signed.fingerprint(), Fingerprint::of("first"), "the fingerprint is that of the key");
    assert_eq!(source.status().expires_at, None);
    assert!(source.replace(signed.fingerprint()).await.is_err(), "the key has not changed");
    std::fs::write(&path, "second").unwrap();
    wait_until(|| source.current(URL).is_some_and(|bearer| bearer.fingerprint() == Fingerprint::of("second"))).await;
}

#[tokio::test]
async fn credentials_that_differ_only_in_their_name_share_one_cell() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("token"), folder.path().join("other"));
    std::fs::write(&path, "token").unwrap();
    let gateway = gateway(&[token_file("a", &path), token_file("b", &path), token_file("c", &other)]);
    gateway.source("a").acquire().await.unwrap();
    assert!(gateway.source("b").current(URL).is_some());
    assert!(gateway.source("c").current(URL).is_none());
    let mut in_use = Vec::new();
    gateway.credentials.tokens_in_use(&mut |name, times| in_use.push((name.to_owned(), times.is_some())));
    in_use.sort();
    assert_eq!(in_use, [("a".to_owned(), true), ("b".to_owned(), true)], "credentials that did not start are left out");
}

#[tokio::test]
async fn dropping_the_credentials_stops_their_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "token").unwrap();
    let gateway = gateway(&[token_file("a", &path)]);
    let source = gateway.source("a");
    source.acquire().await.unwrap();
    let running = Handle::current().metrics().num_alive_tasks();
    drop(gateway);
    wait_until(|| Handle::current().metrics().num_alive_tasks() < running).await;
    assert!(source.current(URL).is_some(), "running requests can still use the token");
    assert!(source.replace(source.current(URL).unwrap().fingerprint()).await.is_err());
}

#[tokio::test]
async fn acquire_once_returns_its_steps_and_puts_nothing_in_service() {
    let folder = tempfile::tempdir().unwrap();
    let ca = ca(&folder);
    let path = folder.path().join("token");
    std::fs::write(&path, "token").unwrap();
    let app = app("app", "tenant-b", Cloud::Custom { authority: "https://login.example".into() }, Some(&ca));
    let gateway = gateway(&[token_file("file", &path), app]);
    let report =
        gateway.credentials.acquire_once(&CredentialId::without_tenant("file"), Duration::from_secs(15)).await.unwrap();
    let Authorization::Bearer(bearer) = report.outcome.unwrap() else { panic!("a token file has no key") };
    assert_eq!(bearer.header(), "Bearer token");
    assert_eq!(report.steps.len(), 1);
    assert!(gateway.source("file").current(URL).is_none());
    let report =
        gateway.credentials.acquire_once(&CredentialId::without_tenant("app"), Duration::from_secs(15)).await.unwrap();
    assert!(report.outcome.unwrap_err().to_string().contains("SIGNALR_GATEWAY_TEST_IS_NOT_SET is not set"));
    assert_eq!(report.steps[0].subject, "client secret from environment variable SIGNALR_GATEWAY_TEST_IS_NOT_SET");
    assert!(
        gateway
            .credentials
            .acquire_once(&CredentialId::without_tenant("unknown"), Duration::from_secs(15))
            .await
            .is_none()
    );
}

#[tokio::test]
async fn build_error_names_every_credential_that_cannot_be_built() {
    let folder = tempfile::tempdir().unwrap();
    let ca = ca(&folder);
    let custom = |authority: &str| Cloud::Custom { authority: authority.into() };
    let settings = [
        app("good", "tenant-b", custom("https://login.example"), Some(&ca)),
        app("tenant", "tenant/b", custom("https://login.example"), Some(&ca)),
        app("plain", "tenant-b", custom("http://login.example"), Some(&ca)),
        app("ca", "tenant-b", Cloud::Public, Some(&folder.path().join("missing.pem"))),
    ];
    let metrics = TokenMetrics::register(&mut MetricRegistry::default()).unwrap();
    let err = Credentials::build(&settings, &metrics, &Handle::current()).unwrap_err();
    let names: Vec<_> = err.problems.iter().map(|(names, _)| names[0].name.as_str()).collect();
    assert_eq!(names, ["tenant", "plain", "ca"]);
    let text = err.to_string();
    assert!(text.contains("credentials.tenant: ") && text.contains("credentials.plain: "), "{text}");
    assert!(text.contains("HTTPS") && text.contains("missing.pem: check that it exists"), "{text}");
}

#[tokio::test]
async fn counts_a_failure_by_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = gateway(&[token_file("a", &folder.path().join("missing"))]);
    gateway.source("a").acquire().await.unwrap_err();
    let metrics = gateway.metrics();
    assert!(metrics.contains(r#"token_errors_total{credential="a",reason="local"} 1"#), "{metrics}");
    assert!(!metrics.contains("token_requests_total{"), "no identity endpoint was called: {metrics}");
}

#[tokio::test]
async fn status_has_the_times_of_acquisition_and_expiry() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let exp = jwt::unix_seconds(SystemTime::now()) + 1000;
    std::fs::write(&path, format!("e30.{}.sig", jwt::encode(format!(r#"{{"exp":{exp}}}"#).as_bytes()))).unwrap();
    let gateway = gateway(&[token_file("a", &path)]);
    let source = gateway.source("a");
    assert_eq!(source.status().state, CredentialState::Starting);
    source.acquire().await.unwrap();
    let status = source.status();
    assert_eq!(status.state, CredentialState::Ready);
    assert!(jwt::unix_seconds(status.expires_at.unwrap()).abs_diff(exp) <= 1, "{status:?}");
    assert!(status.last_success.is_some() && status.error().is_none());
}

#[test]
fn a_reload_keeps_the_token_only_for_the_same_identity() {
    let of = |tenant: &str, cloud: Cloud| app("a", tenant, cloud, None).kind;
    let change = |change: fn(&mut AppSettings)| {
        let CredentialKind::App { mut app, tenant } = of("tenant-b", Cloud::Public) else { panic!("an app") };
        change(Arc::make_mut(&mut app));
        CredentialKind::App { app, tenant }
    };
    let kind = of("tenant-b", Cloud::Public);
    let same = [
        change(|app| app.proof = Proof::Secret(SecretSource::File("another".into()))),
        change(|app| app.proof = Proof::Federated(AssertionSettings::File { path: "assertion".into() })),
        change(|app| app.authority.ca_file = Some("ca.pem".into())),
    ];
    assert!(same.iter().all(|other| other.facts().identity == kind.facts().identity), "{same:?}");
    let others = [
        of("tenant-c", Cloud::Public),
        of("tenant-b", Cloud::China),
        change(|app| app.client_id = "another".into()),
        change(|app| app.scope = "https://another/.default".into()),
        CredentialKind::AzureCli { tenant: "tenant-b".into(), scope: "https://signalr.azure.com/.default".into() },
    ];
    assert!(others.iter().all(|other| other.facts().identity != kind.facts().identity), "{others:?}");
    let key = |name: &str| CredentialKind::AccessKey { key: SecretSource::Env(name.into()) };
    assert_eq!(
        (key("A").facts().identity, CredentialKind::TokenFile { path: "a".into() }.facts().identity),
        (None, None)
    );
}

#[tokio::test]
async fn with_tokens_on_demand_one_tenant_of_each_app_is_tried_at_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["a", "b"] {
        std::fs::write(path(name), "token").unwrap();
    }
    let gateway = gateway(&[token_file("a", &path("a")), token_file("b", &path("b")), token_file("c", &path("c"))]);
    gateway.credentials.start(&ON_DEMAND);
    let readiness = gateway.credentials.readiness();
    let state = |name: &str| gateway.source(name).status().state;
    wait_until(|| ["a", "b"].iter().all(|name| state(name) == CredentialState::Ready)).await;
    wait_until(|| state("c") == CredentialState::Unavailable).await;
    assert!(!readiness.is_ready(), "each of the apps must have a token");
    assert!(gateway.source("a").may_serve() && !gateway.source("c").may_serve());
    std::fs::write(path("c"), "token").unwrap();
    wait_until(|| readiness.is_ready()).await;
}

#[tokio::test]
async fn with_tokens_on_demand_one_tenant_is_tried_at_start_while_the_secret_cannot_be_read() {
    let shared = app("saas", "t.example", Cloud::Public, None).kind;
    let CredentialKind::App { app, .. } = shared else { panic!("an app") };
    let of_tenant = |number: usize| {
        let tenant: Arc<str> = format!("t{number}.example").into();
        let id = CredentialId { name: CredentialName::new("saas"), tenant: Some(Arc::clone(&tenant)) };
        CredentialSettings { id, kind: CredentialKind::App { app: Arc::clone(&app), tenant }, object_id: None }
    };
    let settings: Vec<_> = (0..10).map(of_tenant).collect();
    let gateway = gateway(&settings);
    gateway.credentials.start(&ON_DEMAND);
    let states = || settings.iter().map(|one| gateway.credentials.get(&one.id).unwrap().status().state);
    wait_until(|| states().filter(|state| *state == CredentialState::Unavailable).count() == 1).await;
    assert_eq!(states().filter(|state| *state == CredentialState::Unused).count(), 9);
    assert!(!gateway.credentials.readiness().is_ready());
    let one = gateway.credentials.get(&settings[9].id).unwrap();
    assert!(!one.may_serve(), "the app's own credential is refused: its secret cannot be read");
}

#[tokio::test]
async fn a_reload_keeps_the_token_lives_that_did_not_change() {
    let folder = tempfile::tempdir().unwrap();
    let settings: Vec<_> = (0..4)
        .map(|number| {
            let path = folder.path().join(format!("t{number}"));
            std::fs::write(&path, "token").unwrap();
            token_file(&format!("t{number}"), &path)
        })
        .collect();
    let metrics = TokenMetrics::register(&mut MetricRegistry::default()).unwrap();
    let before = Credentials::build(&settings[..3], &metrics, &Handle::current()).unwrap();
    before.start(&ON_DEMAND);
    before.get(&settings[0].id).unwrap().acquire().await.unwrap();
    let after =
        before.rebuild(&settings[1..], &std::collections::HashSet::new(), &metrics, &Handle::current()).unwrap();
    for kept in &settings[1..3] {
        let cells = [&before, &after].map(|credentials| Arc::clone(&credentials.sources[&kept.id].cell));
        assert!(Arc::ptr_eq(&cells[0], &cells[1]), "{kept:?}");
    }
    after.start(&AT_START);
    drop(before);
    let status = |number: usize| after.get(&settings[number].id).unwrap().status().state;
    wait_until(|| (1..4).all(|number| status(number) == CredentialState::Ready)).await;
}

#[tokio::test]
async fn ca_file_that_cannot_be_used_is_refused_at_each_reload_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = ca(&folder);
    let settings = [app("contoso", "contoso", Cloud::Public, Some(&path)), app("own", "own", Cloud::Public, None)];
    let metrics = TokenMetrics::register(&mut MetricRegistry::default()).unwrap();
    let rebuilt = |before: &Credentials, changed: &[PathBuf]| {
        let changed = changed.iter().cloned().collect();
        before.rebuild(&settings, &changed, &metrics, &Handle::current()).unwrap()
    };
    let kept = |before: &Credentials, after: &Credentials| {
        settings.each_ref().map(|settings| {
            let [before, after] = [before, after].map(|credentials| &credentials.sources[&settings.id].cell);
            Arc::ptr_eq(before, after)
        })
    };
    let first = Credentials::build(&settings, &metrics, &Handle::current()).unwrap();
    std::fs::write(&path, "half of a file").unwrap();
    let changed = rebuilt(&first, std::slice::from_ref(&path));
    let reloaded = rebuilt(&changed, &[]);
    for (before, after) in [(&first, &changed), (&changed, &reloaded)] {
        assert_eq!(after.refused_cas().len(), 1, "{:?}", after.refused_cas());
        assert_eq!(kept(before, after), [true, true]);
    }
    ca(&folder);
    let mended = rebuilt(&reloaded, &[]);
    assert!(mended.refused_cas().is_empty());
    assert_eq!(kept(&reloaded, &mended), [false, true]);
    assert_eq!(kept(&mended, &rebuilt(&mended, &[])), [true, true]);
}
