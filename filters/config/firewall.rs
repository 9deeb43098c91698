//! The firewall's settings: what prompts and answers may hold.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

pub use crate::scan::PiiKind;

/// What prompts and answers may hold.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Firewall {
    /// What happens to a text whose scanner fails.
    pub on_error: ScannerFailure,
    /// More rule files (YAML) beside the built-in ones.
    pub rules: Vec<PathBuf>,
    /// Policies by name; routes choose one. `default` is always there.
    #[serde(deserialize_with = "policies")]
    pub policies: BTreeMap<String, Policy>,
}

impl Default for Firewall {
    fn default() -> Self {
        Self {
            on_error: ScannerFailure::Block,
            rules: Vec::new(),
            policies: BTreeMap::from([("default".to_owned(), Policy::default())]),
        }
    }
}

/// Policies of the file join the built-in one, and replace it where they have its name.
fn policies<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Policy>, D::Error> {
    let mut policies = Firewall::default().policies;
    policies.append(&mut BTreeMap::deserialize(deserializer)?);
    Ok(policies)
}

/// What is done about each kind of finding.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// What is done about prompt injection (OWASP LLM01).
    pub injection: InjectionAction,
    /// The score from 0 to 1 at which a prompt counts as an injection.
    pub threshold: f64,
    /// What is done about keys and passwords (OWASP LLM02).
    pub secrets: DataAction,
    /// What is done about personal data (OWASP LLM02).
    pub pii: DataAction,
    /// The kinds of personal data that are looked for.
    pub pii_kinds: Vec<PiiKind>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            injection: InjectionAction::Block,
            threshold: 0.85,
            secrets: DataAction::Redact,
            pii: DataAction::Redact,
            pii_kinds: PiiKind::ALL.into_iter().filter(|kind| kind.is_default()).collect(),
        }
    }
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

/// What is done about sensitive data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DataAction {
    /// Nothing.
    Allow,
    /// It is recorded.
    Flag,
    /// It is replaced by a placeholder.
    Redact,
    /// The request is refused, the answer withheld.
    Block,
}
