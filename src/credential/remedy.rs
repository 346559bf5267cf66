//! The steps of the cross-tenant setup, and a remedy for each AADSTS code, for error messages and `doctor`.
//!
//! Retries do not depend on the codes, since Microsoft may change them: `response_error.rs` classifies by the OAuth `error` and the
//! status.

use std::fmt;

/// A step of the cross-tenant setup. `doctor` checks the steps in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SetupStep {
    /// The gateway's configuration: tenant, cloud, scope, URL.
    Configuration = 1,
    /// The proof on the host: a secret, certificate, key, assertion or token that is readable and valid.
    Proof,
    /// Name resolution, connection and TLS to Entra.
    IdentityEndpoint,
    /// The managed identity of the host.
    HostIdentity,
    /// The app registration in its home tenant.
    App,
    /// The secret or certificate on the app registration.
    AppProof,
    /// The federated identity credential on the app registration.
    Federation,
    /// The enterprise application in the endpoint's tenant.
    EnterpriseApplication,
    /// The policies of the endpoint's tenant: Conditional Access, throttling.
    TenantPolicy,
    /// The SignalR resource provider in the endpoint's tenant.
    ResourceProvider,
    /// Name resolution, connection and TLS to the endpoint, and its network rules.
    EndpointNetwork,
    /// The permission to call the SignalR resource: a role assignment or a valid access key.
    Access,
    /// The forward proxy of outgoing connections.
    Proxy,
    /// The delivery of a message to a client of the endpoint.
    Delivery,
}

impl SetupStep {
    /// All steps, in order.
    pub const ALL: [Self; 14] = [
        Self::Configuration,
        Self::Proof,
        Self::IdentityEndpoint,
        Self::HostIdentity,
        Self::App,
        Self::AppProof,
        Self::Federation,
        Self::EnterpriseApplication,
        Self::TenantPolicy,
        Self::ResourceProvider,
        Self::EndpointNetwork,
        Self::Access,
        Self::Proxy,
        Self::Delivery,
    ];

    /// Returns the number of the step, from 1.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns whether the step is done in the endpoint's tenant.
    pub const fn is_in_endpoint_tenant(self) -> bool {
        matches!(
            self,
            Self::EnterpriseApplication
                | Self::TenantPolicy
                | Self::ResourceProvider
                | Self::EndpointNetwork
                | Self::Access
        )
    }

    /// Returns the identifier of the step, for JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Proof => "proof",
            Self::HostIdentity => "host_identity",
            Self::IdentityEndpoint => "identity_endpoint",
            Self::App => "app",
            Self::AppProof => "app_proof",
            Self::Federation => "federation",
            Self::EnterpriseApplication => "enterprise_application",
            Self::TenantPolicy => "tenant_policy",
            Self::ResourceProvider => "resource_provider",
            Self::EndpointNetwork => "endpoint_network",
            Self::Access => "access",
            Self::Proxy => "proxy",
            Self::Delivery => "delivery",
        }
    }

    /// Returns the description of the step.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Configuration => "the gateway's configuration",
            Self::Proof => "the proof on this host (secret, certificate, assertion or token)",
            Self::HostIdentity => "the managed identity of this host",
            Self::IdentityEndpoint => "the connection to Entra",
            Self::App => "the app registration in its home tenant",
            Self::AppProof => "the secret or certificate on the app registration",
            Self::Federation => "the federated credential on the app registration",
            Self::EnterpriseApplication => "the enterprise application in the endpoint's tenant",
            Self::TenantPolicy => "the policies of the endpoint's tenant",
            Self::ResourceProvider => "the SignalR resource provider in the endpoint's tenant",
            Self::EndpointNetwork => "the connection to the endpoint",
            Self::Access => "the permission to call the SignalR resource",
            Self::Proxy => "the proxy of outgoing connections",
            Self::Delivery => "the delivery of a message to a client",
        }
    }
}

impl fmt::Display for SetupStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} of {}: {}", self.number(), Self::ALL.len(), self.title())
    }
}

/// The meaning of some AADSTS codes in this setup, and what to do about them.
#[derive(Clone, Copy, Debug)]
pub struct Remedy {
    /// The codes.
    pub codes: &'static [u32],
    /// The setup step that must be corrected.
    pub step: SetupStep,
    /// What is wrong.
    pub fact: &'static str,
    /// What to do, and who must do it.
    pub action: &'static str,
    /// The URL that documents the codes.
    pub source: &'static str,
}

impl Remedy {
    /// Returns whether the error is about one tenant of an app: what its administrator must do, or its id in the configuration.
    pub fn is_about_tenant(&self) -> bool {
        self.step.is_in_endpoint_tenant()
            || (self.step == SetupStep::Configuration && self.keys().any(|key| key == "tenant"))
    }

