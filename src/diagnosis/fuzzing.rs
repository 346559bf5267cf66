//! Fuzz target for the claims of a token.

use std::time::{Duration, SystemTime};

use super::claims::check_claims;
use crate::credential::{
    AppSettings, AuthoritySettings, Claims, Cloud, CredentialId, CredentialKind, CredentialSettings, Proof,
    SecretSource,
};

/// Compares arbitrary claims with a credential and asserts that each is formatted in one line without control characters.
pub(crate) fn claims(data: &[u8]) {
    let Ok(claims) = serde_json::from_slice::<Claims>(data) else { return };
    let app = AppSettings {
        authority: AuthoritySettings { cloud: Cloud::Public, ca_file: None },
        egress: std::sync::Arc::default(),
        client_id: "0a990000-0000-4000-8000-000000000001".to_owned(),
        scope: "https://signalr.azure.com/.default".to_owned(),
        proof: Proof::Secret(SecretSource::Env("X".to_owned())),
    };
    let object_id = Some("0b1ec700-0000-4000-8000-000000000001".into());
    let kind = CredentialKind::App { app: app.into(), tenant: "bbbbbbbb-0000-4000-8000-00000000000b".into() };
    let settings = CredentialSettings { id: CredentialId::without_tenant("x"), kind, object_id };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for check in check_claims(&claims, &settings, now) {
        assert!(!check.result.chars().any(char::is_control), "{:?} has control characters", check.result);
    }
}
