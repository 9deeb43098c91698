//! The login desk: where passwords are checked, with a bounded queue before it.
//!
//! A check costs tens to hundreds of milliseconds and 19 to 128 MiB, so only a few run at a time,
//! on the blocking pool, and only a few wait. An unknown user, a wrong password and a disabled
//! account get the same answer after the same work (ASVS 6.3.8).

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::password::{Decoy, MAX_BYTES, PasswordError, PasswordHash};
use super::throttle::{Origin, Throttle};
use crate::clock::Clock;
use crate::verdict::{Denial, Reason};

/// When the queue is full, it has moved on after this time.
const QUEUE_RETRY: Duration = Duration::from_secs(5);

/// The bounds of a [`LoginDesk`].
#[derive(Clone, Copy, Debug)]
pub struct LoginLimits {
    /// Checks that run at one time, at least 1.
    pub concurrent: usize,
    /// Attempts that wait for one.
    pub queue: usize,
    /// Failures of one account from one address in a window, and tenfold of one address.
    pub max_failures: u32,
    /// The window, and how long the first lock lasts.
    pub window: Duration,
}

/// What was found under the name that the caller gave.
#[derive(Clone, Copy, Debug)]
pub enum Account<'a> {
    /// A user who may log in.
    Active(&'a PasswordHash),
    /// A user who may not; answered like a wrong password.
    Disabled(&'a PasswordHash),
    /// Nobody; answered like a wrong password.
    Unknown,
}

/// One attempt to log in.
pub struct Attempt<'a> {
    /// The name as the account was looked up: it counts failures, so spellings that find the same
    /// account must arrive here as one.
    pub username: &'a str,
    /// What the name led to.
    pub account: Account<'a>,
    /// The decoy of all users of whom this one was looked up.
    pub decoy: &'a Decoy,
    /// What the caller presented.
    pub password: SecretString,
    /// Where the caller is.
    pub client: IpAddr,
}

impl fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt").field("client", &self.client).finish_non_exhaustive()
    }
}

/// Checks passwords, a bounded number at a time.
#[derive(Debug)]
pub struct LoginDesk {
    clock: Clock,
    throttle: Arc<Throttle>,
    /// Attempts inside, waiting or being checked.
    places: Arc<Semaphore>,
    /// Attempts being checked.
    turns: Arc<Semaphore>,
    work: AtomicU64,
}

impl LoginDesk {
    /// An empty desk.
    #[must_use]
    pub fn new(clock: Clock, limits: LoginLimits) -> Self {
        let turns = limits.concurrent.clamp(1, Semaphore::MAX_PERMITS);
        let places = turns.saturating_add(limits.queue).min(Semaphore::MAX_PERMITS);
        Self {
            clock,
            throttle: Arc::new(Throttle::new(limits.max_failures, limits.window)),
            places: Arc::new(Semaphore::new(places)),
            turns: Arc::new(Semaphore::new(turns)),
            work: AtomicU64::new(0),
        }
    }

    /// Checks one attempt. Dropping the future gives its place in the queue back; a check that has
    /// begun runs to its end and counts.
    ///
    /// # Errors
    /// - [`Reason::InvalidRequest`] for a password over 512 bytes, before anything is hashed;
    /// - [`Reason::RateLimitExceeded`] after too many failures, also for the right password;
    /// - [`Reason::Overloaded`] when the queue is full;
    /// - [`Reason::InvalidCredentials`] with the same text whether the user is unknown or disabled
    ///   or the password wrong; only the operator's detail tells;
    /// - [`Reason::Internal`] if the machine lacks memory.
    pub async fn check(&self, attempt: Attempt<'_>) -> Result<(), Denial> {
        refuse_oversized(&attempt.password)?;
        let origin = self.throttle.origin(attempt.username, attempt.client);
        self.throttle.admit(origin, self.now()).map_err(throttled)?;
        let held = self.queue().await?;
        self.throttle.charge(origin, self.now()).map_err(throttled)?;
        self.examine(Exam::of(attempt), origin, held).await
    }

