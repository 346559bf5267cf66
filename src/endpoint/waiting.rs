//! Requests that wait for a connection, in order, and the number of connections that are being opened for them.
//! Single-threaded.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::error::ConnectError;

/// Requests that wait for a connection of type `C`.
pub(super) struct Waiting<C> {
    queue: RefCell<VecDeque<Waiter<C>>>,
    /// How many connections are being opened.
    opening: Cell<usize>,
    /// The most connections that are being opened at once.
    limit: usize,
}

/// A request that waits.
struct Waiter<C> {
    connection: oneshot::Sender<Result<C, ConnectError>>,
    /// Whether it accepts a connection that was used before.
    takes_used: bool,
}

impl<C> Waiting<C> {
    /// Makes an empty queue for which up to `limit` connections are opened at once.
    pub(super) fn new(limit: usize) -> Self {
        Self { queue: RefCell::default(), opening: Cell::new(0), limit }
    }

    /// Returns whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.borrow().is_empty()
    }

    /// Adds a request at the end of the queue. Returns what it receives.
    pub(super) fn enqueue(&self, takes_used: bool) -> oneshot::Receiver<Result<C, ConnectError>> {
        let (connection, received) = oneshot::channel();
        let mut queue = self.queue.borrow_mut();
        // Cancelled requests need no connection.
        while queue.front().is_some_and(|first| first.connection.is_closed()) {
            queue.pop_front();
        }
        queue.push_back(Waiter { connection, takes_used });
        received
    }

    /// Counts another connection to open and returns true, if more requests wait than connections are being opened and the
    /// limit is not reached.
    pub(super) fn opens_another(&self) -> bool {
        let opening = self.opening.get();
        if opening >= self.limit || opening >= self.queue.borrow().len() {
            return false;
        }
        self.opening.set(opening + 1);
        true
    }

    /// Records that a connection is no longer being opened.
    pub(super) fn opened(&self) {
        self.opening.set(self.opening.get().saturating_sub(1));
    }

    /// Hands a connection to the first request that accepts it. Returns the connection if no request does.
    pub(super) fn hand_over(&self, connection: C, is_used: bool) -> Option<C> {
        let mut offered = Ok(connection);
        loop {
            let waiter = {
                let mut queue = self.queue.borrow_mut();
                let first = queue.iter().position(|waiter| waiter.takes_used || !is_used);
                first.and_then(|first| queue.remove(first))
            };
            let Some(waiter) = waiter else { return offered.ok() };
            match waiter.connection.send(offered) {
                Ok(()) => return None,
                // That request was given up.
                Err(back) => offered = back,
            }
        }
    }

    /// Reports to a request that a connection could not be opened, unless the connections that are still being opened
    /// suffice for all.
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

    /// Gives all requests the same outcome.
    pub(super) fn resolve_all(&self, outcome: impl Fn() -> Result<C, ConnectError>) {
        for waiter in self.queue.take() {
            let _given_up = waiter.connection.send(outcome());
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
    fn connections_are_opened_for_requests_that_wait_up_to_the_limit() {
        let waiting = Waiting::<u8>::new(2);
        assert!(!waiting.opens_another(), "nobody waits");
        let _received: Vec<_> = (0..3).map(|_| waiting.enqueue(true)).collect();
        assert_eq!([(); 3].map(|()| waiting.opens_another()), [true, true, false]);
        waiting.opened();
        assert!(waiting.opens_another());
    }

    #[test]
    fn connection_goes_to_the_first_that_takes_it_and_was_not_given_up() {
        let waiting = Waiting::new(8);
        let (gone, mut fresh, mut any) = (waiting.enqueue(true), waiting.enqueue(false), waiting.enqueue(true));
        drop(gone);
        assert_eq!(waiting.hand_over(1, true), None);
        assert_eq!(any.try_recv().unwrap().unwrap(), 1);
        assert_eq!(waiting.hand_over(2, true), Some(2), "it was used");
        assert_eq!(waiting.hand_over(3, false), None);
        assert_eq!(fresh.try_recv().unwrap().unwrap(), 3);
        assert_eq!(waiting.hand_over(4, false), Some(4), "nobody waits");
    }

    #[test]
    fn failure_is_reported_only_to_requests_for_which_no_connection_is_being_opened() {
        let waiting = Waiting::<u8>::new(8);
        let (mut first, mut second) = (waiting.enqueue(true), waiting.enqueue(true));
        assert!(waiting.opens_another() && waiting.opens_another());
        waiting.opened();
        waiting.fail(failure());
        assert!(first.try_recv().unwrap().is_err() && second.try_recv().is_err(), "one is still being opened");
        assert_eq!(waiting.hand_over(1, true), None);
        assert_eq!(second.try_recv().unwrap().unwrap(), 1);
        waiting.opened();
        waiting.fail(failure());
        assert!(waiting.is_empty());
    }
}
