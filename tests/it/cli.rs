//! The command line of the real binary: output, exit codes, and the files and commands in its documentation.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use signalr_gateway::sandbox::GatewayConfig;

use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Caller, HarnessBuilder, Process, broadcast_request, run, run_in};

const COMMANDS: [&str; 11] =
    ["run", "check", "explain", "doctor", "setup", "token", "sandbox", "tail", "health", "schema", "completions"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Writes a valid configuration and returns its path.
pub(crate) fn valid_config(folder: &Path) -> String {
    let path = folder.join("gateway.toml");
    std::fs::write(folder.join("key"), "abcdefgh").unwrap();
    std::fs::set_permissions(folder.join("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let text = "[listeners.default]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
                [credentials.emulator]\nkind = \"access_key\"\nkey = { file = \"key\" }\n\
                [endpoints.local]\nurl = \"http://127.0.0.1:1\"\ncredential = \"emulator\"\n";
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Asserts that a command failed with a usage error: exit code 2, and one error on stderr, which may have a hint.
#[track_caller]
fn assert_is_one_error(finished: &crate::support::ProgramOutput, parts: &[&str]) {
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{finished:?}");
    let mut rest = finished.stderr.lines().skip(1);
    assert!(
        rest.next().is_none_or(|line| line.starts_with("  hint: ")) && rest.next().is_none(),
        "{}",
        finished.stderr
    );
    for part in parts {
        assert!(finished.stderr.contains(part), "no `{part}` in {}", finished.stderr);
    }
}

#[tokio::test]
async fn every_command_has_help() {
    let top = run(&["--help"]).await;
    assert_eq!((top.code, top.stderr.as_str()), (Some(0), ""));
    for command in COMMANDS {
        assert!(top.stdout.contains(&format!("\n  {command} ")), "{command} is not in {}", top.stdout);
        let help = run(&[command, "--help"]).await;
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{command}");
        insta::assert_snapshot!(format!("help_{command}"), help.stdout);
    }
    let version = run(&["--version"]).await;
    assert_eq!(version.stdout, format!("signalr-gateway {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn wrong_usage_prints_one_error_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let config = valid_config(folder.path());
    assert_is_one_error(&run(&["run", "--confg", &config]).await, &["--confg", "--config"]);
    assert_is_one_error(&run(&["chekc"]).await, &["chekc", "check"]);
    assert_is_one_error(
        &run(&["run", "--config", "/nowhere/gateway.toml"]).await,
        &["/nowhere/gateway.toml", "cannot be read"],
    );
    assert_is_one_error(&run(&["check", "--config", &config, "--set", "limits"]).await, &["limits", "KEY=VALUE"]);
    assert_is_one_error(&run(&["explain", "--config", &config, "PO ST", "/api"]).await, &["method"]);
    assert_is_one_error(
        &run(&["explain", "--config", &config, "GET", BROADCAST_PATH, "--listener", "x"]).await,
        &["`x`", "default"],
    );
    assert_is_one_error(
        &run(&["check", "--config", &config, "--set", "limits.max_bdy=1"]).await,
        &["max_bdy", "max_body"],
    );
}

#[tokio::test]
async fn wrong_arguments_of_explain_setup_and_tail_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = valid_config(folder.path());
    for (arguments, parts) in [
        (vec!["explain"], vec!["<METHOD>", "<URL>"]),
        (vec!["explain", "GET"], vec!["<URL>"]),
        (vec!["explain", "GET", "/api/hubs/c"], vec!["there is no endpoint", "--config FILE"]),
        (vec!["explain", "POST", "/api/hubs/c/:send", "-H", "x-tenant"], vec!["x-tenant", "must be `name: value`"]),
        (vec!["explain", "POST", "/api/hubs/c/:send", "--client", "nowhere"], vec!["nowhere", "--client <IP>"]),
        (vec!["explain", "POST", "/api/hubs/c/:send", "--listener"], vec!["--listener <NAME>"]),
        (vec!["setup", "fabrikam"], vec!["unexpected argument 'fabrikam'"]),
        (vec!["setup", "--format", "json"], vec!["json", "az, bicep, terraform, page"]),
        (vec!["setup"], vec!["there is no endpoint", "--config FILE"]),
        (vec!["setup", "--config", "/nowhere.toml"], vec!["/nowhere.toml cannot be read"]),
        (vec!["setup", "--config", &config, "--endpoint", "locl"], vec!["there is no endpoint `locl`"]),
        (vec!["tail", "--admin", "localhost"], vec!["localhost", "--admin <ADDRESS>"]),
        (vec!["tail", "-n", "some"], vec!["some", "--count <NUMBER>"]),
        (vec!["tail", "--status", "500"], vec!["unexpected argument '--status'"]),
        (vec!["tail", "--ca", "/nowhere.pem", "--admin", "127.0.0.1:1"], vec!["/nowhere.pem"]),
        (vec!["tail", "--key", "/nowhere.pem", "--admin", "127.0.0.1:1"], vec!["--certificate"]),
        (vec!["tail", "--config", &config], vec!["unexpected argument '--config'"]),
    ] {
        assert_is_one_error(&run(&arguments).await, &parts);
    }
}

#[tokio::test]
async fn port_in_use_prints_one_error_and_exits_with_2() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let config = valid_config(folder.path());
    let bind = format!("listeners.default.bind={address}");
    assert_is_one_error(&run(&["run", "--config", &config, "--set", &bind]).await, &[&address, "in use"]);
    let bind = format!("admin.bind={address}");
    assert_is_one_error(&run(&["run", "--config", &config, "--set", &bind]).await, &[&address, "admin.bind"]);
    let sandbox = run(&["sandbox", "--listen", &address, "--admin", "127.0.0.1:0"]).await;
    assert_is_one_error(&sandbox, &[&address, "--listen"]);
    let sandbox = run(&["sandbox", "--admin", &address, "--listen", "127.0.0.1:0"]).await;
    assert_is_one_error(&sandbox, &[&address, "--admin"]);
}

#[tokio::test]
async fn refuses_to_start_on_the_port_of_another_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let config = valid_config(folder.path());
    let first = Process::start(&["run", "--config", &config], &[], folder.path()).await;
    let bind = format!("listeners.default.bind={}", first.listener());
    assert_is_one_error(&run(&["run", "--config", &config, "--set", &bind]).await, &["in use"]);
}

#[tokio::test]
async fn check_reports_all_problems_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("bad.toml");
    let text = "[listeners.default]\nbind = \"everywhere\"\noperatons = [\"messages\"]\n\
                [credentials.fabrikam]\nkind = \"client_secret\"\ntenant = \"common\"\nclient_id = \"11111111-2222-3333-4444-555555555555\"\nsecret = { env = \"NOT_SET_ANYWHERE\" }\n\
                [endpoints.east]\nurl = \"http://contoso.service.signalr.net\"\ncredential = \"fabricam\"\n\
                [timeouts]\nrequest = 30\n";
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let finished = run(&["check", "--config", config]).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""));
    let report = finished.stderr.replace(config, "bad.toml");
    insta::assert_snapshot!("check_bad", report);

    let finished = run(&["check", "--config", config, "--json"]).await;
    assert_eq!(finished.code, Some(2));
    let json: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(json["ok"], false);
    let problems = json["problems"].as_array().unwrap();
    assert!(problems.len() >= 6, "{json:#}");
    for problem in problems {
        assert!(problem["key"].is_string() && problem["fact"].is_string(), "{problem}");
    }
    // A configuration that fails the check does not start either.
    assert_eq!(run(&["run", "--config", config]).await.code, Some(2));
}

