//! An endpoint on a loopback address, for the tests of several modules, and requests over HTTP/2.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::net::TcpListener;

use super::http1::UploadBody;
use super::http1::tests::run;
use super::*;
use crate::credential::{CredentialId, NoBearer};
use crate::metrics::{Label, Metrics, WorkerMetrics};
use crate::write_batch::WriteBatch;

const MINUTE: Duration = Duration::from_secs(60);

/// Returns the settings of an endpoint at this port of the loopback address.
pub(crate) fn settings(port: u16) -> EndpointSettings {
    EndpointSettings {
        name: EndpointName::new("east"),
        origin: Origin { tls: false, host: "127.0.0.1".into(), port },
        metrics_label: "east".into(),
        credential: CredentialId::without_tenant("east"),
        role: EndpointRole::Primary,
        ca_file: None,
        proxy: None,
        resolve_timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(5),
        http_version: HttpVersion::Http1,
        max_requests: None,
        rate: None,
        pool: PoolSettings { max_idle_per_worker: 8, idle_timeout: MINUTE, max_age: None },
        canary: None,
        health: HealthSettings {
            failures: 5,
            failure_ratio: FailureRatio::new(0.5).unwrap(),
            window: MINUTE,
            pause: MINUTE,
            probe_interval: MINUTE,
        },
    }
}

/// Builds an endpoint without a credential.
pub(super) fn endpoint(settings: &EndpointSettings) -> Arc<Endpoint> {
    let (tls_clients, proxies) = (&mut TlsClients::default(), &mut Proxies::default());
    let settings = Arc::new(settings.clone());
    Arc::new(Endpoint::build(&settings, Arc::new(NoBearer), Label::other(), tls_clients, proxies).unwrap())
}

/// Returns an empty pool of connections to an endpoint.
pub(super) fn pool<B: UploadBody>(settings: &EndpointSettings) -> Pool<B> {
    let metrics = Rc::new(WorkerMetrics::new(&Metrics::new().unwrap(), []));
    Pool::new(endpoint(settings), WorkerPools::start(&metrics, &WriteBatch::start(), &Arc::default()))
}

/// Starts an HTTP/2 endpoint that responds with the URI of the request. Returns its settings.
async fn start_http2() -> EndpointSettings {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut response))) = connection.accept().await {
                    let mut body = response.send_response(Response::new(()), false).unwrap();
                    body.send_data(request.uri().to_string().into(), true).unwrap();
                }
            });
        }
    });
    EndpointSettings { http_version: HttpVersion::Http2, ..settings(port) }
}

#[test]
fn http2_requests_name_the_endpoint_and_the_target() {
    run(async {
        let settings = start_http2().await;
        let target = "/api/hubs/h%2F/:send?a=b";
        let expected = format!("{}{target}", settings.origin);

        let request = Request::builder().uri(target).body(Full::default()).unwrap();
        let response = endpoint(&settings).send_unpooled(request, MINUTE).await.unwrap();
        assert_eq!(response.body(), &expected);

        let pool = pool::<Full<bytes::Bytes>>(&settings);
        let host = HeaderValue::from_static("east");
        let lines = |line: &mut HeaderVisitor<'_>| line(&http::header::HOST, &host);
        let head = RequestHead { method: &Method::POST, target, lines: &lines, unwanted: |_: &HeaderName| false };
        let response = pool.lease(Instant::now()).await.unwrap().send(&head, Full::default()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), expected);
    });
}
