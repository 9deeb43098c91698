//! What a scan says: verdict, findings, and the edits that make a redacted text.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use super::pseudonyms::Pseudonyms;
use super::rules::Kind;
use crate::opinion::Ruling;
use crate::prompt::{Piece, Role};

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
    /// The found text is replaced by a placeholder of its own, which stands for it in the answer.
    Pseudonymise,
    /// The request is refused.
    Block,
}

impl Action {
    /// The action for what cannot be cut out of a text.
    #[must_use]
    pub(super) const fn without_redaction(self) -> Self {
        match self {
            Self::Redact | Self::Pseudonymise => Self::Block,
            Self::Allow | Self::Flag | Self::Block => self,
        }
    }

    /// The stable name, in configuration and audit records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Flag => "flag",
            Self::Redact => "redact",
            Self::Pseudonymise => "pseudonymise",
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

impl Verdict {
    /// The stable name.
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

impl From<Action> for Verdict {
    fn from(action: Action) -> Self {
        match action {
            Action::Allow => Self::Allow,
            Action::Flag => Self::Flag,
            Action::Redact | Action::Pseudonymise => Self::Redact,
            Action::Block => Self::Block,
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
    /// The exception that lets it pass.
    pub exception: Option<Arc<str>>,
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
    pub replacement: Cow<'static, str>,
    /// Whether what stood there is to come back in the answer.
    reversible: bool,
}

/// The result of a scan.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Report {
    /// What is done: the severest action of all findings, unless the policy only watches.
    pub verdict: Verdict,
    /// What would be done if the policy did not only watch.
    pub unwatched: Verdict,
    /// The injection score from 0 to 1: that of the worst message.
    pub score: f32,
    /// What was found, at most a thousand.
    pub findings: Vec<Finding>,
    /// The redactions, by piece and place, none touching another.
    pub edits: Vec<Edit>,
    /// What the pseudonyms among the edits stand for.
    pub pseudonyms: Pseudonyms,
    /// Whether something was left unread, for it would have taken too long.
    pub overrun: bool,
    /// The severest action of the findings that are injections.
    injection: Verdict,
    /// The severest action of all others.
    others: Verdict,
}

impl Report {
    pub(super) fn add(&mut self, finding: Finding) {
        let cause =
            if finding.kind.is_injection() { &mut self.injection } else { &mut self.others };
        *cause = (*cause).max(finding.action.into());
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }

    pub(super) fn edit(
        &mut self,
        piece: usize,
        range: Range<usize>,
        replacement: &'static str,
        reversible: bool,
    ) {
        self.edits.push(Edit::new(piece, range, replacement, reversible));
    }

    /// Makes the verdict of all findings final.
    pub(super) fn settle(&mut self, pieces: &[Piece], on_overrun: Action, monitor: bool) {
        if self.overrun {
            self.others = self.others.max(on_overrun.into());
        }
        self.conclude(monitor);
        if monitor {
            self.edits.clear();
        }
        self.settle_edits();
        self.name_pseudonyms(pieces);
    }

    /// A policy that only watches tells: nothing is refused or changed.
    fn conclude(&mut self, monitor: bool) {
        self.unwatched = self.injection.max(self.others);
        self.verdict = self.unwatched;
        if monitor {
            self.verdict = self.verdict.min(Verdict::Flag);
            for finding in &mut self.findings {
                finding.action = finding.action.min(Action::Flag);
            }
        }
    }

    /// Takes in what was found in the same texts before something was taken out of them: the
    /// severer verdict counts, the edits are those of the texts of now.
    pub(crate) fn absorb(&mut self, before: Self, monitor: bool) {
        self.score = self.score.max(before.score);
        self.overrun |= before.overrun;
        self.injection = self.injection.max(before.injection);
        self.others = self.others.max(before.others);
        for finding in before.findings {
            let is_known =
                |known: &Finding| known.rule == finding.rule && known.piece == finding.piece;
            if !self.findings.iter().any(is_known) && self.findings.len() < MAX_FINDINGS {
                self.findings.push(finding);
            }
        }
        self.conclude(monitor);
    }

    /// Whether it is refused for another reason than an injection.
    #[must_use]
    pub(crate) fn is_refused_anyway(&self) -> bool {
        self.others == Verdict::Block
    }

    /// Puts a second opinion on injections in the place of the first one.
    pub(crate) fn overrule(&mut self, ruling: Ruling, policy: &Policy) {
        match ruling {
            Ruling::Stand => return,
            Ruling::Flag => self.injection = self.injection.max(Verdict::Flag),
            Ruling::Attack => self.second(policy.terms.injection),
            Ruling::Innocent => {
                self.injection = Verdict::Allow;
                let injections = self.findings.iter_mut().filter(|f| f.kind.is_injection());
                injections.for_each(|finding| finding.action = Action::Allow);
            }
        }
        self.conclude(policy.monitor);
    }

