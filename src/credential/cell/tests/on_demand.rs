//! Tokens that are acquired at their first use, and released without use.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_token_on_demand_is_acquired_at_its_first_use_and_released_without_use() {
    let fixture = Fixture::on_demand([Step::Fresh(HOUR)]);
    assert_eq!(fixture.cell.status().state, CredentialState::Unused);
    sleep(24 * HOUR).await;
    assert_eq!(fixture.calls(), 0);
    fixture.cell.acquire().await.unwrap();
    // In use, and so kept fresh, although the first token expires after an hour.
    for _ in 0..6 {
        sleep(30 * MINUTE).await;
        assert!(fixture.ready().is_some());
    }
    sleep(76 * MINUTE).await;
    assert_eq!(fixture.cell.status().state, CredentialState::Unused);
    assert!(!fixture.cell.is_running() && fixture.cell.status().fingerprint.is_none());
    let calls = fixture.calls();
    sleep(24 * HOUR).await;
    assert_eq!(fixture.calls(), calls, "nothing is refreshed for an unused tenant");
    fixture.cell.acquire().await.unwrap();
    assert_eq!((fixture.calls(), fixture.cell.status().state), (calls + 1, CredentialState::Ready));
}

#[tokio::test(start_paused = true)]
async fn a_failing_token_on_demand_is_retried_only_while_callers_ask_for_it() {
    let fixture = Fixture::on_demand([WRONG_SECRET]);
    fixture.app.succeeded();
    fixture.cell.acquire().await.unwrap_err();
    assert!(fixture.app.is_refused() && !fixture.cell.may_serve());
    sleep(76 * MINUTE).await;
    assert_eq!(fixture.cell.status().state, CredentialState::Unused);
    let calls = fixture.calls();
    sleep(24 * HOUR).await;
    assert_eq!(fixture.calls(), calls);
    fixture.cell.acquire().await.unwrap_err();
    assert_eq!(fixture.calls(), calls + 1);
    sleep(Duration::from_secs(75)).await;
    assert_eq!(fixture.calls(), calls + 2, "the back-off did not begin anew");
}

#[tokio::test(start_paused = true)]
async fn tries_of_an_app_without_a_first_token_continue_without_callers() {
    let mut steps = vec![WRONG_SECRET; 40];
    steps.push(Step::Fresh(HOUR));
    let fixture = Fixture::on_demand(steps);
    fixture.cell.acquire().await.unwrap_err();
    assert!(!fixture.app.obtained());
    sleep(4 * HOUR).await;
    assert!(fixture.app.obtained() && !fixture.app.is_refused());
}

#[tokio::test(start_paused = true)]
async fn callers_during_a_release_get_a_token() {
    let fixture = Fixture::on_demand([Step::Fresh(24 * HOUR)]);
    fixture.cell.acquire().await.unwrap();
    // Each look of the refresh task at the use coincides with a caller.
    for _ in 0..200 {
        sleep(HOUR / 4).await;
        if fixture.ready().is_none() {
            fixture.cell.acquire().await.unwrap();
        }
        assert!(fixture.ready().is_some());
        sleep(5 * HOUR / 4).await;
    }
}
