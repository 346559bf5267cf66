//! Wakes the task of an HTTP/1.1 connection, and spares it one useless turn per request.
//!
//! hyper hands a caller's body over piece by piece, and rings for the next one whenever a piece is taken: after the last one
//! for nothing. Since it is the connection's own task that takes it, in the middle of its turn, that would cost a whole turn
//! more. So the bell is muffled while a piece is taken, and rung afterwards unless that was the last.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::ThreadId;

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;

/// Wakes the task of a connection.
#[derive(Debug)]
pub(super) struct Bell {
    task: Waker,
    /// The worker's. Others that ring are always heard.
    thread: ThreadId,
    is_muffled: AtomicBool,
    was_rung: AtomicBool,
}

impl Bell {
    /// Makes the bell of a task of this thread.
    pub(super) fn new(task: &Waker) -> Arc<Self> {
        Arc::new(Self {
            task: task.clone(),
            thread: std::thread::current().id(),
            is_muffled: AtomicBool::new(false),
            was_rung: AtomicBool::new(false),
        })
    }

    /// Whether it wakes the same task as `waker` does.
    pub(super) fn is_of(&self, waker: &Waker) -> bool {
        self.task.will_wake(waker)
    }

    /// Wakes the task, muffled or not.
    pub(super) fn ring(&self) {
        self.task.wake_by_ref();
    }

    /// Takes the next piece of a body of the connection, without the redundant wake-up after the last one.
    pub(super) fn poll_piece(
        &self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        self.is_muffled.store(true, Ordering::Relaxed);
        let frame = Pin::new(&mut *body).poll_frame(cx);
        self.is_muffled.store(false, Ordering::Relaxed);
        if self.was_rung.load(Ordering::Relaxed) {
            self.was_rung.store(false, Ordering::Relaxed);
            if !body.is_end_stream() {
                self.ring();
            }
        }
        frame
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The flags are the worker's own: other threads stop at the second condition, whatever they see of them.
        if self.is_muffled.load(Ordering::Relaxed) && std::thread::current().id() == self.thread {
            self.was_rung.store(true, Ordering::Relaxed);
        } else {
            self.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn only_its_own_thread_is_not_heard_while_it_is_muffled() {
        let count = Arc::new(Count::default());
        let heard = || count.0.load(Ordering::Relaxed);
        let bell = Bell::new(&Waker::from(Arc::clone(&count)));
        let waker = Waker::from(Arc::clone(&bell));
        waker.wake_by_ref();
        assert_eq!(heard(), 1);

        bell.is_muffled.store(true, Ordering::Relaxed);
        waker.wake_by_ref();
        assert_eq!(heard(), 1, "muffled");
        assert!(bell.was_rung.load(Ordering::Relaxed));
        let elsewhere = waker.clone();
        std::thread::spawn(move || elsewhere.wake()).join().unwrap();
        assert_eq!(heard(), 2, "another worker or the control runtime has something to say");
        bell.ring();
        assert_eq!(heard(), 3, "who rings on purpose is heard");

        bell.is_muffled.store(false, Ordering::Relaxed);
        waker.wake();
        assert_eq!(heard(), 4);
    }
}
