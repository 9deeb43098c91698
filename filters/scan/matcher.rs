//! The engine: one Aho-Corasick pass over a text says which rules are worth trying, and where.
//!
//! A rule's expression then runs only around its keywords, so that the whole is linear in the text
//! however it is built, and a text without keywords costs the pass only. Keywords beyond ASCII have
//! an automaton of their own, which leaves the one that every prompt passes small. The same pass
//! notices words that are written backwards, rotated by 13, in pig latin or in reverse order.

use std::collections::HashMap;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::bytes::Regex;

use super::disguise::{Regions, Vocabulary, reversed, rot13, squeezed};
use super::rules::Rule;

/// How far from its keywords an expression may look, in bytes.
const REACH: usize = 512;

/// Shorter words turn up backwards or rotated in ordinary ones.
const MIN_SIGN: usize = 5;

/// Shorter keywords are everywhere once spaces and signs are gone.
const MIN_SQUEEZED: usize = 3;

/// Words that are signs when they are disguised, beside those of the rules.
const COMMON: &str = "the and you your this that with what have from will please ignore previous
    instruction system prompt reveal forget disregard message everything override answer without
    write following secret";

/// What texts call the cipher that they are in.
const CIPHERS: [&str; 4] = ["rot13", "rot-13", "rot 13", "caesar"];

/// Pairs of words that only come in this order if the text is read from its end.
const BACKWARDS: [&str; 14] = [
    "instructions previous",
    "instructions prior",
    "instructions your",
    "instructions all",
    "instructions above",
    "prompt system",
    "prompt your",
    "previous all",
    "previous the",
    "guidelines your",
    "rules your",
    " the of ",
    " your of ",
    " the to ",
];

/// A sign that a text is disguised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Rotated,
    Reversed,
    PigLatin,
    Swapped,
}

/// What a keyword stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Rule(usize),
    Sign(Sign),
}

/// The keywords of all rules.
#[derive(Debug)]
pub(super) struct Matcher {
    ascii: Automaton,
    other: Automaton,
    rules: usize,
    vocabulary: Vocabulary,
}

/// Keywords in one automaton.
#[derive(Debug)]
struct Automaton {
    search: AhoCorasick,
    owners: Vec<Vec<Owner>>,
}

/// Which rules a text may concern, and the signs of disguise in it.
#[derive(Debug, Default)]
pub(super) struct Gate {
    clusters: Vec<(usize, Range<usize>)>,
    /// For each rule, one more than the index of its last cluster.
    last: Vec<usize>,
    signs: [Regions; 4],
}

impl Gate {
    /// The rules by index, each with a stretch of text that its keywords are close together in.
    pub(super) fn candidates(&self) -> impl Iterator<Item = (usize, &Range<usize>)> + Clone {
        self.clusters.iter().map(|(rule, near)| (*rule, near))
    }

    /// Where the text shows a sign.
    pub(super) const fn signs(&self, of: Sign) -> &Regions {
        let [rotated, reversed, pig_latin, swapped] = &self.signs;
        match of {
            Sign::Rotated => rotated,
            Sign::Reversed => reversed,
            Sign::PigLatin => pig_latin,
            Sign::Swapped => swapped,
        }
    }

    fn note(&mut self, owner: Owner, hit: Range<usize>, rules: usize) {
        match owner {
            Owner::Rule(rule) => self.concern(rule, hit, rules),
            Owner::Sign(sign) => {
                let [rotated, reversed, pig_latin, swapped] = &mut self.signs;
                match sign {
                    Sign::Rotated => rotated.add(hit),
                    Sign::Reversed => reversed.add(hit),
                    Sign::PigLatin => pig_latin.add(hit),
                    Sign::Swapped => swapped.add(hit),
                }
            }
        }
    }

    fn concern(&mut self, rule: usize, hit: Range<usize>, rules: usize) {
        if self.last.is_empty() {
            self.last.resize(rules, 0);
        }
        let Some(last) = self.last.get_mut(rule) else { return };
        let cluster = last.checked_sub(1).and_then(|index| self.clusters.get_mut(index));
        match cluster {
            Some((_, near)) if hit.start <= near.end + 2 * REACH => {
                *near = near.start.min(hit.start)..near.end.max(hit.end);
            }
            Some(_) | None => {
                self.clusters.push((rule, hit));
                *last = self.clusters.len();
            }
        }
    }
}

