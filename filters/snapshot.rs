//! One configuration, compiled: everything that a reload swaps at once.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretSlice, SecretString};

use crate::accounts::{
    AccountRole, ApiKeyError, Decoy, Keyring, PasswordHash, Pepper, Profile, TokenService, Ttls,
};
use crate::audit::chain::Digest;
use crate::authn::Identity;
use crate::authz::Layer;
use crate::clear::OnError;
use crate::clock::Clock;
use crate::config::{
    self, Config, DataAction, InjectionAction, PasswordProfile, Quota, RoleName, ScannerFailure,
    Secrets,
};
use crate::glob::Glob;
use crate::metrics::Names;
use crate::prompt::{Caps, Piece};
use crate::quota::{Limits, PerWindow, Rate};
use crate::route::{Endpoint, Route, Rule, Table, Timeouts, Upstream, UpstreamKind};
use crate::scan::{Action, PiiKind, Policy, Scanner};
use crate::surface::Operation;
use crate::verdict::Denial;

/// A configured account.
#[derive(Debug)]
pub struct User {
    identity: Identity,
    password: PasswordHash,
}

impl User {
    /// The account with the rights of its role.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its password.
    #[must_use]
    pub const fn password(&self) -> &PasswordHash {
        &self.password
    }
}

/// A configuration in force.
pub struct Snapshot {
    routes: Table,
    spellings: HashMap<String, String>,
    caps: Caps,
    users: HashMap<String, User>,
    decoy: Decoy,
    keyring: Option<Keyring<Arc<Identity>>>,
    tokens: Option<TokenService>,
    scanner: Arc<Scanner>,
    policies: HashMap<String, Arc<Policy>>,
    on_error: OnError,
    trusted_proxies: Vec<IpNet>,
    digest_key: [u8; 32],
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("routes", &self.routes).finish_non_exhaustive()
    }
}

/// A configuration that is valid by itself but cannot be put in force.
#[derive(Debug)]
pub struct CompileError {
    path: String,
    message: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CompileError {}

impl CompileError {
    fn new(what: &str, error: impl fmt::Display) -> Self {
        Self { path: String::new(), message: format!("{what}: {error}") }
    }

    fn at(self, path: impl Into<String>) -> Self {
        Self { path: path.into(), ..self }
    }

    /// The key of the configuration that leads there, such as `firewall.rules[0]`; empty for none.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Snapshot {
    /// Compiles a configuration. Paths in it are relative to `base`.
    ///
    /// # Errors
    /// If a file that it names cannot be read, or a key or rule in one is not usable.
    pub fn compile(
        config: &Config,
        secrets: &Secrets,
        base: &Path,
        clock: &Clock,
    ) -> Result<Self, CompileError> {
        let users = users(config, secrets)?;
        let policies = policies(config);
        let profile = match config.auth.password_profile {
            PasswordProfile::Owasp => Profile::Owasp,
            PasswordProfile::Strong => Profile::Strong,
        };
        let hashes = users.values().map(User::password);
        Ok(Self {
            routes: routes(config, secrets, base, &policies)?,
            spellings: spellings(config),
            caps: caps(config),
            decoy: Decoy::new(hashes, profile).map_err(|e| CompileError::new("decoy", e))?,
            keyring: keyring(config, secrets, &users)?,
            users,
            tokens: tokens(config, secrets, clock)?,
            scanner: Arc::new(scanner(config, base)?),
            policies,
            on_error: match config.firewall.on_error {
                ScannerFailure::Block => OnError::Block,
                ScannerFailure::Allow => OnError::Allow,
            },
            trusted_proxies: config.server.trusted_proxies.clone(),
            digest_key: digest_key(secrets)?,
        })
    }

    /// The routing table.
    #[must_use]
    pub const fn routes(&self) -> &Table {
        &self.routes
    }

    /// Finds the route of a request.
    ///
    /// # Errors
    /// As [`Table::find`].
    pub fn route(&self, operation: &Operation, model: Option<&str>) -> Result<Route, Denial> {
        self.routes.find(operation, model)
    }

