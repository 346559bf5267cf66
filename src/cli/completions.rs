//! The completion scripts of shells.

use clap::Command;
use clap_complete::Shell;

const NAME: &str = "signalr-gateway";

/// Returns the script that completes the program's command line in a shell. It has no hidden commands.
pub(super) fn script(shell: Shell, program: &Command) -> String {
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut shown = Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .args(program.get_arguments().cloned())
        .subcommands(commands);
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown, NAME, &mut script);
    let script = String::from_utf8_lossy(&script);
    // clap_complete 4.6 writes a name with a hyphen in two ways in its script for bash: where it sets the command, and where it
    // compares it. No command would have completions.
    let (compared, set) = (NAME.replace('-', "__subcmd__"), NAME.replace('-', "__"));
    script.replace(&format!("{compared}__subcmd__"), &format!("{set}__subcmd__"))
}
