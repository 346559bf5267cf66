//! The settings of an Entra authority.

use std::path::PathBuf;

/// An Entra authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AuthoritySettings {
    /// The cloud.
    pub cloud: Cloud,
    /// PEM file of the CAs for the authority's certificate. `None`: the system's.
    pub ca_file: Option<PathBuf>,
}

/// A Microsoft cloud, or another authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cloud {
    /// `login.microsoftonline.com`.
    Public,
    /// `login.microsoftonline.us`.
    UsGovernment,
    /// `login.chinacloudapi.cn`.
    China,
    /// Another authority: `https://host[:port]` without a path.
    Custom {
        /// The authority's origin.
        authority: String,
    },
}

impl AuthoritySettings {
    /// Returns the origin of the authority, without a trailing slash.
    pub fn origin(&self) -> &str {
        match &self.cloud {
            Cloud::Public => "https://login.microsoftonline.com",
            Cloud::UsGovernment => "https://login.microsoftonline.us",
            Cloud::China => "https://login.chinacloudapi.cn",
            Cloud::Custom { authority } => authority.trim_end_matches('/'),
        }
    }
}
