//! The firewall's settings: what prompts and answers may hold.

mod opinion;
mod policy;
mod resolve;

use std::collections::BTreeMap;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::RoleName;
use super::units;
pub use crate::scan::{Level, PiiKind};
pub use opinion::{Breaker, Cache, SecondOpinion};
pub use policy::{
    DataAction, Images, InjectionAction, MarkAction, Policy, ScannerFailure, Terms, TextRole,
};
pub(crate) use resolve::{ResolveError, Resolved, ResolvedTerms};

/// What prompts and answers may hold.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Firewall {
    /// What happens to a text whose scanner fails.
    pub on_error: ScannerFailure,
    /// More rule files (YAML) beside the built-in ones.
    pub rules: Vec<PathBuf>,
    /// Who has another policy than that of the route: the first that fits.
    pub assignments: Vec<Assignment>,
    /// Findings that somebody has looked at and lets pass.
    pub exceptions: Vec<Exception>,
    /// A guard that is asked about prompts of which the scanner is not sure.
    pub second_opinion: Option<SecondOpinion>,
    /// Policies by name; routes choose one. `default` is always there.
    #[serde(deserialize_with = "policies")]
    pub policies: BTreeMap<String, Policy>,
}

impl Default for Firewall {
    fn default() -> Self {
        Self {
            on_error: ScannerFailure::Block,
            rules: Vec::new(),
            assignments: Vec::new(),
            exceptions: Vec::new(),
            second_opinion: None,
            policies: BTreeMap::from([("default".to_owned(), Policy::builtin())]),
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

/// Callers with a policy of their own. One has to be of every list that is not empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Assignment {
    /// The policy.
    pub policy: String,
    /// API keys, by their public ids.
    pub keys: Vec<String>,
    /// Users, by name.
    pub users: Vec<String>,
    /// Roles.
    pub roles: Vec<RoleName>,
}

/// Findings that are let pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exception {
    /// What findings and audit records call it.
    pub id: String,
    /// The rules, by id; `*` stands for any run of characters.
    pub rules: Vec<String>,
    /// Under these policies only; empty is all.
    pub policies: Vec<String>,
    /// In texts of these roles only; empty is all.
    pub roles: Vec<TextRole>,
    /// Why, for those who read it later.
    pub reason: String,
    /// When it ends; none is when the entry is removed.
    #[serde(with = "units::optional")]
    pub expires: Option<Timestamp>,
}
