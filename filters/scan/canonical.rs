//! Views of a text that undo how it was dressed up, with a way back to the original offsets.
//!
//! The canonical view is what injection rules read: compatibility forms resolved (Unicode NFKC),
//! lower case, look-alike letters folded to ASCII, marks and invisible characters gone, every run
//! of white space one space. The plain view, which secrets and personal data are searched in, only
//! loses control characters, invisible ones, marks, full-width forms and the digits of other scripts,
//! since case matters there.

use std::ops::Range;

use super::lookalikes::{fold, unveil};

/// Where one stretch of a view came from; inside a stretch both sides advance byte by byte.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    view: usize,
    source: usize,
}

/// A rewritten text and the map of its bytes to those of the original.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    text: String,
    anchors: Vec<Anchor>,
    /// The view's offset minus the original's, where writing stands.
    shift: isize,
    source_len: usize,
    veiled: bool,
}

impl View {
    /// The view that injection rules read.
    pub(super) fn canonical(text: &str) -> Self {
        if text.is_ascii() {
            return Self::canonical_ascii(text);
        }
        let mut view = Self::sized(text);
        for (at, c) in text.char_indices() {
            view.veiled |= unveil(c) != Some(c);
            if c.is_ascii() {
                view.push_ascii(at, c);
            } else {
                fold(c, |c| view.push_ascii(at, c));
            }
        }
        view
    }

    /// The same for plain ASCII: most prompts are, and this is the hot path. Where nothing has to be
    /// dropped every byte keeps its place, and the compiler makes vector code of it.
    fn canonical_ascii(text: &str) -> Self {
        let bytes: Vec<u8> = text.bytes().map(canonical_byte).collect();
        if needs_collapsing(&bytes) {
            return Self::collapsed_ascii(&bytes);
        }
        let text = String::from_utf8(bytes).unwrap_or_default();
        Self { source_len: text.len(), text, ..Self::default() }
    }

    /// Copies the stretches between what has to be dropped: control characters, and white space
    /// after white space.
    fn collapsed_ascii(bytes: &[u8]) -> Self {
        let veiled = bytes.iter().any(u8::is_ascii_control);
        let mut view = Self { source_len: bytes.len(), veiled, ..Self::default() };
        let mut out: Vec<u8> = Vec::with_capacity(bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            let kept = length_kept(rest);
            if kept > 0 {
                if view.shift != out.len().cast_signed() - at.cast_signed() {
                    view.shift = out.len().cast_signed() - at.cast_signed();
                    view.anchors.push(Anchor { view: out.len(), source: at });
                }
                out.extend_from_slice(rest.get(..kept).unwrap_or_default());
            }
            at += kept;
            let space = out.last() == Some(&b' ');
            let dropped = |b: &&u8| b.is_ascii_control() || (space && **b == b' ');
            at += rest.get(kept..).unwrap_or_default().iter().take_while(dropped).count();
        }
        view.text = String::from_utf8(out).unwrap_or_default();
        view
    }

    /// The text as a reader sees it, in its own case.
    pub(super) fn plain(text: &str) -> Self {
        let mut view = Self::sized(text);
        for (at, c) in text.char_indices() {
            if let Some(c) = unveil(c) {
                view.push(at, c);
            }
        }
        view
    }

    fn sized(text: &str) -> Self {
        let text_len = text.len();
        Self { text: String::with_capacity(text_len), source_len: text_len, ..Self::default() }
    }

    /// The rewritten text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the original hides something that its plain view shows differently.
    pub(super) const fn is_veiled(&self) -> bool {
        self.veiled
    }

    /// The bytes of the original that a range of this view came from.
    pub(super) fn source(&self, range: &Range<usize>) -> Range<usize> {
        let end =
            if range.end >= self.text.len() { self.source_len } else { self.origin(range.end) };
        let start = self.origin(range.start).min(end);
        start..end
    }

    /// Where in this view the byte `source` of the original stands, or the next one that is in it.
    pub(super) fn place(&self, source: usize) -> usize {
        let next = self.anchors.partition_point(|anchor| anchor.source <= source);
        let limit = self.anchors.get(next).map_or(self.text.len(), |anchor| anchor.view);
        let here = next.checked_sub(1).and_then(|i| self.anchors.get(i));
        here.map_or(source, |anchor| anchor.view + (source - anchor.source)).min(limit)
    }

    /// The original offset of one byte of the view; never falls while `at` grows.
    fn origin(&self, at: usize) -> usize {
        let next = self.anchors.partition_point(|anchor| anchor.view <= at);
        let limit = self.anchors.get(next).map_or(self.source_len, |anchor| anchor.source);
        let here = next.checked_sub(1).and_then(|i| self.anchors.get(i));
        here.map_or(at, |anchor| anchor.source + (at - anchor.view)).min(limit)
    }

