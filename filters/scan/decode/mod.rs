//! Decoders: texts that stand in another text in some code.
//!
//! To be encoded is no offence; what comes out is read like any other text. All decoders are
//! lenient, because the model on the other side is. One look at which bytes there are, and one at
//! every 24th of them, says which decoders are worth running, so that prose costs next to nothing.

use std::ops::Range;

use unicode_normalization::char::is_combining_mark;

mod codes;
mod escapes;
mod hidden;
mod join;
mod morse;
mod radix;
mod runs;

use runs::{RunKinds, run_kinds};

/// What a decoder found, and the bytes it stood in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) text: String,
    pub(super) span: Range<usize>,
}

impl Decoded {
    /// One that the whole of `source` was needed for.
    const fn of_all(source: &str, text: String) -> Self {
        Self { text, span: 0..source.len() }
    }
}

/// Which bytes a text has at all.
struct Present([bool; 256]);

impl Present {
    fn new(text: &str) -> Self {
        let mut seen = [false; 256];
        for &b in text.as_bytes() {
            if let Some(seen) = seen.get_mut(usize::from(b)) {
                *seen = true;
            }
        }
        Self(seen)
    }

    fn any(&self, of: &[u8]) -> bool {
        of.iter().any(|&b| self.0.get(usize::from(b)).copied().unwrap_or_default())
    }
}

/// Everything that decodes to readable text.
pub(super) fn decode(text: &str) -> Vec<Decoded> {
    let (present, kinds) = (Present::new(text), run_kinds(text));
    let mut found = Vec::new();
    if present.any(b"%&\\+=") {
        found.extend(escapes::unescape(text));
        found.extend(escapes::quoted_printable(text));
    }
    decode_runs(text, kinds, &mut found);
    if present.any(b"\"'`") {
        found.extend(join::concatenated(text));
        found.extend(join::variables(text));
    }
    if present.any(b"\n") {
        found.extend(join::unlisted(text));
    }
    if present.any(b"(") {
        found.extend(codes::calls(text));
    }
    found
}

fn decode_runs(text: &str, kinds: RunKinds, found: &mut Vec<Decoded>) {
    if kinds.sextets {
        found.extend(radix::base64(text));
        found.extend(radix::base32(text));
    }
    if kinds.groups {
        found.extend(radix::grouped_base64(text));
    }
    if kinds.hex {
        found.extend(radix::hex(text));
    }
    if kinds.numbers {
        found.extend(codes::numbers(text));
    }
    if kinds.morse {
        found.extend(morse::decode(text));
    }
}

/// What stands in characters that cannot be seen or that change the direction of reading, for
/// texts beyond ASCII.
pub(super) fn reveal(text: &str) -> Vec<Decoded> {
    let mut found = hidden::reveal(text);
    found.extend(morse::decode_dressed(text));
    found
}

/// Whether bytes read as text: nine in ten are letters, digits, spaces, UTF-8 or UTF-16 padding.
fn is_text(bytes: &[u8]) -> bool {
    let (all, bad) = census(bytes, bytes.len() / 10);
    all >= 8 && bad * 10 <= all
}

/// Whether bytes that begin with `head`, `most` at most, cannot read as text any more. The end of
/// `head` may be in the middle of a character.
fn is_hopeless(head: &[u8], most: usize) -> bool {
    let bound = most / 10 + 1;
    census(head, bound).1 > bound
}

/// How many characters there are, and how many that no text has, until there are more than `most`
/// of these.
fn census(bytes: &[u8], most: usize) -> (usize, usize) {
    let (mut all, mut bad) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            all += 1;
            bad += usize::from(!is_readable(c));
            if bad > most {
                return (all, bad);
            }
        }
        let broken = usize::from(!chunk.invalid().is_empty());
        (all, bad) = (all + broken, bad + broken);
        if bad > most {
            break;
        }
    }
    (all, bad)
}

fn is_readable(c: char) -> bool {
    match c {
        '\0' | '\t' | '\n' | '\x0c' | '\r' | ' '..='~' => true,
        c if c.is_ascii() => false,
        // Marks above letters, punctuation, what is written beside ideographs, pictures.
        '\u{2010}'..='\u{205e}'
        | '\u{3000}'..='\u{303f}'
        | '\u{ff00}'..='\u{ffef}'
        | '\u{1f300}'..='\u{1faff}' => true,
        c => c.is_alphanumeric() || is_combining_mark(c),
    }
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

#[cfg(test)]
pub(super) mod testing {
    use super::decode;

    /// RFC 4648 section 4, for attacks to be hidden in.
    pub(crate) fn base64(text: &str) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        packed(text, 6, ALPHABET)
    }

    /// RFC 4648 section 6.
    pub(crate) fn base32(text: &str) -> String {
        packed(text, 5, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    }

    fn packed(text: &str, width: usize, alphabet: &[u8]) -> String {
        let bits = text.bytes().flat_map(|b| (0..8).rev().map(move |n| usize::from(b >> n & 1)));
        let bits: Vec<_> = bits.collect();
        let value = |unit: &[usize]| {
            unit.iter().chain([0; 8].iter()).take(width).fold(0, |v, b| v << 1 | b)
        };
        bits.chunks(width).map(|unit| char::from(alphabet[value(unit)])).collect()
    }

    /// All that decodes from `text`.
    #[track_caller]
    pub(crate) fn check(text: &str, expected: &[&str]) {
        let found: Vec<_> = decode(text).into_iter().map(|d| d.text).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prose_has_nothing_to_decode() {
        let prose = "The sea is blue, and so is the sky; that is what 3 of 4 people say (or said).";
        assert_eq!(decode(&prose.repeat(20)), []);
    }

    #[test]
    fn the_span_is_that_of_the_run() {
        let found = decode("see SWdub3JlIGFsbCBwcmV2aW91cyBydWxlcw== now");
        assert_eq!(found[0].span, 4..38);
    }

    proptest! {
        #[test]
        fn any_text_decodes_within_bounds(
            text in "(\\PC|[%&\\\\=+][0-9a-fA-Fux#;{}]{0,4}|[01]{8} |[.-]{1,4} |[\"'][ +]|a = |[0-9]{2,3},){0,80}",
        ) {
            for found in decode(&text).into_iter().chain(reveal(&text)) {
                prop_assert!(found.span.end <= text.len());
                prop_assert!(found.text.len() <= text.len() * 4 + 16, "{found:?}");
            }
        }
    }
}
