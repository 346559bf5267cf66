//! A server of Debian's as a child process, in a folder of its own.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::support::wait_until;

/// A folder that servers may write to, even those that give up root's rights.
pub(super) fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    folder
}

/// Returns a loopback address whose port was free a moment ago, for servers that cannot choose a port themselves.
pub(super) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server that is killed on drop.
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
    output: PathBuf,
}

impl Server {
    /// Starts a program that stays in the foreground, and waits until it accepts connections at `address`. Its output goes
    /// to a file in `folder`.
    pub(super) async fn start(program: &str, arguments: &[&str], address: SocketAddr, folder: &Path) -> Self {
        let output = folder.join("output");
        let file = std::fs::File::create(&output).unwrap();
        let mut command = Command::new(program);
        // A group of its own, so that the server's workers are killed with it.
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).process_group(0);
        let child = command.stdout(file.try_clone().unwrap()).stderr(file).spawn();
        let child = child.unwrap_or_else(|err| panic!("{program}: {err}; tests/peers/run installs it"));
        let mut server = Self { child, address, output };
        server.wait_until_it_accepts(program).await;
        server
    }

    /// Returns the address at which it accepts connections.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the process id.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the server with its child processes and waits for its end.
    pub(super) fn kill(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        // Both fail only if it has ended already.
        let _ended = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ended = self.child.wait();
    }

    async fn wait_until_it_accepts(&mut self, program: &str) {
        wait_until(&format!("{program} accepts connections"), async || {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{program} ended with {status}: {}", std::fs::read_to_string(&self.output).unwrap());
            }
            TcpStream::connect(self.address).await.ok()
        })
        .await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
