//! Who is calling, and with what rights.

use std::fmt;
use std::sync::Arc;

use crate::accounts::AccountRole;
use crate::accounts::directory::Proof;
use crate::accounts::permission::Credential;
use crate::authz::Layer;
use crate::quota::{Level, Limits, Subject};
use crate::snapshot::{Meter, RoleRights};

/// An identified caller.
#[derive(Clone)]
pub struct Identity {
    user: Arc<str>,
    role: AccountRole,
    credential: Credential,
    key_id: Option<String>,
    api_key: Option<Box<str>>,
    session: Option<String>,
    layers: Vec<Arc<Layer>>,
    subject: Subject,
    meters: Vec<Meter>,
    expires_at: Option<u64>,
    must_enrol: bool,
    proof: Proof,
}

impl Identity {
    /// Someone with the rights of a role.
    pub(crate) fn new(
        user: Arc<str>,
        role: AccountRole,
        rights: &RoleRights,
        credential: Credential,
    ) -> Self {
        let subject = Subject::new(Level::User, &user);
        Self {
            user,
            role,
            credential,
            key_id: None,
            api_key: None,
            session: None,
            layers: vec![Arc::clone(&rights.layer)],
            subject,
            meters: vec![(Level::User, subject, Arc::clone(&rights.limits))],
            expires_at: None,
            must_enrol: false,
            proof: Proof::default(),
        }
    }

    /// With what a key or token allows, which can only take rights away.
    pub(crate) fn within(mut self, layer: Arc<Layer>) -> Self {
        self.layers.push(layer);
        self
    }

    /// By a key or scoped token with this public id.
    pub(crate) fn by(mut self, id: String) -> Self {
        self.key_id = Some(id);
        self
    }

    /// Under this API key, or a token that was made with it: counted on its quota too.
    pub(crate) fn metered(mut self, key: &str, limits: Arc<Limits>) -> Self {
        self.api_key = Some(Box::from(key));
        self.meters.push((Level::Key, Subject::new(Level::Key, key), limits));
        self
    }

    /// In a session.
    pub(crate) fn in_session(mut self, id: &str) -> Self {
        self.session = Some(id.to_owned());
        self
    }

    /// Until a time, or for as long as it is not revoked.
    pub(crate) fn until(mut self, expires_at: Option<u64>) -> Self {
        self.expires_at = expires_at;
        self
    }

    /// Let in by this.
    pub(crate) fn proved(mut self, proof: Proof) -> Self {
        self.proof = proof;
        self
    }

    /// Someone whose role demands a second factor, and who has not shown one.
    pub(crate) fn enrolling(mut self, must_enrol: bool) -> Self {
        self.must_enrol = must_enrol;
        self
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

    /// With what the caller was identified.
    #[must_use]
    pub const fn credential(&self) -> Credential {
        self.credential
    }

    /// Public id of the key or scoped token.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// Public id of the API key, also of the one that a scoped token was made with.
    #[must_use]
    pub fn api_key(&self) -> Option<&str> {
        self.api_key.as_deref()
    }

    /// Id of the session of a user token.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// Unix seconds after which the credential is void.
    #[must_use]
    pub const fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }

    /// Whether nothing but setting up a second factor is allowed.
    #[must_use]
    pub const fn must_enrol(&self) -> bool {
        self.must_enrol
    }

    /// What the caller was let in by.
    #[must_use]
    pub const fn proof(&self) -> &Proof {
        &self.proof
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

    /// The account, as meters and queues know it.
    pub(crate) const fn subject(&self) -> Subject {
        self.subject
    }

    /// The meters that requests count on.
    #[must_use]
    pub fn meters(&self) -> &[Meter] {
        &self.meters
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) by {:?} {:?}", self.user, self.role, self.credential, self.key_id)
    }
}
