//! The causes of calls and probes that got no response.

use std::error::Error;
use std::sync::Arc;

use super::error::ConnectError;
use super::failure::FailureCause;
use super::unpooled::UnpooledError;
use crate::egress::{EgressProxy, ProxyLayer};
use crate::metrics::UpstreamErrorReason;
use crate::redact::in_one_line;
use crate::tls::RefusedCertificate;

/// Returns the cause of an error without a response.
pub fn transport_failure(reason: UpstreamErrorReason, error: &(dyn Error + 'static)) -> FailureCause {
    let certificate = RefusedCertificate::find(error).cloned();
    FailureCause::Transport { reason, error: in_one_line(error), proxy: proxy_of(error), certificate }
}

/// Returns the cause of a probe without a response.
pub(super) fn probe_failure(error: &UnpooledError) -> FailureCause {
    let reason = match error {
        UnpooledError::Connect(err) => err.reason(),
        UnpooledError::Http(_) => UpstreamErrorReason::ResetAfterSend,
        UnpooledError::Timeout(_) => UpstreamErrorReason::TryTimeout,
    };
    transport_failure(reason, error)
}

/// Returns the proxy among an error and its sources that opened no tunnel, and the layer that failed.
fn proxy_of(error: &(dyn Error + 'static)) -> Option<(Arc<EgressProxy>, ProxyLayer)> {
    let mut next = Some(error);
    while let Some(error) = next {
        let connect = match error.downcast_ref::<UnpooledError>() {
            Some(UnpooledError::Connect(err)) => Some(err),
            Some(_) => None,
            None => error.downcast_ref::<ConnectError>(),
        };
        match connect {
            Some(ConnectError::Proxy { proxy, source }) => return Some((Arc::clone(proxy), source.layer())),
            Some(ConnectError::Shared(shared)) => return proxy_of(&**shared),
            Some(_) | None => next = error.source(),
        }
    }
    None
}
