//! The built-in content of the directory. It follows Microsoft's article on cross-tenant access to Azure SignalR.
//!
//! ```text
//! tenant A "contoso" (home)                  tenant B "fabrikam"               tenant C "northwind"
//!   app registration, multi-tenant             enterprise application            enterprise application
//!     secret, certificate,                       of the same client id             of the same client id
//!     federated credentials for:                 REST API Owner on "east"          REST API Owner on "west"
//!       managed identity of A  ─ IMDS          SignalR resource "east"           SignalR resource "west"
//!       external issuers: a    ─ file          managed identity with the role
//!       cluster, GitHub, Azure
//!       Pipelines, Google, OAuth
//! ```

use std::time::{Duration, SystemTime};

use super::index::Index;
use super::model::{
    Application, ClientSecret, Directory, EXCHANGE_AUDIENCES, ExternalIssuer, FederatedCredential, ManagedIdentity,
    Resource, SecretText, ServicePrincipal, Tenant, TokenPolicy, v2_issuer,
};
use super::roles::Role;
use crate::sandbox::crypto::certificates::ClientCertificate;
use crate::sandbox::crypto::ids::random_string;
use crate::sandbox::crypto::keys::RsaKey;
use crate::sandbox::error::SandboxError;

/// The id of tenant A, which has the app registration and its managed identity.
pub const TENANT_A: &str = "aaaaaaaa-0000-4000-8000-00000000000a";
/// The id of tenant B, which has the resource `east`.
pub const TENANT_B: &str = "bbbbbbbb-0000-4000-8000-00000000000b";
/// The id of tenant C, which has the resource `west`.
pub const TENANT_C: &str = "cccccccc-0000-4000-8000-00000000000c";
/// The client id of the app registration, and of its enterprise applications.
pub const APP_CLIENT_ID: &str = "0a990000-0000-4000-8000-000000000001";
/// The client id of the managed identity in tenant A.
pub const IDENTITY_CLIENT_ID: &str = "1de00000-0000-4000-8000-00000000000a";
/// The object id of the managed identity in tenant A.
pub const IDENTITY_OBJECT_ID: &str = "1de00000-0000-4000-8000-0000000000a0";
/// The client id of the managed identity in tenant B, which has a role on `east` itself.
pub const LOCAL_IDENTITY_CLIENT_ID: &str = "1de00000-0000-4000-8000-00000000000b";
/// An issuer outside Entra, such as a Kubernetes cluster.
pub const EXTERNAL_ISSUER: &str = "https://issuer.sandbox.test";
/// The subject of that issuer that the app registration trusts.
pub const EXTERNAL_SUBJECT: &str = "system:serviceaccount:default:signalr-gateway";

/// The issuer of GitHub Actions.
pub(crate) const GITHUB_ISSUER: &str = "https://token.actions.githubusercontent.com";
/// The subject of that issuer that the app registration trusts: a branch of a repository.
pub(crate) const GITHUB_SUBJECT: &str = "repo:contoso/deploy:ref:refs/heads/main";
/// The issuer of an Azure DevOps organization.
pub(crate) const PIPELINES_ISSUER: &str = "https://vstoken.dev.azure.com/de700000-0000-4000-8000-000000000001";
/// The subject of that issuer that the app registration trusts: a service connection.
pub(crate) const PIPELINES_SUBJECT: &str = "sc://contoso/deploy/signalr";
/// The id of that service connection.
pub const SERVICE_CONNECTION: &str = "5c000000-0000-4000-8000-000000000001";
/// The issuer of Google.
pub(crate) const GCP_ISSUER: &str = "https://accounts.google.com";
/// The subject of that issuer that the app registration trusts: the unique id of a service account.
pub(crate) const GCP_SUBJECT: &str = "104857600000000000001";
/// The issuer of an OAuth 2.0 authorization server.
pub(crate) const OAUTH2_ISSUER: &str = "https://idp.sandbox.test";
/// The subject of that issuer that the app registration trusts: a client of the server.
pub const OAUTH2_CLIENT_ID: &str = "signalr:gateway";

const DOMAINS: [(&str, &str); 3] = [
    (TENANT_A, "contoso.onmicrosoft.com"),
    (TENANT_B, "fabrikam.onmicrosoft.com"),
    (TENANT_C, "northwind.onmicrosoft.com"),
];

/// The lifetime of the app registration's secret. Chosen: longer than a sandbox runs.
const SECRET_LIFETIME: Duration = Duration::from_secs(180 * 24 * 3600);

