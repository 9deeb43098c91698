//! The normalised view of a stream, character by character, and a window of it for exact detectors.
//!
//! Like the plain view of a prompt it keeps case and spaces, loses what cannot be seen and shows
//! full-width and hidden ASCII as ASCII. Beyond that it folds every letter, digit, space and dash
//! that Unicode NFKC knows as a dress of an ASCII one, since a model can be told to write so.

use std::ops::Range;

use unicode_normalization::char::decompose_compatible;

use super::super::lookalikes::unveil;

/// How much of what stands before a match exact detectors see, in bytes of the view.
pub(super) const CONTEXT: usize = 128;

/// The character of the view, nothing if it cannot be seen.
#[inline]
pub(super) fn fold(c: char) -> Option<char> {
    if c.is_ascii() { Some(c) } else { unveil(c).map(plain) }
}

/// An ASCII character that a visible one is a dress of, or itself.
fn plain(c: char) -> char {
    match c {
        '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => ' ',
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' => '-',
        '\u{aa}'..='\u{ba}'
        | '\u{2070}'..='\u{209c}'
        | '\u{2100}'..='\u{214f}'
        | '\u{2460}'..='\u{24ea}'
        | '\u{fe50}'..='\u{fe6b}'
        | '\u{1d400}'..='\u{1d7ff}'
        | '\u{1f130}'..='\u{1f149}'
        | '\u{1fbf0}'..='\u{1fbf9}' => compatible(c),
        c => c,
    }
}

/// The one ASCII character that `c` is compatible to, or itself.
fn compatible(c: char) -> char {
    let (mut first, mut count) = (c, 0u8);
    decompose_compatible(c, |part| {
        first = if count == 0 { part } else { first };
        count = count.saturating_add(1);
    });
    if count == 1 && first.is_ascii() { first } else { c }
}

/// A stretch of the view, with the place in the stream that every byte of it came from.
#[derive(Debug)]
pub(super) struct Window {
    text: String,
    origins: Vec<usize>,
    end: usize,
}

impl Window {
    /// The view of `kept`, which stands at byte `base` of the stream, and of what was `before`,
    /// beginning [`CONTEXT`] bytes before the byte `from` of the stream.
    pub(super) fn new(before: &str, kept: &str, base: usize, from: usize) -> Self {
        let (start, missing) = context(kept.get(..from.saturating_sub(base)).unwrap_or(kept));
        let cut = before.floor_char_boundary(before.len().saturating_sub(missing));
        let mut text = before.get(cut..).unwrap_or_default().to_owned();
        let mut origins = vec![base.saturating_sub(1); text.len()];
        for (at, c) in kept.get(start..).unwrap_or_default().char_indices() {
            if let Some(c) = fold(c) {
                text.push(c);
                origins.resize(text.len(), base + start + at);
            }
        }
        Self { text, origins, end: base + kept.len() }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where the byte `source` of the stream stands in the view.
    pub(super) fn at(&self, source: usize) -> usize {
        self.origins.partition_point(|&origin| origin < source)
    }

    /// The bytes of the stream that a range of the view came from.
    pub(super) fn source(&self, range: &Range<usize>) -> Range<usize> {
        let origin = |at: usize| self.origins.get(at).copied().unwrap_or(self.end);
        origin(range.start)..origin(range.end)
    }
}

/// Where the context at the end of a text begins, and how many bytes of the view it lacks.
fn context(text: &str) -> (usize, usize) {
    let (mut start, mut missing) = (text.len(), CONTEXT);
    for (at, c) in text.char_indices().rev() {
        if missing == 0 {
            break;
        }
        start = at;
        missing = missing.saturating_sub(fold(c).map_or(0, char::len_utf8));
    }
    (start, missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        text.chars().filter_map(fold).collect()
    }

    #[test]
    fn digits_and_letters_in_every_dress() {
        for (text, expected) in [
            ("４１1\u{200b}1", "4111"),
            ("𝟒𝟷①⁴₁", "41141"),
            ("𝐬𝐤-ℓive ª", "sk-live a"),
            ("4111\u{a0}1111\u{2009}1111\u{2011}1111", "4111 1111 1111-1111"),
            ("\u{e0034}\u{e0031}\u{ad}\u{202e}x", "41x"),
            ("naïve 忽略 é½", "naïve 忽略 é½"),
            ("¼ ㎏", "¼ ㎏"),
        ] {
            assert_eq!(folded(text), expected, "{text}");
        }
    }

    #[test]
    fn a_window_knows_where_it_came_from() {
        let window = Window::new("ab ", "é４\u{200b}5 x", 10, 12);
        assert_eq!(window.text(), "ab é45 x");
        assert_eq!(window.source(&(5..7)), 12..19);
        assert_eq!(window.source(&(7..8)), 19..20);
        assert_eq!(window.source(&(8..9)), 20..21);
        assert_eq!(window.source(&(0..3)), 9..10);
        assert_eq!((window.at(10), window.at(12), window.at(13)), (3, 5, 6));
    }

    #[test]
    fn what_is_before_is_cut_at_the_same_place_however_much_is_kept() {
        let long = "x".repeat(300) + "é";
        let kept = |at: usize| {
            let (before, kept) = long.split_at(at);
            Window::new(before, kept, at, 300)
        };
        for at in [0, 100, 200, 300] {
            assert_eq!(kept(at).text().len(), CONTEXT + 2, "{at}");
        }
    }
}
