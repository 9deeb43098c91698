//! The directory: a copy of the account store in memory, for every request to look into.
//!
//! It looks for changes several times a second, and at once when a name or key is asked for that it
//! does not know. So a revocation reaches every gateway within the interval of looking, without
//! anything else between them than the store, and it is there after a restart. While the store
//! cannot be reached the copy serves for a stated time, then nobody is let in.

mod pending;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use ipnet::IpNet;

use pending::Pending;

use super::AccountRole;
use super::Verified;
use super::api_key::{ApiKey, ApiKeyError, KeyId, Keyring, Pepper};
use super::store::{self, Changes, Store, StoreError, Touches};
use crate::authz::Layer;
use crate::clock::Clock;
use crate::glob::Glob;
use crate::verdict::{Denial, Reason};

/// Looks that are asked for out of turn are at least this far apart, so that made-up names cannot
/// load the store.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Uses that are remembered until they are written down.
const MAX_TOUCHED: usize = 100_000;

/// What is known of a user.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "read by the room that identifies")]
pub struct Person {
    /// The name, in lower case.
    pub name: Arc<str>,
    /// What the user may administer.
    pub role: AccountRole,
    /// Whether nothing of the user is accepted.
    pub disabled: bool,
    /// Whether a second factor is confirmed.
    pub mfa: bool,
    /// Tokens of an earlier epoch are void.
    pub epoch: u64,
    /// When the user was made, in Unix seconds.
    pub created_at: u64,
}

/// What a key may do; keys with equal rights share one.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "read by the room that identifies")]
pub struct Rights {
    /// Scopes and models.
    pub layer: Arc<Layer>,
    /// Networks that it may be used from; empty for all.
    pub networks: Vec<IpNet>,
    /// The quota that bounds the key itself.
    pub quota: Option<String>,
}

/// What is known of a key.
#[derive(Debug)]
pub struct KeyEntry {
    /// Who owns it.
    pub user: Arc<str>,
    /// What it may do.
    pub rights: Arc<Rights>,
    /// Unix seconds at which it stops working; the end of time if there is none.
    expires_at: u64,
}

impl KeyEntry {
    /// When it stops working, in Unix seconds.
    #[must_use]
    pub const fn expires_at(&self) -> Option<u64> {
        if self.expires_at == u64::MAX { None } else { Some(self.expires_at) }
    }
}

/// What a request was let in by: looked at again while its answer streams.
#[derive(Clone, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "made by the room that identifies")]
pub struct Proof {
    /// The user, unless it is one that no store knows.
    pub user: Option<Arc<str>>,
    /// The epoch of the token.
    pub epoch: Option<u64>,
    /// Ids of the session and of the scoped token.
    pub ids: Vec<String>,
    /// The key, used itself or behind a scoped token.
    pub key: Option<KeyId>,
}

impl Proof {
    /// What the bearer of a genuine token is let in by.
    ///
    /// # Errors
    /// If the token names an API key whose id cannot be one.
    pub fn of(token: &Verified) -> Result<Self, ApiKeyError> {
        let (user, id) = (Some(Arc::from(token.subject())), token.life().id.clone());
        Ok(match token {
            Verified::User(token) => {
                Self { user, epoch: Some(token.epoch), ids: vec![id], key: None }
            }
            Verified::Scoped(token) => Self {
                user,
                epoch: Some(token.epoch),
                ids: token.session.iter().cloned().chain([id]).collect(),
                key: token.key.as_deref().map(str::parse).transpose()?,
            },
        })
    }
}

struct Tables {
    people: HashMap<Arc<str>, Arc<Person>>,
    keys: Keyring<Arc<KeyEntry>>,
    /// Void ids of sessions and tokens, with the time at which nothing needs to be known of them.
    revoked: HashMap<Box<str>, u64>,
    /// Rights that keys share, by what they say.
    rights: HashMap<String, Arc<Rights>>,
}

/// The copy of a store.
pub struct Directory {
    store: Arc<dyn Store>,
    clock: Clock,
    max_stale: Duration,
    tables: RwLock<Tables>,
    /// The number of the last change that is in the tables.
    revision: AtomicU64,
    /// Whether anything has been put in since somebody asked.
    changed: AtomicBool,
    /// Monotonic nanoseconds of the last look that the store answered, plus one; zero for none.
    seen: AtomicU64,
    /// Held by whoever looks; the time of the last look, answered or not.
    turn: tokio::sync::Mutex<Option<u64>>,
    touched: Mutex<Touched>,
    pending: Pending,
}

