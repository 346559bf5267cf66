//! Cells and their refresh tasks under paused time, with a scripted acquirer.

mod failures;
mod on_demand;
mod rejected_tokens;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use http::StatusCode;
use tokio::sync::watch;
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::credential::acquire::{Acquire, Acquired, FileContent, TokenOrKey, WatchedFiles};
use crate::credential::app_state::Demand;
use crate::credential::error::CredentialError;
use crate::credential::file_watch::FileChecks;
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
        error: error.map(str::to_owned),
        retry_after,
        ..ResponseError::of_entra(StatusCode::from_u16(status).unwrap())
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
        state.set_ids(vec![CredentialId::without_tenant("fabrikam")]);
        let checks = FileChecks::default();
        let refresher = Refresher::new(Arc::clone(&state), publish, acquirer, Arc::clone(&app), metrics, &checks);
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
async fn uses_a_corrected_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "wrong").unwrap();
    let files = WatchedFiles { paths: vec![path.clone()], content: FileContent::Proof };
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
async fn a_changed_file_starts_the_back_off_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "wrong").unwrap();
    let files = WatchedFiles { paths: vec![path.clone()], content: FileContent::Proof };
    let fixture = Fixture::with_files([WRONG_SECRET], files);
    fixture.cell.acquire().await.unwrap_err();
    sleep(HOUR).await;
    let calls = fixture.calls();
    std::fs::write(&path, "still wrong").unwrap();
    // The changed file is tried at once, and again after the first wait, which is a minute. By now, five minutes would pass.
    sleep(Duration::from_secs(80)).await;
    assert_eq!(fixture.calls(), calls + 2);
}

#[tokio::test(start_paused = true)]
async fn reads_a_token_file_again_only_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "one").unwrap();
    let fixture = Fixture::with_files(
        [Step::Fresh(HOUR)],
        WatchedFiles { paths: vec![path.clone()], content: FileContent::Token },
    );
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
