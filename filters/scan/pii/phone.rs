//! Telephone numbers: international ones by their country code, national ones by the way they are
//! printed, and bare digits only where the text says that they are a telephone number.

use std::ops::Range;

use super::cues::Cue;
use super::survey::{is_divider, number};
use super::{Detector, Survey};

/// Digits of an international number at most, and of any number that somebody has (E.164).
const MAX_DIGITS: usize = 15;
const MIN_DIGITS: usize = 6;

/// Groups that a number is printed in at most.
const MAX_GROUPS: usize = 8;

pub(super) const PHONE: Detector = Detector {
    name: "phone",
    placeholder: "[PHONE]",
    default: true,
    longest: 112,
    shape: || {
        concat!(
            r"[+(]{0,3}[0-9](?:(?:[ ./()-]|\xc2\xa0|\xe2\x80[\x91\x93\xaf]){0,5}[0-9]){0,14}",
            r"(?: ?(?i:x|ext\.?|extension) ?[0-9]{0,6})?",
            r"(?:[ (/-]{1,3}[A-Za-z]{0,12})?[\x00-\xff]"
        )
    },
    find: |survey| survey.at_groups(phone),
};

/// A number that may be one: groups of digits that are divided as in telephone numbers.
struct Candidate<'s, 't> {
    survey: &'s Survey<'t>,
    groups: &'s [Range<usize>],
    start: usize,
    plus: bool,
    paren: bool,
    /// More digits follow than a telephone number can have.
    overlong: bool,
}

fn phone(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let candidate = Candidate::at(survey, groups)?;
    let used = candidate.used()?;
    let end = candidate.end(groups, used)?;
    candidate.ends_there(end).then_some(candidate.start..end)
}

impl<'s, 't> Candidate<'s, 't> {
    /// Joins the first group with those that follow it.
    fn at(survey: &'s Survey<'t>, groups: &'s [Range<usize>]) -> Option<Self> {
        let first = groups.first()?;
        let before = survey.slice(first.start.saturating_sub(2)..first.start);
        let opening = match before {
            [b'(', b'+'] | [b'+', b'('] => 2,
            [.., b'+' | b'('] => 1,
            _ => 0,
        };
        let start = first.start - opening;
        let marks = survey.slice(start..first.start);
        let (joined, overlong) = joined(survey, groups);
        let groups = groups.get(..joined)?;
        let plus = marks.contains(&b'+');
        let this = Self { survey, groups, start, plus, paren: opening == 1 && !plus, overlong };
        this.begins_here().then_some(this)
    }

    /// Whether nothing before the number makes it a part of something else.
    fn begins_here(&self) -> bool {
        let previous = self.survey.previous(self.start);
        let tied = |b: u8| b.is_ascii_alphanumeric() || b"_-./=#@%&$+*\\^~<".contains(&b);
        // An escape such as `\n` in a quoted text is not a letter.
        let escape = self.survey.slice(self.start.saturating_sub(2)..self.start);
        let field = previous == Some(b'=') && self.cues().is_about(Cue::Phone);
        previous.is_none_or(|b| !tied(b)) || matches!(escape, [b'\\', b'n' | b't' | b'r']) || field
    }

    /// How many groups belong to the number, if it is one.
    fn used(&self) -> Option<usize> {
        if self.plus {
            return self.international();
        }
        if self.overlong && self.groups.len() == 1 || self.len_of(self.groups.len()) < MIN_DIGITS {
            return None;
        }
        if self.is_something_else() {
            return None;
        }
        let cues = self.cues();
        if let Some(used) = self.american(cues.is_about(Cue::Phone)) {
            return Some(used).filter(|_| cues.allows(Cue::Phone));
        }
        let whole = self.groups.len();
        let printed = self.is_national() && cues.allows(Cue::Phone);
        (!self.overlong && (printed || self.is_named())).then_some(whole)
    }

    fn cues(&self) -> super::cues::Cues {
        let last = self.groups.last().map_or(self.start, |group| group.end);
        self.survey.cues(&(self.start..last))
    }

    /// `+` and a country code that is given out.
    fn international(&self) -> Option<usize> {
        let digits: Vec<u8> = self.digits().collect();
        let code = digits.iter().take(3).fold(0u32, |n, &d| n * 10 + u32::from(d));
        let american = digits.first() == Some(&1);
        let limit = if american { 11 } else { MAX_DIGITS };
        let used = self.groups_within(limit);
        let count = self.len_of(used);
        let least = if used > 1 { 8 } else { 9 };
        (is_country(code) && count >= least && (!american || count == 11)).then_some(used)
    }

