//! The endpoints that hand out tokens and assertions: what each is called, and what to check when it fails.

use std::fmt;

/// An identity endpoint: what it is and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityEndpoint {
    /// What it is.
    pub kind: IdentityEndpointKind,
    /// `host[:port]`, or the origin that stands in for it.
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

/// What an identity endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityEndpointKind {
    /// A tenant's OAuth 2.0 token endpoint.
    Entra,
    /// IMDS of a virtual machine, scale set or Kubernetes node.
    InstanceMetadata,
    /// The endpoint that App Service, Functions and Container Apps name in `IDENTITY_ENDPOINT`.
    AppService,
    /// An identity provider outside Entra, whose token is presented to Entra.
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

    /// What to look at when it refuses.
    pub(super) const fn refused(self) -> &'static str {
        match self {
            Self::GithubActions => "the request token ends with the job that GitHub made it for",
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
    /// What to look at when it does not answer.
    pub(super) const fn reachability(self) -> &'static str {
        match self {
            Self::Entra => "check name resolution, outbound firewalls and, for a custom authority, `ca_file`",
            Self::InstanceMetadata => {
                "it exists on Azure hosts alone, and network policies or a proxy must not stand in its way"
            }
            Self::AppService => "check that the site has an identity assigned",
            Self::Provider(IdentityProvider::GithubActions) => {
                "its address is good for the job alone that it was made for"
            }
            Self::Provider(IdentityProvider::AzurePipelines) => "check that the agent can reach Azure DevOps",
            Self::Provider(IdentityProvider::GcpMetadata) => {
                "it exists on Google Cloud alone, and network policies or a proxy must not stand in its way"
            }
            Self::Provider(IdentityProvider::OAuth2) => {
                "check `token_url`, name resolution, outbound firewalls and, for a private CA, the assertion's `ca_file`"
            }
        }
    }
}
