//! Compares the responses to callers with what arrived.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use signalr_gateway::sandbox::{Entry, TENANT_B, TENANT_C};

use super::calls::{Call, Clients, HUBS, Kind, Outcome};
use super::misbehaving_callers::BrokenCall;
use crate::support::Harness;

/// The results of all epochs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    calls: usize,
    messages: usize,
    accepted: usize,
    broken_calls: usize,
    /// Counts by outcome.
    outcomes: BTreeMap<String, usize>,
}

/// Errors of the gateway that faults of endpoints and Entra may cause.
const GATEWAY_ERRORS: [(u16, &str); 5] = [
    (502, "upstream_broken"),
    (502, "partial_delivery"),
    (503, "endpoint_unavailable"),
    (503, "token_unavailable"),
    (504, "deadline"),
];
/// Statuses of endpoints with faults.
const ENDPOINT_STATUSES: [u16; 6] = [401, 408, 429, 500, 502, 503];

/// What endpoints and clients received in one epoch.
struct Received {
    /// How often each message arrived, by endpoint and id.
    deliveries: HashMap<(&'static str, String), usize>,
    /// The requests that arrived, by endpoint and id.
    entries: HashMap<(&'static str, String), Vec<Entry>>,
}

impl Tally {
    pub(super) async fn check(
        &mut self,
        clients: &Clients,
        harness: &Harness,
        outcomes: &[Outcome],
        broken_calls: &[BrokenCall],
    ) {
        let received = Received::collect(clients, harness).await;
        received.assert_tokens_belong_to_their_tenants();
        for broken in broken_calls {
            self.broken_calls += 1;
            received.check_broken_call(broken).unwrap_or_else(|fault| panic!("{fault}: {broken:#?}"));
        }
        for outcome in outcomes {
            self.calls += 1;
            let result = received.check(outcome).unwrap_or_else(|fault| panic!("{fault}: {outcome:#?}"));
            self.messages += usize::from(outcome.call.kind.is_message());
            self.accepted += usize::from(outcome.call.kind.is_message() && result == "2xx");
            *self.outcomes.entry(result).or_default() += 1;
        }
        harness.clear_arrivals();
    }

    /// Whether every relevant outcome has occurred.
    pub(super) fn has_every_outcome(&self) -> bool {
        self.accepted > 100
            && ["502 partial_delivery", "404 not found"].iter().all(|kind| self.outcomes.contains_key(*kind))
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, messages, accepted, broken_calls, .. } = self;
        write!(
            f,
            "{calls} calls, {messages} messages, {accepted} of them accepted; {broken_calls} broken calls; outcomes:"
        )?;
        self.outcomes.iter().try_for_each(|(outcome, count)| write!(f, " {outcome}: {count};"))
    }
}

impl Received {
    async fn collect(clients: &Clients, harness: &Harness) -> Self {
        let mut deliveries: HashMap<_, usize> = HashMap::new();
        for ((_, endpoint), ids) in clients.take_received().await {
            for id in ids {
                *deliveries.entry((endpoint, id)).or_default() += 1;
            }
        }
        let mut entries: HashMap<_, Vec<Entry>> = HashMap::new();
        for endpoint in ["east", "west", "north"] {
            for entry in harness.arrivals(endpoint) {
                let id = entry.header("x-request-id").unwrap_or_default().to_owned();
                entries.entry((endpoint, id)).or_default().push(entry);
            }
        }
        Self { deliveries, entries }
    }

    /// Asserts that every endpoint received only tokens of its own tenant. `north` has an access key.
    fn assert_tokens_belong_to_their_tenants(&self) {
        for ((endpoint, id), entries) in &self.entries {
            let tenant = match *endpoint {
                "east" => Some(TENANT_B),
                "west" => Some(TENANT_C),
                _ => None,
            };
            for entry in entries {
                let authorization =
                    entry.authorization.as_ref().unwrap_or_else(|| panic!("{endpoint}: no token: {entry:#?}"));
                let found = authorization.claims.get("tid").and_then(serde_json::Value::as_str);
                assert_eq!(found, tenant, "{endpoint} received another tenant's token with {id}");
            }
        }
    }

