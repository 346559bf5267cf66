//! What one worker's tasks write in one go round is kept until all of them have had their turn, and goes out together.
//!
//! A worker is woken for many connections at once. Writing to each as soon as its request is read wakes what is at the other
//! end each time; while the worker goes on reading, that has done its work and sleeps again. Written together, many are
//! woken once. On a busy worker whose peers are on the same host that is a tenth of all CPU time. The first few writes of a
//! round are not held up.
//!
//! Lives on one thread; nothing here is locked.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most that is kept of one write. What is larger is not worth a copy and goes out at once.
const LARGEST: usize = 8 * 1024;
/// How many writes of a round go out at once, whatever follows: where there is little to do, nothing is held up. Chosen: at
/// half of what a worker can do, rounds are hardly longer (measured: 24 us less at the median).
const AT_ONCE: u32 = 4;
/// The most that is kept of all. Chosen: what sixty usual requests and answers have.
const MOST: usize = 128 * 1024;

/// What one worker has to write. Cloning shares it.
#[derive(Clone)]
pub struct Outbox(Rc<Inner>);

struct Inner {
    letters: RefCell<Letters>,
    /// The task that sends them.
    sender: RefCell<Option<Waker>>,
    is_told: Cell<bool>,
    /// How many writes of this round still go out at once.
    at_once: Cell<u32>,
}

#[derive(Default)]
struct Letters {
    /// What they say, one after the other.
    bytes: Vec<u8>,
    /// To whom each part of it goes.
    addressees: Vec<(Rc<dyn Addressee>, Range<usize>)>,
}

/// A connection that letters go to.
trait Addressee {
    /// Writes what can be written now, and keeps the rest.
    fn deliver(&self, bytes: &[u8]);
}

impl Outbox {
    /// Makes the outbox of this thread's worker, and starts to send, within its runtime.
    pub fn start() -> Self {
        let inner = Rc::new(Inner {
            letters: RefCell::default(),
            sender: RefCell::default(),
            is_told: Cell::new(false),
            at_once: Cell::new(AT_ONCE),
        });
        let sending = Rc::downgrade(&inner);
        let send = poll_fn(move |cx| {
            let Some(inner) = sending.upgrade() else { return Poll::Ready(()) };
            remember(&inner.sender, cx);
            inner.is_told.set(false);
            inner.at_once.set(AT_ONCE);
            inner.send_all();
            Poll::Pending
        });
        // Ends with what it sends, or with the runtime. It is through when all is sent, however much that is.
        tokio::task::spawn_local(tokio::task::unconstrained(send));
        Self(inner)
    }
}

impl Inner {
    /// Has the sender run once all have had their turn.
    fn tell_sender(&self) {
        if !self.is_told.replace(true)
            && let Some(sender) = &*self.sender.borrow()
        {
            // It comes after all that are to run already.
            sender.wake_by_ref();
        }
    }

    /// Whether a write goes out at once.
    fn goes_at_once(&self) -> bool {
        let left = self.at_once.get();
        self.at_once.set(left.saturating_sub(1));
        left > 0
    }

    /// Keeps what is to be written to a connection. Returns whether there was room.
    fn post(&self, addressee: &Rc<impl Addressee + 'static>, parts: &[io::IoSlice<'_>], length: usize) -> bool {
        let mut letters = self.letters.borrow_mut();
        let start = letters.bytes.len();
        if start + length > MOST {
            return false;
        }
        for part in parts {
            letters.bytes.extend_from_slice(part);
        }
        letters.addressees.push((Rc::clone(addressee) as Rc<dyn Addressee>, start..start + length));
        true
    }

    fn send_all(&self) {
        let mut letters = self.letters.take();
        for (addressee, range) in letters.addressees.drain(..) {
            addressee.deliver(letters.bytes.get(range).unwrap_or_default());
        }
        letters.bytes.clear();
        // Nobody has written meanwhile: delivering runs no one.
        self.letters.replace(letters);
    }
}

/// A connection whose small writes go out with those of others.
///
/// A write that is kept is as good as written, as one that the system has taken: if it fails, the next call says so.
pub struct Batched<S> {
    shared: Rc<Shared<S>>,
    outbox: Outbox,
}

