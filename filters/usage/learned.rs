//! What the gateway learns about models from the usage that upstreams report.

use std::sync::Arc;

use quick_cache::sync::Cache;

use super::calibration::Calibration;
use super::speed::{GpuSpeed, Speed};
use super::tokenizer::{Encoding, Tokenizer};
use super::{Evidence, Metered};

/// Models that are remembered, and pairs of upstream and model; those that are least used go first.
const MODELS: usize = 1024;

/// An estimate of the tokens of a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "plain figures")]
pub struct PromptEstimate {
    /// Before anything that was learnt, see [`super::estimate_prompt_tokens`]; 0 if nothing can be
    /// learnt from this prompt.
    pub raw: u64,
    /// To be charged where nothing is reported.
    pub likely: u64,
    /// To be reserved: hardly ever exceeded.
    pub upper: u64,
}

impl PromptEstimate {
    /// The prompt holds content that is not text, such as images, of which nobody knows the tokens:
    /// its report says nothing about the texts.
    #[must_use]
    pub const fn opaque(self) -> Self {
        Self { raw: 0, ..self }
    }
}

/// What was learnt; survives a reload of the configuration, not a restart.
pub struct Learned {
    models: Cache<String, Arc<Calibration>>,
    speeds: Cache<String, Arc<Speed>>,
}

impl Default for Learned {
    fn default() -> Self {
        Self { models: Cache::new(MODELS), speeds: Cache::new(MODELS) }
    }
}

impl std::fmt::Debug for Learned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Learned")
            .field("models", &self.models.len())
            .field("speeds", &self.speeds.len())
            .finish()
    }
}

impl Learned {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What a prompt of `raw` estimated tokens is to this model.
    #[must_use]
    pub fn prompt(&self, model: &str, raw: u64) -> PromptEstimate {
        let known = self.models.get(model);
        let (likely, upper) = known.unwrap_or_default().estimate(raw);
        PromptEstimate { raw, likely, upper }
    }

    /// What counts the text of a model that has no tokenizer of the operator: OpenAI's by its name,
    /// else an estimate with what was learnt of the model.
    #[must_use]
    pub fn tokenizer(&self, model: &str) -> Tokenizer {
        let learnt = || self.models.get(model).map_or(1.0, |known| known.factor());
        Encoding::of_model(model)
            .map_or_else(|| Tokenizer::Estimate { factor: learnt() }, Tokenizer::Bpe)
    }

    /// Says what GPU time in milliseconds a request of so many prompt and completion tokens is
    /// expected to take at most: a quarter above what is usual of this model on this upstream, or
    /// what took longest lately.
    pub fn gpu_time(&self, upstream: &str, model: &str) -> impl Fn(u64, u64) -> u64 + use<> {
        let (default, known) = (GpuSpeed::default(), self.speeds.get(&pair(upstream, model)));
        move |prompt, completion| match &known {
            Some(speed) => speed.estimate_gpu_ms(default, prompt, completion),
            None => default.estimate_gpu_ms(prompt, completion),
        }
    }

    /// Learns from an answer. Only what was reported, complete and credible teaches anything.
    pub fn observe(&self, upstream: &str, model: &str, prompt: PromptEstimate, metered: &Metered) {
        let reported = metered.evidence.prompt_tokens();
        if let Some(reported) = reported.filter(|_| prompt.raw > 0) {
            known(&self.models, model).observe(prompt.raw, reported);
        }
        match metered.evidence {
            Evidence::None => {}
            Evidence::Measured { prompt, completion, .. } => {
                known(&self.speeds, &pair(upstream, model)).observe(prompt, completion);
            }
            Evidence::Total { prompt, completion, seconds } => {
                known(&self.speeds, &pair(upstream, model))
                    .observe_total(prompt, completion, seconds);
            }
        }
    }
}

fn known<T: Default>(cache: &Cache<String, Arc<T>>, key: &str) -> Arc<T> {
    if let Some(known) = cache.get(key) {
        return known;
    }
    // Two that begin at once: one of them keeps what it learns from this answer to itself.
    let fresh = Arc::<T>::default();
    cache.insert(key.to_owned(), Arc::clone(&fresh));
    fresh
}

/// Neither name holds a zero.
fn pair(upstream: &str, model: &str) -> String {
    [upstream, "\0", model].concat()
}

#[cfg(test)]
mod tests {
    use super::super::{Usage, Work};
    use super::*;

    fn metered(evidence: Evidence) -> Metered {
        Metered { usage: Usage::default(), evidence, ..Metered::default() }
    }

    fn measured(prompt_tokens: u64) -> Metered {
        metered(Evidence::Measured {
            prompt_tokens: Some(prompt_tokens),
            prompt: Some(Work { tokens: prompt_tokens, seconds: prompt_tokens as f64 / 100.0 }),
            completion: None,
        })
    }

    #[test]
    fn each_model_learns_for_itself() {
        let learned = Learned::new();
        let before = learned.prompt("a", 1_000);
        assert_eq!(before, learned.prompt("b", 1_000));
        (0..50).for_each(|_| learned.observe("gpu", "a", before, &measured(2_000)));
        let after = learned.prompt("a", 1_000);
        assert!(after.likely.abs_diff(2_000) < 100 && after.upper < 2_600, "{after:?}");
        assert_eq!(before, learned.prompt("b", 1_000));
        assert!(learned.gpu_time("gpu", "a")(100, 0) > 1_000);
        assert_eq!(learned.gpu_time("other", "a")(100, 0), 50);
        assert_eq!(learned.gpu_time("gpu", "b")(100, 0), 50);
    }

    #[test]
    fn a_prompt_with_images_teaches_speed_only() {
        let learned = Learned::new();
        let prompt = learned.prompt("a", 1_000).opaque();
        (0..50).for_each(|_| learned.observe("gpu", "a", prompt, &measured(9_000)));
        assert_eq!(learned.prompt("a", 1_000), learned.prompt("b", 1_000));
        assert!(learned.gpu_time("gpu", "a")(100, 0) > 1_000);
    }

    #[test]
    fn wall_time_teaches_speed_and_silence_nothing() {
        let learned = Learned::new();
        let prompt = learned.prompt("a", 100);
        learned.observe("gpu", "a", prompt, &metered(Evidence::None));
        assert_eq!(learned.gpu_time("gpu", "a")(0, 100), 2_000);
        let total = Evidence::Total { prompt: 100, completion: 100, seconds: 10.0 };
        learned.observe("gpu", "a", prompt, &metered(total));
        assert!(learned.gpu_time("gpu", "a")(0, 100) > 9_000);
    }

    #[test]
    fn tokenizers_follow_the_name_and_what_was_learnt() {
        let learned = Learned::new();
        assert!(matches!(learned.tokenizer("gpt-4o"), Tokenizer::Bpe(Encoding::O200k)));
        let factor = |model| learned.tokenizer(model).factor().unwrap();
        assert_eq!(factor("llama3"), 1.0);
        let prompt = learned.prompt("llama3", 1_000);
        (0..100).for_each(|_| learned.observe("gpu", "llama3", prompt, &measured(1_500)));
        assert!((factor("llama3") - 1.5).abs() < 0.1, "{}", factor("llama3"));
    }

    #[test]
    fn memory_is_bounded() {
        let learned = Learned::new();
        for model in 0..3 * MODELS {
            let name = model.to_string();
            learned.observe("gpu", &name, learned.prompt(&name, 100), &measured(100));
        }
        assert!(learned.models.len() <= MODELS && learned.speeds.len() <= MODELS);
    }
}