    /// Checks that an incomplete call arrived complete at no endpoint and was not accepted, and that a complete one arrived
    /// at most once.
    fn check_broken_call(&self, BrokenCall { call, misbehaviour, status }: &BrokenCall) -> Result<(), String> {
        let endpoints = HUBS.iter().find(|(hub, _)| *hub == call.hub).unwrap().1;
        if misbehaviour.is_complete() {
            return self.check_at_most_once(call, endpoints);
        }
        for endpoint in ["east", "west", "north"] {
            let entries = self.entries.get(&(endpoint, call.id.clone()));
            if self.deliveries(endpoint, call) > 0 || entries.into_iter().flatten().any(|entry| entry.complete) {
                return Err(format!("{endpoint} received it as a complete call: {entries:#?}"));
            }
        }
        match status {
            Some(200..300) => Err("it was accepted".to_owned()),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the outcome of a call, or an error if it contradicts what arrived.
    fn check(&self, Outcome { call, response }: &Outcome) -> Result<String, String> {
        let endpoints = HUBS.iter().find(|(hub, _)| *hub == call.hub).unwrap().1;
        self.check_at_most_once(call, endpoints)?;
        let Some(response) = response else { return unless_north(call, "no complete response".to_owned()) };
        let status = response.status.as_u16();
        if response.header("signalr-gateway-error").is_some() {
            let (status, kind) = response.gateway_error();
            if !GATEWAY_ERRORS.contains(&(status, kind.as_str())) {
                return Err(format!("{status} {kind} is not expected"));
            }
            if status == 503 {
                self.check_not_sent(call, endpoints)?;
            }
            return unless_north(call, format!("{status} {kind}"));
        }
        if response.status.is_success() {
            self.check_delivered(call, endpoints)?;
            return Ok("2xx".to_owned());
        }
        if status == 404 && call.kind.is_existence_check() && response.header("x-ms-error-code").is_some() {
            let is_true = call.kind == Kind::GroupExists || !matches!(call.hub, "both" | "north");
            return if is_true { Ok("404 not found".to_owned()) } else { Err("it exists".to_owned()) };
        }
        if !ENDPOINT_STATUSES.contains(&status) {
            return Err(format!("{status} is not expected"));
        }
        unless_north(call, format!("endpoint's {status}"))
    }

    fn deliveries(&self, endpoint: &'static str, call: &Call) -> usize {
        self.deliveries.get(&(endpoint, call.id.clone())).copied().unwrap_or(0)
    }

    /// Returns the requests of a call at an endpoint, without those rejected with 401.
    fn requests(&self, endpoint: &'static str, call: &Call) -> Vec<&Entry> {
        let entries = self.entries.get(&(endpoint, call.id.clone()));
        entries.into_iter().flatten().filter(|entry| entry.status != Some(401)).collect()
    }

    /// Checks that a message arrived at most once at each endpoint of its route, and at no other.
    fn check_at_most_once(&self, call: &Call, endpoints: &[&'static str]) -> Result<(), String> {
        for endpoint in ["east", "west", "north"] {
            let (requests, deliveries) = (self.requests(endpoint, call), self.deliveries(endpoint, call));
            let most = usize::from(endpoints.contains(&endpoint));
            if deliveries > most || (call.kind.is_message() && requests.len() > most) {
                return Err(format!("{endpoint} received it {deliveries} times, in {requests:#?}"));
            }
        }
        Ok(())
    }

    fn check_not_sent(&self, call: &Call, endpoints: &[&'static str]) -> Result<(), String> {
        let sent = |endpoint: &&&'static str| call.kind.is_message() && !self.requests(endpoint, call).is_empty();
        match endpoints.iter().find(sent) {
            Some(endpoint) => Err(format!("503, and {endpoint} received it")),
            None => Ok(()),
        }
    }

    fn check_delivered(&self, call: &Call, endpoints: &[&'static str]) -> Result<(), String> {
        let delivered: Vec<usize> = endpoints.iter().map(|endpoint| self.deliveries(endpoint, call)).collect();
        let is_done = match (call.kind, call.hub) {
            (Kind::ToConnection(at), _) => self.deliveries(at, call) == 1,
            (Kind::Broadcast | Kind::ToUser | Kind::ToGroup, "both" | "north") => {
                delivered.iter().all(|count| *count == 1)
            }
            (Kind::Broadcast | Kind::ToUser | Kind::ToGroup, "any") => delivered.contains(&1),
            (Kind::Broadcast | Kind::ToUser | Kind::ToGroup, _) => delivered.iter().sum::<usize>() == 1,
            (Kind::Join | Kind::Leave, "both" | "north") => {
                endpoints.iter().all(|endpoint| !self.requests(endpoint, call).is_empty())
            }
            (Kind::Join | Kind::Leave, _) => endpoints.iter().any(|endpoint| !self.requests(endpoint, call).is_empty()),
            (Kind::GroupExists, _) => false,
            (Kind::UserExists | Kind::ConnectionExists, _) => true,
        };
        let is_complete = |entry: &&Entry| entry.complete && entry.body_sha256 == call.digest;
        let requests = endpoints.iter().flat_map(|endpoint| self.requests(endpoint, call));
        let mut accepted = requests.filter(|entry| entry.status.is_some_and(|status| status < 300));
        if !accepted.all(|entry| is_complete(&entry)) {
            return Err("accepted, and what arrived is not what was sent".to_owned());
        }
        if is_done { Ok(()) } else { Err(format!("accepted, and arrived {delivered:?} times at {endpoints:?}")) }
    }
}

/// The endpoint without faults must serve every call.
fn unless_north(call: &Call, outcome: String) -> Result<String, String> {
    if call.hub == "north" { Err(format!("{outcome} at the endpoint without faults")) } else { Ok(outcome) }
}
