//! Included files: their order, what they may contain, and how their problems are reported.

use std::os::unix::fs::symlink;

use super::*;

/// Creates a folder with a main file that includes `tenants.d/*.toml`, and these included files.
fn folder_with(main: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = folder(&format!("include = [\"tenants.d/*.toml\"]\n{main}"));
    std::fs::create_dir(dir.path().join("tenants.d")).unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join("tenants.d").join(name), text).unwrap();
    }
    dir
}

fn report_of(dir: &tempfile::TempDir) -> String {
    let err = load(&sources(dir.path(), &[])).unwrap_err();
    err.to_string().replace(&format!("{}/", dir.path().display()), "")
}

fn endpoint(name: &str) -> String {
    format!("[endpoints.{name}]\nurl = \"https://{name}.service.signalr.net\"\ncredential = \"fabrikam\"\n")
}

fn route(name: &str) -> String {
    format!("[[routes]]\nname = \"{name}\"\nmatch = {{ hub = \"{name}\" }}\nendpoints = [\"{name}\"]\n")
}

fn names(loaded: &Loaded) -> (Vec<&str>, Vec<&str>) {
    let settings = &loaded.settings;
    (
        settings.endpoints.iter().map(|endpoint| endpoint.name.as_str()).collect(),
        settings.routes.iter().map(|route| route.name.as_str()).collect(),
    )
}

#[test]
fn routes_of_included_files_stand_before_those_of_the_main_file_in_the_order_of_the_file_names() {
    let main = format!("{}[[routes]]\nname = \"rest\"\nendpoints = [\"east\"]\n", minimal());
    let (one, two) = (endpoint("one") + &route("one"), endpoint("two") + &route("two"));
    let files =
        [("b.toml", one.as_str()), ("a.toml", two.as_str()), (".c.toml", "this is no TOML"), ("d.md", "nor this")];
    let dir = folder_with(&main, &files);
    let loaded = load(&sources(dir.path(), &[])).unwrap();
    assert_eq!(names(&loaded), (vec!["east", "one", "two"], vec!["two", "one", "rest"]));

    let effective = loaded.effective();
    let shown = |key: &str| {
        let value = effective.iter().find(|value| value.key == key).unwrap();
        let origin = value.origin.as_ref().unwrap().to_string();
        (value.value.as_str().unwrap().to_owned(), origin.replace(&format!("{}/", dir.path().display()), ""))
    };
    assert_eq!(shown("routes.0.name"), ("two".into(), "tenants.d/a.toml:5".into()));
    assert_eq!(shown("routes.1.match.hub"), ("one".into(), "tenants.d/b.toml:6".into()));
    assert_eq!(shown("routes.2.name"), ("rest".into(), "gateway.toml:13".into()));
    assert_eq!(shown("endpoints.one.credential"), ("fabrikam".into(), "tenants.d/b.toml:3".into()));
    let keys: Vec<_> = effective.iter().map(|value| value.key.as_str()).collect();
    let tables: Vec<_> = keys.iter().map(|key| key.split('.').next().unwrap()).collect();
    assert!(tables.is_sorted(), "{keys:?}");
}

#[test]
fn reports_every_problem_of_all_files_at_once() {
    let bad_key =
        "[limits]\nmax_body = \"1KiB\"\n[limitz]\n[endpoints.a]\nurl = \"https://a\"\ncredential = \"fabricam\"\n";
    let bad_route =
        format!("{}[[routes]]\nname = \"b\"\nendpoints = [\"eats\"]\nmatch = {{ hub = 5 }}\n", endpoint("b"));
    let files = [("a.toml", bad_key), ("b.toml", bad_route.as_str())];
    let main = format!("{}[[routes]]\nname = \"b\"\nendpoints = [\"wets\"]\n", minimal());
    assert_eq!(
        report_of(&folder_with(&main, &files)),
        "the configuration has 7 problems
routes.1.name: there is another route called `b` (tenants.d/b.toml:5) (gateway.toml:13)
  hint: give each route a name of its own
routes.1.endpoints.0: there is no endpoint `wets` (gateway.toml:14)
  hint: define it as [endpoints.wets], or name one that exists
limits: is not allowed in an included file (tenants.d/a.toml:1)
  hint: move it to the main file; an included file may have `credentials`, `endpoints`, `routes`, `tests`
limitz: unknown key (tenants.d/a.toml:3)
  hint: known keys here: `credentials`, `endpoints`, `routes`, `tests`
endpoints.a.credential: there is no credential `fabricam` (tenants.d/a.toml:6)
  hint: did you mean `fabrikam`?
routes.0.endpoints.0: there is no endpoint `eats` (tenants.d/b.toml:6)
  hint: did you mean `east`?
routes.0.match.hub: is a number, must be text or a list (tenants.d/b.toml:7)
  hint: set it to text or a list: one value, or a list of them"
    );
}

