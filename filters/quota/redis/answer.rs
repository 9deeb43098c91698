//! What the scripts reply: all of them the same list.

use redis::Value;

use crate::quota::account::{Account, Now};
use crate::quota::charge::Charge;
use crate::quota::gcra::Gcra;
use crate::quota::window::{Book, PerWindow, Spent};

/// The reply of a script.
#[derive(Debug)]
pub(super) struct Answer {
    /// What it means differs by script.
    pub(super) status: i64,
    /// The time of the server when it decided.
    pub(super) now: Now,
    /// What is granted.
    pub(super) granted: Charge,
    /// The records of the levels, in the order of the call.
    pub(super) records: Vec<Vec<u8>>,
}

impl Answer {
    pub(super) fn parse(value: Value) -> Option<Self> {
        let Value::Array(items) = value else { return None };
        let mut items = items.into_iter();
        let mut int = || int(items.next()?);
        let (status, unix_us) = (int()?, u64::try_from(int()?).ok()?);
        let mut amount = || u64::try_from(int()?).ok();
        let granted = Charge { prompt: amount()?, completion: amount()?, gpu_ms: amount()? };
        let now = Now { unix_ms: unix_us / 1_000, monotonic_ns: unix_us.saturating_mul(1_000) };
        Some(Self { status, now, granted, records: items.filter_map(bytes).collect() })
    }

    /// The accounts of the levels.
    pub(super) fn accounts(&self) -> Option<Vec<Account>> {
        self.records.iter().map(|record| account(record)).collect()
    }
}

fn int(value: Value) -> Option<i64> {
    if let Value::Int(int) = value { Some(int) } else { None }
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    if let Value::BulkString(bytes) = value { Some(bytes) } else { None }
}

/// Reads a record, as `record.lua` packs it.
pub(super) fn account(record: &[u8]) -> Option<Account> {
    let mut fields = Fields(record);
    let version = fields.take(1)?;
    let (tat_us, tat_ns) = (fields.take(7)?, fields.take(2)?);
    let in_flight = u32::try_from(fields.take(4)?).ok()?;
    let (_expires, _sweep) = (fields.take(6)?, fields.take(6)?);
    let books = PerWindow {
        minute: fields.book()?,
        hour: fields.book()?,
        day: fields.book()?,
        month: fields.book()?,
    };
    let pacing = Gcra { tat_ns: tat_us.saturating_mul(1_000).saturating_add(tat_ns) };
    (version == VERSION && fields.0.is_empty()).then_some(Account { pacing, in_flight, books })
}

/// Unsigned little-endian numbers, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take(&mut self, bytes: usize) -> Option<u64> {
        let (number, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(number.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn charge(&mut self) -> Option<Charge> {
        Some(Charge { prompt: self.take(6)?, completion: self.take(6)?, gpu_ms: self.take(6)? })
    }

    fn book(&mut self) -> Option<Book> {
        let index = u32::try_from(self.take(4)?).ok()?;
        let requests = u32::try_from(self.take(4)?).ok()?;
        let (used, reserved) = (self.charge()?, self.charge()?);
        Some(Book { index, spent: Spent { requests, used, reserved } })
    }
}

const VERSION: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_record_is_read() {
        let mut record = vec![1];
        record.extend([0; 201]);
        assert!(account(&record).is_some());
        assert!(account(&record[1..]).is_none(), "too short");
        record.push(0);
        assert!(account(&record).is_none(), "too long");
        record.pop();
        record[0] = 2;
        assert!(account(&record).is_none(), "of another version");
    }

    #[test]
    fn only_the_list_of_the_scripts_is_an_answer() {
        let ints = |ints: &[i64]| Value::Array(ints.iter().map(|int| Value::Int(*int)).collect());
        let cases = [
            (ints(&[1, 5_000_000, 1, 2, 3]), true),
            (ints(&[1, 5_000_000, 1, 2]), false),
            (ints(&[1, -5, 1, 2, 3]), false),
            (ints(&[1, 5, -1, 2, 3]), false),
            (Value::Okay, false),
        ];
        for (value, valid) in cases {
            let shown = format!("{value:?}");
            assert_eq!(Answer::parse(value).is_some(), valid, "{shown}");
        }
    }
}
