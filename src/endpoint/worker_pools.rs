//! What the pools of one worker share: the memory of heads, the batch of writes, and two tasks, which finish abandoned exchanges
//! and close idle connections.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;
use tokio::sync::mpsc;

use super::abandoned;
use super::http1::UploadBody;
use super::idle::IdleConnections;
use super::idle_limit::IdleLimit;
use super::recycler::Recycler;
use super::store::Abandoned;
use crate::metrics::WorkerMetrics;
use crate::write_batch::WriteBatch;

/// What the pools of one worker share.
pub struct WorkerPools<B> {
    /// Counts connections and attempts to connect.
    pub(super) metrics: Rc<WorkerMetrics>,
    pub(super) recycler: Rc<Recycler>,
    /// Batches writes to endpoints.
    pub(super) write_batch: WriteBatch,
    pub(super) abandoned: mpsc::UnboundedSender<Abandoned<B>>,
    pub(super) idle: Rc<IdleConnections>,
}

impl<B: UploadBody> WorkerPools<B> {
    /// Starts the tasks that the pools share. Must be called on the worker's thread, inside its runtime.
    pub fn start(metrics: &Rc<WorkerMetrics>, write_batch: &WriteBatch, idle_limit: &Arc<IdleLimit>) -> Rc<Self> {
        let (abandoned, received) = mpsc::unbounded_channel();
        // The task ends with the last pool or with the worker.
        tokio::task::spawn_local(abandoned::finish_all(received));
        let idle = IdleConnections::start(idle_limit);
        Rc::new(Self {
            idle,
            metrics: Rc::clone(metrics),
            recycler: Rc::default(),
            write_batch: write_batch.clone(),
            abandoned,
        })
    }

    /// Keeps the memory of headers for the next response.
    pub fn recycle(&self, headers: HeaderMap) {
        self.recycler.recycle_map(headers);
    }
}

impl<B> fmt::Debug for WorkerPools<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPools").finish_non_exhaustive()
    }
}
