//! `sandbox`: the emulator and a gateway in front of it, in one process. The gateway meets it by an ordinary
//! configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::output::{Outcome, print, usage};
use super::run::{serve, shutdown_signal, write_ready_file};
use super::runtime::control_runtime;
use super::{logging, write_file};
use crate::config::{Sources, load};
use crate::gateway::Addresses;
use crate::sandbox::{Description, GatewayConfig, Sandbox, SandboxSettings, WorldFiles};
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
    /// Describes tenants, apps, identities, endpoints and faults in place of the ready-made two tenants (TOML).
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Put no gateway in front: for a gateway that you run yourself.
    #[arg(long)]
    no_gateway: bool,
    /// Where to write the certificate authority, secrets and the gateway's configuration [default: a folder that is
    /// removed at the end]
    #[arg(long, value_name = "FOLDER")]
    files: Option<PathBuf>,
    /// Where the gateway listens [default: 127.0.0.1:8080]. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "no_gateway")]
    listen: Option<SocketAddr>,
    /// Where the gateway's admin listener listens [default: 127.0.0.1:9090]. Port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "no_gateway")]
    admin: Option<SocketAddr>,
    /// Where the page listens on which a person can watch [default: a free port]
    #[arg(long, value_name = "ADDRESS")]
    page: Option<SocketAddr>,
    /// Once serving, write a JSON file with all addresses and the paths of the configuration and the CA.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// What is to be started.
struct Plan {
    settings: SandboxSettings,
    gateway: GatewayConfig,
    is_described: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    if let Some(file) = &options.ready_file {
        write_file::check(file).context("--ready-file").map_err(usage)?;
    }
    let plan = Plan::of(options)?;
    let temporary = if options.files.is_none() { Some(Folder::make()?) } else { None };
    let folder = options.files.as_deref().or(temporary.as_ref().map(|folder| folder.0.as_path()));
    let folder = std::path::absolute(folder.unwrap_or(Path::new("."))).context("the folder for files has no path")?;
    let threads = sandbox_runtime()?;
    let sandbox = threads.block_on(Sandbox::start(plan.settings.clone()));
    let sandbox = sandbox.map_err(usage).context("the sandbox cannot start")?;
    control_runtime()?.block_on(start(options, &plan, &sandbox, &folder))?;
    Ok(Outcome::Good)
}

/// Makes threads for the sandbox alone: its clients, however many, take no turn from what the gateway has to do.
fn sandbox_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.thread_name("sandbox").enable_all().build().context("cannot start the sandbox's threads")
}

impl Plan {
    fn of(options: &Options) -> anyhow::Result<Self> {
        let (mut settings, mut gateway, is_described) = match &options.config {
            Some(file) => {
                let described = Description::read(file).map_err(usage)?;
                (described.settings, described.gateway, true)
            }
            None => (SandboxSettings::default(), ready_made(), false),
        };
        if let Some(listen) = options.listen {
            gateway.listen = listen.to_string();
        }
        if let Some(admin) = options.admin {
            gateway.admin = admin.to_string();
        }
        if let Some(page) = options.page {
            settings.control = page;
        }
        Ok(Self { settings, gateway, is_described })
    }
}

fn ready_made() -> GatewayConfig {
    GatewayConfig {
        listen: String::from("127.0.0.1:8080"),
        admin: String::from("127.0.0.1:9090"),
        operations: ["messages", "execute", "groups", "queries", "close", "credentials"].map(str::to_owned).to_vec(),
        more: MORE.to_owned(),
        ..GatewayConfig::default()
    }
}

