//! Which connection a request gets, over real sockets: the server says in each answer which of its connections that is.

use http::{HeaderName, HeaderValue, Method};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use std::cell::RefCell;

use super::*;
use crate::credential::{CredentialName, NoBearer};
use crate::endpoint::http1::tests::in_time;
use crate::endpoint::http1::{HeaderVisitor, RequestHead};
use crate::endpoint::{
    EndpointName, EndpointRole, EndpointSettings, FailureRatio, HealthSettings, Origin, PoolSettings,
};
use crate::metrics::{LabelNames, Metrics};

type TestPool = Pool<Full<bytes::Bytes>>;

const MINUTE: Duration = Duration::from_secs(60);

/// Answers every request with the number of its connection, counted from 0.
#[derive(Default)]
struct Server {
    /// To abort one closes the connection.
    connections: Rc<RefCell<Vec<AbortHandle>>>,
}

impl Server {
    async fn start(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Rc::clone(&self.connections);
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = connections.borrow().len();
                let serve = tokio::task::spawn_local(async move {
                    let mut request = [0; 1024];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        let answer = format!(
                            "HTTP/1.1 202 Accepted\r\nconnection-number: {number}\r\ncontent-length: 0\r\n\r\n"
                        );
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
                connections.borrow_mut().push(serve.abort_handle());
            }
        });
        port
    }

    /// Closes the connection of a pool's most recently used one, and waits until that can be known.
    async fn close(&self, number: usize, pool: &TestPool) {
        self.connections.borrow()[number].abort();
        while pool.store.idle().borrow_mut().last_mut().is_some_and(|last| last.connection.is_usable()) {
            tokio::task::yield_now().await;
        }
    }
}

async fn pool(server: &Server, settings: PoolSettings) -> TestPool {
    let settings = EndpointSettings {
        name: EndpointName::new("east"),
        origin: Origin { tls: false, host: "127.0.0.1".into(), port: server.start().await },
        credential: CredentialName::new("east"),
        role: EndpointRole::Primary,
        ca_file: None,
        connect_timeout: Duration::from_secs(5),
        http_version: HttpVersion::Http1,
        max_requests: None,
        pool: settings,
        health: HealthSettings {
            failures: 5,
            failure_ratio: FailureRatio::new(0.5).unwrap(),
            window: MINUTE,
            pause: MINUTE,
            probe_interval: MINUTE,
        },
    };
    let metrics = Metrics::new().unwrap();
    let endpoint = Endpoint::build(&settings, Arc::new(NoBearer), metrics.endpoints()).unwrap();
    let names = LabelNames { routes: vec![], endpoints: vec!["east".into()], operations: vec![] };
    let metrics = Rc::new(WorkerMetrics::new(&metrics, names));
    Pool::new(Arc::new(endpoint), metrics, 0, WriteBatch::start(), Rc::default())
}

/// Leases two, each while the other is in use.
async fn two(pool: &TestPool, now: Instant) -> (Lease<Full<bytes::Bytes>>, Lease<Full<bytes::Bytes>>) {
    (pool.lease(now).await.unwrap(), pool.lease(now).await.unwrap())
}

/// Sends a request over what was leased. Returns the number of the connection.
async fn ask(lease: Lease<Full<bytes::Bytes>>) -> usize {
    let host = HeaderValue::from_static("east");
    let lines = |line: &mut HeaderVisitor<'_>| line(&http::header::HOST, &host);
    let head = RequestHead { method: &Method::POST, target: "/", lines: &lines, unwanted: |_: &HeaderName| false };
    let answer = lease.send(&head, Full::default()).await.unwrap();
    answer.headers()["connection-number"].to_str().unwrap().parse().unwrap()
}

const ROOMY: PoolSettings = PoolSettings { max_idle_per_worker: 8, idle_timeout: MINUTE };

#[test]
fn the_one_that_came_back_last_goes_out_first() {
    in_time(async {
        let server = Server::default();
        let pool = pool(&server, ROOMY).await;
        let now = Instant::now();
        let (first, second) = two(&pool, now).await;
        assert!(!first.is_reused() && !second.is_reused(), "each has one of its own");
        assert_eq!((ask(first).await, ask(second).await), (0, 1));

        let (second, first) = two(&pool, now).await;
        assert!(first.is_reused() && second.is_reused());
        assert_eq!((ask(second).await, ask(first).await), (1, 0));
        assert_eq!(ask(pool.lease(now).await.unwrap()).await, 0);
    });
}

#[test]
fn one_that_the_endpoint_has_closed_is_passed_over() {
    in_time(async {
        let server = Server::default();
        let pool = pool(&server, ROOMY).await;
        let now = Instant::now();
        let (first, second) = two(&pool, now).await;
        assert_eq!((ask(first).await, ask(second).await), (0, 1));
        server.close(1, &pool).await;
        assert_eq!(ask(pool.lease(now).await.unwrap()).await, 0);
        server.close(0, &pool).await;
        assert_eq!(ask(pool.lease(now).await.unwrap()).await, 2, "there is none left, so one is opened");
    });
}

