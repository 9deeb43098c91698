//! Real servers for tests: started on free ports, in directories of their own, and ended with the
//! test.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A Redis server, or a Sentinel.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    dir: TempDir,
    args: Vec<String>,
    pub(super) port: u16,
}

impl Server {
    /// `None`, and a line on stderr, if Redis is not installed here.
    pub(super) fn start(args: &[&str]) -> Option<Self> {
        Self::start_in(tempfile::tempdir().unwrap(), free_port(), args)
    }

    /// With files that are in the directory already.
    pub(super) fn start_in(dir: TempDir, port: u16, args: &[&str]) -> Option<Self> {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let child = spawn(dir.path(), port, &args)?;
        let server = Self { child, dir, args, port };
        server.wait_for_port();
        Some(server)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Runs a command, written as on a command line, and shows the answer.
    pub(super) fn run(&self, command: &str) -> String {
        let mut words = command.split_whitespace();
        let mut cmd = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            cmd.arg(word);
        });
        let client = redis::Client::open(self.url()).unwrap();
        let answer = client.get_connection().and_then(|mut connection| {
            connection.set_read_timeout(Some(Duration::from_secs(5)))?;
            cmd.query::<redis::Value>(&mut connection)
        });
        format!("{answer:?}")
    }

    /// Stops it as a power cut would.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, on the same port, with these arguments as well.
    pub(super) fn restart(&mut self, more: &[&str]) {
        let more = more.iter().map(|arg| (*arg).to_owned());
        let args: Vec<String> = self.args.iter().cloned().chain(more).collect();
        self.child = spawn(self.dir.path(), self.port, &args).unwrap();
        self.wait_for_port();
    }

    /// Stops or continues the process: it keeps its connections, and answers nothing.
    pub(super) fn freeze(&self, frozen: bool) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal =
            if frozen { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn wait_for_port(&self) {
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the server does not listen");
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn spawn(dir: &Path, port: u16, args: &[String]) -> Option<Child> {
    let port = port.to_string();
    let mut command = Command::new("redis-server");
    // A Sentinel wants its file first.
    let (file, args): (Vec<_>, Vec<_>) = args.iter().partition(|arg| arg.ends_with(".conf"));
    command.args(file).args(["--port", &port, "--bind", "127.0.0.1", "--save", ""]);
    command.args(args).args(["--loglevel", "warning"]).current_dir(dir).stdout(Stdio::null());
    match command.spawn() {
        Ok(child) => Some(child),
        Err(error) => {
            eprintln!("skipped: redis-server cannot be started: {error}");
            None
        }
    }
}

/// Free a moment ago; the bus of a cluster node needs the port 10,000 above it as well.
pub(super) fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let bus = port.checked_add(10_000);
        if bus.is_some_and(|bus| TcpListener::bind(("127.0.0.1", bus)).is_ok()) {
            return port;
        }
    }
}
