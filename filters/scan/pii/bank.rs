//! International bank account numbers (ISO 13616): country, check digits, and the country's
//! own number, of a length that the SWIFT registry gives.

use std::ops::Range;

use super::{Detector, Survey};

/// Countries and the length of their numbers (SWIFT IBAN registry).
const COUNTRIES: [(&[u8; 2], usize); 88] = [
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
];

pub(super) const IBAN: Detector = Detector {
    name: "iban",
    placeholder: "[IBAN]",
    default: true,
    longest: 132,
    shape: || r"[A-Za-z]{2}[0-9][0-9A-Za-z](?:(?:[ .-]{1,2}|\xc2\xa0|\xe2\x80[\x80-\xaf])?[0-9A-Za-z]){0,30}[\x00-\xff]",
    find: |survey| survey.at_groups(iban),
};

/// The number whose check digits begin the first group.
fn iban(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let first = groups.first().filter(|group| group.len() >= 2)?;
    let start = first.start.checked_sub(2)?;
    let country = survey.slice(start..first.start);
    let (_, len) =
        COUNTRIES.iter().find(|(code, _)| country.eq_ignore_ascii_case(code.as_slice()))?;
    let end = end_of(survey, start, *len)?;
    let span = start..end;
    let outside = |b: u8| !b.is_ascii_alphanumeric();
    let alone = survey.previous(start).is_none_or(outside) && survey.byte(end).is_none_or(outside);
    (alone && remainder(survey.slice(span.clone())) == 1).then_some(span)
}

/// Where `len` letters and digits end, which may stand in groups.
fn end_of(survey: &Survey<'_>, start: usize, len: usize) -> Option<usize> {
    let (mut at, mut left) = (start, len);
    while left > 0 {
        at += match survey.text().get(at..)? {
            [b, ..] if b.is_ascii_alphanumeric() => {
                left -= 1;
                1
            }
            [b' ' | b'-' | b'.', b, ..] if b.is_ascii_alphanumeric() => 1,
            [b' ', b' ', b, ..] if b.is_ascii_alphanumeric() => 2,
            [0xc2, 0xa0, ..] => 2,
            [0xe2, 0x80, 0xaf | 0x87 | 0x89 | 0x91..=0x93, ..] => 3,
            _ => return None,
        };
    }
    Some(at)
}

/// The remainder by 97 of ISO 7064, with the first four characters moved to the end.
fn remainder(number: &[u8]) -> u32 {
    let all = || number.iter().filter_map(|&b| char::from(b).to_digit(36));
    let add =
        |sum: u32, value: u32| (if value < 10 { sum * 10 + value } else { sum * 100 + value }) % 97;
    all().skip(4).chain(all().take(4)).fold(0, add)
}

#[cfg(test)]
mod tests {
    use super::super::PiiKind;
    use super::super::testing::check;
    use super::*;

    #[test]
    fn account_numbers() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Iban, text, expected);
        check("IBAN DE89370400440532013000.", &["DE89370400440532013000"]);
        check("GB82 WEST 1234 5698 7654 32 now", &["GB82 WEST 1234 5698 7654 32"]);
        check("fr14-2004-1010-0505-0001-3M02-606", &["fr14-2004-1010-0505-0001-3M02-606"]);
        check("NO93\u{a0}8601\u{a0}1117\u{a0}947", &["NO93\u{a0}8601\u{a0}1117\u{a0}947"]);
        check("GB82.WEST.1234.5698.7654.32", &["GB82.WEST.1234.5698.7654.32"]);
        check("GB82  WEST  1234  5698  7654  32", &["GB82  WEST  1234  5698  7654  32"]);
        check("DE89370400440532013001 XX89370400440532013000", &[]);
        check("DE8937040044053201300 XDE89370400440532013000", &[]);
    }

    #[test]
    fn countries_are_sorted_and_unique() {
        assert!(COUNTRIES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
