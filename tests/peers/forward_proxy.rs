//! A gateway behind a forward proxy: what every proxy must do with its connections.

use super::support::{Harness, HarnessBuilder, wait_until};

pub(super) const USER: &str = "gateway";
pub(super) const PASSWORD: &str = "correct-horse";

/// Starts a gateway whose connections go through a proxy. `ca` is the PEM of the CA of an `https://` proxy.
async fn start(url: &str, password: Option<&str>, ca: Option<&str>, wait_until_ready: bool) -> Harness {
    let builder = HarnessBuilder::start().await;
    let file = |name: &str, content: &str| {
        let path = builder.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut keys = vec![("egress.proxy", url.to_owned())];
    if let Some(password) = password {
        keys.push(("egress.username", USER.to_owned()));
        keys.push(("egress.password.file", file("password", password)));
    }
    if let Some(ca) = ca {
        keys.push(("egress.ca_file", file("proxy.pem", ca)));
    }
    let change = |options: &mut super::support::GatewayOptions| {
        for (key, value) in &keys {
            options.set(key, value);
        }
        options.wait_until_ready = wait_until_ready;
    };
    builder.start_gateway(change).await
}

/// Checks that a call and the token requests go through the proxy. Returns the gateway and the destinations of the tunnels.
pub(super) async fn check_calls(url: &str, ca: Option<&str>) -> (Harness, [String; 2]) {
    let harness = start(url, Some(PASSWORD), ca, true).await;
    harness.broadcast().await.assert_status(202);
    assert_eq!(harness.arrivals("east").len(), 1);
    let urls = [harness.sandbox.entra().url(), harness.endpoint("east").url()];
    (harness, urls.map(|url| url.strip_prefix("https://").unwrap().to_owned()))
}

/// Checks that a refusal of the proxy is the reported reason, and that no call reaches an endpoint.
pub(super) async fn check_refusal(url: &str, password: Option<&str>, reason: &str) {
    let harness = start(url, password, None, false).await;
    let error = wait_until("the token request has failed", async || {
        harness.credential("east").await["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(error.contains(reason) && error.contains(url), "{error}");
    assert!(!error.contains(PASSWORD), "{error}");
    harness.broadcast().await.assert_gateway_error(503, "token_unavailable");
    let labels = [("credential", "east"), ("reason", "proxy")];
    assert!(harness.metrics().await.sum("token_errors_total", &labels) >= 1.0);
    assert!(harness.arrivals("east").is_empty() && harness.arrivals("west").is_empty());
}

/// Checks that no call is delivered once the proxy has died, and that the proxy is the reported reason.
pub(super) async fn check_death(harness: &Harness) {
    harness.clear_arrivals();
    wait_until("a call has failed at the proxy", async || {
        let answer = harness.broadcast().await;
        // A call on a connection that the proxy's end has just closed may be answered 502.
        assert!(answer.status.is_server_error(), "{answer:?}");
        let labels = [("endpoint", "east"), ("reason", "proxy")];
        (harness.metrics().await.sum("upstream_errors_total", &labels) >= 1.0).then_some(())
    })
    .await;
    assert!(harness.arrivals("east").is_empty() && harness.arrivals("west").is_empty());
}
