use std::fs::{self, OpenOptions};
use std::io::Read as _;
use std::path::PathBuf;
use std::process::Command;

use super::super::chain::{head_path, verify_file};
use super::super::record::{Operation, Status};
use super::super::text::Text;
use super::*;

const SOON: Duration = Duration::from_secs(10);

struct Trail {
    dir: tempfile::TempDir,
    clock: Clock,
}

impl Trail {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), clock: Clock::system() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("audit.jsonl")
    }

    fn open(&self) -> AuditLog {
        AuditLog::open(&self.path(), self.clock.clone(), OnFailure::Deny).unwrap()
    }

    fn record(&self, id: &str) -> AuditRecord {
        let mut record = AuditRecord::new(&self.clock, Operation::Inference, Status::Success);
        record.request_id = Some(Text::new(id));
        record
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn reasons(&self) -> Vec<String> {
        self.lines().iter().filter_map(|l| Some(l["reason"].as_str()?.to_owned())).collect()
    }

    fn mkfifo(&self) {
        let made = Command::new("mkfifo").arg(self.path()).status().unwrap();
        assert!(made.success());
    }
}

#[test]
fn records_of_all_threads_are_there_in_a_whole_chain() {
    let (trail, threads, each) = (Trail::new(), 16, 1000);
    let log = trail.open();
    thread::scope(|scope| {
        for thread in 0..threads {
            let (log, trail) = (&log, &trail);
            scope.spawn(move || {
                for n in 0..each {
                    log.record(trail.record(&format!("{thread}-{n}")));
                    // Leaves room in the queue: running over is another test.
                    if n % 500 == 499 {
                        assert!(log.flush(SOON));
                    }
                }
            });
        }
    });
    assert!(log.flush(SOON));
    let counters = log.counters();
    assert_eq!((log.lost(), counters.failures(), counters.records()), (0, 0, 16_001));
    drop(log);
    let summary = verify_file(&trail.path()).unwrap();
    assert_eq!((summary.records, summary.checked_tail), (16_001, true));
    let ids: std::collections::HashSet<String> =
        trail.lines().iter().filter_map(|l| Some(l["request_id"].as_str()?.to_owned())).collect();
    assert_eq!(ids.len(), threads * each);
}

#[test]
fn a_trail_goes_on_over_restarts() {
    let trail = Trail::new();
    for n in 0..3 {
        let log = trail.open();
        log.record(trail.record(&n.to_string()));
    }
    assert_eq!(verify_file(&trail.path()).unwrap().records, 6);
    assert_eq!(trail.reasons(), ["audit_opened"; 3]);
}

#[test]
fn what_a_crash_tore_is_kept_and_told() {
    let trail = Trail::new();
    trail.open().record(trail.record("1"));
    let mut bytes = fs::read(trail.path()).unwrap();
    bytes.extend_from_slice(b"{\"timestamp\":\"2026");
    fs::write(trail.path(), bytes).unwrap();
    drop(trail.open());
    assert_eq!(verify_file(&trail.path()).unwrap().records, 3);
    assert_eq!(trail.reasons(), ["audit_opened", "audit_torn_line_moved"]);
}

#[test]
fn a_cut_tail_stays_visible() {
    let trail = Trail::new();
    trail.open().record(trail.record("1"));
    let text = fs::read_to_string(trail.path()).unwrap();
    fs::write(trail.path(), text.split_inclusive('\n').next().unwrap()).unwrap();
    assert_eq!(
        verify_file(&trail.path()).unwrap_err().to_string(),
        "line 2: the trail ends here, it went on to record 2"
    );
    drop(trail.open());
    assert_eq!(trail.reasons(), ["audit_opened", "audit_truncated"]);
    assert_eq!(
        verify_file(&trail.path()).unwrap_err().to_string(),
        "line 2: record 3 stands where record 2 belongs"
    );
}

