//! Personal data: e-mail addresses and payment card numbers.
//!
//! Both are found from the outside in: an `@` or a run of digits is looked for first, and only
//! there the text is read, within fixed lengths.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// RFC 5321 section 4.5.3.1: 64 octets of local part, 255 of domain; 63 in a label (RFC 1035).
const MAX_LOCAL: usize = 64;
const MAX_DOMAIN: usize = 255;
const MAX_LABEL: usize = 63;

/// Digits of a card number (ISO/IEC 7812-1).
const CARD_DIGITS: Range<usize> = 13..20;

/// Names of files that look like addresses, such as `icon@2x.png`.
const FILE_TYPES: [&str; 10] =
    ["png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "json", "html"];

/// A kind of personal data that can be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind needs a detector and a placeholder")]
pub enum PiiKind {
    /// An e-mail address.
    Email,
    /// A payment card number.
    Card,
}

impl PiiKind {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::Card => "card",
        }
    }

    /// What a redacted text shows instead.
    #[must_use]
    pub const fn placeholder(self) -> &'static str {
        match self {
            Self::Email => "[EMAIL]",
            Self::Card => "[CARD]",
        }
    }

    /// Where such data stands in a text, in order.
    pub(super) fn find(self, text: &str) -> Vec<Range<usize>> {
        match self {
            Self::Email => emails(text.as_bytes()),
            Self::Card => cards(text.as_bytes()),
        }
    }
}

fn emails(text: &[u8]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    for at in memchr::memchr_iter(b'@', text) {
        let free = found.last().map_or(0, |last| last.end);
        found.extend(email(text, at).filter(|span| span.start >= free));
    }
    found
}

/// The address around the `@` at `at`.
fn email(text: &[u8], at: usize) -> Option<Range<usize>> {
    let (before, after) = (text.get(..at)?, text.get(at + 1..)?);
    let local = before.iter().rev().take(MAX_LOCAL + 1).take_while(|&&b| is_local(b)).count();
    let start = at.checked_sub(local).filter(|_| local <= MAX_LOCAL)?;
    let dots = before.get(start..)?.iter().take_while(|&&b| b == b'.').count();
    let domain = after.iter().take(MAX_DOMAIN).take_while(|&&b| is_domain(b)).count();
    let domain = domain_len(after.get(..domain)?)?;
    let is_remote = after.get(domain) == Some(&b':') && before.ends_with(b"git");
    (dots < local && !is_remote).then_some(start + dots..at + 1 + domain)
}

const fn is_local(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'%' | b'+' | b'-' | b'\'' | b'&')
}

const fn is_domain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')
}

/// The length of the domain name at the start of `text`: labels, of which the last is letters.
fn domain_len(text: &[u8]) -> Option<usize> {
    let (mut len, mut valid) = (0, None);
    for (index, label) in text.split(|&b| b == b'.').enumerate() {
        let is_label = !label.is_empty() && label.len() <= MAX_LABEL && !label.starts_with(b"-");
        let trimmed = label.len() - label.iter().rev().take_while(|&&b| b == b'-').count();
        if !is_label || trimmed == 0 {
            break;
        }
        if index > 0 && is_top_level(label.get(..trimmed)?) {
            valid = Some(len + trimmed);
        }
        len += label.len() + 1;
    }
    valid
}

fn is_top_level(label: &[u8]) -> bool {
    let letters = label.len() >= 2 && label.iter().all(u8::is_ascii_alphabetic);
    let is_file = FILE_TYPES.iter().any(|ext| label.eq_ignore_ascii_case(ext.as_bytes()));
    (letters || label.starts_with(b"xn--")) && !is_file
}

fn cards(text: &[u8]) -> Vec<Range<usize>> {
    let groups = digit_groups(text);
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut rest = groups.as_slice();
    while let Some((_, next)) = rest.split_first() {
        rest = match card(text, rest) {
            Some((span, used)) => {
                found.push(span);
                rest.get(used..).unwrap_or_default()
            }
            None => next,
        };
    }
    found
}

/// The maximal runs of digits.
fn digit_groups(text: &[u8]) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    for (at, _) in text.iter().enumerate().filter(|(_, b)| b.is_ascii_digit()) {
        match groups.last_mut().filter(|group| group.end == at) {
            Some(group) => group.end = at + 1,
            None => groups.push(at..at + 1),
        }
    }
    groups
}

