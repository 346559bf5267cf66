//! Squid, a forward proxy.

use tempfile::TempDir;

use super::forward_proxy::{PASSWORD, USER, check_calls, check_death, check_refusal};
use super::server::{Server, folder, free_address};
use super::support::wait_until;

/// A proxy that tunnels for one user.
struct Squid {
    server: Server,
    /// The prefix of its shared memory.
    service: String,
    folder: TempDir,
    url: String,
}

impl Squid {
    /// Starts a proxy with additional rules.
    async fn start(rules: &str) -> Self {
        Self::listen("http", "", rules).await
    }

    async fn listen(scheme: &str, options: &str, rules: &str) -> Self {
        let folder = folder();
        let path = folder.path().to_str().unwrap();
        let address = free_address();
        let options = options.replace("FOLDER", path);
        let configuration = format!(
            "{scheme}_port {address} {options}
            pid_filename none
            cache_log /dev/null
            access_log stdio:{path}/access.log
            coredump_dir {path}
            cache deny all
            shutdown_lifetime 0 seconds
            auth_param basic program /bin/sh {path}/check
            auth_param basic children 1
            acl users proxy_auth REQUIRED
            {rules}
            http_access allow users
            http_access deny all
            "
        );
        std::fs::write(folder.path().join("squid.conf"), configuration).unwrap();
        // Reads a user and a password per line.
        let check = format!("while read -r user; do [ \"$user\" = '{USER} {PASSWORD}' ] && echo OK || echo ERR; done");
        std::fs::write(folder.path().join("check"), check).unwrap();
        if scheme == "https" {
            let rcgen::CertifiedKey { cert, signing_key } =
                rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            std::fs::write(folder.path().join("proxy.pem"), cert.pem() + &signing_key.serialize_pem()).unwrap();
            std::fs::write(folder.path().join("ca.pem"), cert.pem()).unwrap();
        }
        let service = format!("gateway{}", address.port());
        let arguments = ["-N", "-d1", "-n", &service, "-f", "squid.conf"];
        let server = Server::start("/usr/sbin/squid", &arguments, address, folder.path()).await;
        let url = format!("{scheme}://{}", server.address());
        Self { server, service, folder, url }
    }

    async fn wait_until_logged(&self, text: &str) {
        wait_until(&format!("squid has logged {text}"), async || {
            let log = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default();
            log.contains(text).then_some(())
        })
        .await;
    }
}

impl Drop for Squid {
    fn drop(&mut self) {
        self.server.kill();
        for segment in ["metadata", "queues", "readers"] {
            let _may_not_exist = std::fs::remove_file(format!("/dev/shm/{}-cf__{segment}.shm", self.service));
        }
    }
}

#[tokio::test]
async fn calls_and_token_requests_go_through_squid_with_a_password() {
    let squid = Squid::start("").await;
    let (harness, destinations) = check_calls(&squid.url, None).await;
    // Squid logs a tunnel at its end.
    harness.shutdown().await.unwrap();
    for destination in destinations {
        squid.wait_until_logged(&format!("CONNECT {destination} {USER}")).await;
    }
}

#[tokio::test]
async fn squid_with_tls_is_reached_with_its_ca() {
    let squid = Squid::listen("https", "tls-cert=FOLDER/proxy.pem", "").await;
    let ca = std::fs::read_to_string(squid.folder.path().join("ca.pem")).unwrap();
    check_calls(&squid.url, Some(&ca)).await;
}

#[tokio::test]
async fn refusals_of_squid_are_reported() {
    let squid = Squid::start("").await;
    check_refusal(&squid.url, None, "the proxy answered 407: it requires a user name and a password").await;
    check_refusal(&squid.url, Some("wrong"), "the proxy answered 407: it does not accept the user name").await;
    let closed = Squid::start("http_access deny all").await;
    check_refusal(&closed.url, None, "the proxy answered 403: its rules do not allow the destination").await;
}

#[tokio::test]
async fn calls_are_not_delivered_once_squid_has_stopped() {
    let mut squid = Squid::start("").await;
    let (harness, _) = check_calls(&squid.url, None).await;
    squid.server.kill();
    check_death(&harness).await;
}
