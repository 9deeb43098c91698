//! The lead that all assigned values have: one of many names, and what assigns to it.

use aho_corasick::automaton::Automaton as _;
use aho_corasick::nfa::contiguous::NFA;
use aho_corasick::{Anchored, MatchKind};
use regex_automata::util::primitives::StateID;

use super::automaton::Automaton;
use super::shape::{ShapeError, assigns};

/// The names, in any case, and the automaton for what follows one.
pub(super) struct Assignment {
    names: NFA,
    start: aho_corasick::automaton::StateID,
    assigns: Automaton,
}

/// How far a text is in an assignment.
#[derive(Clone, Copy)]
pub(super) struct Assigning {
    name: aho_corasick::automaton::StateID,
    /// In what follows a name. The last name is enough: what follows an earlier one either goes on
    /// with any letters, as it does here, or is over with them.
    state: Option<StateID>,
}

impl Assignment {
    pub(super) fn new(names: &[String]) -> Result<Self, ShapeError> {
        let built = NFA::builder()
            .match_kind(MatchKind::Standard)
            .ascii_case_insensitive(true)
            .build(names)
            .map_err(|e| ShapeError(e.to_string()))?;
        let start = built.start_state(Anchored::No).map_err(|e| ShapeError(e.to_string()))?;
        let assigns = Automaton::anchored(&[assigns()?])?;
        Ok(Self { names: built, start, assigns })
    }

    /// The state of a text of which nothing has been read.
    pub(super) const fn start(&self) -> Assigning {
        Assigning { name: self.start, state: None }
    }

    /// Reads a byte; gives whether a value may begin with it.
    #[inline]
    pub(super) fn read(&self, at: &mut Assigning, byte: u8) -> bool {
        let mut assigned = false;
        if let Some(state) = at.state {
            let next = self.assigns.next(state, byte);
            assigned = self.assigns.matches(next).next().is_some();
            at.state = (!self.assigns.is_dead(next)).then_some(next);
        }
        at.name = self.names.next_state(Anchored::No, at.name, byte);
        if self.names.is_match(at.name) {
            at.state = Some(self.assigns.start(Some(byte)));
        }
        assigned
    }

    /// Bytes of the tables.
    pub(super) fn size(&self) -> usize {
        self.names.memory_usage() + self.assigns.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[usize]) {
        let names = ["cohere", "co_api_key"].map(str::to_owned);
        let assignment = Assignment::new(&names).expect("automata");
        let mut at = assignment.start();
        let bytes = text.bytes().enumerate();
        let found: Vec<usize> =
            bytes.filter_map(|(i, b)| assignment.read(&mut at, b).then_some(i)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn values_may_begin_after_an_assignment_to_a_name() {
        check("COHERE_KEY=\"ab", &[11, 12]);
        check("cohere co_api_key: x", &[18, 19]);
        check("co_api_key = cohere = x", &[12, 13, 21, 22]);
        check("our cohere key is x y", &[17, 18]);
        check("cohere! = x", &[]);
        check("coherent, = x", &[9, 10, 11, 12]);
        check("other = x", &[]);
    }
}
