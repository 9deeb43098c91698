//! How many tokens a model makes of what was estimated as one.
//!
//! A line is fitted to what upstreams report: tokens = per request + per estimated token, by least
//! squares of the relative error, so that long prompts do not outweigh short ones. On top comes a
//! margin that follows the 99.5th percentile of what the line was too low by: up by a step when a
//! prompt was under-estimated, down by a 250th of it when not. One prompt moves it by no more
//! than a step, so that nobody can make the estimates of others useless with a strange text.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Relative margin at first, before a model has reported anything.
const FIRST_MARGIN: f64 = 0.6;
/// The margin never falls below this many standard deviations, nor below `LEAST_MARGIN`.
const DEVIATIONS: f64 = 2.2;
const LEAST_MARGIN: f64 = 0.08;
/// Beyond this an estimate is of no use to anyone.
const MOST_MARGIN: f64 = 3.0;
const STEP_UP: f64 = 0.15;
const STEP_DOWN: f64 = STEP_UP / 250.0;
const HASTE: f64 = 25.0;
/// The last so many prompts count.
const MEMORY: f64 = 200.0;
const SPREAD_MEMORY: f64 = 40.0;
/// What is believed at first weighs as much as so many prompts.
const PRIOR: f64 = 2.0;
/// Tokens for each estimated one stay within these bounds, whatever is reported: in the long run,
/// and for a short prompt with a long template.
const PER_TOKEN: (f64, f64) = (0.1, 8.0);
const RATIOS: (f64, f64) = (0.1, 64.0);
/// One report counts as no more than so many times what was likely.
const SURPRISE: f64 = 6.0;

/// What is known of the tokenizer and the prompt template of one model.
#[derive(Debug)]
pub(super) struct Calibration {
    fit: Mutex<Fit>,
    /// What reads take, without a lock; each is sound with an older one of the others.
    per_request: Shared,
    per_token: Shared,
    margin: Shared,
}

impl Default for Calibration {
    fn default() -> Self {
        let fit = Fit::default();
        let line = fit.line();
        Self {
            per_request: Shared::new(line.per_request),
            per_token: Shared::new(line.per_token),
            margin: Shared::new(fit.margin()),
            fit: Mutex::new(fit),
        }
    }
}

impl Calibration {
    /// Tokens that are likely, and tokens that are hardly ever exceeded.
    pub(super) fn estimate(&self, raw: u64) -> (u64, u64) {
        let line = Line { per_request: self.per_request.get(), per_token: self.per_token.get() };
        let likely = line.ratio(raw) * raw as f64;
        (likely.round() as u64, (likely * (1.0 + self.margin.get())).ceil() as u64)
    }

    /// Tokens for one estimated token of a long text.
    pub(super) fn factor(&self) -> f64 {
        self.per_token.get()
    }

    /// Learns from one prompt. If two are reported at once one of them may be left out.
    pub(super) fn observe(&self, raw: u64, reported: u64) {
        if raw == 0 || reported == 0 {
            return;
        }
        let Ok(mut fit) = self.fit.try_lock() else { return };
        fit.observe(raw, reported);
        let line = fit.line();
        self.per_request.set(line.per_request);
        self.per_token.set(line.per_token);
        self.margin.set(fit.margin());
    }
}

/// Tokens for each estimated one fall with the size of the prompt, as the template weighs less.
#[derive(Clone, Copy, Debug)]
struct Line {
    per_request: f64,
    per_token: f64,
}

impl Line {
    fn ratio(self, raw: u64) -> f64 {
        let ratio = self.per_token + self.per_request / raw.max(1) as f64;
        ratio.clamp(RATIOS.0, RATIOS.1)
    }
}

/// Moving means of x = 1 / estimate and y = reported / estimate, and of their products.
#[derive(Clone, Copy, Debug)]
struct Fit {
    seen: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
    /// Moving mean of the squared relative error.
    spread: f64,
    /// Follows the 99.5th percentile of the errors.
    followed: f64,
}

impl Default for Fit {
    /// As if a long prompt had been as long as estimated, and a short one had come with a template
    /// of 20 tokens.
    fn default() -> Self {
        let (short, ratio) = (1.0 / 20.0, 2.0);
        Self {
            seen: 0.0,
            x: short / 2.0,
            y: f64::midpoint(1.0, ratio),
            xx: short * short / 2.0,
            xy: short * ratio / 2.0,
            spread: 0.04,
            followed: 0.2,
        }
    }
}

impl Fit {
    fn observe(&mut self, raw: u64, reported: u64) {
        let likely = self.line().ratio(raw);
        let (x, y) = (1.0 / raw as f64, reported as f64 / raw as f64);
        let y = y.min(likely * SURPRISE).clamp(RATIOS.0, RATIOS.1);
        let error = y / likely - 1.0;
        self.seen += 1.0;
        self.follow(error);
        let weight = 1.0 / (self.seen + PRIOR).min(MEMORY);
        let toward = |mean: &mut f64, value: f64| *mean += weight * (value - *mean);
        toward(&mut self.x, x);
        toward(&mut self.y, y);
        toward(&mut self.xx, x * x);
        toward(&mut self.xy, x * y);
        // One outlier says little about the usual spread.
        let lately = 1.0 / (self.seen + PRIOR).min(SPREAD_MEMORY);
        self.spread += lately * (error.clamp(-0.5, 0.5).powi(2) - self.spread);
    }

