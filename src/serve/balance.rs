//! Assigns new connections to workers, and limits how many are open.
//!
//! The kernel spreads connections over the workers' sockets by a hash of their addresses. With few long-lived ones
//! one core may be idle while another has all of them. So a worker with more connections than another hands a new one
//! over to the worker with the fewest. This costs something per connection and nothing per request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::listeners::Serving;
use super::socket::{StdStream, Stream};

/// The number of connections of each worker, and a channel to each worker.
#[derive(Clone)]
pub(super) struct Balance {
    loads: Arc<[AtomicUsize]>,
    inboxes: Arc<[mpsc::UnboundedSender<HandedOver>]>,
    open: Arc<Semaphore>,
}

/// A new connection that is handed over to another worker.
pub(super) struct HandedOver {
    stream: StdStream,
    listener: Arc<Serving>,
    load: Load,
}

/// A new connection that this worker serves.
pub(super) struct Accepted {
    pub(super) stream: Stream,
    /// The listener that accepted it.
    pub(super) listener: Arc<Serving>,
    pub(super) load: Load,
}

/// Counts a connection for its worker, and against the limit of open connections, until it is dropped.
pub(super) struct Load {
    loads: Arc<[AtomicUsize]>,
    worker: usize,
    _open: OwnedSemaphorePermit,
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(load) = self.loads.get(self.worker) {
            load.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Balance {
    pub(super) fn new(workers: usize, max_connections: usize) -> (Self, Vec<mpsc::UnboundedReceiver<HandedOver>>) {
        let (inboxes, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| mpsc::unbounded_channel()).unzip();
        let loads = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        (Self { loads, inboxes: inboxes.into(), open: Arc::new(Semaphore::new(max_connections)) }, receivers)
    }

    /// Waits until one more connection may be open. Permits are granted in order, so no listener starves another.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.open).acquire_owned().await.ok()
    }

    /// Returns a permit if one is free and no accept loop waits for it.
    pub(super) fn permit_now(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.open).try_acquire_owned().ok()
    }

    /// Assigns a connection that worker `own` accepted. Returns it if this worker serves it, or hands it over.
    pub(super) fn place(
        &self,
        own: usize,
        stream: Stream,
        listener: &Arc<Serving>,
        open: OwnedSemaphorePermit,
    ) -> io::Result<Option<Accepted>> {
        let listener = Arc::clone(listener);
        let load = self.assign(own, open);
        let Some(inbox) = self.inboxes.get(load.worker).filter(|_| load.worker != own) else {
            return Ok(Some(Accepted { stream, listener, load }));
        };
        match inbox.send(HandedOver { stream: stream.into_std()?, listener, load }) {
            Ok(()) => Ok(None),
            // The other worker has closed its inbox, so the server is stopping: the connection stays here.
            Err(mpsc::error::SendError(back)) => back.accept().map(Some),
        }
    }

    /// Chooses the accepting worker, unless it has more connections than another.
    fn assign(&self, own: usize, open: OwnedSemaphorePermit) -> Load {
        let load = |worker: usize| self.loads.get(worker).map_or(usize::MAX, |load| load.load(Ordering::Relaxed));
        let least = (0..self.loads.len()).min_by_key(|worker| load(*worker)).unwrap_or(own);
        let worker = if load(own) > load(least) { least } else { own };
        if let Some(load) = self.loads.get(worker) {
            load.fetch_add(1, Ordering::Relaxed);
        }
        Load { loads: Arc::clone(&self.loads), worker, _open: open }
    }
}

impl HandedOver {
    /// Takes the connection into this thread's runtime.
    pub(super) fn accept(self) -> io::Result<Accepted> {
        Ok(Accepted { stream: Stream::from_std(self.stream)?, listener: self.listener, load: self.load })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn few_connections_are_spread_evenly_whichever_worker_accepts_them() {
        let (balance, _inboxes) = Balance::new(2, 16);
        let mut loads = Vec::new();
        for _ in 0..8 {
            loads.push(balance.assign(0, balance.permit().await.unwrap()));
        }
        assert_eq!(loads.iter().filter(|load| load.worker == 0).count(), 4);
        drop(loads);
        assert!(balance.loads.iter().all(|load| load.load(Ordering::Relaxed) == 0));
    }

    #[tokio::test]
    async fn limit_of_open_connections_applies_to_all_workers_together() {
        let (balance, _inboxes) = Balance::new(2, 1);
        let first = balance.assign(0, balance.permit().await.unwrap());
        assert!(balance.permit_now().is_none());
        drop(first);
        assert!(balance.permit_now().is_some());
    }
}
