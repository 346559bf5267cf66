use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// Runs a test as a worker would.
fn on_a_worker(test: impl Future<Output = ()>) {
    let options = tokio::runtime::LocalOptions::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(options).unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), test).await.expect("it hangs") });
}

/// Lets nothing of this round go out at once.
fn busy(outbox: &Outbox) {
    outbox.0.at_once.set(0);
}

/// Two ends of a connection, the first of them batched.
async fn pair(outbox: &Outbox) -> (Batched<TcpStream>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (Batched::new(near.unwrap(), outbox), far.unwrap().0)
}

/// Fills what the system keeps of a connection whose other side does not read. Returns how much that is.
async fn fill(near: &mut Batched<TcpStream>) -> usize {
    let mut taken = 0;
    loop {
        let whole = vec![b'x'; LARGEST + 1];
        let write = poll_fn(|cx| Poll::Ready(Pin::new(&mut *near).poll_write(cx, &whole)));
        // However much that is.
        match tokio::task::unconstrained(write).await {
            Poll::Ready(written) => taken += written.unwrap(),
            Poll::Pending => return taken,
        }
    }
}

#[test]
fn what_is_written_in_one_turn_goes_out_after_it_in_order() {
    on_a_worker(async {
        let outbox = Outbox::start();
        let (mut near, mut far) = pair(&outbox).await;
        let (mut other, mut other_far) = pair(&outbox).await;
        busy(&outbox);
        near.write_all(b"one ").await.unwrap();
        other.write_all(b"another").await.unwrap();
        near.write_all(b"two").await.unwrap();
        near.flush().await.unwrap();
        assert_eq!((near.written(), other.written()), (None, None), "all of it is on its way");
        let mut read = [0; 7];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"one two");
        other_far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"another");
        assert_eq!((near.written(), other.written()), (Some(7), Some(7)));
    });
}

#[test]
fn first_writes_of_a_round_are_not_held_up_and_the_next_round_has_its_own() {
    on_a_worker(async {
        let outbox = Outbox::start();
        let (mut near, mut far) = pair(&outbox).await;
        for _round in 0..2 {
            let before = near.written().unwrap();
            for number in 1..=AT_ONCE {
                near.write_all(b"x").await.unwrap();
                assert_eq!(near.written(), Some(before + u64::from(number)), "it was held up");
            }
            near.write_all(b"x").await.unwrap();
            assert_eq!(near.written(), None, "it was not");
            let mut read = vec![0; AT_ONCE as usize + 1];
            far.read_exact(&mut read).await.unwrap();
        }
    });
}

#[test]
fn large_writes_go_at_once_and_never_overtake_small_ones() {
    on_a_worker(async {
        let outbox = Outbox::start();
        let (mut near, mut far) = pair(&outbox).await;
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
fn what_finds_no_room_waits_for_it_and_its_owner_is_told() {
    on_a_worker(async {
        let outbox = Outbox::start();
        let (mut near, mut far) = pair(&outbox).await;
        let filled = fill(&mut near).await;
        busy(&outbox);
        // As good as written, though there is no room and nobody reads.
        near.write_all(b"late").await.unwrap();
        while near.shared.posted.get() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*near.shared.rest.borrow(), b"late");
        let mut read = vec![0; filled + 4];
        let flush = async {
            while near.written() != Some((filled + 4) as u64) {
                // A flush that finds a rest is woken when there is room.
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
fn write_that_fails_behind_its_owners_back_is_told_by_the_next_call() {
    on_a_worker(async {
        let outbox = Outbox::start();
        let (mut near, far) = pair(&outbox).await;
        // A reset: there is something that was never read.
        near.write_all(b"unread").await.unwrap();
        far.readable().await.unwrap();
        far.set_zero_linger().unwrap();
        drop(far);
        let failed = async {
            loop {
                busy(&outbox);
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
fn outbox_that_is_full_keeps_nothing_back() {
    on_a_worker(async {
        let outbox = Outbox::start();
        let (mut near, mut far) = pair(&outbox).await;
        let piece = vec![b'p'; LARGEST];
        let count = MOST / LARGEST + 3;
        let write = async {
            for _ in 0..count {
                near.write_all(&piece).await.unwrap();
            }
        };
        let mut read = vec![0; count * LARGEST];
        let ((), all) = tokio::join!(write, far.read_exact(&mut read));
        all.unwrap();
        assert!(outbox.0.letters.borrow().bytes.len() <= MOST);
        assert!(read.iter().all(|byte| *byte == b'p'));
    });
}

#[test]
fn connection_that_is_dropped_has_sent_what_it_wrote() {
    on_a_worker(async {
        let outbox = Outbox::start();
        let (mut near, mut far) = pair(&outbox).await;
        busy(&outbox);
        near.write_all(b"last words").await.unwrap();
        drop(near);
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"last words");
    });
}
