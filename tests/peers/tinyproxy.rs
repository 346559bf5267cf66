//! tinyproxy, a forward proxy.

use tempfile::TempDir;

use super::forward_proxy::{PASSWORD, USER, check_calls, check_death, check_refusal};
use super::server::{Server, folder, free_address};

/// A proxy that tunnels for one user.
struct Tinyproxy {
    server: Server,
    url: String,
    _folder: TempDir,
}

impl Tinyproxy {
    /// Starts a proxy with additional directives.
    async fn start(directives: &str) -> Self {
        let (folder, address) = (folder(), free_address());
        let configuration = format!("Port {}\nListen {}\nTimeout 600\n{directives}\n", address.port(), address.ip());
        std::fs::write(folder.path().join("tinyproxy.conf"), configuration).unwrap();
        let server = Server::start("/usr/bin/tinyproxy", &["-d", "-c", "tinyproxy.conf"], address, folder.path()).await;
        Self { url: format!("http://{}", server.address()), server, _folder: folder }
    }
}

#[tokio::test]
async fn calls_and_token_requests_go_through_tinyproxy_until_it_stops() {
    let mut proxy = Tinyproxy::start(&format!("BasicAuth {USER} {PASSWORD}")).await;
    let (harness, _) = check_calls(&proxy.url, None).await;
    proxy.server.kill();
    check_death(&harness).await;
}

#[tokio::test]
async fn refusals_of_tinyproxy_are_reported() {
    let proxy = Tinyproxy::start(&format!("BasicAuth {USER} {PASSWORD}")).await;
    check_refusal(&proxy.url, None, "the proxy answered 407: it requires a user name and a password").await;
    check_refusal(&proxy.url, Some("wrong"), "the proxy answered 401: it does not accept the user name").await;
    let closed = Tinyproxy::start("ConnectPort 443").await;
    check_refusal(&closed.url, None, "the proxy answered 403: its rules do not allow the destination").await;
}
