//! The audit file on disk: opened for one writer, resumed where it ended, repaired if it was torn.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::chain::{Checkpoint, MAX_LINE, head_path, with_suffix};
use super::file::Fsync;
use super::record::{AuditRecord, Operation, Status, rfc3339_text};
use super::{AuditError, Cause};
use crate::clock::Clock;

/// So much of the end of the file is read to find the last good line.
const TAIL: u64 = 2 * MAX_LINE as u64;

/// How every line begins.
const LINE_START: &[u8] = b"{\"timestamp\":\"";

/// An open audit file. The lock on it goes with it.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    /// Where the checkpoint goes; none beside a pipe or a device.
    head: Option<PathBuf>,
    fsync: Fsync,
}

/// What opening the file came to.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) disk: Disk,
    /// The line that the chain goes on after.
    pub(super) last: Checkpoint,
    /// Tells what was found, to be the first record.
    pub(super) report: AuditRecord,
}

impl Disk {
    /// Opens the file for appending, made with mode 0600 if it is not there.
    ///
    /// A regular file is locked against other writers and resumed. A pipe or a device cannot be
    /// read back: its chain begins anew. Opening a pipe blocks until somebody reads it.
    pub(super) fn open(path: &Path, clock: &Clock, fsync: Fsync) -> Result<Opened, AuditError> {
        let at = |cause: io::Error| AuditError::new(path, Cause::Io(cause));
        let is_stream = fs::metadata(path).is_ok_and(|meta| !meta.is_file());
        let file = OpenOptions::new()
            .append(true)
            .read(!is_stream)
            .create(!is_stream)
            .mode(0o600)
            .open(path)
            .map_err(at)?;
        if is_stream {
            let report = Findings::default().report(clock, Checkpoint::default());
            let disk = Self { file, head: None, fsync };
            return Ok(Opened { disk, last: Checkpoint::default(), report });
        }
        lock(&file, path)?;
        let (last, findings) = resume(&file, path, clock)?;
        let disk = Self { file, head: Some(head_path(path)), fsync };
        Ok(Opened { disk, last, report: findings.report(clock, last) })
    }

    /// Appends in one system call; returns how many bytes were taken.
    pub(super) fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        match (&self.file).write(bytes) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            other => other,
        }
    }

    /// Makes what was appended durable, then says so in the checkpoint.
    ///
    /// In this order, so that the checkpoint is never ahead of the file, also after a power cut.
    pub(super) fn commit(&self, last: Checkpoint) -> io::Result<()> {
        let Some(head) = &self.head else { return Ok(()) };
        if self.fsync == Fsync::Batch {
            self.file.sync_data()?;
        }
        let fresh = with_suffix(head, ".new");
        let mut line = serde_json::to_vec(&last)?;
        line.push(b'\n');
        write_private(OpenOptions::new().create(true).truncate(true), &fresh, &line)?;
        fs::rename(&fresh, head)
    }
}

