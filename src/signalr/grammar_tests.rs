//! Every row of the API, and properties that hold for any input.

use proptest::prelude::*;

use super::*;

fn parse(method: &str, target: &str) -> Result<(Operation, [Option<String>; 4]), ParseCallError> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let call = Call::parse(&method.parse().unwrap(), path, query)?;
    let decoded = |name: Option<Name<'_>>| name.map(|name| name.decoded().into_owned());
    Ok((call.operation, [decoded(call.hub), decoded(call.group), decoded(call.user), decoded(call.connection)]))
}

/// Method, path, operation and names (`h`ub, `g`roup, `u`ser, `c`onnection): first 2024-12-01 and 2026-07-01, then v1, then the
/// mirrored forms of the emulator.
const ROWS: &[(&str, &str, &str, &str)] = &[
    ("HEAD", "/api/health", "health", ""),
    ("GET", "/api/auth/accessKey", "access_key", ""),
    ("POST", "/api/hubs/h/:send", "hub_send", "h"),
    ("POST", "/api/hubs/h/:closeConnections", "hub_close_connections", "h"),
    ("POST", "/api/hubs/h/:execute", "hub_execute", "h"),
    ("POST", "/api/hubs/h/:generateToken", "generate_token", "h"),
    ("HEAD", "/api/hubs/h/connections/c", "connection_exists", "hc"),
    ("DELETE", "/api/hubs/h/connections/c", "connection_close", "hc"),
    ("POST", "/api/hubs/h/connections/c/:send", "connection_send", "hc"),
    ("POST", "/api/hubs/h/connections/c/:invoke", "connection_invoke", "hc"),
    ("DELETE", "/api/hubs/h/connections/c/groups", "connection_leave_all_groups", "hc"),
    ("POST", "/api/hubs/h/connections/c/streams/s/:send", "stream_send", "hc"),
    ("POST", "/api/hubs/h/connections/c/streams/s/:complete", "stream_complete", "hc"),
    ("HEAD", "/api/hubs/h/groups/g", "group_exists", "hg"),
    ("POST", "/api/hubs/h/groups/g/:closeConnections", "group_close_connections", "hg"),
    ("POST", "/api/hubs/h/groups/g/:send", "group_send", "hg"),
    ("GET", "/api/hubs/h/groups/g/connections", "group_list_connections", "hg"),
    ("PUT", "/api/hubs/h/groups/g/connections/c", "group_add_connection", "hgc"),
    ("DELETE", "/api/hubs/h/groups/g/connections/c", "group_remove_connection", "hgc"),
    ("HEAD", "/api/hubs/h/users/u", "user_exists", "hu"),
    ("POST", "/api/hubs/h/users/u/:closeConnections", "user_close_connections", "hu"),
    ("POST", "/api/hubs/h/users/u/:send", "user_send", "hu"),
    ("DELETE", "/api/hubs/h/users/u/groups", "user_leave_all_groups", "hu"),
    ("HEAD", "/api/hubs/h/users/u/groups/g", "user_in_group", "hug"),
    ("GET", "/api/hubs/h/users/u/groups/g", "user_in_group", "hug"),
    ("PUT", "/api/hubs/h/users/u/groups/g", "user_add_to_group", "hug"),
    ("DELETE", "/api/hubs/h/users/u/groups/g", "user_remove_from_group", "hug"),
    ("POST", "/api/hubs/h/connections/:refreshAuth", "connection_refresh_auth", "h"),
    ("POST", "/api/hubs/h/connections/claims", "connection_claims", "h"),
    ("QUERY", "/api/hubs/h/connections/claims", "connection_claims", "h"),
    ("HEAD", "/api/v1/health", "health", ""),
    ("GET", "/api/v1/health", "health", ""),
    ("GET", "/api/v1/auth/accessKey", "access_key", ""),
    ("POST", "/api/v1/hubs/h", "hub_send", "h"),
    ("POST", "/api/v1/hubs/h/users/u", "user_send", "hu"),
    ("POST", "/api/v1/hubs/h/connections/c", "connection_send", "hc"),
    ("GET", "/api/v1/hubs/h/connections/c", "connection_exists", "hc"),
    ("HEAD", "/api/v1/hubs/h/connections/c", "connection_exists", "hc"),
    ("DELETE", "/api/v1/hubs/h/connections/c", "connection_close", "hc"),
    ("POST", "/api/v1/hubs/h/groups/g", "group_send", "hg"),
    ("GET", "/api/v1/hubs/h/groups/g", "group_exists", "hg"),
    ("HEAD", "/api/v1/hubs/h/groups/g", "group_exists", "hg"),
    ("GET", "/api/v1/hubs/h/users/u", "user_exists", "hu"),
    ("HEAD", "/api/v1/hubs/h/users/u", "user_exists", "hu"),
    ("PUT", "/api/v1/hubs/h/groups/g/connections/c", "group_add_connection", "hgc"),
    ("DELETE", "/api/v1/hubs/h/groups/g/connections/c", "group_remove_connection", "hgc"),
    ("GET", "/api/v1/hubs/h/groups/g/users/u", "user_in_group", "hgu"),
    ("HEAD", "/api/v1/hubs/h/groups/g/users/u", "user_in_group", "hgu"),
    ("PUT", "/api/v1/hubs/h/groups/g/users/u", "user_add_to_group", "hgu"),
    ("DELETE", "/api/v1/hubs/h/groups/g/users/u", "user_remove_from_group", "hgu"),
    ("DELETE", "/api/v1/hubs/h/users/u/groups", "user_leave_all_groups", "hu"),
    ("PUT", "/api/v1/hubs/h/connections/c/groups/g", "group_add_connection", "hcg"),
    ("DELETE", "/api/v1/hubs/h/connections/c/groups/g", "group_remove_connection", "hcg"),
    ("GET", "/api/v1/hubs/h/users/u/groups/g", "user_in_group", "hug"),
    ("POST", "/api/v1/hubs/h/:send", "hub_send", "h"),
    ("POST", "/api/hubs/h", "hub_send", "h"),
];

