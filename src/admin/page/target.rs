//! The endpoint or credential that the banner describes.

use form_urlencoded::Serializer;

use crate::admin::{CredentialView, EndpointStatus, FailureView, Status};

/// The endpoint or credential that the banner describes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    kind: &'static str,
    /// The name; of a credential with a tenant, both.
    name: &'a str,
}

impl<'a> Target<'a> {
    /// Returns what the banner describes, if that has an entry of its own.
    pub(super) fn of(status: &'a Status) -> Option<Self> {
        let (kind, name) = status.verdict.problem.as_ref()?.entry.as_ref()?;
        Some(Self { kind, name })
    }

    /// Returns its name on the page.
    pub(super) fn title(self) -> String {
        let kind = if self.kind == "credential" { "Credential" } else { "Endpoint" };
        format!("{kind} {}", self.name)
    }

    /// Returns the link to its entry. If this page does not list it, the link searches for it.
    pub(super) fn href(self, status: &Status) -> String {
        let listed = match self.kind {
            "credential" => status.credentials.iter().find(|view| self.is_credential(view)).map(credential_id),
            _ => status.endpoints.iter().find(|view| self.is_endpoint(view)).map(|view| endpoint_id(&view.name)),
        };
        listed.map_or_else(
            || {
                let name = self.name.split(" (").next().unwrap_or(self.name);
                let query = Serializer::new(String::new()).append_pair("name", name).finish();
                format!("/?{query}#problems")
            },
            |id| format!("#{id}"),
        )
    }

    /// Whether it is this endpoint.
    pub(super) fn is_endpoint(self, endpoint: &EndpointStatus) -> bool {
        self.kind == "endpoint" && self.name == endpoint.name
    }

    /// Whether it is this credential.
    pub(super) fn is_credential(self, credential: &CredentialView) -> bool {
        self.kind == "credential" && self.name == credential_name(credential)
    }

    /// Returns its last failure, if this page lists it.
    pub(super) fn failure(self, status: &Status) -> Option<&FailureView> {
        let of_endpoint = status.endpoints.iter().find(|view| self.is_endpoint(view));
        let of_credential = status.credentials.iter().find(|view| self.is_credential(view));
        let failure = of_endpoint.map(|endpoint| &endpoint.last_failure);
        failure.or(of_credential.map(|credential| &credential.last_failure))?.as_ref()
    }
}

/// Returns the id of an endpoint's entry.
pub(super) fn endpoint_id(name: &str) -> String {
    format!("endpoint-{name}")
}

/// Returns the id of a credential's entry.
pub(super) fn credential_id(credential: &CredentialView) -> String {
    let CredentialView { name, tenant, .. } = credential;
    tenant.as_ref().map_or_else(|| format!("credential-{name}"), |tenant| format!("credential-{name}-{tenant}"))
}

/// Returns the name of a credential as lines of the verdict have it.
pub(super) fn credential_name(credential: &CredentialView) -> String {
    let CredentialView { name, tenant, .. } = credential;
    tenant.as_ref().map_or_else(|| name.clone(), |tenant| format!("{name} ({tenant})"))
}
