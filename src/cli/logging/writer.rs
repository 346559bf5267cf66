//! Writes log lines on a separate thread. Lines wait in a bounded queue. When it is full, further lines are dropped and
//! counted.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::fmt::MakeWriter;

use super::throttle::Throttle;
use crate::metrics::LostLine;

/// The capacity of the queue, in lines. Chosen: it holds the lines of 130 ms at 30,000 requests a second. With lines of 400
/// bytes, it uses 1.6 MB when full and 130 KB when empty.
const QUEUE_CAPACITY: usize = 4096;

/// The sending side of the queue.
pub(super) struct LogWriter {
    queue: NonBlocking,
    dropped: ErrorCounter,
    /// The number of dropped lines that the metric has counted.
    counted: AtomicUsize,
    is_text: bool,
}

/// Starts the thread that writes to stderr.
pub(super) fn start(is_text: bool, throttle: &Arc<Throttle>) -> io::Result<(LogWriter, WorkerGuard)> {
    // A duplicate descriptor, because a write that blocks must not hold the lock of the standard library's stderr.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    Ok(start_with(stderr, is_text, throttle))
}

fn start_with(
    output: impl Write + Send + 'static,
    is_text: bool,
    throttle: &Arc<Throttle>,
) -> (LogWriter, WorkerGuard) {
    let output = Output { inner: output, is_writable: true, is_torn: false, throttle: Arc::clone(throttle) };
    let builder = NonBlockingBuilder::default().buffered_lines_limit(QUEUE_CAPACITY).lossy(true).thread_name("log");
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

/// A writer of one line. The formatter passes the whole line in one call.
pub(super) struct Line<'a>(&'a LogWriter);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut queue = self.0.queue.clone();
        match escape_breaks(line).filter(|_| self.0.is_text) {
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

/// Escapes line breaks within a line, or returns `None` if there are none. A text line may quote bytes of a caller, which must
/// not start a new line. JSON lines contain no line breaks.
fn escape_breaks(line: &[u8]) -> Option<Vec<u8>> {
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

/// The output of the writing thread.
struct Output<W> {
    inner: W,
    /// Whether the last write succeeded.
    is_writable: bool,
    /// Whether the output ends with the beginning of a line that could not be written whole.
    is_torn: bool,
    throttle: Arc<Throttle>,
}

impl<W: Write> Output<W> {
    /// Writes a line, on a line of its own even if the one before it was not written whole.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.inner.write_all(b"\n")?;
            self.is_torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.inner.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.is_torn = !rest.is_empty();
                }
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.write_line(line);
        self.is_writable = written.is_ok();
        if let Err(err) = written {
            LostLine::add_write_error(&err);
        }
        Ok(line.len())
    }

    /// Reports dropped lines. The thread calls this when the queue is empty.
    fn flush(&mut self) -> io::Result<()> {
        // A report is also a log line, so it waits until lines can be written.
        if self.is_writable {
            self.throttle.report_dropped();
            self.throttle.report_periodically();
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

    /// A writer that accepts a line only when the test allows it.
    struct Slow {
        allowed: Receiver<()>,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if self.allowed.recv().is_err() {
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
    fn drops_and_counts_lines_when_the_queue_is_full_and_never_waits() {
        let (allow, allowed) = channel();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let slow = Slow { allowed, lines: Arc::clone(&lines) };
        let (writer, guard) = start_with(slow, true, &Arc::new(Throttle::new(0)));
        let before = LostLine::SlowReader.total();
        for number in 0..QUEUE_CAPACITY + 100 {
            writer.make_writer().write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        // The thread may have taken one already.
        let dropped = LostLine::SlowReader.total() - before;
        assert!((99..=100).contains(&dropped), "{dropped}");
        for _ in 0..=QUEUE_CAPACITY {
            allow.send(()).unwrap();
        }
        drop(allow);
        super::super::run_with_timeout(Duration::from_secs(10), move || drop(guard));
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len() as u64 + dropped, QUEUE_CAPACITY as u64 + 100);
        assert_eq!(lines[QUEUE_CAPACITY - 1], format!("line {}\n", QUEUE_CAPACITY - 1));
    }

    /// A disk with room for so many bytes.
    struct Disk {
        room: usize,
        content: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = bytes.len().min(self.room - self.content.len());
            if written == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.content.extend_from_slice(&bytes[..written]);
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn line_after_a_full_disk_does_not_continue_the_one_that_was_cut_off() {
        let inner = Disk { room: 10, content: Vec::new() };
        let throttle = Arc::new(Throttle::new(0));
        let mut output = Output { inner, is_writable: true, is_torn: false, throttle };
        for line in ["first\n", "second\n", "third\n"] {
            output.write_all(line.as_bytes()).unwrap();
        }
        assert!(!output.is_writable);
        output.inner.room = 100;
        output.write_all(b"fourth\n").unwrap();
        assert_eq!(output.inner.content, b"first\nseco\nfourth\n");
    }

    #[test]
    fn writes_each_event_as_one_line() {
        assert_eq!(escape_breaks(b"one line\n"), None);
        assert_eq!(escape_breaks(b""), None);
        assert_eq!(escape_breaks(b"a\nINFO forged\r\nb\n").unwrap(), b"a\\nINFO forged\\r\\nb\n");
    }
}
