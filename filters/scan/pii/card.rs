//! Payment card numbers: digits as they are printed on a card, with an issuer's prefix and a valid
//! check digit.

use std::ops::Range;

use super::cues::Cue;
use super::survey::{digits, is_loose_divider};
use super::{Detector, Survey};

/// Digits of a card number (ISO/IEC 7812-1; Maestro has as few as 12).
const LENGTHS: std::ops::RangeInclusive<usize> = 12..=19;

pub(super) const CARD: Detector = Detector {
    name: "card",
    placeholder: "[CARD]",
    default: true,
    longest: 76,
    shape: || r"[0-9](?:(?:[ ./-]{1,3}|\xc2\xa0|\xe2\x80[\x80-\xaf]|\xe2\x88\x92)?[0-9]){0,18}[\x00-\xff]",
    find: |survey| survey.at_groups(card),
};

/// The card number that begins with the first group.
fn card(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let first = groups.first()?;
    if LENGTHS.contains(&first.len()) {
        return whole(survey, groups, 1);
    }
    // Lengths are compared first, since few numbers have them.
    let equal = in_equal_parts(groups);
    let mut printed = PRINTED.iter().rev().filter(|shape| fits(groups, shape)).peekable();
    if equal.is_none() && printed.peek().is_none() {
        return None;
    }
    let joined = joined(survey, groups);
    let by_print = printed
        .filter(|shape| shape.len() <= joined)
        .find_map(|shape| whole(survey, groups, shape.len()));
    by_print.or_else(|| whole(survey, groups, equal.filter(|count| *count <= joined)?))
}

/// The number that so many groups make up, if it is one of a card.
fn whole(survey: &Survey<'_>, groups: &[Range<usize>], used: usize) -> Option<Range<usize>> {
    let groups = groups.get(..used)?;
    let span = groups.first()?.start..groups.last()?.end;
    let number = survey.slice(span.clone());
    if !survey.stands_alone(&span) || !passes_luhn(number) || is_uniform(number) {
        return None;
    }
    // Numbers of other lengths, and those that are printed otherwise, are too common to be cards
    // by their check digit alone, which one number in ten has.
    let count = digits(number).count();
    let sizes = [15, 16].contains(&count) || is_printed(groups);
    let spelled = groups.iter().all(|group| group.len() == 1);
    let cues = survey.cues(&span);
    let evident = is_issued(number, count) && sizes && !spelled && !cues.is_about(Cue::Other);
    (evident || cues.mentions(Cue::Card)).then_some(span)
}

/// How groups of digits are printed on cards.
const PRINTED: [&[usize]; 5] =
    [&[4, 6, 4], &[4, 6, 5], &[4, 4, 4, 1], &[4, 4, 4, 4], &[4, 4, 4, 4, 3]];

fn is_printed(groups: &[Range<usize>]) -> bool {
    PRINTED.iter().any(|shape| shape.len() == groups.len() && fits(groups, shape))
}

fn fits(groups: &[Range<usize>], shape: &[usize]) -> bool {
    groups.len() >= shape.len() && groups.iter().zip(shape).all(|(group, &len)| group.len() == len)
}

/// How many groups from the first on are divided all alike.
fn joined(survey: &Survey<'_>, groups: &[Range<usize>]) -> usize {
    let (Some(first), Some(second)) = (groups.first(), groups.get(1)) else { return 1 };
    let divider = survey.between(first, second);
    if !is_loose_divider(divider) {
        return 1;
    }
    let pairs = groups.iter().zip(groups.iter().skip(1)).take(18);
    1 + pairs.take_while(|(a, b)| survey.between(a, b) == divider).count()
}

/// How many groups spell out sixteen digits in parts of one length, such as digit by digit.
fn in_equal_parts(groups: &[Range<usize>]) -> Option<usize> {
    let len = groups.first()?.len();
    let count = 16usize.checked_div(len)?;
    let taken = groups.get(..count)?;
    (count * len == 16 && taken.iter().all(|group| group.len() == len)).then_some(count)
}

/// Whether an issuer uses this prefix at this length (the networks' published ranges).
fn is_issued(number: &[u8], count: usize) -> bool {
    let prefix = digits(number).take(4).fold(0u32, |n, d| n * 10 + u32::from(d));
    let lengths: &[usize] = match prefix {
        4000..=4999 => &[13, 16, 19],
        5100..=5599 | 2221..=2720 | 2200..=2204 => &[16],
        3400..=3499 | 3700..=3799 => &[15],
        3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => &[14, 16],
        3528..=3589 | 6011 | 6440..=6599 | 6200..=6299 | 8100..=8171 => &[16, 17, 18, 19],
        5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763 => &[12, 13, 14, 15, 16, 17, 18, 19],
        5000..=5099 | 5600..=5899 | 6000..=6999 | 9792 => &[16],
        1800 | 2131 => &[15],
        _ => &[],
    };
    lengths.contains(&count)
}

/// The check digit of ISO/IEC 7812-1 annex B.
fn passes_luhn(number: &[u8]) -> bool {
    let doubled = |d: u8| if d > 4 { d * 2 - 9 } else { d * 2 };
    let add =
        |sum: u32, (at, d): (usize, u8)| sum + u32::from(if at % 2 == 1 { doubled(d) } else { d });
    digits(number).rev().enumerate().fold(0, add).is_multiple_of(10)
}

/// One digit over and over is nobody's number.
fn is_uniform(number: &[u8]) -> bool {
    let mut all = digits(number);
    all.next().is_none_or(|first| all.all(|d| d == first))
}

#[cfg(test)]
mod tests {
    use super::super::PiiKind;
    use super::super::testing::check;

    #[test]
    fn card_numbers() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Card, text, expected);
        check("4111111111111111", &["4111111111111111"]);
        check("pay 5555-5555-5555-4444 now", &["5555-5555-5555-4444"]);
        check("5555\u{a0}5555\u{a0}5555\u{a0}4444", &["5555\u{a0}5555\u{a0}5555\u{a0}4444"]);
        check("3782 822463 10005, 123", &["3782 822463 10005"]);
        check(
            "4111 1111 1111 1111 123 6011111111111117",
            &["4111 1111 1111 1111", "6011111111111117"],
        );
        check("4111111111111112 1234567812345670 0000000000000000", &[]);
        check("14111111111111111 4111111111111111a 0.4111111111111111", &[]);
        check("41111111111111111111111111", &[]);
        check("4111 1111 1111\n1111", &[]);
        check("4111.1111.1111.1111", &["4111.1111.1111.1111"]);
        check("4111  1111  1111  1111", &["4111  1111  1111  1111"]);
        check("4111 - 1111 - 1111 - 1111", &["4111 - 1111 - 1111 - 1111"]);
        check(
            "4111\u{2009}1111\u{2009}1111\u{2009}1111",
            &["4111\u{2009}1111\u{2009}1111\u{2009}1111"],
        );
        check("4111.1111 1111.1111, v4.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1", &[]);
    }

    #[test]
    fn rare_lengths_and_groupings_need_context() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Card, text, expected);
        check("my card is 501800000009", &["501800000009"]);
        check("id 501800000009", &[]);
        check("Visa 4222222222222", &["4222222222222"]);
        check("EAN 4222222222222", &[]);
        check("card: 4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1!", &["4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"]);
        check("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", &[]);
        check("order 4111111111111111", &[]);
    }
}
