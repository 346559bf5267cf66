//! The precedence of the sources, and the names of environment variables.

use super::*;

#[test]
fn flags_override_variables_and_variables_override_the_file() {
    let dir = folder(&format!("{}\n[limits]\nmax_body = \"2MiB\"\n", minimal()));
    let mut sources = sources(dir.path(), &[("SIGNALR_GATEWAY_LIMITS__MAX_BODY", "3MiB")]);
    assert_eq!(load(&sources).unwrap().settings.proxy.max_body_bytes, 3 << 20);
    sources.overrides.push(("limits.max_body".into(), "4096".into()));
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.settings.proxy.max_body_bytes, 4096);
    let effective = loaded.effective().into_iter().find(|effective| effective.key == "limits.max_body").unwrap();
    assert_eq!(effective.origin, Some(Origin::Flag("--set limits.max_body".into())));
}

#[test]
fn variables_are_parsed_as_the_type_of_their_key() {
    let dir = folder(&minimal());
    let environment = [
        ("SIGNALR_GATEWAY_LIMITS__MAX_CONNECTIONS", "7"),
        ("SIGNALR_GATEWAY_FORWARDING__CLIENT_ADDRESS", "true"),
        ("SIGNALR_GATEWAY_LISTENERS__DEFAULT__BIND", "127.0.0.1:0"),
        ("SIGNALR_GATEWAY_LISTENERS__DEFAULT__ALLOWED_HOSTS", "[gw.internal]"),
        ("SIGNALR_GATEWAY_CONFIG", "/etc/gateway.toml"),
    ];
    let settings = load(&sources(dir.path(), &environment)).unwrap().settings;
    assert_eq!(settings.serve.max_connections, 7);
    assert!(settings.proxy.forward_client_address);
    assert_eq!(settings.listeners[0].1.allowed_hosts, ["gw.internal"]);
}

#[test]
fn suggests_the_variable_that_an_unknown_one_may_mean() {
    let dir = folder(&minimal());
    let err = load(&sources(dir.path(), &[("SIGNALR_GATEWAY_LIMITS__MAX_BODI", "1")])).unwrap_err();
    assert_eq!(
        err.to_string(),
        "limits.max_bodi: unknown key (environment variable SIGNALR_GATEWAY_LIMITS__MAX_BODI)\n  hint: did you mean `SIGNALR_GATEWAY_LIMITS__MAX_BODY`?"
    );
}

#[test]
fn suggests_the_full_name_of_a_variable_with_too_few_underscores() {
    let dir = folder(&minimal());
    for (variable, meant) in [
        ("SIGNALR_GATEWAY_LIMITS_MAX_BODY", "SIGNALR_GATEWAY_LIMITS__MAX_BODY"),
        ("SIGNALR_GATEWAY_ENDPOINTS_EAST_URL", "SIGNALR_GATEWAY_ENDPOINTS__EAST__URL"),
        ("SIGNALR_GATEWAY_CREDENTIALS_FABRIKAM_TENANT", "SIGNALR_GATEWAY_CREDENTIALS__FABRIKAM__TENANT"),
        ("SIGNALR_GATEWAY_LOG", "SIGNALR_GATEWAY_LOGGING__FILTER"),
    ] {
        let err = load(&sources(dir.path(), &[(variable, "1")])).unwrap_err().to_string();
        assert!(err.contains(&format!("unknown key (environment variable {variable})")), "{err}");
        if variable != "SIGNALR_GATEWAY_LOG" {
            assert!(err.ends_with(&format!("did you mean `{meant}`?")), "{err}");
        }
    }
}

#[test]
fn variables_match_names_in_any_case_and_with_hyphens() {
    let dir = folder(&minimal().replace("[endpoints.east]", "[endpoints.West-Europe]"));
    let variable = ("SIGNALR_GATEWAY_ENDPOINTS__WEST_EUROPE__CONNECT_TIMEOUT", "7s");
    let settings = load(&sources(dir.path(), &[variable])).unwrap().settings;
    assert_eq!(settings.endpoints.len(), 1);
    assert_eq!(settings.endpoints[0].connect_timeout, std::time::Duration::from_secs(7));
}

