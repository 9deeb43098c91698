//! Reading one text: which rules it hits, in any of its disguises, and what it gives away.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use regex::bytes::Captures;

use super::Scanner;
use super::canonical::{View, whole_chars};
use super::decode::{Decoded, decode, reveal};
use super::disguise::{
    Regions, Survey, is_glued, pig_latin, respaced, reversed, rot13, slice, solved, squeezed,
    survey, suspects, swapped, unhyphenated, unleet, upright, words_reversed,
};
use super::matcher::{Gate, Matcher, Sign, locate};
use super::pii::{self, PiiKind};
use super::rules::{Kind, Rule};

mod joined;

pub(super) use joined::Joined;

/// Encodings inside encodings are undone this often.
const MAX_DEPTH: u8 = 3;

/// Bytes of decoded and undisguised text that are read for each byte of input, and in any case.
const EXTRA_PER_BYTE: usize = 3;
const EXTRA_FLOOR: usize = 32 * 1024;

/// What was undone to get a view. Disguises are undone in this order, since the other way round gives
/// the same views once more; only words that are also leet are known as reversed after that. What is
/// decoded may be disguised in any way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Decoded,
    Reordered,
    Joined,
    Unleeted,
    Corrected,
}

/// Undoes one disguise.
type Undo = fn(&str) -> String;

/// A view, the bytes of the text that it stands in, and how it was got.
type Made = (Stage, Decoded);

/// A rule, by index, and where it hit.
pub(super) type Hit = (usize, Range<usize>);

/// One text, ready to be searched.
pub(super) struct Reading<'t> {
    scanner: &'t Scanner,
    text: &'t str,
    canonical: View,
    plain: Option<View>,
    gate: Gate,
}

impl<'t> Reading<'t> {
    pub(super) fn new(scanner: &'t Scanner, text: &'t str) -> Self {
        let canonical = View::canonical(text);
        let plain = canonical.is_veiled().then(|| View::plain(text));
        let gate = scanner.canonical.gate(canonical.text());
        Self { scanner, text, canonical, plain, gate }
    }

    /// The injection rules that the text hits, each once, also where it is encoded or disguised.
    pub(super) fn injections(&self, squeeze: bool) -> Vec<Hit> {
        let left = self.text.len().saturating_mul(EXTRA_PER_BYTE).saturating_add(EXTRA_FLOOR);
        let mut search = Search::new(self.scanner, left);
        search.read(self, Stage::Decoded, 0, None);
        while let Some(next) = search.waiting.pop_front() {
            let reading = Reading::new(self.scanner, &next.text);
            search.read(&reading, next.done, next.depth, Some(&next.place));
        }
        if squeeze {
            search.read_squeezed(&(0..self.text.len()), &squeezed(self.canonical.text()));
        }
        search.hits
    }

    /// The credentials in the text.
    pub(super) fn secrets(&self) -> Vec<(&'t Rule, Range<usize>)> {
        let windows = self.windows_of_secrets();
        let found = windows.iter().flat_map(|(rule, window)| {
            self.secrets_of(rule, window).into_iter().map(|span| (*rule, span))
        });
        found.collect()
    }

    /// The rules to try, and where: no byte is searched for a rule twice, however often its keywords
    /// are in the text.
    fn windows_of_secrets(&self) -> Vec<(&'t Rule, Range<usize>)> {
        let mut windows: Vec<(&Rule, Range<usize>)> = Vec::new();
        let mut last: HashMap<usize, usize> = HashMap::new();
        for (index, near) in self.gate.candidates() {
            let rule = self.scanner.rules.get(index).filter(|rule| rule.kind() == Kind::Secret);
            let Some(rule) = rule else { continue };
            let window = self.window_of_secret(near);
            let before = last.get(&index).and_then(|at| windows.get_mut(*at));
            match before.filter(|(_, before)| window.start <= before.end) {
                Some((_, before)) => before.end = before.end.max(window.end),
                None => {
                    last.insert(index, windows.len());
                    windows.push((rule, window));
                }
            }
        }
        windows
    }