/// Returns the built-in directory with these resources, for an authority at this origin.
pub(crate) fn directory(
    authority: &str,
    resources: Vec<Resource>,
    certificate: &ClientCertificate,
) -> Result<Directory, SandboxError> {
    let mut tenants: Vec<Tenant> = DOMAINS.iter().map(|(id, domain)| Tenant::new(id, domain)).collect();
    for (number, resource) in resources.iter().enumerate() {
        if !tenants.iter().any(|tenant| tenant.id == resource.tenant) {
            tenants.push(Tenant::new(&resource.tenant, &format!("tenant{number}.onmicrosoft.com")));
        }
    }
    for tenant in &mut tenants {
        let roles = roles_in(&tenant.id, &resources);
        tenant.service_principals.push(principal(&tenant.id, APP_CLIENT_ID, roles));
    }
    let managed_identities = vec![
        identity(TENANT_A, IDENTITY_CLIENT_ID, IDENTITY_OBJECT_ID, "id-signalr-gateway"),
        identity(TENANT_B, LOCAL_IDENTITY_CLIENT_ID, "1de00000-0000-4000-8000-0000000000b0", "id-signalr-local"),
        ManagedIdentity {
            system_assigned: true,
            resource_id: arm_resource_id("Microsoft.Compute/virtualMachines/gateway"),
            ..identity(
                TENANT_A,
                "1de00000-0000-4000-8000-000000000005",
                "1de00000-0000-4000-8000-000000000050",
                "gateway",
            )
        },
    ];
    for identity in &managed_identities {
        let roles = roles_in(&identity.tenant, &resources);
        if let Some(tenant) = tenants.iter_mut().find(|tenant| tenant.id == identity.tenant) {
            let object_id = identity.object_id.clone();
            tenant
                .service_principals
                .push(ServicePrincipal { object_id, ..principal(&identity.tenant, &identity.client_id, roles) });
        }
    }
    let key = RsaKey::external()?.public();
    let external_issuers = [EXTERNAL_ISSUER, GITHUB_ISSUER, PIPELINES_ISSUER, GCP_ISSUER, OAUTH2_ISSUER]
        .map(|issuer| ExternalIssuer { issuer: issuer.to_owned(), keys: vec![key.clone()] });
    Ok(Directory {
        tenants,
        applications: vec![application(authority, certificate)],
        managed_identities,
        external_issuers: external_issuers.into(),
        resources,
        tokens: TokenPolicy::default(),
        index: Index::default(),
    })
}

fn application(authority: &str, certificate: &ClientCertificate) -> Application {
    let home = v2_issuer(authority, TENANT_A);
    let all_clouds = [
        (home.as_str(), IDENTITY_OBJECT_ID),
        (EXTERNAL_ISSUER, EXTERNAL_SUBJECT),
        (GITHUB_ISSUER, GITHUB_SUBJECT),
        (GCP_ISSUER, GCP_SUBJECT),
    ];
    // Azure Pipelines always uses the audience of the public cloud. An app registration has at most 20 federated credentials.
    let public_cloud = [(PIPELINES_ISSUER, PIPELINES_SUBJECT), (OAUTH2_ISSUER, OAUTH2_CLIENT_ID)];
    let federated = EXCHANGE_AUDIENCES.iter().zip([&public_cloud[..], &[], &[]]).flat_map(|(audience, more)| {
        all_clouds.iter().chain(more).map(|(issuer, subject)| FederatedCredential {
            issuer: (*issuer).to_owned(),
            subject: (*subject).to_owned(),
            audience: (*audience).to_owned(),
        })
    });
    Application {
        client_id: APP_CLIENT_ID.to_owned(),
        home_tenant: TENANT_A.to_owned(),
        multi_tenant: true,
        enabled: true,
        secrets: vec![ClientSecret {
            id: String::from("5ec2e700-0000-4000-8000-000000000001"),
            value: SecretText::new(format!("{}{}", random_string(), random_string())),
            expires: SystemTime::now() + SECRET_LIFETIME,
        }],
        certificates: vec![certificate.der().to_vec()],
        federated: federated.collect(),
    }
}

/// Returns an enterprise application.
fn principal(tenant: &str, client_id: &str, roles: Vec<(String, Role)>) -> ServicePrincipal {
    let object_id = object_id(tenant, client_id);
    ServicePrincipal { client_id: client_id.to_owned(), object_id, enabled: true, roles }
}

/// Returns the object id of an enterprise application: the first group of the tenant id and the rest of the client id. It is
/// the same at every start.
pub(crate) fn object_id(tenant: &str, client_id: &str) -> String {
    let first = tenant.split('-').next().unwrap_or_default();
    let rest = client_id.split_once('-').map_or(client_id, |(_, rest)| rest);
    format!("{first}-{rest}")
}

fn identity(tenant: &str, client_id: &str, object_id: &str, name: &str) -> ManagedIdentity {
    ManagedIdentity {
        tenant: tenant.to_owned(),
        client_id: client_id.to_owned(),
        object_id: object_id.to_owned(),
        resource_id: arm_resource_id(&format!("Microsoft.ManagedIdentity/userAssignedIdentities/{name}")),
        system_assigned: false,
        assigned_to_host: true,
    }
}

fn arm_resource_id(resource: &str) -> String {
    format!("/subscriptions/5b500000-0000-4000-8000-000000000001/resourceGroups/sandbox/providers/{resource}")
}

fn roles_in(tenant: &str, resources: &[Resource]) -> Vec<(String, Role)> {
    let in_tenant = resources.iter().filter(|resource| resource.tenant == tenant);
    in_tenant.map(|resource| (resource.name.clone(), Role::RestApiOwner)).collect()
}
