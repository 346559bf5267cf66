use super::*;

fn shown(text: &str) -> String {
    prose(text, &SentSecrets::default())
}

#[test]
fn keeps_error_descriptions() {
    for text in [
        "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client secret \
         value, not the client secret ID, for a secret added to app '11111111-2222-3333-4444-555555555555'.",
        "AADSTS700016: Application with identifier '11111111-2222-3333-4444-555555555555' was not found in the directory \
         'Contoso'. This can happen if the application has not been installed by the administrator of the tenant.",
        "AADSTS50034: The user account does not exist at 2026-11-26T17:03:30.123Z",
        "AADSTS700213: No matching federated identity record found for presented assertion subject \
         'repo:contoso/chat:ref:refs/heads/main'. https://learn.microsoft.com/entra/workload-id",
        "TF400813: The user is not authorized to access this resource.",
        "invalid peer certificate: NotValidForName",
        "Identity not found",
        "invalid_client",
        "Please run 'az login' to setup account.",
        "curl: (7) Failed to connect to 127.0.0.1:8443 after 0 ms: Connection refused",
        "sh: 1: /opt/idp/print-token: not found",
        "the file is at https://login.microsoftonline.com/error?code=7000215",
    ] {
        assert_eq!(shown(text), text);
    }
}

#[test]
fn masks_words_that_look_like_a_token_and_values_of_secret_names() {
    for (text, expected) in [
        ("sent eyJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJ4In0.c2ln now", "sent … now"),
        ("key 3q2+7wABAgMEBQYHCAkKCwwNDg8= is bad", "key … is bad"),
        ("bytes [45, 45, 45, 66, 69, 71, 73, 78]", "bytes …"),
        ("bytes 2d 2d 2d 42 45 47 49 4e here", "bytes … here"),
        ("s\0e\0c\0r\0e\0t\0 was read", "… was read"),
        ("bytes 2d:2d:2d:42:45:47:49:4e", "bytes …"),
        ("bytes 45,45,45,66,69,71,73,78", "bytes …"),
        ("password=hunter2 user=me", "… user=me"),
        ("client_secret: hunter2 was sent", "client_secret: … was sent"),
        ("'Abc8Q~dEfGhIjKlMnOpQrStUvWxYz012345' is not valid", "'…' is not valid"),
        ("got ~Gooc+38.~VK8~~_A3/w/72+_.Bdq here", "got … here"),
        // The last eight bytes of a secret.
        ("got S8cTw7t. here", "got …. here"),
        ("a\nb\u{1b}[2J\tc", "a b [2J c"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn masks_every_part_of_a_sent_secret() {
    let mut sent = SentSecrets::default();
    sent.add("correct horse battery");
    sent.add("abc12");
    for text in [
        "got correct horse battery.",
        "got rrect hor",
        "client_secret=correct+horse+battery",
        "abc12",
        "636F727265637420686F727365",
        "636f727265637420686f727365",
        "xxY29ycmVjdCBob3JzZSBiYXR0ZXJ5",
    ] {
        let shown = prose(text, &sent);
        assert!(shown.contains(MASK), "{text} -> {shown}");
        for leak in ["orrect", "horse", "c12", "7265", "cmVj", "yZWN"] {
            assert!(!shown.contains(leak), "{text} -> {shown}");
        }
    }
    assert_eq!(prose("the right answer", &sent), "the right answer");
}

#[test]
fn keeps_configured_values_that_do_not_look_like_secrets() {
    assert_eq!(
        message("`contoso` is not a domain, see `az ad sp list`"),
        "`contoso` is not a domain, see `az ad sp list`"
    );
    assert_eq!(message("`Abc8Q~dEfGhIj` is neither"), "`…` is neither");
    let shown = arguments(
        &["get", "--audience", "api://AzureADTokenExchange", "--password", "hunter2", "Abc8Q~dEfGhIj"]
            .map(str::to_owned),
    );
    assert_eq!(shown, ["get", "--audience", "api://AzureADTokenExchange", "--password", "…", "…"]);
}

#[test]
fn accepts_only_well_formed_codes_and_ids() {
    assert_eq!((code("invalid_client"), code("a\nb"), code("Abc8Q~dEf")), (Some("invalid_client"), None, None));
    assert_eq!(id("11111111-2222-3333-4444-555555555555"), Some("11111111-2222-3333-4444-555555555555"));
    assert_eq!((id("c-1"), id("Abc8Q~dEfGh"), id("")), (Some("c-1"), None, None));
    assert_eq!(
        (value("contoso.onmicrosoft"), value("Abc8Q~dEfGhIj"), value("two words")),
        ("contoso.onmicrosoft", "…", "…")
    );
}

#[test]
fn text_that_an_error_has_of_its_source_is_not_repeated() {
    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }
    let layer = |text, source: Option<Layer>| Layer { text, source: source.map(Box::new) };
    let handshake = || layer("invalid peer certificate: UnknownIssuer", None);
    // As libraries wrap an error of TLS: with its text at the end, in the middle, and alone.
    let wrapped =
        layer("tcp: invalid peer certificate: UnknownIssuer", Some(layer("UnknownIssuer", Some(handshake()))));
    let error = layer("no token (tcp: invalid peer certificate: UnknownIssuer), check the CA", Some(wrapped));
    assert_eq!(in_one_line(&error), error.text);
    let error = layer("no token", Some(layer("the file cannot be read", Some(layer("disk is gone", None)))));
    assert_eq!(in_one_line(&error), "no token: the file cannot be read: disk is gone");
    let masked =
        MaskedError::new(&layer("client error (Connect)", Some(layer("x: refused", Some(layer("refused", None))))));
    assert_eq!((masked.to_string().as_str(), masked.root()), ("client error (Connect): x: refused", "refused"));
}