    fn secrets_of(&self, rule: &Rule, window: &Range<usize>) -> Vec<Range<usize>> {
        let searched = self.plain_text().as_bytes().get(window.clone()).unwrap_or_default();
        let secret = |groups: Captures<'_>| {
            let hit = groups.get(1).or_else(|| groups.get(0))?;
            let span = hit.start() + window.start..hit.end() + window.start;
            rule.is_plausible(hit.as_bytes()).then(|| self.source_of_plain(&span))
        };
        rule.regex.captures_iter(searched).filter_map(secret).collect()
    }

    /// Where to look for what the canonical view has at `near`: from the line before, since an
    /// expression may begin before its keyword, to the end of the longest
    /// key (PEM, RFC 7468).
    fn window_of_secret(&self, near: &Range<usize>) -> Range<usize> {
        const BEFORE: usize = 128;
        const LONGEST: usize = 20_000;
        let (source, text) = (self.canonical.source(near), self.plain_text());
        let place = |source| self.plain.as_ref().map_or(source, |view| view.place(source));
        let (start, end) = (place(source.start), place(source.end));
        text.floor_char_boundary(start.saturating_sub(BEFORE))
            ..text.floor_char_boundary(end.saturating_add(LONGEST))
    }

    /// What every kind of personal data is looked for in.
    pub(super) fn survey(&self) -> pii::Survey<'_> {
        pii::Survey::new(self.plain_text())
    }

    /// The personal data in the text, of which `survey` is the survey.
    pub(super) fn personal(&self, survey: &pii::Survey<'_>, kind: PiiKind) -> Vec<Range<usize>> {
        let found = kind.find_in(survey);
        found.iter().map(|span| self.source_of_plain(span)).collect()
    }

    fn plain_text(&self) -> &str {
        self.plain.as_ref().map_or(self.text, View::text)
    }

    fn source_of_plain(&self, span: &Range<usize>) -> Range<usize> {
        let source = self.plain.as_ref().map_or_else(|| span.clone(), |view| view.source(span));
        whole_chars(self.text, &source)
    }

    fn source_of_canonical(&self, span: &Range<usize>) -> Range<usize> {
        whole_chars(self.text, &self.canonical.source(span))
    }

    /// What the text says in other codes, by the bytes of the text that it stands in.
    fn decoded(&self) -> Vec<Decoded> {
        let mut found = decode(self.plain_text());
        for decoded in &mut found {
            decoded.span = self.source_of_plain(&decoded.span);
        }
        if !self.text.is_ascii() {
            found.extend(reveal(self.text));
        }
        found
    }

    /// What the text says without its disguises, by the bytes of the text that it stands in.
    fn undisguised(&self, signs: &Survey, done: Stage) -> Vec<Made> {
        let vocabulary = self.scanner.canonical.vocabulary();
        let mut found = Vec::new();
        if !matches!(done, Stage::Reordered | Stage::Corrected) {
            self.reorder(&mut found);
        }
        if done < Stage::Joined {
            self.undo(Stage::Joined, &signs.broken, &mut found, unhyphenated);
            self.respace(&signs.spaced, &mut found);
            self.respace(&signs.glued, &mut found);
        }
        if done < Stage::Unleeted {
            self.undo(Stage::Unleeted, &signs.leet, &mut found, unleet);
        }
        if done < Stage::Corrected {
            let correct = |text: &str| vocabulary.corrected(text);
            self.undo(Stage::Corrected, &signs.misspelt, &mut found, correct);
        }
        found
    }

    /// Puts letters and words back into their order and undoes ciphers. In a long text one sign alone
    /// is chance.
    fn reorder(&self, found: &mut Vec<Made>) {
        const UNDO: [(Sign, Undo); 5] = [
            (Sign::Rotated, rot13),
            (Sign::Reversed, reversed),
            (Sign::Reversed, words_reversed),
            (Sign::Swapped, swapped),
            (Sign::PigLatin, pig_latin),
        ];
        const LONG: usize = 2048;
        let least = if self.text.len() < LONG { 1 } else { 2 };
        for (sign, how) in UNDO {
            self.undo(Stage::Reordered, &self.gate.signs(sign).of_many(least), found, how);
        }
        self.decipher(found);
        if !self.text.is_ascii() {
            let whole = 0..self.text.len();
            let turned = upright(self.plain_text()).map(|text| Decoded { text, span: whole });
            found.extend(turned.map(|turned| (Stage::Reordered, turned)));
        }
    }

    /// Undoes a disguise where the canonical view shows signs of it.
    fn undo(
        &self,
        stage: Stage,
        at: &Regions,
        found: &mut Vec<Made>,
        how: impl Fn(&str) -> String,
    ) {
        let text = self.canonical.text();
        for region in at.iter(text.len()) {
            let (part, range) = slice(text, &region);
            let span = self.source_of_canonical(&range);
            found.push((stage, Decoded { text: how(part), span }));
        }
    }

    /// Tries ciphers where letters are too rare or too frequent; letters that only look like ASCII
    /// ones were not enciphered with the others, so these must not be folded before.
    fn decipher(&self, found: &mut Vec<Made>) {
        let canonical = self.canonical.text();
        let lower = (!self.text.is_ascii()).then(|| self.plain_text().to_lowercase());
        for region in suspects(canonical).iter(canonical.len()) {
            let (part, range) = slice(canonical, &region);
            let span = self.source_of_canonical(&range);
            let texts = solved(lower.as_deref().unwrap_or(part)).into_iter();
            let made = |text| (Stage::Reordered, Decoded { text, span: span.clone() });
            found.extend(texts.map(made));
            if lower.is_some() {
                break;
            }
        }
    }

    /// Puts letters together by the original spaces and capitals, which the canonical view has not.
    fn respace(&self, at: &Regions, found: &mut Vec<Made>) {
        if self.plain.is_some() && !at.is_empty() {
            let text = respaced(self.plain_text());
            return found.push((Stage::Joined, Decoded { text, span: 0..self.text.len() }));
        }
        for region in at.iter(self.canonical.text().len()) {
            let (part, span) = slice(self.text, &self.source_of_canonical(&region));
            found.push((Stage::Joined, Decoded { text: respaced(part), span }));
        }
    }
}

