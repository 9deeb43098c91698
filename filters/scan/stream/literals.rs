//! Exact texts of one request: placeholders that the gateway put into the prompt, which turn back
//! into the user's own values, and canaries that it planted there.
//!
//! They differ from request to request, so they are not compiled: a sorted list is narrowed byte by
//! byte, which needs no memory but a thread for each beginning that is in progress.

use std::fmt;
use std::sync::Arc;

use super::released::Label;
use super::threads::Place;

/// What a literal means.
#[derive(Clone)]
pub(super) enum Meaning {
    /// The value to show instead.
    Restore(Arc<str>),
    /// A canary.
    Canary(Arc<Label>),
}

/// The literals of one request, sorted.
#[derive(Clone, Default)]
pub(super) struct Literals {
    known: Vec<(Arc<str>, Meaning)>,
}

impl Literals {
    /// Adds a literal; an empty one and one that is known are left out.
    pub(super) fn add(&mut self, text: &str, meaning: Meaning) {
        let place = self.known.binary_search_by(|(known, _)| known.as_bytes().cmp(text.as_bytes()));
        if let Err(place) = place
            && !text.is_empty()
        {
            self.known.insert(place, (Arc::from(text), meaning));
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    fn get(&self, index: usize) -> Option<&(Arc<str>, Meaning)> {
        self.known.get(index)
    }

    /// Those of `from..to`, which share their first `depth` bytes, that go on with `byte`.
    fn narrowed(&self, (from, to): (usize, usize), depth: usize, byte: u8) -> (usize, usize) {
        let some = self.known.get(from..to).unwrap_or_default();
        let next = |(text, _): &(Arc<str>, Meaning)| text.as_bytes().get(depth).copied();
        let low = some.partition_point(|literal| next(literal) < Some(byte));
        let high = some.partition_point(|literal| next(literal) <= Some(byte));
        (from + low, from + high)
    }
}

impl fmt::Debug for Literals {
    /// Without the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} literals", self.known.len())
    }
}

/// A literal that was read: its first byte, and what it means.
pub(super) type Read = (usize, Meaning);

/// The literals that may be in progress in one channel.
#[derive(Default)]
pub(super) struct Progress {
    live: Vec<Beginning>,
}

struct Beginning {
    start: Place,
    depth: usize,
    range: (usize, usize),
}

impl Progress {
    /// Reads one character of the view; gives the literal that ends with it. The earliest wins.
    #[inline]
    pub(super) fn read(&mut self, literals: &Literals, c: char, at: Place) -> Option<Read> {
        if literals.is_empty() {
            return None;
        }
        self.live.push(Beginning { start: at, depth: 0, range: (0, literals.known.len()) });
        let mut buffer = [0; 4];
        for &byte in c.encode_utf8(&mut buffer).as_bytes() {
            self.live.retain_mut(|beginning| {
                beginning.range = literals.narrowed(beginning.range, beginning.depth, byte);
                beginning.depth += 1;
                beginning.range.0 < beginning.range.1
            });
        }
        let whole = self.live.iter().find_map(|beginning| {
            let (text, meaning) = literals.get(beginning.range.0)?;
            (text.len() == beginning.depth).then(|| (beginning.start.byte, meaning.clone()))
        });
        if whole.is_some() {
            self.live.clear();
        }
        whole
    }

    /// Gives up beginnings that have been held for too long.
    pub(super) fn expire(&mut self, now: Place, max_held: usize) {
        self.live.retain(|beginning| now.char.saturating_sub(beginning.start.char) < max_held);
    }

    /// The text ends: nothing is in progress any more.
    pub(super) fn end(&mut self) {
        self.live.clear();
    }

    /// The first byte of the earliest one.
    pub(super) fn earliest(&self) -> Option<usize> {
        self.live.first().map(|beginning| beginning.start.byte)
    }

    /// Bytes on the heap.
    pub(super) const fn size(&self) -> usize {
        self.live.capacity() * size_of::<Beginning>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(usize, &str)], pending: Option<usize>) {
        let mut literals = Literals::default();
        for (placeholder, value) in
            [("[A_1]", "one"), ("[A_12]", "twelve"), ("[B]", "b"), ("", "-"), ("[B]", "other")]
        {
            literals.add(placeholder, Meaning::Restore(Arc::from(value)));
        }
        let (mut progress, mut found) = (Progress::default(), Vec::new());
        for (at, c) in text.char_indices() {
            if let Some((start, Meaning::Restore(value))) =
                progress.read(&literals, c, Place { byte: at, char: at })
            {
                found.push((start, value.to_string()));
            }
        }
        let found: Vec<_> = found.iter().map(|(start, value)| (*start, value.as_str())).collect();
        assert_eq!((found.as_slice(), progress.earliest()), (expected, pending), "{text}");
    }

    #[test]
    fn literals_are_found_wherever_they_begin() {
        check("x[A_1]y", &[(1, "one")], None);
        check("[A_12][B]", &[(0, "twelve"), (6, "b")], None);
        check("[A_[A_1]", &[(3, "one")], None);
        check("[[[B]", &[(2, "b")], None);
        check("[A_3] [A_1", &[], Some(6));
        check("nothing é", &[], None);
    }

    #[test]
    fn a_beginning_expires() {
        let mut literals = Literals::default();
        literals.add("ab", Meaning::Restore(Arc::from("x")));
        let mut progress = Progress::default();
        assert!(progress.read(&literals, 'a', Place::default()).is_none());
        progress.expire(Place { byte: 9, char: 9 }, 10);
        assert_eq!(progress.earliest(), Some(0));
        progress.expire(Place { byte: 10, char: 10 }, 10);
        assert_eq!(progress.earliest(), None);
    }
}