    /// Returns what is wrong, after the one of these codes that says it.
    pub fn fact_of(&self, codes: &[u32]) -> String {
        let code = codes.iter().find(|code| self.codes.contains(code)).unwrap_or(&0);
        format!("AADSTS{code}: {}", self.fact)
    }

    /// Returns the configuration keys in the action.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.action.split('`').skip(1).step_by(2)
    }
}

/// Microsoft Entra authentication and authorization error codes.
const REFERENCE: &str = "https://learn.microsoft.com/entra/identity-platform/reference-error-codes";
/// Microsoft's page with the text of a code, `error?code=`.
const LOOK_UP: &str = "https://login.microsoftonline.com/error";
/// Troubleshooting of federated identity credentials.
const FEDERATION: &str = "https://learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations";
/// A managed identity as a federated credential of an app.
const IDENTITY_FEDERATION: &str =
    "https://learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity";

/// Returns the remedy of the first of these AADSTS codes that has one.
pub fn remedy(codes: &[u32]) -> Option<&'static Remedy> {
    codes.iter().find_map(|code| REMEDIES.iter().find(|remedy| remedy.codes.contains(code)))
}

/// Returns whether these AADSTS codes are about an assertion that is not valid yet or has expired.
pub fn is_about_time(codes: &[u32]) -> bool {
    codes.iter().any(|code| [700_024, 500_133].contains(code))
}

