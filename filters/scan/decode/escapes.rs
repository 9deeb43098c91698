//! Escapes: percent, HTML references, those of JSON and programming languages, quoted-printable.

use super::super::disguise::{Regions, slice};
use super::{Decoded, lossy};

/// What stands around `%69`, `&#105;`, `\x69`, `\u0069`, `\151`, `\n` or `U+0069`, resolved.
pub(super) fn unescape(text: &str) -> Vec<Decoded> {
    let mut found = resolve(text, 1, |bytes| memchr::memchr3(b'%', b'&', b'\\', bytes), escape);
    found.extend(resolve(text, 1, |bytes| memchr::memmem::find(bytes, b"U+"), code_point));
    found
}

/// Quoted-printable (RFC 2045 section 6.7), if enough is quoted to tell it from a sum.
pub(super) fn quoted_printable(text: &str) -> Vec<Decoded> {
    const ENOUGH: usize = 4;
    resolve(text, ENOUGH, |bytes| memchr::memchr(b'=', bytes), quoted)
}

/// A decoded escape.
#[derive(Clone, Copy)]
enum Unit {
    Nothing,
    /// A byte of UTF-8.
    Byte(u8),
    Char(char),
}

/// The regions of a text that have escapes, resolved; nothing if there are fewer than `enough`.
fn resolve(
    text: &str,
    enough: usize,
    next: impl Fn(&[u8]) -> Option<usize>,
    parse: impl Fn(&str) -> Option<(Unit, usize)>,
) -> Vec<Decoded> {
    let (mut regions, mut count, mut at) = (Regions::default(), 0, 0);
    while let Some((start, _, len)) = next_escape(text, at, &next, &parse) {
        regions.add(start..start + len);
        at = start + len;
        count += 1;
    }
    if count < enough {
        return Vec::new();
    }
    let resolved = |region| {
        let (part, span) = slice(text, &region);
        Decoded { text: resolve_all(part, &next, &parse), span }
    };
    regions.iter(text.len()).map(resolved).collect()
}

/// Where the next escape is, what it stands for, and its length.
fn next_escape(
    text: &str,
    mut at: usize,
    next: impl Fn(&[u8]) -> Option<usize>,
    parse: impl Fn(&str) -> Option<(Unit, usize)>,
) -> Option<(usize, Unit, usize)> {
    loop {
        at += next(text.as_bytes().get(at..)?)?;
        if let Some((unit, len)) = text.get(at..).and_then(&parse) {
            return Some((at, unit, len));
        }
        at += 1;
    }
}

fn resolve_all(
    text: &str,
    next: impl Fn(&[u8]) -> Option<usize>,
    parse: impl Fn(&str) -> Option<(Unit, usize)>,
) -> String {
    let (mut out, mut copied) = (Vec::with_capacity(text.len()), 0);
    while let Some((start, unit, len)) = next_escape(text, copied, &next, &parse) {
        out.extend_from_slice(text.as_bytes().get(copied..start).unwrap_or_default());
        push(&mut out, unit);
        copied = start + len;
    }
    out.extend_from_slice(text.as_bytes().get(copied..).unwrap_or_default());
    lossy(out)
}

