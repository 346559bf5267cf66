//! The real binary as a child process. Everything it writes to stderr is kept.

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

/// A start of the binary, with an empty environment, and nothing on stdin.
pub(crate) struct Program {
    command: Command,
    input: Option<String>,
    stderr: Option<Stdio>,
}

impl Program {
    pub(crate) fn new(arguments: &[&str]) -> Self {
        Self::of(Command::new(BINARY), arguments)
    }

    /// Starts a gateway whose shutdown has no delay. `settings` are given with `--set`.
    pub(crate) fn gateway(config: &Path, settings: &[&str]) -> Self {
        Self::new(&[]).gateway_arguments(config, settings)
    }

    /// Starts a gateway with a limit of open files, and two workers, which have some open.
    pub(crate) fn with_open_files(limit: u32, config: &Path) -> Self {
        Self::limited(r#"ulimit -n "$0" && exec "$@""#, limit, config)
    }

    /// Starts a gateway whose files are at most so many blocks of 512 bytes. A write beyond that fails, as on a full disk.
    pub(crate) fn with_small_files(blocks: u32, config: &Path) -> Self {
        Self::limited(r#"trap "" XFSZ && ulimit -f "$0" && exec "$@""#, blocks, config)
    }

    fn limited(script: &str, limit: u32, config: &Path) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, &limit.to_string(), BINARY]);
        Self::of(shell, &[]).gateway_arguments(config, &["process.workers=2"])
    }

    /// Starts a gateway as a service manager does: with these sockets, each of which has a name.
    pub(crate) fn as_service(sockets: &[(&str, OwnedFd)], config: &Path, settings: &[&str]) -> Self {
        // The shell moves the sockets to the descriptors that the protocol has, and knows the id of the process.
        let script = match sockets.len() {
            0 => "exec \"$@\"",
            1 => "exec 3<&0 0</dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\"",
            2 => "exec 3<&0 4<&1 0</dev/null 1>/dev/null; export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\"",
            more => panic!("{more} sockets"),
        };
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, "service", BINARY]);
        let mut program = Self::of(shell, &[]).gateway_arguments(config, settings);
        let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
        program.command.env("LISTEN_FDNAMES", names.join(":"));
        let mut sockets = sockets.iter().map(|(_, socket)| Stdio::from(socket.try_clone().unwrap()));
        program.command.stdin(sockets.next().unwrap_or_else(Stdio::null));
        program.command.stdout(sockets.next().unwrap_or_else(Stdio::null));
        program
    }

    fn of(mut command: Command, arguments: &[&str]) -> Self {
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        command.kill_on_drop(true).env_clear().env("COLUMNS", "100");
        Self { command, input: None, stderr: None }
    }

    fn gateway_arguments(mut self, config: &Path, settings: &[&str]) -> Self {
        self.command.arg("run").arg("--config").arg(config).args(["--set", "shutdown.delay=0s"]);
        for setting in settings {
            self.command.args(["--set", setting]);
        }
        self
    }

    /// Adds variables to its environment.
    pub(crate) fn environment(mut self, variables: &[(&str, &str)]) -> Self {
        self.command.envs(variables.iter().copied());
        self
    }

    /// Opens a pipe to its stdin.
    pub(crate) fn piped_stdin(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    /// Writes a text to its stdin.
    pub(crate) fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self.piped_stdin()
    }

    /// Sets its stderr, which is then not kept.
    pub(crate) fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.stderr = Some(stderr.into());
        self
    }

    /// Runs it to its end.
    pub(crate) async fn run(self) -> ProgramOutput {
        let Self { mut command, input, stderr } = self;
        let child = command.stdout(Stdio::piped()).stderr(stderr.unwrap_or_else(Stdio::piped)).spawn();
        let mut child = child.unwrap();
        // The command holds copies of the descriptors.
        drop(command);
        if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
            let _may_end_without_reading = stdin.write_all(text.as_bytes()).await;
        }
        let output = with_timeout("the program's end", child.wait_with_output()).await.unwrap();
        ProgramOutput {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Starts it and waits until it serves. `folder` is for its ready file.
    pub(crate) async fn start(self, folder: &Path) -> Process {
        let Self { mut command, input: _, stderr } = self;
        let ready_file = folder.join("ready.json");
        let _may_not_exist = std::fs::remove_file(&ready_file);
        command.arg("--ready-file").arg(&ready_file).stderr(stderr.unwrap_or_else(Stdio::piped));
        let mut child = command.spawn().unwrap();
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
        Process { child, ready, stderr, reader }
    }
}

