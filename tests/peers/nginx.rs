//! nginx in front of a listener, as an ingress controller: `X-Forwarded-For`, and what callers make up.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::haproxy::{BURST, assert_callers_have_their_own_routes_and_rates, call_from};
use super::server::{Server, folder, free_address};
use super::support::Harness;

/// Starts nginx, which forwards to these servers in turn, with these directives.
pub(super) async fn nginx(upstreams: &[SocketAddr], directives: &str) -> (Server, TempDir) {
    let (folder, address) = (folder(), free_address());
    let path = folder.path().display();
    let servers: Vec<_> = upstreams.iter().map(|upstream| format!("server {upstream} max_fails=0;")).collect();
    let servers = servers.concat();
    let configuration = format!(
        "daemon off; pid {path}/nginx.pid; error_log stderr; worker_processes 1;
        events {{ }}
        http {{
            access_log off;
            client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;
            uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
            upstream upstreams {{ {servers} keepalive 8; }}
            server {{
                listen {address};
                location / {{
                    proxy_pass http://upstreams; proxy_set_header Host 127.0.0.1; proxy_http_version 1.1; proxy_bind 127.0.0.1;
                    {directives}
                }}
            }}
        }}
        "
    );
    std::fs::write(folder.path().join("nginx.conf"), configuration).unwrap();
    let (prefix, file) = (path.to_string(), format!("{path}/nginx.conf"));
    let arguments = ["-p", &prefix, "-c", &file, "-e", "stderr"];
    let server = Server::start("/usr/sbin/nginx", &arguments, address, folder.path()).await;
    (server, folder)
}

async fn gateway(more: &str) -> Harness {
    Harness::start(|options| {
        options.append_toml(&format!(
            "[[routes]]\nname = \"near\"\nmatch = {{ client = \"127.0.0.7\" }}\nendpoints = [\"west\"]\n\
             [[routes]]\nname = \"others\"\nendpoints = [\"east\"]\n\
             [listeners.ingress]\nbind = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n{more}"
        ));
    })
    .await
}

#[tokio::test]
async fn callers_behind_an_ingress_have_their_own_routes_and_rates_whatever_they_send() {
    // An ingress either appends to the caller's header or replaces it.
    for header in ["$proxy_add_x_forwarded_for", "$remote_addr"] {
        let harness = gateway(&format!("client_rate = {{ per_second = 1, burst = {BURST} }}\n")).await;
        let directives = format!("proxy_set_header X-Forwarded-For {header}; proxy_set_header Forwarded \"\";");
        let (proxy, _folder) = nginx(&[harness.listener("ingress")], &directives).await;
        let made_up = [("x-forwarded-for", "127.0.0.7, nonsense"), ("forwarded", "for=127.0.0.7")];
        assert_callers_have_their_own_routes_and_rates(&harness, proxy.address(), &made_up).await;
        harness.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn header_that_an_ingress_forwards_unread_gains_a_caller_nothing() {
    let harness = gateway("clients = [\"127.0.0.0/8\"]\n").await;
    let directives = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
    let (proxy, _folder) = nginx(&[harness.listener("ingress")], directives).await;
    call_from("127.0.0.9", proxy.address(), &[]).await.assert_status(202);
    let refused = call_from("127.0.0.9", proxy.address(), &[("forwarded", "for=127.0.0.7")]).await;
    refused.assert_gateway_error(403, "client_not_allowed");
    let labels = [("listener", "ingress"), ("reason", "conflicting")];
    assert!(harness.metrics().await.sum("caller_address_unclear_total", &labels) > 0.5);
    assert!(harness.arrivals("west").is_empty());
}
