//! The hash chain: each line of the audit trail commits to all lines before it.
//!
//! A line is the record's JSON object with three fields added at its end:
//! `…,"seq":N,"prev":"HEX","hash":"HEX"}`. `seq` counts from 1, `prev` is the hash of the line
//! before (64 zeros for the first), `hash` is the SHA-256 of the bytes of the line up to, and not
//! including, `,"hash":`. So `sha256sum` and a text editor are enough to check a line by hand.
//!
//! Edits, deletions and swaps break the chain. A tail that was cut off is found by the checkpoint
//! beside the file ([`Checkpoint`]). Whoever can write both can forge both: to guard against that,
//! copy the checkpoint to another machine now and then.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::record::AuditRecord;

/// Longer lines are not ours: a record's texts and lists are all bounded.
pub(super) const MAX_LINE: usize = 1 << 20;

/// A SHA-256 hash or HMAC, written as 64 hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "&str")]
pub struct Digest([u8; 32]);

/// The place that a chain has reached: the number and hash of its last line.
///
/// The default is the place before the first line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The number of the line; 0 before the first.
    pub seq: u64,
    /// The hash of the line.
    pub hash: Digest,
}

/// The writing end of a chain.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    last: Checkpoint,
}

impl Chain {
    /// A chain that goes on after `last`.
    #[must_use]
    pub const fn after(last: Checkpoint) -> Self {
        Self { last }
    }

    /// The last line that was sealed.
    #[must_use]
    pub const fn last(&self) -> Checkpoint {
        self.last
    }

    /// Appends the record to `out` as the next line of the chain.
    ///
    /// # Errors
    /// If the record has no JSON form; `out` and the chain are then as before.
    pub fn seal(
        &mut self,
        record: &AuditRecord,
        out: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        let start = out.len();
        let sealed = self.append(record, out, start);
        if sealed.is_err() {
            out.truncate(start);
        }
        sealed
    }

    fn append(
        &mut self,
        record: &AuditRecord,
        out: &mut Vec<u8>,
        start: usize,
    ) -> Result<(), serde_json::Error> {
        serde_json::to_writer(&mut *out, record)?;
        out.pop(); // the closing brace
        let seq = self.last.seq + 1;
        write!(out, ",\"seq\":{seq},\"prev\":\"{}\"", self.last.hash)
            .map_err(serde_json::Error::io)?;
        let hash = Digest::of(out.get(start..).unwrap_or_default());
        writeln!(out, ",\"hash\":\"{hash}\"}}").map_err(serde_json::Error::io)?;
        self.last = Checkpoint { seq, hash };
        Ok(())
    }
}

/// What [`verify`] found in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// The number of records.
    pub records: u64,
    /// Where the chain ends.
    pub last: Checkpoint,
    /// Whether a checkpoint vouches that the tail is complete.
    pub checked_tail: bool,
}

/// The first line at which the trail is not as it was written.
#[derive(Debug)]
#[non_exhaustive]
pub struct BadLine {
    /// The number of the line in the file, from 1.
    pub line: u64,
    /// What is wrong there.
    pub why: Flaw,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for BadLine {}

/// What can be wrong with a line.
#[derive(Debug)]
#[non_exhaustive]
pub enum Flaw {
    /// The file cannot be read on.
    Unreadable(io::Error),
    /// The line does not end: a crash or a cut.
    Torn,
    /// The line is not an audit record.
    Foreign,
    /// The line was edited: its hash is not that of its bytes.
    Edited,
    /// Lines were deleted, added or reordered.
    OutOfSequence {
        /// The number that belongs here.
        expected: u64,
        /// The number that is here.
        found: u64,
    },
    /// This line, or the one before, was replaced: `prev` is not the hash of the line before.
    Unlinked,
    /// The line is not the one that the checkpoint names.
    NotTheCheckpoint,
    /// The file ends here, the checkpoint says that it had more lines.
    Truncated {
        /// The number of the last line that was written.
        expected: u64,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::Torn => f.write_str("the line does not end"),
            Self::Foreign => f.write_str("not an audit record"),
            Self::Edited => f.write_str("the line was edited"),
            Self::OutOfSequence { expected, found } => {
                write!(f, "record {found} stands where record {expected} belongs")
            }
            Self::Unlinked => f.write_str("this line or the one before was replaced"),
            Self::NotTheCheckpoint => f.write_str("not the record that the checkpoint names"),
            Self::Truncated { expected } => {
                write!(f, "the trail ends here, it went on to record {expected}")
            }
        }
    }
}

