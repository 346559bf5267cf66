//! A queue of requests that wait for a connection, and the number of connections that are being opened for them. It is
//! single-threaded.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::error::ConnectError;

/// A queue of requests that wait for a connection of type `C`.
pub(super) struct WaitQueue<C> {
    queue: RefCell<VecDeque<Waiter<C>>>,
    /// The number of connections that are being opened.
    opening: Cell<usize>,
    /// The maximum of `opening`.
    limit: usize,
}

/// A waiting request.
struct Waiter<C> {
    connection: oneshot::Sender<Result<C, ConnectError>>,
    /// Whether it accepts a connection that carried a request before.
    accepts_reused: bool,
}

impl<C> WaitQueue<C> {
    /// Creates an empty queue for which up to `limit` connections are opened concurrently.
    pub(super) fn new(limit: usize) -> Self {
        Self { queue: RefCell::default(), opening: Cell::new(0), limit }
    }

    /// Returns whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Adds a request at the end of the queue. Returns the receiver of its connection.
    pub(super) fn enqueue(&self, accepts_reused: bool) -> oneshot::Receiver<Result<C, ConnectError>> {
        let (connection, received) = oneshot::channel();
        let mut queue = self.queue.borrow_mut();
        // Requests at the front may have been cancelled.
        while queue.front().is_some_and(|first| first.connection.is_closed()) {
            queue.pop_front();
        }
        queue.push_back(Waiter { connection, accepts_reused });
        received
    }

    /// Counts one more connection as being opened, unless the limit is reached or one is being opened for each waiting request.
    /// Returns whether it was counted.
    pub(super) fn start_opening(&self) -> bool {
        let opening = self.opening.get();
        if opening >= self.limit || opening >= self.queue.borrow().len() {
            return false;
        }
        self.opening.set(opening + 1);
        true
    }

    /// Counts one connection less as being opened.
    pub(super) fn finish_opening(&self) {
        self.opening.set(self.opening.get().saturating_sub(1));
    }

    /// Hands a connection to the first request that accepts it. Returns the connection if no request does.
    pub(super) fn hand_over(&self, connection: C, is_reused: bool) -> Option<C> {
        let mut offered = Ok(connection);
        loop {
            let waiter = {
                let mut queue = self.queue.borrow_mut();
                let first = queue.iter().position(|waiter| waiter.accepts_reused || !is_reused);
                first.and_then(|first| queue.remove(first))
            };
            let Some(waiter) = waiter else { return offered.ok() };
            match waiter.connection.send(offered) {
                Ok(()) => return None,
                // This request was cancelled.
                Err(back) => offered = back,
            }
        }
    }

    /// Sends the error of a failed connection to the first request, unless a connection is still being opened for each waiting
    /// request.
    pub(super) fn fail(&self, err: ConnectError) {
        let mut failure = Err(err);
        while self.queue.borrow().len() > self.opening.get() {
            let Some(waiter) = self.queue.borrow_mut().pop_front() else { return };
            match waiter.connection.send(failure) {
                Ok(()) => return,
                Err(back) => failure = back,
            }
        }
    }

    /// Sends the same outcome to all requests and empties the queue.
    pub(super) fn resolve_all(&self, outcome: impl Fn() -> Result<C, ConnectError>) {
        for waiter in self.queue.take() {
            let _cancelled = waiter.connection.send(outcome());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn failure() -> ConnectError {
        ConnectError::Timeout(Duration::from_secs(1))
    }

    #[test]
    fn connections_are_opened_for_waiting_requests_up_to_the_limit() {
        let waiting = WaitQueue::<u8>::new(2);
        assert!(!waiting.start_opening(), "no request waits");
        let _received: Vec<_> = (0..3).map(|_| waiting.enqueue(true)).collect();
        assert_eq!([(); 3].map(|()| waiting.start_opening()), [true, true, false]);
        waiting.finish_opening();
        assert!(waiting.start_opening());
    }

    #[test]
    fn connection_is_handed_to_the_first_request_that_accepts_it_and_was_not_cancelled() {
        let waiting = WaitQueue::new(8);
        let (cancelled, mut unused_only, mut any) =
            (waiting.enqueue(true), waiting.enqueue(false), waiting.enqueue(true));
        drop(cancelled);
        assert_eq!(waiting.hand_over(1, true), None);
        assert_eq!(any.try_recv().unwrap().unwrap(), 1);
        assert_eq!(waiting.hand_over(2, true), Some(2), "the remaining request accepts no reused connection");
        assert_eq!(waiting.hand_over(3, false), None);
        assert_eq!(unused_only.try_recv().unwrap().unwrap(), 3);
        assert_eq!(waiting.hand_over(4, false), Some(4), "no request waits");
    }

    #[test]
    fn failure_is_reported_only_to_requests_for_which_no_connection_is_being_opened() {
        let waiting = WaitQueue::<u8>::new(8);
        let (mut first, mut second) = (waiting.enqueue(true), waiting.enqueue(true));
        assert!(waiting.start_opening() && waiting.start_opening());
        waiting.finish_opening();
        waiting.fail(failure());
        assert!(first.try_recv().unwrap().is_err() && second.try_recv().is_err(), "one is still being opened");
        assert_eq!(waiting.hand_over(1, true), None);
        assert_eq!(second.try_recv().unwrap().unwrap(), 1);
        waiting.finish_opening();
        waiting.fail(failure());
        assert!(waiting.is_empty());
    }
}