fn push(out: &mut Vec<u8>, unit: Unit) {
    match unit {
        Unit::Nothing => {}
        Unit::Byte(b) => out.push(b),
        Unit::Char(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// The escape at the start of `text` and its length.
fn escape(text: &str) -> Option<(Unit, usize)> {
    let mut bytes = text.bytes();
    match (bytes.next()?, bytes.next()?) {
        (b'%', b'u') => Some((Unit::Char(char_at(text.get(2..6)?, 16)?), 6)),
        (b'%', _) => Some((Unit::Byte(hex_byte(text, 1)?), 3)),
        (b'\\', b'x') => Some((Unit::Byte(hex_byte(text, 2)?), 4)),
        (b'\\', b'u') => unicode_escape(text),
        (b'\\', b'U') => Some((Unit::Char(char_at(text.get(2..10)?, 16)?), 10)),
        (b'\\', b'0'..=b'3') => Some((Unit::Char(char_at(text.get(1..4)?, 8)?), 4)),
        (b'\\', b'n' | b'r' | b't' | b'f') => Some((Unit::Char(' '), 2)),
        (b'\\', b'\n') => Some((Unit::Nothing, 2)),
        (b'\\', quoted @ (b'"' | b'\'' | b'/' | b'\\')) => Some((Unit::Byte(quoted), 2)),
        (b'&', _) => reference(text),
        _ => None,
    }
}

fn char_at(digits: &str, radix: u32) -> Option<char> {
    char::from_u32(u32::from_str_radix(digits, radix).ok()?)
}

fn hex_byte(text: &str, at: usize) -> Option<u8> {
    let digits = text.get(at..at + 2).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

/// `\u0069` or `\u{69}`.
fn unicode_escape(text: &str) -> Option<(Unit, usize)> {
    let (digits, len) = match text.get(2..)?.strip_prefix('{') {
        Some(rest) => {
            let digits = rest.get(..rest.bytes().take(7).position(|b| b == b'}')?)?;
            (digits, digits.len() + 4)
        }
        None => (text.get(2..6)?, 6),
    };
    Some((Unit::Char(char_at(digits, 16)?), len))
}

/// An HTML character reference: numeric, or one of the few names that text needs. Browsers read a
/// numeric one also without its semicolon.
fn reference(text: &str) -> Option<(Unit, usize)> {
    if let Some(number) = text.strip_prefix("&#") {
        return numeric(number).map(|(c, len)| (Unit::Char(c), len + 2));
    }
    let end = text.bytes().take(12).position(|b| b == b';')?;
    let c = match text.get(1..end)? {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" | "Tab" | "NewLine" | "ensp" | "emsp" => ' ',
        "comma" => ',',
        "period" => '.',
        "colon" => ':',
        "excl" => '!',
        _ => return None,
    };
    Some((Unit::Char(c), end + 1))
}

fn numeric(text: &str) -> Option<(char, usize)> {
    const LONGEST: usize = 8;
    let (radix, from) = if text.starts_with(['x', 'X']) { (16, 1) } else { (10, 0) };
    let digits = text.get(from..)?.bytes().take(LONGEST).map(char::from);
    let length = digits.take_while(|c| c.is_digit(radix)).count();
    let c = char_at(text.get(from..from + length)?, radix)?;
    let closed = text.as_bytes().get(from + length) == Some(&b';');
    Some((c, from + length + usize::from(closed)))
}

/// `U+0069`, and the blank before the next one.
fn code_point(text: &str) -> Option<(Unit, usize)> {
    let digits = text.get(2..)?.bytes().take(6).take_while(u8::is_ascii_hexdigit).count();
    let c = char_at(text.get(2..2 + digits).filter(|_| digits >= 4)?, 16)?;
    let blank = text.get(2 + digits..).is_some_and(|rest| rest.starts_with(" U+"));
    Some((Unit::Char(c), 2 + digits + usize::from(blank)))
}

/// `=69` or a soft line break.
fn quoted(text: &str) -> Option<(Unit, usize)> {
    match text.as_bytes().get(1)? {
        b'\n' => Some((Unit::Nothing, 2)),
        b'\r' => Some((Unit::Nothing, 3)),
        _ => Some((Unit::Byte(hex_byte(text, 1)?), 3)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn escapes_are_resolved_in_the_whole_text() {
        check("say %69%67nore &amp; &#103;&#x6f; \\x41\\u0042\\u{43}", &["say ignore & go ABC"]);
        check("100% sure &c; \\w %zz", &[]);
        check("%E4%BD%A0", &["你"]);
        check("\\u{110000} &#xffffffff; %é &#", &[]);
        check("&#105&#103 %u0041 \\U00000042 \\103", &["ig A B C"]);
        check("U+0049 U+0067 x", &["Ig x"]);
        check("%41 then U+0049 U+0067", &["A then U+0049 U+0067", "%41 then Ig"]);
        check("one\\ntwo \\\"three\\\"", &["one two \"three\""]);
    }

    #[test]
    fn quoted_printable_needs_more_than_a_sum() {
        check("=49=67=6E=6F=\nre", &["Ignore"]);
        check("a=10, b=20", &[]);
    }
}
