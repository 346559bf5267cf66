//! The queue under paused time.

use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};

use super::*;
use crate::metrics::MetricRegistry;

const SECOND: Duration = Duration::from_secs(1);

/// A queue, and the names of the requests in the order in which they began to run.
struct Fixture {
    queue: Arc<RequestQueue>,
    begun: Arc<Mutex<Vec<&'static str>>>,
}

impl Fixture {
    fn new(max: usize) -> Self {
        let metrics = TokenMetrics::register(&mut MetricRegistry::default()).unwrap();
        Self { queue: Arc::new(RequestQueue::new(max, metrics)), begun: Arc::default() }
    }

    /// Enters a request that runs for this long, and waits until it is in the queue or runs.
    async fn request(&self, name: &'static str, requester: &Arc<Requester>, takes: Duration) -> JoinHandle<()> {
        let (queue, begun, requester) = (Arc::clone(&self.queue), Arc::clone(&self.begun), Arc::clone(requester));
        let request = async move {
            begun.lock().unwrap().push(name);
            sleep(takes).await;
        };
        let task = tokio::spawn(async move { queue.run(&requester, request).await });
        tokio::task::yield_now().await;
        task
    }

    fn begun(&self) -> Vec<&'static str> {
        self.begun.lock().unwrap().clone()
    }

    fn is_empty(&self) -> bool {
        let state = self.queue.lock();
        state.counted == 0 && state.waiting.is_empty()
    }
}

fn requester() -> Arc<Requester> {
    Arc::default()
}

#[tokio::test(start_paused = true)]
async fn at_most_as_many_run_at_once_as_configured() {
    let fixture = Fixture::new(2);
    let mut tasks = Vec::new();
    for name in ["a", "b", "c", "d"] {
        tasks.push(fixture.request(name, &requester(), SECOND).await);
    }
    assert_eq!(fixture.begun(), ["a", "b"]);
    let started = Instant::now();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!((fixture.begun(), started.elapsed()), (vec!["a", "b", "c", "d"], 2 * SECOND));
    assert!(fixture.is_empty());
}

#[tokio::test(start_paused = true)]
async fn requests_that_a_caller_waits_for_run_before_refreshes() {
    let fixture = Fixture::new(1);
    let (urgent, becomes_urgent) = (requester(), requester());
    let _caller = urgent.callers.enter();
    let mut tasks = vec![fixture.request("running", &requester(), SECOND).await];
    tasks.push(fixture.request("refresh", &requester(), SECOND).await);
    tasks.push(fixture.request("becomes urgent", &becomes_urgent, SECOND).await);
    tasks.push(fixture.request("urgent", &urgent, SECOND).await);
    let _caller = becomes_urgent.callers.enter();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(
        fixture.begun(),
        ["running", "becomes urgent", "urgent", "refresh"],
        "in the order of arrival otherwise"
    );
}

#[tokio::test(start_paused = true)]
async fn requests_that_hang_delay_others_by_two_seconds_and_do_not_go_first_again() {
    let fixture = Fixture::new(2);
    let hung = requester();
    let mut tasks = Vec::new();
    for name in ["hangs", "hangs too"] {
        tasks.push(fixture.request(name, &hung, 60 * SECOND).await);
    }
    let started = Instant::now();
    fixture.request("healthy", &requester(), Duration::ZERO).await.await.unwrap();
    assert_eq!(started.elapsed(), COUNTED_FOR);
    let running = [
        fixture.request("running", &requester(), SECOND).await,
        fixture.request("running", &requester(), SECOND).await,
    ];
    tasks.push(fixture.request("hangs again", &hung, SECOND).await);
    tasks.push(fixture.request("healthy again", &requester(), SECOND).await);
    for task in running {
        task.await.unwrap();
    }
    sleep(SECOND / 2).await;
    assert_eq!(fixture.begun()[5..], ["healthy again", "hangs again"]);
    for task in tasks {
        task.await.unwrap();
    }
    assert!(fixture.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_request_leaves_the_queue_and_returns_its_permit() {
    let fixture = Fixture::new(1);
    let running = fixture.request("running", &requester(), 60 * SECOND).await;
    let queued = fixture.request("queued", &requester(), SECOND).await;
    let next = fixture.request("next", &requester(), SECOND).await;
    queued.abort();
    queued.await.unwrap_err();
    running.abort();
    running.await.unwrap_err();
    next.await.unwrap();
    assert_eq!(fixture.begun(), ["running", "next"]);
    assert!(fixture.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_higher_limit_takes_effect_at_once() {
    let fixture = Fixture::new(1);
    let first = fixture.request("first", &requester(), SECOND).await;
    let second = fixture.request("second", &requester(), SECOND).await;
    fixture.queue.set_max(2);
    advance(SECOND).await;
    first.await.unwrap();
    second.await.unwrap();
    let waiting =
        [fixture.request("third", &requester(), SECOND).await, fixture.request("fourth", &requester(), SECOND).await];
    assert_eq!(fixture.begun().len(), 4);
    for task in waiting {
        task.await.unwrap();
    }
}
