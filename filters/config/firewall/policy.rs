//! One policy as it stands in a file. What it leaves out comes from the policy that it extends, or
//! from the built-in one.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::units;
use crate::prompt::Role;
use crate::scan::{Level, Modes, PiiKind};

/// What is done about each kind of finding.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The policy whose settings hold where this one has none; none is the built-in one.
    pub extends: Option<String>,
    /// A preset for the thresholds, `code`, `hidden_text`, `suspicious_encoding` and `on_overrun`.
    pub level: Option<Level>,
    /// Only watch: what would be refused or changed is recorded and passes.
    pub monitor: Option<bool>,
    /// What is done about prompt injection (OWASP LLM01).
    pub injection: Option<InjectionAction>,
    /// The score from 0 to 1 at which a prompt counts as an injection.
    pub threshold: Option<f64>,
    /// The same for what tools returned and for documents.
    pub untrusted_threshold: Option<f64>,
    /// What is done about keys and passwords (OWASP LLM02).
    pub secrets: Option<DataAction>,
    /// What is done about personal data (OWASP LLM02).
    pub pii: Option<DataAction>,
    /// The kinds of personal data that are looked for.
    pub pii_kinds: Option<Vec<PiiKind>>,
    /// What is done about single kinds of personal data.
    pub pii_actions: Option<BTreeMap<PiiKind, DataAction>>,
    /// What is done about shapes of injected code (OWASP LLM05).
    pub code: Option<MarkAction>,
    /// What is done about text that a reader does not see.
    pub hidden_text: Option<MarkAction>,
    /// What is done about text that is mostly signs, escapes or letters of mixed alphabets.
    pub suspicious_encoding: Option<MarkAction>,
    /// What is done about offensive language.
    pub toxicity: Option<MarkAction>,
    /// The likelihood from 0 to 1 at which a text counts as offensive; none is the built-in one.
    pub toxicity_threshold: Option<f64>,
    /// What is done about a prompt that is too much to be read to the end.
    pub on_overrun: Option<MarkAction>,
    /// How long reading may take; none is as long as it needs.
    #[serde(with = "units::optional")]
    pub time_budget: Option<Duration>,
    /// Whether images may be sent. They are not read.
    pub images: Option<Images>,
    /// The largest image, before Base64.
    #[serde(with = "units::optional")]
    pub max_image_bytes: Option<u64>,
    /// The most characters that the texts of a prompt may have together; none is no limit.
    pub max_prompt_chars: Option<u64>,
    /// What is taken out of texts before the model reads them.
    pub sanitize: Option<Modes>,
    /// Whether what tools returned is marked as such for the model.
    pub spotlight: Option<bool>,
    /// What the model is told before everything else.
    pub preamble: Option<String>,
    /// Other terms for texts of single roles.
    pub roles: BTreeMap<TextRole, Terms>,
}

impl Policy {
    /// What holds where a file says nothing.
    #[must_use]
    pub fn builtin() -> Self {
        Self {
            level: Some(Level::Balanced),
            monitor: Some(false),
            injection: Some(InjectionAction::Block),
            secrets: Some(DataAction::Redact),
            pii: Some(DataAction::Redact),
            pii_kinds: Some(PiiKind::ALL.into_iter().filter(|kind| kind.is_default()).collect()),
            pii_actions: Some(BTreeMap::new()),
            toxicity: Some(MarkAction::Flag),
            images: Some(Images::Allow),
            max_image_bytes: Some(6 << 20),
            sanitize: Some(Modes::default()),
            spotlight: Some(false),
            ..Self::default()
        }
    }
}

/// Other terms for texts of a role.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Terms {
    /// As in the policy.
    pub injection: Option<InjectionAction>,
    /// As in the policy.
    pub threshold: Option<f64>,
    /// As in the policy.
    pub secrets: Option<DataAction>,
    /// As in the policy.
    pub pii: Option<DataAction>,
    /// As in the policy.
    pub pii_kinds: Option<Vec<PiiKind>>,
    /// As in the policy.
    pub pii_actions: Option<BTreeMap<PiiKind, DataAction>>,
    /// As in the policy.
    pub code: Option<MarkAction>,
    /// As in the policy.
    pub hidden_text: Option<MarkAction>,
    /// As in the policy.
    pub suspicious_encoding: Option<MarkAction>,
    /// As in the policy.
    pub toxicity: Option<MarkAction>,
    /// As in the policy.
    pub toxicity_threshold: Option<f64>,
}

/// Who wrote a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TextRole {
    /// The operator of the application.
    System,
    /// The person who asks.
    User,
    /// Earlier answers of the model.
    Assistant,
    /// Results of tools and retrieved documents.
    Tool,
    /// Tool definitions, schemas, names and parameters.
    Definition,
}

impl TextRole {
    /// Every role.
    pub const ALL: [Self; 5] =
        [Self::System, Self::User, Self::Assistant, Self::Tool, Self::Definition];
}

impl From<TextRole> for Role {
    fn from(role: TextRole) -> Self {
        match role {
            TextRole::System => Self::System,
            TextRole::User => Self::User,
            TextRole::Assistant => Self::Assistant,
            TextRole::Tool => Self::Tool,
            TextRole::Definition => Self::Definition,
        }
    }
}

/// Whether images may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Images {
    /// They pass, and the answer says that they were not scanned.
    Allow,
    /// The request is refused.
    Deny,
}

/// What happens to a text whose scanner fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ScannerFailure {
    /// It is refused.
    Block,
    /// It passes, and the answer says that it was not scanned.
    Allow,
}

/// What is done about an injection. It cannot be cut out of a prompt, so there is no `redact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InjectionAction {
    /// Nothing.
    Allow,
    /// It is recorded.
    Flag,
    /// The request is refused.
    Block,
}

/// What is done about what is suspect and no more.
pub type MarkAction = InjectionAction;

/// What is done about sensitive data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DataAction {
    /// Nothing.
    Allow,
    /// It is recorded.
    Flag,
    /// It is replaced by a placeholder, such as `[EMAIL]`.
    #[serde(alias = "mask")]
    Redact,
    /// It is replaced by a placeholder of its own, such as `[EMAIL_1]`.
    Pseudonymise,
    /// The request is refused, the answer withheld.
    Block,
}
