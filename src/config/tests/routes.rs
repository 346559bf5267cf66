//! Routes: how many there may be, how many endpoints each may have, and which are not allowed.

use std::fmt::Write;

use super::*;

/// Returns a configuration with these endpoints and no routes.
fn with_endpoints<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut config = "[credentials.key]\nkind = \"access_key\"\nkey = { file = \"secret\" }\n".to_owned();
    for name in names {
        let url = format!("https://{}.service.signalr.net", name.to_ascii_lowercase());
        writeln!(config, "[endpoints.{name}]\nurl = \"{url}\"\ncredential = \"key\"").unwrap();
    }
    config
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("e{number}")).collect()
}

#[test]
fn there_is_no_limit_on_the_number_of_routes() {
    let mut config = with_endpoints(["east"]);
    for number in 0..300 {
        let (name, hub) = (format!("r{number}"), format!("hub{number}"));
        writeln!(config, "[[routes]]\nname = \"{name}\"\nmatch = {{ hub = \"{hub}\" }}\nendpoints = [\"east\"]")
            .unwrap();
    }
    assert_eq!(load_toml(&config).unwrap().settings.routes.len(), 300);
}

#[test]
fn more_than_32_endpoints_need_routes_and_a_route_has_at_most_32() {
    let names = numbered(33);
    let config = with_endpoints(names.iter().map(String::as_str));
    let text = report(&config);
    assert!(text.contains("routes: there are 33 endpoints and no route"), "{text}");
    let text = report(&format!("{config}[[routes]]\nname = \"all\"\nendpoints = {names:?}\n"));
    assert!(text.contains("routes.0.endpoints: has 33 endpoints, the maximum is 32"), "{text}");
}
