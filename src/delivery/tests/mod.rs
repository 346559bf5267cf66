//! Deliveries to endpoints on loopback addresses that send scripted responses.

mod calls;
pub(super) mod upload;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Method, Request, Response};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Handle, LocalOptions};

use super::*;
use crate::credential::{CredentialId, CredentialKind, CredentialSettings, Credentials};
use crate::endpoint::{Endpoint, EndpointName, EndpointRole, Proxies, TlsClients, tests::settings};
use crate::idempotency::IdempotencySettings;
use crate::limits::{EndpointLimits, Limits, QueueSettings, RequestDeadline};
use crate::metrics::{Label, Metrics, WorkerMetrics};
use crate::route::{
    MatchSettings, Pick, RouteCaller, RouteEndpoint, RouteInput, RouteName, RouteSettings, Table, WhenUnavailable,
};
use crate::signalr::{Call, Operation};
use crate::write_batch::WriteBatch;
use upload::Upload;

const SEND: &str = "/api/hubs/chat/:send";
const TOKEN: &str = "token";

/// Runs a test on a single-threaded runtime, as workers have, with a timeout.
pub(super) fn run<T>(test: impl Future<Output = T>) -> T {
    run_on(Builder::new_current_thread().enable_all(), test)
}

/// Runs a test without sockets under paused time.
pub(super) fn run_paused<T>(test: impl Future<Output = T>) -> T {
    run_on(Builder::new_current_thread().enable_time().start_paused(true), test)
}

fn run_on<T>(runtime: &mut Builder, test: impl Future<Output = T>) -> T {
    let runtime = runtime.build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test timed out") })
}

/// An endpoint that sends one response after the other, and the last one to every further request.
struct TestEndpoint {
    name: &'static str,
    role: EndpointRole,
    port: u16,
    /// Keeps the port of an unreachable endpoint.
    _reserved: Option<TcpSocket>,
}

impl TestEndpoint {
    async fn start(name: &'static str, responses: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let received = Rc::new(Cell::new(0));
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::task::spawn_local(respond(stream, responses, Rc::clone(&received)));
            }
        });
        Self { name, role: EndpointRole::Primary, port, _reserved: None }
    }

    /// Returns an endpoint that refuses connections.
    fn unreachable(name: &'static str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = socket.local_addr().unwrap().port();
        Self { name, role: EndpointRole::Primary, port, _reserved: Some(socket) }
    }

    fn secondary(self) -> Self {
        Self { role: EndpointRole::Secondary, ..self }
    }
}

/// Responds to the requests of one connection, which have no body.
async fn respond(mut stream: TcpStream, responses: &[&str], received: Rc<Cell<usize>>) {
    let mut request = Vec::new();
    while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
        if request.ends_with(b"\r\n\r\n") {
            request.clear();
            let response = responses[received.get().min(responses.len() - 1)];
            received.set(received.get() + 1);
            stream.write_all(response.as_bytes()).await.unwrap();
        }
    }
}

/// What differs between tests.
struct Setup {
    pick: Pick,
    max_header_bytes: usize,
    /// The concurrency limit of each endpoint.
    max_requests: Option<usize>,
}

impl Default for Setup {
    fn default() -> Self {
        Self { pick: Pick::First, max_header_bytes: 16 * 1024, max_requests: None }
    }
}

/// One worker with one route to all endpoints, and the credential that they share.
struct Fixture {
    worker: WorkerDelivery,
    routes: Table,
    limits: Arc<Limits>,
    _credentials: Credentials,
    _folder: TempDir,
}

impl Fixture {
    async fn new(endpoints: &[TestEndpoint], setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, TOKEN).unwrap();
        let id = CredentialId::without_tenant("east");
        let credential =
            CredentialSettings { id: id.clone(), kind: CredentialKind::TokenFile { path }, object_id: None };
        let metrics = Metrics::new().unwrap();
        let credentials = Credentials::build(&[credential], metrics.token(), &Handle::current()).unwrap();
        let bearer = credentials.get(&id).unwrap();
        bearer.acquire().await.unwrap();

        let build = |endpoint: &TestEndpoint| {
            let mut settings = settings(endpoint.port);
            settings.name = EndpointName::new(endpoint.name);
            settings.role = endpoint.role;
            let (tls, proxies) = (&mut TlsClients::default(), &mut Proxies::default());
            let settings = Arc::new(settings);
            Arc::new(Endpoint::build(&settings, Arc::clone(&bearer), Label::other(), tls, proxies).unwrap())
        };
        let built: Arc<[_]> = endpoints.iter().map(build).collect();
        let limit = |endpoint: &TestEndpoint| EndpointLimits {
            name: endpoint.name,
            max_requests: setup.max_requests,
            rate: None,
        };
        let limits = Arc::new(Limits::new(&[], &[], &[], &endpoints.iter().map(limit).collect::<Vec<_>>(), None));
        let worker_metrics = Rc::new(WorkerMetrics::new(&metrics, Operation::ALL.map(Operation::name)));
        let settings = DeliverySettings {
            max_header_bytes: setup.max_header_bytes,
            try_timeout: Duration::from_secs(20),
            queue: QueueSettings { length: 0, max_wait: Duration::ZERO },
            max_idle_connections: 16,
            retry: RetrySettings { messages: MessageRetry::Never, attempts: 3, budget: 0.2 },
            idempotency: IdempotencySettings { expires_after: Duration::from_secs(60), keys: 1 },
        };
        let parts = DeliveryParts {
            settings,
            endpoints: &built,
            limits: &limits,
            idle_limit: &Arc::default(),
            idempotency: &Arc::default(),
        };
        let worker = WorkerDelivery::new(parts, &worker_metrics, &WriteBatch::start(), None);
        Self { worker, routes: routes(endpoints, setup.pick), limits, _credentials: credentials, _folder: folder }
    }

    /// Delivers a call without headers and body. Returns the index of the endpoint that responded, and its response.
    async fn deliver(
        &self,
        method: Method,
        target: &'static str,
    ) -> Result<(usize, Response<UpstreamBody>), DeliveryError> {
        let call = Call::parse(&method, target, None).unwrap();
        let headers = HeaderMap::new();
        let input = RouteInput {
            call: &call,
            headers: &headers,
            may_have_endpoint_header: false,
            listener: 0,
            client: None,
            caller: RouteCaller::default(),
        };
        let (_, route) = self.routes.find(&input).unwrap();
        let choice = Choice::new(route, &input).unwrap();
        let head = Request::builder().method(method.clone()).uri(target).body(()).unwrap().into_parts().0;
        let head = CallHead::new(head, || HeaderValue::from_static("made"), None);
        let state = CallState::new(head, RequestDeadline::new(Instant::now(), Duration::from_secs(20)), None, true);
        let body = Upload::begin("content-length: 0").await.body;
        let call = PlannedCall::new(call.operation, &body, &state);
        let (upstream, response) = deliver(&self.worker, &choice, &call, || None).await?;
        Ok((upstream.index(), response))
    }
}

/// Returns a table with one route to all endpoints.
fn routes(endpoints: &[TestEndpoint], pick: Pick) -> Table {
    let names: Vec<_> = endpoints.iter().map(|endpoint| EndpointName::new(endpoint.name)).collect();
    let route = RouteSettings {
        name: RouteName::new("only"),
        matches: MatchSettings::default(),
        pick,
        when_unavailable: WhenUnavailable::default(),
        rate: None,
        endpoint_header: None,
        endpoints: names.iter().map(|name| RouteEndpoint { endpoint: name.clone(), weight: 1 }).collect(),
    };
    Table::build(&[route], &names, &["default"]).unwrap()
}
