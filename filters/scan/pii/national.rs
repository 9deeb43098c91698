//! Numbers that a state gives to persons: US social security and taxpayer numbers, and those of
//! the British National Health Service.

use std::ops::Range;

use super::cues::Cue;
use super::survey::{digits, is_loose_divider, number};
use super::{Detector, Survey};

pub(super) const SSN: Detector = Detector {
    name: "ssn",
    placeholder: "[SSN]",
    default: true,
    longest: 17,
    shape: || NINE_DIGITS,
    find: |survey| survey.at_groups(|survey, groups| us_number(survey, groups, Cue::Ssn, is_ssn)),
};

pub(super) const ITIN: Detector = Detector {
    name: "itin",
    placeholder: "[ITIN]",
    default: true,
    longest: 17,
    shape: || NINE_DIGITS,
    find: |survey| survey.at_groups(|survey, groups| us_number(survey, groups, Cue::Itin, is_itin)),
};

pub(super) const NHS: Detector = Detector {
    name: "nhs",
    placeholder: "[NHS]",
    default: true,
    longest: 18,
    shape: || r"[0-9]{3}(?:[ ./-]{1,3}|\xc2\xa0|\xe2\x80[\x80-\xaf]|\xe2\x88\x92)?[0-9]{3}(?:[ ./-]{1,3}|\xc2\xa0|\xe2\x80[\x80-\xaf]|\xe2\x88\x92)?[0-9]{4}[\x00-\xff]",
    find: |survey| survey.at_groups(nhs),
};

const NINE_DIGITS: &str = r"[0-9]{3}(?:[ ./-]{1,3}|\xc2\xa0|\xe2\x80[\x80-\xaf]|\xe2\x88\x92)?[0-9]{2}(?:[ ./-]{1,3}|\xc2\xa0|\xe2\x80[\x80-\xaf]|\xe2\x88\x92)?[0-9]{4}[\x00-\xff]";

/// Nine digits as 3-2-4. Dashes are evidence enough; other forms need their name near.
fn us_number(
    survey: &Survey<'_>,
    groups: &[Range<usize>],
    name: Cue,
    is_valid: fn(u64, u64, u64) -> bool,
) -> Option<Range<usize>> {
    let (span, divider) = divided(survey, groups, &[3, 2, 4])?;
    let value = number(survey.slice(span.clone()));
    if !is_valid(value / 1_000_000, value / 10_000 % 100, value % 10_000) {
        return None;
    }
    let cues = survey.cues(&span);
    let dashed = divider == b"-" && !cues.is_about(Cue::Other) && !continues(survey, &span);
    (dashed || cues.is_about(name)).then_some(span)
}

/// Whether dashes or slashes tie the number to something longer.
fn continues(survey: &Survey<'_>, span: &Range<usize>) -> bool {
    let tie = |b: u8| matches!(b, b'-' | b'/');
    survey.previous(span.start).is_some_and(tie) || survey.byte(span.end) == Some(b'-')
}

/// Social Security Administration, randomised since 2011: no area 000, 666 or 900 and above.
const fn is_ssn(area: u64, group: u64, serial: u64) -> bool {
    let known_example = area == 78 && group == 5 && serial == 1120;
    area != 0 && area != 666 && area < 900 && group != 0 && serial != 0 && !known_example
}

/// IRS: 9xx, with the fourth and fifth digit in the ranges that are given out.
const fn is_itin(area: u64, group: u64, serial: u64) -> bool {
    area >= 900 && matches!(group, 50..=65 | 70..=88 | 90..=92 | 94..=99) && serial != 0
}

/// Ten digits, the last of which checks the others (NHS Data Dictionary).
fn nhs(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let (span, _) = divided(survey, groups, &[3, 3, 4])?;
    let number = survey.slice(span.clone());
    let sum: u32 = digits(number).zip((1..=10).rev()).map(|(d, w)| u32::from(d) * w).sum();
    let distinct = digits(number).any(|d| Some(d) != digits(number).next());
    (distinct && sum.is_multiple_of(11) && survey.cues(&span).is_about(Cue::Nhs)).then_some(span)
}

/// A number of as many digits in one group, or in groups that are divided all alike, and how.
fn divided<'t>(
    survey: &Survey<'t>,
    groups: &[Range<usize>],
    shape: &[usize],
) -> Option<(Range<usize>, &'t [u8])> {
    let first = groups.first()?;
    let whole = first.len() == shape.iter().sum::<usize>();
    let used = groups.get(..if whole { 1 } else { shape.len() })?;
    let divider = used.get(1).map_or(&b""[..], |second| survey.between(first, second));
    let alike = used.iter().zip(used.iter().skip(1)).all(|(a, b)| survey.between(a, b) == divider);
    let fits = whole || used.iter().zip(shape).all(|(group, &len)| group.len() == len);
    let span = first.start..used.last()?.end;
    let divided = whole || is_loose_divider(divider) || divider == b"/";
    (alike && fits && divided && survey.stands_alone(&span)).then_some((span, divider))
}

#[cfg(test)]
mod tests {
    use super::super::PiiKind;
    use super::super::testing::check;

    #[test]
    fn social_security_numbers() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Ssn, text, expected);
        check("536-32-3065", &["536-32-3065"]);
        check("SSN: 536323065, social security 536 32 3065", &["536323065", "536 32 3065"]);
        check("SSN 536.32.3065", &["536.32.3065"]);
        check("ssn: 536 - 32 - 3065", &["536 - 32 - 3065"]);
        check("536323065 and 536 32 3065, 536.32.3065, 536/32/3065", &[]);
        check("000-12-3456 666-12-3456 912-34-5678 536-00-3065 536-32-0000", &[]);
        check("078-05-1120 1536-32-3065 536-32-30651 order 536-32-3065", &[]);
        check("2-536-32-3065 536-32-3065-1", &[]);
    }

    #[test]
    fn taxpayer_numbers() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Itin, text, expected);
        check("912-70-1234", &["912-70-1234"]);
        check("ITIN 912701234", &["912701234"]);
        check("Taxpayer ID 912 70 1234", &["912 70 1234"]);
        check("912701234 912-69-1234 536-32-3065", &[]);
    }

    #[test]
    fn health_service_numbers() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Nhs, text, expected);
        check("NHS number 943 476 5919", &["943 476 5919"]);
        check("NHS 9434765919; patient 401-023-2137", &["9434765919", "401-023-2137"]);
        check("943 476 5919, NHS 943 476 5918", &[]);
    }
}