#[derive(Default)]
struct Touched {
    keys: HashMap<KeyId, u64>,
    sessions: HashMap<String, u64>,
}

impl Directory {
    /// An empty copy. Nobody is let in before the first look.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        max_stale: Duration,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            store,
            clock,
            max_stale,
            tables: RwLock::new(Tables::new()?),
            revision: AtomicU64::new(0),
            changed: AtomicBool::new(false),
            seen: AtomicU64::new(0),
            turn: tokio::sync::Mutex::default(),
            touched: Mutex::default(),
            pending: Pending::default(),
        })
    }

    /// The store that this is a copy of.
    #[must_use]
    pub const fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Looks for changes.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn look(&self) -> Result<(), StoreError> {
        let mut turn = self.turn.lock().await;
        self.look_in_turn(&mut turn).await
    }

    /// Looks for changes out of turn, because something is not known: unless somebody just did.
    pub async fn look_again(&self) {
        let asked = self.clock.monotonic_ns();
        let mut turn = self.turn.lock().await;
        let recent = turn.is_some_and(|at| at.saturating_add(nanos(LOOK_AGAIN)) > asked);
        if !recent {
            drop(self.look_in_turn(&mut turn).await);
        }
    }

    async fn look_in_turn(&self, turn: &mut Option<u64>) -> Result<(), StoreError> {
        // The time before the look: what is written while it is answered may not be in it.
        let at = self.clock.monotonic_ns();
        *turn = Some(at);
        let known = self.revision.load(Ordering::SeqCst);
        let first = self.seen.load(Ordering::SeqCst) == 0;
        if first || self.store.revision().await? != known {
            let changes = self.store.changes(if first { 0 } else { known }).await?;
            self.apply(changes);
        }
        self.seen.store(at.saturating_add(1), Ordering::SeqCst);
        Ok(())
    }

    /// Whether something has changed since this was last asked.
    pub(crate) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::SeqCst)
    }

    fn apply(&self, changes: Changes) {
        let now = self.clock.unix_secs();
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        if changes.full {
            tables.clear();
        }
        tables.revoked.retain(|_, until| *until > now);
        for user in changes.users {
            tables.put_person(user);
        }
        for name in &changes.removed_users {
            tables.remove_person(name);
        }
        for key in changes.keys {
            tables.put_key(key);
        }
        let revoked = changes.revoked.into_iter().map(|(id, until)| (id.into_boxed_str(), until));
        tables.revoked.extend(revoked);
        drop(tables);
        self.pending.put(changes.standing, changes.resets);
        self.revision.store(changes.revision, Ordering::SeqCst);
        self.changed.store(true, Ordering::SeqCst);
    }

    /// Whether the copy is recent enough to let anyone in by it.
    ///
    /// # Errors
    /// [`Reason::Overloaded`], with the time after which to try again.
    pub fn check_fresh(&self) -> Result<(), Denial> {
        match self.age() {
            Some(age) if age <= self.max_stale => Ok(()),
            _ => Err(unavailable("the copy of the account store is too old")),
        }
    }

    /// Whether the last look was answered within the time in which the next one is due several
    /// times over.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.age().is_some_and(|age| age < Duration::from_secs(2))
    }

    fn age(&self) -> Option<Duration> {
        let seen = self.seen.load(Ordering::SeqCst).checked_sub(1)?;
        Some(Duration::from_nanos(self.clock.monotonic_ns().saturating_sub(seen)))
    }

    /// A user, by name in lower case.
    #[must_use]
    pub fn person(&self, name: &str) -> Option<Arc<Person>> {
        self.read().people.get(name).map(Arc::clone)
    }

    /// A key, by its public id.
    #[must_use]
    pub fn key(&self, id: KeyId) -> Option<Arc<KeyEntry>> {
        self.read().keys.get(id).map(Arc::clone)
    }

    /// Finds the key that was presented.
    ///
    /// # Errors
    /// As [`Keyring::verify`].
    pub fn verify(&self, pepper: &Pepper, key: &ApiKey) -> Result<Arc<KeyEntry>, ApiKeyError> {
        self.read().keys.verify(pepper, key).map(Arc::clone)
    }

    /// Why what a request was let in by would not let it in now.
    #[must_use]
    pub fn void(&self, proof: &Proof) -> Option<&'static str> {
        let tables = self.read();
        if let Some(name) = &proof.user {
            let Some(person) = tables.people.get(name) else { return Some("the user is gone") };
            if person.disabled {
                return Some("the user is disabled");
            }
            if proof.epoch.is_some_and(|epoch| epoch < person.epoch) {
                return Some("the user's tokens were revoked");
            }
        }
        if proof.ids.iter().any(|id| tables.revoked.contains_key(id.as_str())) {
            return Some("the session or token was revoked");
        }
        match proof.key {
            Some(id) if tables.keys.get(id).is_none() => Some("the API key was revoked"),
            _ => None,
        }
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.read().keys.len()
    }

    /// Notes the use of a key.
    pub fn touch_key(&self, id: KeyId) {
        let now = self.clock.unix_secs();
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if touched.keys.len() < MAX_TOUCHED {
            touched.keys.insert(id, now);
        }
    }

    /// Notes the use of a session.
    pub fn touch_session(&self, id: &str) {
        let now = self.clock.unix_secs();
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = touched.sessions.get_mut(id) {
            *at = now;
        } else if touched.sessions.len() < MAX_TOUCHED {
            touched.sessions.insert(id.to_owned(), now);
        }
    }

    /// Writes the uses down that were noted since the last time. Those that cannot be written are
    /// forgotten: they are a convenience.
    ///
    /// # Errors
    /// If the store does not answer.
    pub async fn write_touches(&self) -> Result<(), StoreError> {
        let touched =
            std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner));
        if touched.keys.is_empty() && touched.sessions.is_empty() {
            return Ok(());
        }
        let touches = Touches {
            keys: touched.keys.into_iter().collect(),
            sessions: touched.sessions.into_iter().collect(),
        };
        self.store.touch(&touches).await
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.read();
        f.debug_struct("Directory")
            .field("people", &tables.people.len())
            .field("keys", &tables.keys.len())
            .finish_non_exhaustive()
    }
}

