//! Tenants and object ids that endpoints name, and the token lives that follow from them.

use super::*;

const OBJECT_ID: &str = "object_id = \"0b1ec700-0000-4000-8000-000000000001\"\n";

/// Returns a configuration with one credential, and an endpoint for each given name with its keys.
fn config(credential: &str, endpoints: &[(&str, &str)]) -> String {
    let endpoint = |(name, keys): &(&str, &str)| {
        format!("[endpoints.{name}]\nurl = \"https://{name}.service.signalr.net\"\ncredential = \"saas\"\n{keys}\n")
    };
    let endpoints: String = endpoints.iter().map(endpoint).collect();
    format!("[credentials.saas]\n{credential}\n{endpoints}")
}

fn app(keys: &str) -> String {
    format!("kind = \"client_secret\"\nclient_id = \"{GUID}\"\nsecret = {{ file = \"secret\" }}\n{keys}")
}

#[test]
fn each_tenant_that_endpoints_name_has_its_own_token_life() {
    let endpoints = [
        ("a", "tenant = \"a.example\""),
        ("b", "tenant = \"b.example\""),
        ("b2", "tenant = \"b.example\"\nobject_id = \"0b1ec700-0000-4000-8000-000000000001\""),
    ];
    let settings = load_toml(&config(&app(""), &endpoints)).unwrap_or_else(|err| panic!("{err}")).settings;
    let lives: Vec<_> = settings.credentials.iter().map(|credential| credential.id.to_string()).collect();
    assert_eq!(lives, ["saas (a.example)", "saas (b.example)"]);
    let of_endpoints: Vec<_> = settings.endpoints.iter().map(|endpoint| endpoint.credential.to_string()).collect();
    assert_eq!(of_endpoints, ["saas (a.example)", "saas (b.example)", "saas (b.example)"]);
    let kinds: Vec<_> = settings.credentials.iter().map(|credential| &credential.kind).collect();
    let [CredentialKind::App { app: one, tenant: a }, CredentialKind::App { app: other, tenant: b }] = kinds[..] else {
        panic!("{kinds:?}")
    };
    assert_eq!((&**a, &**b), ("a.example", "b.example"));
    assert!(std::sync::Arc::ptr_eq(one, other), "the app's settings are shared");
    let object_ids: Vec<_> = settings.credentials.iter().map(|credential| credential.object_id.is_some()).collect();
    assert_eq!(object_ids, [false, true]);
}

#[test]
fn hundreds_of_tenants_are_valid() {
    let names: Vec<_> =
        (0..300).map(|number| (format!("t{number}"), format!("tenant = \"t{number}.example\""))).collect();
    let endpoints: Vec<_> = names.iter().map(|(name, keys)| (name.as_str(), keys.as_str())).collect();
    let text = config(&app(""), &endpoints);
    let dir = folder(&format!("{text}\n[[routes]]\nname = \"r\"\nendpoints = [\"t1\"]\n"));
    let settings = load(&sources(dir.path(), &[])).unwrap_or_else(|err| panic!("{err}")).settings;
    assert_eq!((settings.credentials.len(), settings.endpoints.len()), (300, 300));
}

#[test]
fn tokens_are_acquired_on_demand_above_64_token_lives() {
    let tokens = |count: usize, more: &str| {
        let names: Vec<_> =
            (0..count).map(|number| (format!("t{number}"), format!("tenant = \"t{number}.example\""))).collect();
        let endpoints: Vec<_> = names.iter().map(|(name, keys)| (name.as_str(), keys.as_str())).collect();
        let route = "[[routes]]\nname = \"r\"\nendpoints = [\"t0\"]\n";
        load_toml(&format!("{}{route}{more}", config(&app(""), &endpoints)))
            .unwrap_or_else(|err| panic!("{err}"))
            .settings
            .tokens
    };
    let hour = Some(std::time::Duration::from_secs(3600));
    assert_eq!((tokens(64, "").release_after, tokens(65, "").release_after), (None, hour));
    assert_eq!(tokens(65, "[tokens]\nacquire = \"at_start\"").release_after, None);
    let minute = tokens(1, "[tokens]\nacquire = \"on_demand\"\nrelease_after = \"1m\"\nmax_requests = 4");
    assert_eq!((minute.release_after, minute.max_requests), (hour.map(|hour| hour / 60), 4));
}