    /// How the upstream spells a model that is not all lower case.
    #[must_use]
    pub fn spelling(&self, canonical: &str) -> Option<String> {
        self.spellings.get(canonical).cloned()
    }

    /// What one request may ask for.
    #[must_use]
    pub const fn caps(&self) -> &Caps {
        &self.caps
    }

    /// A user by name. Names are ASCII and compared without case.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(&name.to_ascii_lowercase())
    }

    /// What makes a refused login cost the same for all names.
    #[must_use]
    pub const fn decoy(&self) -> &Decoy {
        &self.decoy
    }

    /// The API keys, if there is a pepper for them.
    pub(crate) const fn keyring(&self) -> Option<&Keyring<Arc<Identity>>> {
        self.keyring.as_ref()
    }

    /// The issuer of tokens, if there are keys for it.
    #[must_use]
    pub const fn tokens(&self) -> Option<&TokenService> {
        self.tokens.as_ref()
    }

    /// The scanner with its rules.
    #[must_use]
    pub const fn scanner(&self) -> &Arc<Scanner> {
        &self.scanner
    }

    /// A firewall policy by name.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&Arc<Policy>> {
        self.policies.get(name)
    }

    /// What happens when the scanner fails.
    #[must_use]
    pub const fn on_error(&self) -> OnError {
        self.on_error
    }

    /// Networks whose `X-Forwarded-For` is believed.
    #[must_use]
    pub fn trusted_proxies(&self) -> &[IpNet] {
        &self.trusted_proxies
    }

    /// The names that may become labels of metrics.
    #[must_use]
    pub fn names(&self) -> Names {
        Names {
            models: self.spellings.values().map(String::as_str).collect(),
            upstreams: self.routes.upstreams().into_keys().collect(),
        }
    }

    /// The digest of a prompt for the audit record: keyed, so that nobody can try prompts out.
    pub(crate) fn digest(&self, pieces: &[Piece]) -> Digest {
        Digest::keyed(&self.digest_key, pieces.iter().map(|piece| piece.text.as_bytes()))
    }
}

fn users(config: &Config, secrets: &Secrets) -> Result<HashMap<String, User>, CompileError> {
    let mut users = HashMap::new();
    for user in &config.auth.users {
        let what = format!("password of user {}", user.name);
        let hash = secrets.password_hashes.get(&user.name).map_or("", ExposeSecret::expose_secret);
        let password = PasswordHash::parse(hash).map_err(|e| CompileError::new(&what, e))?;
        let role = config.roles.get(user.role);
        let layer = Layer {
            scopes: role.scopes.clone(),
            models: Some(globs(&role.models)),
            max_tokens: None,
        };
        let limits = config.quotas.get(&role.quota).map(limits).unwrap_or_default();
        let identity = Identity::user_of(
            &user.name,
            account_role(user.role),
            Arc::new(layer),
            Arc::new(limits),
        );
        users.insert(user.name.to_ascii_lowercase(), User { identity, password });
    }
    Ok(users)
}

const fn account_role(role: RoleName) -> AccountRole {
    match role {
        RoleName::Owner => AccountRole::Owner,
        RoleName::Admin => AccountRole::Admin,
        RoleName::User => AccountRole::User,
        RoleName::ReadOnly => AccountRole::ReadOnly,
    }
}

fn globs(patterns: &[String]) -> Vec<Glob> {
    patterns.iter().map(|pattern| Glob::new(pattern)).collect()
}

fn limits(quota: &Quota) -> Limits {
    let seconds = |limit: Option<u64>| limit.map(|seconds| seconds.saturating_mul(1000));
    Limits {
        requests: quota.requests_per_minute.and_then(|rate| Rate::new(rate, quota.burst)),
        tokens: PerWindow {
            minute: quota.tokens_per_minute,
            hour: quota.tokens_per_hour,
            day: quota.tokens_per_day,
        },
        gpu_ms: PerWindow {
            minute: seconds(quota.gpu_seconds_per_minute),
            hour: seconds(quota.gpu_seconds_per_hour),
            day: seconds(quota.gpu_seconds_per_day),
        },
        concurrent: quota.concurrent,
    }
}

