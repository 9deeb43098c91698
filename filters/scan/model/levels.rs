//! What to make of the scores: how rules and classifier are put together, and from which score on
//! a text counts as an attack.
//!
//! Chosen on whole sources that the classifier had not seen (the folds of `portcullis-train
//! evaluate`) with the rules of that day; docs/detection.md has the rates.

/// The score of strong rules, of broad phrases and of the classifier together, each from 0 to 1.
///
/// A noisy-or, so that neither weakens the other; the square makes less of what the classifier is not
/// sure of, so that it adds to rules more than it decides alone. Of the sums, maxima, products and sums
/// of log-odds that were tried it found most at the same rate of false alarms. Broad phrases are words
/// that the classifier has weighed already, so of the two only the one that says more counts.
#[must_use]
pub fn combined(strong: f32, broad: f32, likelihood: f32) -> f32 {
    1.0 - (1.0 - strong) * (1.0 - broad.max(likelihood * likelihood))
}

/// Blocks what is nearly sure only: 0.10 % of ordinary texts, none of 1,923 innocent ones with the words
/// of attacks.
pub const LENIENT: f32 = 0.92;

/// Blocks 0.16 % of ordinary texts, 0.10 % of innocent ones with the words of attacks; more than
/// what broad phrases come to without the classifier.
pub const BALANCED: f32 = 0.85;

/// Blocks 0.81 % of ordinary texts, 0.42 % of innocent ones with the words of attacks.
pub const STRICT: f32 = 0.5;

/// For tool results and documents, whose author is not the one who asks: what gives orders there
/// has no business to. Flags 1.1 % of manuals and retrieved texts, most of them about language models.
pub const UNTRUSTED: f32 = 0.65;

/// From this likelihood on a text is flagged as offensive: 0.1 % of ordinary texts are, and two fifths of
/// offensive ones. Advisory: it must not block.
pub const TOXIC: f32 = 0.989;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classifier_adds_to_rules_and_never_takes_from_them() {
        for (strong, broad, likelihood, expected) in [
            (0.0, 0.0, 0.0, 0.0),
            (0.9, 0.0, 0.0, 0.9),
            (0.0, 0.0, 1.0, 1.0),
            (0.5, 0.0, 0.5, 0.625),
            (0.0, 0.8, 0.8, 0.8),
            (0.5, 0.4, 0.8, 0.82),
        ] {
            let score = combined(strong, broad, likelihood);
            assert!((score - expected).abs() < 1e-6, "{strong} {broad} {likelihood}: {score}");
        }
    }

    #[test]
    fn levels_are_in_order() {
        const { assert!(LENIENT > BALANCED && BALANCED > STRICT && BALANCED > UNTRUSTED) };
    }
}