/// Runs the binary to its end with an empty environment.
pub(crate) async fn run(arguments: &[&str]) -> ProgramOutput {
    Program::new(arguments).run().await
}

/// Runs the binary to its end with only these variables.
pub(crate) async fn run_in(environment: &[(&str, &str)], arguments: &[&str]) -> ProgramOutput {
    Program::new(arguments).environment(environment).run().await
}

/// Runs the binary to its end without variables, with a text on stdin.
pub(crate) async fn run_with_stdin(text: &str, arguments: &[&str]) -> ProgramOutput {
    Program::new(arguments).input(text).run().await
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
    /// Starts the binary with only these variables and waits until it serves. `folder` is for its ready file.
    pub(crate) async fn start(arguments: &[&str], environment: &[(&str, &str)], folder: &Path) -> Self {
        Program::new(arguments).environment(environment).start(folder).await
    }

    /// Starts a gateway, as [`Program::gateway`] does, and waits until it serves. Its ready file is beside its configuration.
    pub(crate) async fn start_gateway(config: &Path, settings: &[&str]) -> Self {
        Program::gateway(config, settings).start(config.parent().unwrap()).await
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

    /// Returns `/status`.
    pub(crate) async fn status(&self) -> Value {
        Caller::connect(self.admin()).await.call("GET", "/status").await.json()
    }

    /// Returns the verdict of its status page: the state and the lines.
    pub(crate) async fn verdict(&self) -> (String, Vec<String>) {
        let status = self.status().await;
        let lines = status["verdict"]["lines"].as_array().unwrap().iter();
        let lines = lines.map(|line| line.as_str().unwrap().to_owned()).collect();
        (status["verdict"]["state"].as_str().unwrap().to_owned(), lines)
    }

    pub(crate) async fn wait_until_credentials_are(&self, state: &str) {
        wait_until(&format!("all credentials are {state}"), async || {
            self.status().await["credentials"]
                .as_array()?
                .iter()
                .all(|credential| credential["state"] == state)
                .then_some(())
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

    /// Returns the series that names the configuration in force.
    pub(crate) async fn config_hash(&self) -> Option<String> {
        let metrics = self.metrics().await;
        metrics.series().iter().find(|series| series.contains("config_hash_info")).map(|series| (*series).to_owned())
    }

    /// Sends SIGHUP after the configuration was changed, and waits until another one than `before` is in force. A reload by a poll
    /// of the file counts like one by the signal, so counts of reloads do not tell.
    pub(crate) async fn apply_configuration(&self, before: Option<String>) {
        self.hang_up().await;
        wait_until("the new configuration is in force", async || (self.config_hash().await != before).then_some(()))
            .await;
    }

    /// Returns what it wrote to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until the log has these words.
    pub(crate) async fn wait_for_log(&self, words: &str) {
        self.wait_for_log_after(0, words).await;
    }

    /// Waits until the log has these words after this many bytes.
    pub(crate) async fn wait_for_log_after(&self, since: usize, words: &str) {
        wait_until(&format!("the log says {words:?}"), async || self.log()[since..].contains(words).then_some(()))
            .await;
    }

    /// Closes the pipe to its stdin.
    pub(crate) fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
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