#[test]
fn parses_every_row_of_the_api() {
    for (method, path, operation, names) in ROWS {
        let named = |name: char| names.contains(name).then(|| name.to_string());
        let expected = (operation_named(operation), [named('h'), named('g'), named('u'), named('c')]);
        assert_eq!(parse(method, path), Ok(expected), "{method} {path}");
        assert_eq!(
            parse(method, &format!("{path}?api-version=2022-11-01")).map(|call| call.0),
            Ok(operation_named(operation))
        );
    }
}

fn operation_named(name: &str) -> Operation {
    Operation::from_name(name).unwrap()
}

#[test]
fn every_operation_has_a_row() {
    for operation in Operation::ALL {
        assert!(ROWS.iter().any(|row| row.2 == operation.name()), "{operation}");
    }
}

#[test]
fn names_are_decoded_once_and_kept_raw() {
    let call = Call::parse(&Method::POST, "/api/hubs/Chat/users/user%2Fa%252F/:send", None).unwrap();
    let user = call.user.unwrap();
    assert_eq!((user.raw(), &*user.decoded()), ("user%2Fa%252F", "user/a%2F"));
    assert_eq!(call.hub.unwrap().raw(), "Chat");
}

#[test]
fn query_keys_are_compared_without_case() {
    let call = Call::parse(&Method::POST, "/api/hubs/h/:send", Some("excluded=a&Application=app%2Fx&application=2"));
    assert_eq!(call.unwrap().query_value("application").as_deref(), Some("app/x"));
}