    /// Adds what the second opinion found, at the place of the first suspicion.
    fn second(&mut self, action: Action) {
        let name: Arc<str> = Arc::from("second_opinion");
        let suspect = self.findings.iter().find(|finding| finding.kind.is_injection());
        let place = suspect.map(|f| (f.role, f.piece, f.start, f.end));
        let (role, piece, start, end) = place.unwrap_or((Role::User, 0, 0, 0));
        let action = action.without_redaction();
        self.add(Finding {
            kind: Kind::PromptInjection,
            r#type: Arc::clone(&name),
            rule: name,
            score: self.score,
            role,
            piece,
            start,
            end,
            action,
            exception: None,
        });
    }

    /// Sorts the edits and makes one of those that overlap, named after the longer one.
    fn settle_edits(&mut self) {
        self.edits.sort_unstable_by_key(|edit| (edit.piece, edit.start, usize::MAX - edit.end));
        let mut settled: Vec<Edit> = Vec::with_capacity(self.edits.len());
        for edit in self.edits.drain(..) {
            match settled.last_mut().filter(|last| last.overlaps(&edit)) {
                Some(last) => last.absorb(edit),
                None => settled.push(edit),
            }
        }
        self.edits = settled;
    }

    /// One name for each value, also where it stands twice.
    fn name_pseudonyms(&mut self, pieces: &[Piece]) {
        for edit in self.edits.iter_mut().filter(|edit| edit.reversible) {
            let piece = pieces.get(edit.piece).map(|piece| piece.text.as_str());
            let value = piece.and_then(|text| text.get(edit.start..edit.end)).unwrap_or_default();
            edit.replacement = self.pseudonyms.name(&edit.replacement, value, pieces).into();
        }
    }
}

impl Edit {
    pub(crate) const fn new(
        piece: usize,
        range: Range<usize>,
        replacement: &'static str,
        reversible: bool,
    ) -> Self {
        let Range { start, end } = range;
        Self { piece, start, end, replacement: Cow::Borrowed(replacement), reversible }
    }

    const fn overlaps(&self, next: &Self) -> bool {
        self.piece == next.piece && next.start < self.end
    }

    /// What cannot come back in part does not come back at all.
    fn absorb(&mut self, next: Self) {
        if next.end - next.start > self.end - self.start {
            self.replacement = next.replacement;
        }
        self.reversible &= next.reversible;
        self.end = self.end.max(next.end);
    }
}

/// The text after the edits of its piece, which must be sorted as in a [`Report`].
#[must_use]
pub fn redact<'e>(text: &str, edits: impl IntoIterator<Item = &'e Edit>) -> String {
    let (mut out, mut kept) = (String::with_capacity(text.len()), 0);
    for edit in edits {
        out.push_str(text.get(kept..edit.start).unwrap_or_default());
        out.push_str(&edit.replacement);
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
        report.edit(1, 0..3, "[B]", false);
        report.edit(0, 8..9, "[C]", false);
        report.edit(0, 4..7, "[LONG]", true);
        report.edit(0, 2..5, "[LAST]", true);
        report.edit(0, 6..12, "[SECRET]", false);
        report.settle(&[], Action::Block, false);
        let edits: Vec<_> =
            report.edits.iter().map(|e| (e.piece, e.start, e.end, &*e.replacement)).collect();
        assert_eq!(edits, [(0, 2, 12, "[SECRET]"), (1, 0, 3, "[B]")]);
        assert_eq!(redact("abcdefghijklmn", &report.edits[..1]), "ab[SECRET]mn");
    }

    #[test]
    fn a_policy_that_watches_changes_nothing_and_tells() {
        let mut report = Report { overrun: true, ..Report::default() };
        report.edit(0, 0..1, "[B]", false);
        report.settle(&[], Action::Block, true);
        assert_eq!((report.verdict, report.unwatched), (Verdict::Flag, Verdict::Block));
        assert_eq!(report.edits, []);
    }

    #[test]
    fn a_value_has_one_pseudonym_and_another_value_another() {
        let text = "a@b.co and c@d.co and a@b.co";
        let piece = |text: &str| Piece::new(Role::User, 0, text.to_owned());
        let pieces = [piece(text), piece("[EMAIL_1] is taken")];
        let mut report = Report::default();
        for range in [0..6, 11..17, 22..28] {
            report.edit(0, range, "[EMAIL]", true);
        }
        report.settle(&pieces, Action::Block, false);
        let redacted = redact(text, &report.edits);
        assert_eq!(redacted, "[EMAIL_2] and [EMAIL_3] and [EMAIL_2]");
        let told: Vec<_> = report.pseudonyms.iter().collect();
        assert_eq!(told, [("[EMAIL_2]", "a@b.co"), ("[EMAIL_3]", "c@d.co")]);
    }

    #[test]
    fn nothing_to_edit_keeps_the_text() {
        assert_eq!(redact("é ok", []), "é ok");
    }
}