#[tokio::test]
async fn check_shows_the_effective_configuration_and_its_sources() {
    let folder = tempfile::tempdir().unwrap();
    let config = valid_config(folder.path());
    let finished = run(&["check", "--config", &config, "--set", "timeouts.request=12s"]).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
    let line =
        |key: &str| finished.stdout.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("no {key}"));
    assert!(line("timeouts.request ").contains("\"12s\"") && line("timeouts.request ").contains("--set"));
    assert!(line("limits.max_body").ends_with("# default"));
    assert!(line("endpoints.local.url").contains("gateway.toml:9"), "{}", line("endpoints.local.url"));
    let json: Value = serde_json::from_str(&run(&["check", "--config", &config, "--json"]).await.stdout).unwrap();
    assert_eq!(json["ok"], true);
}

#[tokio::test]
async fn environment_overrides_the_file_and_flags_override_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let config = valid_config(folder.path());
    let environment = [("SIGNALR_GATEWAY_LIMITS__MAX_BODY", "100"), ("SIGNALR_GATEWAY_CONFIG", config.as_str())];
    let process = Process::start(&["run"], &environment, folder.path()).await;
    let mut caller = Caller::connect(process.listener()).await;
    caller.post(BROADCAST_PATH, "application/json", vec![b'x'; 101]).await.assert_gateway_error(413, "body_too_large");
    let overridden = Process::start(&["run", "--set", "limits.max_body=50"], &environment, folder.path()).await;
    let mut caller = Caller::connect(overridden.listener()).await;
    caller.post(BROADCAST_PATH, "application/json", vec![b'x'; 51]).await.assert_gateway_error(413, "body_too_large");
}

