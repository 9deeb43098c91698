//! The password check itself: a bounded queue, threads of its own, the same work for every refusal.
//!
//! A check costs tens to hundreds of milliseconds and 19 to 128 MiB, so only a few run at a time and
//! only a few wait. They run on threads of the lowest priority, which stay: logins take what
//! inference leaves, where a new thread would get a first slice of its processor like any other, and
//! one of a shared pool could not give its low priority back.

use std::borrow::Cow;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use secrecy::SecretString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::password::{Decoy, Memory, PasswordError, PasswordHash, Profile};
use super::store::User;
use crate::verdict::{Denial, Reason};

/// When the queue is full, it has moved on after this time.
const QUEUE_RETRY: Duration = Duration::from_secs(5);

/// Without a job for so long a thread gives its memory back.
const IDLE: Duration = Duration::from_secs(1);

/// The weakest claim on a processor that there is.
#[cfg(target_os = "linux")]
const LOWEST_PRIORITY: i32 = 19;

/// Checks and makes hashes, a bounded number at a time.
#[derive(Debug)]
pub(super) struct Examiner {
    /// Attempts inside, waiting or being checked.
    places: Arc<Semaphore>,
    /// Attempts being checked.
    turns: Arc<Semaphore>,
    /// As costly as the costliest hash that was seen.
    decoy: Mutex<Decoy>,
    /// As many threads take these as there are turns, so no job waits long.
    jobs: Sender<Job>,
    work: AtomicU64,
}

/// What a thread is to do, with memory that it has from the job before.
type Job = Box<dyn FnOnce(&mut Memory) + Send>;

impl Examiner {
    /// Every refusal costs at least what a new hash of the profile does.
    ///
    /// # Errors
    /// [`PasswordError::Hashing`] if the machine has no threads to give.
    pub(super) fn new(
        concurrent: usize,
        queue: usize,
        profile: Profile,
    ) -> Result<Self, PasswordError> {
        let turns = concurrent.clamp(1, Semaphore::MAX_PERMITS);
        let places = turns.saturating_add(queue).min(Semaphore::MAX_PERMITS);
        Ok(Self {
            jobs: start(turns).map_err(|_| PasswordError::Hashing)?,
            places: Arc::new(Semaphore::new(places)),
            turns: Arc::new(Semaphore::new(turns)),
            decoy: Mutex::new(Decoy::new([], profile)?),
            work: AtomicU64::new(0),
        })
    }

    /// Waits for a turn; over the cap there is no waiting.
    pub(super) async fn turn(&self) -> Result<Turn, Denial> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| queue_full())?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| queue_full())?;
        Ok(Turn { _permits: Arc::new((place, turn)) })
    }

    /// The user, if the password is theirs and they may log in with it. A refusal has the same text
    /// and work whatever it is for; only the operator's detail tells.
    pub(super) async fn examine(
        &self,
        turn: &Turn,
        user: Option<User>,
        password: SecretString,
    ) -> Result<User, Denial> {
        let subject = Subject::of(user);
        subject.hash().into_iter().for_each(|hash| self.cover(hash));
        let decoy = self.decoy().clone();
        let examined = self.run(turn, move |memory| subject.examine(&decoy, &password, memory));
        let examined = examined.await?;
        let (found, work) = examined.map_err(|error| broken(error.to_string()))?;
        self.work.fetch_add(work, Ordering::Relaxed);
        found.map_err(|why| {
            Denial::new(Reason::InvalidCredentials, "invalid username or password").detail(why)
        })
    }

    /// Runs on one of the threads, which keeps the turn: it is busy until the work is done, even if
    /// the client has gone.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        turn: &Turn,
        work: impl FnOnce(&mut Memory) -> T + Send + 'static,
    ) -> Result<T, Denial> {
        let turn = turn.clone();
        let (tell, told) = oneshot::channel();
        let job = move |memory: &mut Memory| {
            let done = work(memory);
            drop(turn);
            // Nobody may be waiting any more.
            drop(tell.send(done));
        };
        let broken_off = || broken("the password check was broken off");
        self.jobs.send(Box::new(job)).map_err(|_| broken_off())?;
        told.await.map_err(|_| broken_off())
    }

    /// From now on every refusal costs at least what a check of this hash does.
    pub(super) fn cover(&self, hash: &PasswordHash) {
        self.decoy().cover(hash);
    }

    /// Argon2 work of all checks that were answered, in KiB filled.
    pub(super) fn work(&self) -> u64 {
        self.work.load(Ordering::Relaxed)
    }

    fn decoy(&self) -> MutexGuard<'_, Decoy> {
        lock(&self.decoy)
    }
}

/// Starts the threads. They end when nobody can give them jobs any more.
fn start(threads: usize) -> io::Result<Sender<Job>> {
    let (give, jobs) = mpsc::channel();
    let jobs = Arc::new(Mutex::new(jobs));
    for _ in 0..threads {
        let jobs = Arc::clone(&jobs);
        std::thread::Builder::new().name("password".to_owned()).spawn(move || serve(&jobs))?;
    }
    Ok(give)
}