#[test]
fn reports_both_places_of_a_name_that_is_defined_twice() {
    let (one, east) = (endpoint("one"), endpoint("east"));
    let dir = folder_with(&minimal(), &[("a.toml", &one), ("b.toml", &one), ("c.toml", &east)]);
    assert_eq!(
        report_of(&dir),
        "the configuration has 2 problems
endpoints.one: is defined at tenants.d/a.toml:1 as well (tenants.d/b.toml:1)
  hint: rename one of the two, or remove it
endpoints.east: is defined at gateway.toml:9 as well (tenants.d/c.toml:1)
  hint: rename one of the two, or remove it"
    );
}

#[test]
fn reports_the_file_and_line_of_a_syntax_error_and_no_name_that_the_file_may_define() {
    let main = format!("{}{}", minimal(), route("one"));
    let dir = folder_with(&main, &[("one.toml", &format!("{}oops\n", endpoint("one")))]);
    let report = report_of(&dir);
    assert!(report.starts_with("the file is not valid TOML: "), "{report}");
    assert!(report.contains("(tenants.d/one.toml:4)") && !report.contains("no endpoint"), "{report}");
}

#[test]
fn a_pattern_without_a_file_is_a_warning_and_a_missing_file_is_a_problem() {
    let dir = folder(&format!("include = [\"none/*.toml\", \"*.tml\"]\n{}", minimal()));
    let warnings = load(&sources(dir.path(), &[])).unwrap().warnings;
    let facts: Vec<_> = warnings.iter().map(|warning| (warning.key.as_str(), warning.fact.as_str())).collect();
    assert_eq!(facts, [("include.0", "matches no file: the folder does not exist"), ("include.1", "matches no file")]);
    let dir = folder(&format!("include = [\"one.toml\", \"d*/x.toml\"]\n{}", minimal()));
    assert_eq!(
        report_of(&dir),
        "the configuration has 2 problems
include.1: `d*/x.toml` has a `*` in the name of a folder (gateway.toml:1)
  hint: write one pattern for each folder
the included file cannot be read: No such file or directory (os error 2) (one.toml)
  hint: check that it exists and that the gateway's user may read it"
    );
    let report = report(&format!("include = \"tenants.d/*.toml\"\n{}", minimal()));
    assert!(report.starts_with("include: is text, must be a list (gateway.toml:1)"), "{report}");
}

#[test]
fn paths_in_an_included_file_are_relative_to_the_folder_of_the_main_file() {
    let dir = folder_with(&minimal(), &[("one.toml", &format!("{}ca_file = \"ca.pem\"\n", endpoint("one")))]);
    let loaded = load(&sources(dir.path(), &[])).unwrap();
    assert_eq!(loaded.settings.endpoints[1].ca_file, Some(dir.path().join("ca.pem")));
}

#[test]
fn variables_and_flags_override_the_entries_of_included_files() {
    let dir = folder_with(&minimal(), &[("one.toml", &endpoint("Cafe-One"))]);
    let variables = [
        ("SIGNALR_GATEWAY_ENDPOINTS__CAFE_ONE__CONNECT_TIMEOUT", "7s"),
        ("SIGNALR_GATEWAY_ENDPOINTS__EAST__CONNECT_TIMEOUT", "8s"),
    ];
    let mut sources = sources(dir.path(), &variables);
    sources.overrides.push(("endpoints.Cafe-One.role".into(), "secondary".into()));
    let loaded = load(&sources).unwrap();
    let timeouts: Vec<_> = loaded.settings.endpoints.iter().map(|one| one.connect_timeout.as_secs()).collect();
    assert_eq!((names(&loaded).0, timeouts), (vec!["Cafe-One", "east"], vec![7, 8]));
    let effective = loaded.effective();
    let origin = |key: &str| effective.iter().find(|value| value.key == key).unwrap().origin.clone().unwrap();
    assert_eq!(origin("endpoints.Cafe-One.connect_timeout"), Origin::Variable(variables[0].0.into()));
    assert_eq!(origin("endpoints.Cafe-One.role"), Origin::Flag("--set endpoints.Cafe-One.role".into()));

    sources.overrides.push(("endpoints.Cafe-One.rol".into(), "secondary".into()));
    let report = load(&sources).unwrap_err().to_string();
    assert!(report.contains("endpoints.Cafe-One.rol: unknown key (--set endpoints.Cafe-One.rol)"), "{report}");
    sources.overrides = vec![("include".into(), format!("[{}/tenants.d/one.toml]", dir.path().display()))];
    assert_eq!(names(&load(&sources).unwrap()).0, ["Cafe-One", "east"]);
}

