//! The HTTP service of the control listener.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::header::ORIGIN;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::faults;
use super::reply::error_reply;
use crate::sandbox::client::requests::is_client_path;
use crate::sandbox::client::{cors, negotiate};
use crate::sandbox::directory::model::DirectoryHandle;
use crate::sandbox::endpoint_service::EndpointService;
use crate::sandbox::page::{self, relay};
use crate::sandbox::server::exchange::{self, ReceivedRequest, Reply, Service, Upgrade};
use crate::sandbox::server::listen::Server;
use crate::sandbox::settings::url_of;
use crate::sandbox::signalr::membership::ConnectionInfo;

/// The maximum number of connections of a hub in a response.
const MAX_LISTED_CONNECTIONS: usize = 100;

/// The maximum number of endpoints in a response. The page is a client of each.
const MAX_LISTED_ENDPOINTS: usize = 20;

/// The service of the control listener.
pub(crate) struct Control {
    pub(crate) servers: Arc<[Server]>,
    pub(crate) endpoints: Vec<Arc<EndpointService>>,
    pub(crate) directory: DirectoryHandle,
    pub(crate) gateway_addresses: Arc<OnceLock<GatewayAddresses>>,
    pub(crate) ready: Arc<OnceLock<Value>>,
    /// The host name under which other hosts can reach the control listener.
    pub(crate) public_host: Option<String>,
}

/// The addresses of the gateway that uses the sandbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatewayAddresses {
    pub(crate) gateway: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
}

/// The body of `POST /sandbox/tokens`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensBody {
    lifetime_secs: Option<u64>,
    refresh_in_secs: Option<u64>,
}

impl Service for Control {
    /// The maximum size of a message that a hub client posts over long polling or server-sent events.
    const MAX_BODY: usize = 1024 * 1024;

    fn write_timeout(&self) -> Duration {
        // All endpoints have the same timeouts.
        self.endpoints.first().map_or(exchange::DEFAULT_WRITE_TIMEOUT, |service| service.write_timeout())
    }

    fn common_headers(&self, request: &ReceivedRequest) -> HeaderMap {
        match endpoint_path(&request.path) {
            Some((_, path)) if is_client_path(path) => cors::response_headers(request),
            Some(_) | None => HeaderMap::new(),
        }
    }

    async fn handle(&self, request: ReceivedRequest) -> Reply {
        if !is_local(&request.host, self.public_host.as_deref()) {
            return error_reply(
                StatusCode::FORBIDDEN,
                "this host name cannot control the sandbox; use localhost or an IP address",
            );
        }
        match endpoint_path(&request.path) {
            Some((name, _)) => match self.endpoints.iter().find(|service| service.endpoint.name() == name) {
                Some(service) => handle_endpoint(service, request).await,
                None => error_reply(StatusCode::NOT_FOUND, "the sandbox has no endpoint with this name"),
            },
            None => self.handle_control(&request).await,
        }
    }
}

/// Splits a path into the name of an endpoint and the path at that endpoint.
fn endpoint_path(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix("/endpoints/")?;
    Some(path.split_at(path.find('/')?))
}

/// Responds to a request for an endpoint.
///
/// Pages of any origin can use the client URLs, as at the endpoint itself. `negotiate` issues tokens, so pages of other
/// origins cannot use it.
async fn handle_endpoint(service: &EndpointService, mut request: ReceivedRequest) -> Reply {
    let name = service.endpoint.name();
    let mut refuse_requested = service.endpoint.server.faults().subscribe_refuse_requested();
    if *refuse_requested.borrow() {
        // Status 503 instead of a closed port, because all endpoints share this listener.
        return error_reply(StatusCode::SERVICE_UNAVAILABLE, "this endpoint refuses connections, by a fault");
    }
    let inner = request.path.split_off("/endpoints/".len() + name.len());
    request.path = inner;
    if is_client_path(&request.path) {
        let mut reply = service.handle_client(request).await;
        // A server that refuses connections also resets the open ones.
        reply.upgrade = reply.upgrade.map(|upgrade| -> Upgrade {
            Box::pin(async move {
                tokio::select! {
                    () = upgrade => {}
                    _ = refuse_requested.wait_for(|requested| *requested) => {}
                }
            })
        });
        return reply;
    }
    if request.path != "/negotiate" {
        return error_reply(
            StatusCode::NOT_FOUND,
            "unknown path; the paths of an endpoint on this listener are /client/ and /negotiate",
        );
    }
    if is_cross_origin(&request) {
        return error_reply(StatusCode::FORBIDDEN, CROSS_ORIGIN);
    }
    let base = format!("http://{}/endpoints/{name}", request.host);
    negotiate::redirect_to_service(&service.endpoint, &request, &base)
}

