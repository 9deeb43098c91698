//! Load generator: HTTP/1.1 on loopback, one thread, one line of JSON at the end.
//! usage: loadgen url=http://127.0.0.1:PORT/path body=FILE [key=value ...]
//!   mode=closed   every connection sends as soon as it is answered (throughput)
//!   mode=open     rate= requests a second; latency counts from the intended moment of sending, so that a stall of the
//!                 server is not left out of the figures
//!   mode=stream   conns= streams at one time, each begun again when it ends
//!   conns=64 warm=2 secs=8 rate=1000
//!   header='Name: value' (repeatable)    pid=N (repeatable): whose CPU time and memory are read in the window

mod http;
mod usage;

use hdrhistogram::Histogram;
use http::Connection;
use portcullis_bench::{now, read_stamp};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use usage::Usage;

const SECOND: f64 = 1e9;

fn main() -> Result<(), Box<dyn Error>> {
    let plan = Plan::read(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = tokio::task::LocalSet::new().block_on(&runtime, run(plan))?;
    println!("{report}");
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Closed,
    Open,
    Stream,
}

struct Plan {
    mode: Mode,
    address: SocketAddr,
    request: Vec<u8>,
    connections: u64,
    pids: Vec<u32>,
    /// Nanoseconds between two requests of mode `Open`.
    period: f64,
    /// Nanoseconds: the start, and the window that is measured.
    start: u64,
    from: u64,
    to: u64,
}

impl Plan {
    fn read(arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let (mut mode, mut url, mut headers, mut body) =
            (Mode::Closed, String::new(), String::new(), Vec::new());
        let (mut connections, mut pids, mut warm, mut secs, mut rate) =
            (64, Vec::new(), 2.0, 8.0, 1000.0);
        for argument in arguments {
            let (key, value) = argument.split_once('=').ok_or("key=value")?;
            match key {
                "mode" => mode = parse_mode(value)?,
                "url" => url = value.strip_prefix("http://").ok_or("http:// only")?.into(),
                "body" => body = std::fs::read(value)?,
                "header" => headers += &format!("{value}\r\n"),
                "conns" => connections = value.parse()?,
                "pid" => pids.push(value.parse()?),
                "warm" => warm = value.parse()?,
                "secs" => secs = value.parse()?,
                "rate" => rate = value.parse()?,
                _ => return Err(format!("unknown key {key}").into()),
            }
        }
        let (host, path) = url.split_once('/').ok_or("a URL with a path")?;
        let address: SocketAddr = host.parse()?;
        if !address.ip().is_loopback() {
            return Err("loopback only".into());
        }
        let length = body.len();
        let mut request = format!(
            "POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n"
        )
        .into_bytes();
        request.extend_from_slice(&body);
        let start = now() + 50_000_000;
        let from = start + (warm * SECOND) as u64;
        let to = from + (secs * SECOND) as u64;
        Ok(Self {
            mode,
            address,
            request,
            connections,
            pids,
            period: SECOND / rate,
            start,
            from,
            to,
        })
    }

    fn in_window(&self, at: u64) -> bool {
        (self.from..self.to).contains(&at)
    }

    /// When request number `n` of mode `Open` is to be sent.
    fn intended(&self, n: u64) -> u64 {
        self.start + (n as f64 * self.period) as u64
    }
}

fn parse_mode(name: &str) -> Result<Mode, Box<dyn Error>> {
    match name {
        "closed" => Ok(Mode::Closed),
        "open" => Ok(Mode::Open),
        "stream" => Ok(Mode::Stream),
        _ => Err(format!("unknown mode {name}").into()),
    }
}

struct Tally {
    latency: Histogram<u64>,
    first_chunk: Histogram<u64>,
    transit: Histogram<u64>,
    done: u64,
    chunks: u64,
    bad: u64,
    first_bad: String,
}

impl Tally {
    fn new() -> Result<Self, Box<dyn Error>> {
        let histogram = || Histogram::new_with_bounds(100, 120_000_000_000, 3);
        let (latency, first_chunk, transit) = (histogram()?, histogram()?, histogram()?);
        Ok(Self {
            latency,
            first_chunk,
            transit,
            done: 0,
            chunks: 0,
            bad: 0,
            first_bad: String::new(),
        })
    }

    fn bad(&mut self, why: String) {
        self.bad += 1;
        if self.first_bad.is_empty() {
            self.first_bad = why;
        }
    }
}

async fn run(plan: Plan) -> Result<Value, Box<dyn Error>> {
    let due = Arc::new(Semaphore::new(0));
    if plan.mode == Mode::Open {
        pace(&plan, due.clone());
    }
    let tally = RefCell::new(Tally::new()?);
    let shared = Rc::new(Shared { plan, tally, ticket: Cell::new(0), due });
    let workers: Vec<_> = (0..shared.plan.connections)
        .map(|number| tokio::task::spawn_local(work(shared.clone(), number)))
        .collect();
    let plan = &shared.plan;
    until(plan.from).await;
    let before = Usage::of(&plan.pids);
    until(plan.to).await;
    let after = Usage::of(&plan.pids);
    // What is under way may end, but nothing is waited for without bound.
    let rest = async {
        for worker in workers {
            worker.await?;
        }
        Ok::<_, tokio::task::JoinError>(())
    };
    match tokio::time::timeout(Duration::from_secs(30), rest).await {
        Ok(ended) => ended?,
        Err(_) => {
            shared.tally.borrow_mut().bad("requests were still open 30 s after the end".into())
        }
    }
    Ok(report(plan, &shared.tally.borrow(), before, after))
}

/// What the connections share.
struct Shared {
    plan: Plan,
    tally: RefCell<Tally>,
    /// Mode `Open`: the number of the next request, and one permit for each that is due.
    ticket: Cell<u64>,
    due: Arc<Semaphore>,
}

impl Shared {
    /// Waits until the next request is to be sent, and gives the intended moment.
    async fn turn(&self) -> u64 {
        if self.plan.mode != Mode::Open {
            return now();
        }
        if let Ok(permit) = self.due.acquire().await {
            permit.forget();
        }
        self.plan.intended(self.ticket.replace(self.ticket.get() + 1))
    }
}

/// One connection's life.
async fn work(shared: Rc<Shared>, number: u64) {
    let (plan, tally) = (&shared.plan, &shared.tally);
    if plan.mode == Mode::Stream {
        // Spread over a second, so that the pieces of all streams do not come at the same moments.
        until(plan.start + 1_000_000_000 * number / plan.connections).await;
    } else {
        until(plan.start).await;
    }
    let mut connection = None;
    loop {
        let intended = shared.turn().await;
        if intended >= plan.to {
            return;
        }
        if connection.is_none() {
            connection = Connection::open(plan.address).await.ok();
        }
        let Some(open) = connection.as_mut() else {
            tally.borrow_mut().bad("the connection was refused".into());
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if !exchange(plan, tally, open, intended).await {
            connection = None;
        }
    }
}

/// One request; false when the connection cannot be used again.
async fn exchange(
    plan: &Plan,
    tally: &RefCell<Tally>,
    connection: &mut Connection,
    intended: u64,
) -> bool {
    let mut events = Events::new(intended);
    let mut body = Vec::new();
    let answer = connection
        .exchange(&plan.request, |piece| {
            if plan.mode == Mode::Stream {
                events.read(piece, plan, &mut tally.borrow_mut());
            }
            if body.len() < 300 {
                body.extend_from_slice(piece);
            }
        })
        .await;
    let at = now();
    let mut tally = tally.borrow_mut();
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            tally.bad(error.to_string());
            return false;
        }
    };
    if answer.status != 200 {
        tally.bad(format!("{} {}", answer.status, String::from_utf8_lossy(&body)));
    } else if plan.mode == Mode::Stream && !events.ended {
        tally.bad("a stream without its end".into());
    }
    if plan.in_window(at) {
        tally.done += 1;
    }
    if plan.in_window(intended) {
        tally.latency.saturating_record(at - intended);
    }
    !answer.close
}

