//! Tokens that the endpoint rejects.

use super::*;

#[tokio::test(start_paused = true)]
async fn replaces_a_rejected_token_once_for_all_callers() {
    let fixture = Fixture::new([Step::Fresh(HOUR), Step::After(Duration::from_secs(1), Box::new(Step::Fresh(HOUR)))]);
    fixture.cell.acquire().await.unwrap();
    let rejected = fixture.fingerprint();
    let reports = (0..1000).map(|_| {
        let cell = Arc::clone(&fixture.cell);
        tokio::spawn(async move { cell.replace(rejected).await })
    });
    for report in reports.collect::<Vec<_>>() {
        report.await.unwrap().unwrap();
    }
    assert_ne!(fixture.fingerprint(), rejected);
    assert_eq!(fixture.calls(), 2);
    fixture.cell.replace(rejected).await.unwrap();
    assert_eq!(fixture.calls(), 2, "reporting a token that was already replaced causes no acquisition");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_rejections_in_a_row_cause_one_refresh() {
    let fixture = Fixture::new([Step::Fresh(HOUR)]);
    fixture.cell.acquire().await.unwrap();
    let mut failures = 0;
    for _ in 0..10_000 {
        failures += u32::from(fixture.cell.replace(fixture.fingerprint()).await.is_err());
    }
    assert_eq!((fixture.calls(), failures), (2, 9_999));
    sleep(Duration::from_secs(6)).await;
    fixture.cell.replace(fixture.fingerprint()).await.unwrap();
    assert_eq!(fixture.calls(), 3, "another replacement is allowed later");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_the_source_returns_unchanged_stays_in_service() {
    let fixture = Fixture::new([Step::Token("same", HOUR)]);
    fixture.cell.acquire().await.unwrap();
    let rejected = fixture.fingerprint();
    let unavailable = fixture.cell.replace(rejected).await.unwrap_err();
    assert!(unavailable.cause.to_string().contains("equals the rejected one"), "{}", unavailable.cause);
    assert_eq!(fixture.ready().unwrap().fingerprint(), rejected);
    assert_eq!(fixture.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_stays_in_service_when_the_replacement_fails() {
    let fixture = Fixture::new([Step::Fresh(HOUR), OUTAGE]);
    fixture.cell.acquire().await.unwrap();
    let rejected = fixture.fingerprint();
    let unavailable = fixture.cell.replace(rejected).await.unwrap_err();
    assert!(unavailable.cause.to_string().contains("503"), "{}", unavailable.cause);
    assert_eq!(fixture.fingerprint(), rejected, "another endpoint may accept it");
    assert_eq!(fixture.cell.status().state, CredentialState::Stale);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_does_not_shorten_the_back_off() {
    let throttled = Step::Reject(429, None, Some(Duration::from_secs(120)));
    let fixture = Fixture::new([Step::Fresh(HOUR), throttled, Step::Fresh(HOUR)]);
    fixture.cell.acquire().await.unwrap();
    fixture.cell.replace(fixture.fingerprint()).await.unwrap_err();
    sleep(Duration::from_secs(30)).await;
    fixture.cell.replace(fixture.fingerprint()).await.unwrap_err();
    assert_eq!(fixture.calls(), 2);
    sleep(Duration::from_secs(100)).await;
    assert_eq!((fixture.calls(), fixture.cell.status().state), (3, CredentialState::Ready));
}