impl Matcher {
    /// For the canonical view of a text.
    pub(super) fn canonical(rules: &[Rule]) -> Result<Self, String> {
        let mut words = Keywords::default();
        COMMON.split_ascii_whitespace().for_each(|word| words.add_signs(word));
        CIPHERS.iter().for_each(|name| words.add((*name).to_owned(), Owner::Sign(Sign::Rotated)));
        BACKWARDS.iter().for_each(|pair| words.add((*pair).to_owned(), Owner::Sign(Sign::Swapped)));
        for (index, rule) in rules.iter().enumerate() {
            for word in rule.keywords() {
                if rule.kind().is_injection() {
                    word.split(' ').for_each(|word| words.add_backwards(word));
                }
                words.add(word, Owner::Rule(index));
            }
        }
        words.build(rules)
    }

    /// For a text of which only letters and digits are left.
    pub(super) fn squeezed(rules: &[Rule]) -> Result<Self, String> {
        let mut words = Keywords::default();
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.squeezed.is_some()) {
            let keywords = rule.keywords().map(|word| squeezed(&word));
            keywords
                .filter(|word| word.len() >= MIN_SQUEEZED)
                .for_each(|word| words.add(word, Owner::Rule(index)));
        }
        words.build(rules)
    }

    /// The rules that a text may concern.
    pub(super) fn gate(&self, text: &str) -> Gate {
        let mut gate = Gate::default();
        let ascii = self.ascii.hits(text);
        if text.is_ascii() {
            ascii.for_each(|(owner, hit)| gate.note(owner, hit, self.rules));
            return gate;
        }
        // Places are put together as they come, so they have to come in their order.
        let mut hits: Vec<_> = ascii.chain(self.other.hits(text)).collect();
        hits.sort_by_key(|(_, hit)| hit.start);
        hits.into_iter().for_each(|(owner, hit)| gate.note(owner, hit, self.rules));
        gate
    }

    /// The words that rules look for.
    pub(super) const fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

impl Automaton {
    fn new(words: &[String], owners: Vec<Vec<Owner>>) -> Result<Self, String> {
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(words)
            .map_err(|e| e.to_string())?;
        Ok(Self { search, owners })
    }

    fn hits<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (Owner, Range<usize>)> + 'a {
        self.search.find_overlapping_iter(text).flat_map(|hit| {
            let owners = self.owners.get(hit.pattern().as_usize()).into_iter().flatten();
            owners.map(move |&owner| (owner, hit.range()))
        })
    }
}

/// The text that an expression may see around its keywords.
pub(super) fn window(len: usize, near: &Range<usize>) -> Range<usize> {
    near.start.saturating_sub(REACH)..near.end.saturating_add(REACH).min(len)
}

/// The first match of an expression within reach of its keywords.
pub(super) fn locate(regex: &Regex, text: &str, near: &Range<usize>) -> Option<Range<usize>> {
    locate_apart(regex, text, near, usize::MAX).next()
}

/// Matches of an expression within reach of its keywords, of which none begins less than `apart` bytes
/// after the one before it. Linear in the reach.
pub(super) fn locate_apart<'t>(
    regex: &'t Regex,
    text: &'t str,
    near: &Range<usize>,
    apart: usize,
) -> impl Iterator<Item = Range<usize>> + use<'t> {
    let Range { mut start, end } = window(text.len(), near);
    let haystack = text.as_bytes().get(..end);
    std::iter::from_fn(move || {
        let hit = regex.find_at(haystack.filter(|text| start <= text.len())?, start)?.range();
        start = hit.start.saturating_add(apart).max(hit.end);
        Some(hit)
    })
}

/// Keywords and their owners, each word once.
#[derive(Default)]
struct Keywords {
    words: Vec<String>,
    owners: Vec<Vec<Owner>>,
    index: HashMap<String, usize>,
}

impl Keywords {
    fn add(&mut self, word: String, owner: Owner) {
        let next = self.words.len();
        let at = *self.index.entry(word.clone()).or_insert(next);
        if at == next {
            self.words.push(word);
            self.owners.push(Vec::new());
        }
        if let Some(owners) = self.owners.get_mut(at).filter(|owners| !owners.contains(&owner)) {
            owners.push(owner);
        }
    }

