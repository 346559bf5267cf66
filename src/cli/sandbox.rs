//! `sandbox`: the emulator and a gateway in front of it, in one process. The gateway meets it by an ordinary
//! configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::run::{control_runtime, serve, write_ready_file};
use super::{Outcome, logging, print, usage};
use crate::config::{Sources, load};
use crate::gateway::Addresses;
use crate::sandbox::{Files, GatewayConfig, Sandbox, SandboxSettings};
use crate::serve::BoundAddress;

/// A message goes to both endpoints, so that it can be seen to arrive on both; and nothing waits at the end.
const MORE: &str = r#"[[routes]]
name = "everywhere"
endpoints = ["east", "west"]
pick = "all"

[shutdown]
delay = "0s"
"#;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Where the gateway listens. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the gateway's admin listener listens. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9090")]
    admin: SocketAddr,
    /// Where the page listens on which a person can watch. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    page: SocketAddr,
    /// Once serving, write a JSON file with all addresses and the paths of the configuration and the CA.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let folder = Folder::make()?;
    control_runtime()?.block_on(start(options, &folder.0))?;
    Ok(Outcome::Good)
}

async fn start(options: &Options, folder: &Path) -> anyhow::Result<()> {
    let settings = SandboxSettings { control: options.page, ..SandboxSettings::default() };
    let sandbox = Sandbox::start(settings).await.context("the sandbox cannot start")?;
    let config = GatewayConfig {
        listen: options.listen.to_string(),
        admin: options.admin.to_string(),
        operations: ["messages", "groups", "queries", "close", "credentials"].map(str::to_owned).to_vec(),
        more: MORE.to_owned(),
        ..GatewayConfig::default()
    };
    let files = sandbox.write_files(folder, &config)?;
    let loaded = load(&Sources { file: Some(files.config.clone()), ..Sources::default() })?;
    logging::init(&loaded.settings.logging)?;
    let served = serve(loaded.settings, None, |addresses| {
        if let Some((_, BoundAddress::Tcp(gateway))) = addresses.listeners.first() {
            sandbox.introduce_gateway(*gateway, addresses.admin);
        }
        if let Some(file) = &options.ready_file {
            write_ready_file(file, &ready(&sandbox, addresses, &files))?;
        }
        print(format_args!("{}", invitation(&sandbox, addresses, &files)?)).map(|_| ())
    });
    served.await.map_err(|err| if err.to_string().contains("in use") { usage(hint(&err, options)) } else { err })
}

/// A port that is taken is the commonest way to meet the sandbox first.
fn hint(err: &anyhow::Error, options: &Options) -> anyhow::Error {
    let Options { listen, admin, .. } = options;
    anyhow::anyhow!("{err:#} (here: --listen and --admin, now {listen} and {admin}; port 0 takes a free one)")
}

fn gateway_address(addresses: &Addresses) -> String {
    addresses.listeners.first().map(|(_, address)| address.to_string()).unwrap_or_default()
}

fn ready(sandbox: &Sandbox, addresses: &Addresses, files: &Files) -> serde_json::Value {
    let endpoints: serde_json::Map<_, _> =
        sandbox.endpoints().iter().map(|endpoint| (endpoint.name().to_owned(), endpoint.url().into())).collect();
    json!({
        "gateway": format!("http://{}", gateway_address(addresses)),
        "admin": addresses.admin.map(|admin| format!("http://{admin}")),
        "entra": sandbox.entra().url(),
        "control": sandbox.control().url(),
        "page": page(sandbox),
        "endpoints": endpoints,
        "config": files.config,
        "ca": files.ca,
    })
}

fn page(sandbox: &Sandbox) -> String {
    format!("{}/", sandbox.control().url())
}

fn invitation(sandbox: &Sandbox, addresses: &Addresses, files: &Files) -> anyhow::Result<String> {
    let gateway = gateway_address(addresses);
    let admin = addresses.admin.map(|admin| admin.to_string()).unwrap_or_default();
    let program = std::env::current_exe().context("cannot tell the path of this program")?;
    let send = format!("http://{gateway}/api/hubs/chat/:send?api-version=2022-11-01");
    Ok(format!(
        "Watch, and send: {page}

signalr-gateway sandbox: an emulated Entra, two emulated SignalR endpoints (east in tenant B, west in tenant C),
and a gateway at http://{gateway} that calls them as an app of tenant A. No Azure account is involved.

Send a broadcast, with no auth:
  curl -i -X POST '{send}' -H 'content-type: application/json' -d '{{\"target\":\"hello\",\"arguments\":[\"world\"]}}'

See what was counted:
  curl -s http://{admin}/metrics | grep ^signalr_gateway_requests_total

See where a call goes, and why:
  {program} explain --config {config} POST '{send}'

The gateway's status as a page: http://{admin}/
Its configuration: {config}
Stop with Ctrl-C.",
        page = page(sandbox),
        program = program.display(),
        config = files.config.display(),
    ))
}

/// A folder of this run's own, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn make() -> anyhow::Result<Self> {
        let name = format!("signalr-gateway-sandbox-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_behind_in_the_temporary_folder = std::fs::remove_dir_all(&self.0);
    }
}
