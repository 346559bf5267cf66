//! The real binary as a child process. Everything it writes to stderr is kept.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use super::metrics::Samples;
use super::{Caller, wait_until, with_timeout};

const BINARY: &str = env!("CARGO_BIN_EXE_signalr-gateway");

/// The exit code and output of a program.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary to its end with an empty environment.
pub(crate) async fn run(arguments: &[&str]) -> ProgramOutput {
    run_in(&[], arguments).await
}

/// Runs the binary to its end with only these variables.
pub(crate) async fn run_in(environment: &[(&str, &str)], arguments: &[&str]) -> ProgramOutput {
    let mut command = command(arguments);
    command.envs(environment.iter().copied());
    let output = with_timeout("the program's end", command.output()).await.unwrap();
    ProgramOutput {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the binary to its end without variables, with a text on stdin.
pub(crate) async fn run_with_stdin(text: &str, arguments: &[&str]) -> ProgramOutput {
    let mut child =
        command(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).await.unwrap();
    drop(stdin);
    let output = with_timeout("the program's end", child.wait_with_output()).await.unwrap();
    ProgramOutput {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn command(arguments: &[&str]) -> Command {
    prepare(Command::new(BINARY), arguments)
}

/// Returns a command that runs the binary with a limit of open files.
fn limited_command(open_files: u32, arguments: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", r#"ulimit -n "$0" && exec "$@""#, &open_files.to_string(), BINARY]);
    prepare(command, arguments)
}

/// Returns a command that runs the binary with files of at most so many blocks of 512 bytes. A write beyond that fails, as on a full
/// disk.
fn command_with_small_files(blocks: u32, arguments: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    let script = r#"trap "" XFSZ && ulimit -f "$0" && exec "$@""#;
    command.args(["-c", script, &blocks.to_string(), BINARY]);
    prepare(command, arguments)
}

fn prepare(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).env_clear().env("COLUMNS", "100");
    command
}

/// A running gateway, killed on drop.
pub(crate) struct Process {
    child: Child,
    /// The content of its ready file.
    pub(crate) ready: Value,
    stderr: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Process {
    /// Starts the binary and waits until it serves.
    pub(crate) async fn start(arguments: &[&str], environment: &[(&str, &str)], folder: &Path) -> Self {
        Self::spawn(command(arguments), environment, folder, Stdio::piped()).await
    }

    /// Starts like [`Process::start`], with a limit of open files.
    pub(crate) async fn start_limited(open_files: u32, arguments: &[&str], folder: &Path) -> Self {
        Self::spawn(limited_command(open_files, arguments), &[], folder, Stdio::piped()).await
    }

    /// Starts like [`Process::start`], with the given stderr, which is not kept.
    pub(crate) async fn start_into(stderr: impl Into<Stdio>, arguments: &[&str], folder: &Path) -> Self {
        Self::spawn(command(arguments), &[], folder, stderr.into()).await
    }

    /// Starts like [`Process::start_into`], on a file that cannot grow beyond so many blocks of 512 bytes.
    pub(crate) async fn start_into_small(blocks: u32, stderr: File, arguments: &[&str], folder: &Path) -> Self {
        Self::spawn(command_with_small_files(blocks, arguments), &[], folder, stderr.into()).await
    }

    /// Returns the verdict of its status page: the state and the lines.
    pub(crate) async fn verdict(&self) -> (String, Vec<String>) {
        let status = Caller::connect(self.admin()).await.call("GET", "/status").await.json();
        let lines = status["verdict"]["lines"].as_array().unwrap().iter();
        let lines = lines.map(|line| line.as_str().unwrap().to_owned()).collect();
        (status["verdict"]["state"].as_str().unwrap().to_owned(), lines)
    }

    /// Starts the program as a service manager does: with these listening sockets, and with variables of the protocol. Each
    /// socket has a name.
    pub(crate) async fn start_as_service(
        sockets: &[(&str, OwnedFd)],
        environment: &[(&str, &str)],
        arguments: &[&str],
        folder: &Path,
    ) -> Self {
        // The shell moves the sockets to the descriptors that the protocol has, and knows the id of the process.
        let mut command = Command::new("/bin/sh");
        let script = match sockets.len() {
            0 => "exec \"$@\"",
            1 => "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"",
            2 => "exec 3<&0 4<&1 0</dev/null 1>/dev/null; export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\"",
            more => panic!("{more} sockets"),
        };
        command.args(["-c", script, "service", BINARY]);
        let mut command = prepare(command, arguments);
        let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
        command.env("LISTEN_FDNAMES", names.join(":"));
        let mut sockets = sockets.iter().map(|(_, socket)| Stdio::from(socket.try_clone().unwrap()));
        command.stdin(sockets.next().unwrap_or_else(Stdio::null));
        let stdout = sockets.next().unwrap_or_else(Stdio::null);
        Self::spawn_with(command, environment, folder, stdout, Stdio::piped()).await
    }

    async fn spawn(command: Command, environment: &[(&str, &str)], folder: &Path, into: Stdio) -> Self {
        Self::spawn_with(command, environment, folder, Stdio::null(), into).await
    }

    async fn spawn_with(
        mut command: Command,
        environment: &[(&str, &str)],
        folder: &Path,
        stdout: Stdio,
        into: Stdio,
    ) -> Self {
        let ready_file = folder.join("ready.json");
        let _may_not_exist = std::fs::remove_file(&ready_file);
        command.arg("--ready-file").arg(&ready_file).envs(environment.iter().copied());
        let mut child = command.stdout(stdout).stderr(into).spawn().unwrap();
        // The command holds a copy of `stderr`, which would keep a pipe open.
        drop(command);
        let stderr = Arc::new(Mutex::new(String::new()));
        let reader = match child.stderr.take() {
            Some(piped) => tokio::spawn(collect(piped, Arc::clone(&stderr))),
            None => tokio::spawn(std::future::ready(())),
        };
        let ready = wait_until("the program is ready", async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", stderr.lock().unwrap());
            }
            std::fs::read(&ready_file).ok().map(|json| serde_json::from_slice(&json).unwrap())
        });
        let ready = ready.await;
        Self { child, ready, stderr, reader }
    }

    /// Returns the process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Returns the address of the listener `default`.
    pub(crate) fn listener(&self) -> SocketAddr {
        self.listener_named("default")
    }

    /// Returns the address of a listener.
    pub(crate) fn listener_named(&self, name: &str) -> SocketAddr {
        self.ready["listeners"][name].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.ready["admin"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) async fn wait_until_credentials_are(&self, state: &str) {
        wait_until(&format!("all credentials are {state}"), async || {
            let status = Caller::connect(self.admin()).await.call("GET", "/status").await.json();
            status["credentials"].as_array()?.iter().all(|credential| credential["state"] == state).then_some(())
        })
        .await;
    }

    /// Waits until this many reloads have ended in `result`, `success` or `failure`.
    pub(crate) async fn wait_for_reloads(&self, result: &str, count: f64) {
        wait_until(&format!("{count} reloads end in {result}"), async || {
            (self.metrics().await.sum("config_reloads_total", &[("result", result)]) >= count).then_some(())
        })
        .await;
    }

    /// Returns what it wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Allows or forbids opening further files. Open files stay open.
    pub(crate) fn allow_open_files(&self, allowed: bool) {
        use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
        let id = self.child.id().and_then(|id| Pid::from_raw(id.try_into().unwrap()));
        // The child inherited the hard limit of this process.
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        prlimit(id, Resource::Nofile, Rlimit { current: if allowed { maximum } else { Some(0) }, maximum }).unwrap();
    }

    /// Sends SIGTERM.
    pub(crate) async fn terminate(&self) {
        self.signal("-TERM").await;
    }

    /// Sends SIGHUP.
    pub(crate) async fn hang_up(&self) {
        self.signal("-HUP").await;
    }

    /// Sends SIGUSR1.
    pub(crate) async fn toggle_debug(&self) {
        self.signal("-USR1").await;
    }

    async fn signal(&self, signal: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.unwrap().success());
    }

    pub(crate) async fn metrics(&self) -> Samples {
        Samples::parse(&Caller::connect(self.admin()).await.call("GET", "/metrics").await.assert_status(200).text())
    }

    /// Waits for its end and returns the exit status and what it wrote to stderr.
    pub(crate) async fn wait(mut self) -> (ExitStatus, String) {
        let status = with_timeout("the program's end", self.child.wait()).await.unwrap();
        with_timeout("the end of the log", &mut self.reader).await.unwrap();
        (status, self.log())
    }
}

async fn collect(mut from: impl AsyncRead + Unpin, into: Arc<Mutex<String>>) {
    let mut bytes = Vec::new();
    let mut line_start = 0;
    while from.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
        // Only complete lines, because the last character may be incomplete.
        let Some(line_end) = bytes.iter().rposition(|byte| *byte == b'\n').filter(|end| *end >= line_start) else {
            continue;
        };
        into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[line_start..=line_end]));
        line_start = line_end + 1;
    }
    into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[line_start..]));
}
