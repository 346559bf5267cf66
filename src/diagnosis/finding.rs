//! The report of an examination: the checks of each endpoint, the broken step and its remediation.

use std::path::Path;

use super::commands::name_config;
use crate::credential::SetupStep;

/// The findings about one endpoint.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The endpoint's configured name.
    pub endpoint: String,
    /// The endpoint's URL.
    pub url: String,
    /// The configured name of the endpoint's credential.
    pub credential: String,
    /// The tenant that its tokens are requested from, if the configuration names one.
    pub tenant: Option<String>,
    /// The checks that were made, in order.
    pub checks: Vec<Check>,
    /// The first broken step, if any. Later steps are not examined.
    pub broken: Option<BrokenStep>,
}

/// One check and its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was tried, or the name of a claim.
    pub what: String,
    /// The result, or the claim's value.
    pub result: String,
    /// The value that the configuration expects, if it expects one.
    pub expected: Option<String>,
    /// Whether the result is as expected.
    pub verdict: Verdict,
}

/// Whether the result of a check is as expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Good,
    /// Nothing is expected; shown for information.
    Shown,
    /// Not as expected, but it may work.
    Warning,
    /// Not as expected, and it cannot work.
    Wrong,
}

impl Check {
    /// Makes a check that passed.
    pub(super) fn passed(what: impl Into<String>, result: impl Into<String>) -> Self {
        Self { what: what.into(), result: result.into(), expected: None, verdict: Verdict::Good }
    }

    /// Makes a check whose result is not as expected but may work.
    pub(super) fn warning(what: impl Into<String>, result: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, ..Self::passed(what, result) }
    }

    /// Makes a check that is shown for information.
    pub(super) fn shown(what: impl Into<String>, result: impl Into<String>) -> Self {
        Self { verdict: Verdict::Shown, ..Self::passed(what, result) }
    }
}

/// The first broken step, with its remediation.
#[derive(Clone, Debug)]
pub struct BrokenStep {
    /// The step of the setup.
    pub step: SetupStep,
    /// What was tried.
    pub tried: String,
    /// The response or error.
    pub result: String,
    /// Entra's own description, if Entra returned an error.
    pub description: Option<String>,
    /// Entra's error codes (AADSTS numbers), if Entra returned an error.
    pub codes: Vec<u32>,
    /// The id under which Microsoft's support finds the request.
    pub correlation_id: Option<String>,
    /// The id of Entra's response.
    pub trace_id: Option<String>,
    /// What is known, the most decisive first.
    pub details: Vec<Detail>,
    /// How far this host's clock is from Entra's, if it is far.
    pub skew: Option<String>,
    /// Whether the first remediation is for this configuration, and so better than the general action for the codes.
    pub is_specific: bool,
    /// What to do, in order.
    pub remediation: Vec<Remediation>,
    /// How long a change takes to come into effect, if that is not immediate.
    pub delay: Option<&'static str>,
}

impl BrokenStep {
    /// Names the configuration file in the commands that need it.
    pub fn name_config(&mut self, config: &Path) {
        let commands = self.remediation.iter_mut().filter_map(|action| action.command.as_mut());
        commands.for_each(|command| name_config(command, config));
    }
}

/// Something that is known about a broken step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detail {
    /// What it is, such as `client_id`: a key of the configuration or a term of the protocol.
    pub name: &'static str,
    /// Its value, in one line.
    pub value: String,
}

/// One action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remediation {
    /// What to do, where and as whom. Empty if the command continues the one before.
    pub note: String,
    /// The command, with the known ids filled in. Unknown values are placeholders in `<` and `>`.
    pub command: Option<String>,
}

impl Remediation {
    /// Makes a remediation without a command.
    pub(super) fn note(note: impl Into<String>) -> Self {
        Self { note: note.into(), command: None }
    }

    /// Makes a remediation with a command.
    pub(super) fn command(note: impl Into<String>, command: impl Into<String>) -> Self {
        Self { note: note.into(), command: Some(command.into()) }
    }
}

/// Progress of an examination.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// An endpoint's next check has started.
    Trying {
        /// The endpoint's configured name.
        endpoint: &'a str,
        /// What is tried.
        what: &'a str,
    },
    /// The examination of an endpoint has ended.
    Ended(&'a Finding),
}
