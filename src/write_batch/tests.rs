use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Runs a test on a runtime like a worker's.
fn on_a_worker(test: impl Future<Output = ()>) {
    let options = tokio::runtime::LocalOptions::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(options).unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("the test hangs") });
}

/// Makes every further write of this tick go through the batch.
fn batch_everything(batch: &WriteBatch) {
    batch.0.immediate_left.set(0);
}

/// Returns the two ends of a connection, the first of them batched.
async fn pair(batch: &WriteBatch) -> (Batched<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (Batched::new(near.unwrap(), batch), far.unwrap().0)
}

/// Fills the socket buffers of a connection whose peer does not read. Returns how many bytes they took.
async fn fill(near: &mut Batched<TcpStream>) -> usize {
    let mut accepted = 0;
    loop {
        let whole = vec![b'x'; MAX_BATCHED_WRITE + 1];
        let write = poll_fn(|cx| Poll::Ready(Pin::new(&mut *near).poll_write(cx, &whole)));
        // Without a limit on the number of polls.
        match tokio::task::unconstrained(write).await {
            Poll::Ready(written) => accepted += written.unwrap(),
            Poll::Pending => return accepted,
        }
    }
}

#[test]
fn writes_of_one_tick_are_flushed_after_it_in_order() {
    on_a_worker(async {
        let batch = WriteBatch::start();
        let (mut near, mut far) = pair(&batch).await;
        let (mut other, mut other_far) = pair(&batch).await;
        batch_everything(&batch);
        near.write_all(b"one ").await.unwrap();
        other.write_all(b"another").await.unwrap();
        near.write_all(b"two").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!((near.written(), other.written()), (None, None), "all of them are in the batch");
        let mut read = [0; 7];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one two");
        other_far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"another");
        assert_eq!((near.written(), other.written()), (Some(7), Some(7)));
    });
}

#[test]
fn first_writes_of_every_tick_bypass_the_batch() {
    on_a_worker(async {
        let batch = WriteBatch::start();
        let (mut near, mut far) = pair(&batch).await;
        for _tick in 0..2 {
            let before = near.written().unwrap();
            for number in 1..=IMMEDIATE_WRITES {
                near.write_all(b"x").await.unwrap();
                assert_eq!(near.written(), Some(before + u64::from(number)), "it was batched");
            }
            near.write_all(b"x").await.unwrap();
            assert_eq!(near.written(), None, "it was not batched");
            let mut read = vec![0; IMMEDIATE_WRITES as usize + 1];
            far.read_exact(&mut read).await.unwrap();
        }
    });
}

#[test]
fn large_writes_bypass_the_batch_and_never_overtake_small_ones() {
    on_a_worker(async {
        let batch = WriteBatch::start();
        let (mut near, mut far) = pair(&batch).await;
        let large = vec![b'l'; 64 * 1024];
        let write = async {
            for _ in 0..20 {
                near.write_all(b"small").await.unwrap();
                near.write_all(&large).await.unwrap();
            }
            near.write_all(b"end").await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let ((), length) = tokio::join!(write, far.read_to_end(&mut read));
        assert_eq!(length.unwrap(), 20 * (5 + large.len()) + 3);
        let whole = [b"small".as_slice(), &large].concat().repeat(20);
        assert!(read == [whole.as_slice(), b"end"].concat());
    });
}

#[test]
fn keeps_bytes_that_the_socket_does_not_accept_and_wakes_the_owner() {
    on_a_worker(async {
        let batch = WriteBatch::start();
        let (mut near, mut far) = pair(&batch).await;
        let filled = fill(&mut near).await;
        batch_everything(&batch);
        // Succeeds although the socket accepts nothing more.
        near.write_all(b"late").await.unwrap();
        while near.shared.batched.get() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*near.shared.unwritten.borrow(), b"late");
        let mut read = vec![0; filled + 4];
        let flush = async {
            while near.written() != Some((filled + 4) as u64) {
                // A flush that finds unwritten bytes is woken when the socket accepts more.
                near.flush().await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let ((), all) = tokio::join!(flush, far.read_exact(&mut read));
        all.unwrap();
        assert!(read.ends_with(b"xlate"));
    });
}

#[test]
fn next_write_or_flush_returns_the_error_of_a_batched_write() {
    on_a_worker(async {
        let batch = WriteBatch::start();
        let (mut near, far) = pair(&batch).await;
        // Closing with unread bytes resets the connection.
        near.write_all(b"unread").await.unwrap();
        far.readable().await.unwrap();
        far.set_zero_linger().unwrap();
        drop(far);
        let failed = async {
            loop {
                batch_everything(&batch);
                near.write_all(b"x").await?;
                near.flush().await?;
                tokio::task::yield_now().await;
            }
        };
        let failed: io::Result<std::convert::Infallible> = failed.await;
        let kind = failed.unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{kind}");
        assert_eq!(near.flush().await.unwrap_err().kind(), kind);
    });
}

#[test]
fn writes_beyond_a_full_batch_are_written_directly() {
    on_a_worker(async {
        let batch = WriteBatch::start();
        let (mut near, mut far) = pair(&batch).await;
        let piece = vec![b'p'; MAX_BATCHED_WRITE];
        let count = MAX_BATCH / MAX_BATCHED_WRITE + 3;
        let write = async {
            for _ in 0..count {
                near.write_all(&piece).await.unwrap();
            }
        };
        let mut read = vec![0; count * MAX_BATCHED_WRITE];
        let ((), all) = tokio::join!(write, far.read_exact(&mut read));
        all.unwrap();
        assert!(batch.0.pending.borrow().bytes.len() <= MAX_BATCH);
        assert!(read.iter().all(|byte| *byte == b'p'));
    });
}

#[test]
fn dropping_a_connection_keeps_its_batched_writes() {
    on_a_worker(async {
        let batch = WriteBatch::start();
        let (mut near, mut far) = pair(&batch).await;
        batch_everything(&batch);
        near.write_all(b"last").await.unwrap();
        drop(near);
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"last");
    });
}
