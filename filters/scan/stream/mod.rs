//! The streaming matcher: the detectors of the answer, on text that comes in pieces.
//!
//! For any split of a text into deltas it releases the same text, with the same findings, and it
//! releases nothing of a match before the verdict on it. Two steps make that cheap:
//!
//! 1. Automata over the normalised view (`view`) follow every place where a match may have begun
//!    (`threads`), from shapes that over-approximate the detectors (`shape`). What stands before the
//!    earliest such place is released. There is no fixed window: `The capital of` goes out at once,
//!    of `key: sk-proj` the `sk-proj` waits.
//! 2. Where a shape has matched, the exact detector of the prompt room reads the text around it, and
//!    has the last word (`detector`, `adapters`).
//!
//! What is held on ordinary prose: with secrets and cards redacted, numbers of a few digits and the
//! beginnings of keys (`sk`, `h` of `https://hooks…`). With e-mail redacted, every word until the
//! character after it, since it may be the beginning of an address. Detectors that only flag hold
//! nothing; personal data that is only flagged is surveyed in blocks of the text (`blocks`), so that
//! such findings come some 800 characters late. A match that is longer than the greatest hold is decided on what is held then: it is
//! replaced once, and the rest of it is dropped as it comes; what is no match by then goes out.
//!
//! Not seen: a secret of which nothing but its middle is written, a token whose undecided part is
//! longer than the greatest hold, and the few characters before the mark of an Azure, MaxMind or
//! Terraform token, which look like any word.

use std::sync::Arc;

use super::pii::PiiKind;
use super::policy::Policy;
use super::report::Action;
use super::rules::Rule;
use crate::prompt::Role;

mod adapters;
mod assignment;
mod automaton;
mod blocks;
mod channel;
mod detector;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod held;
mod leak;
mod links;
mod literals;
mod markup;
mod own;
mod program;
mod released;
mod shape;
#[cfg(test)]
mod tests;
mod threads;
mod verdicts;
mod view;

pub use adapters::{personal, secret};
pub use channel::Channel;
pub use detector::{Detector, Find};
pub use links::{LinkPolicy, links};
pub use markup::markup;
pub use own::Own;
pub use released::{Found, Label, Released, Stop, Topic};
pub use shape::{Shape, ShapeError};

use adapters::label;
use program::Program;

/// The greatest hold, in characters.
pub const MAX_HELD: usize = 256;

/// The detectors of a policy, compiled: one serves all answers.
pub struct StreamScanner {
    detectors: Vec<Detector>,
    holding: Program,
    watching: Program,
    /// Index and kind of those that survey blocks.
    surveyed: Vec<(usize, PiiKind)>,
    max_held: usize,
    ceiling: Option<(usize, Arc<Label>)>,
}

impl StreamScanner {
    /// Compiles detectors.
    ///
    /// # Errors
    /// If the shapes together take more memory than automata may.
    pub fn new(detectors: Vec<Detector>) -> Result<Self, ShapeError> {
        Ok(Self {
            holding: Program::new(&detectors, Detector::holds)?,
            watching: Program::new(&detectors, |detector| !detector.holds())?,
            surveyed: surveyed(&detectors),
            detectors,
            max_held: MAX_HELD,
            ceiling: None,
        })
    }

    /// The credentials and the personal data that a policy looks for, as in prompts. Nothing is
    /// sought whose action is `Allow`. To build one takes some 150 ms: once for each policy.
    ///
    /// # Errors
    /// If the shapes together take more memory than automata may.
    pub fn of_policy<'r>(
        rules: impl Iterator<Item = &'r Rule>,
        policy: &Policy,
    ) -> Result<Self, ShapeError> {
        let (mut detectors, terms) = (Vec::new(), policy.terms(Role::Assistant));
        for rule in rules.filter(|_| terms.secrets > Action::Allow) {
            detectors.extend(secret(rule, terms.secrets)?);
        }
        for &kind in &terms.pii_kinds {
            let action = match terms.personal(kind) {
                Action::Allow => continue,
                // What the model tells of its own accord has nobody to go back to.
                Action::Pseudonymise => Action::Redact,
                action @ (Action::Flag | Action::Redact | Action::Block) => action,
            };
            detectors.extend(personal(kind, action)?);
        }
        Self::new(detectors)
    }

    /// What a channel gives for a whole text.
    #[must_use]
    pub fn read(self: &Arc<Self>, text: &str) -> Released {
        let mut channel = Channel::new(Arc::clone(self), Arc::default());
        let mut out = Released::default();
        channel.push(text, &mut out);
        channel.finish(&mut out);
        out
    }

    /// Sets the greatest hold, in characters; the default is [`MAX_HELD`].
    #[must_use]
    pub fn max_held(self, chars: usize) -> Self {
        Self { max_held: chars.max(1), ..self }
    }

    /// Sets how many characters a channel may have; with `Redact` the rest is left out.
    #[must_use]
    pub fn ceiling(self, chars: usize, action: Action) -> Self {
        let label = label(Topic::Length, "characters", "ceiling", action, "");
        Self { ceiling: Some((chars, Arc::new(label))), ..self }
    }

    /// Bytes of memory that the automata take.
    #[must_use]
    pub fn size(&self) -> usize {
        self.holding.size() + self.watching.size()
    }
}

fn surveyed(detectors: &[Detector]) -> Vec<(usize, PiiKind)> {
    let kinds = detectors.iter().enumerate();
    kinds.filter_map(|(index, detector)| Some((index, detector.kind()?))).collect()
}

impl std::fmt::Debug for StreamScanner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamScanner")
            .field("detectors", &self.detectors)
            .field("max_held", &self.max_held)
            .field("ceiling", &self.ceiling)
            .finish_non_exhaustive()
    }
}
