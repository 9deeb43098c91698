//! The engine: one Aho-Corasick pass over a text says which rules are worth trying, and where.
//!
//! A rule's expression then runs once, over the stretch between its first and last keyword, so
//! that the whole is linear in the text however it is built, and a text without keywords costs
//! the pass only. The same pass notices keywords written backwards or rotated by 13.

use std::collections::HashMap;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use regex::bytes::Regex;

use super::disguise::{reversed, rot13, squeezed};
use super::rules::{BROAD, Rule};

/// How far from its keywords an expression may look, in bytes.
const REACH: usize = 512;

/// Shorter keywords turn up backwards or rotated in ordinary words.
const MIN_SIGN: usize = 5;

/// What a keyword stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Rule(usize),
    Rotated,
    Reversed,
}

/// The keywords of all rules in one automaton.
#[derive(Debug)]
pub(super) struct Matcher {
    automaton: AhoCorasick,
    owners: Vec<Vec<Owner>>,
    rules: usize,
}

/// Which rules a text may concern.
#[derive(Debug, Default)]
pub(super) struct Gate {
    near: Vec<Option<Range<usize>>>,
    pub(super) rotated: bool,
    pub(super) reversed: bool,
}

impl Gate {
    /// The rules by index, and the stretch of text between their keywords.
    pub(super) fn candidates(&self) -> impl Iterator<Item = (usize, Range<usize>)> {
        self.near.iter().enumerate().filter_map(|(rule, near)| Some((rule, near.clone()?)))
    }
}

impl Matcher {
    /// For the canonical view of a text.
    pub(super) fn canonical(rules: &[Rule]) -> Result<Self, String> {
        let mut words = Keywords::default();
        for (index, rule) in rules.iter().enumerate() {
            for word in rule.keywords() {
                if rule.kind().is_injection() && rule.severity() >= BROAD {
                    words.add_signs(&word);
                }
                words.add(word, Owner::Rule(index));
            }
        }
        words.build(rules.len())
    }

    /// For a text of which only letters and digits are left.
    pub(super) fn squeezed(rules: &[Rule]) -> Result<Self, String> {
        let mut words = Keywords::default();
        for (index, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.squeezed.is_some()) {
            rule.keywords().for_each(|word| words.add(squeezed(&word), Owner::Rule(index)));
        }
        words.build(rules.len())
    }

    /// The rules that a text may concern.
    pub(super) fn gate(&self, text: &str) -> Gate {
        let mut gate = Gate::default();
        for hit in self.automaton.find_overlapping_iter(text) {
            for &owner in self.owners.get(hit.pattern().as_usize()).into_iter().flatten() {
                self.note(&mut gate, owner, hit.range());
            }
        }
        gate
    }

    fn note(&self, gate: &mut Gate, owner: Owner, hit: Range<usize>) {
        match owner {
            Owner::Rotated => gate.rotated = true,
            Owner::Reversed => gate.reversed = true,
            Owner::Rule(rule) => {
                if gate.near.is_empty() {
                    gate.near.resize(self.rules, None);
                }
                if let Some(near) = gate.near.get_mut(rule) {
                    let start = near.as_ref().map_or(hit.start, |near| near.start.min(hit.start));
                    *near = Some(start..hit.end);
                }
            }
        }
    }
}

/// The first match of an expression within reach of its keywords.
pub(super) fn locate(regex: &Regex, text: &str, near: &Range<usize>) -> Option<Range<usize>> {
    let end = near.end.saturating_add(REACH).min(text.len());
    let haystack = text.as_bytes().get(..end)?;
    regex.find_at(haystack, near.start.saturating_sub(REACH)).map(|hit| hit.range())
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

    /// The disguised forms of a keyword, as signs that the text is disguised.
    fn add_signs(&mut self, word: &str) {
        if word.is_ascii() && word.len() >= MIN_SIGN && !word.contains(' ') {
            self.add(rot13(word), Owner::Rotated);
            self.add(reversed(word), Owner::Reversed);
        }
    }

    fn build(self, rules: usize) -> Result<Matcher, String> {
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&self.words)
            .map_err(|e| e.to_string())?;
        Ok(Matcher { automaton, owners: self.owners, rules })
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::load;
    use super::*;

    fn gate(text: &str) -> Gate {
        Matcher::canonical(&load(&[]).expect("rules")).expect("matcher").gate(text)
    }

    #[test]
    fn a_text_without_keywords_concerns_no_rule() {
        assert_eq!(gate("a picture of the sea").candidates().count(), 0);
    }

    #[test]
    fn a_rule_is_tried_from_its_first_to_its_last_keyword() {
        let text = "hf_ and later hf_ again";
        let near: Vec<_> = gate(text).candidates().map(|(_, near)| near).collect();
        assert!(near.contains(&(0..17)), "{near:?}");
    }

    #[test]
    fn disguised_keywords_are_signs() {
        assert!(gate("vafgehpgvba").rotated);
        assert!(gate("noitcurtsni").reversed);
        assert!(!gate("instruction").rotated && !gate("instruction").reversed);
    }

    #[test]
    fn an_expression_sees_no_further_than_its_reach() {
        let regex = Regex::new("b").expect("regex");
        let text = format!("a{}b", "x".repeat(REACH));
        assert_eq!(locate(&regex, &text, &(0..1)), None);
        assert_eq!(locate(&regex, &text, &(1..2)), Some(REACH + 1..REACH + 2));
    }
}
