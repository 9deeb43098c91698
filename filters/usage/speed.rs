//! How fast models read and write, to guess the GPU time of a request.

use std::sync::Mutex;

use super::Work;

/// Predictions are this much above what is usual: batches are shared and clocks are throttled.
const SAFETY: f64 = 1.25;
/// What was processed earlier counts this much less with every report.
const FADE: f64 = 0.95;
/// With fewer tokens, the cost of a call hides the speed.
const TOKENS_TO_JUDGE: u64 = 8;
/// The slowest report is forgotten at this pace.
const RECOVERY: f64 = 0.98;
/// What is slower than this, in seconds a token, is not the GPU.
const SLOWEST: f64 = 60.0;
/// One report counts as no more than so many times the usual.
const SURPRISE: f64 = 4.0;

/// How fast a model reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuSpeed {
    /// Prompt tokens in a second.
    pub prompt_per_second: u64,
    /// Completion tokens in a second.
    pub completion_per_second: u64,
}

impl Default for GpuSpeed {
    /// A model of 8 billion parameters, quantised to 4 bits, on one consumer GPU.
    fn default() -> Self {
        Self { prompt_per_second: 2_000, completion_per_second: 50 }
    }
}

impl GpuSpeed {
    /// Estimated milliseconds on one GPU, rounded up. A speed of 0 counts as 1.
    #[must_use]
    pub fn estimate_gpu_ms(&self, prompt_tokens: u64, completion_tokens: u64) -> u64 {
        let ms = |tokens: u64, speed: u64| tokens.saturating_mul(1_000).div_ceil(speed.max(1));
        let prompt = ms(prompt_tokens, self.prompt_per_second);
        prompt.saturating_add(ms(completion_tokens, self.completion_per_second))
    }
}

/// What is known of one model on one upstream.
#[derive(Debug, Default)]
pub(super) struct Speed(Mutex<Rates>);

#[derive(Clone, Copy, Debug, Default)]
struct Rates {
    prompt: Rate,
    completion: Rate,
}

impl Speed {
    /// Estimated milliseconds, rounded up, with the margin of safety; by `default` for what has not
    /// been measured.
    pub(super) fn estimate_gpu_ms(&self, default: GpuSpeed, prompt: u64, completion: u64) -> u64 {
        let Rates { prompt: reads, completion: writes } = self.rates();
        let ms = |rate: Rate, tokens: u64, unmeasured: u64| {
            let measured = rate.cautious().map(|seconds| (seconds * tokens as f64 * 1e3).ceil());
            measured.map_or(unmeasured, |ms| ms as u64)
        };
        let prompt = ms(reads, prompt, default.estimate_gpu_ms(prompt, 0));
        prompt.saturating_add(ms(writes, completion, default.estimate_gpu_ms(0, completion)))
    }

    /// Learns from measured work.
    pub(super) fn observe(&self, prompt: Option<Work>, completion: Option<Work>) {
        if let Ok(mut rates) = self.0.lock() {
            rates.prompt.observe(prompt);
            rates.completion.observe(completion);
        }
    }

    /// Learns from the time of prompt and completion together: it is shared out as it would have
    /// been predicted.
    pub(super) fn observe_total(&self, prompt: u64, completion: u64, seconds: f64) {
        let default = GpuSpeed::default();
        let reading = self.estimate_gpu_ms(default, prompt, 0) as f64;
        let writing = self.estimate_gpu_ms(default, 0, completion) as f64;
        if reading + writing > 0.0 {
            let share = reading / (reading + writing);
            let prompt = Work { tokens: prompt, seconds: seconds * share };
            let completion = Work { tokens: completion, seconds: seconds * (1.0 - share) };
            self.observe(Some(prompt), Some(completion));
        }
    }

    fn rates(&self) -> Rates {
        self.0.lock().map(|rates| *rates).unwrap_or_default()
    }
}

/// Seconds and tokens of the work done lately, the older the less.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    seconds: f64,
    tokens: f64,
    /// Seconds a token of the slowest work lately.
    slowest: f64,
}

impl Rate {
    fn observe(&mut self, work: Option<Work>) {
        let Some(Work { tokens, seconds }) = work else { return };
        let each = seconds / tokens as f64;
        if tokens < TOKENS_TO_JUDGE || !(0.0..=SLOWEST).contains(&each) || each == 0.0 {
            return;
        }
        let usual = if self.tokens > 0.0 { self.seconds / self.tokens } else { each };
        let each = each.min(usual * SURPRISE);
        self.seconds = self.seconds * FADE + each * tokens as f64;
        self.tokens = self.tokens * FADE + tokens as f64;
        self.slowest = (self.slowest * RECOVERY).max(each);
    }

