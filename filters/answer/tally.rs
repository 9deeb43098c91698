//! Adds up what passes, and settles on a [`Usage`]: what was reported, if it can be true; else what
//! was counted, or an estimate.

use super::Shape;
use super::facts::{Facts, Lane, Reported, Written};
use crate::usage::{Evidence, Metered, Spent, StreamCount, Tokenizer, Usage, Work};

/// Bytes to a token of what could not be read. It is JSON, of which the text is only a part.
const UNREAD_BYTES_PER_TOKEN: u64 = 4;
/// Texts that are counted each for itself; what is beyond is counted with the last.
const MAX_LANES: usize = 32;
/// Tokens that are generated and not shown, such as the marks around a call of a tool.
const UNSHOWN: u64 = 64;
/// More tokens of hidden reasoning than any model spends.
const MAX_REASONING: u64 = 1 << 20;
/// Seconds by which the clocks of an upstream and of the gateway may differ in an exchange.
const CLOCK_SLACK: f64 = 1.0;

/// What passed so far.
#[derive(Debug)]
pub(super) struct Tally {
    tokenizer: Tokenizer,
    lanes: Vec<(Lane, StreamCount)>,
    text_bytes: u64,
    /// Bytes of bodies that were too large to be read.
    unread: u64,
    reported: Reported,
}

/// How far an answer came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    pub(super) shape: Shape,
    /// Its end mark passed.
    pub(super) complete: bool,
    /// Tokens that the upstream was told not to exceed, over all choices.
    pub(super) max_completion: Option<u64>,
    /// Bytes of a body that is not at its end.
    pub(super) unread: u64,
}

impl Tally {
    pub(super) const fn new(tokenizer: Tokenizer) -> Self {
        let reported = Reported {
            prompt_tokens: None,
            completion_tokens: None,
            cached_tokens: None,
            reasoning_tokens: None,
            prompt_seconds: None,
            completion_seconds: None,
            load_seconds: None,
            whole_seconds: None,
        };
        Self { tokenizer, lanes: Vec::new(), text_bytes: 0, unread: 0, reported }
    }

    /// Adds one event.
    pub(super) fn add(&mut self, facts: &Facts<'_>) {
        self.reported.update(&facts.reported);
        for Written { lane, text } in &facts.texts {
            self.text_bytes = self.text_bytes.saturating_add(text.len() as u64);
            if let Some(count) = self.lane(*lane) {
                count.push(text);
            }
        }
    }

    /// Adds a body of which nothing but the length is known.
    pub(super) const fn add_unread(&mut self, bytes: u64) {
        self.unread = self.unread.saturating_add(bytes);
    }

    /// Whether the model wrote anything yet.
    pub(super) const fn saw_text(&self) -> bool {
        self.text_bytes > 0 || self.unread > 0
    }

    /// The least number of tokens that were generated, hidden ones left out. Takes no time.
    pub(super) fn at_least(&self) -> u64 {
        self.lanes.iter().map(|(_, count)| count.at_least()).sum()
    }

    /// What is charged: what was reported, if it is the last word and credible; the rest is counted
    /// from the text that passed, the prompt and the time that it took.
    pub(super) fn metered(&self, progress: Progress, spent: &Spent) -> Metered {
        if !progress.shape.computes() {
            return Metered::default();
        }
        let credible = |&tokens: &u64| tokens > 0 && tokens <= most_of_prompt(spent);
        let prompt = self.reported.prompt_tokens.filter(credible);
        let completion = self.completion(progress);
        let seconds = self.reported.gpu_seconds().filter(|&seconds| is_credible(seconds, spent));
        let usage = Usage {
            prompt_tokens: prompt.unwrap_or(spent.prompt.likely),
            completion_tokens: completion.unwrap_or_else(|| self.counted(progress)),
            gpu_seconds: self.gpu_seconds(seconds, spent),
            estimated: prompt.is_none() || completion.is_none() || seconds.is_none(),
        };
        let within = |part: Option<u64>, whole: u64| part.filter(|&tokens| tokens <= whole);
        Metered {
            usage,
            cached_tokens: within(self.reported.cached_tokens, usage.prompt_tokens),
            reasoning_tokens: within(self.reported.reasoning_tokens, usage.completion_tokens),
            evidence: completion
                .filter(|_| progress.complete)
                .map_or(Evidence::None, |tokens| self.evidence(prompt, tokens, seconds, spent)),
        }
    }