impl Tables {
    fn new() -> Result<Self, getrandom::Error> {
        Ok(Self {
            people: HashMap::new(),
            keys: Keyring::new()?,
            revoked: HashMap::new(),
            rights: HashMap::new(),
        })
    }

    fn clear(&mut self) {
        self.people.clear();
        self.keys.clear();
        self.revoked.clear();
        self.rights.clear();
    }

    fn put_person(&mut self, user: store::User) {
        let name = self.name(&user.name);
        let person = Person {
            name: Arc::clone(&name),
            role: user.role,
            disabled: user.disabled,
            mfa: user.mfa,
            epoch: user.epoch,
            created_at: user.created_at,
        };
        self.people.insert(name, Arc::new(person));
    }

    fn remove_person(&mut self, name: &str) {
        self.people.remove(name);
        self.keys.retain(|key| &*key.user != name);
    }

    fn put_key(&mut self, key: store::Key) {
        if key.revoked_at.is_some() {
            self.keys.remove(key.id);
            return;
        }
        let entry = KeyEntry {
            user: self.name(&key.user),
            expires_at: key.expires_at.unwrap_or(u64::MAX),
            rights: self.rights(key.scopes, key.models, key.networks, key.quota),
        };
        self.keys.put(key.id, key.digest, Arc::new(entry));
    }

    /// One copy of a name, however many keys its user has.
    fn name(&self, name: &str) -> Arc<str> {
        self.people
            .get_key_value(name)
            .map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name))
    }

    fn rights(
        &mut self,
        scopes: Vec<String>,
        models: Vec<String>,
        networks: Vec<IpNet>,
        quota: Option<String>,
    ) -> Arc<Rights> {
        let says = format!("{scopes:?}{models:?}{networks:?}{quota:?}");
        let make = || {
            let models = Some(models.iter().map(|model| Glob::new(model)).collect());
            let layer = Arc::new(Layer { scopes, models, max_tokens: None });
            Arc::new(Rights { layer, networks, quota })
        };
        Arc::clone(self.rights.entry(says).or_insert_with(make))
    }
}

/// The refusal while the store cannot be asked.
pub(crate) fn unavailable(detail: impl Into<std::borrow::Cow<'static, str>>) -> Denial {
    Denial::new(Reason::Overloaded, "accounts cannot be checked at this time, try again later")
        .detail(detail)
        .retry_after(Duration::from_secs(5))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
