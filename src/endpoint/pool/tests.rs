//! Which connection a request is leased, over TCP. The server states the number of the connection in each response.

use http::{HeaderName, HeaderValue, Method};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use std::cell::RefCell;

use super::*;
use crate::endpoint::http1::tests::run;
use crate::endpoint::http1::{HeaderVisitor, RequestHead};
use crate::endpoint::{EndpointSettings, PoolSettings, tests};

type TestPool = Pool<Full<bytes::Bytes>>;

const MINUTE: Duration = Duration::from_secs(60);

/// A server that responds to every request with the number of the connection, counted from 0.
#[derive(Default)]
struct Server {
    /// The tasks of the connections. Aborting a task closes its connection.
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
                        let response = format!(
                            "HTTP/1.1 202 Accepted\r\nconnection-number: {number}\r\ncontent-length: 0\r\n\r\n"
                        );
                        stream.write_all(response.as_bytes()).await.unwrap();
                    }
                });
                connections.borrow_mut().push(serve.abort_handle());
            }
        });
        port
    }

    /// Closes the most recently used connection of the pool, whose number is given, and waits until the pool can detect it.
    async fn close(&self, number: usize, pool: &TestPool) {
        self.connections.borrow()[number].abort();
        while pool.store.idle().borrow_mut().last_mut().is_some_and(|last| last.connection.is_usable()) {
            tokio::task::yield_now().await;
        }
    }
}

async fn pool(server: &Server, settings: PoolSettings) -> TestPool {
    tests::pool(&EndpointSettings { pool: settings, ..tests::settings(server.start().await) })
}

/// Leases two connections at the same time.
async fn two(pool: &TestPool, now: Instant) -> (Lease<Full<bytes::Bytes>>, Lease<Full<bytes::Bytes>>) {
    (pool.lease(now).await.unwrap(), pool.lease(now).await.unwrap())
}

/// Sends a request on a leased connection. Returns the number of the connection.
async fn send(lease: Lease<Full<bytes::Bytes>>) -> usize {
    let host = HeaderValue::from_static("east");
    let lines = |line: &mut HeaderVisitor<'_>| line(&http::header::HOST, &host);
    let head = RequestHead { method: &Method::POST, target: "/", lines: &lines, unwanted: |_: &HeaderName| false };
    let response = lease.send(&head, Full::default()).await.unwrap();
    response.headers()["connection-number"].to_str().unwrap().parse().unwrap()
}

const SETTINGS: PoolSettings = PoolSettings { max_idle_per_worker: 8, idle_timeout: MINUTE, max_age: None };

#[test]
fn most_recently_used_connection_is_leased_first() {
    run(async {
        let server = Server::default();
        let pool = pool(&server, SETTINGS).await;
        let now = Instant::now();
        let (first, second) = two(&pool, now).await;
        assert!(!first.is_reused() && !second.is_reused(), "each request has its own connection");
        assert_eq!((send(first).await, send(second).await), (0, 1));

        let (second, first) = two(&pool, now).await;
        assert!(first.is_reused() && second.is_reused());
        assert_eq!((send(second).await, send(first).await), (1, 0));
        assert_eq!(send(pool.lease(now).await.unwrap()).await, 0);
    });
}

#[test]
fn connection_that_the_endpoint_has_closed_is_skipped() {
    run(async {
        let server = Server::default();
        let pool = pool(&server, SETTINGS).await;
        let now = Instant::now();
        let (first, second) = two(&pool, now).await;
        assert_eq!((send(first).await, send(second).await), (0, 1));
        server.close(1, &pool).await;
        assert_eq!(send(pool.lease(now).await.unwrap()).await, 0);
        server.close(0, &pool).await;
        assert_eq!(send(pool.lease(now).await.unwrap()).await, 2, "no connection is left, so one is opened");
    });
}

