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

/// The suffixes of the hosts of SignalR resources, and their clouds. Source: Azure's lists of endpoints of the national clouds.
const RESOURCE_SUFFIXES: [(&str, Cloud); 3] = [
    (".service.signalr.net", Cloud::Public),
    (".signalr.azure.us", Cloud::UsGovernment),
    (".signalr.azure.cn", Cloud::China),
];

impl Cloud {
    /// Returns the cloud of the SignalR resource with a host, and the suffix of the hosts in that cloud; `None` if the host does not
    /// tell.
    pub fn of_resource(host: &str) -> Option<(&'static str, Self)> {
        RESOURCE_SUFFIXES.into_iter().find(|(suffix, _)| host.ends_with(suffix))
    }

    /// Returns the audience that Entra requires of an assertion.
    ///
    /// Source: Microsoft's page on trusting a managed identity by an app registration, one audience for each cloud.
    pub fn exchange_audience(&self) -> &'static str {
        match self {
            Self::Public | Self::Custom { .. } => "api://AzureADTokenExchange",
            Self::UsGovernment => "api://AzureADTokenExchangeUSGov",
            Self::China => "api://AzureADTokenExchangeChina",
        }
    }
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
