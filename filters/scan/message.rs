//! Judging one message: its texts one by one and joined, so that nothing hides by being split.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::Scanner;
use super::reading::{Hit, Joined, Reading};
use super::report::{Action, Finding, Policy, Report};
use super::rules::{BROAD, Kind, Rule};
use crate::prompt::{Piece, Role};

/// What a redacted credential leaves behind.
const SECRET_PLACEHOLDER: &str = "[SECRET]";

/// Broad phrases alone do not score higher, however many come together.
const BROAD_LIMIT: f32 = 0.8;

/// A place in the prompt: index of the piece, and range in it.
type Place = (usize, Range<usize>);

/// The texts of one message, by their index.
pub(super) struct Message<'p> {
    pub(super) scanner: &'p Scanner,
    pub(super) pieces: &'p [Piece],
    pub(super) members: &'p [usize],
    pub(super) policy: &'p Policy,
}

/// What a finding is called, and how much it weighs.
#[derive(Clone, Copy)]
struct Label<'a> {
    kind: Kind,
    r#type: &'a Arc<str>,
    rule: &'a Arc<str>,
    score: f32,
}

impl<'a> Label<'a> {
    fn of(rule: &'a Rule) -> Self {
        let (kind, score) = (rule.kind(), rule.severity());
        Self { kind, r#type: rule.type_name(), rule: rule.id(), score }
    }
}

impl<'p> Message<'p> {
    /// Adds what this message holds to the report.
    pub(super) fn judge(&self, report: &mut Report) {
        let mut injections = BTreeMap::new();
        for &piece in self.members {
            let Some(text) = self.text(piece) else { continue };
            let reading = Reading::new(self.scanner, text);
            let place = |range: &Range<usize>| vec![(piece, range.clone())];
            self.note(&mut injections, reading.injections(false), place);
            self.disclose(&reading, report, place);
        }
        if self.members.len() > 1 {
            self.judge_joined(&mut injections, report);
        }
        self.judge_injections(&injections, report);
    }

    /// Reads the joined text, of whose secrets only those that lie across a seam are new.
    fn judge_joined(&self, injections: &mut BTreeMap<usize, Place>, report: &mut Report) {
        let joined = Joined::new(self.members.iter().filter_map(|&piece| self.text(piece)));
        let places = |range: &Range<usize>| -> Vec<Place> {
            let parts = joined.parts(range).into_iter();
            parts.filter_map(|(at, range)| Some((*self.members.get(at)?, range))).collect()
        };
        let reading = Reading::new(self.scanner, joined.text());
        self.note(injections, reading.injections(true), places);
        self.disclose(&reading, report, |range| {
            let places = places(range);
            if places.len() > 1 { places } else { Vec::new() }
        });
    }

    fn text(&self, piece: usize) -> Option<&'p str> {
        self.pieces.get(piece).map(|piece| piece.text.as_str())
    }

    fn role(&self, piece: usize) -> Role {
        self.pieces.get(piece).map_or(Role::User, |piece| piece.role)
    }

    /// Keeps the first place of every rule that counts in the role of the text it hit.
    fn note(
        &self,
        injections: &mut BTreeMap<usize, Place>,
        hits: Vec<Hit>,
        places: impl Fn(&Range<usize>) -> Vec<Place>,
    ) {
        for (index, range) in hits {
            let Some(place) = places(&range).into_iter().next() else { continue };
            let rule = self.scanner.rules.get(index);
            if rule.is_some_and(|rule| rule.applies_to(self.role(place.0))) {
                injections.entry(index).or_insert(place);
            }
        }
    }

    fn judge_injections(&self, injections: &BTreeMap<usize, Place>, report: &mut Report) {
        let rules = &self.scanner.rules;
        let hits = || injections.iter().filter_map(|(&i, place)| Some((rules.get(i)?, place)));
        let score = combined(hits().map(|(rule, _)| rule.severity()));
        report.score = report.score.max(score);
        let action = match self.policy.injection {
            _ if score < self.policy.threshold => Action::Allow,
            Action::Redact => Action::Block,
            action @ (Action::Allow | Action::Flag | Action::Block) => action,
        };
        for (rule, place) in hits() {
            self.report(Label::of(rule), place, action, report);
        }
    }

    /// Reports credentials and personal data, at no place if they are known already.
    fn disclose(
        &self,
        reading: &Reading<'_>,
        report: &mut Report,
        places: impl Fn(&Range<usize>) -> Vec<Place>,
    ) {
        for (rule, range) in reading.secrets() {
            let label = Label::of(rule);
            self.hide(label, &places(&range), self.policy.secrets, SECRET_PLACEHOLDER, report);
        }
        let survey = reading.survey();
        for &kind in &self.policy.pii_kinds {
            let Some(name) = self.scanner.pii_names.of(kind) else { continue };
            let label = Label { kind: Kind::Pii, r#type: name, rule: name, score: 1.0 };
            for range in reading.personal(&survey, kind) {
                self.hide(label, &places(&range), self.policy.pii, kind.placeholder(), report);
            }
        }
    }

    /// Reports one thing at its first place; all its places are edited, the others to nothing.
    fn hide(
        &self,
        label: Label<'_>,
        places: &[Place],
        action: Action,
        placeholder: &'static str,
        report: &mut Report,
    ) {
        let Some(first) = places.first() else { return };
        self.report(label, first, action, report);
        if action == Action::Redact {
            let texts = std::iter::once(placeholder).chain(std::iter::repeat(""));
            for ((piece, range), text) in places.iter().zip(texts) {
                report.edit(*piece, range.clone(), text);
            }
        }
    }

    fn report(&self, label: Label<'_>, place: &Place, action: Action, report: &mut Report) {
        let (piece, range) = place;
        report.add(Finding {
            kind: label.kind,
            r#type: Arc::clone(label.r#type),
            rule: Arc::clone(label.rule),
            score: label.score,
            role: self.role(*piece),
            piece: *piece,
            start: range.start,
            end: range.end,
            action,
        });
    }
}

/// The score of several hits: each one takes its share of the doubt that the others leave.
fn combined(weights: impl Iterator<Item = f32> + Clone) -> f32 {
    let doubt = |weights: &mut dyn Iterator<Item = f32>| weights.map(|w| 1.0 - w).product::<f32>();
    let broad = doubt(&mut weights.clone().filter(|&w| w < BROAD)).max(1.0 - BROAD_LIMIT);
    let strong = doubt(&mut weights.filter(|&w| w >= BROAD));
    1.0 - broad * strong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(weights: &[f32], expected: f32) {
        let score = combined(weights.iter().copied());
        assert!((score - expected).abs() < 1e-6, "{weights:?}: {score}");
    }

    #[test]
    fn hits_add_up_and_broad_ones_only_so_far() {
        check(&[], 0.0);
        check(&[0.9], 0.9);
        check(&[0.3, 0.3], 0.51);
        check(&[0.4; 9], BROAD_LIMIT);
        check(&[0.5, 0.5, 0.4], 0.85);
    }
}