fn keyring(
    config: &Config,
    secrets: &Secrets,
    users: &HashMap<String, User>,
) -> Result<Option<Keyring<Arc<Identity>>>, CompileError> {
    let Some(secret) = &secrets.key_pepper else { return Ok(None) };
    let pepper = Pepper::new(&bytes(secret)).map_err(|e| CompileError::new("key_pepper", e))?;
    let mut ring = Keyring::new(pepper).map_err(|e| CompileError::new("randomness", e))?;
    for key in &config.auth.api_keys {
        let wrong = |error: ApiKeyError| CompileError::new(&format!("API key {}", key.id), error);
        let owner = users.get(&key.user.to_ascii_lowercase());
        let owner = owner.ok_or_else(|| wrong(ApiKeyError::Unknown))?;
        let layer = Layer {
            scopes: key.scopes.clone(),
            models: Some(globs(&key.models)),
            max_tokens: None,
        };
        let expires = key.expires.map(|at| u64::try_from(at.as_second()).unwrap_or(0));
        let identity = owner.identity.by_key(key.id.clone(), layer, expires);
        let id = key.id.parse().map_err(wrong)?;
        let digest = (*key.digest.as_bytes()).into();
        if !ring.insert(id, digest, Arc::new(identity)) {
            return Err(CompileError::new("API keys", format!("two have the id {}", key.id)));
        }
    }
    Ok(Some(ring))
}

fn tokens(
    config: &Config,
    secrets: &Secrets,
    clock: &Clock,
) -> Result<Option<TokenService>, CompileError> {
    let (Some(pem), Some(key)) = (&secrets.signing_key, &secrets.token_key) else {
        return Ok(None);
    };
    let ttls = Ttls { user: config.auth.user_token_ttl, llm: config.auth.llm_token_ttl };
    TokenService::new(pem, &bytes(key), clock.clone(), ttls)
        .map(Some)
        .map_err(|e| CompileError::new("signing_key or token_key", e))
}

fn bytes(secret: &SecretString) -> SecretSlice<u8> {
    SecretSlice::from(secret.expose_secret().as_bytes().to_vec())
}

/// Derived from the pepper; without one it is random, and digests compare within one run.
fn digest_key(secrets: &Secrets) -> Result<[u8; 32], CompileError> {
    match &secrets.key_pepper {
        Some(pepper) => Ok(Digest::keyed(
            pepper.expose_secret().as_bytes(),
            [b"portcullis prompt digest".as_slice()],
        )
        .into()),
        None => crate::clock::random().map_err(|e| CompileError::new("randomness", e)),
    }
}

fn caps(config: &Config) -> Caps {
    let caps = &config.caps;
    let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Caps {
        max_tokens: caps.max_tokens,
        choices: caps.choices,
        num_ctx: caps.num_ctx,
        keep_alive: caps.keep_alive,
        top_logprobs: caps.top_logprobs,
        inputs: count(caps.inputs),
        messages: count(caps.messages),
        extra_params: caps.extra_params.clone(),
    }
}

/// From canonical name to the upstream's spelling, for every declared model.
fn spellings(config: &Config) -> HashMap<String, String> {
    let declared = config.upstreams.values().flat_map(|upstream| &upstream.models);
    declared.filter_map(|name| Some((crate::authz::canonical(name)?, name.clone()))).collect()
}

fn policies(config: &Config) -> HashMap<String, Arc<Policy>> {
    let compiled = config.firewall.policies.iter();
    compiled.map(|(name, policy)| (name.clone(), Arc::new(compile_policy(policy)))).collect()
}

fn compile_policy(policy: &config::Policy) -> Policy {
    let data = |action| match action {
        DataAction::Allow => Action::Allow,
        DataAction::Flag => Action::Flag,
        DataAction::Redact => Action::Redact,
        DataAction::Block => Action::Block,
    };
    Policy {
        injection: match policy.injection {
            InjectionAction::Allow => Action::Allow,
            InjectionAction::Flag => Action::Flag,
            InjectionAction::Block => Action::Block,
        },
        threshold: policy.threshold as f32,
        secrets: data(policy.secrets),
        pii: data(policy.pii),
        pii_kinds: policy
            .pii_kinds
            .iter()
            .map(|kind| match kind {
                config::PiiKind::Email => PiiKind::Email,
                config::PiiKind::Card => PiiKind::Card,
            })
            .collect(),
    }
}

