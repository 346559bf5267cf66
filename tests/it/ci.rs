//! `check --no-secrets`, `explain` and `--config -` of the real binary, on a host that has none of the gateway's secrets.

use std::path::{Path, PathBuf};

use crate::support::{BROADCAST_PATH, run, run_with_stdin};

fn shipped() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let examples = std::fs::read_dir(root.join("examples")).unwrap().map(|entry| entry.unwrap().path());
    examples.chain([root.join("gateway.toml"), root.join("kubernetes/gateway.toml")]).collect()
}

#[tokio::test]
async fn every_shipped_configuration_is_checked_and_explained_on_a_host_without_secrets() {
    let shipped = shipped();
    assert!(shipped.len() > 15);
    for path in shipped {
        let path = path.to_str().unwrap();
        // The environment is empty.
        let checked = run(&["check", "--no-secrets", "--config", path]).await;
        assert_eq!(checked.code, Some(0), "{path}: {checked:?}");
        assert!(checked.stdout.starts_with("the configuration is valid (hash "), "{path}: {checked:?}");
        let explained = run(&["explain", "--config", path, "POST", BROADCAST_PATH]).await;
        // A configuration may refuse this call, but it loads.
        assert!(matches!(explained.code, Some(0 | 1)) && explained.stderr.is_empty(), "{path}: {explained:?}");
        assert!(explained.stdout.contains("\noperation "), "{path}: {explained:?}");
    }
}

#[tokio::test]
async fn what_the_host_lacks_is_a_warning_and_the_rest_is_still_checked() {
    let config = |tenant: &str| {
        format!(
            "[credentials.app]\nkind = \"client_certificate\"\ntenant = \"{tenant}\"\n\
             client_id = \"11111111-1111-1111-1111-111111111111\"\ncertificate = \"/run/secrets/none.pem\"\n\
             [endpoints.east]\nurl = \"https://east.service.signalr.net\"\ncredential = \"app\"\n\
             [listeners.default]\nbind = \"127.0.0.1:0\"\n\
             tls = {{ certificate = \"/run/secrets/tls.pem\", key = \"/run/secrets/tls-key.pem\" }}\n"
        )
    };
    let checked = run_with_stdin(&config("fabrikam.com"), &["check", "--no-secrets", "--config", "-"]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    for key in ["credentials.app.certificate", "listeners.default.tls.certificate", "listeners.default.tls.key"] {
        assert!(checked.stderr.contains(&format!("warning: {key}: the file ")), "{checked:?}");
    }
    assert!(checked.stderr.contains("(stdin:"), "{checked:?}");
    // For CI that refuses all other warnings.
    let open = config("fabrikam.com").replace("127.0.0.1:0", "0.0.0.0:0");
    let printed = run_with_stdin(&open, &["check", "--no-secrets", "--json", "--config", "-"]).await;
    let printed: serde_json::Value = serde_json::from_str(&printed.stdout).unwrap();
    let (absent, others): (Vec<_>, Vec<_>) =
        printed["warnings"].as_array().unwrap().iter().partition(|warning| warning["absent"] == true);
    assert!(absent.len() == 3 && others.len() == 1, "{printed:#}");
    assert_eq!(others[0]["key"], "listeners.default.bind");
    let refused = run_with_stdin(&config("fabrikam.com"), &["check", "--config", "-"]).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let refused = run_with_stdin(&config("common"), &["check", "--no-secrets", "--config", "-"]).await;
    assert!(refused.code == Some(2) && refused.stderr.contains("credentials.app.tenant"), "{refused:?}");
}

#[tokio::test]
async fn the_help_command_prints_the_help_of_a_command() {
    let (top, help) = (run(&["help"]).await, run(&["--help"]).await);
    assert_eq!((top.code, &top.stdout), (Some(0), &help.stdout), "{top:?}");
    let checked = run(&["help", "check"]).await;
    assert!(checked.code == Some(0) && checked.stdout.contains("--no-secrets"), "{checked:?}");
}

#[tokio::test]
async fn check_warns_about_listeners_that_other_hosts_reach() {
    let config = |listener: &str, admin: &str| {
        format!(
            "[credentials.host]\nkind = \"managed_identity\"\n[endpoints.east]\nurl = \"https://east.service.signalr.net\"\n\
             credential = \"host\"\n[listeners.default]\n{listener}\n[admin]\nbind = \"{admin}\"\n"
        )
    };
    let open = run_with_stdin(&config("bind = \"0.0.0.0:0\"", "0.0.0.0:9090"), &["check", "--config", "-"]).await;
    assert_eq!(open.code, Some(0), "{open:?}");
    assert!(open.stderr.contains("warning: listeners.default.bind: every host that reaches 0.0.0.0:0"), "{open:?}");
    assert!(open.stderr.contains("warning: admin.bind: every host that reaches 0.0.0.0:9090"), "{open:?}");
    let listener = "bind = \"0.0.0.0:0\"\nclients = [\"10.0.0.0/8\"]";
    let closed = run_with_stdin(&config(listener, "127.0.0.1:0"), &["check", "--config", "-"]).await;
    assert_eq!((closed.code, closed.stderr.as_str()), (Some(0), ""), "{closed:?}");
}
