//! The service of one endpoint: the REST API, and negotiation and transports for clients.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;

use super::client::registry::Clients;
use super::client::requests::is_client_path;
use super::client::{cors, requests};
use super::crypto::keys::RsaKey;
use super::directory::model::DirectoryHandle;
use super::server::exchange::{ReceivedRequest, Reply, Service};
use super::signalr::access::{self, CalledResource};
use super::signalr::endpoint::Endpoint;
use super::signalr::operation::{self, Call, Operation};
use super::signalr::parameters;
use super::signalr::problem::{PathForm, Problem};
use super::signalr::rest;

/// The largest body of a request, in bytes. Source: the service's documented limits (1 MB).
const MAX_BODY: usize = 1024 * 1024;

/// The largest header of a request, in bytes. Source: the service's documented limits (16 KB).
const MAX_HEADER: usize = 16 * 1024;

/// The longest request target, in bytes. Source: the service's troubleshooting guide (12 K).
const MAX_TARGET: usize = 12 * 1024;

/// The service of one endpoint.
pub(super) struct EndpointService {
    pub(super) endpoint: Endpoint,
    pub(super) clients: Arc<Clients>,
    pub(super) directory: DirectoryHandle,
    pub(super) entra: &'static RsaKey,
}

impl Service for EndpointService {
    const MAX_BODY: usize = MAX_BODY;

    fn write_timeout(&self) -> Duration {
        self.clients.timeouts().write
    }

    fn common_headers(&self, request: &ReceivedRequest) -> HeaderMap {
        if is_client_path(&request.path) { cors::response_headers(request) } else { HeaderMap::new() }
    }

    async fn handle(&self, request: ReceivedRequest) -> Reply {
        if is_client_path(&request.path) {
            if !self.endpoint.has_host(&request.host) {
                return Problem::UnknownHost(request.host).reply(PathForm::V1);
            }
            return self.handle_client(request).await;
        }
        let call = operation::parse(&request.method, &request.path);
        let is_v1 = call.as_ref().is_ok_and(|call| call.v1) || request.path.starts_with("/api/v1/");
        let form = if is_v1 { PathForm::V1 } else { PathForm::Current };
        let call = call.map_err(Problem::UnknownOperation);
        let reply = self.try_handle(&request, call, form).await.unwrap_or_else(|problem| problem.reply(form));
        if request.method == Method::HEAD {
            // A response to HEAD has no body. The journal records the verdict.
            return Reply { body: Bytes::new(), ..reply };
        }
        reply
    }
}

impl EndpointService {
    /// Handles a request of a client, which arrived directly or through the control listener.
    pub(super) async fn handle_client(&self, request: ReceivedRequest) -> Reply {
        if let Err(problem) = check_size(&request) {
            return problem.reply(PathForm::V1);
        }
        let resource = self.directory.read(|directory| {
            directory.resource(self.endpoint.name()).map(|resource| (resource.public_network, resource.local_auth))
        });
        let Some((true, local_auth)) = resource else {
            return Problem::PublicAccessDisabled.reply(PathForm::V1);
        };
        requests::handle(&self.clients, request, local_auth).await
    }

    /// Handles a REST call. Checks in the service's order: network rules, operation, token, role, parameters.
    async fn try_handle(
        &self,
        request: &ReceivedRequest,
        call: Result<Call, Problem>,
        form: PathForm,
    ) -> Result<Reply, Problem> {
        check_size(request)?;
        if !self.endpoint.has_host(&request.host) {
            return Err(Problem::UnknownHost(request.host.clone()));
        }
        let directory = self.directory.snapshot();
        let name = self.endpoint.name();
        if directory.resource(name).is_some_and(|resource| !resource.public_network) {
            return Err(Problem::PublicAccessDisabled);
        }
        let call = call?;
        let Some(action) = call.operation.data_action() else {
            return Ok(Reply::empty(StatusCode::OK).verdict("healthy"));
        };
        let origin = self.endpoint.url();
        let called = CalledResource { directory: &directory, name, origin: &origin, entra_key: self.entra };
        let now = SystemTime::now();
        let caller = access::authenticate(request, &called, self.endpoint.keys(), now)?;
        if !access::is_allowed(&caller, action, &called) {
            return Err(Problem::Forbidden(action));
        }
        if !call.v1 {
            parameters::check_version(request)?;
        }
        match call.operation {
            Operation::Health => Ok(Reply::empty(StatusCode::OK)),
            Operation::AccessKey => {
                let (id, key) = self.endpoint.keys().issue_temporary(now);
                Ok(Reply::json(StatusCode::OK, &json!({ "AccessKey": key, "KeyId": id })).verdict("key issued"))
            }
            Operation::Hub(hub, operation) => {
                let call = rest::HubCall { endpoint: &self.endpoint, request, form, hub: &hub };
                call.execute_operation(operation, now).await
            }
        }
    }
}

fn check_size(request: &ReceivedRequest) -> Result<(), Problem> {
    if request.path.len() + request.query.len() > MAX_TARGET {
        return Err(Problem::TargetTooLong);
    }
    // Each field adds `: ` and CRLF to its name and value.
    let header: usize = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header > MAX_HEADER { Err(Problem::HeaderTooLarge) } else { Ok(()) }
}
