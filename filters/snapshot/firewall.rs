//! The firewall, compiled: the rules, the policies, and who has which.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::CompileError;
use super::access::account_role;
use crate::accounts::AccountRole;
use crate::authn::Identity;
use crate::clear::OnError;
use crate::config::{
    self, Config, DataAction, Images, InjectionAction, MarkAction, Resolved, ResolvedTerms,
    ScannerFailure, TextRole,
};
use crate::glob::Glob;
use crate::prompt::Role;
use crate::route::Route;
use crate::scan::stream::StreamScanner;
use crate::scan::{Action, Exception, Handling, Level, Policy, Scanner, Terms};

/// What prompts are judged by.
pub(super) struct Firewall {
    pub(super) scanner: Arc<Scanner>,
    pub(super) on_error: OnError,
    policies: HashMap<String, Compiled>,
    assignments: Vec<Assigned>,
}

/// A policy in all its forms.
struct Compiled {
    usual: Arc<Policy>,
    /// While the firewall is tightened.
    strict: Arc<Policy>,
    /// What answers are judged by; made when it is first asked for.
    stream: OnceLock<Option<Arc<StreamScanner>>>,
}

/// Callers with a policy of their own.
struct Assigned {
    policy: Arc<Policy>,
    keys: Vec<String>,
    users: Vec<String>,
    roles: Vec<AccountRole>,
}

impl Firewall {
    pub(super) fn compile(config: &Config, base: &Path) -> Result<Self, CompileError> {
        let policies = policies(config)?;
        let firewall = &config.firewall;
        let assigned = firewall.assignments.iter().filter_map(|assignment| {
            let policy = Arc::clone(&policies.get(&assignment.policy)?.usual);
            let roles = assignment.roles.iter().map(|&role| account_role(role)).collect();
            let (keys, users) = (assignment.keys.clone(), assignment.users.clone());
            Some(Assigned { policy, keys, users, roles })
        });
        Ok(Self {
            scanner: Arc::new(scanner(config, base)?),
            on_error: match firewall.on_error {
                ScannerFailure::Block => OnError::Block,
                ScannerFailure::Allow => OnError::Allow,
            },
            assignments: assigned.collect(),
            policies,
        })
    }

    /// The policy of this name.
    pub(super) fn policy(&self, name: &str) -> Option<&Arc<Policy>> {
        self.policies.get(name).map(|compiled| &compiled.usual)
    }

    /// Its strict form.
    pub(super) fn strict_policy(&self, name: &str) -> Option<&Arc<Policy>> {
        self.policies.get(name).map(|compiled| &compiled.strict)
    }

    /// The policy for a request: that of the first assignment that fits its caller, else that of its
    /// route; its strict form if the firewall is tightened.
    pub(super) fn policy_for(
        &self,
        identity: &Identity,
        route: &Route,
        tightened: bool,
    ) -> Arc<Policy> {
        let assigned = self.assignments.iter().find(|assigned| assigned.fits(identity));
        let usual = assigned.map_or_else(|| route.policy(), |assigned| &assigned.policy);
        let strict = if tightened { self.strict_policy(&usual.name) } else { None };
        Arc::clone(strict.unwrap_or(usual))
    }

    pub(super) fn stream(&self, name: &str) -> Option<Arc<StreamScanner>> {
        let Compiled { usual, stream, .. } = self.policies.get(name)?;
        let make = || {
            let made = StreamScanner::of_policy(self.scanner.rules(), usual);
            made.inspect_err(|error| tracing::error!(%error, name, "no scanner of answers")).ok()
        };
        stream.get_or_init(|| make().map(Arc::new)).clone()
    }
}

impl Assigned {
    /// Whether the caller is in every list that is not empty.
    fn fits(&self, identity: &Identity) -> bool {
        let keyed =
            |keys: &[String]| identity.api_key().is_some_and(|id| keys.iter().any(|key| key == id));
        (self.keys.is_empty() || keyed(&self.keys))
            && (self.users.is_empty() || self.users.iter().any(|user| user == identity.user()))
            && (self.roles.is_empty() || self.roles.contains(&identity.role()))
    }
}