#[test]
fn reports_tenants_that_are_named_twice_by_nobody_or_for_a_kind_that_has_none() {
    let tenant = ("a", "tenant = \"a.example\"");
    let managed = "kind = \"managed_identity\"".to_owned();
    let token_file = "kind = \"token_file\"\npath = \"token\"".to_owned();
    let with_id = format!("tenant = \"a.example\"\n{OBJECT_ID}");
    let other_id = with_id.replace("0001", "0002");
    for (credential, endpoints, expected) in [
        (app("tenant = \"c.example\""), vec![tenant], "endpoints.a.tenant: is set here and in `credentials.saas`"),
        (app(""), vec![("a", ""), ("b", "")], "credentials.saas.tenant: is missing, here and in the endpoints"),
        (app(""), vec![tenant, ("b", "")], "endpoints.b.tenant: is missing, and `credentials.saas` names no tenant"),
        (app(""), vec![("a", "tenant = \"common\"")], "endpoints.a.tenant: `common` is not one tenant"),
        (app(""), vec![("a", "tenant = \"nodot\"")], "endpoints.a.tenant: `nodot` is neither a GUID nor a domain"),
        ("kind = \"azure_cli\"".to_owned(), vec![("a", "")], "credentials.saas.tenant: is missing"),
        (
            managed.clone(),
            vec![tenant],
            "endpoints.a.tenant: `credentials.saas` has no tenant: its kind is managed_identity",
        ),
        (token_file, vec![tenant], "its kind is token_file"),
        (managed, vec![("a", OBJECT_ID)], "endpoints.a.object_id: does not apply to `credentials.saas`"),
        (app(OBJECT_ID), vec![("a", &with_id)], "endpoints.a.object_id: is set here and in `credentials.saas`"),
        (
            app(""),
            vec![("a", "tenant = \"a.example\"\nobject_id = \"me\"")],
            "endpoints.a.object_id: `me` is not a GUID",
        ),
        (
            app(""),
            vec![("a", &with_id), ("b", &other_id)],
            "endpoints.b.object_id: differs from `endpoints.a.object_id`",
        ),
        (
            app(OBJECT_ID),
            vec![tenant, ("b", "tenant = \"b.example\"")],
            "credentials.saas.object_id: is the id in one tenant, but the endpoints of this credential name 2 tenants",
        ),
    ] {
        let report = report(&config(&credential, &endpoints));
        assert!(report.contains(expected) && report.lines().count() == 2, "{expected}\n{report}");
    }
}

#[test]
fn a_tenant_of_the_wrong_type_is_reported_once() {
    for (credential, endpoint) in [(app("tenant = 5"), ""), (app(""), "tenant = 5")] {
        let report = report(&config(&credential, &[("a", endpoint)]));
        assert!(report.contains("tenant: is a") && !report.contains("is missing"), "{report}");
    }
}

#[test]
fn an_endpoint_may_name_another_tenant_than_the_variable_of_the_pod() {
    let text = config("kind = \"workload_identity\"", &[("a", "tenant = \"a.example\""), ("b", "")]);
    let settings = load(&sources(folder(&text).path(), &PLATFORM)).unwrap_or_else(|err| panic!("{err}")).settings;
    let lives: Vec<_> = settings.credentials.iter().map(|credential| credential.id.to_string()).collect();
    assert_eq!(lives, ["saas", "saas (a.example)"]);
    let CredentialKind::App { tenant, .. } = &settings.credentials[0].kind else { panic!("{settings:?}") };
    assert_eq!(&**tenant, PLATFORM[0].1);
}