/// The card number that begins with the first group, and the number of groups it takes.
fn card(text: &[u8], groups: &[Range<usize>]) -> Option<(Range<usize>, usize)> {
    let first = groups.first()?;
    let used = if CARD_DIGITS.contains(&first.len()) { 1 } else { grouped(text, groups)? };
    let last = groups.get(used - 1)?;
    let span = first.start..last.end;
    let digits: Vec<u8> =
        text.get(span.clone())?.iter().filter(|b| b.is_ascii_digit()).map(|b| b - b'0').collect();
    let alone = stands_alone(text, &span);
    (alone && is_issued(&digits) && passes_luhn(&digits)).then_some((span, used))
}

/// How many groups make up a number as it is printed on a card: 4-4-4-4, 4-6-5 or 4-6-4.
fn grouped(text: &[u8], groups: &[Range<usize>]) -> Option<usize> {
    const PRINTED: [&[usize]; 4] = [&[4, 4, 4, 4], &[4, 6, 5], &[4, 6, 4], &[4, 4, 4, 1]];
    PRINTED.into_iter().map(|shape| (shape, groups.get(..shape.len()))).find_map(
        |(shape, taken)| {
            let taken = taken?;
            let fits = taken.iter().zip(shape).all(|(group, &len)| group.len() == len);
            let joined = taken.iter().zip(taken.iter().skip(1)).all(|(a, b)| {
                let between = text.get(a.end..b.start).unwrap_or_default();
                matches!(between, b" " | b"-")
            });
            (fits && joined).then_some(shape.len())
        },
    )
}

/// Whether no letter, digit or decimal point touches the number.
fn stands_alone(text: &[u8], span: &Range<usize>) -> bool {
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let before = text.get(..span.start).unwrap_or_default();
    let after = text.get(span.end..).unwrap_or_default();
    let decimal_before = matches!(before, [.., b'0'..=b'9', b'.']);
    let decimal_after = matches!(after, [b'.', b'0'..=b'9', ..]);
    let touched = before.last().is_some_and(is_word) || after.first().is_some_and(is_word);
    !touched && !decimal_before && !decimal_after
}

/// Whether an issuer uses this prefix at this length (the networks' published ranges).
fn is_issued(digits: &[u8]) -> bool {
    let prefix = digits.iter().take(4).fold(0u32, |n, &d| n * 10 + u32::from(d));
    let lengths: &[usize] = match prefix {
        4000..=4999 => &[13, 16, 19],
        5100..=5599 | 2221..=2720 | 2200..=2204 => &[16],
        3400..=3499 | 3700..=3799 => &[15],
        3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => &[14, 16],
        3528..=3589 | 6011 | 6440..=6599 | 6200..=6299 => &[16, 17, 18, 19],
        5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763 => &[13, 14, 15, 16, 17, 18, 19],
        1800 | 2131 => &[15],
        _ => &[],
    };
    lengths.contains(&digits.len())
}

/// The check digit of ISO/IEC 7812-1 annex B.
fn passes_luhn(digits: &[u8]) -> bool {
    let doubled = |d: u8| if d > 4 { d * 2 - 9 } else { d * 2 };
    let add = |sum: u32, (at, &d): (usize, &u8)| {
        sum + u32::from(if at % 2 == 1 { doubled(d) } else { d })
    };
    digits.iter().rev().enumerate().fold(0, add).is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: PiiKind, text: &str, expected: &[&str]) {
        let found: Vec<_> = kind.find(text).into_iter().filter_map(|span| text.get(span)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn addresses() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Email, text, expected);
        check("write to Ann.Lee+x@mail.example.com.", &["Ann.Lee+x@mail.example.com"]);
        check("<a@b.co>,c@d.org;", &["a@b.co", "c@d.org"]);
        check("请联系test@example.com谢谢", &["test@example.com"]);
        check("...x@example.com--", &["x@example.com"]);
        check("o'neil@example.xn--p1ai", &["o'neil@example.xn--p1ai"]);
        check("a@b a@b. @b.com a@.com a@-b.com a@b.c a@1.2.3.4", &[]);
        check("icon@2x.png, git@github.com:me/it, @types/node@18.1.0", &[]);
        let long = format!("{}@example.com", "a".repeat(65));
        check(&long, &[]);
        check("a@b.com@c.org", &["a@b.com"]);
    }

    #[test]
    fn card_numbers() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Card, text, expected);
        check("4111111111111111", &["4111111111111111"]);
        check("pay 5555-5555-5555-4444 now", &["5555-5555-5555-4444"]);
        check("3782 822463 10005, 123", &["3782 822463 10005"]);
        check(
            "4111 1111 1111 1111 123 6011111111111117",
            &["4111 1111 1111 1111", "6011111111111117"],
        );
        check("4111111111111112 1234567812345670 0000000000000000", &[]);
        check("14111111111111111 4111111111111111a 0.4111111111111111", &[]);
        check("41111111111111111111111111", &[]);
        check("4111 1111 1111\n1111", &[]);
    }
}