    /// Three, three and four digits as in North America, after `1` or nothing.
    fn american(&self, named: bool) -> Option<usize> {
        let prefixed = self.value(0).is_some_and(|n| n == 1) && self.groups.len() > 3;
        let skip = usize::from(prefixed);
        let taken = self.groups.get(skip..skip + 3)?;
        let [area, exchange, line] = taken else { return None };
        let fits = area.len() == 3 && exchange.len() == 3 && line.len() == 4;
        let (a, b) = (self.survey.between(area, exchange), self.survey.between(exchange, line));
        let closed = matches!(a, b") " | b")" | b")-" | b").");
        let alike = closed || a == b;
        let divided = b == b"." || is_divider(b);
        let valid = |at: usize| self.value(at).is_some_and(|n| n >= 200);
        let known = closed || named || prefixed || (valid(skip) && valid(skip + 1));
        (fits && alike && divided && known).then_some(skip + 3)
    }

    /// A trunk prefix or an area code in brackets, and groups of two to five digits; or an
    /// international number as it is dialled.
    fn is_national(&self) -> bool {
        let Some(first) = self.groups.first() else { return false };
        let (count, total) = (self.groups.len(), self.len_of(self.groups.len()));
        let even = self.groups.iter().skip(1).all(|group| (2..=8).contains(&group.len()));
        let leads = self.survey.byte(first.start) == Some(b'0');
        let dialled = self.survey.slice(first.clone()).starts_with(b"00");
        let code = self.digits().skip(2).take(3).fold(0u32, |n, d| n * 10 + u32::from(d));
        if dialled {
            return is_country(code) && count >= 3 && (10..=MAX_DIGITS).contains(&total);
        }
        let bracketed = self.paren && self.survey.byte(first.end) == Some(b')');
        let year = first.len() == 4 && self.value(0).is_some_and(|n| (1800..2100).contains(&n));
        let grouped = count >= 3 || (count == 2 && first.len() >= 3 && total >= 10);
        let trunk = leads && grouped && (9..=12).contains(&total) && (2..=5).contains(&first.len());
        let area =
            bracketed && !year && (2..=5).contains(&first.len()) && (8..=12).contains(&total);
        even && (trunk || area)
    }

    /// Whether the text says that this is a telephone number, before or after it.
    fn is_named(&self) -> bool {
        let cues = self.cues();
        let total = self.len_of(self.groups.len());
        let least = if self.groups.len() >= 3 { MIN_DIGITS } else { MIN_DIGITS + 1 };
        let grouped = self.groups.len() >= 2 || total >= 10;
        let named = cues.is_about(Cue::Phone)
            || cues.is_followed_by(Cue::Phone)
            || (grouped
                && cues.allows(Cue::Phone)
                && (cues.mentions(Cue::Reach) || cues.is_followed_by(Cue::Desk)));
        let even = self.groups.iter().skip(1).all(|group| group.len() >= 2);
        named && even && (least..=MAX_DIGITS).contains(&total)
    }

    /// Dates, ranges of years, IP addresses, and social security numbers.
    fn is_something_else(&self) -> bool {
        let lens = || self.groups.iter().map(Range::len);
        let year = |at: usize| self.value(at).is_some_and(|n| (1800..2100).contains(&n));
        let slashed = |pair: &[Range<usize>]| {
            pair.first().zip(pair.get(1)).is_some_and(|(a, b)| self.survey.between(a, b) == b"/")
        };
        let mut first = lens();
        let date = match (first.next(), first.next(), first.next()) {
            (Some(4), Some(1..=2), Some(1..=2)) => year(0),
            (Some(1..=2), Some(1..=2), Some(4)) => year(2),
            (Some(1..=2), Some(1..=2), Some(2)) => {
                self.groups.len() == 3 && self.groups.windows(2).all(slashed)
            }
            (Some(4), Some(4), None) => year(0) && year(1),
            _ => false,
        };
        let dot = |pair: &[Range<usize>]| {
            pair.first().zip(pair.get(1)).is_some_and(|(a, b)| self.survey.between(a, b) == b".")
        };
        let dotted = self.groups.len() == 4 && self.groups.windows(2).all(dot);
        let address = dotted && lens().all(|len| len <= 3);
        let ssn = lens().eq([3, 2, 4]);
        date || address || ssn
    }

    /// The end of the number, with its extension.
    fn end(&self, groups: &[Range<usize>], used: usize) -> Option<usize> {
        let last = groups.get(used.checked_sub(1)?)?;
        let extension = groups.get(used).filter(|next| {
            let between = self.survey.between(last, next).to_ascii_lowercase();
            next.len() <= 6 && is_extension_mark(&between)
        });
        Some(extension.unwrap_or(last).end)
    }

    fn ends_there(&self, end: usize) -> bool {
        let next = self.survey.byte(end);
        let tied = |b: u8| b.is_ascii_alphanumeric() || b"_%@=".contains(&b);
        next.is_none_or(|b| !tied(b))
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.groups.iter().flat_map(|group| super::survey::digits(self.survey.slice(group.clone())))
    }

    fn value(&self, at: usize) -> Option<u64> {
        self.groups.get(at).map(|group| number(self.survey.slice(group.clone())))
    }

