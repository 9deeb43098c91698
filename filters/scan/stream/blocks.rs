//! Detectors that only watch and need no automata: the text is surveyed in blocks, all kinds of
//! personal data at once, when what follows a block is known.

use std::ops::Range;

use super::threads::Place;

/// Characters in a block, also such as cannot be seen, so that a block is bounded in any case.
const BLOCK: usize = 512;

/// Characters that are known after a block when it is judged: no kind of personal data is longer,
/// with what decides about it.
const AHEAD: usize = 288;

/// How far one channel is in its blocks.
#[derive(Default)]
pub(super) struct Blocks {
    /// Where the block begins that is not judged yet.
    start: Place,
    /// Where it ends.
    end: Place,
}

impl Blocks {
    /// Before a character is read, which stands at `at`: the block that can be judged now.
    #[inline]
    pub(super) fn read(&mut self, at: Place) -> Option<Range<usize>> {
        let read = at.char.saturating_sub(self.start.char);
        if read == BLOCK {
            self.end = at;
        }
        if read < BLOCK + AHEAD {
            return None;
        }
        let block = self.start.byte..self.end.byte;
        self.start = self.end;
        Some(block)
    }

    /// The text ends: what is left.
    pub(super) fn end(&self) -> Range<usize> {
        self.start.byte..usize::MAX
    }

    /// The first byte that has to be kept.
    pub(super) const fn earliest(&self) -> usize {
        self.start.byte
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::pii::PiiKind;
    use super::*;

    #[test]
    fn a_block_is_judged_once_and_when_enough_is_known() {
        let mut blocks = Blocks::default();
        let mut judged = Vec::new();
        for seen in 0..2000 {
            let block = blocks.read(Place { byte: 2 * seen, char: seen });
            judged.extend(block.map(|block| (seen, block)));
        }
        assert_eq!(judged, [(800, 0..1024), (1312, 1024..2048), (1824, 2048..3072)]);
        assert_eq!((blocks.end(), blocks.earliest()), (3072..usize::MAX, 3072));
    }

    #[test]
    fn every_kind_is_seen_whole() {
        for kind in PiiKind::ALL {
            assert!(kind.longest() + PiiKind::LOOK_AHEAD <= AHEAD, "{kind:?}");
        }
        const { assert!(AHEAD < BLOCK) };
    }
}