fn serve(jobs: &Mutex<Receiver<Job>>) {
    yield_to_all_others();
    let mut memory = Memory::default();
    loop {
        let next = lock(jobs).recv_timeout(IDLE);
        match next {
            // A job that panics tells nobody anything, by which its caller knows.
            Ok(job) => drop(catch_unwind(AssertUnwindSafe(|| job(&mut memory)))),
            Err(RecvTimeoutError::Timeout) => memory = Memory::default(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place in the queue and the turn to work, free again when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Turn {
    _permits: Arc<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Turn")
    }
}

/// Who was found under the name, and what there is to check.
enum Subject {
    /// Someone who is let in with the right password.
    Candidate(Box<User>, PasswordHash),
    /// Someone, or nobody, who is not let in; and why.
    Barred(&'static str, Option<PasswordHash>),
}

impl Subject {
    fn of(user: Option<User>) -> Self {
        let Some(user) = user else {
            return Self::Barred("unknown user", None);
        };
        let Some(text) = &user.password_hash else {
            return Self::Barred("user has no password", None);
        };
        match PasswordHash::parse(text) {
            Err(_) => Self::Barred("the stored password hash cannot be used", None),
            Ok(hash) if user.disabled => Self::Barred("account is disabled", Some(hash)),
            Ok(hash) => Self::Candidate(Box::new(user), hash),
        }
    }

    const fn hash(&self) -> Option<&PasswordHash> {
        match self {
            Self::Candidate(_, hash) => Some(hash),
            Self::Barred(_, hash) => hash.as_ref(),
        }
    }

    /// What was found, and the work that it took.
    fn examine(
        self,
        decoy: &Decoy,
        password: &SecretString,
        memory: &mut Memory,
    ) -> Result<(Found, u64), PasswordError> {
        match self {
            Self::Candidate(user, hash) => examine_candidate(*user, &hash, decoy, password, memory),
            Self::Barred(why, Some(hash)) => {
                black_box(hash.verify(password, memory)?);
                Ok((Err(why), hash.work() + decoy.top_up(&hash, password, memory)?))
            }
            Self::Barred(why, None) => Ok((Err(why), decoy.stand_in(password, memory)?)),
        }
    }
}

/// The user, or why not.
type Found = Result<User, &'static str>;

/// Only those who are surely let in are spared the rest of the work: with a second factor the right
/// password may yet be refused.
fn examine_candidate(
    user: User,
    hash: &PasswordHash,
    decoy: &Decoy,
    password: &SecretString,
    memory: &mut Memory,
) -> Result<(Found, u64), PasswordError> {
    let matches = hash.verify(password, memory)?;
    let rest = if matches && !user.mfa { 0 } else { decoy.top_up(hash, password, memory)? };
    let found = if matches { Ok(user) } else { Err("wrong password") };
    Ok((found, hash.work() + rest))
}

/// Lets everything else go first; where that is not to be had the check is as important as the rest.
/// On Linux the priority is a thread's own.
#[cfg(target_os = "linux")]
fn yield_to_all_others() {
    if let Err(error) = rustix::process::setpriority_process(None, LOWEST_PRIORITY) {
        tracing::debug!(%error, "password checks run with the usual priority");
    }
}

#[cfg(not(target_os = "linux"))]
const fn yield_to_all_others() {}

/// The machine failed, not the caller.
pub(super) fn broken(detail: impl Into<Cow<'static, str>>) -> Denial {
    Denial::new(Reason::Internal, "the password could not be checked").detail(detail)
}

fn queue_full() -> Denial {
    Denial::new(Reason::Overloaded, "too many logins at this time, try again later")
        .detail("login queue is full")
        .retry_after(QUEUE_RETRY)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::super::AccountRole;
    use super::super::password::hash;
    use super::super::store::Source;
    use super::*;

    const RIGHT: &str = "correct horse battery";
    /// Of another password, and costlier than a new hash of the default profile.
    const DEAR: &str = "$argon2id$v=19$m=32768,t=3,p=4$c29tc2FsdHNvbWVzYWx0$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    fn examiner(concurrent: usize, queue: usize) -> Examiner {
        Examiner::new(concurrent, queue, Profile::Owasp).unwrap()
    }

    fn right() -> String {
        hash(&RIGHT.into(), Profile::Owasp).unwrap()
    }

    fn user(password_hash: Option<&str>) -> User {
        User {
            name: "alice".into(),
            role: AccountRole::User,
            password_hash: password_hash.map(str::to_owned),
            disabled: false,
            source: Source::Store,
            mfa: false,
            epoch: 1,
            created_at: 0,
            created_by: "root".into(),
            last_login_at: None,
        }
    }

    async fn examine(
        examiner: &Examiner,
        user: Option<User>,
        password: &str,
    ) -> Result<User, Denial> {
        let turn = examiner.turn().await?;
        examiner.examine(&turn, user, password.into()).await
    }

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn the_right_password_gives_the_user() {
        let alice = user(Some(&right()));
        let found = examine(&examiner(1, 1), Some(alice.clone()), RIGHT).await;
        assert_eq!(found, Ok(alice));
    }

    #[tokio::test]
    async fn refusals_differ_for_the_operator_only_and_cost_the_same() {
        let (examiner, right) = (examiner(1, 1), right());
        let dear = PasswordHash::parse(DEAR).unwrap();
        examiner.cover(&dear);
        let disabled = |hash: &str| User { disabled: true, ..user(Some(hash)) };
        let cases = [
            (Some(user(Some(&right))), "wrong", "wrong password"),
            (Some(user(Some(&right))), "", "wrong password"),
            (Some(user(Some(DEAR))), "wrong", "wrong password"),
            (Some(disabled(&right)), RIGHT, "account is disabled"),
            (Some(disabled(&right)), "wrong", "account is disabled"),
            (Some(disabled(DEAR)), "wrong", "account is disabled"),
            (Some(user(None)), RIGHT, "user has no password"),
            (Some(user(Some("plain"))), "plain", "the stored password hash cannot be used"),
            (None, RIGHT, "unknown user"),
        ];
        for (user, password, detail) in cases {
            let before = examiner.work();
            let denial = examine(&examiner, user, password).await.unwrap_err();
            assert_eq!(denial.operator_detail(), detail);
            let work = examiner.work() - before;
            assert!(work.abs_diff(dear.work()) <= 3, "{detail}: {work} KiB");
            let same = Denial::new(Reason::InvalidCredentials, "invalid username or password");
            assert_eq!(denial.detail(""), same);
        }
    }

    #[tokio::test]
    async fn the_right_password_costs_all_when_a_code_may_yet_be_refused() {
        let (examiner, right) = (examiner(1, 1), right());
        let dear = PasswordHash::parse(DEAR).unwrap();
        examiner.cover(&dear);
        let cheap = PasswordHash::parse(&right).unwrap().work();
        for (mfa, cost) in [(false, cheap), (true, dear.work())] {
            let before = examiner.work();
            let alice = User { mfa, ..user(Some(&right)) };
            assert!(examine(&examiner, Some(alice), RIGHT).await.is_ok());
            assert!((examiner.work() - before).abs_diff(cost) <= 3, "mfa: {mfa}");
        }
    }

    #[tokio::test]
    async fn the_decoy_follows_the_costliest_hash_it_has_met() {
        let examiner = examiner(1, 1);
        let mut costs = Vec::new();
        for found in [None, Some(user(Some(DEAR))), None] {
            let before = examiner.work();
            examine(&examiner, found, "wrong").await.unwrap_err();
            costs.push(examiner.work() - before);
        }
        assert_eq!(costs, [19456 * 2, 32768 * 3, 32768 * 3]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_client_that_left_frees_its_place() {
        let examiner = examiner(1, 1);
        let busy = examiner.turn().await.unwrap();
        let mut waiting = Box::pin(examiner.turn());
        assert!(poll(waiting.as_mut()).is_pending());
        let refused = examiner.turn().await.unwrap_err();
        assert_eq!((refused.reason(), refused.retry_after_secs()), (Reason::Overloaded, Some(5)));
        drop(waiting);
        let mut next = pin!(examiner.turn());
        assert!(poll(next.as_mut()).is_pending());
        drop(busy);
        assert!(next.await.is_ok());
    }

    #[tokio::test]
    async fn a_check_that_began_keeps_its_turn_when_the_client_leaves() {
        let examiner = examiner(1, 0);
        let mut gone = Box::pin(examine(&examiner, None, "wrong"));
        assert!(poll(gone.as_mut()).is_pending());
        drop(gone);
        assert_eq!(examiner.turn().await.unwrap_err().reason(), Reason::Overloaded);
        drop(examiner.turns.acquire().await.unwrap());
        while examiner.places.available_permits() == 0 {
            tokio::task::yield_now().await; // the two permits are given back one after the other
        }
        assert!(examiner.turn().await.is_ok());
    }

    #[tokio::test]
    async fn work_that_breaks_off_is_an_internal_error() {
        let examiner = examiner(1, 0);
        let turn = examiner.turn().await.unwrap();
        let denial = examiner.run(&turn, |_| panic!("as a defect would")).await.unwrap_err();
        assert_eq!(denial.reason(), Reason::Internal);
        assert_eq!(examiner.run(&turn, |_| 7).await, Ok(7), "the thread goes on");
        drop(turn);
        assert!(examiner.turn().await.is_ok(), "its turn is free again");
    }
}