/// Checks a trail from its first line and, given a checkpoint, that its tail is there.
///
/// # Errors
/// The first bad line.
pub fn verify(mut trail: impl BufRead, head: Option<Checkpoint>) -> Result<Summary, BadLine> {
    let (mut last, mut line) = (Checkpoint::default(), Vec::new());
    while next_line(&mut trail, &mut line).map_err(|why| BadLine { line: last.seq + 1, why })? {
        last = follow(last, &line, head).map_err(|why| BadLine { line: last.seq + 1, why })?;
    }
    match head {
        Some(head) if head.seq > last.seq => {
            Err(BadLine { line: last.seq + 1, why: Flaw::Truncated { expected: head.seq } })
        }
        _ => Ok(Summary { records: last.seq, last, checked_tail: head.is_some() }),
    }
}

/// Checks the file at `path` against the checkpoint beside it, if there is one.
///
/// Works on a file that is being written: the checkpoint is read first, and the file is never
/// behind it.
///
/// # Errors
/// The first bad line; line 0 stands for the checkpoint or a file that cannot be opened.
pub fn verify_file(path: &Path) -> Result<Summary, BadLine> {
    let outside = |error| BadLine { line: 0, why: Flaw::Unreadable(error) };
    let head = Checkpoint::load(&head_path(path)).map_err(outside)?;
    let file = File::open(path).map_err(outside)?;
    verify(BufReader::new(file), head)
}

/// The name of the checkpoint of the trail at `path`: `audit.jsonl.head` for `audit.jsonl`.
#[must_use]
pub fn head_path(path: &Path) -> PathBuf {
    with_suffix(path, ".head")
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Checkpoint {
    /// Reads a checkpoint; none if there is no such file.
    ///
    /// # Errors
    /// If the file cannot be read or is not a checkpoint.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the place out of one line, without its newline, and checks the line's own hash.
    pub(super) fn of_line(line: &[u8]) -> Result<(Self, Digest), Flaw> {
        let (body, hash) = split_hash(line).ok_or(Flaw::Foreign)?;
        if Digest::of(body) != hash {
            return Err(Flaw::Edited);
        }
        let link: Link = serde_json::from_slice(line).map_err(|_| Flaw::Foreign)?;
        Ok((Self { seq: link.seq, hash }, link.prev))
    }
}

/// The fields of a line that make the chain; the others are covered by the hash.
#[derive(Deserialize)]
struct Link {
    seq: u64,
    prev: Digest,
}

impl Digest {
    fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The HMAC-SHA256 of several texts (RFC 2104); each is followed by its length, so that texts
    /// cut elsewhere have another digest.
    #[must_use]
    pub fn keyed<'a>(key: &[u8], texts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        // Keys of any length are allowed, so making the HMAC cannot fail.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return Self::default() };
        for text in texts {
            mac.update(text);
            mac.update(&text.len().to_le_bytes());
        }
        Self(mac.finalize().into_bytes().into())
    }

    fn from_hex(hex: &[u8]) -> Option<Self> {
        let mut digest = [0; 32];
        let (pairs, []) = hex.as_chunks::<2>() else { return None };
        if pairs.len() != digest.len() {
            return None;
        }
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            *byte = nibble(*high)? << 4 | nibble(*low)?;
        }
        Some(Self(digest))
    }
}

impl From<Digest> for [u8; 32] {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<&str> for Digest {
    type Error = &'static str;