#[test]
fn distinguishes_unknown_paths_wrong_methods_and_malformed_names() {
    use ParseCallError::{AppServerPath, ClientPath, Malformed, UnknownOperation, UnknownPath, WrongMethod};
    for (method, path, expected) in [
        ("GET", "/", UnknownPath),
        ("GET", "/api", UnknownPath),
        ("POST", "/client/negotiate", ClientPath),
        ("GET", "/Client/", ClientPath),
        ("GET", "/client", ClientPath),
        ("GET", "/aspnetclient/", ClientPath),
        ("GET", "/server/", AppServerPath),
        ("GET", "/server", AppServerPath),
        ("GET", "/servers/", UnknownPath),
        ("POST", "/api/hubs/h/:send//", UnknownPath),
        ("POST", "/api/hubs/h/%253Asend", UnknownPath),
        ("POST", "/api/hubs/h%2F:send", Malformed("")),
        ("POST", "/api%2Fhubs/h/:send", UnknownPath),
        ("POST", "/api/v1/v1/hubs/h", UnknownPath),
        ("POST", "/api//hubs/h/:send", UnknownPath),
        ("POST", "/api/hubs//:send", Malformed("")),
        ("POST", "/api/hubs/h/groups//:send", UnknownPath),
        ("POST", "/api/hubs/h/groups/g/connections/c/x/y", UnknownPath),
        ("POST", "/api/v1-preview/hub/h", UnknownPath),
        ("GET", "/api/hubs/h/:send", WrongMethod { allowed: "POST" }),
        ("PATCH", "/api/hubs/h/users/u/groups/g", WrongMethod { allowed: "GET, HEAD, PUT, DELETE" }),
        ("POST", "/api/health", WrongMethod { allowed: "GET, HEAD" }),
        ("GET", "/api/hubs/h/connections/:refreshAuth", WrongMethod { allowed: "POST" }),
        ("PUT", "/api/hubs/h/connections/claims", WrongMethod { allowed: "GET, HEAD, POST, QUERY, DELETE" }),
        ("QUERY", "/api/hubs/h/connections/c", WrongMethod { allowed: "GET, HEAD, POST, DELETE" }),
        ("POST", "/api/hubs/my-app_chat/:send", Malformed("")),
        ("POST", "/api/v1/hubs/my-chat", Malformed("")),
        ("POST", "/api/v1/hubs/app_my-chat", Malformed("")),
        ("POST", "/api/v1/hubs/-app_chat", Malformed("")),
        ("POST", "/api/hubs/9/:send", Malformed("")),
        ("POST", "/api/hubs/h%2Fx/:send", Malformed("")),
        ("POST", "/api/hubs/h/users/../:send", Malformed("")),
        ("POST", "/api/hubs/h/users/%2e%2E/:send", Malformed("")),
        ("POST", "/api/hubs/h/users/%zz/:send", Malformed("")),
        ("POST", "/api/hubs/h/users/%ff/:send", Malformed("")),
        ("POST", "/api/hubs/h/users/a\\b/:send", Malformed("")),
        ("POST", "/api/hubs/h/users/a\u{7f}/:send", Malformed("")),
        ("POST", "/api/hubs/h/users/ü/:send", Malformed("")),
        ("POST", "/api/hubs/h/users/\"u\"/:send", Malformed("")),
    ] {
        let same_kind = |got: &ParseCallError| match expected {
            Malformed(_) => matches!(got, Malformed(_)),
            UnknownPath | AppServerPath | ClientPath | WrongMethod { .. } | UnknownOperation { .. } => *got == expected,
        };
        let got = parse(method, path);
        assert!(got.as_ref().is_err_and(same_kind), "{method} {path}: {got:?}");
    }
}

#[test]
fn queries_must_be_ascii() {
    assert!(Call::parse(&Method::POST, "/api/hubs/h/:send", Some("a=ü")).is_err());
    assert!(Call::parse(&Method::POST, "/api/hubs/h/:send", Some("a=%C3%BC")).is_ok());
}

#[test]
fn names_may_contain_encoded_slashes_unless_the_path_would_be_another_call() {
    for (path, is_call) in [
        ("users/user%2Fa/:send", true),
        ("users/user%2Fa", true),
        ("users/u%2f:closeConnections/:send", true),
        ("groups/100%25/:send", true),
        ("groups/a%2541/:send", true),
        ("groups/%c3%bc%25/:send", true),
        ("users/%3AcloseConnections", true),
        ("users/u%2f:closeConnections", false),
        ("users/u%2F%3acloseConnections", false),
        ("users/u%252f:closeConnections", false),
        ("users/u%2fgroups%2fg", false),
        ("groups/g%2fconnections", false),
        ("users/a%2f..%2fb/:send", false),
        ("users/a%2F%2e%2e/:send", false),
        ("users/a%5c..%5cb/:send", false),
        ("users/%252e%252e/:send", false),
        ("users/%25252e%25252e/:send", true),
    ] {
        let path = format!("/api/hubs/h/{path}");
        let call = Call::parse(&Method::POST, &path, None);
        assert_eq!(call.is_ok(), is_call, "{path}: {call:?}");
    }
}

