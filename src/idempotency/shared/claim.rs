//! The claim of one request in the shared store.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{StoreError, StoreFailure};
use super::scripts;
use super::settings::WhenStoreIsOut;
use super::store::{Shared, SharedStore};
use crate::idempotency::fingerprint::{Fingerprint, hex};
use crate::idempotency::key::CallKey;
use crate::idempotency::leg::{LegState, Legs};
use crate::idempotency::outcome::Outcome;
use crate::metrics::StoreOperation;

/// How long a claim lasts that was not sent. A replica that dies blocks a repeat only so long. Chosen: longer than a token
/// request or a connection usually takes; a request that takes longer keeps its claim unless another asks for it.
const CLAIM_LEASE: Duration = Duration::from_secs(10);
/// How much longer than its deadline a request keeps the claim of a leg that it has sent: it records the outcome then.
const SENT_LEASE: Duration = Duration::from_secs(5);
/// The pauses between looks at a key that another replica holds.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// How long a caller waits for its outcome to be recorded.
const RECORD_TIME: Duration = Duration::from_secs(3);
/// How long it is tried after that.
const RECORD_ANYWAY: Duration = Duration::from_secs(60);
/// The pause between these attempts.
const RECORD_PAUSE: Duration = Duration::from_millis(200);
/// How often it is tried to give a claim back whose answer was lost, within 6 s: its lease ends soon after that.
const GIVE_BACK_TRIES: u32 = 5;
/// Separates the name of an endpoint from its origin.
const SEPARATOR: char = '\n';

/// A request and the key that it claims.
#[derive(Clone)]
pub(in crate::idempotency) struct KeyOwner {
    key: Arc<str>,
    /// Random: no other request has it.
    request: Arc<str>,
    fingerprint: Arc<str>,
    expires_after: Duration,
}

/// The claim of one request in the shared store. Dropping it gives the claim back.
pub(in crate::idempotency) struct SharedClaim {
    store: Arc<Shared>,
    owner: KeyOwner,
    deadline: Instant,
    /// The number of the last step for each leg that was to be sent.
    steps: RefCell<HashMap<String, u64>>,
    /// The legs that are given back with the claim.
    unsent: RefCell<HashSet<String>>,
}

/// The answer to a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::idempotency) enum Step {
    /// It was carried out.
    Done,
    /// The request does not hold the claim.
    Lost,
}

/// The answer to a claim.
enum Answer {
    Claimed(Legs),
    OtherCall,
    Busy(Duration),
}

/// The result of a claim.
pub(in crate::idempotency) enum Claimed {
    /// The request holds it. Other requests have left these legs.
    Held(Box<SharedClaim>, Legs),
    /// The key belongs to another call.
    OtherCall,
    /// Another request has held it for too long.
    InProgress,
}

impl KeyOwner {
    /// Returns a new request for a key. `key` is not stored as it is: it may be confidential.
    pub(in crate::idempotency) fn new(
        key: &CallKey,
        fingerprint: Fingerprint,
        expires_after: Duration,
    ) -> Result<Self, StoreError> {
        let mut request = [0; 16];
        aws_lc_rs::rand::fill(&mut request)
            .map_err(|_unspecified| StoreError::new(StoreFailure::Broken, "this host has no random numbers"))?;
        let CallKey { listener, caller, key, .. } = key;
        let scoped = format!("{listener}\n{caller}\n{key}");
        let key = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, scoped.as_bytes());
        Ok(Self {
            key: format!("signalr-gateway:{}", hex(key.as_ref())).into(),
            request: hex(&request).into(),
            fingerprint: hex(fingerprint.as_bytes()).into(),
            expires_after,
        })
    }

    fn record_arguments(&self, gives_back: bool) -> Vec<Vec<u8>> {
        let Self { request, fingerprint, expires_after, .. } = self;
        let gives_back: &[u8] = if gives_back { b"1" } else { b"0" };
        vec![request.as_bytes().to_vec(), fingerprint.as_bytes().to_vec(), millis(*expires_after), gives_back.to_vec()]
    }
}

