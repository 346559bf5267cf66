//! Lowers the idempotency store that replicas share.

use std::time::Duration;

use super::context::{Context, key};
use super::{identity, values};
use crate::config::file::{IdempotencyFile, WhenStoreIsOutFile};
use crate::idempotency::{HAS_CLIENT, StoreAddress, StoreSettings, WhenStoreIsOut};

/// Chosen: a call must not wait longer for one step of the store.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn lower(file: &IdempotencyFile, context: &mut Context<'_>) -> Option<StoreSettings> {
    let at = |name| key(&["idempotency", name]);
    let timeout_key = at("store_timeout");
    let timeout = values::duration(&timeout_key, &file.store_timeout, context);
    if timeout > MAX_TIMEOUT {
        let fact = format!("`{}` is longer than 10s", file.store_timeout);
        context.problem(&timeout_key, fact, "write 10s or less: a call waits for the store up to three times");
    }
    let Some(text) = &file.store else {
        let unused = [
            ("username", file.username.is_some()),
            ("password", file.password.is_some()),
            ("ca_file", file.ca_file.is_some()),
            ("when_store_is_out", file.when_store_is_out != WhenStoreIsOutFile::default()),
        ];
        for (name, _) in unused.into_iter().filter(|(_, is_set)| *is_set) {
            context.problem(&at(name), "is set without `idempotency.store`", "set the store, or remove this key");
        }
        return None;
    };
    let store_key = at("store");
    if !HAS_CLIENT {
        let fix = "use a build with the Cargo feature `redis`, or remove the store";
        context.problem(&store_key, "this build has no client for a store", fix);
    }
    let (address, database) = match StoreAddress::parse(text) {
        Ok(parsed) => parsed,
        Err(err) => {
            let fix =
                "write redis://host:port/database, rediss:// for TLS, or unix:///path, and the password in `password`";
            context.problem(&store_key, err.to_string(), fix);
            return None;
        }
    };
    if file.username.is_some() && file.password.is_none() {
        context.problem(
            &at("username"),
            "is set without `idempotency.password`",
            "set the password, or remove the user",
        );
    }
    let is_tls = matches!(address, StoreAddress::Tcp { tls: true, .. });
    if file.ca_file.is_some() && !is_tls {
        context.problem(&at("ca_file"), "is set for a store without TLS", "write rediss://, or remove this key");
    }
    let password = file.password.as_ref();
    Some(StoreSettings {
        address,
        database,
        username: file.username.clone(),
        password: password.and_then(|password| identity::secret_source(&at("password"), password, context)),
        ca_file: values::ca_file(&at("ca_file"), file.ca_file.as_deref(), context),
        timeout,
        when_out: match file.when_store_is_out {
            WhenStoreIsOutFile::Refuse => WhenStoreIsOut::Refuse,
            WhenStoreIsOutFile::Local => WhenStoreIsOut::Local,
        },
    })
}
