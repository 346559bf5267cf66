//! `sandbox`: runs the sandbox and a gateway in front of it in one process. The gateway uses an ordinary configuration file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::output::{Outcome, print, usage};
use super::run::{Surroundings, serve, shutdown_signal, write_ready_file};
use super::runtime::control_runtime;
use super::sandbox_ready::{ReadyAppService, ReadyApplication, ReadyOAuth2, ReadyTokenRequest, SandboxReady, VERSION};
use super::{logging, write_file};
use crate::config::{Sources, load};
use crate::gateway::Addresses;
use crate::sandbox::{
    Application, DescribedFiles, Description, Directory, Endpoint, GatewayConfig, OAUTH2_CLIENT_ID, Sandbox,
    SandboxSettings, SecretText,
};
use crate::serve::BoundAddress;

/// The rest of the built-in configuration. Each message goes to both endpoints, and a shutdown has no delay.
const ROUTES_AND_SHUTDOWN: &str = r#"[[routes]]
name = "everywhere"
endpoints = ["east", "west"]
pick = "all"

[shutdown]
delay = "0s"
"#;

#[derive(Debug, Args)]
pub(super) struct Options {
    /// TOML file with tenants, apps, identities, endpoints and faults that replace the built-in ones.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run no gateway, for use with your own.
    #[arg(long)]
    no_gateway: bool,
    /// Folder for the CA certificate, secrets and the gateway's configuration [default: a temporary folder]
    #[arg(long, value_name = "FOLDER")]
    files: Option<PathBuf>,
    /// Address of the gateway [default: 127.0.0.1:8080]. Port 0 selects a free port.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "no_gateway")]
    listen: Option<SocketAddr>,
    /// Address of the gateway's admin listener [default: 127.0.0.1:9090]. Port 0 selects a free port.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "no_gateway")]
    admin: Option<SocketAddr>,
    /// Address of the web page that shows messages and connections [default: a free port]
    #[arg(long, value_name = "ADDRESS")]
    page: Option<SocketAddr>,
    /// JSON file to write once serving, with all addresses and the paths of the configuration and the CA certificate.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Host name by which others reach the sandbox, in all URLs and certificates. Overrides `public_host` of --config.
    #[arg(long, value_name = "NAME", requires = "config")]
    public_host: Option<String>,
    /// Stop when stdin is closed, which is at the latest when the parent process ends.
    #[arg(long)]
    exit_with_stdin: bool,
}

/// The settings of the sandbox and of the gateway.
struct Plan {
    settings: SandboxSettings,
    gateway: GatewayConfig,
    has_description: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    if let Some(file) = &options.ready_file {
        write_file::check(file).context("--ready-file").map_err(usage)?;
    }
    let plan = Plan::of(options)?;
    let temporary = if options.files.is_none() { Some(TemporaryFolder::create()?) } else { None };
    let folder = options.files.as_deref().or(temporary.as_ref().map(|folder| folder.0.as_path()));
    let folder =
        std::path::absolute(folder.unwrap_or(Path::new("."))).context("cannot resolve the folder of --files")?;
    let threads = sandbox_runtime()?;
    let sandbox = threads.block_on(Sandbox::start(plan.settings.clone()));
    let sandbox = sandbox.map_err(usage).context("the sandbox cannot start")?;
    control_runtime()?.block_on(start(options, &plan, &sandbox, &folder))?;
    Ok(Outcome::Success)
}

/// Creates a multi-threaded runtime for the sandbox, so that its clients do not delay the gateway.
fn sandbox_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.thread_name("sandbox").enable_all().build().context("cannot start the sandbox's threads")
}

impl Plan {
    fn of(options: &Options) -> anyhow::Result<Self> {
        let (mut settings, mut gateway, has_description) = match &options.config {
            Some(file) => {
                let described = Description::read(file).map_err(usage)?;
                (described.settings, described.gateway, true)
            }
            None => (SandboxSettings::default(), built_in_gateway(), false),
        };
        if let Some(listen) = options.listen {
            gateway.listen = listen.to_string();
        }
        if let Some(admin) = options.admin {
            gateway.admin = admin.to_string();
        }
        if let Some(host) = &options.public_host {
            gateway.hosts = vec![host.clone()];
            settings.public_host = Some(host.clone());
        }
        if let Some(page) = options.page {
            settings.control = page;
        }
        Ok(Self { settings, gateway, has_description })
    }
}

fn built_in_gateway() -> GatewayConfig {
    GatewayConfig {
        listen: String::from("127.0.0.1:8080"),
        admin: String::from("127.0.0.1:9090"),
        operations: ["messages", "execute", "groups", "queries", "close", "credentials", "claims"]
            .map(str::to_owned)
            .to_vec(),
        more: ROUTES_AND_SHUTDOWN.to_owned(),
        ..GatewayConfig::default()
    }
}

