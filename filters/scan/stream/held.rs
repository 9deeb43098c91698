//! The text of a channel that is held back, and a little of what stood before it.

use super::released::Released;
use super::threads::Place;
use super::view::{CONTEXT, Window, fold};

/// The end of the text so far: what is held, and what detectors may still look back at.
#[derive(Default)]
pub(super) struct Held {
    /// The view of what stands before `kept`: its last [`CONTEXT`] bytes at least.
    before: String,
    kept: String,
    /// Where `kept` begins.
    base: Place,
    /// The first byte that is neither released nor replaced.
    front: usize,
    /// The end of the last replacement.
    replaced: usize,
}

impl Held {
    #[inline]
    pub(super) fn push(&mut self, c: char) {
        self.kept.push(c);
    }

    /// Bytes that are kept.
    pub(super) const fn len(&self) -> usize {
        self.kept.len()
    }

    /// The first byte that is kept.
    pub(super) const fn base(&self) -> usize {
        self.base.byte
    }

    /// Characters that wait for a verdict.
    pub(super) fn waiting(&self) -> usize {
        self.slice(self.front, self.base.byte + self.kept.len()).chars().count()
    }

    /// The view around the byte `from`.
    pub(super) fn window(&self, from: usize) -> Window {
        Window::new(&self.before, &self.kept, self.base.byte, from)
    }

    /// Releases what stands before a byte.
    pub(super) fn release(&mut self, upto: usize, out: &mut Released) {
        if upto > self.front {
            out.text.push_str(self.slice(self.front, upto));
            self.front = upto;
        }
    }

    /// Releases what stands before a stretch and gives `instead` of it. Stretches that overlap are
    /// replaced once. Gives whether `instead` was used.
    pub(super) fn replace(
        &mut self,
        start: usize,
        end: usize,
        instead: Option<&str>,
        out: &mut Released,
    ) -> bool {
        if end <= self.front {
            return false;
        }
        self.release(start, out);
        let fresh = start >= self.replaced;
        if let Some(instead) = instead.filter(|_| fresh) {
            out.text.push_str(instead);
        }
        self.front = end;
        self.replaced = end;
        fresh
    }

    /// Forgets what is settled and stands before a byte, but for the context.
    pub(super) fn forget(&mut self, upto: usize) {
        let upto = upto.min(self.front);
        let mut before = std::mem::take(&mut self.before);
        let gone = self.slice(self.base.byte, upto);
        let (chars, bytes) = (gone.chars().count(), gone.len());
        before.extend(gone.chars().filter_map(fold));
        if before.len() > 2 * CONTEXT {
            before.drain(..before.floor_char_boundary(before.len() - CONTEXT));
        }
        self.before = before;
        self.kept.drain(..bytes);
        self.base = Place { byte: self.base.byte + bytes, char: self.base.char + chars };
    }

    /// The number of characters before a byte of the text.
    pub(super) fn chars_before(&self, byte: usize) -> usize {
        self.base.char + self.slice(self.base.byte, byte).chars().count()
    }

    /// Bytes on the heap.
    pub(super) const fn size(&self) -> usize {
        self.before.capacity() + self.kept.capacity()
    }

    /// A stretch of what is kept.
    fn slice(&self, start: usize, end: usize) -> &str {
        let at = |byte: usize| byte.saturating_sub(self.base.byte);
        self.kept.get(at(start)..at(end)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(text: &str) -> Held {
        let mut held = Held::default();
        text.chars().for_each(|c| held.push(c));
        held
    }

    #[test]
    fn overlapping_replacements_are_one() {
        let (mut held, mut out) = (held("abcdéfghij"), Released::default());
        assert!(held.replace(2, 6, Some("[X]"), &mut out));
        assert!(!held.replace(3, 8, Some("[Y]"), &mut out));
        assert!(!held.replace(3, 7, None, &mut out));
        assert!(held.replace(8, 9, Some("[Z]"), &mut out));
        assert_eq!((out.text.as_str(), held.waiting()), ("ab[X][Z]", 2));
        held.release(11, &mut out);
        assert_eq!(out.text, "ab[X][Z]ij");
    }

    #[test]
    fn what_is_settled_is_forgotten_but_for_the_context() {
        let (mut held, mut out) = (held(&"né".repeat(400)), Released::default());
        held.release(900, &mut out);
        held.forget(1000);
        assert_eq!((held.len(), held.chars_before(900), held.chars_before(903)), (300, 600, 602));
        assert_eq!(held.window(900).text().len(), CONTEXT + 300);
        assert!(held.before.len() < CONTEXT + 8);
    }
}