    /// The count of a text; a new one as long as there is room.
    fn lane(&mut self, lane: Lane) -> Option<&mut StreamCount> {
        let known = self.lanes.iter().position(|(known, _)| *known == lane);
        let at = known.unwrap_or(self.lanes.len()).min(MAX_LANES - 1);
        if at == self.lanes.len() {
            self.lanes.push((lane, StreamCount::new(self.tokenizer.clone())));
        }
        self.lanes.get_mut(at).map(|(_, count)| count)
    }

    /// What was reported, if it is the last word and not contradicted by what was seen.
    fn completion(&self, progress: Progress) -> Option<u64> {
        if !progress.shape.generates() {
            return Some(0);
        }
        let reported = self.reported.completion_tokens.filter(|_| progress.complete)?;
        let possible = reported > 0 || !self.saw_text();
        (possible && reported <= self.most(progress)).then_some(reported)
    }

    /// More tokens than this were not generated: the upstream was told to stop before, and there
    /// are not as many bytes either. Reasoning that is hidden is known only from the report.
    fn most(&self, progress: Progress) -> u64 {
        let hidden = match progress.max_completion {
            Some(_) => 0,
            None => self.reported.reasoning_tokens.unwrap_or(0).min(MAX_REASONING),
        };
        let shown = self.text_bytes.saturating_add(self.unread).saturating_add(UNSHOWN);
        shown.saturating_add(hidden).max(progress.max_completion.unwrap_or(0))
    }

    /// Counted from the text. A stream that was cut may have reported more already.
    fn counted(&self, progress: Progress) -> u64 {
        let read: u64 = self.lanes.iter().map(|(_, count)| count.total().tokens).sum();
        let unread = self.unread.saturating_add(progress.unread).div_ceil(UNREAD_BYTES_PER_TOKEN);
        let unread = unread.min(progress.max_completion.unwrap_or(u64::MAX));
        let reported = self.reported.completion_tokens.filter(|&n| n <= self.most(progress));
        read.saturating_add(unread).max(reported.unwrap_or(0))
    }

    /// What was measured, else the clock's; with the time of loading or without it.
    fn gpu_seconds(&self, measured: Option<f64>, spent: &Spent) -> f64 {
        let load = self.reported.load_seconds.filter(|&load| is_credible(load, spent));
        match (measured, load, spent.count_load) {
            (Some(measured), Some(load), true) => measured + load,
            (Some(measured), _, _) => measured,
            (None, Some(load), false) => (spent.wall.as_secs_f64() - load).max(0.0) * spent.gpus,
            (None, _, _) => spent.gpu_seconds(),
        }
    }

    fn evidence(
        &self,
        prompt_tokens: Option<u64>,
        completion: u64,
        seconds: Option<f64>,
        spent: &Spent,
    ) -> Evidence {
        let Reported { prompt_seconds, completion_seconds, cached_tokens, .. } = self.reported;
        let parts = prompt_seconds.or(completion_seconds).filter(|_| seconds.is_some());
        match (parts, prompt_tokens) {
            (None, Some(prompt)) => Evidence::Total {
                prompt,
                completion,
                seconds: seconds.unwrap_or_else(|| spent.gpu_seconds()),
            },
            (None, None) => Evidence::None,
            (Some(_), _) => {
                let work = |tokens, seconds| Work { tokens, seconds };
                let cached = cached_tokens.unwrap_or(0);
                let read = prompt_tokens.map(|tokens| tokens.saturating_sub(cached));
                Evidence::Measured {
                    prompt_tokens,
                    prompt: read.zip(prompt_seconds).map(|(tokens, time)| work(tokens, time)),
                    completion: completion_seconds.map(|time| work(completion, time)),
                }
            }
        }
    }
}

/// More tokens than this are not in a prompt of this size, whatever template it is put into. Of images
/// and the like nobody knows the tokens.
const fn most_of_prompt(spent: &Spent) -> u64 {
    const TIMES: u64 = 64;
    const TEMPLATE: u64 = 8_192;
    match spent.prompt.raw {
        0 => u64::MAX,
        raw => raw.saturating_mul(TIMES).saturating_add(TEMPLATE),
    }
}

