//! Tests of [`Listeners`]: which sockets and ids another configuration keeps.

use super::*;

fn tcp(name: &str, address: &str) -> ListenerSettings {
    ListenerSettings {
        name: name.to_owned(),
        bind: Bind::Tcp(address.parse().unwrap()),
        tls: None,
        proxy_protocol: None,
    }
}

/// Returns the ids, and the commands to the one worker.
fn replace(listeners: &mut Listeners, wanted: &[ListenerSettings]) -> (Vec<ListenerId>, Vec<String>) {
    let plan = listeners.plan(wanted);
    let ids = plan.ids();
    let mut commands = listeners.replace(plan.bind(1).unwrap(), 1);
    let names = commands.remove(0).into_iter().map(|command| match command {
        Command::Serve { new: Some(_), .. } => "open".to_owned(),
        Command::Serve { new: None, .. } => "hand over".to_owned(),
        Command::CloseSocket(_) => "close".to_owned(),
        Command::DrainConnections(id) => format!("end {}", id.0),
        Command::Respond(_) => "respond".to_owned(),
    });
    (ids, names.collect())
}

#[test]
fn listener_keeps_its_id_while_name_address_and_tls_stay_the_same() {
    let mut listeners = Listeners::default();
    let (first, commands) = replace(&mut listeners, &[tcp("default", "127.0.0.1:0"), tcp("other", "127.0.0.1:0")]);
    assert_eq!(commands, ["open", "open"]);
    let BoundAddress::Tcp(address) = listeners.open[0].address else { panic!("not TCP") };
    let (same, commands) = replace(&mut listeners, &[tcp("other", "127.0.0.1:0"), tcp("default", "127.0.0.1:0")]);
    assert_eq!((same, commands), (vec![first[1], first[0]], vec![]));

    // Another name at the same address.
    let end_default = format!("end {}", first[0].0);
    let (renamed, commands) =
        replace(&mut listeners, &[tcp("other", "127.0.0.1:0"), tcp("renamed", &address.to_string())]);
    assert_eq!((renamed[0], commands), (first[1], vec!["hand over".to_owned(), end_default]));
    assert!(!first.contains(&renamed[1]));

    // A listener that is removed and added again has another id.
    let (_, commands) = replace(&mut listeners, &[tcp("other", "127.0.0.1:0")]);
    assert_eq!(commands, ["close".to_owned(), format!("end {}", renamed[1].0)]);
    let (back, _) = replace(&mut listeners, &[tcp("renamed", &address.to_string())]);
    assert!(!first.contains(&back[0]) && back != renamed[1..]);
}

#[test]
fn rejects_the_port_that_another_listener_got_for_port_0() {
    let mut listeners = Listeners::default();
    replace(&mut listeners, &[tcp("a", "127.0.0.1:0")]);
    let taken = listeners.open[0].address.to_string();
    // The socket that a worker would have.
    let _open = std::net::TcpListener::bind(&taken).unwrap();
    let plan = listeners.plan(&[tcp("a", "127.0.0.1:0"), tcp("b", &taken)]);
    assert!(matches!(plan.bind(1), Err(BindError::InUse { .. })));
}

#[test]
fn listeners_can_exchange_addresses() {
    let mut listeners = Listeners::default();
    let (first, _) = replace(&mut listeners, &[tcp("a", "127.0.0.1:0"), tcp("b", "127.0.0.1:0")]);
    let at = |index: usize| listeners.open[index].address.to_string();
    let exchanged = [tcp("a", &at(1)), tcp("b", &at(0))];
    let (ids, commands) = replace(&mut listeners, &exchanged);
    assert!(ids.iter().all(|id| !first.contains(id)));
    let ends = [format!("end {}", first[0].0), format!("end {}", first[1].0)];
    assert_eq!(commands, ["hand over", "hand over", &ends[0], &ends[1]]);
}

#[test]
fn failure_to_bind_does_not_change_open_listeners() {
    let mut listeners = Listeners::default();
    let (ids, _) = replace(&mut listeners, &[tcp("a", "127.0.0.1:0")]);
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = tcp("busy", &busy.local_addr().unwrap().to_string());
    assert!(matches!(listeners.plan(&[busy]).bind(1), Err(BindError::InUse { .. })));
    let nothing = std::path::PathBuf::from("/nonexistent.pem");
    let tls = Some(ListenerTlsSettings { certificate: nothing.clone(), key: nothing, client_auth: None });
    let plan = listeners.plan(&[ListenerSettings { tls, ..tcp("a", "127.0.0.1:0") }]);
    assert_ne!(plan.ids(), ids, "plain and TLS are two listeners");
    assert!(matches!(plan.bind(1), Err(BindError::Tls { .. })));
    assert_eq!(listeners.plan(&[tcp("a", "127.0.0.1:0")]).ids(), ids);
}

#[test]
fn bind_does_not_read_the_files_of_a_listener_that_keeps_them() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("own.pem"), folder.path().join("own.key"));
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    let tls = Some(ListenerTlsSettings { certificate: certificate.clone(), key, client_auth: None });
    let wanted = [ListenerSettings { tls, ..tcp("a", "127.0.0.1:0") }];
    let mut listeners = Listeners::default();
    replace(&mut listeners, &wanted);
    let live = Arc::clone(listeners.open[0].tls.as_ref().unwrap());
    let before = live.current();
    std::fs::remove_file(certificate).unwrap();
    let bound = listeners.plan(&wanted).bind(1).unwrap();
    assert!(Arc::ptr_eq(&bound.tls()[0], &live));
    assert!(Arc::ptr_eq(&live.current(), &before) && live.problem().is_none());
}