    /// Adds one canonical character: white space collapsed, control characters dropped.
    fn push_ascii(&mut self, at: usize, c: char) {
        match c {
            ' ' | '\t'..='\r' => {
                if !self.text.ends_with(' ') {
                    self.push(at, ' ');
                }
            }
            '\0'..='\x1f' | '\x7f' => {}
            c => self.push(at, c.to_ascii_lowercase()),
        }
    }

    fn push(&mut self, source: usize, c: char) {
        let view = self.text.len();
        let shift = view.cast_signed() - source.cast_signed();
        if shift != self.shift {
            self.shift = shift;
            self.anchors.push(Anchor { view, source });
        }
        self.text.push(c);
    }
}

/// White space is a space, capitals are small.
const fn canonical_byte(b: u8) -> u8 {
    if matches!(b, b'\t'..=b'\r') { b' ' } else { b.to_ascii_lowercase() }
}

/// Whether there is a control character or a second space in a row.
fn needs_collapsing(bytes: &[u8]) -> bool {
    let controls = bytes.iter().fold(false, |any, b| any | b.is_ascii_control());
    let next = bytes.get(1..).unwrap_or_default();
    controls | bytes.iter().zip(next).fold(false, |any, (a, b)| any | ((*a == b' ') & (*b == b' ')))
}

/// How many bytes there are before the first that has to be dropped, as far as one looks at once.
fn length_kept(bytes: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let mut at = 0;
    while let Some(block) = bytes.get(at..at + BLOCK + 1) {
        if needs_collapsing(block) {
            break;
        }
        at += BLOCK;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let mut last = 0;
    let stays = |b: &&u8| {
        let stays = !(b.is_ascii_control() || (**b == b' ' && last == b' '));
        last = **b;
        stays
    };
    at + rest.iter().take_while(stays).count()
}

/// The nearest range of whole characters around `range`.
pub(super) fn whole_chars(text: &str, range: &Range<usize>) -> Range<usize> {
    text.floor_char_boundary(range.start)..text.ceil_char_boundary(range.end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(View::canonical(text).text(), expected, "{text:?}");
    }

    #[test]
    fn one_text_in_many_dresses() {
        check("Ignore\n\n  THIS\tnow", "ignore this now");
        check("i\u{200b}g\u{ad}n\u{2060}o\u{fe0f}r\u{202e}e", "ignore");
        check("Ｉｇｎｏｒｅ　ｔｈｉｓ", "ignore this");
        check("Іgnоrе αll ρrεviοus", "ignore all previous");
        check("𝐈𝐠𝐧𝐨𝐫𝐞 ⓣⓗⓘⓢ 🅝🅾🆆", "ignore this now");
        check("ìgņõr̈ë", "ignore");
        check("x\u{e0069}\u{e0067}\u{e006e}", "xign");
        check("😀\u{e0159}\u{e0157}\u{e015e}", "😀ign");
        check("“Ça va” – d’accord", "\"ca va\" - d'accord");
        check("忽略 이전", "忽略 이전");
        check("a\0b\x07c", "abc");
    }

    #[test]
    fn the_way_back() {
        let text = "Ａ \u{200b} Ｂc\u{200b}d";
        let view = View::canonical(text);
        assert_eq!(view.text(), "a bcd");
        let back = |range| view.source(&range);
        assert_eq!(back(0..1), 0..3);
        assert_eq!(back(2..3), 8..11);
        assert_eq!(back(2..5), 8..text.len());
    }

    #[test]
    fn the_plain_view_keeps_case_and_space() {
        let view = View::plain("AK\u{200b}IA  ４x");
        assert_eq!(view.text(), "AKIA  4x");
        assert_eq!(view.source(&(6..7)), 9..12);
    }

    proptest! {
        #[test]
        fn ascii_has_no_view_of_its_own(text in "[ -~\t\n\x00]*") {
            let fast = View::canonical(&text);
            let long = format!("{text}é");
            let slow = View::canonical(&long);
            prop_assert_eq!(format!("{}e", fast.text()), slow.text());
            for at in 0..fast.text().len() {
                prop_assert_eq!(fast.origin(at), slow.origin(at));
            }
        }

        #[test]
        fn the_map_is_monotonic_and_in_bounds(text in "\\PC*|[a-z \\u{200b}\\u{fdfa}é\n]*") {
            for view in [View::canonical(&text), View::plain(&text)] {
                let origins: Vec<_> = (0..=view.text().len()).map(|at| view.origin(at)).collect();
                prop_assert!(origins.is_sorted());
                prop_assert!(origins.iter().all(|&at| at <= text.len()));
            }
        }

        #[test]
        fn canonical_is_its_own_canonical(text in "\\PC*") {
            let once = View::canonical(&text);
            let twice = View::canonical(once.text());
            prop_assert_eq!(twice.text(), once.text());
        }

        #[test]
        fn ranges_widen_to_whole_characters(text in "\\PC*", a in 0..80usize, b in 0..80usize) {
            let range = a.min(b).min(text.len())..b.max(a).min(text.len());
            prop_assert!(text.get(whole_chars(&text, &range)).is_some());
        }
    }
}
