//! When the keys of an issuer are fetched, and how long they serve.
//!
//! | state | what happens |
//! |---|---|
//! | no keys yet | the first token that needs them fetches them, others wait for that |
//! | younger than `max-age` (5 min to 24 h) | they serve |
//! | up to 5 min older | they serve, and are fetched again in the background |
//! | older | a token waits for the fetch; if that fails they serve for up to 24 h |
//! | more than 24 h over their age | they serve no more: nobody comes in |
//! | a token names a key that is not there | it waits for a fetch |
//!
//! One fetch runs at a time, and begins at most once a minute whatever happens, or, while there are
//! no keys at all, every five seconds. It runs as a task of whatever runtime asked for it and is not
//! given up when its caller goes away: else a client that hangs up could use up the minute. Ages are
//! measured on the monotonic clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::fetch::{Fetch, FetchError, Fetched, MAX_BODY_BYTES, is_safe_url};
use super::issuer::{Issuer, IssuerAlgorithm};
use super::jwks::KeySet;
use crate::accounts::claims::TokenError;
use crate::clock::Clock;

const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;
/// How long keys serve, whatever the issuer says.
const AGE_SECS: std::ops::RangeInclusive<u64> = 5 * MINUTE..=DAY;
/// How long keys over their age serve without anybody waiting for newer ones.
const BACKGROUND_SECS: u64 = 5 * MINUTE;
/// How long they serve over their age while there are no newer ones.
const OVER_AGE_SECS: u64 = DAY;
const RETRY_SECS: u64 = MINUTE;
const RETRY_WITHOUT_KEYS_SECS: u64 = 5;
/// Longest fetch of discovery document and keys together.
const FETCH_LIMIT: Duration = Duration::from_secs(10);

/// Keys as they were fetched.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) keys: KeySet,
    /// Each fetch has another number.
    pub(super) generation: u64,
    /// From when on newer ones are fetched, in seconds of the monotonic clock.
    stale_at: u64,
}

/// The keys of one issuer, fetched when they are needed.
pub(super) struct KeyCache {
    name: String,
    issuer: String,
    jwks_url: Option<String>,
    discovery_url: String,
    algorithms: Vec<IssuerAlgorithm>,
    fetch: Arc<dyn Fetch>,
    clock: Clock,
    held: ArcSwapOption<Held>,
    flight: Arc<Mutex<()>>,
    fetches: AtomicU64,
    /// When the last fetch began, in seconds of the monotonic clock.
    began_at: AtomicU64,
    failing: AtomicBool,
}

impl KeyCache {
    pub(super) fn new(issuer: &Issuer, fetch: Arc<dyn Fetch>, clock: Clock) -> Self {
        Self {
            name: issuer.name.clone(),
            issuer: issuer.issuer.clone(),
            jwks_url: issuer.jwks_url.clone(),
            discovery_url: issuer.discovery_url(),
            algorithms: issuer.algorithms.clone(),
            fetch,
            clock,
            held: ArcSwapOption::empty(),
            flight: Arc::default(),
            fetches: AtomicU64::new(0),
            began_at: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        }
    }

    /// Whether the last fetch failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// The keys, if nothing has to be fetched for tokens that verified with them.
    pub(super) fn fresh(&self) -> Option<Arc<Held>> {
        let now = self.now();
        self.held.load_full().filter(|held| now < held.stale_at)
    }

    /// The keys, with the one of this name if it is to be had.
    pub(super) async fn holding(self: &Arc<Self>, kid: &str) -> Result<Arc<Held>, TokenError> {
        let now = self.now();
        if let Some(held) = self.serving().filter(|held| held.keys.has(kid)) {
            if now < held.stale_at {
                return Ok(held);
            }
            if now < held.stale_at.saturating_add(BACKGROUND_SECS) {
                self.refresh_behind();
                return Ok(held);
            }
        }
        self.refresh().await;
        self.serving().ok_or(TokenError::NoKeys)
    }

