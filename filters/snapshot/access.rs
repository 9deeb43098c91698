//! Who may come in, compiled: the rights of roles, the keys of tokens, the issuers and services
//! that are trusted, and what the configuration declares for the account store.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretSlice, SecretString};

use super::CompileError;
use super::limits::{self, Named, Shared};
use crate::accounts::api_key::{ApiKey, KeyId};
use crate::accounts::oidc::{HttpFetch, Issuer, IssuerAlgorithm, Issuers};
use crate::accounts::policy::Blocklist;
use crate::accounts::service::{Service, Services};
use crate::accounts::store::{Key, NewUser, Source};
use crate::accounts::token::{AcceptedKey, KeyMaterial, ScopedAlgorithm, TokenKeys, TokenRules};
use crate::accounts::{
    AccountRole, ApiKeyError, Keyring, PasswordHash, Pepper, TokenService, Ttls,
};
use crate::authz::Layer;
use crate::clock::Clock;
use crate::config::{
    AcceptedKey as Accepted, AuthMode, Config, KeyKind, LlmTokenAlgorithm, Oidc, OidcAlgorithm,
    RoleName, Secrets,
};
use crate::glob::Glob;
use crate::quota::Limits;

/// The user of the environment's keys, after a colon.
const ENVIRONMENT: &str = "environment";
/// Bytes of a list of refused passwords.
const MAX_BLOCKLIST: u64 = 64 << 20;

/// What a role may do, and how much.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct RoleRights {
    /// Scopes and models.
    pub layer: Arc<Layer>,
    /// The quota of each user with the role.
    pub limits: Arc<Limits>,
    /// The share of an upstream's queue that each user with the role has.
    pub weight: u32,
}

/// What the environment's keys may do.
pub(crate) struct Environment {
    pub(crate) keys: Keyring<()>,
    pub(crate) role: AccountRole,
    pub(crate) layer: Arc<Layer>,
}

/// Users and keys that the configuration declares; the store is made to agree with them.
#[derive(Clone, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct Declared {
    /// Users
    pub users: Vec<NewUser>,
    /// API keys
    pub keys: Vec<Key>,
}

/// The part of a configuration that says who may come in.
pub(super) struct Access {
    pub(super) development: bool,
    roles: [RoleRights; 4],
    quotas: Named,
    pub(super) shared: Shared,
    pub(super) pepper: Option<Pepper>,
    pub(super) tokens: Option<TokenService>,
    pub(super) issuers: Option<Issuers>,
    pub(super) services: Services,
    pub(super) environment: Option<Environment>,
    pub(super) blocklist: Arc<Blocklist>,
    pub(super) mfa_issuer: String,
    mfa_roles: Vec<AccountRole>,
    pub(super) declared: Declared,
}

impl Access {
    pub(super) fn compile(
        config: &Config,
        secrets: &Secrets,
        base: &Path,
        clock: &Clock,
    ) -> Result<Self, CompileError> {
        let quotas = limits::compile(config);
        let pepper = secrets.key_pepper.as_ref().map(|secret| Pepper::new(&bytes(secret)));
        let pepper = pepper.transpose().map_err(|e| CompileError::new("key_pepper", e))?;
        Ok(Self {
            development: config.auth.mode == AuthMode::Development,
            roles: AccountRole::ALL.map(|role| rights(config, role, &quotas)),
            environment: environment(config, secrets, pepper.as_ref())?,
            shared: Shared::compile(config, &quotas),
            quotas,
            pepper,
            tokens: tokens(config, secrets, clock)?,
            issuers: issuers(config, clock)?,
            services: services(config, secrets)?,
            blocklist: Arc::new(blocklist(config, base)?),
            mfa_issuer: config.auth.mfa.issuer.clone(),
            mfa_roles: config.auth.mfa.required_for.iter().copied().map(account_role).collect(),
            declared: declared(config, secrets)?,
        })
    }

    pub(super) const fn rights(&self, role: AccountRole) -> &RoleRights {
        let [read_only, user, admin, owner] = &self.roles;
        match role {
            AccountRole::ReadOnly => read_only,
            AccountRole::User => user,
            AccountRole::Admin => admin,
            AccountRole::Owner => owner,
        }
    }

    /// The quota of this name, or the default one.
    pub(super) fn quota(&self, name: &str) -> Arc<Limits> {
        let found = self.quotas.get(name).or_else(|| self.quotas.get("default"));
        found.map(Arc::clone).unwrap_or_default()
    }

