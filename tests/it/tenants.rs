//! Many tenants behind one gateway: one app registration, a tenant and an endpoint for each customer, one route. Each endpoint of
//! the sandbox rejects tokens of other tenants, and its journal shows which it got.

use std::path::PathBuf;
use std::sync::Arc;

use signalr_gateway::sandbox::{Description, Entry, Fault, FaultKind, Sandbox};
use tempfile::TempDir;

use crate::support::{
    BROADCAST_BODY, Caller, GROUP_APP, GROUP_IDENTITY, Process, Response, request, tenant_group, wait_until,
};

mod cold;
mod faults;
mod storms;

/// A sandbox with a group of tenants `t1`, `t2`, …, and the configuration of a gateway with a file for each.
struct Fleet {
    sandbox: Sandbox,
    folder: TempDir,
}

impl Fleet {
    /// Starts a sandbox. `group` has more keys of `[tenant_groups.t]`.
    async fn start(count: usize, group: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let description = tenant_group(&format!("count = {count}\n{group}"));
        let file = folder.path().join("sandbox.toml");
        std::fs::write(&file, description).unwrap();
        let settings = Description::read(&file).unwrap_or_else(|err| panic!("{err}")).settings;
        let fleet = Self { sandbox: Sandbox::start(settings).await.unwrap(), folder };
        fleet.sandbox.write_described_files(fleet.folder.path(), None).unwrap();
        std::fs::create_dir(fleet.folder.path().join("tenants.d")).unwrap();
        for endpoint in fleet.sandbox.endpoints() {
            fleet.write_tenant(endpoint.name(), endpoint.name());
        }
        fleet
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("tenants.d/{name}.toml"))
    }

    /// Writes the file of an endpoint with this name, which is the sandbox's `endpoint`. Replaces it at once.
    fn write_tenant(&self, name: &str, endpoint: &str) {
        let url = self.sandbox.endpoint(endpoint).unwrap().url();
        // A slow machine must not fail calls.
        let text = format!(
            "[endpoints.{name}]\nurl = \"{url}\"\ncredential = \"saas\"\ntenant = \"{endpoint}.onmicrosoft.com\"\n\
             ca_file = \"ca.pem\"\nconnect_timeout = \"30s\"\n"
        );
        let unfinished = self.folder.path().join("unfinished");
        std::fs::write(&unfinished, text).unwrap();
        std::fs::rename(unfinished, self.file(name)).unwrap();
    }

    /// Adds `enabled = false` to the file of a new endpoint.
    fn suspend_tenant(&self, name: &str) {
        self.write_tenant(name, name);
        let text = std::fs::read_to_string(self.file(name)).unwrap();
        std::fs::write(self.file(name), text + "enabled = false\n").unwrap();
    }

    fn remove_tenant(&self, name: &str) {
        std::fs::remove_file(self.file(name)).unwrap();
    }

    /// Starts the real gateway. `more` is appended to its configuration.
    async fn start_gateway(&self, more: &str) -> Process {
        self.start_gateway_with("kind = \"client_secret\"\nsecret = { file = \"saas-secret\" }", more).await
    }

    /// Starts the real gateway, whose app authenticates by a managed identity.
    async fn start_federated_gateway(&self, more: &str) -> Process {
        let imds = self.sandbox.imds().url();
        let proof = format!(
            "kind = \"federated\"\nassertion = {{ source = \"managed_identity\", client_id = \"{GROUP_IDENTITY}\", imds_endpoint = \"{imds}\" }}"
        );
        self.start_gateway_with(&proof, more).await
    }

    /// Starts the real gateway. `proof` has the keys of how the app authenticates.
    async fn start_gateway_with(&self, proof: &str, more: &str) -> Process {
        let entra = self.sandbox.entra().url();
        let text = format!(
            "include = [\"tenants.d/*.toml\"]\n\
             [listeners.default]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
             [credentials.saas]\nclient_id = \"{GROUP_APP}\"\n{proof}\ncloud = \"custom\"\nauthority = \"{entra}\"\nca_file = \"ca.pem\"\n\
             [[routes]]\nname = \"tenants\"\nmatch = {{ hub = \"{{endpoint}}_*\" }}\n\
             [timeouts]\nrequest = \"100s\"\ntry = \"100s\"\n[logging]\naccess = \"failures\"\n{more}"
        );
        let config = self.folder.path().join("gateway.toml");
        std::fs::write(&config, text).unwrap();
        Process::start_gateway(&config, &[]).await
    }

    /// Returns the calls that an endpoint received, without health probes.
    fn arrivals(&self, endpoint: &str) -> Vec<Entry> {
        let journal = self.sandbox.endpoint(endpoint).unwrap().server.journal();
        assert_eq!(journal.dropped(), 0, "the journal of {endpoint} is incomplete");
        journal.entries().into_iter().filter(|entry| entry.path().contains("/hubs/")).collect()
    }

    /// Asserts that no endpoint ever got a call without a token of its own tenant, and returns how many calls they got.
    #[track_caller]
    fn assert_own_tokens(&self) -> usize {
        let directory = self.sandbox.directory().snapshot();
        let mut count = 0;
        for endpoint in self.sandbox.endpoints() {
            let tenant = &directory.resource(endpoint.name()).unwrap().tenant;
            for entry in self.arrivals(endpoint.name()) {
                let token = entry.authorization.as_ref().unwrap_or_else(|| panic!("no token: {entry:?}"));
                assert_eq!(token.claim("tid"), Some(tenant.as_str()), "a token of another tenant: {entry:?}");
                count += 1;
            }
        }
        count
    }

    /// Returns the token requests for a tenant.
    fn token_requests(&self, tenant: &str) -> usize {
        let path = format!("/{tenant}.onmicrosoft.com/oauth2/v2.0/token");
        self.sandbox.entra().journal().entries().iter().filter(|entry| entry.path() == path).count()
    }

    fn set_fault(&self, endpoint: &str, fault: Fault) {
        self.sandbox.endpoint(endpoint).unwrap().server.faults().set(fault);
    }
}

/// Sends a broadcast to a hub of an endpoint.
async fn broadcast(caller: &mut Caller, endpoint: &str) -> Response {
    let target = format!("/api/hubs/{endpoint}_chat/:send?api-version=2022-11-01");
    caller.send(request("POST", &target).header("content-type", "application/json"), BROADCAST_BODY).await
}

/// Calls every endpoint once, over a connection each.
async fn broadcast_to_all(gateway: &Process, endpoints: impl Iterator<Item = String>) -> Vec<(String, Response)> {
    let calls = endpoints.map(async |name| {
        let response = broadcast(&mut Caller::connect(gateway.listener()).await, &name).await;
        (name, response)
    });
    futures_util::future::join_all(calls).await
}

fn names(numbers: impl IntoIterator<Item = usize>) -> impl Iterator<Item = String> {
    numbers.into_iter().map(|number| format!("t{number}"))
}
