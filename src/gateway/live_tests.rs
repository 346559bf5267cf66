//! Preparing or rejecting a configuration changes nothing; committing one replaces the one in force.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::*;
use crate::config::{Sources, load};
use crate::credential::{CredentialKind, CredentialState};
use crate::endpoint::CallClass;
use crate::metrics::Exposition;
use crate::serve::{InheritedSockets, ListenerPlan};

const LISTENERS: &str = "[listeners.default]\nbind = \"127.0.0.1:0\"\n";

/// Returns the settings of two endpoints with access keys. Only their probes use the network, and nothing listens there.
fn settings(folder: &Path, listeners: &str, more: &str) -> Settings {
    let file = folder.join("gateway.toml");
    let endpoint = |name: &str| {
        format!(
            "[credentials.{name}]\nkind = \"access_key\"\nkey = {{ file = \"token\" }}\n\
             [endpoints.{name}]\nurl = \"http://127.0.0.1:9\"\ncredential = \"{name}\"\n"
        )
    };
    let text =
        format!("admin.bind = \"off\"\nprocess.workers = 1\n{more}{listeners}{}{}", endpoint("east"), endpoint("west"));
    std::fs::write(&file, text).unwrap();
    load(&Sources { file: Some(file), ..Sources::default() }).unwrap_or_else(|err| panic!("{err}")).settings
}

