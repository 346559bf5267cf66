//! One emulated SignalR endpoint: what every request must pass before its operation is carried out. What the
//! operations do is `rest.rs`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;

use super::access::{self, AccessKeys, Target};
use super::hub::Hubs;
use super::operation::{self, Operation};
use super::parameters;
use super::problem::{Form, Problem};
use super::rest;
use crate::sandbox::client::{self, Clients};
use crate::sandbox::crypto::keys::RsaKey;
use crate::sandbox::directory::model::{DirectoryHandle, SecretText};
use crate::sandbox::server::exchange::{Received, Reply, Service};
use crate::sandbox::server::listen::Server;

/// The largest body of a request, in bytes. Source: the service's documented limits (1 MB).
const MAX_BODY: usize = 1024 * 1024;

/// The largest header of a request, in bytes. Source: as above (16 KB).
const MAX_HEADER: usize = 16 * 1024;

/// The longest request target, in bytes. Source: the service's troubleshooting guide (12 K).
const MAX_TARGET: usize = 12 * 1024;

/// One emulated SignalR endpoint, as tests see it. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The server that it answers at: address, faults, journal.
    pub server: Server,
    /// Who is connected to it.
    pub hubs: Arc<Hubs>,
    keys: Arc<AccessKeys>,
    public_host: Option<Arc<str>>,
}

/// What answers the requests of one endpoint.
pub(crate) struct EndpointService {
    pub(crate) endpoint: Endpoint,
    pub(crate) clients: Arc<Clients>,
    pub(crate) directory: DirectoryHandle,
    pub(crate) entra: &'static RsaKey,
}

impl Endpoint {
    /// An endpoint with this primary access key, or a new one. `public_host` is a name it is reached by, at whatever port.
    pub(crate) fn new(server: Server, access_key: Option<SecretText>, public_host: Option<&str>) -> Self {
        let keys = Arc::new(AccessKeys::with_primary(access_key));
        Self { server, hubs: Arc::default(), keys, public_host: public_host.map(Arc::from) }
    }

    /// The endpoint's name.
    pub fn name(&self) -> &str {
        self.server.name()
    }

    /// The endpoint's origin, without a slash at the end.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The primary access key.
    pub fn access_key(&self) -> &SecretText {
        self.keys.primary()
    }

    pub(crate) fn keys(&self) -> &AccessKeys {
        &self.keys
    }
}

impl Service for EndpointService {
    const MAX_BODY: usize = MAX_BODY;

    fn write_time(&self) -> Duration {
        self.clients.times().write
    }

    fn common_headers(&self, request: &Received) -> HeaderMap {
        if client::is_client_path(&request.path) { client::cross_origin(request) } else { HeaderMap::new() }
    }

    async fn answer(&self, request: Received) -> Reply {
        if client::is_client_path(&request.path) {
            if let Err(problem) = self.check_host(&request) {
                return problem.reply(Form::V1);
            }
            return self.answer_client(request).await;
        }
        let form = if request.path.starts_with("/api/v1/") { Form::V1 } else { Form::Current };
        let reply = self.try_answer(&request, form).await.unwrap_or_else(|problem| problem.reply(form));
        if request.method == Method::HEAD {
            // What the body would have said is in the journal.
            return Reply { body: Bytes::new(), ..reply };
        }
        reply
    }
}

impl EndpointService {
    /// Answers a client, at whatever address of the sandbox it came in.
    pub(crate) async fn answer_client(&self, request: Received) -> Reply {
        if let Err(problem) = check_size(&request) {
            return problem.reply(Form::V1);
        }
        let resource = self.directory.read(|directory| {
            directory.resource(self.endpoint.name()).map(|resource| (resource.public_network, resource.local_auth))
        });
        let Some((true, local_auth)) = resource else {
            return Problem::NetworkClosed.reply(Form::V1);
        };
        self.clients.answer(request, local_auth).await
    }

    /// In the service's order: what is in front of it, the operation, the token, the role, the parameters.
    async fn try_answer(&self, request: &Received, form: Form) -> Result<Reply, Problem> {
        check_size(request)?;
        self.check_host(request)?;
        let directory = self.directory.snapshot();
        let name = self.endpoint.name();
        if directory.resource(name).is_some_and(|resource| !resource.public_network) {
            return Err(Problem::NetworkClosed);
        }
        let call = operation::parse(&request.method, &request.path).map_err(Problem::NoCall)?;
        let Some(action) = call.operation.data_action() else {
            return Ok(Reply::empty(StatusCode::OK).verdict("healthy"));
        };
        let origin = self.endpoint.url();
        let target = Target { directory: &directory, resource: name, origin: &origin, entra: self.entra };
        let now = SystemTime::now();
        let caller = access::authenticate(request, &target, self.endpoint.keys(), now)?;
        if !access::is_allowed(&caller, action, &target) {
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
                call.carry_out(operation, now).await
            }
        }
    }

    /// The service is found by its host name: a request that names another is at the wrong address.
    fn check_host(&self, request: &Received) -> Result<(), Problem> {
        if self.endpoint.public_host.as_deref().is_some_and(|public| is_host(&request.host, public)) {
            return Ok(());
        }
        let address = self.endpoint.server.address();
        // With and without the port, which some clients leave out.
        let ip = address.ip().to_string();
        let own = [address.to_string(), format!("localhost:{}", address.port()), ip, String::from("localhost")];
        if own.iter().any(|own| own.eq_ignore_ascii_case(&request.host)) {
            return Ok(());
        }
        Err(Problem::WrongHost(request.host.clone()))
    }
}

/// Whether a request came to a public host, or to this host by a port that is passed on to it.
fn is_host(host: &str, public: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name).trim_start_matches('[').trim_end_matches(']');
    [public, "localhost", "127.0.0.1", "::1"].iter().any(|own| own.eq_ignore_ascii_case(name))
}

fn check_size(request: &Received) -> Result<(), Problem> {
    if request.path.len() + request.query.len() > MAX_TARGET {
        return Err(Problem::TargetTooLong);
    }
    // A field takes its name, its value, a colon, a space and a line end.
    let header: usize = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if header > MAX_HEADER { Err(Problem::HeaderTooLarge) } else { Ok(()) }
}
