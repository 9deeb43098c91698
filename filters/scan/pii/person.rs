//! Names of persons, as far as a title or an introduction gives them away. A name alone looks like
//! any other capitalised word, so most names are not found, and some that are found are no names.

use std::ops::Range;

use super::lexicon::Class;
use super::{Detector, Survey};

/// Words of a name, and bytes of each.
const MAX_WORDS: usize = 3;

/// A longer word before a full stop ends the sentence.
const ABBREVIATED: usize = 4;
const MAX_WORD: usize = 32;

/// Ideographs of a Chinese or Japanese name, each three bytes.
const IDEOGRAPHS: std::ops::RangeInclusive<usize> = 2..=4;

pub(super) const PERSON: Detector = Detector {
    name: "person",
    placeholder: "[PERSON]",
    default: false,
    longest: MAX_WORDS * (MAX_WORD + 1),
    shape: || r"[A-Z\xc2-\xf4][A-Za-z\x80-\xff'.-]{0,31}(?: [A-Z\xc2-\xf4][A-Za-z\x80-\xff'.-]{0,31}){0,2}(?: ?[\x00-\xff])?",
    find: persons,
};

fn persons(survey: &Survey<'_>) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let titled = survey.words_of(Class::Title);
    let introduced = survey.words_of(Class::Introduction).map(|span| span.end);
    let titled = titled.filter(|title| is_title(survey, title)).map(|title| title.end);
    for end in titled.chain(introduced) {
        found.extend(name(survey, end));
    }
    found.sort_unstable_by_key(|span| span.start);
    found.dedup_by(|next, last| next.start < last.end);
    found
}

/// Whether a title is written as one: `sig.` and `pan` are also words.
fn is_title(survey: &Survey<'_>, title: &Range<usize>) -> bool {
    let word = survey.slice(title.clone());
    !word.first().is_some_and(u8::is_ascii_lowercase)
}

/// The name after a title or an introduction that ends at `at`.
fn name(survey: &Survey<'_>, at: usize) -> Option<Range<usize>> {
    let gap = survey.slice(at..(at + 3).min(survey.text().len()));
    let start = at + gap.iter().take_while(|b| matches!(b, b' ' | b'.' | b':')).count();
    if let Some(len) = ideographs(survey, start) {
        return Some(start..start + len);
    }
    let mut end = start;
    for _ in 0..MAX_WORDS {
        let next = if end > start && survey.byte(end) == Some(b' ') { end + 1 } else { end };
        match word(survey, next) {
            Some(len) if end == start || next > end => {
                end = next + len;
                if len > ABBREVIATED && survey.previous(end) == Some(b'.') {
                    break;
                }
            }
            _ => break,
        }
    }
    let name = survey.slice(start..end);
    let dots = name.iter().rev().take_while(|&&b| matches!(b, b'.' | b'-' | b'\'')).count();
    (name.len() >= dots + 2).then(|| start..end - dots)
}

/// The length of the capitalised word at `at`.
fn word(survey: &Survey<'_>, at: usize) -> Option<usize> {
    let text = survey.text().get(at..)?;
    let first = std::str::from_utf8(text.get(..text.len().min(4))?).map_or_else(
        |error| std::str::from_utf8(text.get(..error.valid_up_to()).unwrap_or_default()).ok(),
        Some,
    )?;
    let capital = first.chars().next().is_some_and(char::is_uppercase);
    let belongs = |b: u8| b.is_ascii_alphabetic() || b >= 0x80 || matches!(b, b'\'' | b'-' | b'.');
    let len = text.iter().take(MAX_WORD + 1).take_while(|&&b| belongs(b)).count();
    (capital && len <= MAX_WORD).then_some(len)
}

/// The length of a name in ideographs.
fn ideographs(survey: &Survey<'_>, at: usize) -> Option<usize> {
    let text = survey.text().get(at..)?;
    let count = text.chunks(3).take(5).take_while(|c| matches!(c, [0xe4..=0xe9, _, _])).count();
    IDEOGRAPHS.contains(&count).then_some(count * 3)
}

#[cfg(test)]
mod tests {
    use super::super::PiiKind;
    use super::super::testing::check;

    #[test]
    fn names_after_titles_and_introductions() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Person, text, expected);
        check("ask Dr. Ada Lovelace, please", &["Ada Lovelace"]);
        check("My name is Ada O'Neil-King.", &["Ada O'Neil-King"]);
        check("Ich heiße Özlem Şahin und", &["Özlem Şahin"]);
        check("меня зовут Анна", &["Анна"]);
        check("我叫王小明。", &["王小明"]);
        check("Mr. J. R. Smith Jr. Yes", &["J. R. Smith"]);
        check("Mister Jonas. He left; te bøje sig. Det", &["Jonas"]);
        check("my name is not known; Mr. and Mrs. of", &[]);
    }
}