/// Nothing is computed in no time, nor in more than passed.
fn is_credible(seconds: f64, spent: &Spent) -> bool {
    let most = spent.wall.as_secs_f64() * spent.gpus.max(1.0) + CLOCK_SLACK;
    seconds > 0.0 && seconds <= most
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::facts::Kind;
    use super::*;
    use crate::usage::PromptEstimate;

    const SPENT: Spent = Spent {
        prompt: PromptEstimate { raw: 80, likely: 100, upper: 140 },
        wall: Duration::from_secs(3),
        gpus: 2.0,
        count_load: false,
    };

    fn text(choice: u64, text: &'static str) -> Facts<'static> {
        let lane = Lane { choice, kind: Kind::Answer };
        Facts { texts: vec![Written { lane, text: text.into() }], ..Facts::default() }
    }

    fn reported(reported: Reported) -> Facts<'static> {
        Facts { reported, ..Facts::default() }
    }

    fn tokens(prompt: u64, completion: u64) -> Reported {
        let (prompt_tokens, completion_tokens) = (Some(prompt), Some(completion));
        Reported { prompt_tokens, completion_tokens, ..Reported::default() }
    }

    fn full() -> Facts<'static> {
        reported(Reported {
            prompt_seconds: Some(0.1),
            completion_seconds: Some(0.4),
            ..tokens(7, 9)
        })
    }

    fn progress(shape: Shape, complete: bool) -> Progress {
        Progress { shape, complete, max_completion: None, unread: 0 }
    }

    fn tally(events: &[Facts<'_>]) -> Tally {
        let mut tally = Tally::new(Tokenizer::Estimate { factor: 1.0 });
        events.iter().for_each(|facts| tally.add(facts));
        tally
    }

    #[test]
    fn reports_win_and_gaps_are_counted() {
        let check = |shape, complete, events: &[Facts<'_>], expected: (u64, u64, f64, bool)| {
            let Usage { prompt_tokens, completion_tokens, gpu_seconds, estimated } =
                tally(events).metered(progress(shape, complete), &SPENT).usage;
            let found = (prompt_tokens, completion_tokens, gpu_seconds, estimated);
            assert_eq!(found, expected, "{shape:?} {events:?}");
        };
        use Shape::{OllamaEmbed, OllamaTags, OpenAiChat};
        check(OpenAiChat, true, &[text(0, "a"), full()], (7, 9, 0.5, false));
        check(OpenAiChat, true, &[text(0, "a"), reported(tokens(7, 9))], (7, 9, 6.0, true));
        check(OpenAiChat, true, &[], (100, 0, 6.0, true));
        // One token for each piece, of each choice.
        check(OpenAiChat, true, &[text(0, "a"), text(0, "b"), text(1, "c")], (100, 3, 6.0, true));
        check(OpenAiChat, true, &[text(0, "The capital of France is Paris.")], (100, 8, 6.0, true));
        // Zeros are no report, and what is not the last word is a lower bound.
        check(OpenAiChat, true, &[text(0, "a b"), reported(tokens(0, 0))], (100, 2, 6.0, true));
        check(OpenAiChat, true, &[reported(tokens(0, 0)), full()], (7, 9, 0.5, false));
        check(OpenAiChat, false, &[text(0, "a"), full()], (7, 9, 0.5, true));
        let long = text(0, "one two three four five six seven eight nine ten eleven twelve");
        check(OpenAiChat, false, &[long, full()], (7, 13, 0.5, true));
        // An empty answer was reported as one.
        check(OpenAiChat, true, &[reported(tokens(7, 0))], (7, 0, 6.0, true));
        check(OllamaEmbed, true, &[reported(tokens(7, 0))], (7, 0, 6.0, true));
        check(OllamaEmbed, false, &[], (100, 0, 6.0, true));
        check(OllamaTags, true, &[full()], (0, 0, 0.0, false));
    }

    #[test]
    fn figures_that_cannot_be_true_are_replaced() {
        let check = |max_completion, report: Reported, expected: (u64, f64, bool)| {
            let tally = tally(&[text(0, "Hello there"), reported(report)]);
            let progress = Progress { max_completion, ..progress(Shape::OpenAiChat, true) };
            let Metered { usage, evidence, .. } = tally.metered(progress, &SPENT);
            let found = (usage.completion_tokens, usage.gpu_seconds, usage.estimated);
            assert_eq!(found, expected, "{max_completion:?} {report:?}");
            assert_eq!(evidence == Evidence::None, expected.0 == 3, "{report:?}");
        };
        let timed = |completion, seconds| Reported {
            completion_seconds: Some(seconds),
            ..tokens(7, completion)
        };
        let reasoned = |report, tokens| Reported { reasoning_tokens: Some(tokens), ..report };
        check(None, timed(40, 1.0), (40, 1.0, false));
        // Far above what was streamed.
        check(None, timed(400, 1.0), (3, 1.0, true));
        check(Some(100), timed(400, 1.0), (3, 1.0, true));
        check(Some(400), timed(400, 1.0), (400, 1.0, false));
        check(None, reasoned(timed(400, 1.0), 380), (400, 1.0, false));
        check(Some(100), reasoned(timed(400, 1.0), 380), (3, 1.0, true));
        check(None, reasoned(timed(1 << 50, 1.0), 1 << 50), (3, 1.0, true));
        check(None, timed(0, 1.0), (3, 1.0, true));
        // No time at all, and more than has passed.
        check(None, timed(40, 0.0), (40, 6.0, true));
        check(None, timed(40, 7.1), (40, 6.0, true));
        check(None, timed(40, 6.9), (40, 6.9, false));
    }

    #[test]
    fn loading_is_charged_if_the_operator_says_so() {
        let check = |seconds, load, count_load, expected: f64| {
            let report =
                Reported { completion_seconds: seconds, load_seconds: Some(load), ..tokens(7, 9) };
            let spent = Spent { count_load, ..SPENT };
            let tally = tally(&[text(0, "a"), reported(report)]);
            let usage = tally.metered(progress(Shape::OllamaChat, true), &spent).usage;
            assert_eq!(usage.gpu_seconds, expected, "{report:?} {count_load}");
        };
        check(Some(0.5), 2.0, false, 0.5);
        check(Some(0.5), 2.0, true, 2.5);
        check(Some(0.5), 9e9, true, 0.5);
        check(None, 2.0, false, 2.0);
        check(None, 2.0, true, 6.0);
    }

    #[test]
    fn bodies_that_were_not_read_are_charged_by_size_up_to_the_cap() {
        let check = |passed, unread, max_completion, expected| {
            let mut tally = tally(&[]);
            tally.add_unread(passed);
            let progress = Progress { max_completion, unread, ..progress(Shape::OpenAiChat, true) };
            let usage = tally.metered(progress, &SPENT).usage;
            assert_eq!((usage.completion_tokens, usage.estimated), (expected, true));
        };
        check(0, 9, None, 3);
        check(9, 0, None, 3);
        check(4_000, 4_000, Some(500), 500);
    }

    #[test]
    fn details_are_told_if_they_are_parts() {
        let check = |cached, reasoning, expected| {
            let report = Reported {
                cached_tokens: Some(cached),
                reasoning_tokens: Some(reasoning),
                ..tokens(7, 9)
            };
            let tally = tally(&[reported(report)]);
            let metered = tally.metered(progress(Shape::OpenAiChat, true), &SPENT);
            assert_eq!((metered.cached_tokens, metered.reasoning_tokens), expected);
        };
        check(7, 9, (Some(7), Some(9)));
        check(8, 10, (None, None));
    }

    #[test]
    fn only_a_complete_answer_teaches() {
        let evidence = |complete, events: &[Facts<'_>]| {
            tally(events).metered(progress(Shape::OllamaChat, complete), &SPENT).evidence
        };
        let cached = reported(Reported { cached_tokens: Some(3), ..Reported::default() });
        let work = |tokens, seconds| Some(Work { tokens, seconds });
        assert_eq!(
            evidence(true, &[full(), cached]),
            Evidence::Measured {
                prompt_tokens: Some(7),
                prompt: work(4, 0.1),
                completion: work(9, 0.4)
            }
        );
        let total = Evidence::Total { prompt: 7, completion: 9, seconds: 6.0 };
        assert_eq!(evidence(true, &[reported(tokens(7, 9))]), total);
        assert_eq!(evidence(false, &[full()]), Evidence::None);
        assert_eq!(evidence(true, &[text(0, "a")]), Evidence::None);
    }

    #[test]
    fn many_choices_take_bounded_memory_and_all_count() {
        let mut tally = tally(&[]);
        (0..100).for_each(|choice| tally.add(&text(choice, "a")));
        assert_eq!((tally.lanes.len(), tally.at_least()), (MAX_LANES, 100));
    }
}
