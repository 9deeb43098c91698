//! One configuration, compiled: everything that a reload swaps at once. Who may come in is in
//! `access`.

mod access;
mod firewall;
mod limits;
mod opinion;

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use http::HeaderValue;
use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret;

use access::{Access, Environment};
pub use access::{Declared, RoleRights};
use firewall::Firewall;
pub(crate) use limits::{Meter, Shared, Sharer, limits, network};

use crate::accounts::directory::Directory;
use crate::accounts::oidc::Issuers;
use crate::accounts::policy::Blocklist;
use crate::accounts::service::Services;
use crate::accounts::{AccountRole, KeyId, Pepper, TokenService};
use crate::audit::chain::Digest;
use crate::authn::Identity;
use crate::clear::Judge;
use crate::clock::Clock;
use crate::config::{self, Config, Secrets};
use crate::glob::Glob;
use crate::metrics::Names;
use crate::opinion::Opinions;
use crate::prompt::{Caps, Piece};
use crate::queue::QueueLimits;
use crate::quota::{Level, Limits};
use crate::route::{Endpoint, Route, Rule, Table, Timeouts, Upstream, UpstreamKind};
use crate::scan::stream::StreamScanner;
use crate::scan::{Policy, Scanner};
use crate::standing::SubjectName;
use crate::surface::Operation;
use crate::usage::Tokenizer;
use crate::verdict::Denial;

