//! Squid, a forward proxy.

use std::net::SocketAddr;

use base64::Engine as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::server::{Server, folder, free_address};
use super::support::with_timeout;

/// A proxy that tunnels for one user.
struct Squid {
    server: Server,
    /// The prefix of its shared memory.
    service: String,
    _folder: TempDir,
}

const USER: &str = "gateway:correct horse";

impl Squid {
    async fn start() -> Self {
        let folder = folder();
        let path = folder.path().to_str().unwrap();
        let address = free_address();
        let configuration = format!(
            "http_port {address}
            pid_filename none
            cache_log /dev/null
            access_log stdio:{path}/access.log
            coredump_dir {path}
            cache deny all
            shutdown_lifetime 0 seconds
            auth_param basic program /bin/sh {path}/check
            auth_param basic children 1
            acl users proxy_auth REQUIRED
            http_access allow users
            http_access deny all
            "
        );
        std::fs::write(folder.path().join("squid.conf"), configuration).unwrap();
        // Reads a user and a password per line, percent-encoded.
        let check = format!(
            "while read -r user; do [ \"$user\" = '{}' ] && echo OK || echo ERR; done",
            USER.replacen(':', " ", 1).replace("correct horse", "correct%20horse")
        );
        std::fs::write(folder.path().join("check"), check).unwrap();
        let service = format!("gateway{}", address.port());
        let arguments = ["-N", "-d1", "-n", &service, "-f", "squid.conf"];
        let server = Server::start("/usr/sbin/squid", &arguments, address, folder.path()).await;
        Self { server, service, _folder: folder }
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

/// Asks for a tunnel, and returns the connection and the head of the answer.
async fn connect(proxy: SocketAddr, target: SocketAddr, user: Option<&str>) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let user = user.map(|user| base64::engine::general_purpose::STANDARD.encode(user));
    let user = user.map(|user| format!("proxy-authorization: Basic {user}\r\n")).unwrap_or_default();
    let head = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{user}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(with_timeout("the proxy's answer", stream.read_u8()).await.unwrap());
    }
    (stream, String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn squid_tunnels_for_its_user_alone() {
    let squid = Squid::start().await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = target.local_addr().unwrap();
    let (_refused, answer) = connect(squid.server.address(), address, None).await;
    assert!(answer.starts_with("HTTP/1.1 407 ") && answer.contains("Proxy-Authenticate: Basic "), "{answer}");
    let (mut tunnel, answer) = connect(squid.server.address(), address, Some(USER)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (mut accepted, _) = with_timeout("the tunnel", target.accept()).await.unwrap();
    tunnel.write_all(b"x").await.unwrap();
    assert_eq!(with_timeout("a byte", accepted.read_u8()).await.unwrap(), b'x');
}
