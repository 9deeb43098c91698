//! Reading one text: which rules it hits, in any of its disguises, and what it gives away.

use std::ops::Range;

use regex::bytes::Captures;

use super::Scanner;
use super::canonical::{View, whole_chars};
use super::decode::{Decoded, decode};
use super::disguise::{reversed, rot13, signs, squeezed, unleet, words_reversed};
use super::matcher::{Gate, Matcher, locate};
use super::pii::PiiKind;
use super::rules::{Kind, Rule};

/// Encodings inside encodings are undone this often.
const MAX_DEPTH: u8 = 2;

/// Bytes of decoded and undisguised text that are read for each byte of input, and in any case.
const EXTRA_PER_BYTE: usize = 4;
const EXTRA_FLOOR: usize = 64 * 1024;

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
        let mut search = Search { scanner: self.scanner, hits: Vec::new(), left };
        search.read(self, 0, None, squeeze);
        search.hits
    }

    /// The credentials in the text.
    pub(super) fn secrets(&self) -> Vec<(&'t Rule, Range<usize>)> {
        let mut found = Vec::new();
        for (index, near) in self.gate.candidates() {
            if let Some(rule) = self.scanner.rules.get(index).filter(|r| r.kind() == Kind::Secret) {
                found.extend(self.secrets_of(rule, &near).into_iter().map(|span| (rule, span)));
            }
        }
        found
    }

    fn secrets_of(&self, rule: &Rule, near: &Range<usize>) -> Vec<Range<usize>> {
        let from = if self.plain.is_some() { 0 } else { self.start_near(near) };
        let searched = self.plain_text().as_bytes().get(from..).unwrap_or_default();
        let secret = |groups: Captures<'_>| {
            let hit = groups.get(1).or_else(|| groups.get(0))?;
            let span = hit.start() + from..hit.end() + from;
            rule.is_plausible(hit.as_bytes()).then(|| self.source_of_plain(&span))
        };
        rule.regex.captures_iter(searched).filter_map(secret).collect()
    }

    /// Where in the original to start looking for what the canonical view has at `near`: on the
    /// line before, since an expression may begin before its keyword.
    fn start_near(&self, near: &Range<usize>) -> usize {
        const BEFORE: usize = 64;
        self.text.floor_char_boundary(self.canonical.source(near).start.saturating_sub(BEFORE))
    }

    /// The personal data in the text.
    pub(super) fn personal(&self, kind: PiiKind) -> Vec<Range<usize>> {
        let found = kind.find(self.plain_text());
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
}

/// The search for injections in a text and in everything that can be made of it.
struct Search<'s> {
    scanner: &'s Scanner,
    hits: Vec<Hit>,
    /// Bytes of further views that may still be read.
    left: usize,
}

impl Search<'_> {
    /// Reads one text; hits in a decoded one are reported at `span`, where it stood.
    fn read(
        &mut self,
        reading: &Reading<'_>,
        depth: u8,
        span: Option<&Range<usize>>,
        squeeze: bool,
    ) {
        let place = |hit: &Range<usize>| match span {
            Some(span) => span.clone(),
            None => reading.source_of_canonical(hit),
        };
        self.try_rules(&reading.gate, reading.canonical.text(), place);
        let whole = span.map_or(0..reading.text.len(), Clone::clone);
        if depth < MAX_DEPTH {
            for Decoded { text, span: at } in decode(reading.plain_text()) {
                let place = span.map_or_else(|| reading.source_of_plain(&at), Clone::clone);
                if self.afford(text.len()) {
                    self.read(&Reading::new(self.scanner, &text), depth + 1, Some(&place), false);
                }
            }
        }
        self.undisguise(reading, &whole, squeeze);
    }

    /// Reads the disguises that the text shows signs of.
    fn undisguise(&mut self, reading: &Reading<'_>, whole: &Range<usize>, squeeze: bool) {
        let text = reading.canonical.text();
        let signs = signs(text);
        if signs.leet {
            self.read_as(whole, text, unleet);
        }
        if reading.gate.rotated {
            self.read_as(whole, text, rot13);
        }
        if reading.gate.reversed {
            self.read_as(whole, text, reversed);
            self.read_as(whole, text, words_reversed);
        }
        if (signs.spaced || squeeze) && self.afford(text.len()) {
            self.read_squeezed(whole, &squeezed(text));
        }
    }

    fn read_as(&mut self, whole: &Range<usize>, text: &str, undo: fn(&str) -> String) {
        if self.afford(text.len()) {
            let undone = undo(text);
            let gate = self.scanner.canonical.gate(&undone);
            self.try_rules(&gate, &undone, |_| whole.clone());
        }
    }

    fn read_squeezed(&mut self, whole: &Range<usize>, text: &str) {
        let matcher: &Matcher = &self.scanner.squeezed;
        for (index, near) in matcher.gate(text).candidates() {
            let regex = self.scanner.rules.get(index).and_then(|rule| rule.squeezed.as_ref());
            if regex.is_some_and(|regex| locate(regex, text, &near).is_some()) {
                self.add(index, whole.clone());
            }
        }
    }

    fn try_rules(
        &mut self,
        gate: &Gate,
        text: &str,
        place: impl Fn(&Range<usize>) -> Range<usize>,
    ) {
        for (index, near) in gate.candidates() {
            let Some(rule) = self.scanner.rules.get(index) else { continue };
            if rule.kind().is_injection()
                && let Some(hit) = locate(&rule.regex, text, &near)
            {
                self.add(index, place(&hit));
            }
        }
    }

    fn add(&mut self, rule: usize, span: Range<usize>) {
        if !self.hits.iter().any(|(known, _)| *known == rule) {
            self.hits.push((rule, span));
        }
    }

    fn afford(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }
}

/// The texts of one message joined, and the way from there back to each of them.
pub(super) struct Joined {
    text: String,
    starts: Vec<usize>,
}

impl Joined {
    pub(super) fn new<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        let (mut text, mut starts) = (String::new(), Vec::new());
        for part in texts {
            starts.push(text.len());
            text.push_str(part);
        }
        Self { text, starts }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The parts that a range covers: index of the text, and range in it.
    pub(super) fn parts(&self, range: &Range<usize>) -> Vec<(usize, Range<usize>)> {
        let first = self.starts.partition_point(|&start| start <= range.start).saturating_sub(1);
        let ends = self.starts.iter().copied().skip(first + 1).chain([self.text.len()]);
        let bounds = self.starts.iter().copied().skip(first).zip(ends).enumerate();
        bounds
            .take_while(|(_, (start, _))| *start < range.end)
            .map(|(n, (start, end))| {
                (first + n, range.start.max(start) - start..range.end.min(end) - start)
            })
            .filter(|(_, part)| !part.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_the_joined_text_falls_into_its_parts() {
        let joined = Joined::new(["abc", "", "de", "f"].into_iter());
        assert_eq!(joined.text(), "abcdef");
        for (range, expected) in [
            (0..2, vec![(0, 0..2)]),
            (2..6, vec![(0, 2..3), (2, 0..2), (3, 0..1)]),
            (3..5, vec![(2, 0..2)]),
        ] {
            assert_eq!(joined.parts(&range), expected, "{range:?}");
        }
    }

    #[test]
    fn the_budget_for_further_views_runs_out() {
        let scanner = Scanner::builtin().expect("rules");
        let mut search = Search { scanner: &scanner, hits: Vec::new(), left: 10 };
        assert!(search.afford(6) && !search.afford(5) && search.afford(4) && !search.afford(1));
    }
}
