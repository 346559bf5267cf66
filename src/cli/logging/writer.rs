//! Writes log lines on a thread of its own. Lines that come faster than they are read wait in a queue; those beyond it are
//! dropped and counted.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

use super::throttle::Throttle;
use crate::metrics::LostLine;

/// The lines that wait to be written. Chosen: at 30,000 requests a second it lasts for 130 ms; with lines of 400 bytes it
/// takes 1.6 MB when it is full, and 130 KB when it is empty.
const QUEUE: usize = 4096;

/// Where lines go in.
pub(super) struct LogWriter {
    queue: NonBlocking,
    dropped: ErrorCounter,
    /// How many of those were counted.
    counted: AtomicUsize,
    is_text: bool,
}

/// Starts the thread that writes to stderr.
pub(super) fn start(is_text: bool, throttle: &Arc<Throttle>) -> io::Result<(LogWriter, WorkerGuard)> {
    // A descriptor of its own: a thread that hangs in writing must not hold the lock of the standard library's stderr.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    Ok(start_with(stderr, is_text, throttle))
}

fn start_with(
    output: impl Write + Send + 'static,
    is_text: bool,
    throttle: &Arc<Throttle>,
) -> (LogWriter, WorkerGuard) {
    let output = Output { to: output, works: true, throttle: Arc::clone(throttle) };
    let builder = NonBlockingBuilder::default().buffered_lines_limit(QUEUE).lossy(true).thread_name("log");
    let (queue, guard) = builder.finish(output);
    (LogWriter { dropped: queue.error_counter(), queue, counted: AtomicUsize::new(0), is_text }, guard)
}

impl LogWriter {
    fn count_dropped(&self) {
        let dropped = self.dropped.dropped_lines();
        if dropped > self.counted.load(Ordering::Relaxed) {
            let counted = self.counted.fetch_max(dropped, Ordering::Relaxed);
            LostLine::SlowReader.add(dropped.saturating_sub(counted) as u64);
        }
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// One line. It comes in one piece.
pub(super) struct Line<'a>(&'a LogWriter);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut queue = self.0.queue.clone();
        match without_breaks(line).filter(|_| self.0.is_text) {
            Some(one_line) => queue.write_all(&one_line)?,
            None => queue.write_all(line)?,
        }
        self.0.count_dropped();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns a line without the breaks within it, if there are any: an error's text may hold what a caller sent, and must not
/// make lines of its own. JSON has none.
fn without_breaks(line: &[u8]) -> Option<Vec<u8>> {
    let (end, text) = line.split_last()?;
    let is_break = |byte: &u8| matches!(byte, b'\n' | b'\r');
    if !text.iter().any(is_break) {
        return None;
    }
    let mut one_line = Vec::with_capacity(line.len() + 16);
    for byte in text {
        match byte {
            b'\n' => one_line.extend_from_slice(b"\\n"),
            b'\r' => one_line.extend_from_slice(b"\\r"),
            _ => one_line.push(*byte),
        }
    }
    one_line.push(*end);
    Some(one_line)
}

/// The thread's end of the queue.
struct Output<W> {
    to: W,
    /// Whether the last line could be written.
    works: bool,
    throttle: Arc<Throttle>,
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.works = self.to.write_all(line).is_ok();
        if !self.works {
            LostLine::WriteError.add(1);
        }
        Ok(line.len())
    }

    /// Called when the queue is empty.
    fn flush(&mut self) -> io::Result<()> {
        // What is logged here comes back as a line, so nothing is said while lines cannot be written.
        if self.works {
            self.throttle.report_dropped();
            self.throttle.report_now_and_then();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::*;

    /// Takes a line only when it is let.
    struct Slow {
        let_through: Receiver<()>,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if self.let_through.recv().is_err() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            self.lines.lock().unwrap().push(String::from_utf8(line.to_vec()).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_beyond_the_queue_are_dropped_and_counted_and_nothing_waits() {
        let (let_through, gate) = channel();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let slow = Slow { let_through: gate, lines: Arc::clone(&lines) };
        let (writer, guard) = start_with(slow, true, &Arc::new(Throttle::new(0)));
        let before = LostLine::SlowReader.total();
        for number in 0..QUEUE + 100 {
            writer.make_writer().write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        // One may be with the thread already.
        let dropped = LostLine::SlowReader.total() - before;
        assert!((99..=100).contains(&dropped), "{dropped}");
        for _ in 0..=QUEUE {
            let_through.send(()).unwrap();
        }
        drop(let_through);
        super::super::within(Duration::from_secs(10), move || drop(guard));
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len() as u64 + dropped, QUEUE as u64 + 100);
        assert_eq!(lines[QUEUE - 1], format!("line {}\n", QUEUE - 1));
    }

    #[test]
    fn one_event_is_one_line() {
        assert_eq!(without_breaks(b"all in one\n"), None);
        assert_eq!(without_breaks(b""), None);
        assert_eq!(without_breaks(b"a\nINFO forged\r\nb\n").unwrap(), b"a\\nINFO forged\\r\\nb\n");
    }
}