struct Shared<S> {
    stream: RefCell<S>,
    /// How many letters to it are in the outbox.
    posted: Cell<u32>,
    /// What was to be written and the system did not take at once.
    rest: RefCell<Vec<u8>>,
    failure: Cell<Option<io::ErrorKind>>,
    /// Whether there is neither a rest nor a failure.
    is_clear: Cell<bool>,
    /// How many bytes the system has taken.
    written: Cell<u64>,
    /// Whoever has to be told of a rest or a failure.
    owner: RefCell<Option<Waker>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> Batched<S> {
    /// Takes a connection.
    pub fn new(stream: S, outbox: &Outbox) -> Self {
        let shared = Shared {
            stream: RefCell::new(stream),
            posted: Cell::new(0),
            rest: RefCell::default(),
            failure: Cell::new(None),
            is_clear: Cell::new(true),
            written: Cell::new(0),
            owner: RefCell::default(),
        };
        Self { shared: Rc::new(shared), outbox: outbox.clone() }
    }

    /// Returns how many bytes the system has taken so far; `None` while some are on their way.
    pub fn written(&self) -> Option<u64> {
        if self.shared.posted.get() > 0 { None } else { Some(self.shared.written.get()) }
    }

    /// Sends everything that was written before, this connection's own and that of others.
    fn send_posted(&self) {
        if self.shared.posted.get() > 0 {
            self.outbox.0.send_all();
        }
    }
}

impl<S: AsyncWrite + Unpin> Shared<S> {
    /// Writes what the system did not take before.
    #[inline]
    fn poll_rest(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_clear.get() { Poll::Ready(Ok(())) } else { self.poll_whole_rest(cx) }
    }

    #[cold]
    fn poll_whole_rest(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(failure) = self.failure.get() {
            return Poll::Ready(Err(failure.into()));
        }
        let mut rest = self.rest.borrow_mut();
        while !rest.is_empty() {
            let taken = ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_write(cx, &rest))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written.set(self.written.get() + taken as u64);
            rest.drain(..taken);
        }
        self.is_clear.set(true);
        Poll::Ready(Ok(()))
    }

    fn tell_owner(&self) {
        if let Some(owner) = self.owner.take() {
            owner.wake();
        }
    }
}

impl<S: AsyncWrite + Unpin> Addressee for Shared<S> {
    fn deliver(&self, bytes: &[u8]) {
        self.posted.set(self.posted.get() - 1);
        let mut rest = self.rest.borrow_mut();
        let mut left = bytes;
        // Whoever owns it asks again when it is told that something is left.
        let mut nobody = Context::from_waker(Waker::noop());
        while rest.is_empty() && !left.is_empty() && self.failure.get().is_none() {
            match Pin::new(&mut *self.stream.borrow_mut()).poll_write(&mut nobody, left) {
                Poll::Ready(Ok(taken @ 1..)) => {
                    self.written.set(self.written.get() + taken as u64);
                    left = left.get(taken..).unwrap_or_default();
                }
                Poll::Ready(Ok(0)) => self.failure.set(Some(io::ErrorKind::WriteZero)),
                Poll::Ready(Err(err)) => self.failure.set(Some(err.kind())),
                Poll::Pending => break,
            }
        }
        if !left.is_empty() {
            rest.extend_from_slice(left);
            self.is_clear.set(false);
            self.tell_owner();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> AsyncRead for Batched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.shared.stream.borrow_mut()).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> AsyncWrite for Batched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let shared = &self.shared;
        ready!(shared.poll_rest(cx))?;
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.outbox.0.tell_sender();
        let is_small = length <= LARGEST;
        if is_small && !self.outbox.0.goes_at_once() && self.outbox.0.post(shared, parts, length) {
            shared.posted.set(shared.posted.get() + 1);
            remember(&shared.owner, cx);
            return Poll::Ready(Ok(length));
        }
        self.send_posted();
        ready!(shared.poll_rest(cx))?;
        let taken = ready!(Pin::new(&mut *shared.stream.borrow_mut()).poll_write_vectored(cx, parts))?;
        shared.written.set(shared.written.get() + taken as u64);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is in the outbox goes out without further ado.
        self.shared.poll_rest(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send_posted();
        ready!(self.shared.poll_rest(cx))?;
        Pin::new(&mut *self.shared.stream.borrow_mut()).poll_shutdown(cx)
    }
}

/// Notes down whom to wake.
fn remember(whom: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut whom = whom.borrow_mut();
    if !whom.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
        *whom = Some(cx.waker().clone());
    }
}

#[cfg(test)]
mod tests;
