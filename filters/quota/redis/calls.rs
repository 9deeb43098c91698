//! The calls of the scripts: keys, arguments, and what the gateway remembers.

use std::sync::{Arc, LazyLock};

use quick_cache::sync::Cache;
use redis::Cmd;

use crate::clock::Clock;
use crate::quota::account::counts;
use crate::quota::charge::{Charge, Resource};
use crate::quota::demand::{Limits, Metered, Subject};
use crate::quota::gcra::Rate;
use crate::quota::window::Window;

use super::answer::Answer;
use super::held::Held;

/// One call of a script.
#[derive(Debug)]
pub(super) struct Call {
    script: &'static Script,
    keys: Vec<String>,
    args: Vec<Vec<u8>>,
    /// Whose records the answer has.
    subjects: Vec<Subject>,
}

impl Call {
    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    pub(super) fn by_text(&self) -> Cmd {
        self.command("EVAL", self.script.text)
    }

    fn command(&self, verb: &str, script: &str) -> Cmd {
        let mut command = Cmd::new();
        command.arg(verb).arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.args);
        command
    }
}

/// What to do with a hold that ends, as `settle.lua` numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Charge, in full if the hold is gone.
    Pay,
    /// As if it had never been asked for.
    Undo,
    /// Charge if it is still held.
    Finish,
    /// Charge and count what was admitted without Redis.
    Add,
}

/// Makes calls.
#[derive(Debug)]
pub(super) struct Calls {
    prefix: String,
    lease_ms: u64,
    /// A clock instead of the server's, in tests.
    time: Option<Clock>,
    /// The records that this gateway has seen last, to give back what a server has lost.
    remembered: Cache<Subject, Arc<[u8]>>,
}

impl Calls {
    pub(super) fn new(prefix: String, lease_ms: u64, time: Option<Clock>) -> Self {
        Self { prefix, lease_ms, time, remembered: Cache::new(REMEMBERED) }
    }

    pub(super) fn reserve(&self, held: &Held, group: &[Metered], least: Charge) -> Call {
        let asked = held.reserved();
        let demand = self.lease().charge(asked).int(least.completion, 6).int(least.gpu_ms, 6);
        self.of_levels(&RESERVE, held.id, 's', demand, group)
    }

    pub(super) fn grow(&self, held: &Held, group: &[Metered], more: Charge) -> Call {
        let had = held.reserved();
        let demand = self.lease().charge(had).int(more.completion, 6).int(more.gpu_ms, 6);
        self.of_levels(&GROW, held.id, 's', demand, group)
    }

    pub(super) fn settle(&self, id: u128, group: &[Metered], how: Ending, charge: Charge) -> Call {
        let mark = if how == Ending::Add { 'c' } else { 's' };
        let order = Packed::default().int(how as u64, 1).int(MARK_MS, 6).charge(charge);
        self.of_levels(&SETTLE, id, mark, order, group)
    }

    pub(super) fn trim(&self, id: u128, subject: Subject, found: Charge, most: Charge) -> Call {
        let packed = |charge| Packed::default().charge(charge).0;
        let args = vec![id.to_be_bytes().to_vec(), packed(found), packed(most)];
        self.of_one(&TRIM, subject, args)
    }

