//! What all claims share: the client, metrics, and the state for operators.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::client::Client;
use super::durability;
use super::error::StoreError;
use super::settings::{StoreSettings, WhenStoreIsOut};
use crate::metrics::{IdempotencyMetrics, StoreOperation};
use crate::runbook::{Condition, Section};

/// How often the store is asked whether it responds. Chosen: soon enough for an operator, and no load.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// The runbook's section about a store that is out.
const STORE_OUT: Section = Section::Condition(Condition::StoreOut);

/// The store that replicas share.
#[derive(Debug)]
pub struct SharedStore {
    shared: Arc<Shared>,
    watch: OnceLock<AbortHandle>,
}

/// What the store shares with the operations in progress.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: StoreSettings,
    pub(super) client: Client,
    pub(super) control: Handle,
    metrics: IdempotencyMetrics,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` until the first operation has ended.
    latest: Option<Result<(), StoreError>>,
    since: Option<SystemTime>,
}

/// The state of the store, for operators.
#[derive(Clone, Debug)]
pub struct StoreStatus {
    /// Its address.
    pub address: String,
    /// `unknown`, `ok` or `out`.
    pub state: &'static str,
    /// Since when it has this state.
    pub since: Option<SystemTime>,
    /// Why it is out.
    pub problem: Option<String>,
    /// What to do about it.
    pub remedy: Option<&'static str>,
    /// What calls with a key get while it is out.
    pub when_out: WhenStoreIsOut,
}

/// The result of a check of the store.
#[derive(Clone, Debug)]
pub struct StoreCheck {
    /// Its address.
    pub address: String,
    /// What lets it lose keys, or why it cannot be used.
    pub result: Result<Vec<String>, StoreError>,
}

impl SharedStore {
    /// Makes the store, which connects when it is first used.
    pub fn new(settings: &StoreSettings, metrics: &IdempotencyMetrics, control: &Handle) -> Self {
        let shared = Arc::new(Shared {
            settings: settings.clone(),
            client: Client::new(settings, control),
            control: control.clone(),
            metrics: metrics.clone(),
            state: Mutex::default(),
        });
        Self { shared, watch: OnceLock::new() }
    }

    /// Starts the task that asks the store regularly whether it responds, unless it runs.
    pub fn watch(&self) {
        self.watch.get_or_init(|| {
            let watched = Arc::clone(&self.shared);
            self.shared.control.spawn(async move { watched.watch().await }).abort_handle()
        });
    }

    /// Returns the settings.
    pub fn settings(&self) -> &StoreSettings {
        &self.shared.settings
    }

    /// Returns its state.
    pub fn status(&self) -> StoreStatus {
        let Shared { settings, state, .. } = &*self.shared;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = state.latest.as_ref().and_then(|latest| latest.as_ref().err());
        StoreStatus {
            address: settings.address.to_string(),
            state: match &state.latest {
                None => "unknown",
                Some(Ok(())) => "ok",
                Some(Err(_)) => "out",
            },
            since: state.since,
            problem: problem.map(ToString::to_string),
            remedy: problem.map(StoreError::remedy),
            when_out: settings.when_out,
        }
    }

    /// Checks that a store can be used. Changes nothing.
    pub async fn check(settings: &StoreSettings) -> StoreCheck {
        let client = Client::new(settings, &Handle::current());
        let script = "return {redis.call('EXISTS', KEYS[1])}";
        let result = match client.script(script, "signalr-gateway:doctor", Vec::new()).await {
            Ok(_) => Ok(durability::warnings(&client).await),
            Err(err) => Err(err),
        };
        StoreCheck { address: settings.address.to_string(), result }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for SharedStore {
    fn drop(&mut self) {
        if let Some(watch) = self.watch.get() {
            watch.abort();
        }
    }
}

impl Shared {
    /// Runs a script on a key, counts an error and keeps the state for operators.
    pub(super) async fn script(
        &self,
        operation: StoreOperation,
        script: &str,
        key: &str,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let result = self.client.script(script, key, arguments).await;
        if result.is_err() {
            self.metrics.store_failed(operation);
        }
        self.observe(result.as_ref().map(|_| ()).map_err(Clone::clone));
        result
    }

    /// Asks the store regularly whether it responds.
    async fn watch(&self) {
        let mut is_checked = false;
        loop {
            let result = self.client.run(vec![b"PING".to_vec()]).await;
            let responds = result.is_ok();
            self.observe(result.map(|_| ()));
            if responds && !is_checked {
                is_checked = true;
                for warning in durability::warnings(&self.client).await {
                    let section = Section::Condition(Condition::StoreSettings);
                    tracing::warn!(store = %self.settings.address, side = "store", remedy = section.remedy(), runbook = %section, "idempotency: {warning}");
                }
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    fn observe(&self, result: Result<(), StoreError>) {
        self.metrics.store_up(result.is_ok());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_ok = state.latest.as_ref().map(Result::is_ok);
        if was_ok != Some(result.is_ok()) {
            state.since = Some(SystemTime::now());
            match &result {
                Ok(()) if was_ok.is_some() => {
                    tracing::info!(store = %self.settings.address, "the idempotency store responds again");
                }
                Ok(()) => {}
                Err(err) => tracing::warn!(
                    remedy = STORE_OUT.remedy(),
                    store = %self.settings.address,
                    cause = %err,
                    fix = err.remedy(),
                    side = "store",
                    runbook = %STORE_OUT,
                    when_store_is_out = ?self.settings.when_out,
                    "the idempotency store is out"
                ),
            }
        }
        state.latest = Some(result);
    }
}
