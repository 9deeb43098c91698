//! The threads of an audit file: one appends batches, the other makes them durable.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SendError, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::AuditError;
use super::chain::{Chain, Checkpoint};
use super::disk::{Disk, Opened};
use super::file::{Fsync, State};
use super::record::{AuditRecord, Operation, Status};

/// A failed write or commit is tried again after this.
const RETRY: Duration = Duration::from_millis(200);

/// The shortest time between two commits: bounds what syncing costs under load.
const COMMIT_EVERY: Duration = Duration::from_millis(20);

/// While records keep coming, a batch gathers for this long: the thread is then woken once a batch
/// instead of once a record, which costs the async threads more than the record itself.
const GATHER: Duration = Duration::from_millis(1);

/// A batch is written when it has this many bytes, or nothing more waits.
const BATCH: usize = 256 * 1024;

/// The file that a writer is for.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) fsync: Fsync,
    pub(super) state: Arc<State>,
}

/// Opens the file, tells `ready`, and writes records until nobody can send any more.
pub(super) fn run(
    target: Target,
    ready: SyncSender<Result<(), AuditError>>,
    records: &Receiver<Box<AuditRecord>>,
) {
    let Some(opened) = open(&target, &ready) else { return };
    let handover = Arc::new(Handover::default());
    let disk = Arc::new(opened.disk);
    let committer = spawn_committer(&disk, &handover, &target.state);
    let mut writer = Writer {
        disk,
        chain: Chain::after(opened.last),
        batch: Vec::with_capacity(BATCH),
        sealed: 0,
        taken: 0,
        reported: 0,
        state: target.state,
        handover: Arc::clone(&handover),
    };
    writer.seal(&opened.report);
    let outage = writer.try_write().is_err();
    drop(ready.send(Ok(())));
    if writer.finish_batch(outage) {
        writer.serve(records);
    }
    writer.give_up(records);
    handover.close();
    if committer.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("the audit committer panicked");
    }
}

/// Opens the file. An error is for who waits for `ready`; if nobody does any more, it is retried.
fn open(target: &Target, ready: &SyncSender<Result<(), AuditError>>) -> Option<Opened> {
    loop {
        match Disk::open(&target.path, &target.state.clock, target.fsync) {
            Ok(opened) => return Some(opened),
            Err(error) => match ready.send(Err(error)) {
                Err(SendError(Err(error))) => target.state.write_failed_with(&error),
                Err(SendError(Ok(()))) | Ok(()) => return None,
            },
        }
        if target.state.is_closing() {
            return None;
        }
        thread::sleep(RETRY);
    }
}

#[derive(Debug)]
struct Writer {
    disk: Arc<Disk>,
    chain: Chain,
    /// Lines that are not yet in the file.
    batch: Vec<u8>,
    /// How many lines were added to the batch.
    sealed: u64,
    /// Records taken from the queue since the start.
    taken: u64,
    /// Losses that the trail itself tells of.
    reported: u64,
    state: Arc<State>,
    handover: Arc<Handover>,
}

impl Writer {
    fn serve(&mut self, records: &Receiver<Box<AuditRecord>>) {
        let mut last = Instant::now();
        while let Ok(first) = records.recv() {
            if last.elapsed() < GATHER {
                thread::sleep(GATHER);
            }
            self.take(&first);
            while self.batch.len() < BATCH
                && let Ok(next) = records.try_recv()
            {
                self.take(&next);
            }
            if !self.finish_batch(false) {
                return;
            }
            last = Instant::now();
        }
    }

    fn take(&mut self, record: &AuditRecord) {
        self.taken += 1;
        self.seal(record);
    }

    fn seal(&mut self, record: &AuditRecord) {
        match self.chain.seal(record, &mut self.batch) {
            Ok(()) => self.sealed += 1,
            Err(error) => {
                tracing::error!(%error, "an audit record has no JSON form");
                self.state.lose(1);
            }
        }
    }