/// A configuration in force.
pub struct Snapshot {
    routes: Table,
    spellings: HashMap<String, String>,
    caps: Caps,
    access: Access,
    firewall: Firewall,
    guard: Option<Arc<Opinions>>,
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
        let firewall = Firewall::compile(config, base)?;
        Ok(Self {
            routes: routes(config, secrets, base, &firewall)?,
            spellings: spellings(config),
            caps: caps(config),
            access: Access::compile(config, secrets, base, clock)?,
            firewall,
            guard: opinion::compile(config, secrets, base, clock)?.map(Arc::new),
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

    /// What a role may do.
    #[must_use]
    pub const fn rights(&self, role: AccountRole) -> &RoleRights {
        self.access.rights(role)
    }

    /// The quota of this name; the default one in the place of one that is gone.
    pub(crate) fn quota(&self, name: &str) -> Arc<Limits> {
        self.access.quota(name)
    }

    /// The limits that the configuration has for a subject; `None` if there is no such subject.
    /// Users of services are only known by the service that speaks for them.
    #[must_use]
    pub fn limits_of(&self, name: &SubjectName, directory: &Directory) -> Option<Arc<Limits>> {
        match name.level() {
            Level::User => Some(Arc::clone(&self.rights(self.role_of(name, directory)?).limits)),
            Level::Key => {
                let id = name.id().parse().ok()?;
                let of_environment = || self.environment_ids().any(|known| known == id);
                match directory.key(id) {
                    Some(key) => {
                        Some(key.rights.quota.as_deref().map(|q| self.quota(q)).unwrap_or_default())
                    }
                    None => of_environment().then(Arc::default),
                }
            }
            Level::Role | Level::Model | Level::Upstream | Level::Address | Level::Global => {
                self.shared().limits(name)
            }
        }
    }

    /// The role of a user, or of the user of a key, wherever they are known; `None` for others and for
    /// what has no role.
    #[must_use]
    pub fn role_of(&self, name: &SubjectName, directory: &Directory) -> Option<AccountRole> {
        let of_user = |user: &str| directory.person(user).map(|person| person.role);
        match name.level() {
            Level::User => of_user(name.id()).or_else(|| self.access.outside(name.id())),
            Level::Key => {
                let id = name.id().parse().ok()?;
                let of_environment = || {
                    let environment = self.environment().filter(|e| e.keys.ids().any(|k| k == id));
                    environment.map(|environment| environment.role)
                };
                let key = directory.key(id);
                key.and_then(|key| of_user(&key.user)).or_else(of_environment)
            }
            Level::Role | Level::Model | Level::Upstream | Level::Address | Level::Global => None,
        }
    }

    /// The quotas that several callers share.
    pub(crate) const fn shared(&self) -> &Shared {
        &self.access.shared
    }

    /// Whether there is a quota of this name.
    #[must_use]
    pub fn has_quota(&self, name: &str) -> bool {
        self.access.has_quota(name)
    }

    /// Whether users of this role must show a second factor.
    #[must_use]
    pub fn needs_mfa(&self, role: AccountRole) -> bool {
        self.access.needs_mfa(role)
    }

    /// The name that authenticator apps show.
    #[must_use]
    pub fn mfa_issuer(&self) -> &str {
        &self.access.mfa_issuer
    }

    /// Passwords that nobody may take.
    #[must_use]
    pub const fn blocklist(&self) -> &Arc<Blocklist> {
        &self.access.blocklist
    }

    /// Whether callers on this machine need no credential.
    #[must_use]
    pub const fn is_development(&self) -> bool {
        self.access.development
    }

    /// What keys the digests of API keys.
    #[must_use]
    pub const fn pepper(&self) -> Option<&Pepper> {
        self.access.pepper.as_ref()
    }

    /// The issuer of tokens, if there are keys for it.
    #[must_use]
    pub const fn tokens(&self) -> Option<&TokenService> {
        self.access.tokens.as_ref()
    }

    /// The external issuers whose tokens are accepted.
    #[must_use]
    pub const fn issuers(&self) -> Option<&Issuers> {
        self.access.issuers.as_ref()
    }

    /// The services that may speak for users.
    pub(crate) const fn services(&self) -> &Services {
        &self.access.services
    }

    /// The keys that the environment gave.
    pub(crate) const fn environment(&self) -> Option<&Environment> {
        self.access.environment.as_ref()
    }

    /// The public ids of the keys that the environment gave.
    pub fn environment_ids(&self) -> impl Iterator<Item = KeyId> {
        self.environment().into_iter().flat_map(|environment| environment.keys.ids())
    }

    /// What the configuration declares for the account store.
    #[must_use]
    pub const fn declared(&self) -> &Declared {
        &self.access.declared
    }

    /// The scanner with its rules.
    #[must_use]
    pub const fn scanner(&self) -> &Arc<Scanner> {
        &self.firewall.scanner
    }

    /// A firewall policy by name.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&Arc<Policy>> {
        self.firewall.policy(name)
    }

    /// The strict form of a firewall policy, by name.
    #[must_use]
    pub fn strict_policy(&self, name: &str) -> Option<&Arc<Policy>> {
        self.firewall.strict_policy(name)
    }

    /// The scanner of answers of a policy, by name. The first call takes a few hundred
    /// milliseconds, so it should not be made on an async thread.
    #[must_use]
    pub fn stream(&self, name: &str) -> Option<Arc<StreamScanner>> {
        self.firewall.stream(name)
    }

    /// The guard of second opinions.
    #[must_use]
    pub const fn guard(&self) -> Option<&Arc<Opinions>> {
        self.guard.as_ref()
    }

    /// By what the prompt of a caller is judged at this Unix second.
    pub(crate) fn judge(
        &self,
        identity: &Identity,
        route: &Route,
        tightened: bool,
        now: u64,
    ) -> Judge {
        Judge {
            scanner: Arc::clone(&self.firewall.scanner),
            policy: self.firewall.policy_for(identity, route, tightened),
            on_error: self.firewall.on_error,
            guard: self.guard.clone(),
            now,
        }
    }

    /// Networks whose `X-Forwarded-For` is believed.
    #[must_use]
    pub fn trusted_proxies(&self) -> &[IpNet] {
        &self.trusted_proxies
    }

    /// The limits of the queue of each upstream.
    pub(crate) fn queues(&self) -> impl Iterator<Item = (&str, QueueLimits)> {
        self.routes.upstreams().into_iter().map(|(name, upstream)| (name, upstream.queue))
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
        token_context: caps.token_context,
        extra_params: caps.extra_params.clone(),
    }
}

/// From canonical name to the upstream's spelling, for every declared model.
fn spellings(config: &Config) -> HashMap<String, String> {
    let declared = config.upstreams.values().flat_map(|upstream| &upstream.models);
    declared.filter_map(|name| Some((crate::authz::canonical(name)?, name.clone()))).collect()
}

fn routes(
    config: &Config,
    secrets: &Secrets,
    base: &Path,
    firewall: &Firewall,
) -> Result<Table, CompileError> {
    let mut upstreams = HashMap::new();
    for (name, upstream) in &config.upstreams {
        let compiled = compile_upstream(name, upstream, secrets, base)?;
        upstreams.insert(name.as_str(), Arc::new(compiled));
    }
    let default = firewall.policy("default").cloned().unwrap_or_default();
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
            policy: firewall
                .policy(&route.policy)
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
        queue: QueueLimits {
            concurrent: upstream.concurrent.and_then(NonZeroU32::new),
            waiting: upstream.queue.waiting,
            per_user: upstream.queue.per_user,
            deadline: upstream.queue.deadline,
        },
        tokenizer: tokenizer(name, upstream, base)?,
        count_load: upstream.count_load,
    })
}

fn tokenizer(
    name: &str,
    upstream: &config::Upstream,
    base: &Path,
) -> Result<Option<Tokenizer>, CompileError> {
    let file = upstream.tokenizer.as_ref().map(|path| Tokenizer::from_file(&base.join(path)));
    file.transpose().map_err(|e| {
        let error = CompileError::new(&format!("upstream {name}: tokenizer"), e);
        error.at(format!("upstreams.{name}.tokenizer"))
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