    /// Argon2 work of all checks that were answered, in KiB filled: the same for every refusal.
    #[must_use]
    pub fn work(&self) -> u64 {
        self.work.load(Ordering::Relaxed)
    }

    /// Waits for a turn; over the cap there is no waiting.
    async fn queue(&self) -> Result<Held, Denial> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| overloaded())?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| overloaded())?;
        Ok(Held { _place: place, _turn: turn })
    }

    /// The permits go along to the blocking thread: it is busy until the check is done, even if
    /// the client has gone. The outcome is booked before the next attempt gets its turn.
    async fn examine(&self, exam: Exam, origin: Origin, held: Held) -> Result<(), Denial> {
        let throttle = Arc::clone(&self.throttle);
        let checked = spawn_blocking(move || {
            let outcome = exam.take();
            match outcome {
                Ok((Finding::Granted, _)) => throttle.forgive(origin),
                Ok(_) => {}
                Err(_) => throttle.refund(origin),
            }
            drop(held);
            outcome
        });
        let done = checked.await.map_err(|_| internal("the password check was broken off"))?;
        let (finding, work) = done.map_err(|error| internal(error.to_string()))?;
        self.work.fetch_add(work, Ordering::Relaxed);
        finding.verdict()
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.clock.monotonic_ns())
    }
}

/// A place at the desk and the turn to use it; both are free again when this is dropped.
struct Held {
    _place: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

/// What a check found out.
#[derive(Clone, Copy)]
enum Finding {
    Granted,
    WrongPassword,
    Disabled,
    Unknown,
}

impl Finding {
    fn verdict(self) -> Result<(), Denial> {
        let detail = match self {
            Self::Granted => return Ok(()),
            Self::WrongPassword => "wrong password",
            Self::Disabled => "account is disabled",
            Self::Unknown => "unknown user",
        };
        Err(Denial::new(Reason::InvalidCredentials, "invalid username or password").detail(detail))
    }
}

/// A check that owns all it needs, for the blocking thread.
struct Exam {
    hash: Option<PasswordHash>,
    enabled: bool,
    decoy: Decoy,
    password: SecretString,
}

impl Exam {
    fn of(attempt: Attempt<'_>) -> Self {
        let (hash, enabled) = match attempt.account {
            Account::Active(hash) => (Some(hash.clone()), true),
            Account::Disabled(hash) => (Some(hash.clone()), false),
            Account::Unknown => (None, false),
        };
        Self { hash, enabled, decoy: attempt.decoy.clone(), password: attempt.password }
    }

