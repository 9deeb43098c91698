//! Cutting: an answer that streams ends when what its request was let in by is revoked, or when
//! what it may cost is used up.
//!
//! Every exchange is listed here with its proof. When accounts change the proofs are looked at
//! again, and what is void is cut: at the next part of its answer, in the words of its dialect; an
//! answer of which no part comes is dropped with its connection after [`GRACE`].

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::accounts::directory::{Directory, Proof};
use crate::verdict::{Denial, Reason};

/// How long a cut exchange has to end in its own words.
pub(crate) const GRACE: Duration = Duration::from_millis(250);

tokio::task_local! {
    /// The cut of the request that this task serves.
    static OF_THIS_REQUEST: Arc<Cut>;
}

/// Whether a request is cut, and why.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    why: OnceLock<Denial>,
    fired: watch::Sender<bool>,
}

impl Cut {
    /// Ends the request with this refusal, unless it is cut already. Says whether it was not.
    pub(crate) fn fire(&self, why: Denial) -> bool {
        let first = self.why.set(why).is_ok();
        self.fired.send_replace(true);
        first
    }

    /// Returns once the request is cut.
    pub(crate) async fn fired(&self) {
        // Cannot fail: the sender is this very cut.
        drop(self.fired.subscribe().wait_for(|fired| *fired).await);
    }

    /// The refusal that ends the request, if it is cut.
    pub(crate) fn denial(&self) -> Option<Denial> {
        self.why.get().cloned()
    }
}

/// Serves one request, which is dropped if it is cut and does not end by itself.
pub(crate) async fn serve<T>(request: impl Future<Output = Option<T>>) -> Option<T> {
    let cut = Arc::new(Cut::default());
    let overdue = async {
        cut.fired().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        served = OF_THIS_REQUEST.scope(Arc::clone(&cut), request) => served,
        () = overdue => None,
    }
}

/// The exchanges that are open.
#[derive(Default)]
pub(crate) struct Exchanges {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
}

struct Open {
    proof: Proof,
    cut: Arc<Cut>,
}

impl Exchanges {
    /// Lists an exchange for as long as the entry lives.
    ///
    /// # Errors
    /// If the proof has become void since it was looked at.
    pub(crate) fn enter(
        self: &Arc<Self>,
        proof: &Proof,
        directory: &Directory,
    ) -> Result<Entry, Denial> {
        let cut = OF_THIS_REQUEST.try_with(Arc::clone).unwrap_or_default();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let open = Open { proof: proof.clone(), cut: Arc::clone(&cut) };
        self.lock().insert(number, open);
        let entry = Entry { exchanges: Arc::clone(self), number, cut };
        match directory.void(proof) {
            Some(why) => Err(revoked(why)),
            None => Ok(entry),
        }
    }

    /// Looks at all proofs again. Gives how many exchanges were cut.
    pub(crate) fn review(&self, directory: &Directory) -> usize {
        let open = self.lock();
        let void = open.values().filter_map(|open| Some((open, directory.void(&open.proof)?)));
        void.filter(|(open, why)| open.cut.fire(revoked(why))).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Exchanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} exchanges", self.lock().len())
    }
}

/// The place of an exchange in the list.
pub(crate) struct Entry {
    exchanges: Arc<Exchanges>,
    number: u64,
    cut: Arc<Cut>,
}

impl Entry {
    /// The refusal that ends the exchange, if it is cut.
    pub(crate) fn denial(&self) -> Option<Denial> {
        self.cut.denial()
    }

    /// What cuts the exchange.
    pub(crate) const fn cut(&self) -> &Arc<Cut> {
        &self.cut
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.exchanges.lock().remove(&self.number);
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exchange {}", self.number)
    }
}

