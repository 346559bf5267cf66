//! What commands learn about a credential: what its files are like, and what one acquisition obtained.

use std::time::SystemTime;

use super::access_key::AccessKey;
use super::bearer::{Bearer, RequestUrl};
use super::error::CredentialError;
use super::record::AcquisitionStep;

/// The result of inspecting the files of a credential.
#[derive(Debug)]
pub struct Inspection {
    /// The error, if the credential cannot be used.
    pub problem: Option<CredentialError>,
    /// Warnings that do not prevent its use.
    pub warnings: Vec<String>,
}

/// The result of one acquisition.
#[derive(Debug)]
pub struct AcquisitionReport {
    /// The steps, in the order in which they ended. Retries repeat steps.
    pub steps: Vec<AcquisitionStep>,
    /// Warnings about the files that were read.
    pub warnings: Vec<String>,
    /// What was obtained, or the error.
    pub outcome: Result<Authorization, CredentialError>,
}

/// What authorizes requests.
#[derive(Clone, Debug)]
pub enum Authorization {
    /// A token.
    Bearer(Bearer),
    /// An access key, which signs each request.
    Key(SigningKey),
}

/// An access key.
#[derive(Clone, Debug)]
pub struct SigningKey(pub(super) AccessKey);

impl SigningKey {
    /// Signs a token for a request; `None` if it cannot be sent in a header.
    pub fn sign(&self, url: RequestUrl<'_>) -> Option<Bearer> {
        self.0.sign(url, SystemTime::now())
    }
}