#[test]
fn connection_past_the_idle_timeout_is_skipped_and_more_recent_ones_are_used() {
    run(async {
        let server = Server::default();
        let pool = pool(&server, SETTINGS).await;
        let now = Instant::now();
        let (long, short) = two(&pool, now).await;
        assert_eq!(send(short).await, 1);
        let later = now + MINUTE / 2;
        assert_eq!(send(pool.lease(later).await.unwrap()).await, 1);
        // The long request began first and ends last, so its connection is returned last.
        assert_eq!(send(long).await, 0);
        let later = now + MINUTE + Duration::from_secs(10);
        assert_eq!(
            send(pool.lease(later).await.unwrap()).await,
            1,
            "connection 0 is past the idle timeout, connection 1 is not"
        );
        let later = now + 3 * MINUTE;
        assert_eq!(send(pool.lease(later).await.unwrap()).await, 2);
    });
}

#[test]
fn surplus_and_unused_connections_are_not_kept() {
    run(async {
        let server = Server::default();
        let pool = pool(&server, PoolSettings { max_idle_per_worker: 1, ..SETTINGS }).await;
        let now = Instant::now();
        let (first, second) = two(&pool, now).await;
        assert_eq!((send(first).await, send(second).await), (0, 1));
        let (kept, fresh) = two(&pool, now).await;
        assert!(kept.is_reused() && !fresh.is_reused());
        // A dropped lease does not return its connection.
        drop(fresh);
        assert_eq!(send(kept).await, 0);
        assert_eq!(send(pool.lease(now).await.unwrap()).await, 0);
        assert_eq!(
            send(pool.connect().await.unwrap()).await,
            3,
            "`connect` opens a new connection even if one is idle"
        );
    });
}

#[test]
fn idle_connections_are_closed_without_further_requests() {
    run(async {
        let server = Server::default();
        let pool = pool(&server, PoolSettings { idle_timeout: Duration::from_millis(1), ..SETTINGS }).await;
        assert_eq!(send(pool.lease(Instant::now()).await.unwrap()).await, 0);
        assert_eq!(pool.store.idle().borrow().len(), 1);
        while !server.connections.borrow()[0].is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(pool.store.idle().borrow().is_empty());
    });
}

#[test]
fn idle_connections_are_checked_repeatedly_until_all_are_closed() {
    run(async {
        let server = Server::default();
        let pool = pool(&server, SETTINGS).await;
        assert_eq!(send(pool.lease(Instant::now()).await.unwrap()).await, 0);
        // No socket is used from here on.
        tokio::time::pause();
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert_eq!(pool.store.idle().borrow().len(), 1, "it was checked before the idle timeout");
        pool.store.idle().borrow_mut()[0].used -= MINUTE;
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert!(pool.store.idle().borrow().is_empty());
    });
}

#[test]
fn waiting_requests_that_are_cancelled_open_no_further_connections() {
    run(async {
        let server = Server::default();
        let pool = pool(&server, SETTINGS).await;
        for _ in 0..100 {
            let mut lease = Box::pin(pool.lease(Instant::now()));
            assert!(futures_util::poll!(&mut lease).is_pending());
        }
        while pool.store.idle().borrow().is_empty() {
            tokio::task::yield_now().await;
        }
        let lease = pool.lease(Instant::now()).await.unwrap();
        assert_eq!(send(lease).await, 0);
        assert_eq!(server.connections.borrow().len(), 1);
    });
}

#[test]
fn cancelled_exchanges_are_finished_and_their_connections_reused() {
    run(async {
        let server = Server::default();
        let pool = pool(&server, SETTINGS).await;
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
        assert_eq!(send(pool.lease(Instant::now()).await.unwrap()).await, 0);
        assert_eq!(server.connections.borrow().len(), 1);
    });
}

#[test]
fn waiting_request_takes_the_first_available_connection() {
    run(async {
        let server = Server::default();
        let pool = pool(&server, SETTINGS).await;
        let leases: Vec<_> = (0..MAX_OPENING).map(|_| pool.lease(Instant::now())).collect();
        let leases: Vec<_> = futures_util::future::join_all(leases).await.into_iter().map(Result::unwrap).collect();
        let first = leases.into_iter().next().unwrap();
        let mut waiting = Box::pin(pool.lease(Instant::now()));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let number = send(first).await;
        let lease = waiting.await.unwrap();
        // It is the returned connection or the one that was opened for it, whichever was available first.
        let is_reused = lease.is_reused();
        assert_eq!(send(lease).await == number, is_reused);
    });
}
