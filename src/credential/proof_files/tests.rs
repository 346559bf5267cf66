//! Files that prove an app change under paused time. What Entra says depends on the content of the file.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use tempfile::TempDir;

use super::*;
use crate::credential::acquire::{Acquired, TokenOrKey, WatchedFiles};
use crate::credential::app::tests::{NOT_PROVISIONED, WRONG_SECRET, cell, refusal};
use crate::credential::app_state::{AppState, Demand};
use crate::credential::bearer::Bearer;
use crate::credential::error::CredentialError;
use crate::credential::lifetime::Lifetime;
use crate::credential::local_error::SecretError;
use crate::credential::source::{BearerSource as _, CredentialState};

const HOUR: Duration = Duration::from_secs(3600);
/// Longer than a complete file rests, with the jitter of few apps.
const SOON: Duration = Duration::from_secs(5);

/// One tenant of an app with a secret in a file.
#[derive(Debug)]
struct Tenant {
    files: WatchedFiles,
    lifetime: Duration,
    /// The code with which Entra refuses this tenant, whatever the secret is.
    refusal: Mutex<Option<u32>>,
    /// Whether Entra does not answer.
    is_out: AtomicBool,
    requests: AtomicU32,
}

impl Tenant {
    fn read(&self) -> Result<String, CredentialError> {
        let secret = std::fs::read_to_string(&self.files.paths[0]).unwrap_or_default();
        if secret.is_empty() { Err(SecretError::Empty { location: "file".into() }.into()) } else { Ok(secret) }
    }
}

#[async_trait]
impl Acquire for Tenant {
    async fn acquire(&self, _record: &AcquisitionRecord) -> Result<Acquired, CredentialError> {
        let secret = self.read()?;
        self.requests.fetch_add(1, Ordering::SeqCst);
        if self.is_out.load(Ordering::SeqCst) {
            return Err(CredentialError::Deadline(INTERVAL));
        }
        let code = *self.refusal.lock().unwrap();
        match code.or_else(|| secret.starts_with("wrong").then_some(WRONG_SECRET)) {
            Some(code) => Err(refusal(code)),
            None => Ok(Acquired {
                token_or_key: TokenOrKey::Bearer(Bearer::new(&format!("token-of-{secret}")).unwrap()),
                lifetime: Some(Lifetime { starts: Instant::now(), duration: self.lifetime, refresh_in: None }),
            }),
        }
    }

    fn watched_files(&self) -> WatchedFiles {
        self.files.clone()
    }

    async fn inspect(&self, _record: &AcquisitionRecord) -> Result<(), CredentialError> {
        self.read().map(drop)
    }
}

/// An app whose secret is followed.
struct Fixture {
    folder: TempDir,
    tenants: Vec<Arc<Tenant>>,
    apps: Arc<[App]>,
    _tasks: JoinSet<()>,
}

impl Fixture {
    /// An app with tenants whose tokens live for these times. All of them have a token.
    async fn start(lifetimes: &[Duration]) -> Self {
        Self::with(lifetimes, FileContent::Proof, None).await
    }

    async fn with(lifetimes: &[Duration], content: FileContent, release_after: Option<Duration>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "first").unwrap();
        let demand = Arc::<Demand>::default();
        demand.set(release_after);
        let mut app = App::new(Arc::new(AppState::new(demand)));
        let mut tenants = Vec::new();
        for &lifetime in lifetimes {
            let files = WatchedFiles { paths: vec![path.clone()], content };
            let (refusal, is_out, requests) = (Mutex::default(), AtomicBool::default(), AtomicU32::default());
            let tenant = Arc::new(Tenant { files, lifetime, refusal, is_out, requests });
            let acquirer: Arc<dyn Acquire> = Arc::<Tenant>::clone(&tenant);
            app.add(&cell(Arc::clone(&acquirer), &app.state), &acquirer);
            tenants.push(tenant);
        }
        for cell in &app.cells {
            cell.acquire().await.unwrap();
        }
        let (apps, mut tasks) = (Arc::from([app]), JoinSet::new());
        follow(&apps, &mut tasks, &tokio::runtime::Handle::current());
        sleep(SOON).await;
        let fixture = Self { folder, tenants, apps, _tasks: tasks };
        assert_eq!(fixture.requests(), vec![1; lifetimes.len()], "before a change");
        fixture
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// Replaces the secret as a volume of Kubernetes does: by a file beside it.
    fn write(&self, secret: &str) {
        let beside = self.folder.path().join("beside");
        std::fs::write(&beside, secret).unwrap();
        std::fs::rename(beside, self.path()).unwrap();
    }

    /// Returns the token requests of each tenant since the start.
    fn requests(&self) -> Vec<u32> {
        self.tenants.iter().map(|tenant| tenant.requests.load(Ordering::SeqCst)).collect()
    }

    fn states(&self) -> Vec<CredentialState> {
        self.apps[0].cells.iter().map(|cell| cell.current_state()).collect()
    }

    fn refuse(&self, tenant: usize) {
        *self.tenants[tenant].refusal.lock().unwrap() = Some(NOT_PROVISIONED);
    }
}

use CredentialState::{Ready, Stale, Unused};

