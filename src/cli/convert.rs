//! `check --connection-strings`: converts connection strings to a configuration.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};

use super::output::{Outcome, eprint, print, usage};
use crate::config::from_connection_strings;
use crate::credential::Secret;

/// The largest input, in bytes. Chosen: four times the size of a thousand connection strings.
const MAX_BYTES: u64 = 1024 * 1024;

/// Prints the configuration. Writes the secrets only if `secrets` is a folder.
pub(super) fn run(source: &Path, secrets: Option<&Path>) -> anyhow::Result<Outcome> {
    let (text, shown) = if source == Path::new("-") {
        (read(std::io::stdin().lock()), Path::new("stdin"))
    } else {
        (std::fs::File::open(source).map_err(Into::into).and_then(read), source)
    };
    let text = text.with_context(|| format!("cannot read {}", shown.display())).map_err(usage)?;
    // The path is absolute, because the operator may move the configuration.
    let folder = secrets.map(std::path::absolute).transpose()?;
    let conversion = from_connection_strings(&text, shown, folder.as_deref())?;
    for warning in &conversion.warnings {
        eprint(format_args!("warning: {warning}"));
    }
    if let Some(folder) = &folder {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        for (name, secret) in &conversion.secrets {
            write_secret(&folder.join(name), secret).map_err(usage)?;
        }
        eprint(format_args!("wrote {} secrets to {}", conversion.secrets.len(), folder.display()));
    }
    print(format_args!("{}", conversion.toml.trim_end()))
}

fn read(source: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    source.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_BYTES {
        bail!("the input is larger than {MAX_BYTES} bytes: check the path");
    }
    Ok(text)
}

/// Writes a secret into a new file that only its owner can read. Never overwrites a file.
fn write_secret(path: &Path, secret: &Secret) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(secret.expose().as_bytes())?)
}