    /// The finding and the work that it took, which is the same for all but [`Finding::Granted`].
    fn take(&self) -> Result<(Finding, u64), PasswordError> {
        let Some(hash) = &self.hash else {
            return Ok((Finding::Unknown, self.decoy.stand_in(&self.password)?));
        };
        let matches = hash.verify(&self.password)?;
        if matches && self.enabled {
            return Ok((Finding::Granted, hash.work()));
        }
        let finding = if self.enabled { Finding::WrongPassword } else { Finding::Disabled };
        Ok((finding, hash.work() + self.decoy.top_up(hash, &self.password)?))
    }
}

fn refuse_oversized(password: &SecretString) -> Result<(), Denial> {
    if password.expose_secret().len() <= MAX_BYTES {
        return Ok(());
    }
    Err(Denial::new(Reason::InvalidRequest, "password is longer than 512 bytes").param("password"))
}

fn throttled(wait: Duration) -> Denial {
    Denial::new(Reason::RateLimitExceeded, "too many failed logins, try again later")
        .detail("login throttled")
        .retry_after(wait)
}

fn overloaded() -> Denial {
    Denial::new(Reason::Overloaded, "too many logins at this time, try again later")
        .detail("login queue is full")
        .retry_after(QUEUE_RETRY)
}

fn internal(detail: impl Into<Cow<'static, str>>) -> Denial {
    Denial::new(Reason::Internal, "the password could not be checked").detail(detail)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::super::password::{Profile, hash};
    use super::*;

    const RIGHT: &str = "correct horse battery";

    struct Bench {
        desk: LoginDesk,
        clock: Clock,
        hash: PasswordHash,
        decoy: Decoy,
    }

    impl Bench {
        fn new(concurrent: usize, queue: usize, max_failures: u32) -> Self {
            let clock = Clock::system();
            let hash = PasswordHash::parse(&hash(&RIGHT.into(), Profile::Owasp).unwrap()).unwrap();
            let decoy = Decoy::new([&hash], Profile::Owasp).unwrap();
            let window = Duration::from_secs(900);
            let limits = LoginLimits { concurrent, queue, max_failures, window };
            Self { desk: LoginDesk::new(clock.clone(), limits), clock, hash, decoy }
        }

        fn attempt<'a>(&'a self, account: Account<'a>, password: &str) -> Attempt<'a> {
            let (password, client) = (password.into(), [10, 0, 0, 1].into());
            Attempt { username: "alice", account, decoy: &self.decoy, password, client }
        }

        async fn check(&self, account: Account<'_>, password: &str) -> Result<(), Denial> {
            self.desk.check(self.attempt(account, password)).await
        }

        async fn active(&self, password: &str) -> Result<(), Denial> {
            self.check(Account::Active(&self.hash), password).await
        }
    }

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn the_right_password_is_let_in() {
        assert_eq!(Bench::new(1, 1, 10).active(RIGHT).await, Ok(()));
    }

    #[tokio::test]
    async fn refusals_differ_for_the_operator_only() {
        let bench = Bench::new(1, 1, 10);
        let cases = [
            (Account::Active(&bench.hash), "wrong", "wrong password"),
            (Account::Disabled(&bench.hash), RIGHT, "account is disabled"),
            (Account::Disabled(&bench.hash), "wrong", "account is disabled"),
            (Account::Unknown, RIGHT, "unknown user"),
            (Account::Unknown, "", "unknown user"),
        ];
        for (account, password, detail) in cases {
            let denial = bench.check(account, password).await.unwrap_err();
            assert_eq!(denial.operator_detail(), detail);
            let public = denial.detail("");
            assert_eq!(
                public,
                Denial::new(Reason::InvalidCredentials, "invalid username or password")
            );
        }
    }

    #[tokio::test]
    async fn every_refusal_costs_the_same_work() {
        let bench = Bench::new(1, 1, 100);
        let dear = "$argon2id$v=19$m=32768,t=3,p=4$c29tc2FsdHNvbWVzYWx0$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let dear = PasswordHash::parse(dear).unwrap();
        let decoy = Decoy::new([&bench.hash, &dear], Profile::Owasp).unwrap();
        let cases = [
            (Account::Unknown, RIGHT),
            (Account::Active(&bench.hash), "wrong"),
            (Account::Active(&dear), "wrong"),
            (Account::Disabled(&bench.hash), RIGHT),
            (Account::Disabled(&dear), "wrong"),
        ];
        for (account, password) in cases {
            let before = bench.desk.work();
            let attempt = Attempt { decoy: &decoy, ..bench.attempt(account, password) };
            bench.desk.check(attempt).await.unwrap_err();
            let work = bench.desk.work() - before;
            assert!(work.abs_diff(dear.work()) <= 3, "{account:?}: {work} KiB");
        }
    }

    #[tokio::test]
    async fn more_than_512_bytes_are_never_hashed() {
        let bench = Bench::new(1, 1, 1);
        for (bytes, reason, hashed) in [
            (513, Reason::InvalidRequest, false),
            (1 << 20, Reason::InvalidRequest, false),
            (512, Reason::InvalidCredentials, true),
        ] {
            let denial = bench.active(&"a".repeat(bytes)).await.unwrap_err();
            assert_eq!((denial.reason(), bench.desk.work() > 0), (reason, hashed), "{bytes} bytes");
        }
    }

    #[tokio::test]
    async fn after_too_many_failures_the_right_password_waits_too() {
        let bench = Bench::new(1, 1, 3);
        for _ in 0..3 {
            assert_eq!(
                bench.active("wrong").await.unwrap_err().reason(),
                Reason::InvalidCredentials
            );
        }
        let work = bench.desk.work();
        let denial = bench.active(RIGHT).await.unwrap_err();
        assert_eq!(denial.reason(), Reason::RateLimitExceeded);
        assert!((890..=900).contains(&denial.retry_after_secs().unwrap()));
        assert_eq!(bench.desk.work(), work, "a throttled attempt hashes nothing");
        bench.clock.advance(Duration::from_secs(901));
        assert_eq!(bench.active(RIGHT).await, Ok(()));
    }

    #[tokio::test]
    async fn an_unknown_name_is_throttled_like_a_known_one() {
        let bench = Bench::new(1, 1, 2);
        let mut reasons = Vec::new();
        for _ in 0..3 {
            reasons.push(bench.check(Account::Unknown, "x").await.unwrap_err().reason());
        }
        use Reason::{InvalidCredentials as Wrong, RateLimitExceeded as Throttled};
        assert_eq!(reasons, [Wrong, Wrong, Throttled]);
    }

    #[tokio::test]
    async fn a_success_forgets_earlier_failures() {
        let bench = Bench::new(1, 1, 2);
        for _ in 0..3 {
            assert!(bench.active("wrong").await.is_err());
            assert_eq!(bench.active(RIGHT).await, Ok(()));
        }
    }

    #[tokio::test]
    async fn parallel_guesses_never_overshoot() {
        let bench = Bench::new(4, 32, 5);
        let guesses: Vec<_> = (0..20).map(|_| Box::pin(bench.active("wrong"))).collect();
        let mut reasons = Vec::new();
        for guess in in_parallel(guesses).await {
            reasons.push(guess.unwrap_err().reason());
        }
        assert_eq!(reasons.iter().filter(|r| **r == Reason::InvalidCredentials).count(), 5);
        assert_eq!(reasons.iter().filter(|r| **r == Reason::RateLimitExceeded).count(), 15);
    }

    #[tokio::test]
    async fn parallel_logins_with_the_right_password_all_pass() {
        let bench = Bench::new(1, 32, 2);
        let logins: Vec<_> = (0..12).map(|_| Box::pin(bench.active(RIGHT))).collect();
        assert!(in_parallel(logins).await.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_client_that_left_frees_its_place() {
        let bench = Bench::new(1, 1, 10);
        let busy = bench.desk.queue().await.unwrap();
        let mut waiting = Box::pin(bench.active(RIGHT));
        assert!(poll(waiting.as_mut()).is_pending());
        let refused = bench.active(RIGHT).await.unwrap_err();
        assert_eq!((refused.reason(), refused.retry_after_secs()), (Reason::Overloaded, Some(5)));
        drop(waiting);
        let mut next = pin!(bench.active(RIGHT));
        assert!(poll(next.as_mut()).is_pending());
        drop(busy);
        assert_eq!(next.await, Ok(()));
    }

    #[tokio::test]
    async fn a_check_that_began_keeps_its_turn_when_the_client_leaves() {
        let bench = Bench::new(1, 0, 10);
        let mut gone = Box::pin(bench.active("wrong"));
        assert!(poll(gone.as_mut()).is_pending());
        drop(gone);
        assert_eq!(bench.active(RIGHT).await.unwrap_err().reason(), Reason::Overloaded);
        let turn = bench.desk.turns.acquire().await.unwrap();
        drop(turn);
        assert_eq!(bench.active(RIGHT).await, Ok(()));
    }

    #[test]
    fn debug_shows_neither_name_nor_password() {
        let bench = Bench::new(1, 1, 10);
        let attempt = bench.attempt(Account::Active(&bench.hash), RIGHT);
        let shown = format!("{attempt:?} {:?} {:?}", attempt.account, bench.desk);
        assert!(!shown.contains("alice") && !shown.contains("horse"), "{shown}");
    }

    async fn in_parallel<T>(
        mut futures: Vec<std::pin::Pin<Box<impl Future<Output = T>>>>,
    ) -> Vec<T> {
        let mut done = Vec::new();
        std::future::poll_fn(|context| {
            futures.retain_mut(|future| match future.as_mut().poll(context) {
                Poll::Ready(output) => {
                    done.push(output);
                    false
                }
                Poll::Pending => true,
            });
            if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        done
    }
}