    fn len_of(&self, used: usize) -> usize {
        self.groups.iter().take(used).map(Range::len).sum()
    }

    /// How many groups have at most so many digits together.
    fn groups_within(&self, limit: usize) -> usize {
        (1..=self.groups.len()).rev().find(|&used| self.len_of(used) <= limit).unwrap_or(0)
    }
}

/// How many groups from the first on are divided as in telephone numbers, and whether more digits
/// follow than fit.
fn joined(survey: &Survey<'_>, groups: &[Range<usize>]) -> (usize, bool) {
    let pairs = groups.iter().zip(groups.iter().skip(1)).take(MAX_GROUPS - 1);
    let chain = 1 + pairs.take_while(|(a, b)| is_joint(survey.between(a, b))).count();
    let total = |used: usize| groups.iter().take(used).map(Range::len).sum::<usize>();
    let used = (1..=chain).rev().find(|&used| total(used) <= MAX_DIGITS).unwrap_or(1);
    (used, used < chain || total(used) > MAX_DIGITS)
}

/// What divides the groups of a telephone number.
fn is_joint(between: &[u8]) -> bool {
    is_divider(between)
        || matches!(
            between,
            b"." | b"/"
                | b")"
                | b") "
                | b")-"
                | b")."
                | b"("
                | b" ("
                | b"-("
                | b" - "
                | b" / "
                | b") ("
                | b")("
                | b".("
                | b") - "
        )
}

fn is_extension_mark(between: &[u8]) -> bool {
    let word = between.trim_ascii().trim_ascii_start();
    between.len() <= 12
        && matches!(word, b"x" | b"ext" | b"ext." | b"extension" | b", ext" | b", ext.")
}

/// Country codes as they are given out (ITU-T E.164 annex), by the first three digits.
const fn is_country(code: u32) -> bool {
    matches!(code / 100, 1 | 7)
        || matches!(
            code / 10,
            20 | 27 | 30..=34 | 36 | 39 | 40 | 41 | 43..=49 | 51..=58 | 60..=66 | 81 | 82 | 84 | 86
                | 90..=95 | 98
        )
        || matches!(
            code,
            211..=213 | 216 | 218 | 220..=269 | 290 | 291 | 297..=299 | 350..=359 | 370..=389
                | 420 | 421 | 423 | 500..=509 | 590..=599 | 670..=692 | 800 | 808 | 850 | 852
                | 853 | 855 | 856 | 870 | 878 | 880..=883 | 886 | 888 | 960..=979 | 992..=998
        )
}

#[cfg(test)]
mod tests {
    use super::super::PiiKind;
    use super::super::testing::check;

    #[test]
    fn international_numbers() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Phone, text, expected);
        check("+14155552671", &["+14155552671"]);
        check("+1 (415) 555-2671.", &["+1 (415) 555-2671"]);
        check("+44 20 7946 0958, +33 6 12 34 56 78", &["+44 20 7946 0958", "+33 6 12 34 56 78"]);
        check("tel:+41 (0)69 979 80 58 -Fax", &["+41 (0)69 979 80 58"]);
        check("(+49) 30 901820", &["(+49) 30 901820"]);
        check("00 49 30 901820", &["00 49 30 901820"]);
        check("+99912345678 a+14155552671 x = 1+123456789 +12345", &[]);
    }

    #[test]
    fn national_numbers() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Phone, text, expected);
        check("(415) 555-2671", &["(415) 555-2671"]);
        check("415-555-2671 or 415.555.2671x12", &["415-555-2671", "415.555.2671x12"]);
        check("1-800-555-0199 ext. 42", &["1-800-555-0199 ext. 42"]);
        check("01.84.17.61.18", &["01.84.17.61.18"]);
        check("0660 565 36 45, 07700 900123", &["0660 565 36 45", "07700 900123"]);
        check("(084) 7564-8830", &["(084) 7564-8830"]);
        check("Nature 521 (2015) 436-4447, 12-415-555-2671, 015-555-2671-1", &[]);
        check("2024-01-02 10:30, 01.02.2024 1200, 192.168.10.12, 536-32-3065", &[]);
        check("en contact depuis le 27/10/75", &[]);
        check("order 415-555-2671, $415.555.2671, v415.555.2671, id=415-555-2671", &[]);
    }

    #[test]
    fn bare_digits_need_a_word_for_it() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Phone, text, expected);
        check("Phone:\n780 6326", &["780 6326"]);
        check("call me on 92 34 70", &["92 34 70"]);
        check("{\"phone\": 4155552671}", &["4155552671"]);
        check("phone=4155552671", &["4155552671"]);
        check("2546712361 fax", &["2546712361"]);
        check("手机13912345678。", &["13912345678"]);
        check("7806326, 780 6326, phone 12, call 911, in 2005-2010", &[]);
    }
}
