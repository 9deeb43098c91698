//! Papers: passports and driving licences. Every country numbers them its own way, so that only
//! the words before it make a number one.

use std::ops::Range;

use super::cues::Cue;
use super::{Detector, Survey};

/// Longest run of letters and digits that is read.
const MAX_RUN: usize = 24;

pub(super) const PASSPORT: Detector = Detector {
    name: "passport",
    placeholder: "[PASSPORT]",
    default: true,
    longest: 16,
    shape: || r"[0-9A-Za-z](?:[ -]?[0-9A-Za-z]){0,11}[\x00-\xff]",
    find: |survey| survey.at_groups(passport),
};

pub(super) const DRIVER_LICENSE: Detector = Detector {
    name: "driver_license",
    placeholder: "[DRIVER_LICENSE]",
    default: true,
    longest: 48,
    shape: || r"[0-9A-Za-z-]{1,24}(?: [0-9]{2,5}){0,5}[\x00-\xff]",
    find: |survey| survey.at_groups(licence),
};

/// Six to ten letters and digits (ICAO Doc 9303 has nine), or a series and a number.
fn passport(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let span =
        series(survey, groups).or_else(|| token(survey, groups, u8::is_ascii_alphanumeric))?;
    let size = survey.slice(span.clone()).iter().filter(|b| b.is_ascii_alphanumeric()).count();
    let fits = (6..=10).contains(&size) && is_numbered(survey.slice(span.clone()));
    (fits && survey.cues(&span).is_about(Cue::Passport)).then_some(span)
}

/// Four digits of series and six of number, as in Russia and its neighbours, or two letters of
/// series, as in Italy and Ukraine.
fn series(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let first = groups.first()?;
    let sizes = |sizes: &[usize]| {
        let used = groups.get(..sizes.len())?;
        let fits = used.iter().zip(sizes).all(|(group, &len)| group.len() == len);
        let mut pairs = used.iter().zip(used.iter().skip(1));
        let spaced = pairs.all(|(a, b)| survey.between(a, b) == b" ");
        (fits && spaced).then(|| first.start..used.last().map_or(first.end, |last| last.end))
    };
    let lettered = || {
        let before = survey.slice(first.start.saturating_sub(4)..first.start);
        let [outside, a @ b'A'..=b'Z', b @ b'A'..=b'Z', b' '] = before else { return None };
        let word = matches!([*a, *b], [b'N', b'O' | b'R'] | [b'I', b'D']);
        let fits = (6..=7).contains(&first.len()) && !outside.is_ascii_alphanumeric() && !word;
        fits.then(|| first.start - 3..first.end)
    };
    let span = sizes(&[4, 6]).or_else(|| sizes(&[2, 2, 6])).or_else(lettered)?;
    survey.stands_alone(&span).then_some(span)
}

/// Five to twenty-four letters, digits and dashes, and groups of digits after it.
fn licence(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let token = token(survey, groups, |b| b.is_ascii_alphanumeric() || *b == b'-')?;
    let mut end = token.end;
    for group in groups.iter().filter(|group| group.start >= token.end).take(5) {
        let joined = survey.slice(end..group.start) == b" " && (2..=5).contains(&group.len());
        if !joined {
            break;
        }
        end = group.end;
    }
    let span = token.start..end;
    let text = survey.slice(span.clone());
    let least = if text.iter().all(u8::is_ascii_digit) { 6 } else { 5 };
    let fits = text.len() >= least && (is_numbered(text) || is_lettered(text));
    (fits && survey.cues(&token).is_about(Cue::Licence)).then_some(span)
}

/// The run around the first group.
fn token(
    survey: &Survey<'_>,
    groups: &[Range<usize>],
    belongs: impl Fn(&u8) -> bool,
) -> Option<Range<usize>> {
    let run = survey.run(groups.first()?.start, MAX_RUN, |b| belongs(&b))?;
    let inner = survey.slice(run.clone());
    let dashes = inner.iter().take_while(|&&b| b == b'-').count();
    let span = run.start + dashes..run.end - inner.iter().rev().take_while(|&&b| b == b'-').count();
    let outside = |b: u8| !matches!(b, b'_' | b'/' | b'@');
    let alone = survey.previous(span.start).is_none_or(|b| outside(b) && b != b'.');
    (alone && survey.byte(span.end).is_none_or(outside)).then_some(span)
}

/// Letters with a few digits, as in the State of Washington.
fn is_lettered(text: &[u8]) -> bool {
    let digits = text.iter().filter(|b| b.is_ascii_digit()).count();
    let known = text.iter().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
    text.len() >= 10 && digits == 3 && known
}

/// Whether enough of it are digits, and it is neither a word nor a date.
fn is_numbered(text: &[u8]) -> bool {
    let digits = text.iter().filter(|b| b.is_ascii_digit()).count();
    let mixed = text.iter().any(u8::is_ascii_lowercase) && text.iter().any(u8::is_ascii_uppercase);
    let date = text.len() == 10 && text.iter().filter(|&&b| b == b'-').count() == 2 && digits == 8;
    digits >= 4 && !mixed && !date
}

#[cfg(test)]
mod tests {
    use super::super::PiiKind;
    use super::super::testing::check;

    #[test]
    fn passports() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Passport, text, expected);
        check("passport number: X1234567.", &["X1234567"]);
        check("Reisepassnummer C01X00T47", &["C01X00T47"]);
        check("паспорт 4510 123456", &["4510 123456"]);
        check("护照号码E12345678", &["E12345678"]);
        check("X1234567, a passport of 2024, passport expires 2024-01-02", &[]);
        check("passport no. AB 123456", &["AB 123456"]);
        check("паспорт 45 10 123456", &["45 10 123456"]);
        check("passport.order 1234567", &[]);
    }

    #[test]
    fn licences() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::DriverLicense, text, expected);
        check("My driver's license number is 2270-66-1551", &["2270-66-1551"]);
        check("driving licence MORGA657054SM9IJ", &["MORGA657054SM9IJ"]);
        check("DL: 123 456 789", &["123 456 789"]);
        check("Führerschein B072RRE2I55", &["B072RRE2I55"]);
        check("DL# WDLABCD456DG", &["WDLABCD456DG"]);
        check("ETH_P_DL: u32 = 24577", &[]);
        check("D1234567, my driver's license expires in 2027", &[]);
        check("phone or driver's license? phone 4155552671", &[]);
    }
}