    /// Moves the margin; down in larger steps at first, as it began high for want of knowledge.
    fn follow(&mut self, error: f64) {
        let step = if error > self.followed {
            STEP_UP.min(error - self.followed + 0.02)
        } else {
            -STEP_DOWN * (1.0 + HASTE / self.seen)
        };
        self.followed = (self.followed + step).clamp(0.0, MOST_MARGIN);
    }

    /// What is added to the likely tokens, as a part of them.
    fn margin(&self) -> f64 {
        let usual = (DEVIATIONS * self.spread.sqrt()).max(LEAST_MARGIN);
        let doubt = FIRST_MARGIN / (1.0 + self.seen);
        self.followed.max(usual) + doubt
    }

    fn line(&self) -> Line {
        let variance = self.xx - self.x * self.x;
        let covariance = self.xy - self.x * self.y;
        let per_request = if variance > 1e-12 { covariance / variance } else { 0.0 };
        // A template has a size, and not one that eats up what the text is worth.
        let most = 0.8 * self.y / self.x.max(1e-9);
        let per_request = per_request.clamp(0.0, most.max(0.0));
        Line {
            per_request,
            per_token: (self.y - per_request * self.x).clamp(PER_TOKEN.0, PER_TOKEN.1),
        }
    }
}

/// A number that is read and written without a lock.
#[derive(Debug)]
struct Shared(AtomicU32);

impl Shared {
    fn new(number: f64) -> Self {
        Self(AtomicU32::new((number as f32).to_bits()))
    }

    fn get(&self) -> f64 {
        f64::from(f32::from_bits(self.0.load(Ordering::Relaxed)))
    }

    fn set(&self, number: f64) {
        self.0.store((number as f32).to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prompts of a model that makes `per_token` of each estimated token, give or take `noise`, and
    /// adds `template` to each.
    fn prompts(per_token: f64, template: f64, noise: f64) -> impl Iterator<Item = (u64, u64)> {
        let mut state = 7_u64;
        std::iter::repeat_with(move || {
            state =
                state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
            let unit = |shift: u32| f64::from((state >> shift) as u16) / 65_536.0;
            let raw = (10.0 * 500_f64.powf(unit(40))) as u64;
            let swing = 1.0 + noise * (unit(20) + unit(30) - 1.0);
            (raw, (raw as f64 * per_token * swing + template).round() as u64)
        })
    }

    #[test]
    fn estimates_become_tight_and_stay_above() {
        for (per_token, template, noise) in
            [(1.0, 4.0, 0.2), (0.7, 30.0, 0.2), (1.6, 0.0, 0.1), (1.1, 60.0, 0.2), (3.0, 10.0, 0.0)]
        {
            let calibration = Calibration::default();
            let (mut low, mut over, mut off) = (0, 0.0, 0.0);
            for (round, (raw, real)) in prompts(per_token, template, noise).take(1_020).enumerate()
            {
                let (likely, upper) = calibration.estimate(raw);
                if round >= 20 {
                    low += u32::from(upper < real);
                    over += upper as f64 / real as f64 - 1.0;
                    off += (likely as f64 / real as f64 - 1.0).abs();
                }
                calibration.observe(raw, real);
            }
            let case = format!("{per_token} {template} {noise}: {low} low, over {over}, off {off}");
            assert!(low <= 10 && over < 250.0 && off < 150.0, "{case}");
        }
    }

    #[test]
    fn before_anything_is_learnt_estimates_are_high() {
        for (raw, likely, upper) in [(1, 21, 43), (20, 40, 82), (1_000, 1_020, 2_081)] {
            let found = Calibration::default().estimate(raw);
            assert!(
                found.0.abs_diff(likely) <= 1 && found.1.abs_diff(upper) <= 2,
                "{raw}: {found:?}"
            );
        }
    }

    /// A stranger's text costs others a fifth, not everything.
    #[test]
    fn one_strange_prompt_moves_little() {
        let calibration = Calibration::default();
        prompts(1.0, 10.0, 0.1).take(300).for_each(|(raw, real)| calibration.observe(raw, real));
        let before = calibration.estimate(1_000);
        calibration.observe(1_000, u64::MAX);
        let after = calibration.estimate(1_000);
        assert!(after.1 > before.1 && after.1 * 10 < before.1 * 13, "{before:?} {after:?}");
        for (raw, reported) in [(0, 5), (5, 0)] {
            calibration.observe(raw, reported);
        }
        assert_eq!(calibration.estimate(1_000), after, "nothing was reported");
    }

    #[test]
    fn no_report_makes_estimates_absurd() {
        let calibration = Calibration::default();
        for reported in [u64::MAX, 1].into_iter().cycle().take(10_000) {
            calibration.observe(1_000, reported);
            let (likely, upper) = calibration.estimate(1_000);
            assert!((100..=64_000).contains(&likely) && upper <= 5 * likely, "{likely} {upper}");
        }
        let (likely, upper) = calibration.estimate(u64::MAX);
        assert!(likely > 0 && upper >= likely);
    }
}
