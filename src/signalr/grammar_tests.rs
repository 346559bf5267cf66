//! Every row of the API, and properties that hold for any input.

use proptest::prelude::*;

use super::*;

fn parse(method: &str, target: &str) -> Result<(Operation, [Option<String>; 4]), ParseCallError> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let call = Call::parse(&method.parse().unwrap(), path, query)?;
    let decoded = |name: Option<Name<'_>>| name.map(|name| name.decoded().into_owned());
    Ok((call.operation, [decoded(call.hub), decoded(call.group), decoded(call.user), decoded(call.connection)]))
}

/// Method, path, operation and names (`h`ub, `g`roup, `u`ser, `c`onnection): first 2024-12-01, then v1, then the mirrored forms
/// of the emulator.
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
    use ParseCallError::{Malformed, UnknownPath, WrongMethod};
    for (method, path, expected) in [
        ("GET", "/", UnknownPath),
        ("GET", "/api", UnknownPath),
        ("GET", "/client/negotiate", UnknownPath),
        ("POST", "/API/hubs/h/:send", UnknownPath),
        ("POST", "/api/hubs/h/:Send", UnknownPath),
        ("POST", "/api/hubs/h/%3Asend", UnknownPath),
        ("POST", "/api/hubs/h/:send/", UnknownPath),
        ("POST", "/api//hubs/h/:send", UnknownPath),
        ("POST", "/api/hubs//:send", Malformed("")),
        ("POST", "/api/hubs/h/groups//:send", UnknownPath),
        ("POST", "/api/hubs/h/groups/g/connections/c/x/y", UnknownPath),
        ("POST", "/api/v1-preview/hub/h", UnknownPath),
        ("GET", "/api/hubs/h/:send", WrongMethod { allowed: "POST" }),
        ("PATCH", "/api/hubs/h/users/u/groups/g", WrongMethod { allowed: "GET, HEAD, PUT, DELETE" }),
        ("POST", "/api/health", WrongMethod { allowed: "GET, HEAD" }),
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
            UnknownPath | WrongMethod { .. } => *got == expected,
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

fn any_method() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
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
            let literal = name.starts_with(':');
            prop_assert!(call.operation.name() == operation || literal, "{} {}", method, path);
        }
    }
}
