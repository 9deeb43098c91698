//! Who is calling, and with what rights.

use std::fmt;
use std::sync::Arc;

use crate::accounts::AccountRole;
use crate::authz::Layer;
use crate::quota::{Level, Limits, Subject};

/// A meter that the caller's requests count on.
pub(crate) type Meter = (Level, Subject, Arc<Limits>);

/// An identified caller.
#[derive(Clone)]
pub struct Identity {
    user: String,
    role: AccountRole,
    key_id: Option<String>,
    layers: Vec<Arc<Layer>>,
    meters: Arc<[Meter]>,
    expires_at: Option<u64>,
    may_mint: bool,
}

impl Identity {
    /// A user with the rights of the role; made once for each user of a configuration.
    pub(crate) fn user_of(
        user: &str,
        role: AccountRole,
        layer: Arc<Layer>,
        limits: Arc<Limits>,
    ) -> Self {
        let subject = Subject::new(Level::User, user);
        Self {
            user: user.to_owned(),
            role,
            key_id: None,
            layers: vec![layer],
            meters: Arc::new([(Level::User, subject, limits)]),
            expires_at: None,
            may_mint: true,
        }
    }

    /// The same user by one of their keys, which can only take rights away.
    pub(crate) fn by_key(&self, id: String, layer: Layer, expires_at: Option<u64>) -> Self {
        let mut identity = self.clone();
        identity.layers.push(Arc::new(layer));
        identity.key_id = Some(id);
        identity.expires_at = expires_at;
        identity
    }

    /// The same user by a user token.
    pub(crate) fn until(&self, expires_at: u64) -> Self {
        Self { expires_at: Some(expires_at), ..self.clone() }
    }

    /// The same user by a scoped token, which can only take rights away and mints no others.
    pub(crate) fn by_scoped_token(&self, id: String, layer: Layer, expires_at: u64) -> Self {
        let mut identity = self.by_key(id, layer, Some(expires_at));
        identity.may_mint = false;
        identity
    }

    /// The account.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The account's role.
    #[must_use]
    pub const fn role(&self) -> AccountRole {
        self.role
    }

    /// Public id of the key or scoped token.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Unix seconds after which the credential is void.
    #[must_use]
    pub const fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }

    /// Whether scoped tokens may be made with this credential. A scoped token makes no others: a
    /// chain of them would outlive its 60 seconds.
    #[must_use]
    pub const fn may_mint(&self) -> bool {
        self.may_mint
    }

    /// Whether every layer holds the scope.
    #[must_use]
    pub fn holds(&self, scope: &str) -> bool {
        self.layers.iter().all(|layer| layer.holds(scope))
    }

    /// Whether every layer allows the model, given by its canonical name.
    #[must_use]
    pub fn allows(&self, model: &str) -> bool {
        let model = model.to_ascii_lowercase();
        self.layers.iter().all(|layer| layer.allows(&model))
    }

    /// The lowest cap on generated tokens of all layers.
    #[must_use]
    pub fn max_tokens(&self) -> u64 {
        self.layers.iter().filter_map(|layer| layer.max_tokens).min().unwrap_or(u64::MAX)
    }

    /// The scopes of each layer, for the caller to see.
    pub fn scopes(&self) -> impl Iterator<Item = &[String]> {
        self.layers.iter().map(|layer| layer.scopes.as_slice())
    }

    /// The meters that requests count on.
    #[must_use]
    pub fn meters(&self) -> &[Meter] {
        &self.meters
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) by {:?}", self.user, self.role, self.key_id)
    }
}
