//! The response body of a reader: lines of JSON.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, interval_at};

use super::filter::Filter;
use super::readers::{Reader, Tail};

/// How often an empty line is sent. It detects readers that are gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The length at which lines are sent, although more are waiting.
const MAX_CHUNK: usize = 16 * 1024;

/// The lines for one reader, until it is dropped: summaries, `{"lost":N}` after lines were lost, and empty lines.
pub struct Lines {
    tail: Arc<Tail>,
    reader: Arc<Reader>,
    queue: mpsc::Receiver<Bytes>,
    heartbeat: Interval,
}

impl Lines {
    /// Adds a reader; `None` if there are too many.
    pub fn open(tail: &Arc<Tail>, filter: Filter) -> Option<Self> {
        let (reader, queue) = tail.add(filter)?;
        let heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
        Some(Self { tail: Arc::clone(tail), reader, queue, heartbeat })
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.tail.remove(&self.reader);
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut chunk = BytesMut::new();
        // Lines are lost only while others wait, so that the number follows soon.
        let lost = self.reader.take_lost();
        if lost > 0 {
            chunk.extend_from_slice(format!("{{\"lost\":{lost}}}\n").as_bytes());
        }
        while chunk.len() < MAX_CHUNK
            && let Poll::Ready(Some(line)) = self.queue.poll_recv(cx)
        {
            chunk.extend_from_slice(&line);
        }
        if chunk.is_empty() && self.tail.is_ended() {
            return Poll::Ready(None);
        }
        if chunk.is_empty() && self.heartbeat.poll_tick(cx).is_ready() {
            chunk.extend_from_slice(b"\n");
        }
        if chunk.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data(chunk.freeze())))) }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::tail::{MAX_READERS, Summary};

    fn filter(query: &str) -> Filter {
        Filter::parse(Some(query)).unwrap()
    }

    async fn next(lines: &mut Lines) -> String {
        let frame = lines.frame().await.unwrap().unwrap().into_data().unwrap();
        String::from_utf8(frame.to_vec()).unwrap()
    }

    fn summary(route: &str) -> Summary<'_> {
        Summary { route: Some(route), method: "POST", status: 202, ..Summary::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_gets_what_it_asked_for_and_a_sign_of_life() {
        let tail = Arc::new(Tail::default());
        assert!(!tail.is_read());
        let mut lines = Lines::open(&tail, filter("route=chat")).unwrap();
        assert!(tail.is_read());
        tail.publish(&summary("news"));
        tail.publish(&summary("chat"));
        let line = next(&mut lines).await;
        assert!(
            line.contains(r#""route":"chat""#) && line.ends_with("}\n") && line.matches('\n').count() == 1,
            "{line}"
        );
        assert_eq!(next(&mut lines).await, "\n");
        drop(lines);
        assert!(!tail.is_read());
    }

    #[tokio::test]
    async fn lines_end_once_those_that_wait_are_sent() {
        let tail = Arc::new(Tail::default());
        let (mut busy, mut idle) =
            (Lines::open(&tail, filter("")).unwrap(), Lines::open(&tail, filter("route=none")).unwrap());
        let waits = tokio::spawn(async move { idle.frame().await.is_none() });
        tokio::task::yield_now().await;
        tail.publish(&summary("chat"));
        tail.end();
        assert!(next(&mut busy).await.contains("chat"));
        assert!(busy.frame().await.is_none() && waits.await.unwrap(), "the lines have not ended");
    }

    #[tokio::test]
    async fn a_slow_reader_loses_lines_and_is_told_how_many() {
        let tail = Arc::new(Tail::default());
        let (mut slow, mut other) =
            (Lines::open(&tail, filter("")).unwrap(), Lines::open(&tail, filter("route=last")).unwrap());
        for _ in 0..1030 {
            tail.publish(&summary("chat"));
        }
        tail.publish(&summary("last"));
        assert!(next(&mut slow).await.starts_with("{\"lost\":7}\n{"));
        assert!(next(&mut other).await.contains("last"), "another reader loses nothing");
        while let Some(frame) = futures_util::FutureExt::now_or_never(slow.frame()) {
            let frame = frame.unwrap().unwrap().into_data().unwrap();
            assert!(!frame.starts_with(b"{\"lost\""));
        }
    }

    #[tokio::test]
    async fn there_are_at_most_a_few_readers() {
        let tail = Arc::new(Tail::default());
        let mut open: Vec<_> = (0..MAX_READERS).map(|_| Lines::open(&tail, filter("")).unwrap()).collect();
        assert!(Lines::open(&tail, filter("")).is_none());
        open.pop();
        assert!(tail.is_read() && Lines::open(&tail, filter("")).is_some());
    }
}