impl Control {
    async fn handle_control(&self, request: &ReceivedRequest) -> Reply {
        if let (&Method::GET, Some(file)) = (&request.method, page::file(&request.path)) {
            return file;
        }
        if is_cross_origin(request) {
            return error_reply(StatusCode::FORBIDDEN, CROSS_ORIGIN);
        }
        let json = request.header("content-type").is_some_and(|value| value.starts_with("application/json"));
        if matches!(request.method, Method::POST | Method::PUT) && !json {
            return error_reply(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json");
        }
        match (&request.method, request.path.as_str()) {
            (&Method::GET, "/sandbox") => self.overview(),
            (&Method::GET, "/sandbox/ready") => match self.ready.get() {
                Some(ready) => Reply::json(StatusCode::OK, ready),
                None => error_reply(StatusCode::SERVICE_UNAVAILABLE, "the sandbox is starting"),
            },
            (&Method::GET, "/sandbox/connections") => self.connections(request),
            (&Method::POST, "/sandbox/relay") => match self.gateway_addresses.get() {
                Some(addresses) => relay::relay(request, addresses.gateway).await,
                None => error_reply(StatusCode::NOT_FOUND, "this sandbox has no gateway in front of it"),
            },
            (&Method::POST, "/sandbox/tokens") => self.set_tokens(request),
            (_, "/sandbox/faults") if request.query_value("server").is_none() => {
                faults::of_all(request, &self.servers).await
            }
            (_, path @ ("/sandbox/journal" | "/sandbox/faults")) => match self.server(request) {
                Some(server) if path == "/sandbox/journal" => journal(request, server),
                Some(server) => faults::of_server(request, server).await,
                None => self.no_server(),
            },
            _ => error_reply(
                StatusCode::NOT_FOUND,
                "unknown path; the paths are /, /sandbox, and /ready, /connections, /relay, /journal, /faults and /tokens below /sandbox",
            ),
        }
    }

    fn overview(&self) -> Reply {
        let servers: serde_json::Map<String, Value> =
            self.servers.iter().map(|server| (server.name().to_owned(), server.url().into())).collect();
        let hubs: serde_json::Map<String, Value> = self
            .listed()
            .iter()
            .map(|service| &service.endpoint)
            .map(|endpoint| (endpoint.name().to_owned(), json!(endpoint.hubs.connection_counts())))
            .collect();
        let addresses = self.gateway_addresses.get();
        let url = |address| url_of(address, self.public_host.as_deref());
        let body = json!({
            "servers": servers,
            "hubs": hubs,
            "endpoints": self.listed().iter().map(|service| self.endpoint_info(service)).collect::<Vec<_>>(),
            "more_endpoints": self.endpoints.len() - self.listed().len(),
            "gateway": addresses.map(|addresses| url(addresses.gateway)),
            "admin": addresses.and_then(|addresses| addresses.admin).map(url),
        });
        Reply::json(StatusCode::OK, &body)
    }

    /// Returns the endpoints that responses show.
    fn listed(&self) -> &[Arc<EndpointService>] {
        self.endpoints.get(..MAX_LISTED_ENDPOINTS).unwrap_or(&self.endpoints)
    }

    fn endpoint_info(&self, service: &EndpointService) -> Value {
        let endpoint = &service.endpoint;
        let tenant = self.directory.read(|directory| {
            let tenant = directory.tenant(&directory.resource(endpoint.name())?.tenant)?;
            Some(tenant.domain.clone())
        });
        json!({ "name": endpoint.name(), "url": endpoint.url(), "tenant": tenant })
    }

    fn connections(&self, request: &ReceivedRequest) -> Reply {
        let hub = request.query_value("hub").unwrap_or_default();
        let now = Instant::now();
        let entry = |ConnectionInfo { id, user, groups, expires }: ConnectionInfo| json!({ "id": id, "user": user, "groups": groups, "expires": expires });
        let endpoints = self.listed().iter().map(|service| {
            let (count, first) = service.endpoint.hubs.get_or_empty(&hub).first(MAX_LISTED_CONNECTIONS, now);
            let connections: Vec<Value> = first.into_iter().map(entry).collect();
            (service.endpoint.name().to_owned(), json!({ "count": count, "connections": connections }))
        });
        Reply::json(StatusCode::OK, &endpoints.collect::<serde_json::Map<_, _>>().into())
    }

    fn set_tokens(&self, request: &ReceivedRequest) -> Reply {
        let body: TokensBody = match serde_json::from_slice(&request.body) {
            Ok(body) => body,
            Err(err) => return error_reply(StatusCode::BAD_REQUEST, &format!("the body is invalid: {err}")),
        };
        self.directory.edit(|directory| {
            if let Some(seconds) = body.lifetime_secs {
                directory.tokens.lifetime = Duration::from_secs(seconds);
            }
            directory.tokens.refresh_in = body.refresh_in_secs.map(Duration::from_secs);
        });
        Reply::empty(StatusCode::NO_CONTENT)
    }

    fn server(&self, request: &ReceivedRequest) -> Option<&Server> {
        let name = request.query_value("server")?;
        self.servers.iter().find(|server| server.name() == name)
    }

    fn no_server(&self) -> Reply {
        let names: Vec<&str> = self.servers.iter().map(Server::name).take(MAX_LISTED_ENDPOINTS).collect();
        let rest = if names.len() < self.servers.len() { " and other endpoints" } else { "" };
        let detail = format!("the query parameter 'server' must name one of: {}{rest}", names.join(", "));
        error_reply(StatusCode::NOT_FOUND, &detail)
    }
}

fn journal(request: &ReceivedRequest, server: &Server) -> Reply {
    match request.method {
        Method::GET => {
            let after = request.query_value("after").and_then(|after| after.parse().ok()).unwrap_or(0);
            Reply::json(StatusCode::OK, &server.journal().json(after))
        }
        Method::DELETE => {
            server.journal().clear();
            Reply::empty(StatusCode::NO_CONTENT)
        }
        _ => Reply::empty(StatusCode::METHOD_NOT_ALLOWED),
    }
}

const CROSS_ORIGIN: &str = "a page of another origin cannot control the sandbox";

/// Returns whether a request comes from a page of another origin. Only browsers send the header fields that this checks.
///
/// Source: the Fetch standard (browsers send `Origin` with every POST) and Fetch Metadata (`Sec-Fetch-Site`).
fn is_cross_origin(request: &ReceivedRequest) -> bool {
    let own = format!("http://{}", request.host);
    let other_origin = request.header(ORIGIN).is_some_and(|origin| !origin.eq_ignore_ascii_case(&own));
    let other_site = request.header("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    other_origin || other_site
}

/// Returns whether a host is an IP address, `localhost` or the public host.
///
/// Other names are rejected, because a page could resolve its own host name to this host (DNS rebinding).
fn is_local(host: &str, public: Option<&str>) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let matches = |allowed: &str| allowed.eq_ignore_ascii_case(name);
    matches("localhost") || public.is_some_and(matches) || name.parse::<IpAddr>().is_ok()
}
