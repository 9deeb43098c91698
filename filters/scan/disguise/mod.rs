//! Disguises: letters written backwards, in another order, as digits, apart, misspelt or in a
//! simple cipher.
//!
//! One walk over the words of the canonical view notices where a text shows signs of each, and only
//! those regions are undone and read once more, so that prose pays for the walk alone.

use std::ops::Range;

mod cipher;
mod leet;
mod order;
mod region;
mod spacing;
mod spelling;
mod words;

pub(super) use cipher::{rot13, solved, suspects};
pub(super) use leet::unleet;
pub(super) use order::{pig_latin, reversed, swapped, upright, words_reversed};
pub(super) use region::Regions;
pub(super) use spacing::{respaced, squeezed, unhyphenated};
pub(super) use spelling::Vocabulary;
pub(super) use words::{Survey, is_glued, survey};

/// The disguises that a text shows signs of, for training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signs {
    /// Digits stand between letters.
    pub(super) leet: bool,
}

/// Looks for signs in a canonical view.
pub(super) fn signs(text: &str) -> Signs {
    Signs { leet: !survey(text, None).leet.is_empty() }
}

/// The part of a text around a region, in whole characters.
pub(super) fn slice<'t>(text: &'t str, region: &Range<usize>) -> (&'t str, Range<usize>) {
    let range = text.floor_char_boundary(region.start)..text.ceil_char_boundary(region.end);
    (text.get(range.clone()).unwrap_or_default(), range)
}
