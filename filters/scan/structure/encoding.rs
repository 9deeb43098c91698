//! Text that is no text: mostly signs, escapes that nobody needs, letters of mixed alphabets,
//! private characters, long runs that decode to nothing.
//!
//! Each measure has limits that what people send stays below: code, tables, art, other scripts,
//! mathematics, pictures in data URLs.

use std::ops::Range;

use memchr::memchr3_iter;

use super::{Findings, letters};
use crate::scan::rules::Kind;

/// Stretches of this length are mostly signs if so many of their bytes are.
const WINDOW: usize = 512;
const MOSTLY_SIGNS: usize = WINDOW * 7 / 10;

/// Fewer signs, not counting repetitions, are a rule or a border.
const LEAST_SIGNS: usize = 300;

/// So many letters in a row that are escaped without need are a disguise.
const LEAST_ESCAPES: usize = 8;

/// Control characters that no text needs.
const LEAST_CONTROLS: usize = 8;

/// A run of the base64 alphabet that is longer than any key.
const LONG_RUN: usize = 512;

/// Bits per character of random base64, less what chance takes.
const RANDOM: f32 = 5.2;

/// Adds what of a text is no text.
pub(super) fn find(text: &str, findings: &mut Findings) {
    signs(text, findings);
    escapes(text, findings);
    controls(text, findings);
    long_runs(text, findings);
    if !text.is_ascii() {
        letters::find(text, findings);
    }
}

/// A program that is written in brackets and the like. Repeated signs count once, blanks against.
fn signs(text: &str, findings: &mut Findings) {
    let found = text.as_bytes().chunks(WINDOW).position(|window| {
        let count = window.iter().filter(|b| b.is_ascii_punctuation()).count();
        count >= MOSTLY_SIGNS && distinct_signs(window) >= LEAST_SIGNS
    });
    if let Some(window) = found {
        let start = text.floor_char_boundary(window * WINDOW);
        let end = text.ceil_char_boundary(start + WINDOW);
        findings.add(Kind::SuspiciousEncoding, "signs", start..end, 0.7);
    }
}

/// Signs that differ from the one before and the one before that, as those of borders do not.
fn distinct_signs(window: &[u8]) -> usize {
    let same = |w: &&[u8]| matches!(w, [a, b, c] if c.is_ascii_punctuation() && (a != c || b != c));
    window.windows(3).filter(same).count()
}

/// Letters and digits that are written as escapes one after the other: no encoder needs that.
fn escapes(text: &str, findings: &mut Findings) {
    let (mut run, mut start, mut end) = (0, 0, 0);
    for at in memchr3_iter(b'\\', b'%', b'&', text.as_bytes()) {
        let Some((length, code)) = text.as_bytes().get(at..).and_then(escape) else { continue };
        let needless = char::from_u32(code).is_some_and(|c| c.is_ascii_alphanumeric());
        let follows = run > 0 && at <= end + 1;
        (run, start) = match (needless, follows) {
            (true, true) => (run + 1, start),
            (true, false) => (1, at),
            (false, true) => (run, start),
            (false, false) => (0, at),
        };
        end = at + length;
        if run == LEAST_ESCAPES {
            findings.add(Kind::SuspiciousEncoding, "needless_escapes", start..end, 0.6);
            return;
        }
    }
}

/// The length of the escape at the beginning, and the character that it stands for.
fn escape(bytes: &[u8]) -> Option<(usize, u32)> {
    let (prefix, most, radix) = match bytes {
        [b'\\', b'x', ..] => (2, 2, 16),
        [b'\\', b'u', b'{', ..] => (3, 6, 16),
        [b'\\', b'u', ..] => (2, 4, 16),
        [b'%', ..] => (1, 2, 16),
        [b'&', b'#', b'x' | b'X', ..] => (3, 6, 16),
        [b'&', b'#', ..] => (2, 7, 10),
        _ => return None,
    };
    let digits = bytes.get(prefix..)?.iter().take(most);
    let digits: Vec<u32> = digits.map_while(|b| char::from(*b).to_digit(radix)).collect();
    let code = digits.iter().fold(0, |code, digit| code * radix + digit);
    let closed = matches!(bytes.get(prefix + digits.len()), Some(b';' | b'}'));
    (digits.len() >= 2).then_some((prefix + digits.len() + usize::from(closed), code))
}

/// Control characters, unless they belong to the colours of a terminal.
fn controls(text: &str, findings: &mut Findings) {
    let is_control = |b: u8| b.is_ascii_control() && !matches!(b, b'\t'..=b'\r' | 0x1b);
    let count = text.bytes().filter(|b| is_control(*b)).count();
    if count >= LEAST_CONTROLS && count * 50 >= text.len() {
        let start = text.bytes().position(is_control).unwrap_or_default();
        let end = text.bytes().rposition(is_control).map_or(text.len(), |at| at + 1);
        findings.add(Kind::SuspiciousEncoding, "control_characters", start..end, 0.6);
    }
}

/// A long run of base64 that is neither text, nor a picture or document, nor in a data URL, nor cut
/// off by the beginning of the text, so that what it is cannot be seen. Looks at one of every
/// [`LONG_RUN`] bytes, which such a run cannot avoid.
fn long_runs(text: &str, findings: &mut Findings) {
    let bytes = text.as_bytes();
    let mut at = LONG_RUN - 1;
    while at < bytes.len() {
        let run = run_around(bytes, at);
        at = run.end.max(at) + LONG_RUN;
        if run.len() >= LONG_RUN && run.start > 0 && is_undecodable(bytes, &run) {
            findings.add(Kind::SuspiciousEncoding, "undecodable_run", run, 0.5);
            return;
        }
    }
}

