//! Counts the tokens of a text as it passes.
//!
//! Deltas are kept until there are 16 KiB of them, then counted up to the last place at which every
//! tokenizer begins a new word, and forgotten. So memory is bounded, nothing is counted twice, and
//! the sum is that of the whole text. Most answers are shorter, and their provider reports what they
//! cost: then nothing is counted at all, unless there is more than that. An estimate needs no text and keeps none.

use super::estimate::{self, Estimator};
use super::tokenizer::{self, Count, Tokenizer};

/// Bytes that are kept.
const KEPT: usize = 16 << 10;

/// Longer pieces, which are whole answers, are estimated: to count one would keep a thread for
/// milliseconds.
const MAX_COUNTED: usize = 64 << 10;

/// The count of one text: one choice of an answer, or its reasoning.
#[derive(Clone)]
pub struct StreamCount {
    tokenizer: Tokenizer,
    /// Pieces in which the text came.
    deltas: u64,
    /// Tokens of the text that is not kept any more.
    counted: u64,
    inexact: bool,
    tail: String,
    estimator: Estimator,
}

impl StreamCount {
    /// Nothing yet.
    #[must_use]
    pub fn new(tokenizer: Tokenizer) -> Self {
        let estimator = Estimator::default();
        Self { tokenizer, deltas: 0, counted: 0, inexact: false, tail: String::new(), estimator }
    }

    /// Adds a piece of the text. It takes time in proportion to the piece, counting included.
    pub fn push(&mut self, delta: &str) {
        if delta.is_empty() {
            return;
        }
        self.deltas = self.deltas.saturating_add(1);
        if self.tokenizer.factor().is_some() {
            self.estimator.push(delta);
            return;
        }
        self.tail.push_str(delta);
        if self.tail.len() >= KEPT {
            self.settle();
        }
    }

    /// The least number of tokens that the text has so far: one for each piece, as a server sends no
    /// half tokens, or what was counted. Takes no time; only grows.
    #[must_use]
    pub const fn at_least(&self) -> u64 {
        let last = !self.tail.is_empty() as u64;
        let counted = self.counted.saturating_add(last);
        if counted > self.deltas { counted } else { self.deltas }
    }

    /// The tokens of the text so far. Takes 20 µs for each KiB that is kept: meant for the end.
    ///
    /// The count of a tokenizer is exact, however finely the text was cut. An estimate is at least
    /// the number of pieces.
    #[must_use]
    pub fn total(&self) -> Count {
        if let Some(factor) = self.tokenizer.factor() {
            let Count { tokens, .. } = tokenizer::estimated(self.estimator.tokens(), factor);
            return Count { tokens: tokens.max(self.deltas), estimated: true };
        }
        let Count { tokens, estimated } = self.tokenizer.count(&self.tail);
        let tokens = tokens.saturating_add(self.counted);
        Count { tokens, estimated: estimated || self.inexact }
    }

    /// Counts what cannot change any more. A text without a blank in 16 KiB is cut all the same,
    /// which may make a token of it two.
    fn settle(&mut self) {
        let safe = last_boundary(&self.tail);
        self.inexact |= safe.is_none();
        let rest = self.tail.split_off(safe.unwrap_or(self.tail.len()));
        let done = std::mem::replace(&mut self.tail, rest);
        let Count { tokens, estimated } = if done.len() > MAX_COUNTED {
            tokenizer::estimated(estimate::text_tokens(&done), 1.0)
        } else {
            self.tokenizer.count(&done)
        };
        self.counted = self.counted.saturating_add(tokens);
        self.inexact |= estimated;
    }
}

impl std::fmt::Debug for StreamCount {
    /// Without the text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamCount")
            .field("deltas", &self.deltas)
            .field("counted", &self.counted)
            .field("kept", &self.tail.len())
            .finish_non_exhaustive()
    }
}

