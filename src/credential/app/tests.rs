//! The tenants of an app that are tried at start, under paused time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use http::StatusCode;
use tokio::sync::watch;

use super::*;
use crate::credential::acquire::{Acquire, Acquired, TokenOrKey, WatchedFiles};
use crate::credential::app_state::Demand;
use crate::credential::bearer::Bearer;
use crate::credential::error::CredentialError;
use crate::credential::file_watch::FileChecks;
use crate::credential::readiness::Readiness;
use crate::credential::record::AcquisitionRecord;
use crate::credential::refresh::Refresher;
use crate::credential::response_error::ResponseError;
use crate::credential::settings::CredentialId;
use crate::credential::source::{BearerSource as _, CredentialState};
use crate::credential::state::{Progress, TokenState};
use crate::metrics::{MetricRegistry, TokenMetrics};

pub(in crate::credential) const WRONG_SECRET: u32 = 7_000_215;
const UNKNOWN_TENANT: u32 = 90_002;
const NO_CONSENT: u32 = 65_001;
pub(in crate::credential) const NOT_PROVISIONED: u32 = 7_000_229;

/// What Entra answers for one tenant: a token, or an error with this code.
#[derive(Debug)]
struct Tenant {
    refusal: Mutex<Option<u32>>,
    requests: AtomicU32,
}

#[async_trait]
impl Acquire for Tenant {
    async fn acquire(&self, _record: &AcquisitionRecord) -> Result<Acquired, CredentialError> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let Some(code) = *self.refusal.lock().unwrap() else {
            let token_or_key = TokenOrKey::Bearer(Bearer::new("token").unwrap());
            return Ok(Acquired { token_or_key, lifetime: None });
        };
        Err(refusal(code))
    }

    fn watched_files(&self) -> WatchedFiles {
        WatchedFiles::default()
    }
}

/// Returns Entra's refusal with a code.
pub(in crate::credential) fn refusal(code: u32) -> CredentialError {
    let (status, error) = match code {
        WRONG_SECRET => (StatusCode::UNAUTHORIZED, "invalid_client"),
        UNKNOWN_TENANT => (StatusCode::BAD_REQUEST, "invalid_request"),
        NO_CONSENT => (StatusCode::BAD_REQUEST, "invalid_grant"),
        _ => (StatusCode::BAD_REQUEST, "unauthorized_client"),
    };
    CredentialError::Response(Box::new(ResponseError {
        error: Some(error.to_owned()),
        codes: vec![code],
        ..ResponseError::of_entra(status)
    }))
}

/// Creates the cell of one tenant of an app.
pub(in crate::credential) fn cell(acquirer: Arc<dyn Acquire>, app: &Arc<AppState>) -> Arc<TokenCell> {
    let metrics = TokenMetrics::register(&mut MetricRegistry::default()).unwrap();
    let (state, (publish, progress)) = (Arc::<TokenState>::default(), watch::channel(Progress::default()));
    state.set_ids(vec![CredentialId::without_tenant("saas")]);
    let (task_state, task_app, checks) = (Arc::clone(&state), Arc::clone(app), FileChecks::default());
    let refresher = Refresher::new(task_state, publish, acquirer, task_app, metrics, &checks);
    Arc::new(TokenCell::new(state, progress, refresher, Arc::clone(app), tokio::runtime::Handle::current()))
}

struct Fixture {
    app: Arc<AppState>,
    demand: Arc<Demand>,
    tenants: Vec<Arc<Tenant>>,
    cells: Vec<Arc<TokenCell>>,
}

impl Fixture {
    fn new(refusals: &[Option<u32>]) -> Self {
        let demand = Arc::<Demand>::default();
        demand.set(Some(Duration::from_secs(3600)));
        let app = Arc::new(AppState::new(Arc::clone(&demand)));
        let tenant =
            |refusal: &Option<u32>| Arc::new(Tenant { refusal: Mutex::new(*refusal), requests: AtomicU32::default() });
        let tenants: Vec<_> = refusals.iter().map(tenant).collect();
        let cells = tenants.iter().map(|tenant| cell(Arc::<Tenant>::clone(tenant), &app)).collect();
        Self { app, demand, tenants, cells }
    }

    fn start(&self) -> tokio::task::JoinHandle<()> {
        tokio::spawn(try_in_turn(Arc::clone(&self.app), self.cells.clone()))
    }

    fn requests(&self) -> Vec<u32> {
        self.tenants.iter().map(|tenant| tenant.requests.load(Ordering::SeqCst)).collect()
    }

    /// Returns whether a gateway with this app is ready; and one that has another app, which has a token.
    fn ready(&self) -> (bool, bool) {
        let other = Arc::new(AppState::new(Arc::clone(&self.demand)));
        other.succeeded();
        let ready = |apps| Readiness::new(Arc::clone(&self.demand), apps).is_ready();
        (ready(vec![Arc::clone(&self.app)]), ready(vec![other, Arc::clone(&self.app)]))
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_first_three_tenants_refuse_the_app_the_others_are_tried_slowly() {
    let refusals = [Some(NOT_PROVISIONED), Some(UNKNOWN_TENANT), Some(NO_CONSENT), Some(NOT_PROVISIONED), None, None];
    let fixture = Fixture::new(&refusals);
    let tries = fixture.start();
    sleep(Duration::from_millis(100)).await;
    assert_eq!(fixture.requests(), [1, 1, 1, 0, 0, 0]);
    assert_eq!((fixture.ready(), fixture.app.is_refused()), ((false, false), false));
    sleep(BETWEEN_TRIES).await;
    assert_eq!(fixture.requests(), [1, 1, 1, 1, 0, 0]);
    assert_eq!(fixture.cells[3].status().state, CredentialState::Unused, "only the first three repeat what failed");
    sleep(BETWEEN_TRIES).await;
    tries.await.unwrap();
    assert_eq!((fixture.requests(), fixture.ready()), (vec![1, 1, 1, 1, 1, 0], (true, true)));
    assert!(fixture.cells[4].status().state == CredentialState::Ready);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_all_its_tenants_refuse_delays_no_other_app_and_is_tried_again() {
    let fixture = Fixture::new(&[Some(NOT_PROVISIONED); 4]);
    let tries = fixture.start();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.ready(), (false, false), "the fourth may accept it");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(fixture.ready(), (false, true), "there must be one token at least");
    *fixture.tenants[3].refusal.lock().unwrap() = None;
    tries.await.unwrap();
    assert_eq!(fixture.ready(), (true, true));
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_keeps_a_gateway_from_being_ready_until_it_is_corrected() {
    let fixture = Fixture::new(&[Some(NOT_PROVISIONED), Some(WRONG_SECRET)]);
    let tries = fixture.start();
    sleep(Duration::from_secs(300)).await;
    assert_eq!((fixture.ready(), fixture.app.is_refused()), ((false, false), true));
    // The secret is right now, and the tenant turns out not to have consented.
    *fixture.tenants[1].refusal.lock().unwrap() = Some(NO_CONSENT);
    sleep(Duration::from_secs(400)).await;
    assert_eq!((fixture.ready(), fixture.app.is_refused()), ((false, true), false));
    tries.abort();
}