async fn start(options: &Options, plan: &Plan, sandbox: &Sandbox, folder: &Path) -> anyhow::Result<()> {
    let gateway = (!options.no_gateway).then_some(&plan.gateway);
    let files = if plan.has_description {
        sandbox.write_described_files(folder, gateway)?
    } else {
        let files = sandbox.write_files(folder, &plan.gateway)?;
        DescribedFiles { config: gateway.map(|_| files.config), ca: files.ca }
    };
    let announce = |addresses: Option<&Addresses>| {
        if let Some((Some((_, BoundAddress::Tcp(gateway))), admin)) =
            addresses.map(|addresses| (addresses.listeners.first(), addresses.admin))
        {
            sandbox.set_gateway(*gateway, admin);
        }
        let ready = ready_file(sandbox, addresses, &files, folder)?;
        if let Some(file) = &options.ready_file {
            write_ready_file(file, &ready)?;
        }
        sandbox.set_ready(ready);
        if options.exit_with_stdin {
            exit_with_stdin()?;
        }
        let instructions = instructions(sandbox, addresses, &files, plan.has_description)?;
        // Stdout may be a pipe without a reader.
        logging::run_with_timeout(logging::FLUSH_TIMEOUT, move || {
            let _ignored = print(format_args!("{instructions}"));
        });
        Ok(())
    };
    let Some(config) = &files.config else {
        let shutdown = shutdown_signal()?;
        announce(None)?;
        shutdown.await;
        return Ok(());
    };
    let loaded = load(&Sources { file: Some(config.clone()), ..Sources::default() })?;
    logging::init(&loaded.settings.logging)?;
    let surroundings = Surroundings::of_file(config.clone());
    let served = serve(loaded.settings, surroundings, |addresses| announce(Some(addresses)));
    served.await.map_err(|err| if err.to_string().contains("in use") { usage(hint(&err, &plan.gateway)) } else { err })
}

/// Adds the relevant options to the most common error of a first start: an address in use.
fn hint(err: &anyhow::Error, gateway: &GatewayConfig) -> anyhow::Error {
    let GatewayConfig { listen, admin, .. } = gateway;
    anyhow::anyhow!("{err:#} (set --listen and --admin, now {listen} and {admin}; port 0 selects a free port)")
}

fn gateway_url(sandbox: &Sandbox, addresses: &Addresses) -> Option<String> {
    let (_, address) = addresses.listeners.first()?;
    Some(match address {
        BoundAddress::Tcp(address) => sandbox.url_of(*address),
        BoundAddress::Unix(_) => address.to_string(),
    })
}

fn ready_file(
    sandbox: &Sandbox,
    addresses: Option<&Addresses>,
    files: &DescribedFiles,
    folder: &Path,
) -> anyhow::Result<serde_json::Value> {
    let by_name = |value: &dyn Fn(&Endpoint) -> String| {
        sandbox.endpoints().iter().map(|endpoint| (endpoint.name().to_owned(), value(endpoint))).collect()
    };
    let connection_string = |endpoint: &Endpoint| {
        format!("Endpoint={};AccessKey={};Version=1.0;", endpoint.url(), endpoint.access_key().expose())
    };
    let tenant_of = |endpoint: &Endpoint| {
        let tenant =
            |directory: &Directory| directory.resource(endpoint.name()).map(|resource| resource.tenant.clone());
        sandbox.directory().read(tenant).unwrap_or_default()
    };
    let applications = |directory: &Directory| {
        let application = |application: &Application| ReadyApplication {
            client_id: application.client_id.clone(),
            home_tenant: application.home_tenant.clone(),
            secret: application.secrets.first().map(|secret| secret.value.expose().to_owned()),
        };
        directory.applications.iter().map(application).collect()
    };
    let (app_service, github, pipelines, oauth2) =
        (sandbox.app_service_identity(), sandbox.github_actions(), sandbox.azure_pipelines(), sandbox.oauth2_client());
    let token_request =
        |(url, token): (String, SecretText)| ReadyTokenRequest { url, token: token.expose().to_owned() };
    let ready = SandboxReady {
        version: VERSION,
        pid: std::process::id(),
        gateway: addresses.and_then(|addresses| gateway_url(sandbox, addresses)),
        admin: addresses.and_then(|addresses| addresses.admin).map(|admin| sandbox.url_of(admin)),
        control: sandbox.control().url(),
        page: page(sandbox),
        endpoints: by_name(&Endpoint::url),
        connection_strings: by_name(&connection_string),
        tenants: by_name(&tenant_of),
        applications: sandbox.directory().read(applications),
        entra: sandbox.entra().url(),
        imds: sandbox.imds().url(),
        app_service: ReadyAppService { endpoint: app_service.0, header: app_service.1.expose().to_owned() },
        providers: sandbox.providers().url(),
        github_actions: token_request(github),
        azure_pipelines: token_request(pipelines),
        oauth2: ReadyOAuth2 {
            token_url: oauth2.0,
            client_id: OAUTH2_CLIENT_ID.to_owned(),
            secret: oauth2.1.expose().to_owned(),
        },
        gcp_metadata: sandbox.gcp_metadata().url(),
        files: folder.to_owned(),
        config: files.config.clone(),
        ca: files.ca.clone(),
        ca_pem: sandbox.ca_pem().to_owned(),
    };
    serde_json::to_value(ready).context("cannot write the ready file")
}