    /// Seconds a token: the usual time with the margin of safety, or the slowest lately.
    fn cautious(self) -> Option<f64> {
        (self.tokens > 0.0).then(|| (self.seconds / self.tokens * SAFETY).max(self.slowest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(tokens: u64, seconds: f64) -> Option<Work> {
        Some(Work { tokens, seconds })
    }

    #[test]
    fn gpu_time_is_rounded_up_and_never_overflows() {
        let speed = GpuSpeed { prompt_per_second: 1_000, completion_per_second: 30 };
        let stopped = GpuSpeed { prompt_per_second: 0, completion_per_second: 0 };
        let cases = [
            (speed, 0, 0, 0),
            (speed, 1_000, 30, 2_000),
            (speed, 1, 1, 1 + 34),
            (stopped, 1, 0, 1_000),
            (speed, u64::MAX, u64::MAX, u64::MAX / 1_000 + 1 + u64::MAX / 30 + 1),
        ];
        for (speed, prompt, completion, expected) in cases {
            assert_eq!(
                speed.estimate_gpu_ms(prompt, completion),
                expected,
                "{prompt} {completion}"
            );
        }
    }

    #[test]
    fn measured_speeds_replace_the_default_each_for_itself() {
        let default = GpuSpeed::default();
        let speed = Speed::default();
        let check = |prompt, completion, expected: u64| {
            let found = speed.estimate_gpu_ms(default, prompt, completion);
            assert!(found.abs_diff(expected) <= 1, "{found} instead of {expected}");
        };
        check(2_000, 50, 2_000);
        speed.observe(None, work(100, 1.0));
        check(2_000, 100, 1_000 + 1_250);
        speed.observe(work(1_000, 2.0), None);
        check(1_000, 100, 2_500 + 1_250);
        // Nonsense and trifles teach nothing.
        for (tokens, seconds) in [(7, 1.0), (100, 0.0), (100, -1.0), (10, 1e9), (0, 1.0)] {
            speed.observe(work(tokens, seconds), work(tokens, seconds));
        }
        speed.observe(work(100, f64::NAN), work(100, f64::INFINITY));
        check(1_000, 100, 2_500 + 1_250);
        assert_eq!(speed.estimate_gpu_ms(default, u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn one_slow_answer_is_remembered_for_a_while() {
        let speed = Speed::default();
        let ms = || speed.estimate_gpu_ms(GpuSpeed::default(), 0, 100);
        (0..50).for_each(|_| speed.observe(None, work(100, 1.0)));
        assert_eq!(ms(), 1_250);
        speed.observe(None, work(100, 4.0));
        assert_eq!(ms(), 4_000);
        (0..100).for_each(|_| speed.observe(None, work(100, 1.0)));
        assert!(ms() < 1_300, "{}", ms());
    }

    /// A prompt in the upstream's cache is read in no time; the next one may not be.
    #[test]
    fn predictions_hold_for_a_model_of_steady_speed_with_noise() {
        let speed = Speed::default();
        let (mut over, mut low) = (0.0, 0);
        for round in 0..1_000_u64 {
            let noise = 0.85 + 0.3 * ((round * 7_919) % 101) as f64 / 100.0;
            let (prompt, completion) = (50 + round * 37 % 2_000, 20 + round * 13 % 500);
            let seconds = (prompt as f64 / 900.0, completion as f64 / 35.0 * noise);
            let real = (seconds.0 + seconds.1) * 1e3;
            if round >= 20 {
                let found = speed.estimate_gpu_ms(GpuSpeed::default(), prompt, completion) as f64;
                low += u32::from(found < real);
                over += found / real - 1.0;
            }
            speed.observe(work(prompt, seconds.0), work(completion, seconds.1));
        }
        assert!(low == 0 && over / 980.0 < 0.4, "{low} too low, mean over {}", over / 980.0);
    }

    #[test]
    fn wall_time_teaches_both() {
        let speed = Speed::default();
        // Reads at 500 and writes at 10 a second: four times and five times slower than the default.
        for round in 0..200 {
            let (prompt, completion) = if round % 2 == 0 { (1_000, 10) } else { (100, 50) };
            speed.observe_total(
                prompt,
                completion,
                prompt as f64 / 500.0 + completion as f64 / 10.0,
            );
        }
        for (prompt, completion) in [(1_000, 10), (100, 50)] {
            let real = prompt as f64 * 2.0 + completion as f64 * 100.0;
            let found = speed.estimate_gpu_ms(GpuSpeed::default(), prompt, completion) as f64;
            assert!(found >= real && found < real * 2.0, "{found} for {real}");
        }
    }
}