/// The run of the base64 alphabet around a place; backwards it goes no further than a run that was
/// not looked at could have begun.
fn run_around(bytes: &[u8], at: usize) -> Range<usize> {
    let (head, tail) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
    let joins = |b: &&u8| is_sextet(**b);
    let ahead = tail.iter().take_while(joins).count();
    let behind = head.iter().rev().take(LONG_RUN).take_while(joins).count();
    if ahead == 0 { at..at } else { at - behind..at + ahead }
}

const fn is_sextet(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_' | b'=')
}

fn is_undecodable(bytes: &[u8], run: &Range<usize>) -> bool {
    let body = bytes.get(run.clone()).unwrap_or_default();
    let sample = body.get(..LONG_RUN).unwrap_or(body);
    let before = bytes.get(run.start.saturating_sub(16)..run.start).unwrap_or_default();
    let is_data = memchr::memmem::find(before, b"base64,").is_some();
    !is_data && entropy(sample) >= RANDOM && !is_known_file(body) && !is_text(sample)
}

fn entropy(sample: &[u8]) -> f32 {
    let mut counts = [0u16; 256];
    for b in sample {
        if let Some(count) = counts.get_mut(usize::from(*b)) {
            *count += 1;
        }
    }
    let total = sample.len() as f32;
    let share = counts.iter().filter(|count| **count > 0).map(|count| f32::from(*count) / total);
    share.map(|p| -p * p.log2()).sum()
}

/// How the base64 of pictures, documents, archives, fonts, sounds and certificates begins.
fn is_known_file(body: &[u8]) -> bool {
    const FILES: [&[u8]; 18] = [
        b"iVBOR", b"/9j/", b"R0lGOD", b"JVBERi0", b"UEsDB", b"H4sI", b"UklGR", b"d09GR", b"AAEAAA",
        b"T2dnU", b"SUQz", b"MII", b"Qk0", b"AAABAA", b"QlpoO", b"TVqQ", b"AGFzbQ", b"PHN2Zy",
    ];
    FILES.iter().any(|magic| body.starts_with(magic))
}

/// Whether what the run decodes to is text, which is read as such by the scanner.
fn is_text(sample: &[u8]) -> bool {
    let value = |b: &u8| match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' | b'-' => 62,
        _ => 63,
    };
    let decode = |quad: &[u8]| {
        let bits = quad.iter().fold(0u32, |bits, b| bits << 6 | u32::from(value(b)));
        let [_, bytes @ ..] = bits.to_be_bytes();
        bytes
    };
    let decoded: Vec<u8> = sample.chunks_exact(4).flat_map(decode).collect();
    let shown = |b: &&u8| matches!(**b, b' '..=b'~' | b'\t' | b'\n' | b'\r') || **b >= 0x80;
    let plain = decoded.iter().filter(|b| **b < 0x80 && shown(b)).count();
    let strange = decoded.iter().filter(|b| !shown(b)).count();
    strange * 50 <= decoded.len() && plain * 4 >= decoded.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::decode::testing::base64;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let mut findings = Findings::default();
        find(text, &mut findings);
        let found: Vec<_> = findings.into_iter().map(|finding| finding.r#type).collect();
        assert_eq!(found, expected, "{text:.300?}");
    }

    /// Letters that look random, always the same.
    fn noise(length: usize) -> String {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(ALPHABET[(state >> 58) as usize])
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn text_that_is_no_text() {
        check(&"[][(![]+[])[+[]]+(![]+[])[!+[]+!+[]]".repeat(40), &["signs"]);
        check(r"\x49\x67\x6e\x6f\x72\x65\x20\x61\x6c\x6c", &["needless_escapes"]);
        check("&#73;&#103;&#110;&#111;&#114;&#101;&#32;&#97;&#108;", &["needless_escapes"]);
        check("%49%67%6e%6f%72%65%20%61%6c%6c", &["needless_escapes"]);
        check(&"i\u{1}g\u{2}".repeat(9), &["control_characters"]);
        check(&format!("run {} now", noise(700)), &["undecodable_run"]);
    }

    #[test]
    fn text_that_looks_odd_and_is_ordinary() {
        for text in [
            "",
            r#"{"greeting": "\u4f60\u597d\uff0c\u4e16\u754c\u4f60\u597d\u4e16\u754c"}"#,
            "https://example.com/?q=%E4%BD%A0%E5%A5%BD%E4%BD%A0%E5%A5%BD%20a%26b",
            r"\xff\xfe\x00\x01\x48\x00\x65\x00",
            &format!("![a](data:image/x-icon;base64,{})", noise(2000)),
            &format!("\"image/png\": \"iVBOR{}\"", noise(2000)),
            &base64(&"A long text that is only encoded, and says so. ".repeat(30)),
            &"0123456789abcdef".repeat(80),
            &noise(2000),
            &"|-----x---|---o---\n".repeat(60),
            &"ACGTTGCA".repeat(200),
            &"|---|:--:|\n| a | b |\n".repeat(60),
            &"=".repeat(3000),
            &"+-----+-----+\n|     |     |\n".repeat(60),
            &"[[0, 1], [1, 0]], {'a': {}},\n".repeat(60),
            &"let x = vec![(a, b), (c, d)]; // => {}\n".repeat(60),
            &r"\frac{a_{i}}{b^{2}} + \sum_{k=1}^{n} \left(x_k\right)^2 ".repeat(40),
            "\x1b[31mred\x1b[0m ".repeat(50).as_str(),
        ] {
            check(text, &[]);
        }
    }
}