/// Reads the stamps out of an event stream, line by line.
struct Events {
    begun: u64,
    line: Vec<u8>,
    first: bool,
    ended: bool,
}

impl Events {
    fn new(begun: u64) -> Self {
        Self { begun, line: Vec::new(), first: true, ended: false }
    }

    fn read(&mut self, piece: &[u8], plan: &Plan, tally: &mut Tally) {
        let at = now();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.ends_with(b"\n") {
                self.complete(at, plan.in_window(at), tally);
                self.line.clear();
            }
        }
    }

    fn complete(&mut self, at: u64, counts: bool, tally: &mut Tally) {
        self.ended |= self.line.starts_with(b"data: [DONE]");
        let Some(stamp) = read_stamp(&self.line) else { return };
        let first = std::mem::take(&mut self.first);
        if !counts {
            return;
        }
        tally.chunks += 1;
        tally.transit.saturating_record(at.saturating_sub(stamp));
        if first {
            tally.first_chunk.saturating_record(at - self.begun);
        }
    }
}

/// Sleeps to the millisecond, which is enough for the marks of the window.
async fn until(at: u64) {
    tokio::time::sleep(Duration::from_nanos(at.saturating_sub(now()))).await;
}

/// Gives a permit at each intended moment, from a thread of its own: Tokio's timers count whole milliseconds. At the end
/// every worker gets one more, finds that its moment lies after the window, and ends.
fn pace(plan: &Plan, permits: Arc<Semaphore>) {
    let (start, period, to, workers) = (plan.start, plan.period, plan.to, plan.connections);
    std::thread::spawn(move || {
        for n in 0u64.. {
            let at = start + (n as f64 * period) as u64;
            if at >= to {
                break;
            }
            std::thread::sleep(Duration::from_nanos(at.saturating_sub(now())));
            permits.add_permits(1);
        }
        permits.add_permits(workers as usize);
    });
}

fn report(plan: &Plan, tally: &Tally, before: Usage, after: Usage) -> Value {
    let secs = (plan.to - plan.from) as f64 / SECOND;
    let cpu_us = after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1000.0;
    let per = |count: u64| if count == 0 { Value::Null } else { json!(cpu_us / count as f64) };
    json!({
        "done": tally.done, "rps": tally.done as f64 / secs, "bad": tally.bad, "first_bad": tally.first_bad,
        "chunks": tally.chunks, "cpu_us_per_request": per(tally.done), "cpu_us_per_chunk": per(tally.chunks),
        "cpu_share": cpu_us / 1e6 / secs, "rss_kb": after.rss_kb,
        "latency": quantiles(&tally.latency), "first_chunk": quantiles(&tally.first_chunk), "transit": quantiles(&tally.transit),
    })
}

/// In microseconds.
fn quantiles(histogram: &Histogram<u64>) -> Value {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
    json!({"p50": at(0.5), "p99": at(0.99), "max": histogram.max() as f64 / 1000.0, "n": histogram.len()})
}
