//! From the policies of a file, which extend one another, to policies that leave nothing open.

use std::collections::BTreeMap;
use std::time::Duration;

use super::policy::{DataAction, Images, InjectionAction, MarkAction, Policy, Terms, TextRole};
use super::{Firewall, PiiKind};
use crate::scan::{Level, Modes};

/// Longest chain of policies that extend one another.
const MAX_CHAIN: usize = 16;

/// A policy of which nothing is left open.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Resolved {
    pub(crate) level: Level,
    pub(crate) monitor: bool,
    /// `None` is that of the level.
    pub(crate) on_overrun: Option<MarkAction>,
    pub(crate) time_budget: Option<Duration>,
    pub(crate) images: Images,
    pub(crate) max_image_bytes: u64,
    pub(crate) max_prompt_chars: Option<u64>,
    pub(crate) sanitize: Modes,
    pub(crate) spotlight: bool,
    pub(crate) preamble: Option<String>,
    /// For every role of texts.
    pub(crate) terms: BTreeMap<TextRole, ResolvedTerms>,
}

/// Terms of which nothing is left open, but what the level says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ResolvedTerms {
    pub(crate) injection: InjectionAction,
    /// `None` is that of the level.
    pub(crate) threshold: Option<f64>,
    pub(crate) secrets: DataAction,
    pub(crate) pii: DataAction,
    pub(crate) pii_kinds: Vec<PiiKind>,
    pub(crate) pii_actions: BTreeMap<PiiKind, DataAction>,
    /// `None` is that of the level.
    pub(crate) code: Option<MarkAction>,
    /// `None` is that of the level.
    pub(crate) hidden_text: Option<MarkAction>,
    /// `None` is that of the level.
    pub(crate) suspicious_encoding: Option<MarkAction>,
    pub(crate) toxicity: MarkAction,
    /// `None` is the built-in one.
    pub(crate) toxicity_threshold: Option<f64>,
}

/// A policy that has no end, or none to extend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ResolveError {
    /// There is no policy of this name.
    Unknown(String),
    /// It extends itself, or too many.
    Endless,
}

impl Firewall {
    /// A policy with all that it inherits.
    ///
    /// # Errors
    /// If it or one that it extends does not exist, or if it extends itself.
    pub(crate) fn resolve(&self, name: &str) -> Result<Resolved, ResolveError> {
        let mut policy = Policy::default();
        let mut next = Some(name);
        for _ in 0..MAX_CHAIN {
            let Some(name) = next else { return Ok(filled(policy.over(&Policy::builtin()))) };
            let found = self.policies.get(name);
            let found = found.ok_or_else(|| ResolveError::Unknown(name.to_owned()))?;
            policy = policy.over(found);
            next = found.extends.as_deref();
        }
        Err(ResolveError::Endless)
    }
}

impl Policy {
    /// This policy, and that of `base` where it says nothing. A level of its own is not overruled by
    /// what `base` made of another.
    fn over(self, base: &Self) -> Self {
        let levelled = self.level.is_some();
        let unless = |value: Option<f64>| value.filter(|_| !levelled);
        let unless_mark = |value: Option<MarkAction>| value.filter(|_| !levelled);
        let mut roles = base.roles.clone();
        for (role, own) in self.roles {
            let terms = roles.remove(&role).unwrap_or_default();
            roles.insert(role, own.over(&terms));
        }
        Self {
            extends: None,
            level: self.level.or(base.level),
            monitor: self.monitor.or(base.monitor),
            injection: self.injection.or(base.injection),
            threshold: self.threshold.or(unless(base.threshold)),
            untrusted_threshold: self.untrusted_threshold.or(unless(base.untrusted_threshold)),
            secrets: self.secrets.or(base.secrets),
            pii: self.pii.or(base.pii),
            pii_kinds: self.pii_kinds.or_else(|| base.pii_kinds.clone()),
            pii_actions: self.pii_actions.or_else(|| base.pii_actions.clone()),
            code: self.code.or(unless_mark(base.code)),
            hidden_text: self.hidden_text.or(unless_mark(base.hidden_text)),
            suspicious_encoding: self.suspicious_encoding.or(unless_mark(base.suspicious_encoding)),
            toxicity: self.toxicity.or(base.toxicity),
            toxicity_threshold: self.toxicity_threshold.or(base.toxicity_threshold),
            on_overrun: self.on_overrun.or(unless_mark(base.on_overrun)),
            time_budget: self.time_budget.or(base.time_budget),
            images: self.images.or(base.images),
            max_image_bytes: self.max_image_bytes.or(base.max_image_bytes),
            max_prompt_chars: self.max_prompt_chars.or(base.max_prompt_chars),
            sanitize: self.sanitize.or(base.sanitize),
            spotlight: self.spotlight.or(base.spotlight),
            preamble: self.preamble.or_else(|| base.preamble.clone()),
            roles,
        }
    }

    /// What holds for texts of a role that has no terms of its own.
    fn terms(&self, role: TextRole) -> Terms {
        let threshold = match role {
            TextRole::Tool => self.untrusted_threshold,
            TextRole::System | TextRole::User | TextRole::Assistant | TextRole::Definition => {
                self.threshold
            }
        };
        Terms {
            injection: self.injection,
            threshold,
            secrets: self.secrets,
            pii: self.pii,
            pii_kinds: self.pii_kinds.clone(),
            pii_actions: self.pii_actions.clone(),
            code: self.code,
            hidden_text: self.hidden_text,
            suspicious_encoding: self.suspicious_encoding,
            toxicity: self.toxicity,
            toxicity_threshold: self.toxicity_threshold,
        }
    }
}

