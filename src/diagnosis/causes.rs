//! Endpoints that have the same cause, since one mistake in an app or a template breaks the setup of many tenants.

use std::collections::{HashMap, HashSet};

use super::finding::{BrokenStep, Finding};
use crate::credential::SetupStep;

/// A cause and the endpoints that have it.
#[derive(Clone, Debug)]
pub struct SharedCause<'a> {
    /// Entra's codes, or else the step and the result.
    pub cause: String,
    /// The broken step.
    pub step: SetupStep,
    /// Entra's codes.
    pub codes: &'a [u32],
    /// The findings, in the order of the configuration. Never empty.
    pub findings: Vec<&'a Finding>,
}

impl SharedCause<'_> {
    /// Returns how many tenants have the cause. Does not count those of credentials that have no tenant in the configuration.
    pub fn tenants(&self) -> usize {
        self.findings.iter().filter_map(|finding| finding.tenant.as_ref()).collect::<HashSet<_>>().len()
    }
}

/// Returns the causes of broken steps, the most frequent first.
pub fn shared_causes(findings: &[Finding]) -> Vec<SharedCause<'_>> {
    let mut causes: Vec<SharedCause<'_>> = Vec::new();
    let mut known = HashMap::new();
    for finding in findings {
        let Some(broken) = &finding.broken else { continue };
        let cause = describe(finding, broken);
        let index = *known.entry((broken.step.number(), cause.clone())).or_insert(causes.len());
        match causes.get_mut(index) {
            Some(shared) => shared.findings.push(finding),
            None => {
                causes.push(SharedCause { cause, step: broken.step, codes: &broken.codes, findings: vec![finding] });
            }
        }
    }
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.findings.len()));
    causes
}

/// Describes a cause without what differs between endpoints.
fn describe(finding: &Finding, broken: &BrokenStep) -> String {
    if !broken.codes.is_empty() {
        let codes: Vec<String> = broken.codes.iter().map(|code| format!("AADSTS{code}")).collect();
        return codes.join(", ");
    }
    let host = finding.url.split_once("://").map_or(finding.url.as_str(), |(_, host)| host);
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    format!("{}: {}", broken.step.title(), broken.result.replace(host, "<host>").replace(name, "<host>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(endpoint: &str, tenant: &str, step: SetupStep, result: &str, codes: &[u32]) -> Finding {
        let broken = BrokenStep {
            step,
            tried: String::new(),
            result: result.to_owned(),
            description: None,
            codes: codes.to_vec(),
            correlation_id: None,
            trace_id: None,
            details: Vec::new(),
            skew: None,
            is_specific: false,
            remediation: Vec::new(),
            delay: None,
        };
        Finding {
            endpoint: endpoint.to_owned(),
            url: format!("https://{endpoint}.example"),
            credential: format!("app of {endpoint}"),
            tenant: (!tenant.is_empty()).then(|| tenant.to_owned()),
            checks: Vec::new(),
            broken: Some(broken),
        }
    }

    #[test]
    fn equal_codes_and_results_that_differ_only_in_the_host_are_one_cause() {
        let network = SetupStep::EndpointNetwork;
        let app = SetupStep::EnterpriseApplication;
        let findings = [
            finding("a", "", network, "a.example did not answer", &[]),
            finding("b", "b", app, "trace 1", &[7_000_229]),
            finding("c", "c", app, "trace 2", &[7_000_229]),
            finding("d", "c", app, "trace 3", &[7_000_229]),
            finding("e", "", network, "e.example did not answer", &[]),
        ];
        let causes = shared_causes(&findings);
        let found: Vec<_> = causes.iter().map(|cause| (cause.findings.len(), cause.tenants())).collect();
        assert_eq!(found, [(3, 2), (2, 0)]);
        assert_eq!(causes[0].cause, "AADSTS7000229");
        assert!(causes[1].cause.ends_with(": <host> did not answer"), "{}", causes[1].cause);
    }
}