fn scanner(config: &Config, base: &Path) -> Result<Scanner, CompileError> {
    let mut files = Vec::new();
    for (index, path) in config.firewall.rules.iter().enumerate() {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(base.join(path)).map_err(|e| {
            let error = CompileError::new(&format!("rules {name}"), e);
            error.at(format!("firewall.rules[{index}]"))
        })?;
        files.push((name, text));
    }
    Scanner::with_files(&files).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        CompileError { path: "firewall.rules".to_owned(), message: lines.join("\n") }
    })
}

fn routes(
    config: &Config,
    secrets: &Secrets,
    base: &Path,
    policies: &HashMap<String, Arc<Policy>>,
) -> Result<Table, CompileError> {
    let mut upstreams = HashMap::new();
    for (name, upstream) in &config.upstreams {
        let compiled = compile_upstream(name, upstream, secrets, base)?;
        upstreams.insert(name.as_str(), Arc::new(compiled));
    }
    let default = policies.get("default").cloned().unwrap_or_default();
    if config.routes.is_empty() {
        let rule = |upstream: &Arc<Upstream>| Rule {
            path: String::new(),
            model: None,
            upstream: Arc::clone(upstream),
            policy: Arc::clone(&default),
            max_body_bytes: None,
        };
        return Ok(Table::new(upstreams.values().map(rule).collect()));
    }
    let rules = config.routes.iter().map(|route| {
        let upstream = upstreams.get(route.upstream.as_str());
        Ok(Rule {
            path: route.matches.path.clone(),
            model: route.matches.model.as_deref().map(Glob::new),
            upstream: upstream
                .map(Arc::clone)
                .ok_or_else(|| CompileError::new("no such upstream", &route.upstream))?,
            policy: policies
                .get(&route.policy)
                .cloned()
                .ok_or_else(|| CompileError::new("no such policy", &route.policy))?,
            max_body_bytes: route.max_body_bytes,
        })
    });
    Ok(Table::new(rules.collect::<Result<_, CompileError>>()?))
}

fn compile_upstream(
    name: &str,
    upstream: &config::Upstream,
    secrets: &Secrets,
    base: &Path,
) -> Result<Upstream, CompileError> {
    let wrong = |what: &str| format!("upstream {name}: {what}");
    let credential = match secrets.upstream_keys.get(name) {
        None => None,
        Some(key) => {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
                .map_err(|_| CompileError::new(&wrong("api_key"), "not a header value"))?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    let ca = match &upstream.ca_file {
        None => None,
        Some(path) => Some(certificates(&base.join(path)).map_err(|e| {
            CompileError::new(&wrong("ca_file"), e).at(format!("upstreams.{name}.ca_file"))
        })?),
    };
    Ok(Upstream {
        name: name.to_owned(),
        kind: match upstream.kind {
            config::UpstreamKind::Ollama => UpstreamKind::Ollama,
            config::UpstreamKind::Openai => UpstreamKind::OpenAi,
        },
        endpoints: upstream.endpoints().map(endpoint).collect(),
        credential,
        ca,
        timeouts: Timeouts {
            connect: upstream.connect_timeout,
            first_byte: upstream.first_byte_timeout,
            write: upstream.write_timeout,
            idle: upstream.idle_timeout,
        },
        gpus: upstream.gpus,
        tokens_param: upstream.max_tokens_param.clone(),
    })
}

fn endpoint(endpoint: &config::Endpoint) -> Endpoint {
    Endpoint {
        tls: endpoint.tls,
        host: endpoint.host.clone(),
        port: endpoint.port,
        base_path: endpoint.base_path.clone(),
    }
}

fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let pem = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|e| format!("{}: {e}", path.display()))?;
    if found.is_empty() {
        return Err(format!("{}: no certificate in it", path.display()));
    }
    Ok(found.into_iter().map(|der| der.to_vec()).collect())
}
