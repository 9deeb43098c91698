//! Words that need no number: terms of finance and health, and what stands before names.
//!
//! All lists are one automaton, so that a text is read once however many kinds are asked for. A
//! term is no identifier; both classes are meant for policies that mark texts, not redact them.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Anchored, Input, MatchKind, StartKind};

use super::Detector;
use super::cues::is_whole;

pub(super) const FINANCIAL_TERM: Detector = Detector {
    name: "financial_term",
    placeholder: "[FINANCIAL_TERM]",
    default: false,
    longest: MAX_TERM,
    shape: || &FINANCIAL_SHAPE,
    find: |survey| survey.words_of(Class::Financial).collect(),
};

pub(super) const HEALTH_TERM: Detector = Detector {
    name: "health_term",
    placeholder: "[HEALTH_TERM]",
    default: false,
    longest: MAX_TERM,
    shape: || &HEALTH_SHAPE,
    find: |survey| survey.words_of(Class::Health).collect(),
};

/// Bytes of the longest term, which the tests hold the lists to.
const MAX_TERM: usize = 64;

static FINANCIAL_SHAPE: LazyLock<String> = LazyLock::new(|| shape_of(Class::Financial));
static HEALTH_SHAPE: LazyLock<String> = LazyLock::new(|| shape_of(Class::Health));

/// What a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Financial,
    Health,
    /// A title before a name.
    Title,
    /// A phrase that introduces somebody by name.
    Introduction,
}

/// The lists: one term a line, in lower case; `#` begins a comment.
const LISTS: [(Class, &str); 4] = [
    (Class::Financial, include_str!("terms/financial.txt")),
    (Class::Health, include_str!("terms/health.txt")),
    (Class::Title, include_str!("terms/titles.txt")),
    (Class::Introduction, include_str!("terms/introductions.txt")),
];

struct Lexicon {
    automaton: AhoCorasick,
    classes: Vec<Class>,
    openings: Openings,
}

static LEXICON: LazyLock<Option<Lexicon>> = LazyLock::new(|| {
    let automaton = AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::LeftmostLongest)
        .start_kind(StartKind::Anchored)
        .kind(Some(AhoCorasickKind::DFA))
        .build(terms().map(|(_, term)| term))
        .ok()?;
    let classes = terms().map(|(class, _)| class).collect();
    Some(Lexicon { automaton, classes, openings: Openings::of_terms() })
});

/// Which three bytes, hashed, some term begins with. Nearly no word of a text passes, so that the
/// automaton is seldom asked.
struct Openings(Box<[u64; 1024]>);

impl Openings {
    fn of_terms() -> Self {
        let mut openings = Self(Box::new([0; 1024]));
        for (_, term) in terms() {
            match term.as_bytes() {
                [a, b, c, ..] => openings.add(*a, *b, *c),
                // Any byte may follow a term of two letters.
                [a, b] => (0..=u8::MAX).for_each(|c| openings.add(*a, *b, c)),
                _ => {}
            }
        }
        openings
    }

    const fn hash(a: u8, b: u8, c: u8) -> u16 {
        let bytes = u32::from_le_bytes([a | 0x20, b | 0x20, c | 0x20, 0]);
        (bytes.wrapping_mul(0x9e37_79b1) >> 16) as u16
    }

    fn add(&mut self, a: u8, b: u8, c: u8) {
        let hash = Self::hash(a, b, c);
        if let Some(word) = self.0.get_mut(usize::from(hash >> 6)) {
            *word |= 1 << (hash & 63);
        }
    }

    fn allow(&self, a: u8, b: u8, c: u8) -> bool {
        let hash = Self::hash(a, b, c);
        self.0.get(usize::from(hash >> 6)).is_some_and(|word| word >> (hash & 63) & 1 == 1)
    }
}

fn terms() -> impl Iterator<Item = (Class, &'static str)> {
    LISTS.into_iter().flat_map(|(class, list)| {
        let lines = list.lines().map(str::trim);
        lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(move |term| (class, term))
    })
}

/// All words of the lists that stand in a text as whole words.
pub(super) fn words(text: &[u8]) -> Vec<(Class, Range<usize>)> {
    let Some(lexicon) = LEXICON.as_ref() else { return Vec::new() };
    let mut found: Vec<_> = lexicon.word_at(text, 0).into_iter().collect();
    let mut free = found.last().map_or(1, |(_, span)| span.end);
    for (window, at) in text.windows(4).zip(1..) {
        let [before, a, b, c] = window else { continue };
        // Both sides are computed without a branch, which words of any length would mislead.
        let opens = lexicon.openings.allow(*a, *b, *c) & !before.is_ascii_alphabetic();
        if opens && at >= free {
            found.extend(lexicon.word_at(text, at).inspect(|(_, span)| free = span.end));
        }
    }
    found
}

impl Lexicon {
    fn word_at(&self, text: &[u8], at: usize) -> Option<(Class, Range<usize>)> {
        let input = Input::new(text).range(at..).anchored(Anchored::Yes);
        let hit = self.automaton.find(input)?;
        let class = *self.classes.get(hit.pattern().as_usize())?;
        is_whole(text, hit.start(), hit.end()).then(|| (class, hit.range()))
    }
}

fn shape_of(class: Class) -> String {
    let terms: Vec<String> =
        terms().filter(|(of, _)| *of == class).map(|(_, term)| escaped(term)).collect();
    format!(r"(?:{})(?:s)?[\x00-\xff]", terms.join("|"))
}

/// A term as an expression over bytes that takes both cases of ASCII letters.
fn escaped(term: &str) -> String {
    let byte = |b: u8| match b {
        b if b.is_ascii_alphabetic() => {
            format!("[{}{}]", char::from(b.to_ascii_uppercase()), char::from(b))
        }
        b => format!(r"\x{b:02x}"),
    };
    term.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::super::PiiKind;
    use super::super::testing::check;
    use super::*;

    #[test]
    fn terms_of_finance_and_health() {
        let finance = |text: &str, expected: &[&str]| check(PiiKind::FinancialTerm, text, expected);
        finance("My Credit Score and bank statements", &["Credit Score", "bank statement"]);
        finance("Mein Kontostand", &["Kontostand"]);
        finance("accreditation", &[]);
        let health = |text: &str, expected: &[&str]| check(PiiKind::HealthTerm, text, expected);
        health("She has Diabetes; 糖尿病", &["Diabetes", "糖尿病"]);
        health("the diabetologist", &[]);
    }

    #[test]
    fn lists_are_lower_case_unique_and_short() {
        let mut all: Vec<&str> = terms().map(|(_, term)| term).collect();
        assert!(all.iter().all(|term| term.len() <= MAX_TERM && *term == term.to_lowercase()));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(LEXICON.is_some());
    }
}
