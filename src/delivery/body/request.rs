//! A caller's body on its way upstream. Decides nothing about when it is sent again.
//!
//! A body that failed stays failed for every reader: it never looks empty or complete, so no endpoint takes a part of a
//! message for a whole one.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};

use super::memory::{BodyMemory, FREE, HeldMemory};
use super::replay::ReplayBuffer;
use crate::delivery::error::DeliveryError;
use crate::serve::{CallerBody, CallerBodyError};

/// How long it may take to read a body that nobody wants.
const UNWANTED_TIME: Duration = Duration::from_secs(2);

/// The most that is read of a body that nobody wants, so that its sender can read the answer first.
const UNWANTED_BYTES: u64 = 4 * 1024 * 1024;

/// The most that is read of a body at once.
const LARGEST_PIECE: u64 = 80 * 1024;

/// How often it is looked whether there is memory again.
const MEMORY_LOOK: Duration = Duration::from_millis(10);

/// The answer when there is no memory to keep a body that has to be kept. Nothing that an endpoint would act upon was sent.
const NO_MEMORY: DeliveryError = DeliveryError::Overload { retry_after: Duration::from_secs(1) };

/// A caller's body on its way upstream. It counts, holds the limit and keeps what it handed out (at most the limit), so
/// that a request that was refused can be sent again, while all bodies together leave memory for it. Clones share it; only the one that was made last by
/// [`RequestBody::rewound`] is read, since an endpoint that refused early may still be asking for the rest.
#[derive(Clone)]
pub struct RequestBody {
    source: Source,
    attempt: u32,
}

#[derive(Clone)]
enum Source {
    /// There is none.
    Nothing,
    /// It has all been read; `None` once it was handed out.
    Whole(Option<Bytes>),
    /// It comes from the caller.
    Upload(Rc<RefCell<Upload>>),
}

struct Upload {
    /// The attempt that may read.
    attempt: u32,
    incoming: CallerBody,
    /// The length that was declared, if one was.
    declared: Option<u64>,
    /// Whether the caller sends it over HTTP/2.
    is_http2: bool,
    limit: u64,
    received: u64,
    kept: ReplayBuffer,
    memory: HeldMemory,
    keeping: Keeping,
    /// Whether `incoming` has ended.
    ended: bool,
    /// Since when the caller is waited for: the attempt has taken all that came.
    waits_since: Option<Instant>,
    /// How long the attempt has waited for the caller, up to the wait that goes on.
    waited: Duration,
    /// Why no more of it can be read. Never taken back.
    failure: Option<Failure>,
}

/// Whether what is handed out is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeping {
    /// While there is memory for it.
    WhilePossible,
    /// It is of no use otherwise.
    Always,
    /// It will not be sent again.
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    TooLarge,
    Broken,
    /// There was no memory to keep it.
    NotKept,
}

/// Why an upload stopped. What is told to callers is made of [`RequestBody::failure`].
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("the body is larger than the limit")]
    TooLarge,
    #[error("there is no memory to keep the body")]
    NotKept,
    #[error("the caller broke off")]
    Broken(#[source] CallerBodyError),
    #[error("the caller ended the body before its end")]
    Truncated,
    #[error("the body failed before")]
    FailedBefore,
    #[error("the request is being sent again elsewhere, or no longer")]
    Superseded,
}

impl RequestBody {
    /// Takes the body of a request that came over `version`.
    pub fn new(incoming: CallerBody, version: Version, limit: u64, memory: &Rc<BodyMemory>) -> Self {
        if incoming.is_end_stream() {
            return Self::nothing();
        }
        let declared = incoming.size_hint().exact();
        let upload = Upload {
            attempt: 0,
            incoming,
            declared,
            is_http2: version == Version::HTTP_2,
            limit,
            received: 0,
            kept: ReplayBuffer::default(),
            memory: HeldMemory::new(memory),
            keeping: Keeping::WhilePossible,
            ended: false,
            waits_since: None,
            waited: Duration::ZERO,
            failure: None,
        };
        Self { source: Source::Upload(Rc::new(RefCell::new(upload))), attempt: 0 }
    }

    /// A body that has nothing in it.
    pub(in crate::delivery) fn nothing() -> Self {
        Self { source: Source::Nothing, attempt: 0 }
    }

    /// Returns the body from its first byte, for another attempt. Those handed out before end in an error, and so does this
    /// one if the body has failed.
    pub(in crate::delivery) fn rewound(&self) -> Self {
        let Source::Upload(upload) = &self.source else { return self.clone() };
        let attempt = {
            let mut upload = upload.borrow_mut();
            if !upload.kept.is_whole() {
                upload.failure.get_or_insert(Failure::NotKept);
            }
            upload.kept.rewind();
            upload.attempt += 1;
            upload.waits_since = None;
            upload.waited = Duration::ZERO;
            upload.attempt
        };
        Self { source: Source::Upload(Rc::clone(upload)), attempt }
    }

