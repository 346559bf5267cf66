//! The numbered calls of callers, and their responses.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;
use http::header::CONTENT_TYPE;
use signalr_gateway::sandbox::{Connection, Delivery};
use tokio::sync::{mpsc, oneshot};

use crate::support::{Caller, Harness, Response, request};

/// The hubs, and the endpoints of each hub's route.
pub(super) const HUBS: [(&str, &[&str]); 5] = [
    ("both", &["east", "west"]),
    ("any", &["east", "west"]),
    ("first", &["east", "west"]),
    ("weighted", &["east", "west"]),
    ("north", &["north"]),
];

/// One client for each hub at each of its endpoints: user `ann` in group `g`. It receives every message except those to
/// single connections.
pub(super) struct Clients(HashMap<(&'static str, &'static str), Client>);

/// A client that reads continuously, because the service disconnects slow readers.
struct Client {
    id: String,
    queries: mpsc::Sender<oneshot::Sender<Vec<String>>>,
}

/// The operation of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Broadcast,
    ToUser,
    ToGroup,
    ToConnection(&'static str),
    UserExists,
    GroupExists,
    ConnectionExists,
    Join,
    Leave,
}

#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The id, in the body and in `x-request-id`.
    pub(super) id: String,
    pub(super) hub: &'static str,
    pub(super) kind: Kind,
    /// The SHA-256 of the body.
    pub(super) digest: String,
}

#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) call: Call,
    /// The response, or `None` if the connection ended first.
    pub(super) response: Option<Response>,
}

/// Returns the SHA-256 of a body, formatted as in the journals.
pub(super) fn digest(body: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    digest.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// The calls of one caller.
pub(super) struct Calls {
    rng: Rng,
    name: String,
    connections: HashMap<(&'static str, &'static str), String>,
}

impl Clients {
    pub(super) async fn new(harness: &Harness) -> Self {
        let mut clients = HashMap::new();
        for (hub, endpoints) in HUBS {
            for endpoint in endpoints {
                let connection = harness.endpoint(endpoint).hubs.connect(hub, Some("ann"));
                clients.insert((hub, *endpoint), Client::new(connection));
                let target = format!("/api/hubs/{hub}/users/ann/groups/g?api-version=2024-12-01");
                harness
                    .caller()
                    .await
                    .send(request("PUT", &target).header("x-to", *endpoint), "")
                    .await
                    .assert_status(200);
            }
        }
        harness.clear_arrivals();
        Self(clients)
    }

    /// Takes the ids of the messages that each client received.
    pub(super) async fn take_received(&self) -> HashMap<(&'static str, &'static str), Vec<String>> {
        let mut received = HashMap::new();
        for (key, client) in &self.0 {
            received.insert(*key, client.take_received().await);
        }
        received
    }
}

impl Client {
    fn new(mut connection: Connection) -> Self {
        let id = connection.id().to_owned();
        let (queries, mut received_queries) = mpsc::channel::<oneshot::Sender<_>>(1);
        tokio::spawn(async move {
            let mut ids = Vec::new();
            loop {
                // Returns the ids once no delivery is queued.
                tokio::select! {
                    biased;
                    delivery = connection.recv() => {
                        let Some(Delivery::Message(message)) = delivery else { panic!("not a sent message: {delivery:?}") };
                        let arguments = message.invocation().unwrap().json_arguments();
                        ids.push(arguments[0].as_str().unwrap().to_owned());
                    }
                    query = received_queries.recv() => {
                        let Some(reply) = query else { return };
                        reply.send(std::mem::take(&mut ids)).unwrap();
                    }
                }
            }
        });
        Self { id, queries }
    }

    async fn take_received(&self) -> Vec<String> {
        let (reply, response) = oneshot::channel();
        self.queries.send(reply).await.unwrap();
        response.await.unwrap()
    }
}

impl Kind {
    pub(super) fn is_message(self) -> bool {
        matches!(self, Self::Broadcast | Self::ToUser | Self::ToGroup | Self::ToConnection(_))
    }

    pub(super) fn is_existence_check(self) -> bool {
        matches!(self, Self::UserExists | Self::GroupExists | Self::ConnectionExists)
    }
}

impl Calls {
    pub(super) fn new(clients: &Clients, rng: Rng, name: String) -> Self {
        let connections = clients.0.iter().map(|(key, client)| (*key, client.id.clone())).collect();
        Self { rng, name, connections }
    }

    /// Sends calls until `is_over`.
    pub(super) async fn run(mut self, gateway: SocketAddr, is_over: Arc<AtomicBool>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let mut caller = Caller::connect(gateway).await;
        while !is_over.load(Ordering::Relaxed) {
            let mut call = self.next(outcomes.len());
            let (head, body) = self.request(&call);
            call.digest = digest(&body);
            let head = head.header("x-request-id", &call.id);
            let response = caller.try_send(head.header(CONTENT_TYPE, "application/json"), body).await.ok();
            if response.is_none() || caller.is_closed() {
                caller = Caller::connect(gateway).await;
            }
            outcomes.push(Outcome { call, response });
        }
        outcomes
    }

    fn next(&mut self, number: usize) -> Call {
        let hub = ["both", "both", "both", "any", "first", "first", "weighted", "north", "north"][self.rng.usize(..9)];
        let kind = match self.rng.u8(..12) {
            0..4 => Kind::Broadcast,
            4 => Kind::ToUser,
            5 => Kind::ToGroup,
            // A route that chooses one endpoint may choose another than that of the connection.
            6 if hub == "both" => Kind::ToConnection(if self.rng.bool() { "east" } else { "west" }),
            6 if hub == "north" => Kind::ToConnection("north"),
            6 | 7 => Kind::UserExists,
            8 => Kind::GroupExists,
            9 => Kind::ConnectionExists,
            10 => Kind::Join,
            _ => Kind::Leave,
        };
        Call { id: format!("{}-{number}", self.name), hub, kind, digest: String::new() }
    }

    fn request(&mut self, call: &Call) -> (http::request::Builder, String) {
        let connection = |endpoint: &str| {
            let found = self.connections.iter().find(|((hub, at), _)| *hub == call.hub && *at == endpoint);
            found.unwrap().1
        };
        let (_, endpoints) = HUBS.iter().find(|(hub, _)| *hub == call.hub).unwrap();
        let (method, path) = match call.kind {
            Kind::Broadcast => ("POST", ":send".to_owned()),
            Kind::ToUser => ("POST", "users/ann/:send".to_owned()),
            Kind::ToGroup => ("POST", "groups/g/:send".to_owned()),
            Kind::ToConnection(endpoint) => ("POST", format!("connections/{}/:send", connection(endpoint))),
            Kind::UserExists => ("HEAD", "users/ann".to_owned()),
            Kind::GroupExists => ("HEAD", "groups/nobody".to_owned()),
            Kind::ConnectionExists => ("HEAD", format!("connections/{}", connection(endpoints[0]))),
            Kind::Join => ("PUT", "users/bob/groups/h".to_owned()),
            Kind::Leave => ("DELETE", "users/bob/groups/h".to_owned()),
        };
        let body = if call.kind.is_message() {
            // Some bodies are larger than the buffers of a socket.
            let padding = if self.rng.u8(..40) == 0 { 300_000 } else { 10 };
            format!("{{\"target\":\"t\",\"arguments\":[\"{}\",\"{}\"]}}", call.id, "x".repeat(padding))
        } else {
            String::new()
        };
        (request(method, &format!("/api/hubs/{}/{path}?api-version=2024-12-01", call.hub)), body)
    }
}