/// The search for injections in a text and in everything that can be made of it.
struct Search<'s> {
    scanner: &'s Scanner,
    hits: Vec<Hit>,
    /// The views of one layer before those of the next, so that what is inside of one cannot use up
    /// what another needs.
    waiting: VecDeque<Further>,
    /// Hashes of the further views. The keys of the hash are secret: a view whose hash can be
    /// foreseen could be passed off as one that was read.
    known: HashSet<u64>,
    hasher: RandomState,
    /// Bytes of further views that may still be read.
    left: usize,
}

/// A view that is still to be read.
struct Further {
    text: String,
    done: Stage,
    depth: u8,
    place: Range<usize>,
}

impl<'s> Search<'s> {
    fn new(scanner: &'s Scanner, left: usize) -> Self {
        let (waiting, known, hasher) = (VecDeque::new(), HashSet::new(), RandomState::new());
        Self { scanner, hits: Vec::new(), waiting, known, hasher, left }
    }

    /// Reads one text, of which something was undone before; hits in a decoded one are reported at
    /// `span`, where it stood.
    fn read(&mut self, reading: &Reading<'_>, done: Stage, depth: u8, span: Option<&Range<usize>>) {
        self.try_rules(reading, span);
        if depth == MAX_DEPTH {
            return;
        }
        if done <= Stage::Joined {
            let decoded = reading.decoded().into_iter();
            self.follow(decoded.map(|made| (Stage::Decoded, made)), depth + 1, span);
        }
        let text = reading.canonical.text();
        let signs = survey(text, Some(self.scanner.canonical.vocabulary()));
        self.follow(reading.undisguised(&signs, done).into_iter(), depth + 1, span);
        for region in signs.glued.iter(text.len()) {
            let (part, range) = slice(text, &region);
            let place = span.map_or_else(|| reading.source_of_canonical(&range), Clone::clone);
            for word in part.split(|c: char| !c.is_alphanumeric()).filter(|word| is_glued(word)) {
                if self.is_new(word) && self.afford(word.len()) {
                    self.read_squeezed(&place, word);
                }
            }
        }
    }

    fn follow(
        &mut self,
        found: impl Iterator<Item = Made>,
        depth: u8,
        span: Option<&Range<usize>>,
    ) {
        for (done, Decoded { text, span: at }) in found {
            if self.is_new(&text) && self.afford(text.len()) {
                let place = span.map_or(at, Clone::clone);
                self.waiting.push_back(Further { text, done, depth, place });
            }
        }
    }

    fn read_squeezed(&mut self, whole: &Range<usize>, text: &str) {
        let matcher: &Matcher = &self.scanner.squeezed;
        for (index, near) in matcher.gate(text).candidates() {
            let regex = self.scanner.rules.get(index).and_then(|rule| rule.squeezed.as_ref());
            if regex.is_some_and(|regex| locate(regex, text, near).is_some()) {
                self.add(index, whole.clone());
            }
        }
    }

    fn try_rules(&mut self, reading: &Reading<'_>, span: Option<&Range<usize>>) {
        for (index, near) in reading.gate.candidates() {
            let Some(rule) = self.scanner.rules.get(index) else { continue };
            if rule.kind().is_injection()
                && !self.is_hit(index)
                && let Some(hit) = locate(&rule.regex, reading.canonical.text(), near)
            {
                let place = span.map_or_else(|| reading.source_of_canonical(&hit), Clone::clone);
                self.add(index, place);
            }
        }
    }

    fn is_hit(&self, rule: usize) -> bool {
        self.hits.iter().any(|(known, _)| *known == rule)
    }

    fn add(&mut self, rule: usize, span: Range<usize>) {
        if !self.is_hit(rule) {
            self.hits.push((rule, span));
        }
    }

    /// Whether a view says something that was not read yet.
    fn is_new(&mut self, text: &str) -> bool {
        self.known.insert(self.hasher.hash_one(text))
    }

    /// Takes a view of so many bytes from the budget. Short ones cost as much as longer ones.
    fn afford(&mut self, bytes: usize) -> bool {
        const LEAST: usize = 256;
        let left = self.left.checked_sub(bytes.max(LEAST));
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

#[cfg(test)]
mod tests;
