//! curl, whose rules `no_proxy` follows.

use std::process::Command;

use signalr_gateway::egress::NoProxy;

/// Returns whether curl connects to a host without the proxy.
fn connects_directly(list: &str, host: &str) -> bool {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    // Nothing listens at either address. curl says which one it tries.
    let curl = Command::new("/usr/bin/curl")
        .args(["--verbose", "--silent", "--max-time", "20", "--proxy", "http://127.0.0.1:1", "--noproxy", list])
        .args(["--connect-to", "::127.0.0.1:2", &format!("http://{host}/")])
        .env_clear()
        .output()
        .unwrap();
    let log = String::from_utf8(curl.stderr).unwrap();
    let tried = |port: u16| log.contains(&format!("Trying 127.0.0.1:{port}"));
    assert!(tried(1) != tried(2), "{log}");
    tried(2)
}

#[test]
fn no_proxy_matches_what_curl_matches() {
    // Without networks of IPv6 addresses, which curl 7.88 takes for names although it documents them.
    let lists = [
        "example.com",
        ".example.com",
        "example.com.",
        "EXAMPLE.com",
        "a.example,b.example",
        "a.example b.example",
        "10.0.0.1",
        "10.0.0.0/8",
        "10.1.2.3/8",
        "192.168.0.0/16,example.com",
        "localhost",
        "127.0.0.1",
        "::1",
        "example.com:80",
        "*",
        "*.example.com",
        "*,example.com",
        "ple.com",
        "com",
    ];
    let hosts = [
        "example.com",
        "www.example.com",
        "notexample.com",
        "example.com.example",
        "a.example",
        "b.example",
        "localhost",
        "10.0.0.1",
        "10.255.0.1",
        "11.0.0.1",
        "192.168.3.4",
        "127.0.0.1",
        "::1",
        "fd12::1",
        "fe80::1",
    ];
    for list in lists {
        let (ours, _) = NoProxy::parse(NoProxy::split_variable(list));
        for host in hosts {
            assert_eq!(ours.matches(host), connects_directly(list, host), "{list:?} {host}");
        }
    }
}