/// Kubernetes sets variables for each service of a namespace; those of one called `signalr-gateway` have the prefix.
#[test]
fn ignores_the_service_variables_of_kubernetes() {
    let dir = folder(&minimal());
    let links = [
        ("SIGNALR_GATEWAY_SERVICE_HOST", "10.0.0.11"),
        ("SIGNALR_GATEWAY_SERVICE_PORT", "80"),
        ("SIGNALR_GATEWAY_SERVICE_PORT_HTTP", "80"),
        ("SIGNALR_GATEWAY_PORT", "tcp://10.0.0.11:80"),
        ("SIGNALR_GATEWAY_PORT_80_TCP", "tcp://10.0.0.11:80"),
        ("SIGNALR_GATEWAY_PORT_80_TCP_PROTO", "tcp"),
        ("SIGNALR_GATEWAY_PORT_80_TCP_PORT", "80"),
        ("SIGNALR_GATEWAY_PORT_80_TCP_ADDR", "10.0.0.11"),
        ("SIGNALR_GATEWAY_ADMIN_SERVICE_HOST", "10.0.0.12"),
    ];
    load(&sources(dir.path(), &links)).unwrap();
    // A number is not the form of a service variable.
    let loaded = load(&sources(dir.path(), &[("SIGNALR_GATEWAY_PORT", "8080")])).unwrap();
    assert!(
        loaded.warnings[0].to_string().contains("SIGNALR_GATEWAY_PORT: is not a configuration key"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn only_paths_in_the_file_are_relative_to_its_folder() {
    let dir = folder(&minimal());
    let variable = ("SIGNALR_GATEWAY_ENDPOINTS__EAST__CA_FILE", "Cargo.toml");
    let loaded = load(&sources(dir.path(), &[variable])).unwrap();
    assert_eq!(
        loaded.settings.endpoints[0].ca_file.as_deref(),
        Some(std::env::current_dir().unwrap().join("Cargo.toml").as_path())
    );
    let report = load(&sources(dir.path(), &[("SIGNALR_GATEWAY_ENDPOINTS__EAST__CA_FILE", "ca.pem")])).unwrap_err();
    assert!(report.to_string().contains("(environment variable SIGNALR_GATEWAY_ENDPOINTS__EAST__CA_FILE)"), "{report}");
}

#[test]
fn hash_does_not_depend_on_how_the_path_of_the_file_is_typed() {
    let dir = folder(&minimal());
    let absolute = dir.path().canonicalize().unwrap().join("gateway.toml");
    let up: PathBuf = std::env::current_dir().unwrap().components().skip(1).map(|_| "..").collect();
    let relative = up.join(absolute.strip_prefix("/").unwrap());
    let hash = |file: PathBuf| load(&Sources { file: Some(file), ..Sources::default() }).unwrap().settings.hash;
    let expected = hash(absolute.clone());
    for typed in [relative.clone(), Path::new(".").join(relative), dir.path().join("../").join(&absolute)] {
        assert_eq!(hash(typed.clone()), expected, "{}", typed.display());
    }
    let dotted = absolute
        .parent()
        .unwrap()
        .join("../")
        .join(absolute.strip_prefix(absolute.parent().unwrap().parent().unwrap()).unwrap());
    assert_eq!(hash(dotted.clone()), expected, "{}", dotted.display());
}

#[test]
fn beginning_of_a_variable_is_no_misspelling_of_another() {
    let dir = folder(&minimal());
    let err = load(&sources(dir.path(), &[("SIGNALR_GATEWAY_LIMIT", "1")])).unwrap_err().to_string();
    assert!(err.contains("did you mean `limits`?") && !err.contains("LIMITS__"), "{err}");
}