#[test]
fn spellings_that_the_service_takes_are_the_same_call() {
    for (path, operation) in [
        ("hubs/h/%3Asend", "hub_send"),
        ("hubs/h/:SEND", "hub_send"),
        ("hubs/h/:send/", "hub_send"),
        ("%68ubs/h/", "hub_send"),
        ("HUBS/h/Groups/g/:closeconnections", "group_close_connections"),
        ("hubs/h/users/u/", "user_send"),
        ("hubs/h/connections/c/Streams/s/%3acomplete/", "stream_complete"),
        ("hubs/h/connections/%3ArefreshAuth", "connection_refresh_auth"),
        ("hubs/h/connections/:REFRESHAUTH/", "connection_refresh_auth"),
        ("hubs/h/connections/%63laims", "connection_claims"),
        ("hubs/h/Connections/Claims/", "connection_claims"),
    ] {
        for prefix in ["/api/", "/Api/", "/%61pi/", "/api/v1/", "/API/V1/", "/api/%76%31/"] {
            let path = format!("{prefix}{path}");
            assert_eq!(parse("POST", &path).map(|call| call.0), Ok(operation_named(operation)), "{path}");
        }
    }
    assert_eq!(parse("GET", "/api/Auth/AccessKey/").map(|call| call.0), Ok(Operation::AccessKey));
    assert_eq!(parse("HEAD", "/API/HEALTH/").map(|call| call.0), Ok(Operation::Health));
}

#[test]
fn names_keep_their_bytes_in_every_spelling_of_the_path() {
    for path in ["/api/hubs/Chat/users/Bob%2F/:send", "/API/%48ubs/Chat/users/Bob%2F/%3asend/"] {
        let call = Call::parse(&Method::POST, path, None).unwrap();
        assert_eq!((call.hub.unwrap().raw(), call.user.unwrap().raw()), ("Chat", "Bob%2F"), "{path}");
    }
    // Names that are spelled like literals.
    let call = Call::parse(&Method::PUT, "/api/hubs/HUBS/Users/users/GROUPS/Groups", None).unwrap();
    let names = [call.hub, call.user, call.group].map(|name| name.unwrap().raw());
    assert_eq!(names, ["HUBS", "users", "Groups"]);
}

#[test]
fn claims_of_a_connection_are_read_and_replaced_only_by_their_own_methods() {
    for (method, path, operation, connection) in [
        ("POST", ":refreshAuth", "connection_refresh_auth", None),
        ("POST", "%3arefreshauth", "connection_refresh_auth", None),
        ("HEAD", "%3ArefreshAuth", "connection_exists", Some(":refreshAuth")),
        ("POST", "claims", "connection_claims", None),
        ("QUERY", "CLAIMS", "connection_claims", None),
        ("HEAD", "claims", "connection_exists", Some("claims")),
        ("DELETE", "claims", "connection_close", Some("claims")),
        ("POST", "claims/:send", "connection_send", Some("claims")),
        ("DELETE", "claims/groups", "connection_leave_all_groups", Some("claims")),
        ("POST", "claimed", "connection_send", Some("claimed")),
        ("POST", "reclaims", "connection_send", Some("reclaims")),
    ] {
        let call = parse(method, &format!("/api/hubs/h/connections/{path}"));
        let expected = [Some("h".to_owned()), None, None, connection.map(str::to_owned)];
        assert_eq!(call, Ok((operation_named(operation), expected)), "{method} {path}");
    }
    // A proxy that decodes it once more would send it to `:refreshAuth`.
    assert!(matches!(parse("POST", "/api/hubs/h/connections/%253ArefreshAuth"), Err(ParseCallError::Malformed(_))));
    for path in ["groups/claims", "users/claims", "users/%3ArefreshAuth"] {
        let name = parse("POST", &format!("/api/hubs/h/{path}")).unwrap().0;
        assert!(matches!(name, Operation::GroupSend | Operation::UserSend), "{path}");
    }
}

