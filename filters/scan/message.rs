//! Judging one message: its texts one by one and joined, so that nothing hides by being split.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::Scanner;
use super::model::levels;
use super::policy::{Policy, Terms};
use super::reading::{Extent, Injections, Joined, NEAR, Reading, is_late};
use super::report::{Action, Finding, Report};
use super::rules::{BROAD, Kind, Rule};
use super::structure::survey;
use crate::prompt::{Piece, Role};

/// What a redacted credential leaves behind.
const SECRET_PLACEHOLDER: &str = "[SECRET]";

/// Broad phrases alone do not score higher, however many come together.
const BROAD_LIMIT: f32 = 0.8;

/// Below this the classifier is not worth a finding.
pub(super) const WORTH_TELLING: f32 = 0.5;

/// What speaks for an injection in a message.
#[derive(Debug, Default)]
struct Evidence {
    /// Rules by their index, each where it hit.
    rules: Vec<(usize, Place)>,
    /// Those that an exception lets pass.
    excused: BTreeMap<usize, (Place, Arc<str>)>,
    /// The worst likelihood of a text, and where that is.
    likely: Option<(f32, Place)>,
}

impl Evidence {
    fn likelihood(&self) -> f32 {
        self.likely.as_ref().map_or(0.0, |(likelihood, _)| *likelihood)
    }
}

/// A place in the prompt: index of the piece, and range in it.
type Place = (usize, Range<usize>);

