//! Verdicts that wait for their turn, and what has been told already.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use super::released::Label;

/// A match with its verdict, which is carried out when everything before it is settled.
pub(super) struct Verdict {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) what: What,
}

/// What is done about a match.
pub(super) enum What {
    /// It is a finding that changes the text.
    Finding(Arc<Label>),
    /// It is a further part of a finding that is redacted.
    More,
    /// It is a placeholder, which turns back into its value.
    Restore(Arc<str>),
}

/// The verdicts that are not carried out yet.
#[derive(Default)]
pub(super) struct Verdicts {
    waiting: Vec<Verdict>,
}

impl Verdicts {
    pub(super) fn push(&mut self, range: Range<usize>, what: What) {
        self.waiting.push(Verdict { start: range.start, end: range.end, what });
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Those before a byte, the earliest first and the longest of those that begin together.
    pub(super) fn due(&mut self, before: usize) -> Vec<Verdict> {
        let is_due = |verdict: &mut Verdict| verdict.start < before;
        let mut due: Vec<Verdict> = self.waiting.extract_if(.., is_due).collect();
        due.sort_by_key(|verdict| (verdict.start, Reverse(verdict.end)));
        due
    }

    /// Bytes on the heap.
    pub(super) const fn size(&self) -> usize {
        self.waiting.capacity() * size_of::<Verdict>()
    }
}

/// Where the last match of each detector ended, as long as it matters: a match that several threads
/// have met is one.
#[derive(Default)]
pub(super) struct Told {
    last: Vec<(usize, usize)>,
}

impl Told {
    /// Remembers a match. Nothing begins before the byte `base` any more.
    pub(super) fn tell(&mut self, detector: usize, end: usize, base: usize) {
        self.last.retain(|&(_, told)| told > base);
        match self.last.iter_mut().find(|(known, _)| *known == detector) {
            Some((_, told)) => *told = end.max(*told),
            None => self.last.push((detector, end)),
        }
    }

    /// Whether a match of a detector that begins at a byte lies in its last one.
    pub(super) fn knows(&self, detector: usize, start: usize) -> bool {
        self.last.iter().any(|&(known, end)| known == detector && start < end)
    }

    /// Bytes on the heap.
    pub(super) const fn size(&self) -> usize {
        self.last.capacity() * size_of::<(usize, usize)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_come_in_the_order_of_the_text() {
        let mut verdicts = Verdicts::default();
        for range in [5..6, 1..2, 1..4, 9..10] {
            verdicts.push(range, What::More);
        }
        let due: Vec<_> = verdicts.due(9).iter().map(|v| (v.start, v.end)).collect();
        assert_eq!(due, [(1, 4), (1, 2), (5, 6)]);
        assert!(!verdicts.is_empty());
    }

    #[test]
    fn a_match_is_told_once() {
        let mut told = Told::default();
        told.tell(1, 20, 0);
        told.tell(1, 10, 0);
        assert!(told.knows(1, 19) && !told.knows(1, 20) && !told.knows(2, 5));
        told.tell(2, 30, 20);
        assert!(!told.knows(1, 19));
    }
}