#[test]
fn files_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let trail = Trail::new();
    drop(trail.open());
    for path in [trail.path(), head_path(&trail.path())] {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn a_file_has_one_writer() {
    let trail = Trail::new();
    let first = trail.open();
    let second = AuditLog::open(&trail.path(), Clock::system(), OnFailure::Allow);
    let error = second.unwrap_err().to_string();
    assert!(error.contains("is open in another process"), "{error}");
    drop(first);
    drop(trail.open());
}

#[test]
fn a_file_that_cannot_be_made_is_an_error() {
    for path in ["/proc/audit.jsonl", "/dev/null/audit.jsonl", "/no/such/directory/audit.jsonl"] {
        let error = AuditLog::open(Path::new(path), Clock::system(), OnFailure::Deny).unwrap_err();
        assert!(error.to_string().starts_with(&format!("audit file {path}: ")), "{error}");
    }
}

#[test]
fn a_full_disk_denies_or_is_counted() {
    for (policy, admitted) in [(OnFailure::Deny, false), (OnFailure::Allow, true)] {
        let trail = Trail::new();
        let log = AuditLog::open(Path::new("/dev/full"), trail.clock.clone(), policy).unwrap();
        assert!(!log.is_writable());
        assert_eq!(log.admit().is_ok(), admitted);
        assert!(log.counters().failures() > 0);
        log.record(trail.record("1"));
        assert!(!log.flush(Duration::from_millis(10)));
        assert_eq!(log.lost(), 0);
        let (counters, before) = (log.counters(), log.counters().failures());
        drop(log);
        assert!(counters.failures() >= before + 2, "the last two records are counted as lost");
        assert_eq!(counters.records(), 0);
    }
}

#[test]
fn a_refusal_is_a_503_that_may_be_retried() {
    let log = AuditLog::open(Path::new("/dev/full"), Clock::system(), OnFailure::Deny).unwrap();
    let denial = log.admit().unwrap_err();
    assert_eq!((denial.status(), denial.retry_after_secs()), (503, Some(1)));
    assert!(denial.reason().is_retryable());
}

#[test]
fn a_pipe_that_nobody_reads_hangs_nobody_and_recovers() {
    let trail = Trail::new();
    trail.mkfifo();
    let start = Instant::now();
    let log = trail.open();
    for n in 0..QUEUE + 10 {
        log.record(trail.record(&n.to_string()));
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(log.admit().is_err());
    assert_eq!((log.lost(), log.counters().failures()), (10, 10));

    let mut pipe = OpenOptions::new().read(true).open(trail.path()).unwrap();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).map(|_| text)
    });
    assert!(log.flush(SOON));
    assert!(wait_until(SOON, || log.is_writable()), "recovers without a restart");
    drop(log);
    let text = reader.join().unwrap().unwrap();
    assert_eq!(text.lines().count(), 1 + QUEUE + 1);
    assert!(text.contains("\"metadata\":{\"lost_records\":10}"), "the trail tells of its losses");
    assert!(super::super::chain::verify(text.as_bytes(), None).is_ok());
}

#[test]
fn a_reader_that_stalls_is_noticed() {
    let trail = Trail::new();
    trail.mkfifo();
    let mut pipe = OpenOptions::new().read(true).write(true).open(trail.path()).unwrap();
    let log = trail.open();
    assert!(log.is_writable());
    for n in 0..1000 {
        log.record(trail.record(&n.to_string())); // more than a pipe holds
    }
    assert!(wait_until(SOON, || !log.is_writable()), "stuck in a write");
    assert_eq!(log.lost(), 0);
    let reader = thread::spawn(move || std::io::copy(&mut pipe, &mut std::io::sink()));
    assert!(log.flush(SOON));
    assert!(wait_until(SOON, || log.is_writable()), "recovers without a restart");
    assert!(!reader.is_finished());
}

#[test]
fn an_outage_leaves_no_gap_in_the_chain() {
    let trail = Trail::new();
    trail.mkfifo();
    let reader = |trail: &Trail| OpenOptions::new().read(true).open(trail.path());
    thread::scope(|scope| {
        let first = scope.spawn(|| reader(&trail).unwrap());
        let log = trail.open();
        let mut first = first.join().unwrap();
        let mut head = vec![0; 65_536];
        let read = first.read(&mut head).unwrap();
        drop(first); // from here on every write fails
        log.record(trail.record("during"));
        assert!(wait_until(SOON, || !log.is_writable()));
        let mut second = reader(&trail).unwrap();
        assert!(log.flush(SOON));
        drop(log);
        let mut rest = Vec::new();
        second.read_to_end(&mut rest).unwrap();
        let whole = [&head[..read], &rest[..]].concat();
        let text = String::from_utf8(whole).unwrap();
        assert!(text.contains("\"reason\":\"audit_outage\""), "{text}");
        assert_eq!(super::super::chain::verify(text.as_bytes(), None).unwrap().records, 3);
    });
}

#[test]
fn the_registry_opens_a_file() {
    let trail = Trail::new();
    let (key, open) = super::super::SINKS[0];
    assert_eq!(key, "file");
    let sink = open(&trail.path(), trail.clock.clone(), Policy::default()).unwrap();
    sink.record(trail.record("1"));
    assert!(sink.flush(SOON));
    assert_eq!(trail.lines().len(), 2);
}
