//! Deterministic automata over bytes: a transition is one look-up in a table, and a state is a
//! number that stays valid between the parts of a stream.
//!
//! A match is told one byte late: the state after a byte says what ended before it.

use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::start;
use regex_automata::{Anchored, MatchKind};
use regex_syntax::hir::Hir;

use super::shape::ShapeError;

/// Bytes that one automaton may take, and that making it may take.
const MAX_TABLE: usize = 8 << 20;
const MAX_WORK: usize = 128 << 20;

/// An automaton for several expressions at once, all of whose matches it tells.
pub(super) struct Automaton {
    dfa: dense::DFA<Vec<u32>>,
    /// Where reading begins after each byte, and at the start of a text.
    starts: Box<[StateID; 257]>,
}

impl Automaton {
    /// One that matches from where it is started.
    pub(super) fn anchored(expressions: &[Hir]) -> Result<Self, ShapeError> {
        Self::build(expressions, true, MAX_TABLE)
    }

    /// One that reads a whole text and tells where matches end.
    pub(super) fn searching(expressions: &[Hir]) -> Result<Self, ShapeError> {
        Self::build(expressions, false, MAX_TABLE)
    }

    /// The same in so many bytes.
    pub(super) fn searching_within(expressions: &[Hir], table: usize) -> Result<Self, ShapeError> {
        Self::build(expressions, false, table)
    }

    fn build(expressions: &[Hir], anchored: bool, table: usize) -> Result<Self, ShapeError> {
        let fail = |e: &dyn std::error::Error| ShapeError(e.to_string());
        let nfa = thompson::Compiler::new()
            .configure(
                thompson::Config::new().utf8(false).which_captures(thompson::WhichCaptures::None),
            )
            .build_many_from_hir(expressions)
            .map_err(|e| fail(&e))?;
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .start_kind(if anchored { StartKind::Anchored } else { StartKind::Unanchored })
            .accelerate(false)
            .dfa_size_limit(Some(table))
            .determinize_size_limit(Some(MAX_WORK));
        let built = dense::Builder::new().configure(config).build_from_nfa(&nfa);
        let dfa = built.map_err(|e| fail(&e))?;
        let mut starts = Box::new([StateID::ZERO; 257]);
        for (before, start) in (0u16..).zip(starts.iter_mut()) {
            let mode = if anchored { Anchored::Yes } else { Anchored::No };
            let config = start::Config::new().anchored(mode);
            let config = config.look_behind(u8::try_from(before).ok());
            *start = dfa.start_state(&config).map_err(|e| fail(&e))?;
        }
        Ok(Self { dfa, starts })
    }

    /// The state before the first byte, given the byte before it.
    pub(super) fn start(&self, before: Option<u8>) -> StateID {
        let index = before.map_or(256, usize::from);
        self.starts.get(index).copied().unwrap_or(StateID::ZERO)
    }

    #[inline]
    pub(super) fn next(&self, state: StateID, byte: u8) -> StateID {
        self.dfa.next_state(state, byte)
    }

    /// The state after the last byte of a text.
    pub(super) fn end(&self, state: StateID) -> StateID {
        self.dfa.next_eoi_state(state)
    }

    /// Whether a state is dead or tells of a match.
    #[inline]
    pub(super) fn is_special(&self, state: StateID) -> bool {
        self.dfa.is_special_state(state)
    }

    #[inline]
    pub(super) fn is_dead(&self, state: StateID) -> bool {
        self.dfa.is_dead_state(state) || self.dfa.is_quit_state(state)
    }

    /// The expressions that matched, by their index.
    pub(super) fn matches(&self, state: StateID) -> impl Iterator<Item = usize> {
        let count = if self.dfa.is_match_state(state) { self.dfa.match_len(state) } else { 0 };
        (0..count).map(move |index| self.dfa.match_pattern(state, index).as_usize())
    }

    /// Bytes of the tables.
    pub(super) fn size(&self) -> usize {
        self.dfa.memory_usage() + size_of_val(&*self.starts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::shape::Shape;
    use super::*;

    fn expressions(patterns: &[&str]) -> Vec<Hir> {
        patterns.iter().map(|p| Shape::new(p).expect("shape").body).collect()
    }

    /// Where each expression matched: its index and the end.
    fn run(automaton: &Automaton, before: Option<u8>, text: &str) -> Vec<(usize, usize)> {
        let (mut state, mut found) = (automaton.start(before), Vec::new());
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            state = automaton.next(state, byte);
            found.extend(automaton.matches(state).map(|which| (which, at)));
        }
        let end = automaton.end(state);
        found.extend(automaton.matches(end).map(|which| (which, text.len())));
        found
    }

    #[test]
    fn all_matches_are_told() {
        let anchored = Automaton::anchored(&expressions(&[r"\bab+", "abb"])).expect("automaton");
        assert_eq!(run(&anchored, None, "abbbx"), [(0, 2), (0, 3), (1, 3), (0, 4)]);
        assert_eq!(run(&anchored, Some(b'x'), "abbb"), [(1, 3)]);
        assert!(anchored.is_dead(anchored.next(anchored.start(None), b'x')));
        let searching = Automaton::searching(&expressions(&["key=", "^"])).expect("automaton");
        assert_eq!(run(&searching, None, "a key=key="), [(1, 0), (0, 6), (0, 10)]);
    }

    #[test]
    fn an_automaton_that_grows_too_large_is_refused() {
        let error = Automaton::searching(&expressions(&["[ab]*a[ab]{30}"])).err();
        assert!(error.is_some_and(|error| error.to_string().starts_with("shape: ")));
    }
}