#[tokio::test]
async fn converts_connection_strings_to_a_valid_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let strings = "Azure:SignalR:ConnectionString:east:primary=Endpoint=https://e.service.signalr.net;AccessKey=hunter2;Version=1.0;\n\
                   Azure:SignalR:ConnectionString:west:secondary=Endpoint=https://w.service.signalr.net;AuthType=azure.app;\
                   ClientId=11111111-2222-3333-4444-555555555555;TenantId=contoso.onmicrosoft.com;ClientSecret=hunter3\n";
    std::fs::write(path("strings"), strings).unwrap();

    let printed = run(&["check", "--connection-strings", &path("strings")]).await;
    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    insta::assert_snapshot!("check_connection_strings", printed.stdout);
    std::fs::write(path("gateway.toml"), &printed.stdout).unwrap();
    let secrets = [("SIGNALR_EAST_ACCESS_KEY", "hunter2"), ("SIGNALR_WEST_CLIENT_SECRET", "hunter3")];
    let checked = run_in(&secrets, &["check", "--config", &path("gateway.toml")]).await;
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));

    // With the secrets in files, the configuration is complete.
    let arguments = ["check", "--connection-strings", &path("strings"), "--secrets", &path("secrets")];
    let printed = run(&arguments).await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    for (name, secret) in [("east", "hunter2"), ("west", "hunter3")] {
        let file = folder.path().join("secrets").join(name);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), secret);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    std::fs::write(path("gateway.toml"), &printed.stdout).unwrap();
    let checked = run(&["check", "--config", &path("gateway.toml")]).await;
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    // Existing secrets are never overwritten.
    assert_is_one_error(&run(&arguments).await, &["cannot write", "east"]);

    std::fs::write(path("strings"), "Endpoint=e.service.signalr.net;AccessKey=hunter2").unwrap();
    let rejected = run(&["check", "--connection-strings", &path("strings")]).await;
    assert_is_one_error(&rejected, &["`Endpoint` is not `https://host`", "strings:1"]);
    for output in [printed.stdout, printed.stderr, checked.stdout, rejected.stderr] {
        assert!(!output.contains("hunter"), "{output}");
    }
}

#[tokio::test]
async fn prints_the_schema_and_completions() {
    let schema: Value = serde_json::from_str(&run(&["schema"]).await.stdout).unwrap();
    assert!(schema["$schema"].as_str().unwrap().contains("json-schema.org"));
    for key in ["listeners", "admin", "credentials", "endpoints", "routes", "limits", "timeouts", "logging"] {
        assert!(schema["properties"][key].is_object(), "{key}");
    }
    let included: Value = serde_json::from_str(&run(&["schema", "--included"]).await.stdout).unwrap();
    let keys: Vec<&String> = included["properties"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["credentials", "endpoints", "routes", "tests"]);
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).await;
        assert_eq!(script.code, Some(0));
        assert!(script.stdout.contains("signalr-gateway") && script.stdout.contains("explain"), "{shell}");
    }
}

#[tokio::test]
async fn bash_completes_commands_and_the_options_of_each() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("completions");
    std::fs::write(&script, run(&["completions", "bash"]).await.stdout).unwrap();
    let complete = |words: &[&str]| {
        // As bash does after a press of the tab key.
        let call = r#"source "$1"; shift
            COMP_WORDS=(signalr-gateway "$@"); COMP_CWORD=$#
            function=$(complete -p signalr-gateway | sed 's/.*-F \([^ ]*\).*/\1/')
            "$function" signalr-gateway "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
            echo "${COMPREPLY[@]}""#;
        let mut bash = std::process::Command::new("bash");
        bash.args(["--norc", "-c", call, "bash"]).arg(&script).args(words);
        let completed = bash.output().unwrap();
        assert!(completed.status.success() && completed.stderr.is_empty(), "{completed:?}");
        String::from_utf8(completed.stdout).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let commands = complete(&[""]);
    assert!(COMMANDS.iter().all(|command| commands.iter().any(|found| found == command)), "{commands:?}");
    assert!(commands.iter().all(|found| found != "man"), "a hidden command is completed: {commands:?}");
    for (words, expected) in [
        (["check", "--no-s"], vec!["--no-secrets"]),
        (["setup", "--config"], vec!["--config"]),
        (["completions", "ba"], vec!["bash"]),
    ] {
        assert_eq!(complete(&words), expected, "{words:?}");
    }
}

#[tokio::test]
async fn manual_pages_cover_the_program_and_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let written = run(&["man", folder.path().to_str().unwrap()]).await;
    assert_eq!((written.code, written.stderr.as_str()), (Some(0), ""));
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let main = page("signalr-gateway.1");
    for command in COMMANDS {
        assert!(main.contains(&format!("signalr\\-gateway\\-{command}(1)")), "{command}: {main}");
        let text = page(&format!("signalr-gateway-{command}.1"));
        assert!(text.contains(&format!("\\fBsignalr\\-gateway {command}\\fR")), "{text}");
    }
    assert!(page("signalr-gateway-run.1").contains("\\-\\-ready\\-file"));
    let pages = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(pages, COMMANDS.len() + 1, "hidden commands have no page");
}

