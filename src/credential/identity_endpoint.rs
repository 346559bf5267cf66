//! The endpoints that issue tokens and assertions: their names in messages, and hints about failures.

use std::fmt;

/// An endpoint that issues tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityEndpoint {
    /// Its kind.
    pub kind: IdentityEndpointKind,
    /// `host[:port]`, or the configured origin (`imds_endpoint`) that replaces it.
    pub authority: String,
}

impl fmt::Display for IdentityEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            IdentityEndpointKind::Entra => "Entra's token endpoint",
            IdentityEndpointKind::InstanceMetadata => "the instance metadata service",
            IdentityEndpointKind::AppService => "the App Service identity endpoint",
            IdentityEndpointKind::Provider(provider) => provider.name(),
        };
        write!(f, "{name} at {}", self.authority)
    }
}

/// The kind of an identity endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityEndpointKind {
    /// A tenant's OAuth 2.0 token endpoint.
    Entra,
    /// IMDS of a virtual machine, scale set or Kubernetes node.
    InstanceMetadata,
    /// The endpoint that App Service, Functions and Container Apps name in `IDENTITY_ENDPOINT`.
    AppService,
    /// An identity provider outside Entra, whose token is the assertion sent to Entra.
    Provider(IdentityProvider),
}

/// An identity provider outside Entra.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityProvider {
    /// The OIDC provider of GitHub Actions.
    GithubActions,
    /// The OIDC provider of Azure Pipelines.
    AzurePipelines,
    /// The metadata server of Google Cloud.
    GcpMetadata,
    /// An OAuth 2.0 token endpoint.
    OAuth2,
}

impl IdentityProvider {
    const fn name(self) -> &'static str {
        match self {
            Self::GithubActions => "the OIDC provider of GitHub Actions",
            Self::AzurePipelines => "the OIDC provider of Azure Pipelines",
            Self::GcpMetadata => "the metadata server of Google Cloud",
            Self::OAuth2 => "the OAuth 2.0 token endpoint",
        }
    }

    /// Returns a hint for an error response: what to check.
    pub(super) const fn rejection_hint(self) -> &'static str {
        match self {
            Self::GithubActions => "the request token is valid only while its job runs",
            Self::AzurePipelines => {
                "check `service_connection`, that the pipeline may use it, and that the access token is that of the \
                 running job"
            }
            Self::GcpMetadata => "check that the host has the service account",
            Self::OAuth2 => "check `client_id`, `secret`, `authentication`, `scope` and `audience` of the assertion",
        }
    }
}

impl IdentityEndpointKind {
    /// Returns a hint for a missing response: what to check.
    pub(super) const fn no_response_hint(self) -> &'static str {
        match self {
            Self::Entra => "check name resolution, outbound firewalls and, for a custom authority, `ca_file`",
            Self::InstanceMetadata => {
                "it exists only on Azure hosts, and network policies or a proxy must not block it"
            }
            Self::AppService => "check that the site has an identity assigned",
            Self::Provider(IdentityProvider::GithubActions) => "its address is valid only while its job runs",
            Self::Provider(IdentityProvider::AzurePipelines) => "check that the agent can reach Azure DevOps",
            Self::Provider(IdentityProvider::GcpMetadata) => {
                "it exists only on Google Cloud, and network policies or a proxy must not block it"
            }
            Self::Provider(IdentityProvider::OAuth2) => {
                "check `token_url`, name resolution, outbound firewalls and, for a private CA, the assertion's `ca_file`"
            }
        }
    }
}