    /// Tries until the batch is in the file; after an outage or losses the trail tells of them.
    ///
    /// False if the log was closed before that.
    fn finish_batch(&mut self, mut outage: bool) -> bool {
        loop {
            while self.try_write().is_err() {
                outage = true;
                if self.state.is_closing() {
                    return false;
                }
                thread::sleep(RETRY);
            }
            self.state.write_failed.store(false, Ordering::Relaxed);
            let lost = self.state.lost.load(Ordering::Relaxed);
            if !outage && lost == self.reported {
                return true;
            }
            self.report_outage(lost);
            outage = false;
        }
    }

    /// One attempt: writes until the batch is empty or an error comes up.
    fn try_write(&mut self) -> Result<(), ()> {
        while !self.batch.is_empty() {
            self.state.busy();
            let written = self.disk.append(&self.batch);
            self.state.idle();
            match written {
                Ok(bytes) => drop(self.batch.drain(..bytes.min(self.batch.len()))),
                Err(error) => self.failed(&error)?,
            }
        }
        self.state.counters.write(self.sealed);
        self.sealed = 0;
        self.handover.put(Written { last: self.chain.last(), taken: self.taken });
        Ok(())
    }

    fn failed(&self, error: &std::io::Error) -> Result<(), ()> {
        if error.kind() == std::io::ErrorKind::Interrupted {
            return Ok(());
        }
        self.state.write_failed_with(error);
        Err(())
    }

    fn report_outage(&mut self, lost: u64) {
        tracing::warn!(lost = lost - self.reported, "the audit trail can be written again");
        let mut record = AuditRecord::new(&self.state.clock, Operation::Incident, Status::Failure);
        record.reason = Some("audit_outage");
        record.detail("lost_records", lost - self.reported);
        self.reported = lost;
        self.seal(&record);
    }

    /// Counts what will not be written any more.
    fn give_up(&mut self, records: &Receiver<Box<AuditRecord>>) {
        let waiting = u64::try_from(records.try_iter().count()).unwrap_or(u64::MAX);
        self.state.lose(self.sealed.saturating_add(waiting));
    }
}

/// What was written and is to be made durable.
#[derive(Clone, Copy, Debug)]
struct Written {
    last: Checkpoint,
    taken: u64,
}

/// Passes the latest of what was written from the writer to the committer.
#[derive(Debug, Default)]
struct Handover {
    slot: Mutex<Slot>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Slot {
    latest: Option<Written>,
    closed: bool,
}

impl Handover {
    fn put(&self, written: Written) {
        self.lock().latest = Some(written);
        self.changed.notify_one();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits for something to commit; none after the end.
    fn take(&self) -> Option<Written> {
        let waiting = |slot: &mut Slot| slot.latest.is_none() && !slot.closed;
        let slot = self.changed.wait_while(self.lock(), waiting);
        slot.unwrap_or_else(PoisonError::into_inner).latest.take()
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn_committer(
    disk: &Arc<Disk>,
    handover: &Arc<Handover>,
    state: &Arc<State>,
) -> Option<thread::JoinHandle<()>> {
    let (disk, handover, shared) = (Arc::clone(disk), Arc::clone(handover), Arc::clone(state));
    let spawned = thread::Builder::new()
        .name("audit-commit".to_owned())
        .spawn(move || commit_all(&disk, &handover, &shared));
    if let Err(error) = &spawned {
        tracing::error!(%error, "no thread to commit the audit trail");
        state.sync_failed.store(true, Ordering::Relaxed);
    }
    spawned.ok()
}

fn commit_all(disk: &Disk, handover: &Handover, state: &State) {
    while let Some(written) = handover.take() {
        while let Err(error) = disk.commit(written.last) {
            state.counters.fail(1);
            if !state.sync_failed.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "the audit trail cannot be made durable, retrying");
            }
            if state.is_closing() {
                return;
            }
            thread::sleep(RETRY);
        }
        state.sync_failed.store(false, Ordering::Relaxed);
        state.settled.store(written.taken, Ordering::Release);
        thread::sleep(COMMIT_EVERY);
    }
}