#[test]
fn operations_that_are_not_known_are_refused_by_name() {
    for (method, path, segment) in [
        ("POST", "connections/:revoke", ":revoke"),
        ("POST", "connections/:refreshAuth/:send", ":refreshAuth"),
        ("POST", "connections/c/:revoke", ":revoke"),
        ("POST", "users/:bob", ":bob"),
        ("HEAD", "users/:bob", ":bob"),
        ("POST", "users/:bob/:send", ":bob"),
        ("POST", "groups/:send", ":send"),
        ("POST", ":broadcast", ":broadcast"),
        ("PUT", "groups/g/connections/:c/", ":c"),
    ] {
        let segment = segment.into();
        let got = parse(method, &format!("/api/hubs/h/{path}"));
        assert_eq!(got, Err(ParseCallError::UnknownOperation { segment }), "{method} {path}");
    }
    let user = |path: &str| parse("POST", path).unwrap().1[2].clone();
    assert_eq!(user("/api/hubs/h/users/%3Abob/:send").as_deref(), Some(":bob"));
    assert_eq!(user("/api/hubs/h/users/a:bob/:send").as_deref(), Some("a:bob"));
    let long = format!("/api/hubs/h/users/:{}", "x".repeat(1000));
    let Err(ParseCallError::UnknownOperation { segment }) = parse("POST", &long) else { panic!("{long}") };
    assert_eq!(segment.len(), 100);
}

#[test]
fn hubs_of_v1_may_have_a_hyphen_in_the_name_of_their_application() {
    for path in ["/api/v1/hubs/my-app_chat", "/api/v1/hubs/my-app_other_chat/users/u", "/API/v1/hubs/my%2Dapp_chat/"] {
        assert!(parse("POST", path).unwrap().1[0].as_ref().is_some_and(|hub| hub.starts_with("my-app_")), "{path}");
    }
}

/// The operation that an ASP.NET Core application with the routes of `ROWS` sees, if any.
///
/// Source: `dotnet/aspnetcore`, `UrlDecoder.cs` (decodes once, never `%2F`), `FastPathTokenizer.cs` (ignores one slash at the
/// end), `DfaMatcher.cs` (literals without case and before parameters, parameters not empty), `HttpMethodMatcherPolicy.cs`
/// (the method selects among the routes of a path).
fn service_sees(method: &str, path: &str) -> Option<&'static str> {
    let decoded = path.replace("%2F", "%252F").replace("%2f", "%252f");
    let decoded: Vec<u8> = percent_decode_str(&decoded).collect();
    let decoded = decoded.strip_prefix(b"/")?;
    let decoded = decoded.strip_suffix(b"/").unwrap_or(decoded);
    let segments: Vec<&[u8]> = decoded.split(|byte| *byte == b'/').collect();
    let is_parameter = |segment: &str| matches!(segment, "h" | "g" | "u" | "c" | "s");
    let matches = |template: &str| {
        let template: Vec<&str> = template[1..].split('/').collect();
        template.len() == segments.len()
            && template.iter().zip(&segments).all(|(part, segment)| {
                if is_parameter(part) { !segment.is_empty() } else { segment.eq_ignore_ascii_case(part.as_bytes()) }
            })
    };
    // Of two templates, that with a literal where the other first has a parameter comes first.
    let precedence = |template: &str| template.split('/').map(is_parameter).collect::<Vec<_>>();
    let both_prefixes = ROWS.iter().flat_map(|(method, template, operation, _)| {
        let rest = template.trim_start_matches("/api/").trim_start_matches("v1/");
        [format!("/api/{rest}"), format!("/api/v1/{rest}")].map(|template| (*method, template, *operation))
    });
    let also_get = both_prefixes.flat_map(|(method, template, operation)| {
        let methods = if method == "HEAD" { vec!["HEAD", "GET"] } else { vec![method] };
        methods.into_iter().map(move |method| (method, template.clone(), operation))
    });
    also_get
        .filter(|(allowed, template, _)| *allowed == method && matches(template))
        .min_by_key(|(_, template, _)| precedence(template))
        .map(|(_, _, operation)| operation)
}

/// Returns a path of `ROWS` with these names, in which each character is spelled as the numbers say.
fn spelled(template: &str, names: &[String], spelling: &[u8]) -> String {
    let mut names = names.iter();
    let with_names: Vec<String> = template
        .split('/')
        .map(|segment| match segment {
            "h" => "h".to_owned(),
            "g" | "u" | "c" | "s" => names.next().cloned().unwrap_or_default(),
            literal => literal.to_owned(),
        })
        .collect();
    let mut spelling = spelling.iter().chain(std::iter::repeat(&0));
    let spell = |character: char| match (character, spelling.next()) {
        ('/' | '%', _) => character.to_string(),
        (_, Some(6)) => format!("%{:02X}", u32::from(character)),
        (_, Some(7)) if character.is_ascii_uppercase() => character.to_ascii_lowercase().to_string(),
        (_, Some(7)) => character.to_ascii_uppercase().to_string(),
        _ => character.to_string(),
    };
    with_names.join("/").chars().map(spell).collect()
}