    /// The disguised forms of a common word; a short one has to stand alone.
    fn add_signs(&mut self, word: &str) {
        if word.len() < MIN_SIGN {
            self.add(format!(" {} ", reversed(word)), Owner::Sign(Sign::Reversed));
            self.add(format!(" {} ", rot13(word)), Owner::Sign(Sign::Rotated));
            return;
        }
        self.add(reversed(word), Owner::Sign(Sign::Reversed));
        self.add(rot13(word), Owner::Sign(Sign::Rotated));
        let (onset, rest) = word.split_at_checked(vowel_at(word)).unwrap_or(("", word));
        for end in if onset.is_empty() { ["way", "yay"] } else { ["ay", "-ay"] } {
            self.add(format!("{rest}{onset}{end}"), Owner::Sign(Sign::PigLatin));
        }
        if !onset.is_empty() {
            self.add(format!("{rest}-{onset}ay"), Owner::Sign(Sign::PigLatin));
        }
    }

    /// A word of a rule, read from its end.
    fn add_backwards(&mut self, word: &str) {
        let letters = word.chars().filter(|c| c.is_alphabetic()).count();
        let enough = if word.is_ascii() { MIN_SIGN } else { 3 };
        let backwards = reversed(word);
        if letters >= enough && letters == word.chars().count() && backwards != word {
            self.add(backwards, Owner::Sign(Sign::Reversed));
        }
    }

    fn build(self, rules: &[Rule]) -> Result<Matcher, String> {
        let pairs = self.words.into_iter().zip(self.owners);
        let (ascii, other): (Vec<_>, Vec<_>) = pairs.partition(|(word, _)| word.is_ascii());
        let automaton = |pairs: Vec<(String, Vec<Owner>)>| {
            let (words, owners): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            Automaton::new(&words, owners)
        };
        let attacks = rules.iter().filter(|rule| rule.kind().is_injection());
        let examples = attacks.flat_map(|rule| rule.must_match()).map(String::as_str);
        Ok(Matcher {
            ascii: automaton(ascii)?,
            other: automaton(other)?,
            rules: rules.len(),
            vocabulary: Vocabulary::new(examples.filter(|text| text.is_ascii())),
        })
    }
}

fn vowel_at(word: &str) -> usize {
    word.find(['a', 'e', 'i', 'o', 'u']).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::super::rules::load;
    use super::*;

    static MATCHER: LazyLock<Matcher> =
        LazyLock::new(|| Matcher::canonical(&load(&[]).expect("rules")).expect("matcher"));

    fn gate(text: &str) -> Gate {
        MATCHER.gate(text)
    }

    #[test]
    fn a_text_without_keywords_concerns_no_rule() {
        assert_eq!(gate("a picture of the sea").candidates().count(), 0);
    }

    #[test]
    fn a_rule_is_tried_around_its_keywords_only() {
        let near = |text: &str| -> Vec<_> {
            let gate = gate(text);
            gate.candidates()
                .filter(|(_, near)| near.start == 0)
                .map(|(_, near)| near.clone())
                .collect()
        };
        assert!(near("hf_ and later hf_ again").contains(&(0..17)));
        assert!(near(&format!("hf_{}hf_", " ".repeat(2 * REACH + 1))).contains(&(0..3)));
    }

    #[test]
    fn disguised_keywords_are_signs() {
        for (text, sign) in [
            ("vafgehpgvba", Sign::Rotated),
            (" gur ", Sign::Rotated),
            ("noitcurtsni", Sign::Reversed),
            ("ompt-pray", Sign::PigLatin),
            ("ignoreway", Sign::PigLatin),
            ("instructions previous", Sign::Swapped),
        ] {
            assert!(!gate(text).signs(sign).is_empty(), "{text}");
        }
        let plain = gate("the instruction, previously given");
        for sign in [Sign::Rotated, Sign::Reversed, Sign::PigLatin, Sign::Swapped] {
            assert!(plain.signs(sign).is_empty(), "{sign:?}");
        }
    }

    #[test]
    fn an_expression_sees_no_further_than_its_reach() {
        let regex = Regex::new("b").expect("regex");
        let text = format!("a{}b", "x".repeat(REACH));
        assert_eq!(locate(&regex, &text, &(0..1)), None);
        assert_eq!(locate(&regex, &text, &(1..2)), Some(REACH + 1..REACH + 2));
    }
}