/// The texts of one message, by their index.
pub(super) struct Message<'p> {
    pub(super) scanner: &'p Scanner,
    pub(super) pieces: &'p [Piece],
    pub(super) members: &'p [usize],
    pub(super) policy: &'p Policy,
    /// Unix seconds.
    pub(super) now: u64,
    /// When to stop.
    pub(super) deadline: Option<Instant>,
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
        let mut evidence = Evidence::default();
        for &piece in self.members {
            let Some(text) = self.text(piece) else { continue };
            if is_late(self.deadline) {
                report.overrun = true;
                break;
            }
            let reading = Reading::new(self.scanner, text);
            let place = |range: &Range<usize>| vec![(piece, range.clone())];
            let found = reading.injections(&self.extent(&[], self.is_doubted(piece)));
            report.overrun |= found.overrun;
            self.note(&mut evidence, found, place);
            self.disclose(&reading, report, place);
            self.judge_toxicity(&reading, piece, report);
            self.judge_structure(piece, text, report);
        }
        if self.members.len() > 1 {
            self.judge_joined(&mut evidence, report);
        }
        self.judge_injections(&evidence, report);
        self.judge_code(&evidence, report);
        for (index, (place, why)) in &evidence.excused {
            if let Some(rule) = self.scanner.rules.get(*index) {
                self.excuse(Label::of(rule), place, why, report);
            }
        }
    }

    /// Reads the joined text, of whose secrets only those that lie across a seam are new.
    fn judge_joined(&self, evidence: &mut Evidence, report: &mut Report) {
        let joined = Joined::new(self.members.iter().filter_map(|&piece| self.text(piece)));
        let places = |range: &Range<usize>| -> Vec<Place> {
            let parts = joined.parts(range).into_iter();
            parts.filter_map(|(at, range)| Some((*self.members.get(at)?, range))).collect()
        };
        let reading = Reading::new(self.scanner, joined.text());
        let doubted = self.members.iter().all(|&piece| self.is_doubted(piece));
        let found = reading.injections(&self.extent(joined.seams(), doubted));
        report.overrun |= found.overrun;
        self.note(evidence, found, places);
        self.disclose(&reading, report, |range| {
            let places = places(range);
            if places.len() > 1 { places } else { Vec::new() }
        });
    }

    /// Where what was found does not refuse the request for certain the rest is read too.
    fn extent<'s>(&self, seams: &'s [usize], classify: bool) -> Extent<'s> {
        let terms = self.terms();
        let refuses = terms.injection.without_redaction() == Action::Block
            && terms.threshold <= CERTAIN
            && !self.policy.monitor;
        let to_the_end = !refuses || !self.policy.exceptions.is_empty();
        Extent { role: Some(self.own_role()), seams, classify, deadline: self.deadline, to_the_end }
    }

    fn text(&self, piece: usize) -> Option<&'p str> {
        self.pieces.get(piece).map(|piece| piece.text.as_str())
    }

    fn role(&self, piece: usize) -> Role {
        self.pieces.get(piece).map_or(Role::User, |piece| piece.role)
    }

    /// Whether the classifier has a say. What operators write reads like what attackers write, and
    /// is theirs to write.
    fn is_doubted(&self, piece: usize) -> bool {
        match self.role(piece) {
            Role::System | Role::Definition => false,
            role @ (Role::User | Role::Assistant | Role::Tool) => {
                let name = &self.scanner.classifier_name;
                self.policy.exception(name, role, self.now).is_none()
            }
        }
    }

    /// Keeps every rule with its places, and the worst likelihood.
    fn note(
        &self,
        evidence: &mut Evidence,
        found: Injections,
        places: impl Fn(&Range<usize>) -> Vec<Place>,
    ) {
        if let Some((likelihood, range)) = found.likely
            && likelihood > evidence.likelihood()
        {
            let place = places(&range).into_iter().next();
            evidence.likely = place.map(|place| (likelihood, place)).or(evidence.likely.take());
        }
        for (index, range) in found.hits {
            let Some(place) = places(&range).into_iter().next() else { continue };
            let role = self.role(place.0);
            let Some(rule) = self.scanner.rules.get(index) else { continue };
            match self.policy.exception(rule.id(), role, self.now) {
                Some(why) => {
                    evidence.excused.entry(index).or_insert_with(|| (place, Arc::clone(why)));
                }
                None => evidence.rules.push((index, place)),
            }
        }
    }

    /// The role of the message, which all of its texts have.
    fn own_role(&self) -> Role {
        self.members.first().map_or(Role::User, |&piece| self.role(piece))
    }

    fn terms(&self) -> &'p Terms {
        self.policy.terms(self.own_role())
    }

    fn hits<'e>(&'e self, evidence: &'e Evidence) -> impl Iterator<Item = (&'e Rule, &'e Place)> {
        let mut firsts: BTreeMap<usize, &Place> = BTreeMap::new();
        for (index, place) in &evidence.rules {
            firsts.entry(*index).or_insert(place);
        }
        let rules = &self.scanner.rules;
        firsts.into_iter().filter_map(|(index, place)| Some((rules.get(index)?, place)))
    }

    /// Reports shapes of code, which say nothing about orders to the model.
    fn judge_code(&self, evidence: &Evidence, report: &mut Report) {
        let action = self.terms().code.without_redaction();
        for (rule, place) in self.hits(evidence).filter(|(rule, _)| rule.kind() == Kind::Code) {
            self.report(Label::of(rule), place, action, report);
        }
    }

    /// Reports what is hidden in a text and what of it is no text. A retrieved document has less
    /// reason to hide something than somebody who asks about the code of a page.
    fn judge_structure(&self, piece: usize, text: &str, report: &mut Report) {
        let terms = self.policy.terms(self.role(piece));
        let least = if self.role(piece) == Role::Tool { 0.5 } else { 0.8 };
        for found in survey(text) {
            let hidden = found.kind == Kind::HiddenText;
            if hidden && found.score < least {
                continue;
            }
            let action = if hidden { terms.hidden_text } else { terms.suspicious_encoding };
            let name = Arc::from(found.r#type);
            let label = Label { kind: found.kind, r#type: &name, rule: &name, score: found.score };
            self.hide(label, &[(piece, found.range)], action.without_redaction(), "", report);
        }
    }

    /// The injection score: that of the worst stretch of the message. What stands far apart does not
    /// add up, or any text would be an attack if it is only long enough.
    fn score(&self, evidence: &Evidence) -> f32 {
        let starts = self.starts();
        let mark = |(rule, place): &(usize, Place)| self.mark(*rule, place, &starts);
        let mut marks: Vec<Mark> = evidence.rules.iter().filter_map(mark).collect();
        let likely = evidence.likely.as_ref();
        let likely = likely.map(|(likelihood, place)| (*likelihood, self.at(place, &starts)));
        let length = starts.last().copied().unwrap_or_default();
        if length <= NEAR || marks.len() > CROWD {
            return stretch(&marks, evidence.likelihood());
        }
        marks.sort_by_key(|mark| mark.at);
        let of = |first: usize| {
            let marks = marks.get(first..).unwrap_or_default();
            let from = marks.first().map_or(0, |mark| mark.at);
            let end = marks.partition_point(|mark| mark.at <= from + NEAR);
            let is_near = |(_, at): &(f32, usize)| from.abs_diff(*at) <= NEAR;
            let likelihood = likely.filter(is_near).map_or(0.0, |(likelihood, _)| likelihood);
            stretch(marks.get(..end).unwrap_or_default(), likelihood)
        };
        (0..marks.len()).map(of).fold(stretch(&[], evidence.likelihood()), f32::max)
    }

    fn mark(&self, rule: usize, place: &Place, starts: &[usize]) -> Option<Mark> {
        let found = self.scanner.rules.get(rule).filter(|rule| rule.kind().is_injection())?;
        Some(Mark { rule, weight: found.severity(), at: self.at(place, starts) })
    }

    /// How many bytes of the message stand before each of its texts, and how many it has.
    fn starts(&self) -> Vec<usize> {
        let mut starts = vec![0];
        for &member in self.members {
            let before = starts.last().copied().unwrap_or_default();
            starts.push(before + self.text(member).map_or(0, str::len));
        }
        starts
    }

    /// How many bytes of the message stand before a place. The texts are in the order of their indices.
    fn at(&self, (piece, range): &Place, starts: &[usize]) -> usize {
        let member = self.members.partition_point(|member| member < piece);
        starts.get(member).copied().unwrap_or_default() + range.start
    }

    fn judge_injections(&self, evidence: &Evidence, report: &mut Report) {
        let hits = || self.hits(evidence).filter(|(rule, _)| rule.kind().is_injection());
        let score = self.score(evidence);
        report.score = report.score.max(score);
        let terms = self.terms();
        let action = match score < terms.threshold {
            true => Action::Allow,
            false => terms.injection.without_redaction(),
        };
        for (rule, place) in hits() {
            self.report(Label::of(rule), place, action, report);
        }
        if let Some((score, place)) = &evidence.likely
            && *score >= WORTH_TELLING
        {
            let name = &self.scanner.classifier_name;
            let label =
                Label { kind: Kind::PromptInjection, r#type: name, rule: name, score: *score };
            self.report(label, place, action, report);
        }
    }

    /// Reports credentials and personal data that have a place: what is known already has none.
    fn disclose(
        &self,
        reading: &Reading<'_>,
        report: &mut Report,
        places: impl Fn(&Range<usize>) -> Vec<Place>,
    ) {
        let terms = self.terms();
        let secrets = reading.secrets();
        report.overrun |= secrets.overrun;
        for (rule, range) in secrets.found {
            let label = Label::of(rule);
            self.hide(label, &places(&range), terms.secrets, SECRET_PLACEHOLDER, report);
        }
        let survey = reading.survey();
        for &kind in &terms.pii_kinds {
            let Some(name) = self.scanner.pii_names.of(kind) else { continue };
            let label = Label { kind: Kind::Pii, r#type: name, rule: name, score: 1.0 };
            let action = terms.personal(kind);
            for range in reading.personal(&survey, kind) {
                self.hide(label, &places(&range), action, kind.placeholder(), report);
            }
        }
    }

    /// Reports one thing at its first place; all its places are edited, the others to nothing. What
    /// lies across a seam does not come back in an answer.
    fn hide(
        &self,
        label: Label<'_>,
        places: &[Place],
        action: Action,
        placeholder: &'static str,
        report: &mut Report,
    ) {
        let Some(first) = places.first() else { return };
        if let Some(why) = self.policy.exception(label.rule, self.role(first.0), self.now) {
            return self.excuse(label, first, why, report);
        }
        self.report(label, first, action, report);
        if matches!(action, Action::Redact | Action::Pseudonymise) {
            let reversible = action == Action::Pseudonymise && places.len() == 1;
            let texts = std::iter::once(placeholder).chain(std::iter::repeat(""));
            for ((piece, range), text) in places.iter().zip(texts) {
                report.edit(*piece, range.clone(), text, reversible);
            }
        }
    }

    /// Offensive language is reported for the whole text: the classifier knows no place.
    fn judge_toxicity(&self, reading: &Reading<'_>, piece: usize, report: &mut Report) {
        let terms = self.policy.terms(self.role(piece));
        if terms.toxicity == Action::Allow || !self.is_doubted(piece) {
            return;
        }
        let score = reading.toxicity();
        if score >= terms.toxicity_threshold {
            let name = &self.scanner.toxicity_name;
            let place = (piece, 0..self.text(piece).map_or(0, str::len));
            let label = Label { kind: Kind::Toxicity, r#type: name, rule: name, score };
            self.hide(label, &[place], terms.toxicity.without_redaction(), "", report);
        }
    }

    fn report(&self, label: Label<'_>, place: &Place, action: Action, report: &mut Report) {
        report.add(self.finding(label, place, action, None));
    }

    fn excuse(&self, label: Label<'_>, place: &Place, why: &Arc<str>, report: &mut Report) {
        report.add(self.finding(label, place, Action::Allow, Some(Arc::clone(why))));
    }

    fn finding(
        &self,
        label: Label<'_>,
        (piece, range): &Place,
        action: Action,
        exception: Option<Arc<str>>,
    ) -> Finding {
        Finding {
            kind: label.kind,
            r#type: Arc::clone(label.r#type),
            rule: Arc::clone(label.rule),
            score: label.score,
            role: self.role(*piece),
            piece: *piece,
            start: range.start,
            end: range.end,
            action,
            exception,
        }
    }
}

/// A hit of an injection rule.
#[derive(Clone, Copy, Debug)]
struct Mark {
    rule: usize,
    weight: f32,
    /// Bytes of the message before it.
    at: usize,
}

/// A threshold above this leaves doubt where the scanner stops reading.
const CERTAIN: f32 = 0.999;

/// With more marks than this a message is one stretch: nobody quotes so many attacks by chance.
const CROWD: usize = 512;

/// The score of marks that are near one another, each rule counted once.
fn stretch(marks: &[Mark], likelihood: f32) -> f32 {
    let rules: BTreeMap<usize, f32> = marks.iter().map(|mark| (mark.rule, mark.weight)).collect();
    let (strong, broad) = weighed(rules.values().copied());
    levels::combined(strong, broad, likelihood)
}

/// The scores of several hits, strong rules and broad phrases apart: each hit takes its share of the
/// doubt that the others leave.
fn weighed(weights: impl Iterator<Item = f32> + Clone) -> (f32, f32) {
    let doubt = |weights: &mut dyn Iterator<Item = f32>| weights.map(|w| 1.0 - w).product::<f32>();
    let broad = doubt(&mut weights.clone().filter(|&w| w < BROAD)).max(1.0 - BROAD_LIMIT);
    let strong = doubt(&mut weights.filter(|&w| w >= BROAD));
    (1.0 - strong, 1.0 - broad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(weights: &[f32], expected: (f32, f32)) {
        let (strong, broad) = weighed(weights.iter().copied());
        let differs = |found: f32, expected: f32| (found - expected).abs() > 1e-6;
        let wrong = differs(strong, expected.0) || differs(broad, expected.1);
        assert!(!wrong, "{weights:?}: {strong} {broad}");
    }

    #[test]
    fn hits_add_up_and_broad_ones_only_so_far() {
        check(&[], (0.0, 0.0));
        check(&[0.9], (0.9, 0.0));
        check(&[0.3, 0.3], (0.0, 0.51));
        check(&[0.4; 9], (0.0, BROAD_LIMIT));
        check(&[0.5, 0.5, 0.4], (0.75, 0.4));
    }
}
