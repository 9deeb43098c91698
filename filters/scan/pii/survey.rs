//! The pre-pass that all detectors share: where the digits of a text stand, and what is said
//! around them.
//!
//! Nearly everything that is looked for holds a digit, an `@` or a colon. One pass finds the runs
//! of digits; a detector then reads only around them, within fixed lengths, so that prose costs
//! the pass and a hostile text costs no more than its length.

use std::cell::{Cell, OnceCell};
use std::ops::Range;

use super::cues::{Cues, places};
use super::lexicon::{Class, words};

/// Bytes that are looked at together: a chunk without digits is passed over at once.
const CHUNK: usize = 64;

/// How far before a number its context is read, in bytes.
pub(super) const BEFORE: usize = 64;

/// How far after a number its context is read, in bytes.
pub(super) const AFTER: usize = 16;

/// A text and its runs of digits.
#[derive(Debug)]
pub(crate) struct Survey<'t> {
    text: &'t [u8],
    groups: Vec<Range<usize>>,
    /// The context of the number that was asked for last: several detectors ask for the same.
    context: Cell<Option<(usize, usize, Cues)>>,
    /// Where any word of context stands, for texts of many numbers.
    said: OnceCell<Vec<Range<usize>>>,
    words: OnceCell<Vec<(Class, Range<usize>)>>,
}

impl<'t> Survey<'t> {
    /// Allocates nothing if the text has no digits.
    pub(crate) fn new(text: &'t str) -> Self {
        let text = text.as_bytes();
        let (context, said, words) = (Cell::new(None), OnceCell::new(), OnceCell::new());
        Self { text, groups: digit_groups(text), context, said, words }
    }

    /// The text.
    pub(super) const fn text(&self) -> &'t [u8] {
        self.text
    }

    /// The maximal runs of digits.
    pub(super) fn groups(&self) -> &[Range<usize>] {
        &self.groups
    }

    /// The bytes of a range; none if it leaves the text.
    pub(super) fn slice(&self, range: Range<usize>) -> &'t [u8] {
        self.text.get(range).unwrap_or_default()
    }

    /// The byte at `at`.
    pub(super) fn byte(&self, at: usize) -> Option<u8> {
        self.text.get(at).copied()
    }

    /// The byte before `at`.
    pub(super) fn previous(&self, at: usize) -> Option<u8> {
        at.checked_sub(1).and_then(|at| self.byte(at))
    }

    /// What the text between two groups is.
    pub(super) fn between(&self, a: &Range<usize>, b: &Range<usize>) -> &'t [u8] {
        self.slice(a.end..b.start)
    }

    /// What is said around a number.
    pub(super) fn cues(&self, span: &Range<usize>) -> Cues {
        if let Some((start, end, cues)) = self.context.get()
            && (start, end) == (span.start, span.end)
        {
            return cues;
        }
        let before = span.start.saturating_sub(BEFORE)..span.start;
        let after = span.end..span.end.saturating_add(AFTER).min(self.text.len());
        let cues = if self.says_nothing(&before) && self.says_nothing(&after) {
            Cues::default()
        } else {
            Cues::read(self.slice(before), self.slice(after))
        };
        self.context.set(Some((span.start, span.end, cues)));
        cues
    }

    /// Whether no word of context is even in part in a range; known only of texts with so many numbers
    /// that reading around each of them costs more than reading the whole once.
    fn says_nothing(&self, range: &Range<usize>) -> bool {
        if self.groups.len() * (BEFORE + AFTER) < self.text.len() {
            return false;
        }
        let said = self.said.get_or_init(|| places(self.text));
        let next = said.partition_point(|place| place.end <= range.start);
        said.get(next).is_none_or(|place| place.start >= range.end)
    }

    /// The words of one list of the lexicon, which is read once for all lists.
    pub(super) fn words_of(&self, class: Class) -> impl Iterator<Item = Range<usize>> {
        let words = self.words.get_or_init(|| words(self.text)).iter();
        words.filter(move |(of, _)| *of == class).map(|(_, span)| span.clone())
    }

    /// Whether no letter, digit or decimal point of ASCII touches the range.
    pub(super) fn stands_alone(&self, span: &Range<usize>) -> bool {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let touched = self.previous(span.start).is_some_and(is_word)
            || self.byte(span.end).is_some_and(is_word);
        let before = self.slice(span.start.saturating_sub(2)..span.start);
        let decimal_before = matches!(before, [b'0'..=b'9', b'.' | b',']);
        let after = self.slice(span.end..span.end.saturating_add(2).min(self.text.len()));
        !touched && !decimal_before && !matches!(after, [b'.' | b',', b'0'..=b'9'])
    }

    /// Tries `find` at each group of digits, which it gets with all that follow; groups inside of
    /// what was found are passed over.
    pub(super) fn at_groups(
        &self,
        find: impl Fn(&Self, &[Range<usize>]) -> Option<Range<usize>>,
    ) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        let mut rest = self.groups();
        while let Some((first, next)) = rest.split_first() {
            let free = found.last().map_or(0, |last| last.end);
            if first.start >= free {
                found.extend(find(self, rest).filter(|span| span.start >= free));
            }
            rest = next;
        }
        found
    }

    /// The run of bytes around `at` that all belong, if it is not longer than `limit`.
    pub(super) fn run(
        &self,
        at: usize,
        limit: usize,
        belongs: impl Fn(u8) -> bool,
    ) -> Option<Range<usize>> {
        let (before, after) = (self.text.get(..at)?, self.text.get(at..)?);
        let back = before.iter().rev().take(limit + 1).take_while(|&&b| belongs(b)).count();
        let ahead = after.iter().take(limit + 1).take_while(|&&b| belongs(b)).count();
        (back + ahead <= limit).then_some(at - back..at + ahead)
    }
}