    /// Of each request: what holds for it, and whether it runs, so that it is to be held again if
    /// it is not.
    pub(super) fn extend<'h>(
        &self,
        subject: Subject,
        requests: impl Iterator<Item = (&'h Held, &'h Metered)>,
    ) -> Call {
        let mut args = vec![self.lease().0, self.seed(subject)];
        for (held, metered) in requests {
            let state = Packed::default().int(mask(metered), 1).int(held.runs().into(), 1);
            args.extend([held.id.to_be_bytes().to_vec(), state.charge(held.reserved()).0]);
        }
        self.of_one(&EXTEND, subject, args)
    }

    pub(super) fn reset(&self, subject: Subject, number: u64) -> Call {
        let mut call = self.of_one(&RESET, subject, Vec::new());
        let mark = format!("{}:r:{number}", self.key(subject));
        call.keys.push(mark);
        call
    }

    pub(super) fn read(&self, subject: Subject) -> Call {
        self.of_one(&READ, subject, vec![self.seed(subject)])
    }

    /// Remembers the records of an answer.
    pub(super) fn remember(&self, call: &Call, answer: &Answer) {
        for (subject, record) in call.subjects.iter().zip(&answer.records) {
            self.remembered.insert(*subject, record.as_slice().into());
        }
    }

    fn of_levels(
        &self,
        script: &'static LazyLock<Script>,
        id: u128,
        mark: char,
        order: Packed,
        group: &[Metered],
    ) -> Call {
        let mut keys = Vec::with_capacity(2 * group.len() + 1);
        let mut args = Vec::with_capacity(2 * group.len() + 3);
        args.extend([self.now(), id.to_be_bytes().to_vec(), order.0]);
        for metered in group {
            keys.extend(self.keys(metered.subject));
            args.extend([limits(metered).0, self.seed(metered.subject)]);
        }
        if let Some(first) = group.first() {
            keys.push(format!("{}:{mark}:{id:032x}", self.key(first.subject)));
        }
        Call { script, keys, args, subjects: group.iter().map(|m| m.subject).collect() }
    }

    fn of_one(
        &self,
        script: &'static LazyLock<Script>,
        subject: Subject,
        rest: Vec<Vec<u8>>,
    ) -> Call {
        let args = [self.now()].into_iter().chain(rest).collect();
        Call { script, keys: self.keys(subject).into(), args, subjects: vec![subject] }
    }

    fn lease(&self) -> Packed {
        Packed::default().int(self.lease_ms, 6)
    }

    fn keys(&self, subject: Subject) -> [String; 2] {
        let record = self.key(subject);
        let holds = format!("{record}:h");
        [record, holds]
    }

    fn key(&self, subject: Subject) -> String {
        format!("{}:{{{:032x}}}", self.prefix, subject.number())
    }

    fn now(&self) -> Vec<u8> {
        let us = |clock: &Clock| clock.unix_ms().saturating_mul(1_000).to_string().into_bytes();
        self.time.as_ref().map(us).unwrap_or_default()
    }

    fn seed(&self, subject: Subject) -> Vec<u8> {
        self.remembered.get(&subject).map(|record| record.to_vec()).unwrap_or_default()
    }
}

/// The limits of a level, as `unpack_limits` in `record.lua` reads them.
fn limits(metered: &Metered) -> Packed {
    let Limits { pace, concurrent, ceilings } = &*metered.limits;
    let interval_ns = pace.map_or(0, Rate::interval_ns);
    let burst_ns = pace.map_or(0, |rate| interval_ns.saturating_mul(rate.burst().into()));
    let packed = Packed::default()
        .int(mask(metered), 1)
        .int(interval_ns, 6)
        .int(burst_ns.min(EXACT), 7)
        .int(concurrent.unwrap_or(u32::MAX).into(), 4)
        .int(ceilings.len() as u64, 1);
    let some = ceilings.iter().take(u8::MAX.into());
    some.fold(packed, |packed, ceiling| {
        let (resource, window) = (number(ceiling.resource), ceiling.window as u64);
        packed.int(resource, 1).int(window, 1).int(ceiling.limit.min(EXACT), 7)
    })
}

/// Which windows count: bit 0 is the minute.
fn mask(metered: &Metered) -> u64 {
    let counted = Window::ALL.into_iter().filter(|&window| counts(metered, window));
    counted.fold(0, |mask, window| mask | 1 << window as u64)
}

const fn number(resource: Resource) -> u64 {
    match resource {
        Resource::Requests => 0,
        Resource::Tokens => 1,
        Resource::PromptTokens => 2,
        Resource::CompletionTokens => 3,
        Resource::GpuTime => 4,
    }
}

/// Unsigned little-endian numbers, as `struct.unpack('<I…')` reads them in Lua.
#[derive(Default)]
struct Packed(Vec<u8>);

impl Packed {
    fn int(mut self, number: u64, bytes: usize) -> Self {
        self.0.extend(number.to_le_bytes().into_iter().take(bytes));
        self
    }

    fn charge(self, charge: Charge) -> Self {
        let Charge { prompt, completion, gpu_ms } = charge;
        self.int(prompt.min(MOST), 6).int(completion.min(MOST), 6).int(gpu_ms.min(MOST), 6)
    }
}

/// A script, and the hash by which the server knows it.
#[derive(Debug)]
struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }
}

/// A script with what all of them share in front of it.
macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("record.lua"), include_str!($file))))
    };
}

static RESERVE: LazyLock<Script> = script!("reserve.lua");
static SETTLE: LazyLock<Script> = script!("settle.lua");
static GROW: LazyLock<Script> = script!("grow.lua");
static TRIM: LazyLock<Script> = script!("trim.lua");
static EXTEND: LazyLock<Script> = script!("extend.lua");
static RESET: LazyLock<Script> = script!("reset.lua");
static READ: LazyLock<Script> = script!("read.lua");

/// Up to here a double is exact.
const EXACT: u64 = 1 << 53;
/// What six bytes hold.
const MOST: u64 = (1 << 48) - 1;
/// Of how many subjects the last record is remembered; about 30 MB.
const REMEMBERED: usize = 100_000;
/// How long it is known that a request has been paid.
pub(super) const MARK_MS: u64 = 300_000;