fn revoked(why: &'static str) -> Denial {
    Denial::new(Reason::InvalidCredentials, "the credential of this request was revoked")
        .detail(why)
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::accounts::directory::tests::{Accounts, proof_of};

    const LONG: Duration = Duration::from_secs(20);

    fn told(denial: Option<Denial>) -> Option<(Reason, String)> {
        denial.map(|denial| (denial.reason(), denial.operator_detail().to_owned()))
    }

    fn because(why: &str) -> Option<(Reason, String)> {
        Some((Reason::InvalidCredentials, why.to_owned()))
    }

    #[tokio::test]
    async fn a_proof_that_is_void_does_not_enter() {
        let accounts = Accounts::new().with_user("ada").await;
        let exchanges = Arc::<Exchanges>::default();
        let entry = exchanges.enter(&proof_of("ada"), &accounts.directory).unwrap();
        assert_eq!(format!("{exchanges:?}, {entry:?}"), "1 exchanges, exchange 0");
        let refused = exchanges.enter(&proof_of("eve"), &accounts.directory).err();
        assert_eq!(told(refused), because("the user is gone"));
        assert_eq!(format!("{exchanges:?}"), "1 exchanges");
        let next = exchanges.enter(&proof_of("ada"), &accounts.directory).unwrap();
        assert_eq!(format!("{exchanges:?}, {next:?}"), "2 exchanges, exchange 2");
        drop((entry, next));
        assert_eq!(format!("{exchanges:?}"), "0 exchanges");
    }

    #[tokio::test]
    async fn a_review_cuts_what_is_void_and_nothing_else() {
        let accounts = Accounts::new().with_user("ada").await.with_user("bob").await;
        let exchanges = Arc::<Exchanges>::default();
        let enter = |name| exchanges.enter(&proof_of(name), &accounts.directory).unwrap();
        let [ada, bob, also_ada] = ["ada", "bob", "ada"].map(enter);
        assert_eq!(exchanges.review(&accounts.directory), 0);
        accounts.disable("ada", true).await;
        assert_eq!(exchanges.review(&accounts.directory), 2);
        assert_eq!(told(ada.denial()), because("the user is disabled"));
        assert_eq!(told(also_ada.denial()), because("the user is disabled"));
        assert_eq!(told(bob.denial()), None);
        assert_eq!(exchanges.review(&accounts.directory), 0, "each is cut once");
        accounts.disable("ada", false).await;
        assert_eq!(exchanges.review(&accounts.directory), 0);
        assert_eq!(told(ada.denial()), because("the user is disabled"), "a cut is for good");
    }

    /// A request of ada's that lasts some time, and gives what it was told in the end.
    async fn request(
        exchanges: &Arc<Exchanges>,
        accounts: &Accounts,
        lasts: Duration,
    ) -> Option<Option<Denial>> {
        let entry = exchanges.enter(&proof_of("ada"), &accounts.directory).unwrap();
        tokio::time::sleep(lasts).await;
        Some(entry.denial())
    }

    /// Serves a request while its user is disabled.
    async fn disabled_meanwhile(lasts: Duration) -> (Option<Option<Denial>>, Duration) {
        let accounts = Accounts::new().with_user("ada").await;
        let exchanges = Arc::<Exchanges>::default();
        let begun = Instant::now();
        let served = timeout(LONG, async {
            let cut = async {
                accounts.disable("ada", true).await;
                assert_eq!(exchanges.review(&accounts.directory), 1);
            };
            tokio::join!(serve(request(&exchanges, &accounts, lasts)), cut).0
        });
        let served = served.await.unwrap();
        assert_eq!(format!("{exchanges:?}"), "0 exchanges");
        (served, begun.elapsed())
    }

    #[tokio::test]
    async fn a_request_that_is_cut_is_dropped_after_its_grace() {
        let (served, after) = disabled_meanwhile(LONG * 10).await;
        assert!(served.is_none() && after >= GRACE, "{after:?}");
    }

    #[tokio::test]
    async fn a_request_that_is_cut_may_end_in_its_own_words() {
        let accounts = Accounts::new().with_user("ada").await;
        let exchanges = Arc::<Exchanges>::default();
        let served = serve(async {
            let entry = exchanges.enter(&proof_of("ada"), &accounts.directory).unwrap();
            accounts.disable("ada", true).await;
            assert_eq!(exchanges.review(&accounts.directory), 1);
            Some(entry.denial())
        });
        assert_eq!(told(served.await.unwrap()), because("the user is disabled"));
    }

    #[tokio::test]
    async fn a_request_that_is_not_cut_is_served() {
        let accounts = Accounts::new().with_user("ada").await.with_user("bob").await;
        let exchanges = Arc::<Exchanges>::default();
        accounts.disable("bob", true).await;
        let served = serve(async {
            let served = request(&exchanges, &accounts, Duration::ZERO).await;
            assert_eq!(exchanges.review(&accounts.directory), 0);
            tokio::time::sleep(GRACE * 2).await;
            served
        });
        assert_eq!(told(served.await.unwrap()), None);
        assert!(serve(async { None::<()> }).await.is_none());
    }
}