    /// Reads the body to its end and returns it as one that any number of attempts may read side by side. Waits `patience` at
    /// most for the memory that it takes.
    ///
    /// # Errors
    /// What the caller did wrong; [`DeliveryError::Overload`] when there is no memory.
    pub(in crate::delivery) async fn collected(&self, patience: Duration) -> Result<Self, DeliveryError> {
        if let Some(upload) = self.upload() {
            upload.borrow_mut().keeping = Keeping::Always;
            let declared = upload.borrow().declared.unwrap_or_default();
            hold_in_time(upload, declared, patience).await?;
        }
        let mut body = self.rewound();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            frame.map_err(|_told_below| self.failure().unwrap_or(DeliveryError::BodyBroken))?;
            if let Some(upload) = self.upload() {
                let next = upload.borrow().bytes_with_next_piece();
                hold_in_time(upload, next, patience).await?;
            }
        }
        let Some(upload) = self.upload() else { return Ok(self.clone()) };
        let mut upload = upload.borrow_mut();
        let whole = std::mem::take(&mut upload.kept).whole();
        upload.kept = ReplayBuffer::of(whole.clone());
        if whole.is_empty() {
            return Ok(Self::nothing());
        }
        Ok(Self { source: Source::Whole(Some(whole)), attempt: 0 })
    }

    /// Returns what [`RequestBody::collected`] has read.
    pub(in crate::delivery) fn whole(&self) -> &[u8] {
        match &self.source {
            Source::Whole(Some(bytes)) => bytes,
            Source::Nothing | Source::Whole(None) | Source::Upload(_) => &[],
        }
    }

    fn upload(&self) -> Option<&Rc<RefCell<Upload>>> {
        match &self.source {
            Source::Upload(upload) => Some(upload),
            Source::Nothing | Source::Whole(_) => None,
        }
    }

    /// Returns the number of bytes the caller has sent.
    pub fn received(&self) -> u64 {
        self.upload().map_or(0, |upload| upload.borrow().received)
    }

    /// Checks that the body can be sent from its first byte.
    ///
    /// # Errors
    /// What the caller did wrong; [`DeliveryError::Overload`] when a part was handed out and not kept.
    pub(in crate::delivery) fn can_be_sent(&self) -> Result<(), DeliveryError> {
        if let Some(upload) = self.upload()
            && !upload.borrow().kept.is_whole()
        {
            upload.borrow_mut().failure.get_or_insert(Failure::NotKept);
        }
        self.failure().map_or(Ok(()), Err)
    }

    /// Returns what the caller did wrong, if that is why an attempt failed.
    pub(in crate::delivery) fn failure(&self) -> Option<DeliveryError> {
        let upload = self.upload()?.borrow();
        Some(match upload.failure? {
            Failure::TooLarge => DeliveryError::BodyTooLarge { limit: upload.limit },
            Failure::Broken => DeliveryError::BodyBroken,
            Failure::NotKept => NO_MEMORY,
        })
    }

    /// Whether the caller still owes a part of the body and the endpoint has had all that came.
    pub(in crate::delivery) fn is_waiting_for_caller(&self) -> bool {
        self.upload().is_some_and(|upload| upload.borrow().waits_since.is_some())
    }

    /// Returns how long the latest attempt has waited for the caller while the endpoint had all that came.
    pub(in crate::delivery) fn waited_for_caller(&self, now: Instant) -> Duration {
        self.upload().map_or(Duration::ZERO, |upload| {
            let upload = upload.borrow();
            let goes_on = upload.waits_since.map(|since| now.saturating_duration_since(since));
            upload.waited + goes_on.unwrap_or_default()
        })
    }

    /// Gives back the memory of a large body: the request will not be sent again.
    pub fn forget(&self) {
        if let Some(upload) = self.upload() {
            let upload = &mut *upload.borrow_mut();
            // An endpoint may answer while it still reads what is sent again.
            if upload.memory.is_counted() && upload.kept.is_at_end() {
                upload.keeping = Keeping::Never;
                upload.kept.forget(0);
                upload.memory.release();
            }
        }
    }

    /// Reads on for a while and forgets what comes. Closing at once would reset the connection, and the caller, still
    /// writing, would never see the answer. Attempts that still read the body end in an error: what is forgotten here would be
    /// missing there.
    pub fn discard(self) {
        let Source::Upload(upload) = self.source else { return };
        {
            let mut upload = upload.borrow_mut();
            if upload.ended || upload.failure == Some(Failure::Broken) {
                return;
            }
            upload.attempt += 1;
            upload.kept.forget(0);
            upload.memory.release();
        }
        // Ends by its own limits, or with the worker.
        tokio::task::spawn_local(tokio::time::timeout(UNWANTED_TIME, async move {
            let mut unwanted = 0;
            while unwanted < UNWANTED_BYTES {
                let frame = std::future::poll_fn(|cx| Pin::new(&mut upload.borrow_mut().incoming).poll_frame(cx)).await;
                let Some(Ok(frame)) = frame else { return };
                unwanted += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
        }));
    }
}

