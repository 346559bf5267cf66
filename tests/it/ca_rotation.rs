//! CA files of endpoints and authorities that change while the gateway serves.

use crate::support::{ConnectProxy, GatewayOptions, Harness, HarnessBuilder, wait_until};

/// Returns the certificate of a CA that has issued nothing.
fn other_ca() -> String {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

/// Replaces the CA file of all endpoints and authorities, by rename.
fn replace_ca(harness: &Harness, pem: &str) {
    let next = harness.folder.path().join("next.pem");
    std::fs::write(&next, pem).unwrap();
    std::fs::rename(next, harness.folder.path().join("ca.pem")).unwrap();
}

fn one_worker(options: &mut GatewayOptions) {
    options.set("process.workers", "1");
}

async fn refused(harness: &Harness) -> f64 {
    harness.metrics().await.sum("ca_files_refused", &[])
}

async fn connects(harness: &Harness) -> f64 {
    harness.metrics().await.sum("upstream_connects_total", &[("endpoint", "east"), ("result", "ok")])
}

#[tokio::test]
async fn endpoints_get_new_connections_when_their_ca_file_changes() {
    let harness = Harness::start(one_worker).await;
    let ca = std::fs::read_to_string(harness.folder.path().join("ca.pem")).unwrap();
    harness.broadcast().await.assert_status(202);
    harness.broadcast().await.assert_status(202);
    let before = connects(&harness).await;

    replace_ca(&harness, &format!("{}{ca}", other_ca()));
    wait_until("a call uses a new connection", async || {
        harness.broadcast().await.assert_status(202);
        (connects(&harness).await > before + 0.5).then_some(())
    })
    .await;
    // A CA that is no longer trusted is not trusted by open connections either.
    replace_ca(&harness, &other_ca());
    wait_until("no endpoint is trusted", async || (harness.broadcast().await.status == 503).then_some(())).await;
    assert!(harness.metrics().await.sum("upstream_errors_total", &[("reason", "tls")]) > 0.5);
    let reloads = harness.metrics().await.sum("config_reloads_total", &[]);
    assert!(reloads < 0.5, "{reloads} reloads");
    replace_ca(&harness, &ca);
    wait_until("the endpoint is trusted again", async || (harness.broadcast().await.status == 202).then_some(())).await;
}

#[tokio::test]
async fn ca_file_that_cannot_be_used_changes_nothing_and_is_shown() {
    let harness = Harness::start(one_worker).await;
    let ca = std::fs::read_to_string(harness.folder.path().join("ca.pem")).unwrap();
    for broken in [&ca[..ca.len() / 2], "no certificate", ""] {
        replace_ca(&harness, broken);
        wait_until("the file is refused", async || (refused(&harness).await > 0.5).then_some(())).await;
        harness.broadcast().await.assert_status(202);
        let status = harness.admin("/status").await.json();
        let problems = status["refused_ca_files"].as_array().unwrap().clone();
        assert!(problems.iter().all(|problem| problem.as_str().unwrap().contains("ca.pem")), "{problems:?}");
        replace_ca(&harness, &ca);
        wait_until("nothing is refused", async || (refused(&harness).await < 0.5).then_some(())).await;
    }
    harness.broadcast().await.assert_status(202);
}

#[tokio::test]
async fn token_is_acquired_as_soon_as_the_authoritys_ca_file_is_the_right_one() {
    let builder = HarnessBuilder::start().await;
    let ca = builder.sandbox.ca_pem().to_owned();
    let folder = builder.folder.path().to_owned();
    let harness = builder
        .start_gateway(|options| {
            options.wait_until_ready = false;
            options.set("credentials.east.ca_file", folder.join("authority.pem").to_str().unwrap());
            std::fs::write(folder.join("authority.pem"), other_ca()).unwrap();
        })
        .await;
    wait_until("the authority is not trusted", async || {
        harness.credential("east").await["last_error"].as_str().filter(|text| text.contains("certificate")).map(|_| ())
    })
    .await;
    std::fs::write(folder.join("authority.pem"), ca).unwrap();
    harness.wait_until_credentials_are("ready").await;
    harness.broadcast().await.assert_status(202);
}

#[tokio::test]
async fn connections_to_a_proxy_follow_its_ca_file() {
    let proxy = ConnectProxy::start_tls();
    let builder = HarnessBuilder::start().await;
    let ca_file = builder.folder.path().join("proxy.pem");
    std::fs::write(&ca_file, proxy.certificate()).unwrap();
    let harness = builder
        .start_gateway(|options| {
            one_worker(options);
            options.set("egress.proxy", &proxy.url()).set("egress.ca_file", ca_file.to_str().unwrap());
        })
        .await;
    harness.broadcast().await.assert_status(202);

    std::fs::write(&ca_file, "half of a file").unwrap();
    wait_until("the file is refused", async || (refused(&harness).await > 0.5).then_some(())).await;
    harness.broadcast().await.assert_status(202);
    std::fs::write(&ca_file, other_ca()).unwrap();
    wait_until("the proxy is not trusted", async || (harness.broadcast().await.status == 503).then_some(())).await;
    let proxy_errors = [("endpoint", "east"), ("reason", "proxy")];
    assert!(harness.metrics().await.sum("upstream_errors_total", &proxy_errors) > 0.5);
    std::fs::write(&ca_file, proxy.certificate()).unwrap();
    wait_until("the proxy is trusted again", async || (harness.broadcast().await.status == 202).then_some(())).await;
    assert!(refused(&harness).await < 0.5);
}
