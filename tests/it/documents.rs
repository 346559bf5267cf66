//! Checks the README, the guide and the other pages against the program.

mod pages;
mod reference;

use std::collections::BTreeSet;
use std::path::Path;

use http::header::CONTENT_TYPE;
use rcgen::SanType;

use self::pages::{Page, root};
use crate::support::pki::{Pki, VALID};
use crate::support::{ALL_OPERATIONS, Harness, HarnessBuilder, Process, request, run, run_in};

/// The longest README, and the longest page of the guide, in bytes.
const LONGEST: (usize, usize) = (8 * 1024, 12 * 1024);

/// What the examples of the pages refer to without defining it.
const SURROUNDINGS: &str = r#"
[credentials.app]
kind = "access_key"
key = { env = "KEY" }

[endpoints.east]
url = "https://east.service.signalr.net"
credential = "app"

[endpoints.west]
url = "https://west.service.signalr.net"
credential = "app"
"#;

/// Returns the text between the first `begin` and the next `end`.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> Option<&'a str> {
    text.split_once(begin)?.1.split_once(end).map(|(found, _)| found)
}

#[test]
fn every_link_of_the_pages_leads_to_a_file_and_to_a_heading_of_it() {
    let mut broken = Vec::new();
    for page in pages::all() {
        for link in page.links() {
            let Some((path, anchor)) = pages::resolve(&page, &link) else { continue };
            let leads = match anchor {
                None => root().join(&path).exists(),
                Some(anchor) => Page::read(path.to_str().unwrap()).anchors().contains(&anchor),
            };
            if !leads {
                broken.push(format!("{}: {link}", page.name));
            }
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
}

#[test]
fn contents_of_the_guide_list_each_of_its_pages_once() {
    let contents = Page::read("config/guide/SUMMARY.md");
    let mut listed: Vec<_> = contents.links().iter().map(|link| format!("config/guide/{link}")).collect();
    let mut pages: Vec<_> = pages::guide().into_iter().map(|page| page.name).collect();
    pages.retain(|name| *name != contents.name);
    listed.sort();
    pages.sort();
    assert_eq!(listed, pages);
}

#[test]
fn no_page_is_longer_than_a_reader_takes() {
    let mut sizes: Vec<_> = pages::guide().iter().map(|page| (page.name.clone(), page.text.len(), LONGEST.1)).collect();
    sizes.push(("README.md".to_owned(), Page::read("README.md").text.len(), LONGEST.0));
    sizes.retain(|(_, size, longest)| size > longest);
    assert!(sizes.is_empty(), "too long: {sizes:?}");
}

/// Loads a configuration in a folder of its own. All variables and secrets that the examples name are there.
fn load(toml: &str) -> Result<signalr_gateway::gateway::Settings, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let mut toml = toml.to_owned();
    for path in toml.clone().split('"').filter(|text| text.starts_with("/run/secrets/")) {
        let secret = folder.path().join(path.rsplit('/').next().unwrap());
        std::fs::write(&secret, "x").unwrap();
        toml = toml.replace(&format!("\"{path}\""), &format!("\"{}\"", secret.display()));
    }
    std::fs::write(&file, toml).unwrap();
    std::fs::write(folder.path().join("surroundings.toml"), SURROUNDINGS).unwrap();
    let pki = Pki::new(folder.path(), "ca");
    pki.issue("server", "server", vec![SanType::DnsName("localhost".try_into().unwrap())], VALID);
    pki.revoke("crl.pem", &[], VALID);
    let environment = ["KEY", "FABRIKAM_SECRET"].map(|name| (name.to_owned(), "x".to_owned())).into();
    let sources = signalr_gateway::config::Sources { file: Some(file), environment, overrides: Vec::new() };
    signalr_gateway::config::load(&sources).map(|loaded| loaded.settings).map_err(|err| err.to_string())
}

/// A block marked `toml` is a whole configuration; `toml fragment` is a part of one, beside endpoints and credentials;
/// `toml sandbox` describes a sandbox.
#[test]
fn every_configuration_of_the_pages_is_valid() {
    let mut count = 0;
    for page in pages::all() {
        for block in page.blocks_in(&["toml"]) {
            let place = format!("{}:{}", page.name, block.line);
            let result = match block.info.as_str() {
                "toml" => load(&block.text),
                "toml fragment" => load(&format!("include = [\"surroundings.toml\"]\n{}", block.text)),
                "toml sandbox" => continue,
                other => panic!("{place}: `{other}` is not a kind of block"),
            };
            result.unwrap_or_else(|err| panic!("{place}: {err}"));
            count += 1;
        }
    }
    assert!(count >= 5, "{count} blocks");
}

/// Returns the commands of the program in the `sh` blocks and code spans of a page, without the program's name.
fn commands(page: &Page) -> BTreeSet<String> {
    let blocks = page.blocks_in(&["sh", "console", "yaml"]);
    let lines = blocks.iter().flat_map(|block| block.text.lines());
    let spans = page.text.split('`').skip(1).step_by(2).filter(|span| !span.contains('\n'));
    let commands =
        lines.chain(spans).filter_map(|line| line.trim().trim_start_matches("$ ").strip_prefix("signalr-gateway "));
    commands.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_command_of_the_pages_has_the_options_that_they_name() {
    let mut count = 0;
    for page in pages::all() {
        for command in commands(&page) {
            let mut words = command.split_whitespace();
            let name = words.next().unwrap();
            // Lines of the log begin with the program's name, too.
            if name.starts_with('-') || ["COMMAND", "help", "started", "stopped"].contains(&name) {
                continue;
            }
            let help = run(&[name, "--help"]).await;
            assert_eq!(help.code, Some(0), "{}: `signalr-gateway {command}`: {}", page.name, help.stderr);
            // An option ends in anything but a letter or `-` in the help.
            let options: BTreeSet<_> = help.stdout.split(|char: char| !char.is_alphanumeric() && char != '-').collect();
            for option in words.filter(|word| word.starts_with("--")) {
                let option = option.split('=').next().unwrap();
                assert!(options.contains(option), "{}: `signalr-gateway {command}`: no {option}", page.name);
            }
            count += 1;
        }
    }
    assert!(count >= 8, "{count} commands");
}

#[tokio::test]
async fn commands_of_the_readme_that_use_no_network_succeed_with_its_configuration() {
    let readme = Page::read("README.md");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("gateway.toml");
    std::fs::write(&config, &readme.blocks_in(&["toml"])[0].text).unwrap();
    let mut count = 0;
    for block in readme.blocks_in(&["sh"]) {
        for command in block.text.lines().filter_map(|line| line.strip_prefix("signalr-gateway ")) {
            let command = command.replace("gateway.toml", config.to_str().unwrap());
            let words: Vec<_> = command.split_whitespace().map(|word| word.trim_matches('\'')).collect();
            if matches!(words[0], "check" | "explain") {
                let finished = run_in(&[("FABRIKAM_SECRET", "x")], &words).await;
                assert_eq!(finished.code, Some(0), "{command}: {finished:?}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 2);
}

#[test]
fn two_tenant_example_of_the_readme_routes_northwind_first() {
    let settings = load(&Page::read("README.md").blocks_in(&["toml"])[0].text).unwrap();
    let routes: Vec<_> = settings.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(routes, ["northwind", "fabrikam"]);
}

/// Returns the calls of a text: method, path with query, and body.
fn calls(text: &str) -> Vec<(String, String, String)> {
    let calls = text.lines().filter(|line| line.starts_with("curl -") && line.contains("127.0.0.1:8080"));
    let call = |line: &str| {
        let method = between(line, "-X ", " ").unwrap_or("HEAD");
        let target = between(line, "'http://127.0.0.1:8080", "'").unwrap();
        (method.to_owned(), target.to_owned(), between(line, "-d '", "'").unwrap_or_default().to_owned())
    };
    calls.map(call).collect()
}

#[tokio::test]
async fn calls_in_the_pages_return_the_statuses_they_show() {
    let harness = Harness::start(|options| {
        options.allow(&ALL_OPERATIONS);
    })
    .await;
    let mut statuses = Vec::new();
    let pages = ["README.md", "config/guide/callers.md"].map(|name| Page::read(name).text);
    for (method, target, body) in calls(&pages.concat()) {
        let call = request(&method, &target).header(CONTENT_TYPE, "application/json");
        statuses.push(harness.caller().await.send(call, body).await.status.as_u16());
    }
    assert_eq!(statuses, [202, 200, 202, 404]);
}

#[tokio::test]
async fn sandbox_command_of_the_readme_starts_and_prints_addresses() {
    let builder = HarnessBuilder::start().await;
    let arguments = ["sandbox", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let process = Process::start(&arguments, &[], builder.folder.path()).await;
    for key in ["gateway", "admin", "entra", "config", "ca"] {
        assert!(process.ready[key].is_string(), "{key} in {}", process.ready);
    }
    assert!(process.ready["endpoints"]["east"].is_string() && process.ready["endpoints"]["west"].is_string());
    process.terminate().await;
    assert!(process.wait().await.0.success());
}

#[test]
fn memory_limit_of_the_pod_covers_what_its_configuration_allows() {
    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/kubernetes");
    let deployment = std::fs::read_to_string(folder.join("deployment.yaml")).unwrap();
    let limit: usize = between(&deployment, "limits: { memory: ", "Mi }").unwrap().parse().unwrap();
    let toml = std::fs::read_to_string(folder.join("gateway.toml")).unwrap();
    // The token is a file in the pod.
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "x").unwrap();
    let toml = toml.replace("/var/run/secrets/azure/tokens/azure-identity-token", token.path().to_str().unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), toml).unwrap();
    let sources = signalr_gateway::config::Sources {
        file: Some(file.path().to_owned()),
        environment: std::collections::BTreeMap::new(),
        overrides: Vec::new(),
    };
    let settings = signalr_gateway::config::load(&sources).unwrap_or_else(|err| panic!("{err}")).settings;
    // The numbers of the table in the guide.
    let proxy = &settings.proxy;
    let connections = settings.serve.max_connections * (80 + 256) * KIB;
    let calls = settings.listeners.iter().map(|(_, admission)| admission.max_requests.unwrap()).sum::<usize>();
    let calls = calls * (80 * KIB + 2 * proxy.delivery.max_header_bytes + (128 + 64) * KIB);
    let bodies = usize::try_from(proxy.body_memory).unwrap();
    let keys = proxy.delivery.idempotency.keys * 2 * KIB;
    let maximum = connections + calls + bodies + keys + 15 * MIB;
    assert!(maximum <= limit * MIB, "{} MiB", maximum / MIB);
    assert!(Page::read("config/guide/sizing.md").text.contains("HTTP/2 another 256 KiB window"));
}

#[test]
fn guide_lists_every_error_kind() {
    let page = Page::read("config/guide/errors.md");
    for kind in signalr_gateway::metrics::ErrorKind::ALL {
        assert!(page.text.contains(&format!("`{}`", kind.label())), "{} does not name {}", page.name, kind.label());
    }
}

#[test]
fn blocks_of_commands_can_be_pasted_whole() {
    // A command that reads the terminal would take the lines after it as its input.
    let reads = |line: &&str| line.contains("/dev/stdin") || line.contains("read -") || line.contains("${EDITOR");
    for page in pages::all() {
        for block in page.blocks_in(&["sh", "bash"]) {
            let commands: Vec<&str> = block.text.lines().filter(|line| !line.trim().is_empty()).collect();
            let is_whole = commands.len() == 1 || !commands.iter().any(reads);
            assert!(is_whole, "{}:{}: a command reads the lines after it", page.name, block.line);
        }
    }
}
