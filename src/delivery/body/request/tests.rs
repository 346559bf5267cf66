//! Bodies that a caller sends over an in-memory connection.

use super::*;
use crate::delivery::tests::run_paused;
use crate::delivery::tests::upload::{LIMIT, Upload, next, read};

const SECOND: Duration = Duration::from_secs(1);

/// A body that takes memory from the budget.
fn large() -> Vec<u8> {
    (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect()
}

async fn begin_large() -> Upload {
    let mut upload = Upload::begin("content-length: 200000").await;
    upload.send(&large()).await;
    upload
}

#[test]
fn body_is_sent_again_from_its_first_byte() {
    run_paused(async {
        let mut upload = Upload::begin("content-length: 11").await;
        upload.send(b"hello ").await;
        let mut first = upload.body.rewound();
        assert_eq!(read(&mut first, 6).await, b"hello ");
        assert_eq!(upload.body.received(), 6);
        let mut second = upload.body.rewound();
        upload.send(b"world").await;
        assert_eq!(read(&mut second, 11).await, b"hello world");
        assert!(next(&mut second).await.is_none() && second.is_end_stream());
        assert_eq!(upload.body.received(), 11);
        assert!(matches!(next(&mut first).await, Some(Err(BodyError::Superseded))), "an earlier attempt reads no more");
    });
}

#[test]
fn body_that_failed_never_looks_complete() {
    run_paused(async {
        let mut cut = Upload::begin("content-length: 5").await;
        cut.send(b"hell").await;
        let mut too_large = Upload::begin("content-length: 2000000").await;
        too_large.send(&vec![7; 2_000_000]).await;
        for (upload, failure) in [(cut, BodyFailure::Broken), (too_large, BodyFailure::TooLarge { limit: LIMIT })] {
            drop(upload.caller);
            let mut body = upload.body.rewound();
            while next(&mut body).await.expect("the body looks complete").is_ok() {}
            assert_eq!(upload.body.check_sendable(), Err(failure));
            let mut again = upload.body.rewound();
            assert!(matches!(next(&mut again).await, Some(Err(BodyError::FailedBefore))));
            assert!(!again.is_end_stream() && again.size_hint().exact().is_none());
        }
    });
}

#[test]
fn waits_for_the_caller_are_counted_for_each_attempt() {
    run_paused(async {
        let mut upload = Upload::begin("content-length: 10").await;
        upload.send(b"hello").await;
        let mut body = upload.body.rewound();
        let waited_within_a_second = |body: &RequestBody| {
            let now = Instant::now();
            body.waited_for_caller(now + SECOND).saturating_sub(body.waited_for_caller(now))
        };
        assert_eq!(read(&mut body, 5).await, b"hello");
        assert!(!upload.body.is_waiting_for_caller());
        assert_eq!(waited_within_a_second(&upload.body), Duration::ZERO);

        assert!(futures_util::poll!(std::pin::pin!(next(&mut body))).is_pending());
        assert!(upload.body.is_waiting_for_caller());
        assert_eq!(waited_within_a_second(&upload.body), SECOND);

        upload.body.rewound();
        assert!(!upload.body.is_waiting_for_caller());
        assert_eq!(upload.body.waited_for_caller(Instant::now() + SECOND), Duration::ZERO);
    });
}

#[test]
fn released_body_takes_no_more_memory_while_the_rest_is_sent() {
    run_paused(async {
        let upload = begin_large().await;
        let mut body = upload.body.rewound();
        let mut sent = Vec::new();
        while sent.len() < 100_000 {
            sent.extend_from_slice(&next(&mut body).await.unwrap().unwrap());
        }
        assert!(sent.len() < 200_000 && upload.memory.used.get() > 0 && upload.body.check_sendable().is_ok());
        upload.body.release();
        assert_eq!(upload.memory.used.get(), 0);
        while let Some(piece) = next(&mut body).await {
            sent.extend_from_slice(&piece.unwrap());
            assert_eq!(upload.memory.used.get(), 0);
        }
        assert_eq!(sent, large());
        assert_eq!(upload.body.check_sendable(), Err(BodyFailure::NotKept));
        assert_eq!(upload.memory.not_kept.get(), 0, "only a lack of memory is counted");
    });
}

#[test]
fn small_body_and_one_that_is_still_read_again_are_not_released() {
    run_paused(async {
        let mut small = Upload::begin("content-length: 5").await;
        small.send(b"hello").await;
        assert_eq!(read(&mut small.body.rewound(), 5).await, b"hello");
        small.body.release();
        assert_eq!(read(&mut small.body.rewound(), 5).await, b"hello");

        let upload = begin_large().await;
        assert_eq!(read(&mut upload.body.rewound(), 200_000).await, large());
        let mut again = upload.body.rewound();
        let mut sent = next(&mut again).await.unwrap().unwrap().to_vec();
        upload.body.release();
        while let Some(piece) = next(&mut again).await {
            sent.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(sent, large());
    });
}

#[test]
fn body_of_unknown_length_reserves_memory_for_its_next_piece_once_it_is_large() {
    run_paused(async {
        let threshold = usize::try_from(FREE / 2).unwrap();
        for (size, is_counted) in [(100, false), (threshold, false), (threshold + 1, true)] {
            let mut upload = Upload::begin("transfer-encoding: chunked").await;
            let content = vec![7; size];
            upload.send(format!("{size:x}\r\n").as_bytes()).await;
            upload.send(&content).await;
            upload.send(b"\r\n0\r\n\r\n").await;
            let whole = upload.body.collected(Duration::ZERO).await.unwrap();
            assert_eq!(whole.whole(), content);
            assert_eq!(upload.memory.used.get() > 0, is_counted, "{size}");
        }
    });
}

#[test]
fn discarded_body_is_read_up_to_a_size_and_for_a_limited_time() {
    run_paused(async {
        let limit = usize::try_from(DISCARD_BYTES).unwrap();
        for (size, time) in [(limit, Duration::ZERO), (limit - 1, DISCARD_TIME)] {
            let mut upload = Upload::begin("content-length: 8000000").await;
            upload.send(&vec![7; size]).await;
            let Upload { caller, body, memory } = upload;
            let began = tokio::time::Instant::now();
            body.discard();
            while Rc::strong_count(&memory) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let took = began.elapsed();
            assert!((time..time + SECOND).contains(&took), "{size}: {took:?}");
            drop(caller);
        }
    });
}
