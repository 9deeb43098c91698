//! From margins to probabilities: Platt's method on texts of sources that were held out.

use crate::learn::logistic;

/// One margin of a held-out text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// What the model said.
    pub(crate) margin: f32,
    /// What the text is.
    pub(crate) positive: bool,
    /// How much it counts.
    pub(crate) weight: f32,
}

/// The slope and the offset that make `logistic(slope * margin + offset)` a probability (Platt,
/// 1999), by Newton's method on targets that are drawn in from 0 and 1.
pub(crate) fn platt(held: &[Held]) -> (f32, f32) {
    let (mut a, mut b) = (1.0f64, 0.0f64);
    for _ in 0..50 {
        let (mut ga, mut gb, mut haa, mut hab, mut hbb) = (0.0, 0.0, 1e-9, 0.0, 1e-9);
        for one in held {
            let (m, w) = (f64::from(one.margin), f64::from(one.weight));
            let p = 1.0 / (1.0 + (-(a * m + b)).exp());
            let target = if one.positive { 0.99 } else { 0.001 };
            let (error, curve) = (w * (p - target), w * (p * (1.0 - p)).max(1e-9));
            ga += error * m;
            gb += error;
            haa += curve * m * m;
            hab += curve * m;
            hbb += curve;
        }
        let det = haa * hbb - hab * hab;
        if det.abs() < 1e-12 {
            break;
        }
        a -= ((hbb * ga - hab * gb) / det).clamp(-1.0, 1.0);
        b -= ((haa * gb - hab * ga) / det).clamp(-1.0, 1.0);
    }
    (a.max(0.01) as f32, b as f32)
}

/// The mean distance between what was said and what is, in ten bands of the probability, weighed
/// by how many texts fall into each (expected calibration error).
pub(crate) fn error(held: &[Held], (slope, offset): (f32, f32)) -> f32 {
    let mut bands = [(0.0f32, 0.0f32, 0.0f32); 10];
    for one in held {
        let p = logistic(slope * one.margin + offset);
        if let Some(band) = bands.get_mut(((p * 10.0) as usize).min(9)) {
            band.0 += one.weight;
            band.1 += one.weight * p;
            band.2 += if one.positive { one.weight } else { 0.0 };
        }
    }
    let all: f32 = bands.iter().map(|band| band.0).sum();
    bands.iter().map(|(_, said, is)| (said - is).abs()).sum::<f32>() / all.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts of which those at margin m are attacks with probability logistic(2 m - 1).
    fn drawn() -> Vec<Held> {
        let at = |n: i32| n as f32 / 10.0;
        let both = |n: i32| {
            let p = logistic(2.0 * at(n) - 1.0);
            [(true, p), (false, 1.0 - p)].map(|(positive, weight)| Held {
                margin: at(n),
                positive,
                weight,
            })
        };
        (-40..=40).flat_map(both).collect()
    }

    #[test]
    fn the_curve_is_found_again() {
        let (slope, offset) = platt(&drawn());
        assert!((slope - 2.0).abs() < 0.2 && (offset + 1.0).abs() < 0.2, "{slope} {offset}");
        assert!(error(&drawn(), (slope, offset)) < 0.02);
        assert!(error(&drawn(), (0.1, 0.0)) > 0.2);
    }

    #[test]
    fn more_is_never_less_probable() {
        let upside_down: Vec<_> =
            drawn().into_iter().map(|held| Held { positive: !held.positive, ..held }).collect();
        assert!(platt(&upside_down).0 > 0.0);
        assert!(platt(&[]).0 > 0.0);
    }
}
