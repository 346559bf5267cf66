//! What the token requests to one authority share, over all credentials and reloads: a queue, and pauses when Entra throttles.
//!
//! An authority is an origin: Entra in one cloud, the identity endpoint of this host, or the Azure CLI.

mod queue;
mod throttling;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use queue::Requester;

use super::error::CredentialError;
use crate::metrics::TokenMetrics;
use queue::{MAX_REQUESTS, RequestQueue};
use throttling::Throttling;

/// The authorities of a gateway.
#[derive(Debug)]
pub(crate) struct Authorities {
    metrics: TokenMetrics,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    max_requests: usize,
    by_origin: HashMap<String, Arc<Authority>>,
}

/// One authority.
#[derive(Debug)]
pub(crate) struct Authority {
    queue: Arc<RequestQueue>,
    throttling: Throttling,
}

impl Authorities {
    pub(crate) fn new(metrics: TokenMetrics) -> Self {
        Self { metrics, state: Mutex::new(State { max_requests: MAX_REQUESTS, by_origin: HashMap::new() }) }
    }

    /// Returns the authority at an origin. It stays known: configurations name few.
    pub(crate) fn get(&self, origin: &str) -> Arc<Authority> {
        let mut state = self.lock();
        if let Some(authority) = state.by_origin.get(origin) {
            return Arc::clone(authority);
        }
        let authority = Arc::new(Authority {
            queue: Arc::new(RequestQueue::new(state.max_requests, self.metrics.clone())),
            throttling: Throttling::new(self.metrics.clone()),
        });
        state.by_origin.insert(origin.to_owned(), Arc::clone(&authority));
        authority
    }

    /// Sets how many token requests run at once for each authority.
    pub(crate) fn set_max_requests(&self, max: usize) {
        let mut state = self.lock();
        state.max_requests = max;
        state.by_origin.values().for_each(|authority| authority.queue.set_max(max));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Authority {
    /// Waits for the turn of a request, then runs it.
    ///
    /// # Cancel safety
    /// Safe: cancelling removes the request from the queue, or drops the running `request` and lets the next one run.
    pub(crate) async fn run<T>(&self, requester: &Requester, request: impl Future<Output = T>) -> T {
        self.queue.run(requester, request).await
    }

    /// Fails if Entra throttles the tenant or the app, so that no request should be sent.
    pub(crate) fn check_pause(&self, tenant: &str, client_id: &str) -> Result<(), CredentialError> {
        self.throttling.check(tenant, client_id)
    }

    /// Pauses the requests of the tenant or the app if the error says that Entra throttles it. Returns the error of the request.
    pub(crate) fn request_failed(&self, tenant: &str, client_id: &str, error: CredentialError) -> CredentialError {
        self.throttling.failed(tenant, client_id, error)
    }
}
