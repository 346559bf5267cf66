//! Cells and their refresh tasks under paused time, with a scripted acquirer.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use http::StatusCode;
use tokio::sync::watch;
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::credential::acquire::{Acquire, Acquired, TokenOrKey, WatchedFiles};
use crate::credential::app_state::Demand;
use crate::credential::error::CredentialError;
use crate::credential::file_watch::FileChecks;
use crate::credential::identity_endpoint::{IdentityEndpoint, IdentityEndpointKind};
use crate::credential::lifetime::Lifetime;
use crate::credential::record::AcquisitionRecord;
use crate::credential::response_error::ResponseError;
use crate::credential::settings::CredentialId;
use crate::metrics::{MetricRegistry, TokenMetrics};

const URL: RequestUrl<'_> = RequestUrl { origin: "https://east", path: "/api" };
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// An acquirer that returns scripted outcomes in order, and repeats the last one.
#[derive(Debug, Default)]
struct Script {
    steps: Mutex<VecDeque<Step>>,
    calls: AtomicU32,
    files: WatchedFiles,
}

#[derive(Clone, Debug)]
enum Step {
    /// A token with this text and lifetime.
    Token(&'static str, Duration),
    /// A new token each time.
    Fresh(Duration),
    /// An error response: status, OAuth error, `Retry-After`.
    Reject(u16, Option<&'static str>, Option<Duration>),
    /// The inner step, after this delay.
    After(Duration, Box<Step>),
    Panic,
}

#[async_trait]
impl Acquire for Script {
    async fn acquire(&self, _record: &AcquisitionRecord) -> Result<Acquired, CredentialError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let step = {
            let mut steps = self.steps.lock().unwrap();
            if steps.len() > 1 { steps.pop_front().unwrap() } else { steps[0].clone() }
        };
        let step = if let Step::After(wait, step) = step {
            sleep(wait).await;
            *step
        } else {
            step
        };
        match step {
            Step::Token(token, lifetime) => Ok(token_of(token, lifetime)),
            Step::Fresh(lifetime) => Ok(token_of(&format!("fresh-{call}"), lifetime)),
            Step::Reject(status, error, retry_after) => Err(rejection(status, error, retry_after)),
            Step::Panic => panic!("as scripted"),
            Step::After(..) => unreachable!("one wait is enough"),
        }
    }

    fn watched_files(&self) -> WatchedFiles {
        self.files.clone()
    }
}

fn token_of(token: &str, duration: Duration) -> Acquired {
    let lifetime = Lifetime { starts: Instant::now(), duration, refresh_in: None };
    Acquired { token_or_key: TokenOrKey::Bearer(Bearer::new(token).unwrap()), lifetime: Some(lifetime) }
}

fn rejection(status: u16, error: Option<&str>, retry_after: Option<Duration>) -> CredentialError {
    CredentialError::Response(Box::new(ResponseError {
        endpoint: IdentityEndpoint { kind: IdentityEndpointKind::Entra, authority: "login.example".into() },
        status: StatusCode::from_u16(status).unwrap(),
        unusable: None,
        error: error.map(str::to_owned),
        codes: Vec::new(),
        description: None,
        correlation_id: None,
        trace_id: None,
        retry_after,
        date: None,
        federated: false,
    }))
}

const OUTAGE: Step = Step::Reject(503, None, None);
const WRONG_SECRET: Step = Step::Reject(401, Some("invalid_client"), None);

struct Fixture {
    cell: Arc<TokenCell>,
    script: Arc<Script>,
    app: Arc<AppState>,
}

impl Fixture {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::with_files(steps, WatchedFiles::default())
    }

    fn with_files(steps: impl IntoIterator<Item = Step>, files: WatchedFiles) -> Self {
        Self::build(steps, files, None)
    }

    /// A token that is released after an hour without use.
    fn on_demand(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::build(steps, WatchedFiles::default(), Some(HOUR))
    }