    pub(super) fn has_quota(&self, name: &str) -> bool {
        self.quotas.contains_key(name)
    }

    /// The role of a user who is in no store: one for whom a service speaks, or that of the keys of
    /// the environment.
    pub(super) fn outside(&self, user: &str) -> Option<AccountRole> {
        match user.split_once(':')? {
            ("", ENVIRONMENT) => self.environment.as_ref().map(|environment| environment.role),
            (service, _) => self.services.role(service),
        }
    }

    pub(super) fn needs_mfa(&self, role: AccountRole) -> bool {
        self.mfa_roles.contains(&role)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("roles", &self.roles).finish_non_exhaustive()
    }
}

fn rights(config: &Config, role: AccountRole, quotas: &Named) -> RoleRights {
    let role = config.roles.get(role_name(role));
    RoleRights {
        layer: Arc::new(layer(&role.scopes, &role.models)),
        limits: quotas.get(&role.quota).map(Arc::clone).unwrap_or_default(),
        weight: role.weight,
    }
}

fn layer(scopes: &[String], models: &[String]) -> Layer {
    let models = Some(models.iter().map(|pattern| Glob::new(pattern)).collect());
    Layer { scopes: scopes.to_vec(), models, max_tokens: None }
}

pub(super) const fn account_role(role: RoleName) -> AccountRole {
    match role {
        RoleName::Owner => AccountRole::Owner,
        RoleName::Admin => AccountRole::Admin,
        RoleName::User => AccountRole::User,
        RoleName::ReadOnly => AccountRole::ReadOnly,
    }
}

const fn role_name(role: AccountRole) -> RoleName {
    match role {
        AccountRole::Owner => RoleName::Owner,
        AccountRole::Admin => RoleName::Admin,
        AccountRole::User => RoleName::User,
        AccountRole::ReadOnly => RoleName::ReadOnly,
    }
}

fn environment(
    config: &Config,
    secrets: &Secrets,
    pepper: Option<&Pepper>,
) -> Result<Option<Environment>, CompileError> {
    let (Some(block), Some(pepper)) = (&config.auth.environment_keys, pepper) else {
        return Ok(None);
    };
    let wrong = |e: &dyn fmt::Display| CompileError::new("environment_keys", e);
    let mut keys = Keyring::new().map_err(|e| wrong(&e))?;
    for text in &secrets.environment_keys {
        let key = ApiKey::parse(text.expose_secret()).map_err(|e| wrong(&e))?;
        if !keys.insert(key.id(), pepper.digest(&key), ()) {
            return Err(wrong(&format!("the key {} is there twice", key.id())));
        }
    }
    let layer = Arc::new(layer(&block.scopes, &block.models));
    Ok(Some(Environment { keys, role: account_role(block.role), layer }))
}

fn tokens(
    config: &Config,
    secrets: &Secrets,
    clock: &Clock,
) -> Result<Option<TokenService>, CompileError> {
    let Some(pem) = &secrets.signing_key else { return Ok(None) };
    let scoped = match config.auth.llm_token_algorithm {
        LlmTokenAlgorithm::Hs256 => ScopedAlgorithm::Hs256,
        LlmTokenAlgorithm::Eddsa => ScopedAlgorithm::EdDsa,
    };
    if scoped == ScopedAlgorithm::Hs256 && secrets.token_key.is_none() {
        return Ok(None);
    }
    let keys = TokenKeys {
        signing_key: pem.clone(),
        token_key: secrets.token_key.as_ref().map(bytes),
        accepted: secrets.accepted.iter().map(accepted).collect(),
    };
    let ttls = Ttls { user: config.auth.user_token_ttl, llm: config.auth.llm_token_ttl };
    TokenService::new(keys, clock.clone(), TokenRules { ttls, scoped })
        .map(Some)
        .map_err(|e| CompileError::new("signing_key, token_key or accept", e))
}

fn accepted(key: &Accepted) -> AcceptedKey {
    AcceptedKey {
        key: match key.kind {
            KeyKind::Signing => KeyMaterial::Signing(key.value.clone()),
            KeyKind::Token => KeyMaterial::Token(bytes(&key.value)),
        },
        until: key.until.map(|at| u64::try_from(at.as_second()).unwrap_or(0)),
    }
}

fn issuers(config: &Config, clock: &Clock) -> Result<Option<Issuers>, CompileError> {
    if config.auth.oidc.is_empty() {
        return Ok(None);
    }
    let wrong = |e: &dyn fmt::Display| CompileError::new("auth.oidc", e).at("auth.oidc");
    let fetch = HttpFetch::new().map_err(|e| wrong(&e))?;
    let issuers = config.auth.oidc.iter().map(issuer).collect();
    Issuers::new(issuers, Arc::new(fetch), clock.clone()).map(Some).map_err(|e| wrong(&e))
}