fn digit_groups(text: &[u8]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for (chunk, start) in text.chunks(CHUNK).zip((0..).step_by(CHUNK)) {
        // Without early exit, so that the compiler makes vector code of it.
        if chunk.iter().fold(false, |any, b| any | b.is_ascii_digit()) {
            let digits = chunk.iter().zip(start..).filter(|(b, _)| b.is_ascii_digit());
            digits.for_each(|(_, at)| add_digit(&mut groups, at));
        }
    }
    groups
}

fn add_digit(groups: &mut Vec<Range<usize>>, at: usize) {
    match groups.last_mut().filter(|group| group.end == at) {
        Some(group) => group.end = at + 1,
        None => groups.push(at..at + 1),
    }
}

/// How printed numbers are divided: a space or a dash, also the typographer's: no-break (U+00A0,
/// U+202F, U+2011), figure (U+2007, U+2012), thin (U+2009), en dash and minus.
pub(super) fn is_divider(between: &[u8]) -> bool {
    matches!(
        between,
        b" " | b"-"
            | b"\xc2\xa0"
            | [0xe2, 0x80, 0xaf | 0x87 | 0x89 | 0x91..=0x93]
            | b"\xe2\x88\x92"
    )
}

/// How else people divide numbers that a check digit or a name proves.
pub(super) fn is_loose_divider(between: &[u8]) -> bool {
    is_divider(between) || matches!(between, b"." | b"  " | b" - ")
}

/// The digits of a text as numbers from 0 to 9.
pub(super) fn digits(text: &[u8]) -> impl DoubleEndedIterator<Item = u8> + Clone {
    text.iter().filter(|b| b.is_ascii_digit()).map(|b| b - b'0')
}

/// The number that the digits of a text write, as far as it fits.
pub(super) fn number(text: &[u8]) -> u64 {
    digits(text).fold(0u64, |n, d| n.saturating_mul(10).saturating_add(u64::from(d)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_digits_across_chunks() {
        let text = format!("{}1234{} 5", "x".repeat(CHUNK - 2), "y".repeat(CHUNK));
        let survey = Survey::new(&text);
        assert_eq!(survey.groups(), [62..66, 131..132]);
        assert_eq!(Survey::new("no digits").groups.capacity(), 0);
    }

    #[test]
    fn a_number_touched_by_a_word_or_a_decimal_point_is_part_of_something_else() {
        for (text, expected) in [
            ("a 123 b", true),
            ("(123)", true),
            ("请123谢", true),
            ("123.", true),
            ("x123", false),
            ("123_", false),
            ("0.123", false),
            ("123.5", false),
            ("123,5", false),
        ] {
            let survey = Survey::new(text);
            let first = survey.groups().iter().find(|group| group.len() == 3).expect("group");
            assert_eq!(survey.stands_alone(first), expected, "{text}");
        }
    }

    #[test]
    fn a_run_has_a_limit() {
        let survey = Survey::new("ab12cd!");
        assert_eq!(survey.run(2, 6, |b| b.is_ascii_alphanumeric()), Some(0..6));
        assert_eq!(survey.run(2, 5, |b| b.is_ascii_alphanumeric()), None);
    }
}
