//! Acquisitions that fail, and when the next one starts.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_lifetime_fails_no_request() {
    let mut steps = vec![Step::Fresh(HOUR)];
    steps.extend(std::iter::repeat_n(OUTAGE, 30));
    steps.push(Step::Fresh(HOUR));
    let fixture = Fixture::new(steps);
    fixture.cell.acquire().await.unwrap();
    for _ in 0..4 * 60 {
        sleep(Duration::from_secs(30)).await;
        fixture.cell.acquire().await.unwrap();
        assert!(fixture.ready().is_some());
    }
    assert!(fixture.calls() > 31, "the outage happened: {}", fixture.calls());
    assert_eq!(fixture.cell.status().state, CredentialState::Ready);
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_never_returned() {
    let fixture = Fixture::new([Step::Fresh(HOUR), OUTAGE]);
    fixture.cell.acquire().await.unwrap();
    sleep(Duration::from_secs(3600 - 31)).await;
    assert!(fixture.ready().is_some());
    assert_eq!(fixture.cell.status().state, CredentialState::Stale);
    sleep(Duration::from_secs(2)).await;
    assert!(fixture.ready().is_none(), "the token is not used in the margin before its expiry");
    let unavailable = fixture.cell.acquire().await.unwrap_err();
    assert!(unavailable.cause.to_string().contains("503"), "{}", unavailable.cause);
    assert_eq!(fixture.cell.status().state, CredentialState::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn recovers_from_an_outage_without_a_token() {
    let fixture = Fixture::new([OUTAGE, OUTAGE, OUTAGE, Step::Fresh(HOUR)]);
    fixture.cell.start();
    let started = Instant::now();
    while fixture.cell.acquire().await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(10), "1 + 2 + 4 seconds of back-off: {:?}", started.elapsed());
    assert_eq!(fixture.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn honours_a_short_retry_after_and_caps_a_long_one() {
    for (asked, waited) in [(7200, 300), (20, 20)] {
        let asked = Step::Reject(429, None, Some(Duration::from_secs(asked)));
        let fixture = Fixture::new([asked, Step::Fresh(HOUR)]);
        let unavailable = fixture.cell.acquire().await.unwrap_err();
        assert_eq!(unavailable.retry_after, Duration::from_secs(waited));
        sleep(Duration::from_secs(waited - 1)).await;
        assert_eq!(fixture.calls(), 1);
        sleep(Duration::from_secs(2)).await;
        assert!(fixture.ready().is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn retries_slowly_after_a_permanent_error() {
    let fixture = Fixture::new([WRONG_SECRET]);
    fixture.cell.start();
    sleep(HOUR).await;
    assert!((12..=17).contains(&fixture.calls()), "{}", fixture.calls());
}

#[tokio::test(start_paused = true)]
async fn success_resets_the_back_off() {
    let short = Step::Fresh(MINUTE);
    let mut steps = vec![OUTAGE; 6];
    steps.extend([short, OUTAGE, OUTAGE, Step::Fresh(HOUR)]);
    let fixture = Fixture::new(steps);
    fixture.cell.start();
    sleep(2 * MINUTE).await;
    // 1 + 2 + 4 + 8 + 16 + 30 seconds, up to 40 seconds of the short token, then 1 + 2 seconds.
    assert_eq!((fixture.calls(), fixture.cell.status().state), (10, CredentialState::Ready));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_error_and_the_next_acquisition_runs() {
    let fixture = Fixture::new([Step::Panic, Step::Fresh(HOUR)]);
    let unavailable = fixture.cell.acquire().await.unwrap_err();
    assert!(unavailable.cause.to_string().contains("panicked"), "{}", unavailable.cause);
    sleep(Duration::from_secs(2)).await;
    assert!(fixture.ready().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_expired_token_is_an_error_with_back_off() {
    let fixture = Fixture::new([Step::Token("expired", Duration::ZERO)]);
    let unavailable = fixture.cell.acquire().await.unwrap_err();
    assert!(unavailable.cause.to_string().contains("had expired when it arrived"), "{}", unavailable.cause);
    sleep(MINUTE).await;
    assert!(fixture.calls() < 10, "{}", fixture.calls());
}

#[tokio::test(start_paused = true)]
async fn an_acquisition_that_hangs_does_not_delay_other_credentials() {
    let hanging = Fixture::new([Step::After(HOUR, Box::new(Step::Fresh(HOUR)))]);
    let healthy = Fixture::new([Step::Fresh(HOUR)]);
    hanging.cell.start();
    let started = Instant::now();
    healthy.cell.acquire().await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(hanging.cell.status().state, CredentialState::Starting);
}
