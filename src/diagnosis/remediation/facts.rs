//! The known values that remediation commands contain.

use crate::credential::{AppSettings, Claims, CredentialKind, CredentialSettings};
use crate::diagnosis::commands;
use crate::endpoint::EndpointSettings;

/// The known values that remediation commands contain.
pub(in crate::diagnosis) struct Facts<'a> {
    pub(in crate::diagnosis) credential: &'a CredentialSettings,
    pub(in crate::diagnosis) endpoint: &'a EndpointSettings,
    /// The claims of the assertion that was presented, if any.
    pub(in crate::diagnosis) assertion: Option<&'a Claims>,
    /// The unverified claims of the endpoint's token, if it is known and a JWT.
    pub(in crate::diagnosis) token: Option<&'a Claims>,
    /// The caller's object id in the endpoint's tenant, from the configuration or from the token.
    pub(in crate::diagnosis) object_id: Option<&'a str>,
}

impl Facts<'_> {
    pub(super) fn app(&self) -> Option<&AppSettings> {
        if let CredentialKind::App { app, .. } = &self.credential.kind { Some(app) } else { None }
    }

    pub(super) fn client_id(&self) -> &str {
        self.app().map_or("<client id>", |app| &app.client_id)
    }

    pub(super) fn tenant(&self) -> &str {
        let identity = self.credential.kind.facts().identity;
        identity.and_then(|identity| identity.tenant()).unwrap_or("<tenant of the endpoint>")
    }

    /// Returns the command that prints a property of the SignalR resource.
    pub(super) fn resource(&self, property: &str) -> String {
        commands::resource(&self.endpoint.origin.host, property)
    }

    /// Returns the full path of a configuration key of this credential or endpoint.
    pub(super) fn path(&self, key: &str) -> String {
        match key {
            "url" => format!("endpoints.{}.url", self.endpoint.name),
            "tenant" if self.credential.id.tenant.is_some() => format!("endpoints.{}.tenant", self.endpoint.name),
            key => format!("credentials.{}.{key}", self.credential.id.name),
        }
    }

    /// Returns the command that signs in to the endpoint's tenant.
    pub(super) fn sign_in(&self) -> String {
        commands::sign_in(self.tenant())
    }
}
