//! Accounts as they are managed, through the own endpoints and on the command line alike: names,
//! passwords, keys and second factors are made and judged here, whoever asks.

use std::fmt;

use ipnet::IpNet;
use portcullis_filters::accounts::name;
use portcullis_filters::accounts::password;
use portcullis_filters::accounts::policy::Blocklist;
use portcullis_filters::accounts::store::{
    Actor, Key, Revoked, Session, Source, Store, StoreError, User,
};
use portcullis_filters::accounts::{ApiKey, KeyId, Pepper, Profile, policy, totp};
use portcullis_filters::authn::environment_id;
use portcullis_filters::authz;
use portcullis_filters::config::SCOPES;
use portcullis_filters::verdict::{Denial, Reason};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// Characters of a name or note.
const MAX_NAME: usize = 64;
/// Bytes of an e-mail address (RFC 5321 section 4.5.3.1.3).
const MAX_EMAIL: usize = 254;
/// Seconds that a revocation is remembered whose object has no end of its own.
const FOR_GOOD: u64 = 10 * 365 * 24 * 60 * 60;
/// Entries of one list of a key.
const MAX_LIST: usize = 64;

/// What the store's refusal means to a caller.
pub(crate) fn refused(error: StoreError) -> Denial {
    let text = error.to_string();
    match error {
        StoreError::NotFound => Denial::new(Reason::NotFound, text),
        StoreError::Exists | StoreError::LastOwner | StoreError::Declared => {
            Denial::new(Reason::Conflict, text)
        }
        StoreError::Unavailable(why) => {
            Denial::new(Reason::Overloaded, "accounts cannot be changed now, try again later")
                .detail(why)
                .retry_after(std::time::Duration::from_secs(5))
        }
        StoreError::Seal => {
            let message = "this needs the configuration's secrets.store_key";
            Denial::new(Reason::Conflict, message).detail(text)
        }
    }
}

/// The name of an account, as [`name::account_name`].
///
/// # Errors
/// [`Reason::InvalidRequest`]
pub fn account_name(text: &str) -> Result<String, Denial> {
    name::account_name(text)
        .ok_or_else(|| invalid("a name has 1 to 64 of A-Z a-z 0-9 . _ @ -").param("username"))
}

/// An e-mail address that is worth keeping: whether it is right only a message to it can tell.
///
/// # Errors
/// [`Reason::InvalidRequest`]
pub fn email(address: SecretString) -> Result<SecretString, Denial> {
    let text = address.expose_secret();
    let shaped = text.split_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.contains('@')
    });
    if text.len() <= MAX_EMAIL && shaped && !text.chars().any(|c| c.is_control() || c == ' ') {
        return Ok(address);
    }
    Err(invalid("this is not an e-mail address").param("email"))
}

/// Judges a new password and hashes it. Takes tens to hundreds of milliseconds; the gateway has its
/// login desk do this.
///
/// # Errors
/// What is wrong with it.
pub fn new_hash(
    user: &str,
    new: &SecretString,
    profile: Profile,
    blocklist: &Blocklist,
) -> Result<String, String> {
    policy::check(user, new, blocklist).map_err(|error| error.to_string())?;
    password::hash(new, profile).map_err(|error| error.to_string())
}

/// Ends everything that anyone was let in by: tokens, keys, also those of the environment, which the
/// store does not know.
///
/// # Errors
/// If the store does not answer; what it has revoked by then stays revoked.
pub async fn revoke_everything(
    store: &dyn Store,
    environment: impl Iterator<Item = KeyId> + Send,
    reason: &str,
    now: u64,
    by: &Actor,
) -> Result<Revoked, StoreError> {
    let mut revoked = store.revoke_all(reason, now, by).await?;
    for id in environment {
        store.revoke_token(&environment_id(id), now.saturating_add(FOR_GOOD), by).await?;
        revoked.keys += 1;
    }
    Ok(revoked)
}

/// What is asked of a new key.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers make them whole")]
pub struct KeyRequest {
    /// The user who will own it.
    pub user: String,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Patterns of models.
    pub models: Vec<String>,
    /// Networks that it may be used from, as `10.0.0.0/8` or one address; none for all.
    pub networks: Vec<String>,
    /// The quota that bounds it beside its user's.
    pub quota: Option<String>,
    /// Unix seconds
    pub expires_at: Option<u64>,
}

/// Makes a key: the secret, to be shown once, and what is stored.
///
/// # Errors
/// [`Reason::InvalidRequest`], with the member that is wrong.
pub fn make_key(
    request: KeyRequest,
    pepper: &Pepper,
    is_quota: &dyn Fn(&str) -> bool,
    now: u64,
    by: &str,
) -> Result<(SecretString, Key), Denial> {
    check_key(&request, is_quota, now)?;
    let networks = request.networks.iter().map(|text| network(text)).collect::<Result<_, _>>()?;
    let secret = ApiKey::generate().map_err(|_| no_randomness())?;
    let key = Key {
        id: secret.id(),
        user: request.user,
        name: request.name,
        digest: pepper.digest(&secret),
        scopes: request.scopes,
        models: request.models,
        networks,
        quota: request.quota,
        expires_at: request.expires_at,
        created_at: now,
        created_by: by.to_owned(),
        last_used_at: None,
        revoked_at: None,
        source: Source::Store,
    };
    Ok((secret.reveal(), key))
}