/// Ends the program as SIGTERM does once stdin is closed, which happens at the latest when the parent process ends.
fn exit_with_stdin() -> anyhow::Result<()> {
    let thread = std::thread::Builder::new().name("stdin".to_owned());
    // The thread is detached, because reading cannot be interrupted.
    let started = thread.spawn(|| {
        let _read = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        if rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).is_err() {
            std::process::exit(1);
        }
    });
    started.map(drop).context("cannot read stdin")
}

fn page(sandbox: &Sandbox) -> String {
    format!("{}/", sandbox.control().url())
}

fn instructions(
    sandbox: &Sandbox,
    addresses: Option<&Addresses>,
    files: &DescribedFiles,
    has_description: bool,
) -> anyhow::Result<String> {
    let (Some(addresses), Some(config)) = (addresses, &files.config) else {
        return Ok(format!(
            "Web page: {}\n\nsignalr-gateway sandbox, without a gateway.\n{}\nStop with Ctrl-C.",
            page(sandbox),
            addresses_of(sandbox, files)
        ));
    };
    let gateway = gateway_url(sandbox, addresses).unwrap_or_default();
    let admin = addresses.admin.map(|admin| sandbox.url_of(admin)).unwrap_or_default();
    let program = std::env::current_exe().context("cannot determine the path of this program")?;
    // A hub's name begins with the name of an endpoint in a group.
    let tenant = sandbox.groups().find_map(|(_, _, endpoints)| endpoints.first());
    let hub = tenant.map_or_else(|| String::from("chat"), |endpoint| format!("{}_chat", endpoint.name()));
    let send = format!("{gateway}/api/hubs/{hub}/:send?api-version=2022-11-01");
    let what = if has_description {
        format!("signalr-gateway sandbox, and a gateway at {gateway}.\n{}", addresses_of(sandbox, files))
    } else {
        format!(
            "signalr-gateway sandbox: an emulated Entra, two emulated SignalR endpoints (east in tenant B, west in tenant C),
and a gateway at {gateway} that calls them as an app of tenant A. No Azure account is involved."
        )
    };
    Ok(format!(
        "Web page to send messages and see them arrive: {page}

{what}

Send a broadcast, without authentication:
  curl -i -X POST '{send}' -H 'content-type: application/json' -d '{{\"target\":\"hello\",\"arguments\":[\"world\"]}}'

See the metrics:
  curl -s {admin}/metrics | grep ^signalr_gateway_requests_total

See which endpoint a call goes to, and why:
  {program} explain --config {config} POST '{send}'

The gateway's status page: {admin}/
Its configuration: {config}
Stop with Ctrl-C.",
        page = page(sandbox),
        program = program.display(),
        config = config.display(),
    ))
}

fn addresses_of(sandbox: &Sandbox, files: &DescribedFiles) -> String {
    let endpoints = sandbox.endpoints_with_port().iter();
    let endpoints = endpoints.map(|endpoint| format!("Endpoint {}: {}\n", endpoint.name(), endpoint.url()));
    let groups = sandbox.groups().map(|(name, url, endpoints)| {
        let [first, last] = [endpoints.first(), endpoints.last()].map(|endpoint| endpoint.map_or("", Endpoint::name));
        format!("Endpoints {first} to {last} of the tenants {name}: {url}\n")
    });
    format!(
        "Entra: {}\n{}Control: {}\nCertificate authority: {}",
        sandbox.entra().url(),
        endpoints.chain(groups).collect::<String>(),
        sandbox.control().url(),
        files.ca.display()
    )
}

/// A temporary folder that is removed when dropped.
struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    fn create() -> anyhow::Result<Self> {
        let name = format!("signalr-gateway-sandbox-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // On an error, the folder remains.
        let _ignored = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn prints_the_web_page_first_without_a_gateway() {
        let sandbox = Sandbox::start(SandboxSettings::default()).await.unwrap();
        let files = DescribedFiles { config: None, ca: PathBuf::from("ca.pem") };
        let text = instructions(&sandbox, None, &files, true).unwrap();
        assert!(text.starts_with(&format!("Web page: {}/\n", sandbox.control().url())), "{text}");
        assert!(!text.contains("curl"), "{text}");
    }
}
