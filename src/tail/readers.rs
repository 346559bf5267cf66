//! The readers of summaries, and what workers offer them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::filter::Filter;
use super::summary::Summary;

/// The most readers at once. Chosen: some operators and a script; each may cost a worker a few microseconds per request.
pub const MAX_READERS: usize = 4;
/// The most lines that wait for one reader, about half a megabyte.
const QUEUE: usize = 1024;

/// The readers of summaries.
#[derive(Debug, Default)]
pub struct Tail {
    readers: ArcSwap<Vec<Arc<Reader>>>,
    /// Whether there is a reader.
    is_read: AtomicBool,
    /// Whether its lines end, since the gateway stops.
    is_ended: AtomicBool,
    /// Held while `readers` changes.
    changing: Mutex<()>,
}

/// One reader.
#[derive(Debug)]
pub(super) struct Reader {
    filter: Filter,
    queue: mpsc::Sender<Bytes>,
    lost: AtomicU64,
}

impl Tail {
    /// Returns whether there is a reader.
    #[inline]
    pub fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// Offers a summary to the readers that want it.
    #[cold]
    pub fn publish(&self, summary: &Summary<'_>) {
        let mut line = None;
        for reader in self.readers.load().iter().filter(|reader| reader.filter.matches(summary)) {
            reader.offer(line.get_or_insert_with(|| summary.encode()));
        }
    }

    /// Ends the lines of all readers once they have got those that wait.
    pub fn end(&self) {
        self.is_ended.store(true, Ordering::Release);
        for reader in self.readers.load().iter() {
            // Wakes the reader. If its queue is full, it is awake.
            let _is_full = reader.queue.try_send(Bytes::new());
        }
    }

    /// Returns whether the lines of all readers end.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Acquire)
    }

    /// Adds a reader; `None` if there are [`MAX_READERS`].
    pub(super) fn add(&self, filter: Filter) -> Option<(Arc<Reader>, mpsc::Receiver<Bytes>)> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut readers = Vec::clone(&self.readers.load());
        if readers.len() >= MAX_READERS {
            return None;
        }
        let (queue, lines) = mpsc::channel(QUEUE);
        let reader = Arc::new(Reader { filter, queue, lost: AtomicU64::new(0) });
        readers.push(Arc::clone(&reader));
        self.readers.store(Arc::new(readers));
        self.is_read.store(true, Ordering::Relaxed);
        Some((reader, lines))
    }

    /// Removes a reader.
    pub(super) fn remove(&self, reader: &Arc<Reader>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut readers = Vec::clone(&self.readers.load());
        readers.retain(|other| !Arc::ptr_eq(other, reader));
        self.is_read.store(!readers.is_empty(), Ordering::Relaxed);
        self.readers.store(Arc::new(readers));
    }
}

impl Reader {
    fn offer(&self, line: &Bytes) {
        if self.queue.try_send(line.clone()).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many lines were lost since the last call.
    pub(super) fn take_lost(&self) -> u64 {
        if self.lost.load(Ordering::Relaxed) == 0 { 0 } else { self.lost.swap(0, Ordering::Relaxed) }
    }
}