/// The remedies of all known AADSTS codes.
pub const REMEDIES: &[Remedy] = &[
    Remedy {
        codes: &[90002, 900_023],
        step: SetupStep::Configuration,
        fact: "the tenant is unknown to this cloud",
        action: "check `tenant` and `cloud`",
        source: REFERENCE,
    },
    Remedy {
        codes: &[90038, 90051, 900_382, 900_432],
        step: SetupStep::Configuration,
        fact: "the tenant belongs to another national cloud",
        action: "set `cloud` to the one the app and the resource are in, or correct `tenant`",
        source: REFERENCE,
    },
    Remedy {
        codes: &[50059, 50128, 90019],
        step: SetupStep::Configuration,
        fact: "the request names no tenant",
        action: "set `tenant` to the GUID of the resource's tenant",
        source: REFERENCE,
    },
    Remedy {
        codes: &[50194],
        step: SetupStep::App,
        fact: "the app registration is single-tenant, and the request names no tenant",
        action: "set `tenant` to the resource's, and make the app multi-tenant in its own tenant",
        source: REFERENCE,
    },
    Remedy {
        codes: &[50020],
        step: SetupStep::Configuration,
        fact: "the sign-in used a user account of another tenant instead of an app",
        action: "set `kind` to one with an app registration, or sign in with an account of the resource's tenant",
        source: REFERENCE,
    },
    Remedy {
        codes: &[700_016, 700_011, 7_000_229],
        step: SetupStep::EnterpriseApplication,
        fact: "the app has no enterprise application in this tenant",
        action: "check `client_id` and `tenant`; an administrator of the resource's tenant creates it: az ad sp create --id <client_id>",
        source: REFERENCE,
    },
    Remedy {
        codes: &[7_000_112, 70001],
        step: SetupStep::EnterpriseApplication,
        fact: "the app is disabled",
        action: "enable sign-in on the enterprise application and on the app",
        source: REFERENCE,
    },
    Remedy {
        codes: &[1_000_031],
        step: SetupStep::EnterpriseApplication,
        fact: "the app cannot be used in this tenant now",
        action: "an administrator of the resource's tenant checks the enterprise application",
        source: REFERENCE,
    },
    Remedy {
        codes: &[7_000_215],
        step: SetupStep::AppProof,
        fact: "the client secret is wrong",
        action: "use the secret's value (not its id), of a secret that the app of `client_id` has now",
        source: REFERENCE,
    },
    Remedy {
        codes: &[7_000_222],
        step: SetupStep::AppProof,
        fact: "the client secret has expired",
        action: "create a new secret on the app registration",
        source: REFERENCE,
    },
    Remedy {
        codes: &[70002],
        step: SetupStep::AppProof,
        fact: "the app did not authenticate",
        action: "check the secret or certificate of the app of `client_id`",
        source: REFERENCE,
    },
    Remedy {
        codes: &[7_000_218],
        step: SetupStep::Configuration,
        fact: "the request has no secret or assertion",
        action: "check the credential's `kind`",
        source: REFERENCE,
    },
    Remedy {
        codes: &[700_025],
        step: SetupStep::App,
        fact: "the app is registered as a public client",
        action: "turn off public client flows on the app registration",
        source: REFERENCE,
    },
    Remedy {
        codes: &[700_027, 700_030, 7_000_213, 50012],
        step: SetupStep::AppProof,
        fact: "the certificate or its signature does not match the app",
        action: "upload the certificate to the app registration of `client_id`, without `send_chain`",
        source: REFERENCE,
    },
    Remedy {
        codes: &[700_024, 500_133],
        step: SetupStep::Proof,
        fact: "the assertion is outside its time window",
        action: "check this host's clock: synchronize it (NTP); if it is right, repair the program that renews the assertion",
        source: LOOK_UP,
    },
    Remedy {
        codes: &[50013, 50027],
        step: SetupStep::Federation,
        fact: "the assertion is invalid",
        action: "compare its iss, sub, aud and exp with the federated credential",
        source: REFERENCE,
    },
    Remedy {
        codes: &[50048],
        step: SetupStep::AppProof,
        fact: "the assertion's issuer differs from its subject",
        action: "send one whose `iss` and `sub` are both the client id, or trust its issuer by a federated credential",
        source: REFERENCE,
    },
    Remedy {
        codes: &[50003, 50146],
        step: SetupStep::App,
        fact: "the app registration lacks the signing key that its configuration requires",
        action: "its owner adds one, or removes the custom claims",
        source: REFERENCE,
    },
    Remedy {
        codes: &[70021],
        step: SetupStep::Federation,
        fact: "no federated credential matches the assertion",
        action: "compare issuer, subject and audience; a new one takes minutes to propagate",
        source: REFERENCE,
    },
    Remedy {
        codes: &[700_211],
        step: SetupStep::Federation,
        fact: "no federated credential has the assertion's issuer",
        action: "set its issuer to the assertion's `iss`",
        source: FEDERATION,
    },
    Remedy {
        codes: &[700_212, 7_002_121],
        step: SetupStep::Federation,
        fact: "the assertion has another audience than the federated credential",
        action: "use the cloud's exchange audience",
        source: FEDERATION,
    },
    Remedy {
        codes: &[700_213, 7_002_137],
        step: SetupStep::Federation,
        fact: "the assertion has another subject than the federated credential",
        action: "set its subject to the assertion's `sub`: of a managed identity its principal (object) id, not its client id",
        source: FEDERATION,
    },
    Remedy {
        codes: &[7_002_138],
        step: SetupStep::Federation,
        fact: "the subjects of the assertion and the federated credential differ only in case",
        action: "set its subject to exactly the assertion's `sub`",
        source: FEDERATION,
    },
    Remedy {
        codes: &[700_222, 700_226, 700_227, 700_229],
        step: SetupStep::Federation,
        fact: "this kind of token is not accepted as an assertion",
        action: "use a token of a user-assigned managed identity of the app's tenant",
        source: IDENTITY_FEDERATION,
    },
    Remedy {
        codes: &[700_236],
        step: SetupStep::Federation,
        fact: "the managed identity is in another tenant than the app registration",
        action: "use an identity of the app's tenant",
        source: IDENTITY_FEDERATION,
    },
    Remedy {
        codes: &[500_011, 50001, 650_052, 650_057],
        step: SetupStep::ResourceProvider,
        fact: "the resource is unknown in this tenant",
        action: "check `scope` and `cloud`; the tenant needs the Microsoft.SignalRService resource provider",
        source: REFERENCE,
    },
    Remedy {
        codes: &[70011, 1_002_012, 28002, 28003, 700_022],
        step: SetupStep::Configuration,
        fact: "the scope is wrong",
        action: "set `scope` to one resource followed by /.default",
        source: REFERENCE,
    },
    Remedy {
        codes: &[53003, 530_032],
        step: SetupStep::TenantPolicy,
        fact: "Conditional Access of the tenant blocks the app",
        action: "an administrator of the resource's tenant allows this host's address",
        source: REFERENCE,
    },
    Remedy {
        codes: &[500_021, 500_022, 500_212, 500_213],
        step: SetupStep::TenantPolicy,
        fact: "a cross-tenant policy does not allow the app",
        action: "the administrators of both tenants check tenant restrictions and cross-tenant access",
        source: REFERENCE,
    },
    Remedy {
        codes: &[501_051],
        step: SetupStep::TenantPolicy,
        fact: "the resource's tenant requires an assignment of the app",
        action: "an administrator of the resource's tenant assigns the enterprise application",
        source: LOOK_UP,
    },
    Remedy {
        codes: &[90006, 90012, 90024, 90033, 90090, 50033, 50000],
        step: SetupStep::IdentityEndpoint,
        fact: "Entra has an internal error",
        action: "wait",
        source: REFERENCE,
    },
    Remedy {
        codes: &[50196],
        step: SetupStep::TenantPolicy,
        fact: "too many identical requests were made",
        action: "wait at least five minutes; another process may request tokens in a loop with the same app",
        source: REFERENCE,
    },
    Remedy {
        codes: &[90055],
        step: SetupStep::TenantPolicy,
        fact: "the tenant is throttled",
        action: "wait",
        source: LOOK_UP,
    },
    Remedy {
        codes: &[100_007],
        step: SetupStep::Configuration,
        fact: "the authority is regional",
        action: "set `cloud` or `authority` to the global one",
        source: REFERENCE,
    },
];

#[cfg(test)]
mod tests;