fn write_private(options: &mut OpenOptions, path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = options.write(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

fn lock(file: &File, path: &Path) -> Result<(), AuditError> {
    file.try_lock().map_err(|error| {
        AuditError::new(
            path,
            match error {
                TryLockError::WouldBlock => Cause::Locked,
                TryLockError::Error(error) => Cause::Io(error),
            },
        )
    })
}

/// What was wrong with the file that was resumed.
#[derive(Debug, Default)]
struct Findings {
    /// Where the torn last line was moved, and its length in bytes.
    torn: Option<(PathBuf, usize)>,
    /// The last record in the file and the last that was written, if lines are missing.
    missing: Option<(u64, u64)>,
    /// The last line is not a good one, or not the one that the checkpoint names.
    broken: bool,
    /// The checkpoint cannot be read.
    headless: bool,
}

impl Findings {
    fn report(&self, clock: &Clock, last: Checkpoint) -> AuditRecord {
        let (status, reason) = match self {
            Self { missing: Some(_), .. } => (Status::Failure, "audit_truncated"),
            Self { broken: true, .. } => (Status::Failure, "audit_chain_broken"),
            Self { headless: true, .. } => (Status::Failure, "audit_checkpoint_unreadable"),
            Self { torn: Some(_), .. } => (Status::Success, "audit_torn_line_moved"),
            Self { .. } => (Status::Success, "audit_opened"),
        };
        let mut record = AuditRecord::new(clock, Operation::Configuration, status);
        record.reason = Some(reason);
        record.detail("resumed_after", last.seq);
        if let Some((file, bytes)) = &self.torn {
            record.detail("torn_file", file.display().to_string());
            record.detail("torn_bytes", *bytes);
        }
        if let Some((found, written)) = self.missing {
            record.detail("last_found", found);
            record.detail("last_written", written);
        }
        record
    }
}

/// Finds the line to go on after, and moves a torn last line out of the way.
///
/// Where the checkpoint is ahead of the file, the chain goes on after the checkpoint: the gap that
/// this leaves is what `verify` then names, for good.
fn resume(file: &File, path: &Path, clock: &Clock) -> Result<(Checkpoint, Findings), AuditError> {
    let at = |cause: io::Error| AuditError::new(path, Cause::Io(cause));
    let tail = read_tail(file).map_err(at)?;
    let (whole, torn) = split_torn(&tail);
    let (head, headless) = load_head(path).map_err(at)?;
    let found = last_good(whole);
    if !is_audit_trail(whole, torn, found.or(head)) {
        return Err(AuditError::new(path, Cause::Foreign));
    }
    let (found, head) = (found.unwrap_or_default(), head.unwrap_or_default());
    let findings = Findings {
        torn: move_torn(file, path, clock, torn).map_err(at)?,
        missing: (head.seq > found.seq).then_some((found.seq, head.seq)),
        broken: (head.seq == found.seq && head != found) || !ends_with(whole, found),
        headless,
    };
    Ok((if head.seq >= found.seq { head } else { found }, findings))
}

fn read_tail(mut file: &File) -> io::Result<Vec<u8>> {
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    Ok(tail)
}

/// The lines that end, and what comes after the last end of line.
fn split_torn(tail: &[u8]) -> (&[u8], &[u8]) {
    let end = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    tail.split_at_checked(end).unwrap_or((tail, &[]))
}

/// The checkpoint, and whether there is one that cannot be read, as after a power cut.
fn load_head(path: &Path) -> io::Result<(Option<Checkpoint>, bool)> {
    match Checkpoint::load(&head_path(path)) {
        Ok(head) => Ok((head, false)),
        Err(error) if error.get_ref().is_some_and(|inner| inner.is::<serde_json::Error>()) => {
            Ok((None, true))
        }
        Err(error) => Err(error),
    }
}

fn last_good(whole: &[u8]) -> Option<Checkpoint> {
    lines_from_end(whole).find_map(|line| Some(Checkpoint::of_line(line).ok()?.0))
}

fn ends_with(whole: &[u8], found: Checkpoint) -> bool {
    match lines_from_end(whole).next() {
        Some(line) => Checkpoint::of_line(line).is_ok_and(|(last, _)| last == found),
        None => true,
    }
}

fn lines_from_end(whole: &[u8]) -> impl Iterator<Item = &[u8]> {
    let body = whole.strip_suffix(b"\n").unwrap_or_default();
    body.rsplit(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// Keeps us from appending to, or cutting, a file that is something else.
fn is_audit_trail(whole: &[u8], torn: &[u8], known: Option<Checkpoint>) -> bool {
    let begins_one = torn.starts_with(LINE_START) || LINE_START.starts_with(torn);
    torn.len() <= MAX_LINE && (known.is_some() || (whole.is_empty() && begins_one))
}

fn move_torn(
    mut file: &File,
    path: &Path,
    clock: &Clock,
    torn: &[u8],
) -> io::Result<Option<(PathBuf, usize)>> {
    if torn.is_empty() {
        return Ok(None);
    }
    let kept = with_suffix(path, &format!(".torn-{}", rfc3339_text(clock.unix_ms())));
    write_private(OpenOptions::new().create_new(true), &kept, torn)?.sync_all()?;
    let end = file.seek(SeekFrom::End(0))?;
    file.set_len(end.saturating_sub(torn.len() as u64))?;
    file.sync_all()?;
    Ok(Some((kept, torn.len())))
}

#[cfg(test)]
mod tests {
    use super::super::chain::{Chain, verify_file};
    use super::*;

    fn write_lines(path: &Path, count: usize) -> Vec<Vec<u8>> {
        let mut chain = Chain::default();
        let mut lines = Vec::new();
        for _ in 0..count {
            let record = AuditRecord::new(&Clock::system(), Operation::Inference, Status::Success);
            let mut line = Vec::new();
            chain.seal(&record, &mut line).unwrap();
            lines.push(line);
        }
        fs::write(path, lines.concat()).unwrap();
        fs::write(head_path(path), serde_json::to_vec(&chain.last()).unwrap()).unwrap();
        lines
    }

    /// Opens a trail of three lines after `harm` came to it: the reason reported, and where it goes on.
    fn check(name: &str, harm: impl Fn(&Path, &[Vec<u8>]), expected: &str, after: u64) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let lines = write_lines(&path, 3);
        harm(&path, &lines);
        let opened = Disk::open(&path, &Clock::system(), Fsync::Never).unwrap();
        assert_eq!((opened.report.reason, opened.last.seq), (Some(expected), after), "{name}");
        let mut next = Vec::new();
        Chain::after(opened.last).seal(&opened.report, &mut next).unwrap();
        opened.disk.append(&next).unwrap();
        verify_file(&path).is_ok()
    }

    #[test]
    fn a_trail_is_resumed() {
        assert!(check("as it was", |_, _| {}, "audit_opened", 3));
        let torn = |p: &Path, l: &[Vec<u8>]| fs::write(p, [&l.concat()[..], &l[0][..99]].concat());
        assert!(check("torn", |p, l| torn(p, l).unwrap(), "audit_torn_line_moved", 3));
        let behind = |p: &Path, l: &[Vec<u8>]| {
            let (first, _) = Checkpoint::of_line(l[0].strip_suffix(b"\n").unwrap()).unwrap();
            fs::write(head_path(p), serde_json::to_vec(&first).unwrap()).unwrap();
        };
        assert!(check("checkpoint behind", behind, "audit_opened", 3));
        let no_head = |p: &Path, _: &[Vec<u8>]| fs::remove_file(head_path(p)).unwrap();
        assert!(check("no checkpoint", no_head, "audit_opened", 3));
    }

    #[test]
    fn harm_is_reported_and_stays_visible() {
        let cut = |p: &Path, l: &[Vec<u8>]| fs::write(p, l[..2].concat()).unwrap();
        assert!(!check("tail cut", cut, "audit_truncated", 3));
        let gone = |p: &Path, _: &[Vec<u8>]| fs::remove_file(p).unwrap();
        assert!(!check("file gone", gone, "audit_truncated", 3));
        let edited = |p: &Path, l: &[Vec<u8>]| {
            fs::write(p, String::from_utf8(l.concat()).unwrap().replace("success", "failure"))
                .unwrap();
        };
        assert!(!check("all edited", edited, "audit_truncated", 3));
        let appended = |p: &Path, l: &[Vec<u8>]| {
            fs::write(p, [&l.concat()[..], b"{}\n"].concat()).unwrap();
        };
        assert!(!check("line added", appended, "audit_chain_broken", 3));
        let bad_head = |p: &Path, _: &[Vec<u8>]| fs::write(head_path(p), "{").unwrap();
        assert!(!check("bad head", bad_head, "audit_checkpoint_unreadable", 3));
    }

    #[test]
    fn a_torn_line_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        fs::write(&path, &LINE_START[..9]).unwrap();
        let opened = Disk::open(&path, &Clock::system(), Fsync::Batch).unwrap();
        let report = serde_json::to_value(&opened.report).unwrap();
        assert_eq!(report["metadata"]["torn_bytes"], 9);
        let kept = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let kept: Vec<_> = kept.filter(|p| p.to_string_lossy().contains(".torn-")).collect();
        assert_eq!(fs::read(&kept[0]).unwrap(), &LINE_START[..9]);
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn a_file_of_another_kind_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        for content in ["127.0.0.1 localhost\n", "no newline", "{\"level\":1}\n", "\n\n"] {
            fs::write(&path, content).unwrap();
            let error = Disk::open(&path, &Clock::system(), Fsync::Batch).unwrap_err();
            assert!(error.to_string().contains("is not an audit trail"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }
}
