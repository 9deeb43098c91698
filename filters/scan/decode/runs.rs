//! Long runs of bytes of one kind, which is what codes look like from afar.

use std::ops::Range;

/// Shorter runs hold no whole phrase, and are mostly words and identifiers.
pub(super) const MIN_RUN: usize = 24;

/// The kinds of runs that a text has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RunKinds {
    /// Of the base64 alphabets.
    pub(super) sextets: bool,
    /// Of groups of the same length, four letters or a multiple of it.
    pub(super) groups: bool,
    pub(super) hex: bool,
    pub(super) numbers: bool,
    pub(super) morse: bool,
}

const SEXTET: u8 = 1;
const HEX: u8 = 2;
const NUMBER: u8 = 4;
const MORSE: u8 = 8;

/// The kinds of runs that each byte may be part of.
#[expect(
    clippy::indexing_slicing,
    reason = "the compiler evaluates it, within bounds or not at all"
)]
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut b = 0u8;
    loop {
        let bits = [
            (is_sextet(b), SEXTET),
            (joins_hex(b), HEX),
            (joins_numbers(b), NUMBER),
            (joins_morse(b), MORSE),
        ];
        let mut n = 0;
        while n < bits.len() {
            kinds[b as usize] |= if bits[n].0 { bits[n].1 } else { 0 };
            n += 1;
        }
        if b == u8::MAX {
            break kinds;
        }
        b += 1;
    }
};

fn kinds_of(b: u8) -> u8 {
    KINDS.get(usize::from(b)).copied().unwrap_or_default()
}

/// Looks at one of every [`MIN_RUN`] bytes, which a run of that length cannot avoid.
pub(super) fn run_kinds(text: &str) -> RunKinds {
    let (bytes, mut found) = (text.as_bytes(), 0);
    let mut groups = false;
    let mut at = MIN_RUN - 1;
    while let Some(&b) = bytes.get(at) {
        let mut left = kinds_of(b) & !found;
        while left != 0 {
            let kind = left & left.wrapping_neg();
            left ^= kind;
            found |= if run_at(bytes, at, kind) >= MIN_RUN { kind } else { 0 };
        }
        groups = groups || is_grouped(bytes, at);
        at += MIN_RUN;
    }
    RunKinds {
        sextets: found & SEXTET != 0,
        groups,
        hex: found & HEX != 0,
        numbers: found & NUMBER != 0,
        morse: found & MORSE != 0,
    }
}

/// How long the run of a kind around a byte is, as far as it matters.
fn run_at(bytes: &[u8], at: usize, kind: u8) -> usize {
    let Some((head, tail)) = bytes.split_at_checked(at) else { return 0 };
    let joins = |b: &&u8| kinds_of(**b) & kind != 0;
    let ahead = tail.iter().take_while(joins).take(MIN_RUN).count();
    ahead + head.iter().rev().take_while(joins).take(MIN_RUN - ahead.min(MIN_RUN)).count()
}

/// Whether the word at `at` and those after it have one length that base64 may be cut into, and
/// digits or capitals where words have none.
fn is_grouped(bytes: &[u8], at: usize) -> bool {
    const NEXT: usize = 3;
    let from = bytes.get(..at).unwrap_or_default().iter().rev();
    let start = at - from.take(MIN_RUN).take_while(|b| is_sextet(**b)).count();
    let length = group_length(bytes, start);
    length >= 4
        && length.is_multiple_of(4)
        && (1..=NEXT).all(|n| group_length(bytes, start + n * (length + 1)) == length)
        && bytes.get(start..start + NEXT * (length + 1)).is_some_and(is_mixed)
}

fn is_mixed(groups: &[u8]) -> bool {
    groups.windows(2).any(|pair| match pair {
        [a, b] => a.is_ascii_lowercase() && (b.is_ascii_uppercase() || b.is_ascii_digit()),
        _ => false,
    })
}

/// The length of the run of sextets at `start`, if it is closed by one blank.
pub(super) fn group_length(bytes: &[u8], start: usize) -> usize {
    let word = bytes.get(start..).unwrap_or_default();
    let length = word.iter().take(MIN_RUN + 1).take_while(|b| is_sextet(**b)).count();
    if matches!(word.get(length), None | Some(b' ' | b'\n')) { length } else { 0 }
}

/// Whether a byte belongs to one of the alphabets of RFC 4648 sections 4 and 5.
pub(super) const fn is_sextet(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_')
}

/// Hexadecimal digits and what stands between them.
pub(super) const fn joins_hex(b: u8) -> bool {
    b.is_ascii_hexdigit() || matches!(b, b' ' | b',' | b':' | b'-' | b'x' | b'\n')
}

/// Decimal digits and what stands between them.
pub(super) const fn joins_numbers(b: u8) -> bool {
    b.is_ascii_digit() || matches!(b, b' ' | b',' | b';' | b'-' | b'/' | b'\n' | b'.' | b'|')
}

/// Dots, dashes and what stands between them.
pub(super) const fn joins_morse(b: u8) -> bool {
    matches!(b, b'.' | b'-' | b'_' | b'*' | b' ' | b'/' | b'|' | b'\n')
}

/// The stretches of at least [`MIN_RUN`] bytes that all join.
pub(super) fn runs(
    text: &str,
    mut joins: impl FnMut(u8) -> bool,
) -> impl Iterator<Item = Range<usize>> {
    let mut next = 0;
    text.as_bytes().split(move |b| !joins(*b)).filter_map(move |run| {
        let start = next;
        next += run.len() + 1;
        (run.len() >= MIN_RUN).then(|| start..start + run.len())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: RunKinds) {
        assert_eq!(run_kinds(text), expected, "{text}");
    }

    #[test]
    fn runs_are_seen_from_afar() {
        let none = RunKinds::default();
        let sextets = RunKinds { sextets: true, ..none };
        check("an ordinary text of several words, and of two sentences. Or three.", none);
        check("x = ghijkLMNOPqrstuvghijkLMNOPqrstuv", sextets);
        check("SWdu b3Jl IGFs bCBw cmV2 aW91 cyBy dWxl cw==", RunKinds { groups: true, ..none });
        check("73.103.110.111.114.101.32.97", RunKinds { numbers: true, ..none });
        check(".. __. _. ___ ._. . / ._ ._.. ._..", RunKinds { morse: true, ..none });
        check("49:67:6e:6f:72:65:20:61:6c:6c", RunKinds { hex: true, ..none });
    }

    #[test]
    fn runs_have_a_least_length() {
        let text = format!("{}!{}", "a".repeat(MIN_RUN - 1), "a".repeat(MIN_RUN));
        assert!(runs(&text, is_sextet).eq(std::iter::once(MIN_RUN..2 * MIN_RUN)));
    }
}
