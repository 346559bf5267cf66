//! `setup`: writes what the endpoints of a configuration need in their tenants.

use anyhow::anyhow;
use clap::{Args, ValueEnum};

use super::doctor::no_such_endpoint;
use super::options::ConfigOptions;
use super::output::{Outcome, eprint, print, usage};
use crate::endpoint::EndpointName;
use crate::setup::{Format, Plan, write};

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOptions,
    /// What to write.
    #[arg(long, value_enum, default_value_t = FormatOption::Az)]
    format: FormatOption,
    /// Only this endpoint. May be repeated.
    #[arg(long = "endpoint", value_name = "NAME")]
    endpoints: Vec<String>,
    /// Only the endpoints in this tenant.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatOption {
    /// Commands of the Azure CLI, for a shell.
    Az,
    /// Bicep, for the tenant of the endpoints.
    Bicep,
    /// Terraform, for both tenants.
    Terraform,
    /// A page in Markdown for the administrator of the endpoints' tenant.
    Page,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    // The setup depends on no secret.
    let loaded = options.config.load_for_other_host()?;
    let settings = &loaded.settings;
    for name in &options.endpoints {
        if !settings.endpoints.iter().any(|endpoint| endpoint.name.as_str() == name) {
            return Err(usage(no_such_endpoint(name, &settings.disabled)));
        }
    }
    for key in &loaded.absent {
        if key.ends_with(".client_id") || key.ends_with(".tenant") {
            eprint(format_args!(
                "warning: {key} is unknown on this host: replace 00000000-0000-0000-0000-000000000000"
            ));
        }
    }
    let names: Vec<EndpointName> = options.endpoints.iter().map(|name| EndpointName::new(name)).collect();
    let plan = Plan::new(settings, &names, options.tenant.as_deref());
    let tenants = plan.tenants();
    if let Some(tenant) = options.tenant.as_ref().filter(|_| tenants.is_empty()) {
        return Err(usage(anyhow!("no endpoint is in tenant `{tenant}`; write it as in the configuration")));
    }
    let format = match options.format {
        FormatOption::Az => Format::Az,
        FormatOption::Bicep if tenants.len() > 1 => {
            return Err(usage(anyhow!(
                "Bicep is deployed to one tenant: choose one with --tenant, of {}",
                tenants.join(", ")
            )));
        }
        FormatOption::Bicep => Format::Bicep,
        FormatOption::Terraform => Format::Terraform,
        FormatOption::Page => Format::Page,
    };
    print(format_args!("{}", write(&plan, format).trim_end()))
}

#[cfg(test)]
mod tests;