struct Fixture {
    folder: tempfile::TempDir,
    live: Live,
    admin: Arc<Admin>,
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), "token").unwrap();
        let settings = settings(folder.path(), LISTENERS, "");
        let ids = ListenerPlan::first(&settings.listener_settings(), InheritedSockets::default()).ids();
        let mut live = Live::build(settings, &ids, &Handle::current()).unwrap();
        let admin = live.start(&Addresses { listeners: Vec::new(), admin: None }, Vec::new());
        let fixture = Self { folder, live, admin };
        // After the first probes and key reads, no metric changes for seconds.
        let keys = "token_last_success_timestamp_seconds{credential=";
        loop {
            let metrics = fixture.metrics().await;
            let count =
                |start: &str| metrics.lines().filter(|line| line.contains(start) && !line.ends_with("} 0")).count();
            if metrics.matches("_endpoint_up{").count() == 2 && count(keys) == 2 {
                return fixture;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn prepare(&self, settings: Settings) -> Result<Prepared, String> {
        let plan = ListenerPlan::first(&settings.listener_settings(), InheritedSockets::default());
        self.live.prepare(settings, plan, || {}).await
    }

    /// Returns the metrics, without those of reloads and of the process.
    async fn metrics(&self) -> String {
        let text = self.live.metrics().exposition(Exposition::Prometheus).await.unwrap();
        let text = String::from_utf8(text).unwrap();
        let is_of_state = |line: &&str| {
            let counts = ["config_reloads_total", "config_last_reload_successful", "process_"];
            !counts.iter().any(|name| line.contains(name))
        };
        text.lines().filter(is_of_state).collect::<Vec<_>>().join("\n")
    }
}

#[tokio::test]
async fn rejected_configuration_changes_no_metric_and_no_snapshot() {
    let fixture = Fixture::new().await;
    // An open circuit, which a new endpoint of the same name would reset.
    let east = Arc::clone(&fixture.live.parts.snapshot.endpoints()[0]);
    while east.health().is_closed() {
        if let Some(permit) = east.health().try_acquire(CallClass::new(0)) {
            permit.failed(Instant::now());
        }
    }
    let metrics = fixture.metrics().await;
    assert!(metrics.contains(r#"breaker_state{endpoint="east",state="open"} 1"#), "{metrics}");
    let snapshot = fixture.live.latest().load_full();

    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = format!("[listeners.default]\nbind = \"{}\"\n", busy.local_addr().unwrap());
    std::fs::write(fixture.folder.path().join("other"), "other").unwrap();
    let mut changed = settings(fixture.folder.path(), &listeners, "");
    Arc::make_mut(&mut changed.endpoints[0]).connect_timeout = Duration::from_millis(1);
    let kind = CredentialKind::TokenFile { path: fixture.folder.path().join("other") };
    changed.credentials.iter_mut().for_each(|credential| credential.kind = kind.clone());
    let problem = fixture.prepare(changed).await.unwrap_err();
    assert!(problem.contains("is in use by another program"), "{problem}");
    fixture.live.reject(problem, &fixture.admin);

    assert_eq!(fixture.metrics().await, metrics);
    assert!(Arc::ptr_eq(&snapshot, &fixture.live.latest().load_full()));
}

#[tokio::test]
async fn prepared_configuration_is_in_force_only_once_it_is_committed() {
    let mut fixture = Fixture::new().await;
    let latest = fixture.live.latest();
    let before = latest.load_full();
    let hash = fixture.live.settings().hash.clone();
    let mut next = settings(fixture.folder.path(), LISTENERS, "");
    Arc::make_mut(&mut next.endpoints[0]).connect_timeout = Duration::from_millis(1);
    next.hash = "00000001".to_owned();
    let prepared = fixture.prepare(next).await.unwrap();
    assert!(Arc::ptr_eq(&before, &latest.load_full()));
    assert!(fixture.metrics().await.contains(&format!("config_hash_info{{hash=\"{hash}\"}} 1")));

    let listeners = fixture.live.commit(prepared, Cause::Configuration, &fixture.admin);
    assert_eq!(listeners.addresses().len(), 1);
    let after = latest.load_full();
    assert!(!Arc::ptr_eq(&before, &after));
    assert!(!Arc::ptr_eq(&before.endpoints()[0], &after.endpoints()[0]), "a changed endpoint is new");
    assert!(Arc::ptr_eq(&before.endpoints()[1], &after.endpoints()[1]), "an unchanged endpoint is shared");
    assert!(fixture.metrics().await.contains("config_hash_info{hash=\"00000001\"} 1"));
}

#[tokio::test]
async fn hash_identifies_the_configuration_in_force_while_changed_keys_await_a_restart() {
    let mut fixture = Fixture::new().await;
    let first = fixture.live.settings().hash.clone();
    let more = "logging.format = \"text\"\nshutdown.delay = \"7s\"\n";
    let wanted = settings(fixture.folder.path(), LISTENERS, more);
    let prepared = fixture.prepare(wanted.clone()).await.unwrap();
    assert_eq!(prepared.after_restart, ["shutdown", "logging.format"]);
    fixture.live.commit(prepared, Cause::Configuration, &fixture.admin);
    let in_force = fixture.live.settings();
    assert!(in_force.hash != wanted.hash && in_force.hash != first, "{}", in_force.hash);
    assert_eq!(fixture.live.view().after_restart, ["shutdown", "logging.format"]);
    assert_eq!(fixture.live.view().config_hash, in_force.hash);
    assert!(fixture.metrics().await.contains("config_restart_pending 2"));

    // Reloading the same configuration changes nothing. Reloading the first one leaves no key pending.
    let hash = in_force.hash.clone();
    let prepared = fixture.prepare(wanted).await.unwrap();
    fixture.live.commit(prepared, Cause::Configuration, &fixture.admin);
    assert_eq!(fixture.live.settings().hash, hash);
    let prepared = fixture.prepare(settings(fixture.folder.path(), LISTENERS, "")).await.unwrap();
    fixture.live.commit(prepared, Cause::Configuration, &fixture.admin);
    assert_eq!((fixture.live.settings().hash.as_str(), fixture.live.view().after_restart), (first.as_str(), vec![]));
    assert!(fixture.metrics().await.contains("config_restart_pending 0"));
}

#[tokio::test]
async fn preparing_sets_no_metric_and_starts_no_task_until_the_warm_up() {
    let fixture = Fixture::new().await;
    let metrics = fixture.metrics().await;
    let mut next = settings(fixture.folder.path(), LISTENERS, "");
    std::fs::write(fixture.folder.path().join("other"), "other").unwrap();
    let kind = CredentialKind::TokenFile { path: fixture.folder.path().join("other") };
    let id = next.credentials[0].id.clone();
    next.credentials[0].kind = kind;
    Arc::make_mut(&mut next.endpoints[0]).connect_timeout = Duration::from_millis(1);
    let prepared = fixture.prepare(next).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let state = || prepared.parts.credentials.get(&id).unwrap().status().state;
    assert_eq!(state(), CredentialState::Starting);
    assert_eq!(fixture.metrics().await, metrics);

    prepared.warm_up().await;
    assert_ne!(state(), CredentialState::Starting);
}