#[test]
fn more_than_32_endpoints_and_no_route_is_an_error_that_says_so() {
    let many: String = (0..40).map(|number| endpoint(&format!("t{number}"))).collect();
    let dir = folder_with(&minimal(), &[("many.toml", &many)]);
    let report = report_of(&dir);
    assert!(report.contains("routes: there are 41 endpoints and no route"), "{report}");
}

/// Loads again as a watcher does, without waiting for a request.
fn reload(loader: &mut Loader) -> Option<Result<Loaded, ConfigError>> {
    loader.reload(false)
}

#[test]
fn included_files_of_a_configuration_from_stdin_are_noticed_and_messages_call_it_stdin() {
    let dir = folder_with("", &[]);
    // Relative paths would be relative to the working directory.
    let main = minimal().replace("\"secret\"", &format!("\"{}/secret\"", dir.path().display()));
    let text = format!("include = [\"{}/tenants.d/*.toml\"]\n{main}", dir.path().display());
    let mut loader = Loader::new(Sources { file: Some("-".into()), ..sources(dir.path(), &[]) });
    loader.load_text(Some(text)).unwrap();
    assert!(reload(&mut loader).is_none());
    std::fs::write(dir.path().join("tenants.d/one.toml"), endpoint("one")).unwrap();
    assert_eq!(names(&reload(&mut loader).unwrap().unwrap()).0, ["east", "one"]);
    assert!(reload(&mut loader).is_none());
    let requested = loader.reload(true).unwrap().unwrap_err().to_string();
    assert!(requested.contains("came from stdin"), "{requested}");
    assert_eq!(Origin::File("-".into(), None).to_string(), "stdin");
}

#[test]
fn a_reload_notices_files_that_are_added_changed_and_removed() {
    let dir = folder_with(&minimal(), &[("one.toml", &endpoint("one"))]);
    let file = |name: &str| dir.path().join("tenants.d").join(name);
    let mut loader = Loader::new(sources(dir.path(), &[]));
    loader.load().unwrap();
    assert!(reload(&mut loader).is_none());
    std::fs::write(file("two.toml"), endpoint("two")).unwrap();
    assert_eq!(names(&reload(&mut loader).unwrap().unwrap()).0, ["east", "one", "two"]);
    assert!(reload(&mut loader).is_none());
    // In place, with the same length.
    std::fs::write(file("two.toml"), endpoint("tri")).unwrap();
    assert_eq!(names(&reload(&mut loader).unwrap().unwrap()).0, ["east", "one", "tri"]);
    // By rename, to a name that sorts first.
    std::fs::rename(file("two.toml"), file("a.toml")).unwrap();
    assert_eq!(names(&reload(&mut loader).unwrap().unwrap()).0, ["east", "one", "tri"]);
    std::fs::remove_file(file("a.toml")).unwrap();
    assert_eq!(names(&reload(&mut loader).unwrap().unwrap()).0, ["east", "one"]);
    assert!(reload(&mut loader).is_none());
    // A bad file is reported once, until it changes.
    std::fs::write(file("bad.toml"), "oops").unwrap();
    assert!(reload(&mut loader).unwrap().unwrap_err().to_string().contains("bad.toml:1"));
    assert!(reload(&mut loader).is_none());
    std::fs::write(file("bad.toml"), endpoint("good")).unwrap();
    assert_eq!(names(&reload(&mut loader).unwrap().unwrap()).0, ["east", "good", "one"]);
}

#[test]
fn a_folder_that_vanishes_removes_no_endpoint() {
    let dir = folder_with(&minimal(), &[("one.toml", &endpoint("one"))]);
    let mut loader = Loader::new(sources(dir.path(), &[]));
    loader.load().unwrap();
    std::fs::rename(dir.path().join("tenants.d"), dir.path().join("away")).unwrap();
    let report = reload(&mut loader).unwrap().unwrap_err().to_string();
    assert!(report.starts_with("include.0: the folder") && report.contains("does not exist any more"), "{report}");
    // Without the folder, as requested.
    assert_eq!(names(&loader.reload(true).unwrap().unwrap()).0, ["east"]);
}

