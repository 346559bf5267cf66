//! The client of a Redis server: one connection that all calls share, on the control runtime.
//!
//! The workers' runtimes come and go with their threads, so neither the connection nor the operations are theirs: an
//! operation goes on when its caller gives up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, RedisConnectionInfo, Value};
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use super::connect::{StoreTls, connect};
use super::error::{StoreError, StoreFailure};
use super::settings::StoreSettings;

/// How long operations fail at once after a connection could not be opened, so that they do not all wait for the next one.
const PAUSE: Duration = Duration::from_millis(200);

/// The client of a Redis server.
#[derive(Clone, Debug)]
pub(super) struct Client {
    shared: Arc<Shared>,
    control: Handle,
}

#[derive(Debug)]
struct Shared {
    settings: StoreSettings,
    tls: StoreTls,
    connection: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Open>,
    /// The number of connections that were opened.
    opened: u64,
    failed: Option<(Instant, StoreError)>,
}

#[derive(Debug)]
struct Open {
    connection: MultiplexedConnection,
    driver: AbortHandle,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A command and its arguments.
pub(super) type Command = Vec<Vec<u8>>;

impl Client {
    /// Makes a client, which connects when it is first used.
    pub(super) fn new(settings: &StoreSettings, control: &Handle) -> Self {
        let shared = Shared { settings: settings.clone(), tls: StoreTls::default(), connection: Mutex::default() };
        Self { shared: Arc::new(shared), control: control.clone() }
    }

    /// Runs a script on a key. Returns the strings of its answer.
    ///
    /// # Cancel safety
    /// The script may run.
    pub(super) async fn script(
        &self,
        script: &str,
        key: &str,
        arguments: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut command: Command =
            [b"EVAL".as_slice(), script.as_bytes(), b"1", key.as_bytes()].map(<[u8]>::to_vec).into();
        command.extend(arguments);
        self.run(command).await
    }

    /// Runs a command. Returns the strings of its answer.
    ///
    /// # Cancel safety
    /// The command may run.
    pub(super) async fn run(&self, command: Command) -> Result<Vec<Vec<u8>>, StoreError> {
        let shared = Arc::clone(&self.shared);
        match self.control.spawn(async move { shared.run(&command).await }).await {
            Ok(answer) => answer,
            Err(_stopping) => Err(StoreError::new(StoreFailure::Broken, "the gateway is stopping")),
        }
    }
}

impl Shared {
    async fn run(&self, command: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, StoreError> {
        let deadline = tokio::time::Instant::now() + self.settings.timeout;
        let timeout = || StoreError::new(StoreFailure::Timeout, &format!("no answer in {:?}", self.settings.timeout));
        let (mut connection, number) = match tokio::time::timeout_at(deadline, self.connection()).await {
            Ok(open) => open?,
            // Whoever holds the lock is still connecting, or this operation was.
            Err(_late) => return Err(timeout()),
        };
        let mut packed = redis::Cmd::new();
        for argument in command {
            packed.arg(argument.as_slice());
        }
        match tokio::time::timeout_at(deadline, connection.req_packed_command(&packed)).await {
            Ok(Ok(answer)) => strings(answer),
            Ok(Err(err)) => {
                // A server that has become a replica, or that loads its data, may be another one at the next connection.
                self.forget(number).await;
                let is_broken = err.is_connection_dropped() || err.is_io_error();
                let what = if is_broken { StoreFailure::Broken } else { StoreFailure::Command };
                Err(StoreError::new(what, &err.to_string()))
            }
            Err(_late) => {
                self.forget(number).await;
                Err(timeout())
            }
        }
    }

    /// Returns the connection and its number. Opens one if there is none.
    async fn connection(&self) -> Result<(MultiplexedConnection, u64), StoreError> {
        let state = &mut *self.connection.lock().await;
        if let Some(open) = &state.open {
            return Ok((open.connection.clone(), state.opened));
        }
        if let Some((at, err)) = &state.failed
            && at.elapsed() < PAUSE
        {
            return Err(err.clone());
        }
        // Not cut off by the deadline of the operation alone: it holds the lock.
        let opened = match tokio::time::timeout(self.settings.timeout, self.open()).await {
            Ok(opened) => opened,
            Err(_late) => Err(StoreError::new(StoreFailure::Timeout, "no connection in time")),
        };
        match opened {
            Ok(open) => {
                state.opened += 1;
                state.failed = None;
                let connection = open.connection.clone();
                state.open = Some(open);
                Ok((connection, state.opened))
            }
            Err(err) => {
                state.failed = Some((Instant::now(), err.clone()));
                Err(err)
            }
        }
    }

    async fn open(&self) -> Result<Open, StoreError> {
        let stream = connect(&self.settings, &self.tls).await?;
        // User, password and database have been sent.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (connection, driver) = MultiplexedConnection::new_with_config(&info, stream, config)
            .await
            .map_err(|err| StoreError::new(StoreFailure::Broken, &err.to_string()))?;
        Ok(Open { connection, driver: tokio::spawn(driver).abort_handle() })
    }

    /// Closes the connection with this number, so that the next operation opens another.
    async fn forget(&self, number: u64) {
        let state = &mut *self.connection.lock().await;
        if state.opened == number {
            state.open = None;
        }
    }
}

/// Returns the strings of an answer.
#[expect(clippy::wildcard_enum_match_arm, reason = "the scripts answer in strings and numbers; the enum may grow")]
fn strings(answer: Value) -> Result<Vec<Vec<u8>>, StoreError> {
    match answer {
        Value::Array(values) => Ok(values.into_iter().map(strings).collect::<Result<Vec<_>, _>>()?.concat()),
        Value::BulkString(bytes) => Ok(vec![bytes]),
        Value::SimpleString(text) => Ok(vec![text.into_bytes()]),
        Value::Int(number) => Ok(vec![number.to_string().into_bytes()]),
        Value::Okay => Ok(vec![b"OK".to_vec()]),
        Value::Nil => Ok(Vec::new()),
        other => Err(StoreError::new(StoreFailure::Command, &format!("an answer of another kind: {other:?}"))),
    }
}