fn issuer(oidc: &Oidc) -> Issuer {
    let algorithm = |algorithm: &OidcAlgorithm| match algorithm {
        OidcAlgorithm::Rs256 => IssuerAlgorithm::Rs256,
        OidcAlgorithm::Es256 => IssuerAlgorithm::Es256,
        OidcAlgorithm::EdDsa => IssuerAlgorithm::EdDsa,
    };
    let roles = oidc.role_map.iter();
    Issuer {
        name: oidc.name.clone(),
        issuer: oidc.issuer.as_str().to_owned(),
        audience: oidc.audience.clone(),
        jwks_url: oidc.jwks_url.as_ref().map(|url| url.as_str().to_owned()),
        algorithms: oidc.algorithms.iter().map(algorithm).collect(),
        username_claim: oidc.username_claim.clone(),
        role_claim: oidc.role_claim.clone(),
        role_map: roles.map(|(value, role)| (value.clone(), account_role(*role))).collect(),
        default_role: oidc.default_role.map(account_role),
    }
}

fn services(config: &Config, secrets: &Secrets) -> Result<Services, CompileError> {
    let services = config.auth.services.iter().map(|service| Service {
        name: service.name.clone(),
        role: account_role(service.role),
        secret: secrets.service_secrets.get(&service.name).map(bytes),
        certificates: service.certificates.iter().map(|print| *print.as_bytes()).collect(),
        max_skew: service.max_skew,
    });
    Services::new(services.collect())
        .map_err(|e| CompileError::new("auth.services", e).at("auth.services"))
}

fn blocklist(config: &Config, base: &Path) -> Result<Blocklist, CompileError> {
    let Some(path) = &config.auth.password_blocklist else { return Ok(Blocklist::default()) };
    let wrong = |e: &dyn fmt::Display| {
        CompileError::new(&format!("blocklist {}", path.display()), e).at("auth.password_blocklist")
    };
    let path = base.join(path);
    if std::fs::metadata(&path).map_err(|e| wrong(&e))?.len() > MAX_BLOCKLIST {
        return Err(wrong(&"larger than 64 MiB"));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| wrong(&e))?;
    Ok(Blocklist::from_lines(&text))
}

pub(super) fn bytes(secret: &SecretString) -> SecretSlice<u8> {
    SecretSlice::from(secret.expose_secret().as_bytes().to_vec())
}

fn declared(config: &Config, secrets: &Secrets) -> Result<Declared, CompileError> {
    Ok(Declared { users: declared_users(config, secrets)?, keys: declared_keys(config)? })
}

fn declared_users(config: &Config, secrets: &Secrets) -> Result<Vec<NewUser>, CompileError> {
    let mut users = Vec::new();
    for user in &config.auth.users {
        let hash = secrets.password_hashes.get(&user.name).map_or("", ExposeSecret::expose_secret);
        PasswordHash::parse(hash)
            .map_err(|e| CompileError::new(&format!("password of user {}", user.name), e))?;
        users.push(NewUser {
            name: user.name.to_ascii_lowercase(),
            role: account_role(user.role),
            password_hash: Some(hash.to_owned()),
            email: None,
            source: Source::Config,
        });
    }
    Ok(users)
}

fn declared_keys(config: &Config) -> Result<Vec<Key>, CompileError> {
    let mut keys: Vec<Key> = Vec::new();
    for key in &config.auth.api_keys {
        let wrong = |error: ApiKeyError| CompileError::new(&format!("API key {}", key.id), error);
        let id: KeyId = key.id.parse().map_err(wrong)?;
        if keys.iter().any(|other| other.id == id) {
            return Err(CompileError::new("API keys", format!("two have the id {id}")));
        }
        keys.push(Key {
            id,
            user: key.user.to_ascii_lowercase(),
            name: key.name.clone(),
            digest: (*key.digest.as_bytes()).into(),
            scopes: key.scopes.clone(),
            models: key.models.clone(),
            networks: key.networks.clone(),
            quota: key.quota.clone(),
            expires_at: key.expires.map(|at| u64::try_from(at.as_second()).unwrap_or(0)),
            created_at: 0,
            created_by: "configuration".to_owned(),
            last_used_at: None,
            revoked_at: None,
            source: Source::Config,
        });
    }
    Ok(keys)
}
