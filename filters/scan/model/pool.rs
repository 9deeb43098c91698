//! From the weights of single tokens to the margin of a text: its worst window.
//!
//! An attack that hides in a long document must weigh as much as one that stands alone. So a text
//! is as bad as the worst run of [`Shape::window`] tokens in it, kept up to date token by token in
//! a ring: the cost is linear, and the memory does not depend on the text.

/// The longest window, in tokens.
pub const MAX_WINDOW: usize = 64;

/// How windows are weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Tokens in a window, up to [`MAX_WINDOW`].
    pub window: u8,
    /// Added to the tokens of a window before their sum is divided by the square root of their
    /// number, so that a text of two words is not judged as surely as one of twenty.
    pub floor: f32,
}

impl Shape {
    /// What the sum of a window of so many tokens is multiplied with.
    #[must_use]
    pub fn norm(self, tokens: usize) -> f32 {
        let tokens = tokens.min(usize::from(self.window)) as f32;
        1.0 / (tokens + self.floor).max(1.0).sqrt()
    }
}

/// The worst window so far.
#[derive(Clone, Copy, Debug)]
pub struct Worst {
    /// Sum of the weights of its tokens, before [`Shape::norm`].
    pub sum: i32,
    /// One past its last token.
    pub end: usize,
    /// How many tokens it has.
    pub len: usize,
}

/// The sums of the windows of a text.
#[derive(Debug)]
pub struct Pool {
    window: usize,
    ring: [i32; MAX_WINDOW],
    slot: usize,
    sum: i32,
    tokens: usize,
    worst: i32,
    worst_end: usize,
}

impl Pool {
    /// No tokens yet.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        Self {
            window: usize::from(shape.window).clamp(1, MAX_WINDOW),
            ring: [0; MAX_WINDOW],
            slot: 0,
            sum: 0,
            tokens: 0,
            worst: i32::MIN,
            worst_end: 0,
        }
    }

    /// One more token, with the sum of the weights of its features.
    pub fn push(&mut self, weight: i32) {
        if let Some(slot) = self.ring.get_mut(self.slot) {
            self.sum = self.sum.saturating_add(weight).saturating_sub(*slot);
            *slot = weight;
        }
        self.slot = if self.slot + 1 == self.window { 0 } else { self.slot + 1 };
        self.tokens += 1;
        if self.sum > self.worst && self.tokens >= self.window {
            self.worst = self.sum;
            self.worst_end = self.tokens;
        }
    }

    /// The worst window: all of a text that is shorter than one.
    #[must_use]
    pub fn worst(&self) -> Worst {
        let len = self.tokens.min(self.window);
        if self.tokens < self.window {
            return Worst { sum: self.sum, end: self.tokens, len };
        }
        Worst { sum: self.worst, end: self.worst_end, len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(weights: &[i32], expected: (i32, usize, usize)) {
        let mut pool = Pool::new(Shape { window: 3, floor: 0.0 });
        weights.iter().for_each(|&weight| pool.push(weight));
        let worst = pool.worst();
        assert_eq!((worst.sum, worst.end, worst.len), expected, "{weights:?}");
    }

    #[test]
    fn the_worst_window_counts() {
        check(&[], (0, 0, 0));
        check(&[5, -2], (3, 2, 2));
        check(&[9, -9, 1], (1, 3, 3));
        check(&[0, 1, 5, 5, 0, -7], (11, 4, 3));
        check(&[-4, -1, -2, -9], (-7, 3, 3));
    }

    #[test]
    fn sums_do_not_overflow() {
        check(&[i32::MAX, i32::MAX, i32::MAX], (i32::MAX, 3, 3));
    }

    #[test]
    fn short_texts_are_judged_less_surely() {
        let shape = Shape { window: 32, floor: 8.0 };
        assert!((shape.norm(1) - 1.0 / 3.0).abs() < 1e-6);
        assert!((shape.norm(1000) - shape.norm(32)).abs() < 1e-9);
    }
}
