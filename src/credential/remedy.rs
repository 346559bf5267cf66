//! What the commonest refusals of Entra mean in the cross-tenant set-up, and what mends them: data for error texts.
//!
//! Numbers explain and never decide: Microsoft may change them. What is done about a refusal is decided by its
//! `error` and status in `error.rs`.

/// What an AADSTS number says here, and what to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remedy {
    /// What is wrong.
    pub(crate) fact: &'static str,
    /// Who must do what.
    pub(crate) action: &'static str,
}

/// Looks an AADSTS number up. Source of the numbers: Microsoft Entra authentication and authorization error codes,
/// <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.
pub(crate) fn remedy(code: u32) -> Option<Remedy> {
    let (fact, action) = match code {
        90002 | 900_023 => ("the tenant is unknown to this cloud", "check `tenant` and `cloud`"),
        90038 | 900_382 | 900_432 => {
            ("the tenant belongs to another national cloud", "set `cloud` to the one the app and the resource are in")
        }
        50059 | 50128 | 90019 => ("no tenant was named", "set `tenant` to the GUID of the resource's tenant"),
        50194 => ("the app registration is single-tenant", "make it multi-tenant in the app's own tenant"),
        700_016 | 700_011 | 7_000_229 => (
            "the app has no enterprise application in this tenant",
            "check `client_id` and `tenant`; an administrator of the resource's tenant creates it: az ad sp create --id <client_id>",
        ),
        7_000_112 | 70001 => ("the app is disabled", "enable sign-in on the enterprise application and on the app"),
        7_000_215 => {
            ("the client secret is wrong", "use the secret's value (not its id), created on the app of `client_id`")
        }
        7_000_222 => ("the client secret has expired", "create a new secret on the app registration"),
        700_025 => ("the app is registered as a public client", "turn off public client flows on the app registration"),
        700_027 => (
            "the certificate or its signature is not the app's",
            "upload the certificate to the app registration of `client_id`",
        ),
        700_024 => {
            ("the assertion is outside its time window", "check this host's clock and what rotates the assertion")
        }
        50013 | 500_133 | 50027 => {
            ("the assertion is invalid", "compare its iss, sub, aud and exp with the federated credential")
        }
        70021 => (
            "no federated credential matches the assertion",
            "compare issuer, subject and audience; a new one takes minutes to be known",
        ),
        700_211 => ("no federated credential has the assertion's issuer", "set its issuer to the assertion's `iss`"),
        700_212 | 7_002_121 => {
            ("the assertion has another audience than the federated credential", "use the cloud's exchange audience")
        }
        700_213 | 7_002_137 | 7_002_138 => (
            "the assertion has another subject than the federated credential",
            "set its subject to the identity's principal (object) id, in the same case",
        ),
        700_222 | 700_226 | 700_227 | 700_229 => (
            "this kind of token is not accepted as an assertion",
            "use a token of a user-assigned managed identity of the app's tenant",
        ),
        700_236 => (
            "the managed identity lives in another tenant than the app registration",
            "use an identity of the app's own tenant",
        ),
        500_011 | 50001 | 650_052 | 650_057 => (
            "the resource is unknown in this tenant",
            "check `scope` and `cloud`; the tenant needs the Microsoft.SignalRService resource provider",
        ),
        70011 | 1_002_012 | 28002 | 28003 | 700_022 => {
            ("the scope is wrong", "set `scope` to one resource followed by /.default")
        }
        53003 | 530_032 => (
            "Conditional Access of the tenant blocks the app",
            "an administrator of the resource's tenant allows this host's address",
        ),
        50196 => ("too many identical requests were made", "wait; another process may ask in a loop with the same app"),
        90055 => ("the tenant is throttled", "wait"),
        _ => return None,
    };
    Some(Remedy { fact, action })
}