/// What is kept of the last load must never differ from what a new load finds.
#[test]
fn a_reload_finds_the_same_as_a_new_load_after_any_change() {
    let main = format!("{}[[routes]]\nname = \"rest\"\nendpoints = [\"east\"]\n", minimal());
    let dir = folder_with(&main, &[]);
    let file = |number: u64| dir.path().join(format!("tenants.d/{number}.toml"));
    let mut loader = Loader::new(sources(dir.path(), &[]));
    loader.load().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut rejected = 0;
    for _ in 0..12 {
        for _ in 0..random.usize(1..4) {
            let number = random.u64(0..6);
            let (name, other) = (format!("t{number}"), format!("t{}", random.u64(0..6)));
            let text = match random.u8(0..6) {
                0 => endpoint(&name),
                1 => endpoint(&name) + &route(&name),
                2 => endpoint(&name) + "enabled = false\n" + &route(&name),
                3 => endpoint(&name) + "ca_file = \"ca.pem\"\n",
                // May refer to an endpoint of a file that is gone.
                4 => endpoint(&name) + &route(&name).replace("endpoints = [", &format!("endpoints = [\"{other}\", ")),
                _ => String::new(),
            };
            if text.is_empty() {
                drop(std::fs::remove_file(file(number)));
            } else {
                std::fs::write(file(number), text).unwrap();
            }
        }
        let Some(reloaded) = reload(&mut loader) else { continue };
        match (reloaded, load(&sources(dir.path(), &[]))) {
            (Ok(reloaded), Ok(new)) => assert_eq!(reloaded.settings, new.settings),
            (Err(reloaded), Err(new)) => {
                assert_eq!(reloaded, new);
                rejected += 1;
            }
            (reloaded, new) => panic!("{reloaded:?} is not {new:?}"),
        }
    }
    assert!((1..10).contains(&rejected), "{rejected}");
}

#[test]
fn a_disabled_endpoint_is_validated_and_has_no_token_life() {
    let disabled = endpoint("one").replace("fabrikam", "own") + "enabled = false\n";
    let own = minimal().replace("[credentials.fabrikam]", "[credentials.own]");
    let own = own.split("[endpoints").next().unwrap();
    let main = format!("{}{}", minimal(), route("one"));
    let dir = folder_with(&main, &[("one.toml", &format!("{own}{disabled}"))]);
    let loaded = load(&sources(dir.path(), &[])).unwrap();
    let settings = &loaded.settings;
    assert_eq!(names(&loaded), (vec!["east"], vec!["one"]));
    assert_eq!(settings.disabled.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["one"]);
    assert_eq!(settings.credentials.len(), 1);
    let dir = folder_with(&main, &[("one.toml", &disabled.replace("https", "ftp"))]);
    let report = report_of(&dir);
    assert!(report.contains("endpoints.one.credential: there is no credential `own`"), "{report}");
    assert!(report.contains("endpoints.one.url: the scheme must be https"), "{report}");

    let all = minimal() + "enabled = false\n";
    let warnings = load_toml(&all).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.fact.starts_with("all endpoints are disabled")), "{warnings:?}");
}

#[test]
fn routing_tests_can_expect_that_an_endpoint_is_disabled_or_left_out() {
    let text = format!(
        "{}{}enabled = false\n{}[[routes]]\nname = \"both\"\nendpoints = [\"one\", \"east\"]\n\
         [[tests]]\nurl = \"/api/hubs/one/:send\"\nrefused = \"endpoint_disabled\"\n\
         [[tests]]\nurl = \"/api/hubs/chat/:send\"\nroute = \"both\"\nendpoints = \"east\"\n",
        minimal(),
        endpoint("one"),
        route("one"),
    );
    load_toml(&text).unwrap();
}

/// The kubelet writes the new files into a folder of their own, and swaps the link `..data`.
#[test]
fn the_link_swap_of_a_kubernetes_volume_is_one_change() {
    let dir = folder_with(&minimal(), &[]);
    let volume = dir.path().join("tenants.d");
    let publish = |version: &str, files: &[&str], suffix: &str| {
        std::fs::create_dir(volume.join(version)).unwrap();
        for name in files {
            let text = endpoint(&format!("{name}{suffix}"));
            std::fs::write(volume.join(version).join(format!("{name}.toml")), text).unwrap();
        }
        symlink(version, volume.join("..data_tmp")).unwrap();
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    };
    let link = |name: &str| symlink(format!("..data/{name}.toml"), volume.join(format!("{name}.toml"))).unwrap();
    publish("..2026_11_26_00.1", &["one", "two", "old"], "-a");
    ["one", "two", "old"].into_iter().for_each(link);
    let mut loader = Loader::new(sources(dir.path(), &[]));
    assert_eq!(names(&loader.load().unwrap()).0, ["east", "old-a", "one-a", "two-a"]);
    // The links of new and removed files are corrected only after the swap.
    publish("..2026_11_26_00.2", &["one", "two", "new"], "-b");
    let mut looks = 0;
    let reloaded = loader.reload_settled(false, &mut || {
        looks += 1;
        if looks == 1 {
            link("new");
            std::fs::remove_file(volume.join("old.toml")).unwrap();
            std::fs::remove_dir_all(volume.join("..2026_11_26_00.1")).unwrap();
        }
    });
    assert_eq!(looks, 2, "the files changed between the first two looks");
    assert_eq!(names(&reloaded.unwrap().unwrap()).0, ["east", "new-b", "one-b", "two-b"]);
    assert!(reload(&mut loader).is_none());
}