async fn start(options: &Options, plan: &Plan, sandbox: &Sandbox, folder: &Path) -> anyhow::Result<()> {
    let gateway = (!options.no_gateway).then_some(&plan.gateway);
    let files = if plan.is_described {
        sandbox.write_world(folder, gateway)?
    } else {
        let files = sandbox.write_files(folder, &plan.gateway)?;
        WorldFiles { config: gateway.map(|_| files.config), ca: files.ca }
    };
    let announce = |addresses: Option<&Addresses>| {
        if let Some((Some((_, BoundAddress::Tcp(gateway))), admin)) =
            addresses.map(|addresses| (addresses.listeners.first(), addresses.admin))
        {
            sandbox.introduce_gateway(*gateway, admin);
        }
        if let Some(file) = &options.ready_file {
            write_ready_file(file, &ready(sandbox, addresses, &files))?;
        }
        let invitation = invitation(sandbox, addresses, &files, plan.is_described)?;
        // Nobody may be reading.
        logging::within(logging::LAST_LINES, move || {
            let _what_is_served_is_served = print(format_args!("{invitation}"));
        });
        Ok(())
    };
    let Some(config) = &files.config else {
        announce(None)?;
        shutdown_signal()?.await;
        return Ok(());
    };
    let loaded = load(&Sources { file: Some(config.clone()), ..Sources::default() })?;
    logging::init(&loaded.settings.logging)?;
    let served = serve(loaded.settings, None, |addresses| announce(Some(addresses)));
    served.await.map_err(|err| if err.to_string().contains("in use") { usage(hint(&err, &plan.gateway)) } else { err })
}

/// A port that is taken is the commonest way to meet the sandbox first.
fn hint(err: &anyhow::Error, gateway: &GatewayConfig) -> anyhow::Error {
    let GatewayConfig { listen, admin, .. } = gateway;
    anyhow::anyhow!("{err:#} (here: --listen and --admin, now {listen} and {admin}; port 0 takes a free one)")
}

fn gateway_address(addresses: &Addresses) -> String {
    addresses.listeners.first().map(|(_, address)| address.to_string()).unwrap_or_default()
}

fn ready(sandbox: &Sandbox, addresses: Option<&Addresses>, files: &WorldFiles) -> serde_json::Value {
    let endpoints: serde_json::Map<_, _> =
        sandbox.endpoints().iter().map(|endpoint| (endpoint.name().to_owned(), endpoint.url().into())).collect();
    json!({
        "gateway": addresses.map(|addresses| format!("http://{}", gateway_address(addresses))),
        "admin": addresses.and_then(|addresses| addresses.admin).map(|admin| format!("http://{admin}")),
        "entra": sandbox.entra().url(),
        "imds": sandbox.imds().url(),
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

fn invitation(
    sandbox: &Sandbox,
    addresses: Option<&Addresses>,
    files: &WorldFiles,
    is_described: bool,
) -> anyhow::Result<String> {
    let (Some(addresses), Some(config)) = (addresses, &files.config) else {
        return Ok(format!(
            "Watch: {}\n\nsignalr-gateway sandbox, with no gateway in front.\n{}\nStop with Ctrl-C.",
            page(sandbox),
            whereabouts(sandbox, files)
        ));
    };
    let gateway = gateway_address(addresses);
    let admin = addresses.admin.map(|admin| admin.to_string()).unwrap_or_default();
    let program = std::env::current_exe().context("cannot tell the path of this program")?;
    let send = format!("http://{gateway}/api/hubs/chat/:send?api-version=2022-11-01");
    let what = if is_described {
        format!("signalr-gateway sandbox, and a gateway at http://{gateway}.\n{}", whereabouts(sandbox, files))
    } else {
        format!(
            "signalr-gateway sandbox: an emulated Entra, two emulated SignalR endpoints (east in tenant B, west in tenant C),
and a gateway at http://{gateway} that calls them as an app of tenant A. No Azure account is involved."
        )
    };
    Ok(format!(
        "Watch, and send: {page}

{what}

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
        config = config.display(),
    ))
}

fn whereabouts(sandbox: &Sandbox, files: &WorldFiles) -> String {
    let endpoints =
        sandbox.endpoints().iter().map(|endpoint| format!("Endpoint {}: {}\n", endpoint.name(), endpoint.url()));
    format!(
        "Entra: {}\n{}Control: {}\nCertificate authority: {}",
        sandbox.entra().url(),
        endpoints.collect::<String>(),
        sandbox.control().url(),
        files.ca.display()
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_page_comes_first_without_a_gateway_too() {
        let sandbox = Sandbox::start(SandboxSettings::default()).await.unwrap();
        let files = WorldFiles { config: None, ca: PathBuf::from("ca.pem") };
        let said = invitation(&sandbox, None, &files, true).unwrap();
        assert!(said.starts_with(&format!("Watch: {}/\n", sandbox.control().url())), "{said}");
        assert!(!said.contains("curl"), "{said}");
    }
}
