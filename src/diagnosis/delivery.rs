//! The last check of an endpoint: a message that is sent by REST arrives at a client.

use std::time::Duration;

use http::StatusCode;

use super::acquisition::Acquisition;
use super::failure::Failure;
use super::finding::Check;
use crate::canary::{Authorization, Client, DeliveryError, Stage, is_hub};
use crate::credential::{RequestUrl, SetupStep};
use crate::endpoint::Endpoint;
use crate::redact::in_one_line;

/// The hub of a delivery, unless another is named. It need not exist.
pub const DELIVERY_HUB: &str = "signalr_gateway_doctor";

/// How long a message may take to arrive after the REST API has accepted it. Chosen: it takes milliseconds.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether a message is delivered to a client as well.
#[derive(Clone, Copy, Debug)]
pub enum Deliver<'a> {
    /// No.
    No,
    /// Yes, to a client of this hub. Made by [`Deliver::to`].
    To(&'a str),
}

/// The error for a text that is not the name of a hub.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not the name of a hub: begin with a letter, and use only letters, digits and _")]
pub struct NotAHub(String);

impl<'a> Deliver<'a> {
    /// Delivers to a client of a hub.
    ///
    /// # Errors
    /// [`NotAHub`] if no hub has this name.
    pub fn to(hub: &'a str) -> Result<Self, NotAHub> {
        if is_hub(hub) { Ok(Self::To(hub)) } else { Err(NotAHub(hub.to_owned())) }
    }

    /// Returns the hub, if a message is delivered.
    pub(super) const fn hub(self) -> Option<&'a str> {
        match self {
            Self::No => None,
            Self::To(hub) => Some(hub),
        }
    }
}

/// The result of a delivery.
pub(super) struct Delivered {
    /// The checks of the stages that worked.
    pub(super) passed: Vec<Check>,
    /// The stage that failed.
    pub(super) failure: Option<Failure>,
}

/// Delivers a message to a client of a hub. Calls `report` with what is tried.
pub(super) async fn deliver(
    endpoint: &Endpoint,
    hub: &str,
    acquisition: &Acquisition,
    report: impl Fn(&str),
) -> Delivered {
    let bearer = |url: RequestUrl<'_>| {
        let signed = || acquisition.key.as_ref().and_then(|key| key.sign(url));
        acquisition.bearer.clone().or_else(signed)
    };
    let is_access_key = acquisition.key.is_some();
    let authorization = Authorization { bearer: &bearer, is_access_key };
    let tried = |stage| tried(stage, endpoint.origin(), hub, is_access_key);
    let mut stages = Vec::new();
    let mut on_stage = |stage: Stage| {
        report(&tried(stage));
        stages.push(stage);
    };
    let outcome = async {
        let mut client = Client::connect(endpoint, hub, &authorization, &mut on_stage).await?;
        let took = client.deliver(endpoint, &authorization, ARRIVAL_TIMEOUT, &mut on_stage).await?;
        client.close().await;
        Ok::<_, DeliveryError>(took)
    };
    let outcome = outcome.await;
    let failed = outcome.as_ref().err().map(DeliveryError::stage);
    let passed = stages.into_iter().filter(|stage| Some(*stage) != failed);
    let passed = passed.map(|stage| Check::passed(tried(stage), result(stage, outcome.as_ref().ok())));
    Delivered { passed: passed.collect(), failure: outcome.err().map(|err| failure(&err, tried(err.stage()))) }
}

/// Returns what is tried at a stage.
fn tried(stage: Stage, origin: &str, hub: &str, is_access_key: bool) -> String {
    match stage {
        Stage::ClientToken if is_access_key => format!("sign a client token of the hub {hub}"),
        Stage::ClientToken => format!("POST {origin}/api/hubs/{hub}/:generateToken"),
        Stage::Negotiation => format!("POST {origin}/client/negotiate?hub={hub}"),
        Stage::WebSocket => format!("WebSocket {origin}/client/?hub={hub}"),
        Stage::Send => format!("POST {origin}/api/hubs/{hub}/connections/<id>/:send"),
        Stage::Handshake | Stage::Arrival => stage.title().to_owned(),
    }
}

/// Returns the result of a stage that worked.
fn result(stage: Stage, took: Option<&Duration>) -> String {
    match (stage, took) {
        (Stage::ClientToken, _) => "a token for clients".to_owned(),
        (Stage::Negotiation, _) => "a connection id".to_owned(),
        (Stage::WebSocket, _) => "open".to_owned(),
        (Stage::Handshake, _) => "connected as a client".to_owned(),
        (Stage::Arrival, Some(took)) => {
            format!("arrived {:.1} ms after it was sent", took.as_secs_f64() * 1000.0)
        }
        (Stage::Send | Stage::Arrival, _) => "accepted".to_owned(),
    }
}

fn failure(err: &DeliveryError, tried: String) -> Failure {
    let step = match err.rest_refusal() {
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => SetupStep::Access,
        Some(_) | None => SetupStep::Delivery,
    };
    let mut failure = Failure::new(step, tried, in_one_line(err));
    failure.remedy = Some(err.remedy());
    failure
}
