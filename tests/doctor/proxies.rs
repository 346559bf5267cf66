//! Rows about the forward proxy of outgoing connections.

use signalr_gateway::credential::SetupStep;
use signalr_gateway::sandbox::CredentialChoice;

use super::connect_proxy::{ConnectProxy, ProxyAnswer};
use super::setup::Setup;
use super::table::{Row, row};

pub(super) const ROWS: &[Row] = {
    use CredentialChoice::ClientSecret;
    use SetupStep as Step;
    &[
        row(
            "the proxy requires a password",
            ClientSecret,
            |setup| configure(setup, &refusing("407 x\r\nproxy-authenticate: Basic realm=\"corp\"")),
            Step::Proxy,
            "set `username` and `password` of the proxy (`egress.proxy`)",
        ),
        row(
            "the proxy does not accept the password",
            ClientSecret,
            |setup| {
                let url = refusing("407 x");
                std::fs::write(setup.file("password"), "wrong").unwrap();
                configure(setup, &format!("{url}\"\nusername = \"gateway\"\npassword.file = \"password"));
            },
            Step::Proxy,
            "correct `username` and `password`",
        ),
        row(
            "the proxy's rules forbid the destination",
            ClientSecret,
            |setup| configure(setup, &refusing("403 Forbidden")),
            Step::Proxy,
            "allow CONNECT from this host",
        ),
        row(
            "the proxy cannot reach the destination",
            ClientSecret,
            |setup| configure(setup, &refusing("502 Bad Gateway")),
            Step::Proxy,
            "egress.no_proxy",
        ),
        row(
            "the proxy is another kind of server",
            ClientSecret,
            |setup| {
                let proxy = ConnectProxy::start();
                proxy.answer(ProxyAnswer::Bytes(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()));
                configure(setup, &proxy.leak());
            },
            Step::Proxy,
            "is a forward proxy that allows CONNECT",
        ),
        row(
            "the proxy does not run",
            ClientSecret,
            |setup| configure(setup, "http://127.0.0.1:1"),
            Step::Proxy,
            "allow this host to connect to it",
        ),
        row(
            "the name of the proxy does not resolve",
            ClientSecret,
            |setup| configure(setup, "http://proxy.nowhere.invalid:3128"),
            Step::Proxy,
            "resolve the name of the proxy",
        ),
        row(
            "the certificate of the proxy is of another CA",
            ClientSecret,
            |setup| {
                let url = ConnectProxy::start_tls().leak();
                configure(setup, &format!("{url}\"\nca_file = \"ca.pem"));
            },
            Step::Proxy,
            "`ca_file` of the proxy",
        ),
        row(
            "the proxy inspects TLS with Entra",
            ClientSecret,
            |setup| configure(setup, &inspecting()),
            Step::IdentityEndpoint,
            "set `credentials.east.ca_file` to the PEM file of its CA",
        ),
        row(
            "the proxy inspects TLS with the endpoint",
            ClientSecret,
            |setup| configure_endpoint(setup, &inspecting()),
            Step::EndpointNetwork,
            "set `endpoints.east.ca_file` to the PEM file of its CA",
        ),
        row(
            "the proxy forbids the endpoint",
            ClientSecret,
            |setup| configure_endpoint(setup, &refusing("403 Forbidden")),
            Step::Proxy,
            "allow CONNECT from this host",
        ),
    ]
};

/// Configures the proxy of all connections.
fn configure(setup: &Setup, url: &str) {
    setup.rewrite_first("[credentials.east]", &format!("[egress]\nproxy = \"{url}\"\n\n[credentials.east]"));
}

/// Configures the proxy of connections to `east`.
fn configure_endpoint(setup: &Setup, url: &str) {
    let before = "credential = \"east\"\n";
    setup.rewrite_first(before, &format!("{before}proxy = \"{url}\"\n"));
}

/// Starts a proxy that refuses every tunnel, and returns its URL.
fn refusing(head: &str) -> String {
    let proxy = ConnectProxy::start();
    proxy.refuse(head);
    proxy.leak()
}

/// Starts a proxy that presents certificates of its own, and returns its URL.
fn inspecting() -> String {
    let proxy = ConnectProxy::start();
    proxy.answer(ProxyAnswer::Inspect);
    proxy.leak()
}
