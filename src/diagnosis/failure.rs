//! A failed check, before it is explained.

use std::sync::Arc;

use super::cause::Cause;
use super::connectivity::{FailedLayer, Layer};
use super::finding::Detail;
use crate::credential::SetupStep;
use crate::egress::EgressProxy;
use crate::tls::RefusedCertificate;

/// A failed check and its cause, without the remediation.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) cause: Cause,
    pub(super) tried: String,
    pub(super) result: String,
    pub(super) description: Option<String>,
    pub(super) codes: Vec<u32>,
    pub(super) correlation_id: Option<String>,
    pub(super) trace_id: Option<String>,
    /// The layer at which connecting to a server failed, if that is the failure.
    pub(super) layer: Option<Layer>,
    /// The proxy of the connection that failed, if it has one.
    pub(super) proxy: Option<Arc<EgressProxy>>,
    /// The certificate of the server, or of its proxy, if it was refused.
    pub(super) certificate: Option<RefusedCertificate>,
    /// Whether an identity endpoint answered 200 without a usable token.
    pub(super) is_unusable_response: bool,
    /// Whether an identity endpoint gave no complete response.
    pub(super) is_unreachable: bool,
    /// Whether Entra rejected the request as one of too many.
    pub(super) is_throttled: bool,
    /// What to do, if the failure itself says so.
    pub(super) remedy: Option<&'static str>,
    /// The status and challenge of the endpoint's response, if that is the failure.
    pub(super) answer: Option<String>,
    /// How far this host's clock is from Entra's, if it is far.
    pub(super) skew: Option<String>,
    /// What is known about the failure.
    pub(super) details: Vec<Detail>,
}

impl Failure {
    pub(super) fn new(cause: impl Into<Cause>, tried: impl Into<String>, result: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            tried: tried.into(),
            result: result.into(),
            description: None,
            codes: Vec::new(),
            correlation_id: None,
            trace_id: None,
            layer: None,
            proxy: None,
            certificate: None,
            is_unusable_response: false,
            is_unreachable: false,
            is_throttled: false,
            remedy: None,
            answer: None,
            skew: None,
            details: Vec::new(),
        }
    }

    /// Makes the failure to connect to the server of a step. If its proxy failed, that is the broken step.
    pub(super) fn of_layer(failed: FailedLayer, step: SetupStep) -> Self {
        let step = if matches!(failed.layer, Layer::Proxy(_)) { SetupStep::Proxy } else { step };
        let failure = Self::new(step, failed.tried, failed.error);
        Self { layer: Some(failed.layer), proxy: failed.proxy, certificate: failed.certificate, ..failure }
    }
}