/// The last blank behind something that is none: a word never reaches over the blank behind it, and
/// what follows never reaches back over the one before it.
fn last_boundary(text: &str) -> Option<usize> {
    let mut blanks = text.rmatch_indices(' ').map(|(at, _)| at);
    blanks.find(|&at| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        before.is_some_and(|before| !before.is_whitespace())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tokenizer::Encoding;
    use super::*;

    fn streamed(tokenizer: &Tokenizer, deltas: &[&str]) -> StreamCount {
        let mut count = StreamCount::new(tokenizer.clone());
        deltas.iter().for_each(|delta| count.push(delta));
        count
    }

    fn pieces(text: &str, size: usize) -> Vec<&str> {
        let ends = (0..=text.len()).filter(|&at| text.is_char_boundary(at));
        let ends: Vec<_> = ends.step_by(size).chain([text.len()]).collect();
        ends.windows(2).map(|pair| text.get(pair[0]..pair[1]).unwrap()).collect()
    }

    #[test]
    fn the_count_is_that_of_the_whole_text() {
        let prose =
            "It's a test of 12,345 words; isn't it?  Yes \n\n  - indeed! Größe 漢字。 fn x() {\n";
        for encoding in [Encoding::O200k, Encoding::Cl100k] {
            let tokenizer = Tokenizer::Bpe(encoding);
            for repeats in [0, 1, 300, 2_000] {
                let text = prose.repeat(repeats);
                for size in [1, 4, 5_000] {
                    let count = streamed(&tokenizer, &pieces(&text, size));
                    assert_eq!(
                        count.total(),
                        tokenizer.count(&text),
                        "{encoding:?} {repeats} {size}"
                    );
                    assert!(count.tail.len() < KEPT, "memory is bounded");
                }
            }
        }
    }

    #[test]
    fn text_without_blanks_is_counted_nearly() {
        let tokenizer = Tokenizer::Bpe(Encoding::O200k);
        let text = "漢字かな交じり文。".repeat(10_000);
        let (count, whole) = (streamed(&tokenizer, &pieces(&text, 7)), tokenizer.count(&text));
        assert!(count.total().estimated && count.tail.len() < KEPT);
        assert!(count.total().tokens.abs_diff(whole.tokens) * 1_000 < whole.tokens);
    }

    #[test]
    fn the_least_count_is_that_of_the_pieces_and_only_grows() {
        for tokenizer in [Tokenizer::Bpe(Encoding::O200k), Tokenizer::Estimate { factor: 1.0 }] {
            let mut count = StreamCount::new(tokenizer);
            let mut last = 0;
            for round in 1..10_000 {
                count.push(" word");
                count.push("");
                assert!(count.at_least() >= round && count.at_least() >= last);
                last = count.at_least();
            }
            assert!(count.total().tokens >= last && last < 10_100);
        }
    }

    #[test]
    fn batches_of_tokens_are_seen_once_they_are_counted() {
        let mut count = StreamCount::new(Tokenizer::Bpe(Encoding::O200k));
        count.push(&" word".repeat(10_000));
        assert!(count.at_least() >= 9_999);
    }

    #[test]
    fn debug_shows_no_text() {
        let count = streamed(&Tokenizer::Bpe(Encoding::O200k), &["secret"]);
        assert!(!format!("{count:?}").contains("secret"));
    }

    proptest! {
        /// At every blank that is taken for a boundary, the parts count as the whole.
        #[test]
        fn boundaries_are_safe(text in "[a-zA-Z0-9 '.\\n\\t/éß漢\u{301}\u{a0}\u{3000}]{0,40}") {
            if let Some((first, second)) = last_boundary(&text).map(|at| text.split_at(at)) {
                for encoding in [Encoding::O200k, Encoding::Cl100k] {
                    let count = |text: &str| Tokenizer::Bpe(encoding).count(text).tokens;
                    prop_assert_eq!(count(first) + count(second), count(&text));
                }
            }
        }
    }
}
