//! What a scan says: verdict, findings, and the edits that make a redacted text.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pii::PiiKind;
use super::rules::Kind;
use crate::prompt::Role;

/// More findings are counted in the verdict and edited, but not listed.
const MAX_FINDINGS: usize = 1000;

/// What is done about a finding, from mild to severe.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new action must be thought about at every door")]
pub enum Action {
    /// Nothing; the finding is still reported.
    #[default]
    Allow,
    /// The request passes and is marked in the audit record.
    Flag,
    /// The found text is replaced by a placeholder.
    Redact,
    /// The request is refused.
    Block,
}

impl Action {
    /// The stable name, in configuration and audit records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Flag => "flag",
            Self::Redact => "redact",
            Self::Block => "block",
        }
    }
}

/// What is done about a whole prompt: the severest of its actions.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new verdict must be thought about at every door")]
pub enum Verdict {
    /// The prompt may pass.
    #[default]
    Allow,
    /// The prompt may pass and is marked.
    Flag,
    /// The prompt may pass once the edits are made.
    Redact,
    /// The prompt is refused.
    Block,
}

impl From<Action> for Verdict {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Flag => Self::Flag,
            Action::Redact => Self::Redact,
            Action::Block => Self::Block,
        }
    }
}

/// What a policy of the configuration makes of findings.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a policy is written field by field")]
pub struct Policy {
    /// For texts whose injection score reaches the threshold; `Redact` is taken as `Block`, since
    /// an instruction without its words cannot be told from another.
    pub injection: Action,
    /// The injection score, from 0 to 1, from which a text counts as an attack.
    pub threshold: f32,
    /// For credentials.
    pub secrets: Action,
    /// For personal data.
    pub pii: Action,
    /// The personal data that is looked for.
    pub pii_kinds: Vec<PiiKind>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            injection: Action::Block,
            threshold: 0.85,
            secrets: Action::Redact,
            pii: Action::Redact,
            pii_kinds: PiiKind::ALL.into_iter().filter(|kind| kind.is_default()).collect(),
        }
    }
}

/// One thing found in one text. It says where, never what.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is about.
    pub kind: Kind,
    /// What it is more closely, such as `email` or `instruction_override`.
    pub r#type: Arc<str>,
    /// The rule or detector that found it.
    pub rule: Arc<str>,
    /// The weight of this finding alone, from 0 to 1.
    pub score: f32,
    /// Who wrote the text.
    pub role: Role,
    /// Index of the text in the scanned pieces.
    pub piece: usize,
    /// First byte in that text (UTF-8).
    pub start: usize,
    /// First byte after it.
    pub end: usize,
    /// What the policy makes of it.
    pub action: Action,
}

/// A replacement in one text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Edit {
    /// Index of the text in the scanned pieces.
    pub piece: usize,
    /// First byte to replace (UTF-8, on a character).
    pub start: usize,
    /// First byte to keep.
    pub end: usize,
    /// What stands there instead.
    pub replacement: &'static str,
}

/// The result of a scan.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// The severest action of all findings.
    pub verdict: Verdict,
    /// The injection score from 0 to 1: that of the worst message.
    pub score: f32,
    /// What was found, at most a thousand.
    pub findings: Vec<Finding>,
    /// The redactions, by piece and place, none touching another.
    pub edits: Vec<Edit>,
}

impl Report {
    pub(super) fn add(&mut self, finding: Finding) {
        self.verdict = self.verdict.max(finding.action.into());
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }

    pub(super) fn edit(&mut self, piece: usize, range: Range<usize>, replacement: &'static str) {
        self.edits.push(Edit { piece, start: range.start, end: range.end, replacement });
    }

    /// Sorts the edits and makes one of those that overlap, named after the longer one.
    pub(super) fn settle_edits(&mut self) {
        self.edits.sort_unstable_by_key(|edit| (edit.piece, edit.start, usize::MAX - edit.end));
        let mut settled: Vec<Edit> = Vec::with_capacity(self.edits.len());
        for edit in self.edits.drain(..) {
            match settled.last_mut().filter(|last| last.overlaps(&edit)) {
                Some(last) => last.absorb(&edit),
                None => settled.push(edit),
            }
        }
        self.edits = settled;
    }
}

impl Edit {
    const fn overlaps(&self, next: &Self) -> bool {
        self.piece == next.piece && next.start < self.end
    }

    fn absorb(&mut self, next: &Self) {
        if next.end - next.start > self.end - self.start {
            self.replacement = next.replacement;
        }
        self.end = self.end.max(next.end);
    }
}

/// The text after the edits of its piece, which must be sorted as in a [`Report`].
#[must_use]
pub fn redact<'e>(text: &str, edits: impl IntoIterator<Item = &'e Edit>) -> String {
    let (mut out, mut kept) = (String::with_capacity(text.len()), 0);
    for edit in edits {
        out.push_str(text.get(kept..edit.start).unwrap_or_default());
        out.push_str(edit.replacement);
        kept = edit.end;
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_edits_become_one() {
        let mut report = Report::default();
        report.edit(1, 0..3, "[B]");
        report.edit(0, 8..9, "[C]");
        report.edit(0, 4..7, "[LONG]");
        report.edit(0, 2..5, "[LAST]");
        report.edit(0, 6..12, "[SECRET]");
        report.settle_edits();
        let edits: Vec<_> =
            report.edits.iter().map(|e| (e.piece, e.start, e.end, e.replacement)).collect();
        assert_eq!(edits, [(0, 2, 12, "[SECRET]"), (1, 0, 3, "[B]")]);
        assert_eq!(redact("abcdefghijklmn", &report.edits[..1]), "ab[SECRET]mn");
    }

    #[test]
    fn nothing_to_edit_keeps_the_text() {
        assert_eq!(redact("é ok", []), "é ok");
    }
}