impl Terms {
    fn over(self, base: &Self) -> Self {
        Self {
            injection: self.injection.or(base.injection),
            threshold: self.threshold.or(base.threshold),
            secrets: self.secrets.or(base.secrets),
            pii: self.pii.or(base.pii),
            pii_kinds: self.pii_kinds.or_else(|| base.pii_kinds.clone()),
            pii_actions: self.pii_actions.or_else(|| base.pii_actions.clone()),
            code: self.code.or(base.code),
            hidden_text: self.hidden_text.or(base.hidden_text),
            suspicious_encoding: self.suspicious_encoding.or(base.suspicious_encoding),
            toxicity: self.toxicity.or(base.toxicity),
            toxicity_threshold: self.toxicity_threshold.or(base.toxicity_threshold),
        }
    }
}

/// A policy that has everything that the built-in one has.
fn filled(policy: Policy) -> Resolved {
    let terms = TextRole::ALL.map(|role| {
        let own = policy.roles.get(&role).cloned().unwrap_or_default();
        (role, closed(own.over(&policy.terms(role))))
    });
    Resolved {
        level: policy.level.unwrap_or_default(),
        monitor: policy.monitor.unwrap_or_default(),
        on_overrun: policy.on_overrun,
        time_budget: policy.time_budget,
        images: policy.images.unwrap_or(Images::Deny),
        max_image_bytes: policy.max_image_bytes.unwrap_or_default(),
        max_prompt_chars: policy.max_prompt_chars,
        sanitize: policy.sanitize.unwrap_or_default(),
        spotlight: policy.spotlight.unwrap_or_default(),
        preamble: policy.preamble,
        terms: terms.into(),
    }
}

/// The severest where there is nothing: `builtin` says everything, so that never comes to pass.
fn closed(terms: Terms) -> ResolvedTerms {
    ResolvedTerms {
        injection: terms.injection.unwrap_or(InjectionAction::Block),
        threshold: terms.threshold,
        secrets: terms.secrets.unwrap_or(DataAction::Block),
        pii: terms.pii.unwrap_or(DataAction::Block),
        pii_kinds: kinds(terms.pii_kinds, terms.pii_actions.as_ref()),
        pii_actions: terms.pii_actions.unwrap_or_default(),
        code: terms.code,
        hidden_text: terms.hidden_text,
        suspicious_encoding: terms.suspicious_encoding,
        toxicity: terms.toxicity.unwrap_or(MarkAction::Flag),
        toxicity_threshold: terms.toxicity_threshold,
    }
}

/// A kind with an action of its own is looked for, whether it is listed or not.
fn kinds(
    listed: Option<Vec<PiiKind>>,
    actions: Option<&BTreeMap<PiiKind, DataAction>>,
) -> Vec<PiiKind> {
    let mut kinds = listed.unwrap_or_default();
    let named = actions.into_iter().flat_map(BTreeMap::keys);
    kinds.extend(named.filter(|kind| !kinds.contains(kind)).copied().collect::<Vec<_>>());
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firewall(yaml: &str) -> Firewall {
        crate::config::parse("f", &format!("firewall: {{policies: {{{yaml}}}}}\n"))
            .expect("a config")
            .firewall
    }

    #[track_caller]
    fn resolved(yaml: &str, name: &str) -> Resolved {
        firewall(yaml).resolve(name).expect("a policy")
    }

    #[test]
    fn what_is_left_out_is_inherited() {
        let yaml = "default: {pii: flag, threshold: 0.9}, \
                    a: {extends: default, secrets: block, roles: {tool: {pii: allow}}}, \
                    b: {extends: a, roles: {tool: {secrets: flag}}}, c: {}";
        let b = resolved(yaml, "b");
        let terms = |role| &b.terms[&role];
        assert_eq!(terms(TextRole::User).pii, DataAction::Flag);
        assert_eq!(terms(TextRole::User).threshold, Some(0.9));
        assert_eq!(terms(TextRole::User).secrets, DataAction::Block);
        let tool = terms(TextRole::Tool);
        assert_eq!((tool.pii, tool.secrets), (DataAction::Allow, DataAction::Flag));
        assert_eq!(tool.threshold, None);
        assert_eq!(resolved(yaml, "c").terms[&TextRole::User].pii, DataAction::Redact);
    }

    #[test]
    fn a_level_overrules_inherited_thresholds_and_not_its_own() {
        let yaml = "default: {threshold: 0.9, code: allow}, a: {extends: default, level: strict}, \
                    b: {extends: default, level: strict, threshold: 0.7}";
        let user = |name| resolved(yaml, name).terms[&TextRole::User].clone();
        assert_eq!((user("a").threshold, user("a").code), (None, None));
        assert_eq!(user("b").threshold, Some(0.7));
        assert_eq!(resolved(yaml, "a").level, Level::Strict);
        assert_eq!(user("default").threshold, Some(0.9));
    }

    #[test]
    fn a_kind_with_an_action_is_looked_for() {
        let found = resolved("a: {pii_kinds: [email], pii_actions: {person: block}}", "a");
        let user = &found.terms[&TextRole::User];
        assert_eq!(user.pii_kinds, [PiiKind::Email, PiiKind::Person]);
    }

    #[test]
    fn circles_and_unknown_names_are_found() {
        let mut circle = firewall("a: {}");
        let a = circle.policies.get_mut("a").expect("a");
        a.extends = Some("a".to_owned());
        assert_eq!(circle.resolve("a"), Err(ResolveError::Endless));
        let unknown = Err(ResolveError::Unknown("x".to_owned()));
        assert_eq!(circle.resolve("x"), unknown);
    }
}