    fn try_from(hex: &str) -> Result<Self, Self::Error> {
        Self::from_hex(hex.as_bytes()).ok_or("not 64 lower-case hexadecimal digits")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hex = [0; 64];
        for ([high, low], byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            (*high, *low) = (digit(byte >> 4), digit(byte & 15));
        }
        f.write_str(str::from_utf8(&hex).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

/// One spelling only, as two spellings of a hash would be two valid lines.
const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The bytes under the hash, and the hash.
fn split_hash(line: &[u8]) -> Option<(&[u8], Digest)> {
    let (rest, hex) = line.strip_suffix(b"\"}")?.split_last_chunk::<64>()?;
    Some((rest.strip_suffix(b",\"hash\":\"")?, Digest::from_hex(hex)?))
}

/// Reads a line without its newline; false at the end.
fn next_line(trail: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, Flaw> {
    line.clear();
    let limit = MAX_LINE as u64 + 1;
    let read = trail.by_ref().take(limit).read_until(b'\n', line).map_err(Flaw::Unreadable)?;
    match line.pop() {
        None => Ok(false),
        Some(b'\n') => Ok(true),
        Some(_) if read > MAX_LINE => Err(Flaw::Foreign),
        Some(_) => Err(Flaw::Torn),
    }
}

fn follow(last: Checkpoint, line: &[u8], head: Option<Checkpoint>) -> Result<Checkpoint, Flaw> {
    let (here, prev) = Checkpoint::of_line(line)?;
    if here.seq != last.seq + 1 {
        return Err(Flaw::OutOfSequence { expected: last.seq + 1, found: here.seq });
    }
    if prev != last.hash {
        return Err(Flaw::Unlinked);
    }
    match head {
        Some(head) if head.seq == here.seq && head.hash != here.hash => Err(Flaw::NotTheCheckpoint),
        _ => Ok(here),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Operation, Status};
    use super::super::text::Text;
    use super::*;
    use crate::clock::Clock;

    fn trail(records: usize) -> (Vec<Vec<u8>>, Checkpoint) {
        let mut chain = Chain::default();
        let lines = (0..records).map(|n| line(&mut chain, &format!("user{n}"))).collect();
        (lines, chain.last())
    }

    fn line(chain: &mut Chain, user: &str) -> Vec<u8> {
        let mut record = AuditRecord::new(&Clock::system(), Operation::Account, Status::Success);
        record.user_id = Some(Text::new(user));
        let mut out = Vec::new();
        chain.seal(&record, &mut out).unwrap();
        out
    }

    /// What `verify` says of a trail of six lines after `tamper`: "" or "LINE WHY".
    fn check(name: &str, tamper: impl Fn(&mut Vec<Vec<u8>>), expected: &str) {
        let (mut lines, head) = trail(6);
        tamper(&mut lines);
        let verdict = verify(lines.concat().as_slice(), Some(head));
        let got = verdict.map_or_else(
            |bad| format!("{} {:?}", bad.line, bad.why),
            |summary| format!("{} ok {}", summary.records, summary.checked_tail),
        );
        assert_eq!(got, expected, "{name}");
    }

    #[test]
    fn tampering_is_found_at_its_line() {
        check("untouched", |_| {}, "6 ok true");
        check(
            "first line dropped",
            |l| drop(l.remove(0)),
            "1 OutOfSequence { expected: 1, found: 2 }",
        );
        check("line dropped", |l| drop(l.remove(2)), "3 OutOfSequence { expected: 3, found: 4 }");
        check("lines swapped", |l| l.swap(1, 3), "2 OutOfSequence { expected: 2, found: 4 }");
        check(
            "line doubled",
            |l| l.insert(2, l[1].clone()),
            "3 OutOfSequence { expected: 3, found: 2 }",
        );
        check("tail cut", |l| l.truncate(4), "5 Truncated { expected: 6 }");
        check("all cut", Vec::clear, "1 Truncated { expected: 6 }");
        check("tail cut in a line", |l| drop(l[5].split_off(20)), "6 Torn");
        check("foreign line", |l| l.insert(3, b"{}\n".to_vec()), "4 Foreign");
        check("empty line", |l| l.insert(3, b"\n".to_vec()), "4 Foreign");
        check(
            "endless line",
            |l| l[3].splice(..1, vec![b'x'; MAX_LINE]).for_each(drop),
            "4 Foreign",
        );
        check("last line forged", |l| l[5] = forged(&l[4]), "6 NotTheCheckpoint");
        check("line forged", |l| l[2] = forged(&l[1]), "4 Unlinked");
    }

    /// A line with a right hash that follows `before`, but is not the one that was written.
    fn forged(before: &[u8]) -> Vec<u8> {
        let (last, _) = Checkpoint::of_line(before.strip_suffix(b"\n").unwrap()).unwrap();
        line(&mut Chain::after(last), "mallory")
    }

    #[test]
    fn any_flipped_byte_is_found() {
        let (lines, head) = trail(3);
        let clean = lines.concat();
        for at in 0..clean.len() {
            for bit in [0x01, 0x20, 0x80] {
                let mut bytes = clean.clone();
                bytes[at] ^= bit;
                let bad = verify(bytes.as_slice(), Some(head)).expect_err("a flipped bit");
                let expected = clean[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
                assert_eq!(bad.line, expected as u64, "byte {at}, bit {bit:#x}: {bad}");
            }
        }
    }

    #[test]
    fn without_a_checkpoint_the_tail_is_not_vouched_for() {
        let (mut lines, _) = trail(3);
        lines.truncate(2);
        let summary = verify(lines.concat().as_slice(), None).unwrap();
        assert_eq!((summary.records, summary.checked_tail), (2, false));
    }

    #[test]
    fn the_first_line_follows_64_zeros() {
        let text = String::from_utf8(trail(1).0.concat()).unwrap();
        assert!(text.contains(&format!(",\"seq\":1,\"prev\":\"{}\",\"hash\":\"", "0".repeat(64))));
    }

    #[test]
    fn a_hash_has_one_spelling() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(Digest::try_from(hex.as_str()).unwrap().to_string(), hex);
        for bad in [hex.to_uppercase(), hex.replace('0', " "), hex.repeat(2), String::new()] {
            assert!(Digest::try_from(bad.as_str()).is_err(), "{bad}");
        }
    }
}
