//! Writes the manual pages, for packages.

use std::path::PathBuf;

use anyhow::Context;

use super::output::Outcome;
use super::write_file;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// The folder to write them to. It must exist.
    folder: PathBuf,
}

/// The sections that clap does not know.
const SECTIONS: &str = r#".SH FILES
.TP
\fI/etc/signalr\-gateway/gateway.toml\fR
The configuration of the packaged service.
.SH "EXIT STATUS"
.TP
0
Success.
.TP
1
A problem was found, or the command failed.
.TP
2
The command line or the configuration is wrong.
"#;

/// Writes a page for the program and for each command that its help lists.
pub(super) fn run(options: &Options, program: &clap::Command) -> anyhow::Result<Outcome> {
    let mut program = program.clone();
    // Gives each command the name of its page.
    program.build();
    let name = program.get_name();
    let commands: Vec<_> =
        program.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help").collect();
    for command in &commands {
        write_page(options, command, &see_also(name, &[]))?;
    }
    let others: Vec<&str> = commands.iter().map(|command| command.get_name()).collect();
    write_page(options, &program, &see_also(name, &others))?;
    Ok(Outcome::Success)
}

/// Returns the references of the page of the program to those of its commands, or of one of those to the program's.
fn see_also(name: &str, commands: &[&str]) -> String {
    let name = name.replace('-', "\\-");
    let pages: Vec<String> = match commands {
        [] => vec![format!("\\fB{name}\\fR(1)")],
        commands => commands.iter().map(|command| format!("\\fB{name}\\-{command}\\fR(1)")).collect(),
    };
    format!(".SH \"SEE ALSO\"\n{}\n", pages.join(",\n"))
}

fn write_page(options: &Options, command: &clap::Command, see_also: &str) -> anyhow::Result<()> {
    let source = concat!("signalr-gateway ", env!("CARGO_PKG_VERSION"));
    let man = clap_mangen::Man::new(command.clone()).source(source);
    let name = man.get_filename();
    let mut page = Vec::new();
    man.render(&mut page).with_context(|| format!("cannot write {name}"))?;
    page.extend_from_slice(SECTIONS.as_bytes());
    page.extend_from_slice(see_also.as_bytes());
    write_file::write(&options.folder.join(name), &page)
}