    fn build(steps: impl IntoIterator<Item = Step>, files: WatchedFiles, release_after: Option<Duration>) -> Self {
        let script = Arc::new(Script { steps: Mutex::new(steps.into_iter().collect()), files, ..Script::default() });
        let metrics = TokenMetrics::register(&mut MetricRegistry::default()).unwrap();
        let (state, (publish, progress)) = (Arc::<TokenState>::default(), watch::channel(Progress::default()));
        let acquirer: Arc<dyn Acquire> = Arc::<Script>::clone(&script);
        let demand = Arc::<Demand>::default();
        demand.set(release_after);
        let app = Arc::new(AppState::new(demand));
        let ids = vec![CredentialId::without_tenant("fabrikam")];
        let checks = FileChecks::default();
        let refresher = Refresher::new(Arc::clone(&state), publish, acquirer, ids, Arc::clone(&app), metrics, &checks);
        let cell =
            Arc::new(TokenCell::new(state, progress, refresher, Arc::clone(&app), tokio::runtime::Handle::current()));
        Self { cell, script, app }
    }

    fn calls(&self) -> u32 {
        self.script.calls.load(Ordering::SeqCst)
    }

    fn ready(&self) -> Option<Bearer> {
        self.cell.current(URL)
    }

    fn fingerprint(&self) -> Fingerprint {
        self.ready().unwrap().fingerprint()
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_without_a_token_share_one_acquisition() {
    let fixture = Fixture::new([Step::After(Duration::from_secs(2), Box::new(Step::Fresh(HOUR)))]);
    let waiting = (0..1000).map(|_| {
        let cell = Arc::clone(&fixture.cell);
        tokio::spawn(async move { cell.acquire().await })
    });
    for waiter in waiting.collect::<Vec<_>>() {
        waiter.await.unwrap().unwrap();
    }
    assert_eq!(fixture.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_without_a_token_share_one_failure_until_the_next_acquisition_is_due() {
    let fixture = Fixture::new([Step::After(Duration::from_secs(2), Box::new(WRONG_SECRET))]);
    let waiting = (0..1000).map(|_| {
        let cell = Arc::clone(&fixture.cell);
        tokio::spawn(async move { cell.acquire().await.unwrap_err() })
    });
    for waiter in waiting.collect::<Vec<_>>() {
        let unavailable = waiter.await.unwrap();
        assert!(unavailable.retry_after > Duration::from_secs(40), "{unavailable:?}");
        assert!(unavailable.cause.to_string().contains("401 invalid_client"), "{}", unavailable.cause);
    }
    for _ in 0..1000 {
        fixture.cell.acquire().await.unwrap_err();
    }
    assert_eq!(fixture.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn cancelling_a_caller_does_not_stop_the_acquisition() {
    let fixture = Fixture::new([Step::After(Duration::from_secs(5), Box::new(Step::Fresh(HOUR)))]);
    let timed_out = tokio::time::timeout(Duration::from_secs(1), fixture.cell.acquire()).await;
    assert!(timed_out.is_err());
    fixture.cell.acquire().await.unwrap();
    assert_eq!(fixture.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn refreshes_a_token_before_it_expires_and_no_caller_waits() {
    let fixture = Fixture::new([Step::Fresh(HOUR)]);
    fixture.cell.acquire().await.unwrap();
    let first = fixture.fingerprint();
    for _ in 0..60 {
        advance(MINUTE).await;
        tokio::task::yield_now().await;
        assert!(fixture.ready().is_some());
    }
    sleep(Duration::from_millis(1)).await;
    assert_ne!(fixture.fingerprint(), first);
    assert_eq!(fixture.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_lifetime_fails_no_request() {
    let mut steps = vec![Step::Fresh(HOUR)];
    steps.extend(std::iter::repeat_n(OUTAGE, 30));
    steps.push(Step::Fresh(HOUR));
    let fixture = Fixture::new(steps);
    fixture.cell.acquire().await.unwrap();
    for _ in 0..4 * 60 {
        sleep(Duration::from_secs(30)).await;
        fixture.cell.acquire().await.unwrap();
        assert!(fixture.ready().is_some());
    }
    assert!(fixture.calls() > 31, "the outage happened: {}", fixture.calls());
    assert_eq!(fixture.cell.status().state, CredentialState::Ready);
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_never_returned() {
    let fixture = Fixture::new([Step::Fresh(HOUR), OUTAGE]);
    fixture.cell.acquire().await.unwrap();
    sleep(Duration::from_secs(3600 - 31)).await;
    assert!(fixture.ready().is_some());
    assert_eq!(fixture.cell.status().state, CredentialState::Stale);
    sleep(Duration::from_secs(2)).await;
    assert!(fixture.ready().is_none(), "the token is not used in the margin before its expiry");
    let unavailable = fixture.cell.acquire().await.unwrap_err();
    assert!(unavailable.cause.to_string().contains("503"), "{}", unavailable.cause);
    assert_eq!(fixture.cell.status().state, CredentialState::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn recovers_from_an_outage_without_a_token() {
    let fixture = Fixture::new([OUTAGE, OUTAGE, OUTAGE, Step::Fresh(HOUR)]);
    fixture.cell.start();
    let started = Instant::now();
    while fixture.cell.acquire().await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(10), "1 + 2 + 4 seconds of back-off: {:?}", started.elapsed());
    assert_eq!(fixture.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn honours_a_short_retry_after_and_caps_a_long_one() {
    for (asked, waited) in [(7200, 300), (20, 20)] {
        let asked = Step::Reject(429, None, Some(Duration::from_secs(asked)));
        let fixture = Fixture::new([asked, Step::Fresh(HOUR)]);
        let unavailable = fixture.cell.acquire().await.unwrap_err();
        assert_eq!(unavailable.retry_after, Duration::from_secs(waited));
        sleep(Duration::from_secs(waited - 1)).await;
        assert_eq!(fixture.calls(), 1);
        sleep(Duration::from_secs(2)).await;
        assert!(fixture.ready().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn retries_slowly_after_a_permanent_error() {
    let fixture = Fixture::new([WRONG_SECRET]);
    fixture.cell.start();
    sleep(HOUR).await;
    assert!((12..=17).contains(&fixture.calls()), "{}", fixture.calls());
}

#[tokio::test(start_paused = true)]
async fn success_resets_the_back_off() {
    let short = Step::Fresh(MINUTE);
    let mut steps = vec![OUTAGE; 6];
    steps.extend([short, OUTAGE, OUTAGE, Step::Fresh(HOUR)]);
    let fixture = Fixture::new(steps);
    fixture.cell.start();
    sleep(2 * MINUTE).await;
    // 1 + 2 + 4 + 8 + 16 + 30 seconds, up to 40 seconds of the short token, then 1 + 2 seconds.
    assert_eq!((fixture.calls(), fixture.cell.status().state), (10, CredentialState::Ready));
}

#[tokio::test(start_paused = true)]
async fn uses_a_corrected_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "wrong").unwrap();
    let files = WatchedFiles { paths: vec![path.clone()], hold_token: false };
    let fixture = Fixture::with_files([WRONG_SECRET, WRONG_SECRET, Step::Fresh(HOUR)], files);
    fixture.cell.acquire().await.unwrap_err();
    sleep(Duration::from_secs(10)).await;
    assert_eq!(fixture.calls(), 1);
    std::fs::write(&path, "still wrong").unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(fixture.calls(), 2);
    std::fs::write(&path, "right").unwrap();
    sleep(Duration::from_secs(3)).await;
    assert!(fixture.ready().is_some());
    assert_eq!(fixture.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn reads_a_token_file_again_only_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "one").unwrap();
    let fixture =
        Fixture::with_files([Step::Fresh(HOUR)], WatchedFiles { paths: vec![path.clone()], hold_token: true });
    fixture.cell.acquire().await.unwrap();
    sleep(Duration::from_secs(30)).await;
    assert_eq!(fixture.calls(), 1);
    std::fs::write(&path, "another").unwrap();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(fixture.calls(), 2);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(fixture.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn replaces_a_rejected_token_once_for_all_callers() {
    let fixture = Fixture::new([Step::Fresh(HOUR), Step::After(Duration::from_secs(1), Box::new(Step::Fresh(HOUR)))]);
    fixture.cell.acquire().await.unwrap();
    let rejected = fixture.fingerprint();
    let reports = (0..1000).map(|_| {
        let cell = Arc::clone(&fixture.cell);
        tokio::spawn(async move { cell.replace(rejected).await })
    });
    for report in reports.collect::<Vec<_>>() {
        report.await.unwrap().unwrap();
    }
    assert_ne!(fixture.fingerprint(), rejected);
    assert_eq!(fixture.calls(), 2);
    fixture.cell.replace(rejected).await.unwrap();
    assert_eq!(fixture.calls(), 2, "reporting a token that was already replaced causes no acquisition");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_rejections_in_a_row_cause_one_refresh() {
    let fixture = Fixture::new([Step::Fresh(HOUR)]);
    fixture.cell.acquire().await.unwrap();
    let mut failures = 0;
    for _ in 0..10_000 {
        failures += u32::from(fixture.cell.replace(fixture.fingerprint()).await.is_err());
    }
    assert_eq!((fixture.calls(), failures), (2, 9_999));
    sleep(Duration::from_secs(6)).await;
    fixture.cell.replace(fixture.fingerprint()).await.unwrap();
    assert_eq!(fixture.calls(), 3, "another replacement is allowed later");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_source_returns_unchanged_stays_in_service() {
    let fixture = Fixture::new([Step::Token("same", HOUR)]);
    fixture.cell.acquire().await.unwrap();
    let rejected = fixture.fingerprint();
    let unavailable = fixture.cell.replace(rejected).await.unwrap_err();
    assert!(unavailable.cause.to_string().contains("equals the rejected one"), "{}", unavailable.cause);
    assert_eq!(fixture.ready().unwrap().fingerprint(), rejected);
    assert_eq!(fixture.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_stays_in_service_when_the_replacement_fails() {
    let fixture = Fixture::new([Step::Fresh(HOUR), OUTAGE]);
    fixture.cell.acquire().await.unwrap();
    let rejected = fixture.fingerprint();
    let unavailable = fixture.cell.replace(rejected).await.unwrap_err();
    assert!(unavailable.cause.to_string().contains("503"), "{}", unavailable.cause);
    assert_eq!(fixture.fingerprint(), rejected, "another endpoint may accept it");
    assert_eq!(fixture.cell.status().state, CredentialState::Stale);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_does_not_shorten_the_back_off() {
    let throttled = Step::Reject(429, None, Some(Duration::from_secs(120)));
    let fixture = Fixture::new([Step::Fresh(HOUR), throttled, Step::Fresh(HOUR)]);
    fixture.cell.acquire().await.unwrap();
    fixture.cell.replace(fixture.fingerprint()).await.unwrap_err();
    sleep(Duration::from_secs(30)).await;
    fixture.cell.replace(fixture.fingerprint()).await.unwrap_err();
    assert_eq!(fixture.calls(), 2);
    sleep(Duration::from_secs(100)).await;
    assert_eq!((fixture.calls(), fixture.cell.status().state), (3, CredentialState::Ready));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_and_the_next_acquisition_runs() {
    let fixture = Fixture::new([Step::Panic, Step::Fresh(HOUR)]);
    let unavailable = fixture.cell.acquire().await.unwrap_err();
    assert!(unavailable.cause.to_string().contains("panicked"), "{}", unavailable.cause);
    sleep(Duration::from_secs(2)).await;
    assert!(fixture.ready().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_an_error_with_back_off() {
    let fixture = Fixture::new([Step::Token("expired", Duration::ZERO)]);
    let unavailable = fixture.cell.acquire().await.unwrap_err();
    assert!(unavailable.cause.to_string().contains("had expired when it arrived"), "{}", unavailable.cause);
    sleep(MINUTE).await;
    assert!(fixture.calls() < 10, "{}", fixture.calls());
}

#[tokio::test(start_paused = true)]
async fn uses_and_refreshes_short_lived_tokens() {
    let fixture = Fixture::new([Step::Fresh(Duration::from_secs(10))]);
    fixture.cell.acquire().await.unwrap();
    for _ in 0..600 {
        sleep(Duration::from_millis(100)).await;
        assert!(fixture.ready().is_some());
    }
    assert!((10..=15).contains(&fixture.calls()), "{}", fixture.calls());
}

#[tokio::test(start_paused = true)]
async fn an_acquisition_that_hangs_does_not_delay_other_credentials() {
    let hanging = Fixture::new([Step::After(HOUR, Box::new(Step::Fresh(HOUR)))]);
    let healthy = Fixture::new([Step::Fresh(HOUR)]);
    hanging.cell.start();
    let started = Instant::now();
    healthy.cell.acquire().await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(hanging.cell.status().state, CredentialState::Starting);
}

#[tokio::test(start_paused = true)]
async fn stopping_fails_waiters_and_keeps_the_token_in_service() {
    let without_token = Fixture::new([Step::After(HOUR, Box::new(Step::Fresh(HOUR)))]);
    let waiter = Arc::clone(&without_token.cell);
    let waiter = tokio::spawn(async move { waiter.acquire().await });
    sleep(Duration::from_secs(1)).await;
    without_token.cell.stop();
    assert!(waiter.await.unwrap().unwrap_err().cause.to_string().contains("stopped"));
    assert!(without_token.cell.acquire().await.is_err(), "a stopped credential does not restart");

    let with_token = Fixture::new([Step::Fresh(HOUR)]);
    with_token.cell.acquire().await.unwrap();
    with_token.cell.stop();
    sleep(Duration::from_secs(3000)).await;
    assert!(with_token.ready().is_some());
    assert_eq!(with_token.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn workers_on_other_threads_and_runtimes_can_wait() {
    // Paused time would advance past the real threads.
    tokio::time::resume();
    let fixture = Fixture::new([Step::After(Duration::from_millis(50), Box::new(Step::Fresh(HOUR)))]);
    let cell = Arc::clone(&fixture.cell);
    let worker = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(cell.acquire())
    });
    let joined = tokio::task::spawn_blocking(move || worker.join().unwrap());
    joined.await.unwrap().unwrap();
    assert!(fixture.ready().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_token_on_demand_is_acquired_at_its_first_use_and_released_without_use() {
    let fixture = Fixture::on_demand([Step::Fresh(HOUR)]);
    assert_eq!(fixture.cell.status().state, CredentialState::Unused);
    sleep(24 * HOUR).await;
    assert_eq!(fixture.calls(), 0);
    fixture.cell.acquire().await.unwrap();
    // In use, and so kept fresh, although the first token expires after an hour.
    for _ in 0..6 {
        sleep(30 * MINUTE).await;
        assert!(fixture.ready().is_some());
    }
    sleep(76 * MINUTE).await;
    assert_eq!(fixture.cell.status().state, CredentialState::Unused);
    assert!(!fixture.cell.is_running() && fixture.cell.status().fingerprint.is_none());
    let calls = fixture.calls();
    sleep(24 * HOUR).await;
    assert_eq!(fixture.calls(), calls, "nothing is refreshed for an unused tenant");
    fixture.cell.acquire().await.unwrap();
    assert_eq!((fixture.calls(), fixture.cell.status().state), (calls + 1, CredentialState::Ready));
}

#[tokio::test(start_paused = true)]
async fn a_failing_token_on_demand_is_retried_only_while_callers_ask_for_it() {
    let fixture = Fixture::on_demand([WRONG_SECRET]);
    fixture.app.succeeded();
    fixture.cell.acquire().await.unwrap_err();
    assert!(fixture.app.is_refused() && !fixture.cell.may_serve());
    sleep(76 * MINUTE).await;
    assert_eq!(fixture.cell.status().state, CredentialState::Unused);
    let calls = fixture.calls();
    sleep(24 * HOUR).await;
    assert_eq!(fixture.calls(), calls);
    fixture.cell.acquire().await.unwrap_err();
    assert_eq!(fixture.calls(), calls + 1);
}

#[tokio::test(start_paused = true)]
async fn tries_of_an_app_without_a_first_token_continue_without_callers() {
    let mut steps = vec![WRONG_SECRET; 40];
    steps.push(Step::Fresh(HOUR));
    let fixture = Fixture::on_demand(steps);
    fixture.cell.acquire().await.unwrap_err();
    assert!(!fixture.app.obtained());
    sleep(4 * HOUR).await;
    assert!(fixture.app.obtained() && !fixture.app.is_refused());
}

#[tokio::test(start_paused = true)]
async fn callers_during_a_release_get_a_token() {
    let fixture = Fixture::on_demand([Step::Fresh(24 * HOUR)]);
    fixture.cell.acquire().await.unwrap();
    // Each look of the refresh task at the use coincides with a caller.
    for _ in 0..200 {
        sleep(HOUR / 4).await;
        if fixture.ready().is_none() {
            fixture.cell.acquire().await.unwrap();
        }
        assert!(fixture.ready().is_some());
        sleep(5 * HOUR / 4).await;
    }
}
