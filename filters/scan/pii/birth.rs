//! Dates of birth: dates that the text calls so.

use std::ops::Range;

use super::cues::Cue;
use super::survey::number;
use super::{Detector, Survey};

/// Bytes between the day and the year where the month is a word.
const MAX_MONTH: usize = 24;

pub(super) const DATE_OF_BIRTH: Detector = Detector {
    name: "date_of_birth",
    placeholder: "[DATE_OF_BIRTH]",
    default: false,
    longest: 48,
    shape: || {
        concat!(
            r"(?:[A-Za-z\x80-\xff]{3,16}\.? )?[0-9]{1,4}",
            r"(?:[ ,./A-Za-z\x80-\xff-]{1,24}[0-9]{0,4}){0,2}(?:\xe6\x97\xa5|\xec\x9d\xbc)?[\x00-\xff]"
        )
    },
    find: |survey| survey.at_groups(birth),
};

fn birth(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let span = date(survey, groups)?;
    let outside = |b: u8| !b.is_ascii_alphanumeric();
    let alone = survey.byte(span.end).is_none_or(outside)
        && survey.previous(span.start).is_none_or(outside);
    (alone && survey.cues(&span).is_about(Cue::Birth)).then_some(span)
}

/// The date that begins with the first group, or with the month before it.
fn date(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    numeric(survey, groups).or_else(|| worded(survey, groups)).or_else(|| compact(survey, groups))
}

/// Year, month and day in one, as in `19680920`.
fn compact(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let all = groups.first().filter(|group| group.len() == 8)?;
    let value = number(survey.slice(all.clone()));
    let (year, month, day) = (value / 10_000, value / 100 % 100, value % 100);
    (is_year(year) && (1..=12).contains(&month) && is_day(day)).then(|| all.clone())
}

/// Three numbers, divided all alike by a mark or as in East Asia.
fn numeric(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let [a, b, c] = groups.get(..3)? else { return None };
    let (one, two) = (survey.between(a, b), survey.between(b, c));
    let marked = matches!(one, b"-" | b"/" | b"." | b". " | b" / " | b" ") && one == two;
    let text = |group: &Range<usize>| number(survey.slice(group.clone()));
    let (x, y, z) = (text(a), text(b), text(c));
    let east = matches!(one, [0xe5, 0xb9, 0xb4, ..]) || matches!(one, [0xeb, 0x85, 0x84, ..]);
    let year_first = a.len() == 4 && is_year(x) && is_day(y) && is_day(z);
    let short = c.len() == 2 && matches!(one, b"-" | b"/" | b".");
    let year_last = is_day(x) && is_day(y) && (short || (c.len() == 4 && is_year(z)));
    let sizes = a.len() <= 4 && b.len() <= 2 && c.len() <= 4;
    let end = if east { c.end + 3 } else { c.end };
    let fits = sizes && ((marked && (year_first || year_last)) || (east && year_first));
    (fits && end <= survey.text().len()).then_some(a.start..end)
}

/// A day, the name of a month and a year, or the month first.
fn worded(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let [day, year] = groups.get(..2)? else { return None };
    let full = year.len() == 4 && is_year(number(survey.slice(year.clone())));
    let dated =
        is_day(number(survey.slice(day.clone()))) && day.len() <= 2 && (full || year.len() == 2);
    let between = survey.between(day, year);
    if !dated || between.len() > MAX_MONTH {
        return None;
    }
    if between.iter().filter(|b| is_letter(**b)).count() >= 3 {
        let plain = between.iter().all(|&b| is_letter(b) || b" .,-".contains(&b));
        return plain.then_some(day.start..year.end);
    }
    let comma = matches!(between, b", " | b" " | b"," | b"th, " | b"st, " | b"nd, " | b"rd, ");
    let month = month_before(survey, day.start).filter(|_| comma)?;
    Some(month..year.end)
}

/// Where the word before the day begins.
fn month_before(survey: &Survey<'_>, day: usize) -> Option<usize> {
    let before = survey.slice(day.saturating_sub(MAX_MONTH)..day);
    let gap = before.iter().rev().take_while(|&&b| b == b' ' || b == b'.').count();
    let letters = before.iter().rev().skip(gap).take_while(|&&b| is_letter(b)).count();
    ((1..=2).contains(&gap) && (3..=16).contains(&letters)).then(|| day - gap - letters)
}

const fn is_letter(b: u8) -> bool {
    b.is_ascii_alphabetic() || b >= 0x80
}

fn is_day(n: u64) -> bool {
    (1..=31).contains(&n)
}

fn is_year(n: u64) -> bool {
    (1900..=2035).contains(&n)
}

#[cfg(test)]
mod tests {
    use super::super::PiiKind;
    use super::super::testing::check;

    #[test]
    fn dates_of_birth() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::DateOfBirth, text, expected);
        check("born on 9/20/1968.", &["9/20/1968"]);
        check("DOB: 1968-09-20", &["1968-09-20"]);
        check("geboren am 20. September 1968", &["20. September 1968"]);
        check("date of birth: September 20, 1968", &["September 20, 1968"]);
        check("née le 20/09/68", &["20/09/68"]);
        check("fecha de nacimiento: 20 de septiembre de 1968", &["20 de septiembre de 1968"]);
        check("出生日期1968年9月20日。", &["1968年9月20日"]);
        check("DOB 9/20/68, dob: 19680920", &["9/20/68", "19680920"]);
        check("born 20 Sep 68", &["20 Sep 68"]);
        check("since 9/20/1968, born in 1968, born 40/40/1968, born 1.2.3", &[]);
        check("born 1968; died 15 october 1990", &[]);
        check("born here; invoice of 9/20/1968", &[]);
    }
}
