//! Assigns new connections to workers, and limits how many are open.
//!
//! The kernel spreads connections over the workers' sockets by a hash of their addresses. With few long-lived connections,
//! one core may be idle while another serves all of them. So a worker that has more connections than another hands a new one
//! over to the worker with the fewest. The cost is per connection, not per request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::listeners::ServedListener;
use super::socket::{StdStream, Stream};

/// The load balancer of the workers: the number of connections of each, a channel to each, and the limit of open connections.
#[derive(Clone)]
pub(super) struct Balancer {
    loads: Arc<[AtomicUsize]>,
    /// The number of connections of all workers, as a metric.
    open: IntGauge,
    senders: Arc<[mpsc::UnboundedSender<HandedOver>]>,
    permits: Arc<Semaphore>,
}

/// A new connection that is handed over to another worker.
pub(super) struct HandedOver {
    stream: StdStream,
    listener: Arc<ServedListener>,
    guard: ConnectionGuard,
}

/// A new connection that this worker serves.
pub(super) struct Accepted {
    pub(super) stream: Stream,
    /// The listener that accepted it.
    pub(super) listener: Arc<ServedListener>,
    pub(super) guard: ConnectionGuard,
}

/// A guard that counts a connection for its worker, and towards the limit of open connections, until it is dropped.
pub(super) struct ConnectionGuard {
    loads: Arc<[AtomicUsize]>,
    open: IntGauge,
    worker: usize,
    _permit: OwnedSemaphorePermit,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if let Some(load) = self.loads.get(self.worker) {
            load.fetch_sub(1, Ordering::Relaxed);
        }
        self.open.dec();
    }
}

impl Balancer {
    pub(super) fn new(
        workers: usize,
        max_connections: usize,
        open: IntGauge,
    ) -> (Self, Vec<mpsc::UnboundedReceiver<HandedOver>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let loads = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        let permits = Arc::new(Semaphore::new(max_connections));
        (Self { loads, open, senders: senders.into(), permits }, receivers)
    }

    /// Waits until one more connection may be open. Permits are granted in order, so no listener starves another.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn acquire_permit(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }

    /// Returns a permit if one is free and no accept loop waits for it.
    pub(super) fn try_acquire_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Assigns a connection that worker `accepted_by` accepted. Returns it if that worker serves it, else hands it over.
    pub(super) fn assign(
        &self,
        accepted_by: usize,
        stream: Stream,
        listener: &Arc<ServedListener>,
        permit: OwnedSemaphorePermit,
    ) -> io::Result<Option<Accepted>> {
        let listener = Arc::clone(listener);
        let guard = self.choose_worker(accepted_by, permit);
        let Some(sender) = self.senders.get(guard.worker).filter(|_| guard.worker != accepted_by) else {
            return Ok(Some(Accepted { stream, listener, guard }));
        };
        match sender.send(HandedOver { stream: stream.into_std()?, listener, guard }) {
            Ok(()) => Ok(None),
            // The other worker no longer receives, because the server is stopping. This worker serves the connection.
            Err(mpsc::error::SendError(returned)) => returned.into_accepted().map(Some),
        }
    }

    /// Chooses the accepting worker, unless another has fewer connections, and counts the connection for the chosen one.
    fn choose_worker(&self, accepted_by: usize, permit: OwnedSemaphorePermit) -> ConnectionGuard {
        let load = |worker: usize| self.loads.get(worker).map_or(usize::MAX, |load| load.load(Ordering::Relaxed));
        let least_loaded = (0..self.loads.len()).min_by_key(|worker| load(*worker)).unwrap_or(accepted_by);
        let worker = if load(accepted_by) > load(least_loaded) { least_loaded } else { accepted_by };
        if let Some(load) = self.loads.get(worker) {
            load.fetch_add(1, Ordering::Relaxed);
        }
        self.open.inc();
        ConnectionGuard { loads: Arc::clone(&self.loads), open: self.open.clone(), worker, _permit: permit }
    }
}

impl HandedOver {
    /// Registers the connection with this thread's runtime.
    pub(super) fn into_accepted(self) -> io::Result<Accepted> {
        Ok(Accepted { stream: Stream::from_std(self.stream)?, listener: self.listener, guard: self.guard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn spreads_few_connections_evenly_whichever_worker_accepts_them() {
        let open = IntGauge::new("open", "open").unwrap();
        let (balancer, _receivers) = Balancer::new(2, 16, open.clone());
        let mut guards = Vec::new();
        for _ in 0..8 {
            guards.push(balancer.choose_worker(0, balancer.acquire_permit().await.unwrap()));
        }
        assert_eq!(guards.iter().filter(|guard| guard.worker == 0).count(), 4);
        assert_eq!(open.get(), 8);
        drop(guards);
        assert_eq!(open.get(), 0);
        assert!(balancer.loads.iter().all(|load| load.load(Ordering::Relaxed) == 0));
    }

    #[tokio::test]
    async fn limit_of_open_connections_applies_to_all_workers_together() {
        let (balancer, _receivers) = Balancer::new(2, 1, IntGauge::new("open", "open").unwrap());
        let first = balancer.choose_worker(0, balancer.acquire_permit().await.unwrap());
        assert!(balancer.try_acquire_permit().is_none());
        drop(first);
        assert!(balancer.try_acquire_permit().is_some());
    }
}