impl Upload {
    /// Whether the caller has not sent all of the body, though no more comes.
    ///
    /// hyper ends the body of an HTTP/2 stream that its caller resets with `NO_ERROR` as if it were complete.
    fn ends_early(&self) -> bool {
        let is_cut = self.is_http2 && !self.incoming.is_end_stream();
        is_cut || self.declared.is_some_and(|declared| declared != self.received)
    }

    /// Returns how large the body will have become with one piece more, if its length was not declared and it is not small.
    fn bytes_with_next_piece(&self) -> u64 {
        let is_large = self.declared.is_none() && self.received > FREE / 2;
        if is_large { self.received.saturating_add(LARGEST_PIECE).min(self.limit) } else { 0 }
    }

    /// Lets a piece pass that is not kept. Returns whether the body is of use then.
    #[cold]
    fn goes_on_unkept(&mut self, length: usize) -> bool {
        match self.keeping {
            Keeping::Always => {
                self.failure = Some(Failure::NotKept);
                return false;
            }
            Keeping::WhilePossible => self.memory.not_kept(),
            Keeping::Never => {}
        }
        self.keeping = Keeping::Never;
        self.kept.forget(length);
        self.memory.release();
        true
    }
}

/// Waits until there is memory for a body of so many bytes in all.
async fn hold_in_time(upload: &RefCell<Upload>, bytes: u64, patience: Duration) -> Result<(), DeliveryError> {
    let until = Instant::now() + patience;
    while !upload.borrow_mut().memory.hold(bytes) {
        if Instant::now() >= until {
            return Err(NO_MEMORY);
        }
        // Nobody wakes those who wait: calls to several endpoints with large bodies are few.
        tokio::time::sleep(MEMORY_LOOK).await;
    }
    Ok(())
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = &mut *self;
        let upload = match &mut this.source {
            Source::Nothing => return Poll::Ready(None),
            Source::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Upload(upload) => upload,
        };
        let upload = &mut *upload.borrow_mut();
        if this.attempt != upload.attempt {
            return Poll::Ready(Some(Err(UploadError::Superseded)));
        }
        if upload.failure.is_some() {
            return Poll::Ready(Some(Err(UploadError::FailedBefore)));
        }
        if let Some(piece) = upload.kept.again() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        loop {
            let Poll::Ready(frame) = Pin::new(&mut upload.incoming).poll_frame(cx) else {
                upload.waits_since.get_or_insert_with(Instant::now);
                return Poll::Pending;
            };
            if let Some(since) = upload.waits_since.take() {
                upload.waited += since.elapsed();
            }
            let data = match frame {
                None if upload.ends_early() => {
                    upload.failure = Some(Failure::Broken);
                    return Poll::Ready(Some(Err(UploadError::Truncated)));
                }
                None => {
                    upload.ended = true;
                    return Poll::Ready(None);
                }
                Some(Err(err)) => {
                    upload.failure = Some(Failure::Broken);
                    return Poll::Ready(Some(Err(UploadError::Broken(err))));
                }
                // Trailers are about the caller's framing, which ends here.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => data,
                    Ok(_) | Err(_) => continue,
                },
            };
            upload.received += data.len() as u64;
            if upload.received > upload.limit {
                upload.failure = Some(Failure::TooLarge);
                return Poll::Ready(Some(Err(UploadError::TooLarge)));
            }
            upload.ended = upload.incoming.is_end_stream();
            if upload.keeping != Keeping::Never && upload.memory.hold(upload.received) {
                upload.kept.keep(&data);
            } else if !upload.goes_on_unkept(data.len()) {
                return Poll::Ready(Some(Err(UploadError::NotKept)));
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Nothing => true,
            Source::Whole(bytes) => bytes.is_none(),
            Source::Upload(upload) => {
                let upload = upload.borrow();
                upload.ended && upload.failure.is_none() && upload.kept.is_at_end()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Upload(upload) => {
                let upload = upload.borrow();
                let handed_out = upload.kept.handed_out();
                upload.declared.filter(|_| upload.failure.is_none()).map_or_else(SizeHint::default, |declared| {
                    SizeHint::with_exact(declared.saturating_sub(handed_out as u64))
                })
            }
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestBody({} bytes so far)", self.received())
    }
}