fn policies(config: &Config) -> Result<HashMap<String, Compiled>, CompileError> {
    let firewall = &config.firewall;
    let compiled = firewall.policies.keys().map(|name| {
        let resolved = firewall.resolve(name).map_err(|_| {
            let error = CompileError::new("policy", format!("{name} extends no policy, or itself"));
            error.at(format!("firewall.policies.{name}"))
        })?;
        let usual = Arc::new(policy(name, &resolved, exceptions(&firewall.exceptions, name)));
        let strict = Arc::new(usual.tightened(Level::Strict));
        Ok((name.clone(), Compiled { usual, strict, stream: OnceLock::new() }))
    });
    compiled.collect()
}

fn policy(name: &str, resolved: &Resolved, exceptions: Vec<Exception>) -> Policy {
    let level = resolved.level;
    let terms = resolved.terms.iter();
    let roles: HashMap<Role, Terms> =
        terms.map(|(&role, own)| (role.into(), terms_of(own, level, role))).collect();
    Policy {
        name: Arc::from(name),
        monitor: resolved.monitor,
        terms: roles.get(&Role::User).cloned().unwrap_or_else(|| Terms::of(level, Role::User)),
        roles,
        exceptions,
        on_overrun: resolved.on_overrun.map_or(level.overrun(), mark),
        time_budget: resolved.time_budget,
        handling: Handling {
            images: resolved.images == Images::Allow,
            max_image_bytes: resolved.max_image_bytes,
            max_chars: resolved.max_prompt_chars,
            sanitize: resolved.sanitize,
            spotlight: resolved.spotlight,
            preamble: resolved.preamble.as_deref().map(Arc::from),
        },
    }
}

fn terms_of(own: &ResolvedTerms, level: Level, role: TextRole) -> Terms {
    let preset = Terms::of(level, role.into());
    Terms {
        injection: mark(own.injection),
        threshold: own.threshold.map_or(preset.threshold, |threshold| threshold as f32),
        secrets: data(own.secrets),
        pii: data(own.pii),
        pii_kinds: own.pii_kinds.clone(),
        pii_actions: own.pii_actions.iter().map(|(&kind, &action)| (kind, data(action))).collect(),
        code: own.code.map_or(preset.code, mark),
        hidden_text: own.hidden_text.map_or(preset.hidden_text, mark),
        suspicious_encoding: own.suspicious_encoding.map_or(preset.suspicious_encoding, mark),
        toxicity: mark(own.toxicity),
        toxicity_threshold: own
            .toxicity_threshold
            .map_or(preset.toxicity_threshold, |threshold| threshold as f32),
    }
}

const fn mark(action: MarkAction) -> Action {
    match action {
        InjectionAction::Allow => Action::Allow,
        InjectionAction::Flag => Action::Flag,
        InjectionAction::Block => Action::Block,
    }
}

const fn data(action: DataAction) -> Action {
    match action {
        DataAction::Allow => Action::Allow,
        DataAction::Flag => Action::Flag,
        DataAction::Redact => Action::Redact,
        DataAction::Pseudonymise => Action::Pseudonymise,
        DataAction::Block => Action::Block,
    }
}

/// Those that hold under a policy.
fn exceptions(all: &[config::Exception], policy: &str) -> Vec<Exception> {
    let of_policy = |exception: &&config::Exception| {
        exception.policies.is_empty() || exception.policies.iter().any(|name| name == policy)
    };
    let compiled = all.iter().filter(of_policy).map(|exception| Exception {
        id: Arc::from(exception.id.as_str()),
        rules: exception.rules.iter().map(|rule| Glob::new(rule)).collect(),
        roles: exception.roles.iter().map(|&role| role.into()).collect(),
        until: exception.expires.map(|at| u64::try_from(at.as_second()).unwrap_or(0)),
    });
    compiled.collect()
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