impl SharedClaim {
    /// Claims a key. Waits until the deadline while another replica holds it.
    pub(in crate::idempotency) async fn claim(
        store: &SharedStore,
        owner: KeyOwner,
        deadline: Instant,
    ) -> Result<Claimed, StoreError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let answer = match ask(store.shared(), &owner).await {
                Ok(answer) => answer,
                Err(err) => {
                    // The store may have carried it out, or may do so now.
                    let give_back = give_back(Arc::clone(store.shared()), owner.clone());
                    store.shared().control.spawn(give_back);
                    return Err(err);
                }
            };
            match answer {
                Answer::OtherCall => return Ok(Claimed::OtherCall),
                Answer::Claimed(legs) => {
                    let (store, steps) = (Arc::clone(store.shared()), RefCell::default());
                    let claim = Self { store, owner, deadline, steps, unsent: RefCell::default() };
                    return Ok(Claimed::Held(Box::new(claim), legs));
                }
                Answer::Busy(left) => {
                    let until = Instant::now() + pause.min(left.max(FIRST_PAUSE));
                    if until >= deadline {
                        return Ok(Claimed::InProgress);
                    }
                    tokio::time::sleep_until(until).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    /// Returns what happens while the store is out.
    pub(in crate::idempotency) fn when_out(&self) -> WhenStoreIsOut {
        self.store.settings.when_out
    }

    /// Marks a leg as sent. It is given back with the claim unless [`SharedClaim::keep`] is called: the store may mark it after the
    /// caller has stopped waiting.
    pub(in crate::idempotency) async fn send(&self, endpoint: &str, origin: &str) -> Result<Step, StoreError> {
        let name = leg_name(endpoint, origin);
        let step = self.next_step(&name);
        self.unsent.borrow_mut().insert(name.clone());
        let lease = self.deadline.saturating_duration_since(Instant::now()) + SENT_LEASE;
        let arguments = vec![self.owner.request.as_bytes().to_vec(), text(step), millis(lease), name.into_bytes()];
        let answer = self.store.script(StoreOperation::Send, scripts::SEND, &self.owner.key, arguments).await?;
        step_of(&answer)
    }

    /// Gives a leg back, together with the claim: its endpoint did not process what it received.
    pub(in crate::idempotency) fn unsend(&self, endpoint: &str, origin: &str) {
        let name = leg_name(endpoint, origin);
        if self.steps.borrow().contains_key(&name) {
            self.unsent.borrow_mut().insert(name);
        }
    }

    /// Keeps a leg marked as sent: it is sent now.
    pub(in crate::idempotency) fn keep(&self, endpoint: &str, origin: &str) {
        self.unsent.borrow_mut().remove(&leg_name(endpoint, origin));
    }

    /// Records the outcome of a leg. It is tried further when the caller does not wait any longer.
    pub(in crate::idempotency) async fn record(
        &self,
        endpoint: &str,
        origin: &str,
        outcome: &Outcome,
    ) -> Result<Step, StoreError> {
        let name = leg_name(endpoint, origin);
        let step = self.next_step(&name);
        let mut arguments = self.owner.record_arguments(false);
        arguments.extend([name.into_bytes(), text(step), outcome.to_json().into_bytes()]);
        let recording = self.store.control.spawn(record(Arc::clone(&self.store), self.owner.key.clone(), arguments));
        match tokio::time::timeout(RECORD_TIME, recording).await {
            Ok(Ok(result)) => result,
            Ok(Err(_stopping)) => Err(StoreError::new(StoreFailure::Broken, "the gateway is stopping")),
            Err(_late) => Err(StoreError::new(StoreFailure::Timeout, "the outcome is not recorded yet")),
        }
    }

    fn next_step(&self, name: &str) -> u64 {
        let mut steps = self.steps.borrow_mut();
        let step = steps.entry(name.to_owned()).or_default();
        *step += 1;
        *step
    }
}

impl Drop for SharedClaim {
    fn drop(&mut self) {
        let mut arguments = self.owner.record_arguments(true);
        for name in self.unsent.take() {
            let step = self.next_step(&name);
            arguments.extend([name.into_bytes(), text(step), Vec::new()]);
        }
        self.store.control.spawn(record(Arc::clone(&self.store), self.owner.key.clone(), arguments));
    }
}

async fn ask(store: &Shared, owner: &KeyOwner) -> Result<Answer, StoreError> {
    let KeyOwner { key, request, fingerprint, expires_after } = owner;
    let texts = [fingerprint, request].map(|part| part.as_bytes().to_vec());
    let arguments = texts.into_iter().chain([millis(CLAIM_LEASE), millis(*expires_after)]).collect();
    let answer = store.script(StoreOperation::Claim, scripts::CLAIM, key, arguments).await?;
    let unreadable = || StoreError::new(StoreFailure::Broken, "the key has unknown content");
    let (first, rest) = answer.split_first().ok_or_else(unreadable)?;
    match first.as_slice() {
        b"other" => Ok(Answer::OtherCall),
        b"busy" => {
            let left = rest.first().and_then(|left| std::str::from_utf8(left).ok()?.parse().ok());
            Ok(Answer::Busy(Duration::from_millis(left.ok_or_else(unreadable)?)))
        }
        b"claimed" => Ok(Answer::Claimed(legs(rest).ok_or_else(unreadable)?)),
        _ => Err(unreadable()),
    }
}

/// Reads the legs of a hash: names and values in turn.
fn legs(hash: &[Vec<u8>]) -> Option<Legs> {
    let mut legs = Legs::default();
    for pair in hash.chunks_exact(2) {
        let [name, value] = pair else { return None };
        let Some(name) = std::str::from_utf8(name).ok()?.strip_prefix('l') else { continue };
        let (endpoint, origin) = name.split_once(SEPARATOR)?;
        let state = match std::str::from_utf8(value).ok()?.split_at_checked(1)? {
            ("s", _) => LegState::Sent,
            ("d", outcome) => LegState::Done(Outcome::from_json(outcome)?.into()),
            _ => return None,
        };
        legs.set(endpoint, origin, state);
    }
    Some(legs)
}

/// Runs [`scripts::RECORD`] until it succeeds, for a limited time.
async fn record(store: Arc<Shared>, key: Arc<str>, arguments: Vec<Vec<u8>>) -> Result<Step, StoreError> {
    let end = Instant::now() + RECORD_ANYWAY;
    loop {
        match store.script(StoreOperation::Record, scripts::RECORD, &key, arguments.clone()).await {
            Ok(answer) => return step_of(&answer),
            Err(err) if Instant::now() > end => return Err(err),
            Err(_) => tokio::time::sleep(RECORD_PAUSE).await,
        }
    }
}

/// Gives a claim back whose answer was lost: repeats would otherwise wait for its lease. Few tries, since each call makes them while
/// the store is out; the lease ends the claim if all fail.
async fn give_back(store: Arc<Shared>, owner: KeyOwner) {
    let mut pause = RECORD_PAUSE;
    for _ in 0..GIVE_BACK_TRIES {
        tokio::time::sleep(pause).await;
        let arguments = owner.record_arguments(true);
        if store.script(StoreOperation::Record, scripts::RECORD, &owner.key, arguments).await.is_ok() {
            return;
        }
        pause *= 2;
    }
}

fn step_of(answer: &[Vec<u8>]) -> Result<Step, StoreError> {
    match answer.first().map(Vec::as_slice) {
        Some(b"ok") => Ok(Step::Done),
        Some(b"lost") => Ok(Step::Lost),
        _ => Err(StoreError::new(StoreFailure::Broken, "an unknown answer")),
    }
}

fn leg_name(endpoint: &str, origin: &str) -> String {
    format!("{endpoint}{SEPARATOR}{origin}")
}

fn text(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn millis(time: Duration) -> Vec<u8> {
    time.as_millis().max(1).to_string().into_bytes()
}

impl fmt::Debug for SharedClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedClaim").field("key", &self.owner.key).finish_non_exhaustive()
    }
}