/// Makes the key that takes another's place: with the same rights, for as long again.
///
/// # Errors
/// [`Reason::Conflict`] for a key that has expired; [`Reason::Internal`] if the machine has no
/// randomness.
pub fn successor(
    old: &Key,
    pepper: &Pepper,
    now: u64,
    by: &str,
) -> Result<(SecretString, Key), Denial> {
    if old.expires_at.is_some_and(|end| end <= now) {
        return Err(Denial::new(Reason::Conflict, "the key has expired: make another"));
    }
    let secret = ApiKey::generate().map_err(|_| no_randomness())?;
    let lives = old.expires_at.map(|end| end.saturating_sub(old.created_at));
    let key = Key {
        id: secret.id(),
        digest: pepper.digest(&secret),
        expires_at: lives.map(|seconds| now.saturating_add(seconds)),
        source: Source::Store,
        created_at: now,
        created_by: by.to_owned(),
        last_used_at: None,
        ..old.clone()
    };
    Ok((secret.reveal(), key))
}

fn check_key(
    request: &KeyRequest,
    is_quota: &dyn Fn(&str) -> bool,
    now: u64,
) -> Result<(), Denial> {
    let lists = [&request.scopes, &request.models, &request.networks];
    if lists.iter().any(|list| list.len() > MAX_LIST) {
        return Err(invalid("a list of a key has at most 64 entries"));
    }
    if request.name.chars().count() > MAX_NAME || request.name.chars().any(char::is_control) {
        return Err(
            invalid("at most 64 characters, none of them a control character").param("name")
        );
    }
    if request.scopes.is_empty() {
        return Err(invalid("at least one is needed").param("permissions"));
    }
    if let Some(unknown) = request.scopes.iter().find(|scope| !is_scope(scope)) {
        let message = format!("`{}` is not a scope", unknown.escape_debug());
        return Err(invalid(message).param("permissions"));
    }
    let is_pattern = |model: &String| {
        !model.is_empty() && model.len() <= 128 && model.bytes().all(|b| b.is_ascii_graphic())
    };
    if request.models.is_empty() || !request.models.iter().all(is_pattern) {
        return Err(invalid("give names of models, `*` stands for any run").param("models"));
    }
    if request.quota.as_deref().is_some_and(|name| !is_quota(name)) {
        return Err(invalid("the configuration has no such quota").param("quota"));
    }
    if request.expires_at.is_some_and(|end| end <= now) {
        return Err(invalid("it must be in the future").param("expires_in"));
    }
    Ok(())
}

/// A scope, or a pattern of one that covers at least one scope.
fn is_scope(text: &str) -> bool {
    SCOPES.iter().any(|scope| *scope == text || (text.ends_with('*') && authz::covers(text, scope)))
}

fn network(text: &str) -> Result<IpNet, Denial> {
    let net = text.parse().or_else(|_| text.parse().map(|ip: std::net::IpAddr| IpNet::from(ip)));
    net.map_err(|_| invalid("give networks such as 10.0.0.0/8, or addresses").param("networks"))
}

/// A second factor that waits to be confirmed.
pub struct Enrolment {
    /// In base32, to be typed.
    pub secret: SecretString,
    /// For a QR code (`otpauth://…`).
    pub uri: SecretString,
    /// Each logs in once.
    pub codes: Vec<SecretString>,
}

/// Begins a second factor for a user: one that waits already is replaced.
///
/// # Errors
/// [`Reason::Conflict`] if one is confirmed, or the store has no key to seal it with.
pub async fn begin_mfa(
    store: &dyn Store,
    issuer: &str,
    user: &str,
    now: u64,
    by: &Actor,
) -> Result<Enrolment, Denial> {
    let secret = totp::generate_secret().map_err(|_| no_randomness())?;
    let codes = totp::backup_codes().map_err(|_| no_randomness())?;
    let digest = |code: &SecretString| totp::backup_digest(user, code.expose_secret());
    let digests: Vec<String> = codes.iter().filter_map(digest).collect();
    store.begin_mfa(user, &secret, &digests, now, by).await.map_err(refused)?;
    let uri = totp::provisioning_uri(issuer, user, &secret).ok_or_else(no_randomness)?;
    Ok(Enrolment { secret, uri, codes: codes.into() })
}

impl Enrolment {
    /// The QR code as an image.
    #[must_use]
    pub fn qr_svg(&self) -> Option<String> {
        totp::qr_svg(&self.uri)
    }

    /// The QR code for a terminal.
    #[must_use]
    pub fn qr_terminal(&self) -> Option<String> {
        totp::qr_terminal(&self.uri)
    }
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Enrolment([REDACTED])")
    }
}

/// A user as others see it.
#[must_use]
pub fn shown_user(user: &User) -> Value {
    json!({
        "username": user.name,
        "role": user.role,
        "disabled": user.disabled,
        "mfa_enabled": user.mfa,
        "source": user.source.as_str(),
        "created_at": user.created_at,
        "created_by": user.created_by,
        "last_login_at": user.last_login_at,
    })
}

/// A key as its owner sees it: all but the secret.
#[must_use]
pub fn shown_key(key: &Key) -> Value {
    json!({
        "id": key.id.to_string(),
        "prefix": format!("sk_{}", key.id),
        "user": key.user,
        "name": key.name,
        "permissions": key.scopes,
        "models": key.models,
        "networks": key.networks.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "quota": key.quota,
        "created_at": key.created_at,
        "created_by": key.created_by,
        "last_used_at": key.last_used_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "source": key.source.as_str(),
    })
}

/// A session as its user sees it.
#[must_use]
pub fn shown_session(session: &Session) -> Value {
    json!({
        "id": session.id,
        "created_at": session.created_at,
        "last_seen_at": session.last_seen_at,
        "expires_at": session.expires_at,
        "address": session.address,
        "device": session.device,
        "mfa": session.mfa,
    })
}

fn no_randomness() -> Denial {
    Denial::new(Reason::Internal, "no randomness to make it of")
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Denial {
    Denial::new(Reason::InvalidRequest, message)
}
