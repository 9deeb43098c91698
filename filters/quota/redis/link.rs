//! The link to Redis: calls with a hard time limit, and the breaker that spares requests the wait
//! while it is gone.
//!
//! Whatever tells that Redis is gone (no answer in time, a broken connection, a server that is
//! read-only, loading, out of memory) opens the breaker at once. While it is open no request
//! touches the network. A task in the background tries whether a small script can write, at once
//! and then every 250 ms, on the connection there is and else on a new one, and closes the breaker
//! when it can.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use redis::{Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::answer::Answer;
use super::calls::Call;
use super::connect::{Connection, Connector};

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The breaker is open: nothing was sent.
    NotSent,
    /// Redis may have done it or not.
    Lost,
    /// Redis refuses this call, though it works: the data is not what the script expects.
    Rejected,
    /// It was on its way for so long that Redis may have forgotten whether it was done.
    TooOld,
}

pub(super) struct Link {
    connector: Connector,
    connection: ArcSwapOption<Connection>,
    open: AtomicBool,
    opened: Notify,
    /// Told once, when the breaker has closed.
    back: Notify,
    closed: Notify,
    probe_key: String,
    limit: Duration,
}

impl Link {
    /// The breaker is open until there is a connection.
    pub(super) fn new(connector: Connector, prefix: &str, limit: Duration) -> Self {
        Self {
            connector,
            connection: ArcSwapOption::empty(),
            open: AtomicBool::new(true),
            opened: Notify::new(),
            back: Notify::new(),
            closed: Notify::new(),
            probe_key: format!("{prefix}:probe"),
            limit,
        }
    }

    pub(super) const fn is_cluster(&self) -> bool {
        self.connector.is_cluster()
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// Waits until Redis is within reach again: once for each time.
    pub(super) async fn back(&self) {
        self.back.notified().await;
    }

    /// Waits until the breaker is closed.
    pub(super) async fn closed(&self) {
        loop {
            let closed = self.closed.notified();
            if !self.is_open() {
                return;
            }
            closed.await;
        }
    }

    /// Runs a script, within the time limit.
    pub(super) async fn call(&self, call: &Call) -> Result<Answer, Failure> {
        let connection = self.connection.load_full().filter(|_| !self.is_open());
        let mut connection = Connection::clone(&*connection.ok_or(Failure::NotSent)?);
        match timeout(self.limit, run(&mut connection, call)).await {
            Ok(Ok(value)) => Answer::parse(value).ok_or(Failure::Rejected),
            Ok(Err(error)) if is_of_the_data(&error) => {
                tracing::error!(%error, "Redis refuses a script of the meters");
                Err(Failure::Rejected)
            }
            Ok(Err(error)) => Err(self.trip(&error.to_string())),
            Err(_) => Err(self.trip("no answer in time")),
        }
    }

    fn trip(&self, why: &str) -> Failure {
        if !self.open.swap(true, Ordering::AcqRel) {
            tracing::warn!(why, "the meters in Redis are out of reach");
            self.opened.notify_one();
        }
        Failure::Lost
    }

    /// Restores the link whenever it is lost. Runs for ever.
    pub(super) async fn keep(&self) {
        loop {
            match self.restore().await {
                Ok(()) => self.wait_for_trouble().await,
                Err(error) => {
                    tracing::debug!(%error, "Redis is still out of reach");
                    sleep(PROBE_EVERY).await;
                }
            }
        }
    }

    async fn wait_for_trouble(&self) {
        self.open.store(false, Ordering::Release);
        self.closed.notify_waiters();
        self.back.notify_one();
        tracing::info!("the meters in Redis are within reach");
        self.opened.notified().await;
    }

    async fn restore(&self) -> RedisResult<()> {
        if let Some(connection) = self.connection.load_full()
            && self.probe(&connection).await.is_ok()
        {
            return Ok(());
        }
        let attempt = timeout(RECONNECT_TIMEOUT, self.connector.connect()).await;
        let connection = attempt.map_err(|_| late())??;
        self.probe(&connection).await?;
        self.connection.store(Some(connection.into()));
        Ok(())
    }

    /// Whether a script can write. On a cluster on many keys, so that hardly a node is left out.
    async fn probe(&self, connection: &Connection) -> RedisResult<()> {
        let keys = if self.is_cluster() { CLUSTER_PROBES } else { 1 };
        for number in 0..keys {
            let mut command = Cmd::new();
            command.arg("EVAL").arg(PROBE).arg(1).arg(format!("{}:{number}", self.probe_key));
            let mut connection = connection.clone();
            timeout(self.limit, connection.send(&command)).await.map_err(|_| late())??;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("open", &self.is_open()).finish_non_exhaustive()
    }
}

/// By its hash; and by its text, if the server does not know the script (any more).
async fn run(connection: &mut Connection, call: &Call) -> RedisResult<Value> {
    match connection.send(&call.by_hash()).await {
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            connection.send(&call.by_text()).await
        }
        other => other,
    }
}

/// An error of a script, not of the server: the next call may well succeed.
fn is_of_the_data(error: &RedisError) -> bool {
    let text = error.to_string();
    let of_the_server = OF_THE_SERVER.iter().any(|code| text.contains(code));
    let of_a_script = error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError);
    !of_the_server && (of_a_script || error.code() == Some("WRONGTYPE"))
}

fn late() -> RedisError {
    RedisError::from((ErrorKind::Io, "no answer in time"))
}

/// What Redis 6.2 puts into the text of a script's error, and later ones into its code.
const OF_THE_SERVER: [&str; 4] = ["-READONLY", "-OOM", "-MISCONF", "-NOREPLICAS"];
const PROBE: &str = "return redis.call('SET', KEYS[1], '', 'PX', 1000)";
const PROBE_EVERY: Duration = Duration::from_millis(250);
const RECONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
const CLUSTER_PROBES: u32 = 16;
