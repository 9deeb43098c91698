//! Adds up what passes, and settles on a [`Usage`]: what was reported, else an estimate.

use std::time::Duration;

use super::Shape;
use super::facts::Facts;
use crate::usage::Usage;

/// A token of English text is about four bytes; of other text more, so this does not overcharge.
const BYTES_PER_TOKEN: u64 = 4;

/// What passed so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    text_bytes: u64,
    text_events: u64,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    gpu_seconds: Option<f64>,
}

impl Tally {
    /// Adds one event. Reported figures only grow, so the largest is the latest; Ollama sends zeros
    /// until it knows.
    pub(super) fn add(&mut self, facts: &Facts) {
        self.add_text(facts.text_bytes);
        self.prompt_tokens = self.prompt_tokens.max(facts.prompt_tokens);
        self.completion_tokens = self.completion_tokens.max(facts.completion_tokens);
        self.gpu_seconds = match (self.gpu_seconds, facts.gpu_seconds) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
    }

    /// Adds text of which nothing but the length is known.
    pub(super) fn add_text(&mut self, bytes: u64) {
        self.text_bytes = self.text_bytes.saturating_add(bytes);
        self.text_events += u64::from(bytes > 0);
    }

    /// Whether the model wrote anything yet.
    pub(super) const fn saw_text(&self) -> bool {
        self.text_bytes > 0
    }

    /// The usage, as far as it was reported; the rest is estimated from the prompt's size, the text
    /// that passed and the time that it took.
    pub(super) fn usage(
        &self,
        shape: Shape,
        complete: bool,
        prompt_estimate: u64,
        wall: Duration,
        gpus: f64,
    ) -> Usage {
        if !shape.computes() {
            return Usage::default();
        }
        let prompt = self.prompt_tokens.filter(|&tokens| tokens > 0);
        let completion = self.completion(shape, complete);
        Usage {
            prompt_tokens: prompt.unwrap_or(prompt_estimate),
            completion_tokens: completion.unwrap_or_else(|| self.completion_estimate()),
            gpu_seconds: self.gpu_seconds.unwrap_or(wall.as_secs_f64() * gpus),
            estimated: prompt.is_none() || completion.is_none() || self.gpu_seconds.is_none(),
        }
    }

    /// What was reported, if it is the last word and not contradicted by the text that was seen.
    fn completion(&self, shape: Shape, complete: bool) -> Option<u64> {
        if !shape.generates() {
            return Some(0);
        }
        let reported = self.completion_tokens.filter(|_| complete)?;
        (reported > 0 || !self.saw_text()).then_some(reported)
    }

    /// Servers send about one event a token; a stream that was cut may have reported more already.
    fn completion_estimate(&self) -> u64 {
        let from_text = self.text_events.max(self.text_bytes.div_ceil(BYTES_PER_TOKEN));
        from_text.max(self.completion_tokens.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(text_bytes: u64, tokens: Option<(u64, u64)>, gpu_seconds: Option<f64>) -> Facts {
        let (prompt_tokens, completion_tokens) = tokens.unzip();
        Facts { text_bytes, prompt_tokens, completion_tokens, gpu_seconds, ..Facts::default() }
    }

    #[test]
    fn reports_win_and_gaps_are_estimated() {
        let check = |shape, complete, events: &[Facts], expected: (u64, u64, f64, bool)| {
            let mut tally = Tally::default();
            events.iter().for_each(|facts| tally.add(facts));
            let usage = tally.usage(shape, complete, 100, Duration::from_secs(3), 2.0);
            let found =
                (usage.prompt_tokens, usage.completion_tokens, usage.gpu_seconds, usage.estimated);
            assert_eq!(found, expected, "{shape:?} {events:?}");
        };
        let text = |bytes| reported(bytes, None, None);
        let full = || reported(0, Some((7, 9)), Some(0.5));
        use Shape::{OllamaEmbed, OllamaTags, OpenAiChat};
        check(OpenAiChat, true, &[text(1), full()], (7, 9, 0.5, false));
        check(OpenAiChat, true, &[text(1), reported(0, Some((7, 9)), None)], (7, 9, 6.0, true));
        check(OpenAiChat, true, &[], (100, 0, 6.0, true));
        check(OpenAiChat, true, &[text(1), text(1), text(1)], (100, 3, 6.0, true));
        check(OpenAiChat, true, &[text(9)], (100, 3, 6.0, true));
        // Zeros are no report, and what is not the last word is a lower bound.
        check(OpenAiChat, true, &[reported(9, Some((0, 0)), None)], (100, 3, 6.0, true));
        check(OpenAiChat, true, &[reported(0, Some((0, 0)), None), full()], (7, 9, 0.5, false));
        check(OpenAiChat, false, &[text(1), full()], (7, 9, 0.5, true));
        check(OpenAiChat, false, &[text(90), full()], (7, 23, 0.5, true));
        // An empty answer was reported as one.
        check(OpenAiChat, true, &[reported(0, Some((7, 0)), Some(0.5))], (7, 0, 0.5, false));
        check(OllamaEmbed, true, &[reported(0, Some((7, 0)), Some(0.5))], (7, 0, 0.5, false));
        check(OllamaEmbed, false, &[], (100, 0, 6.0, true));
        check(OllamaTags, true, &[], (0, 0, 0.0, false));
    }
}
