//! The command line of `setup`.

use crate::support::run_with_stdin;

const CONFIG: &str = r#"
[credentials.trusted]
kind = "federated"
client_id = "11111111-1111-1111-1111-111111111111"
assertion = { source = "file", path = "/run/token" }

[endpoints.east]
url = "https://contoso-east.service.signalr.net"
credential = "trusted"
tenant = "fabrikam.onmicrosoft.com"

[endpoints.west]
url = "https://contoso-west.service.signalr.net"
credential = "trusted"
tenant = "22222222-2222-2222-2222-222222222222"
"#;

#[tokio::test]
async fn bicep_is_for_one_tenant_and_names_must_exist() {
    let several = run_with_stdin(CONFIG, &["setup", "--config", "-", "--format", "bicep"]).await;
    assert!(several.code == Some(2) && several.stderr.contains("choose one with --tenant, of 2222"), "{several:?}");
    let unknown = run_with_stdin(CONFIG, &["setup", "--config", "-", "--endpoint", "eest"]).await;
    assert!(
        unknown.code == Some(2) && unknown.stderr.contains("there is no endpoint `eest` in the configuration"),
        "{unknown:?}"
    );
    let one = run_with_stdin(CONFIG, &["setup", "--config", "-", "--endpoint", "east"]).await;
    assert!(one.code == Some(0) && !one.stdout.contains("contoso-west"), "{one:?}");
}