/// A name: one that means something elsewhere in a path, or any.
fn any_name() -> impl Strategy<Value = String> {
    let special = [
        "claims",
        ":refreshAuth",
        ":send",
        ":bob",
        "groups",
        "users",
        "connections",
        "health",
        "v1",
        "api",
        "h",
        "%3Abob",
        "%3ArefreshAuth",
        "%63laims",
        "a%2Fb",
        "a%2Fgroups%2Fb",
        "a%2F:send",
        "%253Asend",
        "%252F:send",
        "%2e%2e",
    ];
    prop_oneof![prop::sample::select(special.to_vec()).prop_map(str::to_owned), "[a-z:%]{1,8}"]
}

fn any_method() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "QUERY", "PATCH", "OPTIONS", "BREW"])
}

proptest! {
    #[test]
    fn never_panics(method in any_method(), path in "\\PC*", query in prop::option::of("\\PC*")) {
        let _ = Call::parse(&method.parse().unwrap(), &path, query.as_deref());
    }

    #[test]
    fn never_panics_near_the_api(method in any_method(), path in "(/(api|v1|hubs|users|groups|connections|streams|:send|%2e|%2F|[.%a-z]{0,3})){0,9}") {
        let _ = Call::parse(&method.parse().unwrap(), &path, None);
    }

    /// Whatever is encoded, the gateway sees the operation that the service sees, or refuses the call. It refuses only what
    /// the service reads otherwise, what a proxy might change, and names that begin with `:`.
    #[test]
    fn the_gateway_sees_the_operation_that_the_service_sees(
        method in any_method(),
        row in 0..ROWS.len(),
        names in prop::collection::vec(any_name(), 4),
        spelling in prop::collection::vec(0..8_u8, 0..90),
        end in prop::sample::select(vec!["", "", "/", "//", "/x", "%2F", "/claims", "/:send", "/%3Asend"]),
    ) {
        use ParseCallError::{AppServerPath, ClientPath, UnknownPath, WrongMethod};
        let path = spelled(ROWS[row].1, &names, &spelling) + end;
        let method = if spelling.len() % 2 == 0 { ROWS[row].0 } else { method };
        let seen = service_sees(method, &path);
        match parse(method, &path) {
            Ok((operation, _)) => prop_assert_eq!(Some(operation.name()), seen, "{} {}", method, path),
            Err(UnknownPath | AppServerPath | ClientPath | WrongMethod { .. }) => {
                let has_refused_name = path.split('/').any(|segment| segment.starts_with(':'));
                prop_assert!(seen.is_none() || has_refused_name, "{} {}: {:?}", method, path, seen);
            }
            Err(ParseCallError::UnknownOperation { .. } | ParseCallError::Malformed(_)) => {}
        }
    }

    /// With any name, a request has the operation of its shape or is an error.
    #[test]
    fn a_name_never_changes_the_operation(
        name in "([a-z.:/\\\\]|%2[fFeE]|%5[cC]|%0[0ad]|%3[aA]|\\.\\.|[\\x01-\\x7f]){1,12}",
        row in 0..ROWS.len(),
    ) {
        let (method, path, operation, names) = ROWS[row];
        prop_assume!(names.contains(['g', 'u', 'c']) && !name.contains('/'));
        let placeholder = if names.contains('g') { "/g" } else if names.contains('u') { "/u" } else { "/c" };
        let at = path.rfind(&format!("{placeholder}/")).or_else(|| path.ends_with(placeholder).then(|| path.len() - 2));
        let at = at.unwrap();
        let path = format!("{}/{name}{}", &path[..at], &path[at + 2..]);
        if let Ok(call) = Call::parse(&method.parse().unwrap(), &path, None) {
            let is_literal = ["claims", ":refreshauth"].contains(&&*percent_decode_str(&name).decode_utf8_lossy().to_lowercase());
            prop_assert!(call.operation.name() == operation || is_literal, "{} {}", method, path);
        }
    }
}