#[tokio::test]
async fn health_command_queries_a_running_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let config = valid_config(folder.path());
    let process = Process::start(&["run", "--config", &config], &[], folder.path()).await;
    let admin = process.admin().to_string();
    let healthy = run(&["health", "--admin", &admin]).await;
    assert_eq!(healthy.code, Some(0), "{healthy:?}");
    process.terminate().await;
    let (status, log) = process.wait().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let stopped = run(&["health", "--admin", &admin]).await;
    assert_eq!(stopped.code, Some(1));
    assert!(stopped.stderr.contains(&admin), "{}", stopped.stderr);
}

#[tokio::test]
async fn sandbox_serves_at_the_addresses_it_prints() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["sandbox", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let process = Process::start(&arguments, &[], folder.path()).await;
    let ready = process.ready.clone();
    for key in ["page", "gateway", "admin", "entra", "config", "ca"] {
        assert!(ready[key].is_string(), "{key} is not in {ready}");
    }
    assert!(ready["endpoints"]["east"].is_string() && ready["endpoints"]["west"].is_string());
    let address = |key: &str| ready[key].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    let mut caller = Caller::connect(address("gateway")).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    let page = ready["page"].as_str().unwrap().strip_prefix("http://").unwrap().trim_end_matches('/').parse().unwrap();
    let relayed = json!({ "method": "POST", "path": BROADCAST_PATH, "body": BROADCAST_BODY }).to_string();
    let relayed = Caller::connect(page).await.post("/sandbox/relay", "application/json", relayed).await.json();
    assert!(relayed["status"] == 202 && relayed["request_id"].is_string(), "{relayed}");
    let metrics = Caller::connect(address("admin")).await.call("GET", "/metrics").await.text();
    assert!(metrics.contains("signalr_gateway_requests_total{code=\"202\",operation=\"hub_send\""), "{metrics}");
    let config = ready["config"].as_str().unwrap().to_owned();
    let explained = run(&["explain", "--config", &config, "POST", BROADCAST_PATH]).await;
    assert!(explained.code == Some(0) && explained.stdout.contains("east"), "{explained:?}");
    process.terminate().await;
    let (status, log) = process.wait().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!Path::new(&config).exists(), "its folder was not removed");
}

#[tokio::test]
async fn every_shipped_configuration_passes_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let builder = HarnessBuilder::start().await;
    let files = builder.sandbox.write_files(&folder.path().join("files"), &GatewayConfig::default()).unwrap();
    let token = builder.sandbox.access_token("east", std::time::Duration::from_secs(600)).unwrap();
    std::fs::write(folder.path().join("token"), token).unwrap();
    let mut shipped = vec![root().join("config/gateway.toml")];
    shipped.extend(std::fs::read_dir(root().join("config/examples")).unwrap().map(|entry| entry.unwrap().path()));
    assert!(shipped.len() > 6);
    for path in shipped {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        // Provides what an operator would: files of the sandbox for secrets under /run, and values for variables.
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text
            .replace("/run/secrets/certificate.pem", files.certificate.to_str().unwrap())
            .replace("/run/secrets/key.pem", files.certificate.to_str().unwrap())
            .replace("/run/secrets/idp", files.secret.to_str().unwrap())
            .replace("/run/secrets/fabrikam", files.secret.to_str().unwrap())
            .replace("/run/signalr/token", folder.path().join("token").to_str().unwrap());
        let text = ["FABRIKAM_SECRET", "SIGNALR_ACCESS_KEY"].iter().fold(text, |text, variable| {
            text.replace(&format!("env = \"{variable}\""), &format!("file = \"{}\"", files.secret.display()))
        });
        let copy = folder.path().join(&name);
        std::fs::write(&copy, text).unwrap();
        let finished = run_in(&PLATFORM, &["check", "--config", copy.to_str().unwrap()]).await;
        assert_eq!(finished.code, Some(0), "{name}: {finished:?}");
    }
}

/// Variables that platforms set for the programs that they run.
const PLATFORM: [(&str, &str); 6] = [
    ("AZURE_CLIENT_ID", "11111111-1111-1111-1111-111111111111"),
    ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/secrets/azure/tokens/azure-identity-token"),
    ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://run.actions.githubusercontent.com/token?api-version=2.0"),
    ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "x"),
    ("SYSTEM_OIDCREQUESTURI", "https://dev.azure.com/contoso/_apis/oidctoken"),
    ("SYSTEM_ACCESSTOKEN", "x"),
];