    /// The keys, unless they are far over their age.
    fn serving(&self) -> Option<Arc<Held>> {
        let now = self.now();
        let over = |held: &Arc<Held>| now.saturating_sub(held.stale_at);
        self.held.load_full().filter(|held| over(held) < OVER_AGE_SECS)
    }

    /// Waits for the fetch that runs, or for one of its own if that is due.
    async fn refresh(self: &Arc<Self>) {
        let turn = Arc::clone(&self.flight).lock_owned().await;
        if let Some(task) = self.launch(turn) {
            // It fails only if the runtime ends, and then nobody waits for an answer.
            drop(task.await);
        }
    }

    /// Begins a fetch if none runs and it is due.
    fn refresh_behind(self: &Arc<Self>) {
        if let Ok(turn) = Arc::clone(&self.flight).try_lock_owned() {
            drop(self.launch(turn));
        }
    }

    fn launch(self: &Arc<Self>, turn: OwnedMutexGuard<()>) -> Option<JoinHandle<()>> {
        self.is_due().then(|| {
            let this = Arc::clone(self);
            tokio::spawn(async move {
                this.load().await;
                drop(turn);
            })
        })
    }

    fn is_due(&self) -> bool {
        let without_keys = self.serving().is_none();
        let pause = if without_keys { RETRY_WITHOUT_KEYS_SECS } else { RETRY_SECS };
        let since = self.now().saturating_sub(self.began_at.load(Ordering::Acquire));
        self.fetches.load(Ordering::Acquire) == 0 || since >= pause
    }

    async fn load(&self) {
        self.began_at.store(self.now(), Ordering::Release);
        let generation = self.fetches.fetch_add(1, Ordering::AcqRel);
        let late = Err(FetchError::new("no answer within ten seconds"));
        let fetched = timeout(FETCH_LIMIT, self.fetch_keys()).await.unwrap_or(late);
        self.failing.store(fetched.is_err(), Ordering::Relaxed);
        match fetched {
            Ok((keys, age)) => {
                let stale_at = self.now().saturating_add(age);
                self.held.store(Some(Arc::new(Held { keys, generation, stale_at })));
            }
            Err(error) => {
                tracing::warn!(issuer = self.name, %error, "the keys of an issuer were not fetched");
            }
        }
    }

    /// The keys, and for how many seconds they serve.
    async fn fetch_keys(&self) -> Result<(KeySet, u64), FetchError> {
        let url = match &self.jwks_url {
            Some(url) => url.clone(),
            None => self.discover().await?,
        };
        let Fetched { body, max_age } = self.get(&url).await?;
        let keys = KeySet::parse(&body, &self.algorithms);
        let age = max_age.map_or(0, |age| age.as_secs()).clamp(*AGE_SECS.start(), *AGE_SECS.end());
        Ok((keys.ok_or(FetchError::new("not a JWK set"))?, age))
    }

    /// Where the discovery document says that the keys are (OpenID Connect Discovery 1.0 section
    /// 4.3). An issuer on the network cannot send the gateway to one on this machine.
    async fn discover(&self) -> Result<String, FetchError> {
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            jwks_uri: String,
        }
        let body = self.get(&self.discovery_url).await?.body;
        let document: Document = serde_json::from_slice(&body)
            .map_err(|_| FetchError::new("not a discovery document"))?;
        if document.issuer != self.issuer {
            return Err(FetchError::new("the discovery document is of another issuer"));
        }
        let downgraded =
            self.issuer.starts_with("https:") && document.jwks_uri.starts_with("http:");
        match is_safe_url(&document.jwks_uri) && !downgraded {
            true => Ok(document.jwks_uri),
            false => Err(FetchError::new("the discovery document leads to an unsafe URL")),
        }
    }

    async fn get(&self, url: &str) -> Result<Fetched, FetchError> {
        let fetched = self.fetch.get(url).await?;
        match fetched.body.len() {
            ..=MAX_BODY_BYTES => Ok(fetched),
            _ => Err(FetchError::new("the answer is too long")),
        }
    }

    fn now(&self) -> u64 {
        self.clock.monotonic_ns() / 1_000_000_000
    }
}