#[tokio::test(start_paused = true)]
async fn a_changed_secret_is_tried_with_the_token_that_expires_first() {
    let fixture = Fixture::start(&[3 * HOUR, HOUR, 2 * HOUR]).await;
    let before = fixture.apps[0].cells[1].status().fingerprint;
    fixture.write("second");
    sleep(SOON).await;
    assert_eq!(fixture.requests(), [1, 2, 1]);
    assert_ne!(fixture.apps[0].cells[1].status().fingerprint, before);
    fixture.apps[0].cells[1].state().wake.notify_one();
    sleep(HOUR / 4).await;
    assert_eq!(fixture.requests(), [1, 2, 1], "it is tried once");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_secret_makes_one_token_stale_until_it_is_corrected() {
    let fixture = Fixture::start(&[HOUR, 2 * HOUR]).await;
    fixture.write("wrong");
    sleep(SOON).await;
    assert_eq!((fixture.requests(), fixture.states()), (vec![2, 1], vec![Stale, Ready]));
    // A reload follows the files anew.
    let mut tasks = JoinSet::new();
    follow(&fixture.apps, &mut tasks, &tokio::runtime::Handle::current());
    sleep(SOON).await;
    assert_eq!(fixture.requests(), [2, 1], "a refused file is tried again");
    fixture.write("second");
    sleep(SOON).await;
    assert_eq!((fixture.requests(), fixture.states()), (vec![3, 1], vec![Ready, Ready]));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_refuses_the_app_is_followed_by_others_up_to_three() {
    let fixture = Fixture::start(&[HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR]).await;
    fixture.refuse(0);
    fixture.write("second");
    sleep(SOON + INTERVAL).await;
    assert_eq!((fixture.requests(), fixture.states()), (vec![2, 2, 1, 1], vec![Stale, Ready, Ready, Ready]));
    (1..4).for_each(|tenant| fixture.refuse(tenant));
    fixture.write("third");
    sleep(2 * SOON).await;
    assert_eq!(fixture.states(), [Stale, Stale, Stale, Stale], "the first one follows the file itself");
    let fixture = Fixture::start(&[HOUR, 2 * HOUR, 3 * HOUR, 4 * HOUR]).await;
    (0..4).for_each(|tenant| fixture.refuse(tenant));
    fixture.write("second");
    sleep(2 * SOON).await;
    assert_eq!(fixture.states(), [Stale, Stale, Stale, Ready]);
}

#[tokio::test(start_paused = true)]
async fn a_file_with_the_same_content_is_not_tried() {
    let fixture = Fixture::start(&[HOUR]).await;
    for _ in 0..3 {
        fixture.write("first");
        sleep(SOON).await;
    }
    assert_eq!(fixture.requests(), [1]);
    fixture.write("second");
    sleep(SOON).await;
    fixture.write("first");
    sleep(SOON).await;
    assert_eq!(fixture.requests(), [3], "it is compared with the last one that was tried");
}

#[tokio::test(start_paused = true)]
async fn an_empty_file_gets_ten_seconds() {
    let fixture = Fixture::start(&[HOUR]).await;
    std::fs::write(fixture.path(), "").unwrap();
    sleep(8 * INTERVAL).await;
    assert_eq!(fixture.states(), [Ready]);
    fixture.write("second");
    sleep(SOON).await;
    assert_eq!((fixture.requests(), fixture.states()), (vec![2], vec![Ready]));
    std::fs::remove_file(fixture.path()).unwrap();
    sleep(INCOMPLETE + 3 * INTERVAL).await;
    assert_eq!((fixture.requests(), fixture.states()), (vec![2], vec![Stale]));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_keeps_changing_is_tried_when_it_rests() {
    let fixture = Fixture::start(&[HOUR]).await;
    for secret in ["a", "bb", "ccc", "dddd", "eeeee", "ffffff"] {
        fixture.write(secret);
        sleep(Duration::from_millis(900)).await;
    }
    assert_eq!(fixture.requests(), [1]);
    sleep(SOON).await;
    assert_eq!(fixture.requests(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_file_rests_before_it_is_tried() {
    let fixture = Fixture::start(&[HOUR]).await;
    fixture.write("second");
    sleep(3 * INTERVAL / 2).await;
    assert_eq!(fixture.requests(), [1]);
    sleep(SOON).await;
    assert_eq!(fixture.requests(), [2]);
}

#[tokio::test(start_paused = true)]
async fn no_other_tenant_is_tried_while_entra_does_not_answer() {
    let fixture = Fixture::start(&[HOUR, 2 * HOUR]).await;
    fixture.tenants[0].is_out.store(true, Ordering::SeqCst);
    fixture.write("second");
    sleep(2 * SOON).await;
    assert_eq!((fixture.states(), fixture.requests()[1]), (vec![Stale, Ready], 1));
}

#[tokio::test(start_paused = true)]
async fn the_token_of_another_identity_is_not_followed() {
    let fixture = Fixture::with(&[HOUR], FileContent::Assertion, None).await;
    fixture.write("second");
    sleep(HOUR / 4).await;
    assert_eq!(fixture.requests(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_secret_whose_tokens_are_not_in_use_is_tried_too() {
    let fixture = Fixture::with(&[2 * HOUR, 2 * HOUR], FileContent::Proof, Some(HOUR / 2)).await;
    sleep(HOUR).await;
    assert_eq!((fixture.requests(), fixture.states()), (vec![1, 1], vec![Unused, Unused]));
    fixture.write("wrong");
    sleep(SOON).await;
    assert_eq!((fixture.requests(), fixture.states()), (vec![2, 1], vec![CredentialState::Unavailable, Unused]));
}
