//! Proxies: which endpoint and credential has which, the environment, and problems.

use super::*;
use crate::credential::CredentialKind;

const CONFIG: &str = r#"
[credentials.app]
kind = "client_secret"
tenant = "bbbbbbbb-0000-4000-8000-00000000000b"
client_id = "0a990000-0000-4000-8000-000000000001"
secret = { env = "SECRET" }

[endpoints.east]
url = "https://east.service.signalr.net"
credential = "app"

[endpoints.local]
url = "http://localhost:8888"
credential = "app"
"#;

fn loaded(toml: &str, environment: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.toml");
    std::fs::write(dir.path().join("password"), "s3cret").unwrap();
    std::fs::write(dir.path().join("ca.pem"), "ca").unwrap();
    std::fs::write(&file, format!("{CONFIG}{toml}")).unwrap();
    let environment = environment.iter().chain(&[("SECRET", "x")]);
    let environment = environment.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    load(&Sources { file: Some(file), environment, ..Sources::default() })
}

/// Returns the proxies of `east`, `local` and the requests of `app` to Entra.
fn proxies(toml: &str, environment: &[(&str, &str)]) -> [Option<String>; 3] {
    let settings = loaded(toml, environment).unwrap_or_else(|err| panic!("{toml}: {err}")).settings;
    let endpoint = |index: usize| settings.endpoints[index].proxy.as_ref().map(ToString::to_string);
    let CredentialKind::App { app, .. } = &settings.credentials[0].kind else { panic!("not an app") };
    let entra = app.egress.proxy_for("login.microsoftonline.com").map(ToString::to_string);
    [endpoint(0), endpoint(1), entra]
}

#[test]
fn endpoints_and_credentials_have_the_common_proxy_or_their_own() {
    let own = |url: &str| Some(url.to_owned());
    for (toml, east, entra) in [
        ("", None, None),
        ("[egress]\nproxy = \"off\"", None, None),
        ("[egress]\nproxy = \"http://p:3128\"", own("http://p:3128"), own("http://p:3128")),
        ("[egress]\nproxy = \"http://p:1\"\nno_proxy = [\"signalr.net\"]", None, own("http://p:1")),
        ("[egress]\nproxy = \"http://p:1\"\nno_proxy = [\"*\"]", None, None),
        (
            "[egress]\nproxy = \"http://p:1\"\n[endpoints.east.proxy]\nurl = \"https://q:2\"",
            own("https://q:2"),
            own("http://p:1"),
        ),
        ("[credentials.app.proxy]\nurl = \"http://[::1]:2\"", None, own("http://[::1]:2")),
    ] {
        assert_eq!(proxies(toml, &[]), [east, None, entra], "{toml}");
    }
}

#[test]
fn environment_is_read_as_curl_reads_it_if_configured() {
    let environment = [
        ("HTTPS_PROXY", "http://upper:1"),
        ("https_proxy", "http://me:s3cret@lower"),
        ("ALL_PROXY", "http://all:3"),
        ("NO_PROXY", "login.microsoftonline.com,other"),
    ];
    let lower = Some("http://lower:1080".to_owned());
    assert_eq!(proxies("[egress]\nproxy = \"environment\"", &environment), [lower.clone(), None, None]);
    let upper = proxies("[egress]\nproxy = \"environment\"", &[("https_proxy", ""), environment[0], environment[2]]);
    assert_eq!(upper[0].as_deref(), Some("http://upper:1"));
    // `no_proxy` replaces the variable, as curl's `--noproxy` does.
    let replaced = proxies("[egress]\nproxy = \"environment\"\nno_proxy = [\"signalr.net\"]", &environment);
    assert_eq!(replaced, [None, None, lower]);

    let unused = loaded("", &environment).unwrap();
    assert_eq!(unused.settings.endpoints[0].proxy, None);
    let facts: Vec<String> = unused.warnings.into_iter().map(|warning| warning.fact).collect();
    assert_eq!(
        facts.iter().filter(|fact| fact.contains("https_proxy is set, but it is not used")).count(),
        1,
        "{facts:?}"
    );
    let off = loaded("[egress]\nproxy = \"off\"", &environment).unwrap();
    assert!(off.warnings.iter().all(|warning| !warning.fact.contains("proxy")), "{:?}", off.warnings);
}

#[test]
fn problems_name_the_key_and_never_show_the_password() {
    for (toml, key, fact) in [
        ("[egress]\nproxy = \"p:3128\"", "egress.proxy", "is not the URL of a proxy"),
        ("[egress]\nproxy = \"socks5://p:1\"", "egress.proxy", "neither http nor https"),
        ("[egress]\nproxy = \"http://p\"", "egress.proxy", "has no port"),
        ("[egress]\nproxy = \"http://me:s3cret@p:1\"", "egress.proxy", "has a user name or a password"),
        ("[egress]\nproxy = \"http://p:1\"\nusername = \"me\"", "egress.password", "is missing"),
        ("[egress]\nproxy = \"http://p:1\"\npassword.file = \"password\"", "egress.username", "is missing"),
        (
            "[egress]\nproxy = \"http://p:1\"\nusername = \"a:b\"\npassword.file = \"password\"",
            "egress.username",
            "colon",
        ),
        ("[egress]\nproxy = \"http://p:1\"\nca_file = \"ca.pem\"", "egress.ca_file", "has no effect"),
        ("[egress]\nusername = \"me\"\npassword.file = \"password\"", "egress.username", "has no effect"),
        ("[egress]\nproxy = \"http://p:1\"\nno_proxy = [\"a.example:443\"]", "egress.no_proxy", "has a port"),
        ("[endpoints.local.proxy]\nurl = \"http://p:1\"", "endpoints.local.proxy", "the URL is http://"),
        ("[credentials.app.proxy]\nurl = \"ftp://p:1\"", "credentials.app.proxy.url", "neither http nor https"),
    ] {
        let Err(err) = loaded(toml, &[]) else { panic!("{toml} is valid") };
        let text = err.to_string();
        assert!(text.contains(key) && text.contains(fact), "{toml}: {text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
    let err = loaded("[egress]\nproxy = \"environment\"", &[("HTTPS_PROXY", "socks5://me:s3cret@p:1")]).err().unwrap();
    let text = err.to_string();
    assert!(text.contains("HTTPS_PROXY has a scheme") && !text.contains("s3cret"), "{text}");
}