#[test]
fn an_old_one_is_closed_and_those_below_it_are_judged_by_themselves() {
    in_time(async {
        let server = Server::default();
        let pool = pool(&server, ROOMY).await;
        let now = Instant::now();
        let (long, short) = two(&pool, now).await;
        assert_eq!(ask(short).await, 1);
        let later = now + MINUTE / 2;
        assert_eq!(ask(pool.lease(later).await.unwrap()).await, 1);
        // The long request began first and ends last.
        assert_eq!(ask(long).await, 0);
        let later = now + MINUTE + Duration::from_secs(10);
        assert_eq!(ask(pool.lease(later).await.unwrap()).await, 1, "0 is too old, 1 is not");
        let later = now + 3 * MINUTE;
        assert_eq!(ask(pool.lease(later).await.unwrap()).await, 2);
    });
}

#[test]
fn no_more_are_kept_than_configured_and_none_that_was_not_used() {
    in_time(async {
        let server = Server::default();
        let pool = pool(&server, PoolSettings { max_idle_per_worker: 1, ..ROOMY }).await;
        let now = Instant::now();
        let (first, second) = two(&pool, now).await;
        assert_eq!((ask(first).await, ask(second).await), (0, 1));
        let (kept, fresh) = two(&pool, now).await;
        assert!(kept.is_reused() && !fresh.is_reused());
        // Who leases one and sends nothing does not give it back.
        drop(fresh);
        assert_eq!(ask(kept).await, 0);
        assert_eq!(ask(pool.lease(now).await.unwrap()).await, 0);
        assert_eq!(ask(pool.connect().await.unwrap()).await, 3, "one that is fresh, whatever there is");
    });
}

#[test]
fn one_that_is_not_needed_any_more_is_closed_though_no_request_comes() {
    in_time(async {
        let server = Server::default();
        let pool = pool(&server, PoolSettings { idle_timeout: Duration::from_millis(1), ..ROOMY }).await;
        assert_eq!(ask(pool.lease(Instant::now()).await.unwrap()).await, 0);
        assert_eq!(pool.store.idle().borrow().len(), 1);
        while !server.connections.borrow()[0].is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(pool.store.idle().borrow().is_empty());
    });
}

#[test]
fn requests_that_are_cancelled_while_they_wait_cost_no_connections() {
    in_time(async {
        let server = Server::default();
        let pool = pool(&server, ROOMY).await;
        for _ in 0..100 {
            let mut lease = Box::pin(pool.lease(Instant::now()));
            assert!(futures_util::poll!(&mut lease).is_pending());
        }
        while pool.store.idle().borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        let lease = pool.lease(Instant::now()).await.unwrap();
        assert_eq!(ask(lease).await, 0);
        assert_eq!(server.connections.borrow().len(), 1);
    });
}

#[test]
fn exchanges_that_are_cancelled_are_finished_and_their_connection_is_used_again() {
    in_time(async {
        let server = Server::default();
        let pool = pool(&server, ROOMY).await;
        let host = HeaderValue::from_static("east");
        let lines = |line: &mut HeaderVisitor<'_>| line(&http::header::HOST, &host);
        let head = RequestHead { method: &Method::POST, target: "/", lines: &lines, unwanted: |_: &HeaderName| false };
        for polls in [0, 1, 0, 1] {
            let mut sending = pool.lease(Instant::now()).await.unwrap().send(&head, Full::default());
            for _ in 0..polls {
                assert!(futures_util::poll!(&mut sending).is_pending());
            }
            drop(sending);
            while pool.store.idle().borrow().is_empty() {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(ask(pool.lease(Instant::now()).await.unwrap()).await, 0);
        assert_eq!(server.connections.borrow().len(), 1);
    });
}

#[test]
fn request_that_waits_takes_the_connection_that_is_free_first() {
    in_time(async {
        let server = Server::default();
        let pool = pool(&server, ROOMY).await;
        let leases: Vec<_> = (0..MOST_OPENING).map(|_| pool.lease(Instant::now())).collect();
        let leases: Vec<_> = futures_util::future::join_all(leases).await.into_iter().map(Result::unwrap).collect();
        let first = leases.into_iter().next().unwrap();
        let mut waiting = Box::pin(pool.lease(Instant::now()));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let number = ask(first).await;
        let lease = waiting.await.unwrap();
        // It is the free one, or the one that was opened for it: whichever was there before.
        let is_reused = lease.is_reused();
        assert_eq!(ask(lease).await == number, is_reused);
    });
}
