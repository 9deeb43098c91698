//! Postal addresses: a house number beside the name of a street, in the order of several
//! countries. Streets have no check digit; for policies that ask for them.

use std::ops::Range;
use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

use super::{Detector, Survey};

/// How far an address may stretch to either side of its house number, in bytes.
const WINDOW: usize = 96;

/// A word that begins with a capital, of an alphabet up to Cyrillic, or an abbreviation.
macro_rules! word {
    () => {
        r"(?:[A-Z][a-z]{0,3}\.|[A-Z\xc3-\xd1][A-Za-z\x80-\xd6'-]{0,30})"
    };
}

/// A word of the name of a town, unlike the capitals of a state or a code.
macro_rules! town {
    () => {
        r"[A-Z\xc2-\xf4][a-z\x80-\xff'-]{2,30}"
    };
}

/// What may follow the street: a flat, a town, a state, a code.
macro_rules! rest {
    () => {
        concat!(
            r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|#)\.? ?[0-9A-Za-z]{1,6})?",
            r"(?:,? [0-9]{4,5}(?:-[0-9]{3,4})?)?(?:, ", town!(), r"(?: ", town!(), r"){0,2})?",
            r"(?:,? [A-Z]{2}\b)?(?:,? (?:[0-9]{5}(?:-[0-9]{4})?|[A-Z]{1,2}[0-9][0-9A-Z]? [0-9][A-Z]{2}))?"
        )
    };
}

/// The number first: `12 Baker Street`, `3 bis, rue de la Paix`, `PO Box 12`.
macro_rules! number_first {
    () => {
        concat!(
            r"[0-9]{1,5}[A-Za-z]?(?:-[0-9]{1,5})? (?:(?:[NSEW]|North|South|East|West)\.? )?",
            r"(?:(?:", word!(), r"|[0-9]{1,3}(?:st|nd|rd|th)) ){1,4}",
            r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|",
            r"Square|Sq|Terrace|Ter|Parkway|Pkwy|Highway|Hwy|Circle|Cir|Trail|Trl|Close|Crescent|",
            r"Gardens|Grove|Mews|Row|Alley|Plaza|Loop|Walk|Quay|Cove|Ridge|Pike)\b\.?",
            rest!(),
            r"|[0-9]{1,4}(?: ?(?:bis|ter))?,? (?i:rue|avenue|boulevard|place|chemin|impasse|all\xc3\xa9e|",
            r"quai|cours|route) (?:[a-z']{1,4} ){0,2}", word!(), r"(?: ", word!(), r"){0,2}",
            rest!(),
        )
    };
}

/// The street first: `Hauptstraße 5`, `Calle Mayor, 5`, `via Roma 5`.
macro_rules! street_first {
    () => {
        concat!(
            r"(?:[A-Z\xc2-\xf4][A-Za-z\x80-\xff-]{1,30}(?:stra\xc3\x9fe|strasse|str\.|weg|platz|gasse|",
            r"allee|damm|ufer|straat|laan|plein|gracht|gatan|v\xc3\xa4gen|vej|gade|katu|utca)|",
            r"(?i:calle|avenida|av\.|avda\.|plaza|paseo|via|viale|piazza|corso|largo|rua|travessa|",
            r"ulica|ul\.|al\.|ulice)(?: [a-z]{2,3}){0,2}(?: ", word!(), r"){1,3}|(?i:p\.? ?o\.? box)),?",
            r" (?:n\.?\xc2?\xba? ?)?"
        )
    };
}

pub(super) const ADDRESS: Detector = Detector {
    name: "address",
    placeholder: "[ADDRESS]",
    default: false,
    longest: 2 * WINDOW,
    shape: || {
        concat!(
            r"(?:",
            number_first!(),
            r"|",
            street_first!(),
            r"[0-9]{1,5}[A-Za-z]?",
            rest!(),
            r")[\x00-\xff]"
        )
    },
    find: |survey| survey.at_groups(address),
};

static NUMBER_FIRST: LazyLock<Option<Regex>> =
    LazyLock::new(|| build(concat!("^(?:", number_first!(), ")")));
static STREET_FIRST: LazyLock<Option<Regex>> =
    LazyLock::new(|| build(concat!(r"(?:^|[^A-Za-z\x80-\xff])(", street_first!(), ")$")));
static REST: LazyLock<Option<Regex>> = LazyLock::new(|| build(concat!(r"^[A-Za-z]?\b", rest!())));

fn build(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).unicode(false).build().ok()
}

/// The address whose house number is the first group.
fn address(survey: &Survey<'_>, groups: &[Range<usize>]) -> Option<Range<usize>> {
    let number = groups.first().filter(|group| group.len() <= 5)?;
    let touched = survey
        .previous(number.start)
        .is_some_and(|b| b.is_ascii_alphanumeric() || b".,/-$#".contains(&b));
    if touched {
        return None;
    }
    let window =
        |from: usize| survey.slice(from..from.saturating_add(WINDOW).min(survey.text().len()));
    let spaced = matches!(survey.byte(number.end), Some(b' ' | b',' | b'-'))
        || survey.byte(number.end).is_some_and(|b| b.is_ascii_alphabetic());
    if spaced && let Some(hit) = NUMBER_FIRST.as_ref()?.find(window(number.start)) {
        return Some(number.start..number.start + hit.end());
    }
    if survey.previous(number.start) != Some(b' ') {
        return None;
    }
    let from = number.start.saturating_sub(WINDOW);
    let hit = STREET_FIRST.as_ref()?.captures(survey.slice(from..number.start))?.get(1)?;
    let rest = REST.as_ref()?.find(window(number.end)).map_or(0, |rest| rest.end());
    Some(from + hit.start()..number.end + rest)
}

#[cfg(test)]
mod tests {
    use super::super::PiiKind;
    use super::super::testing::check;

    #[test]
    fn street_addresses() {
        let check = |text: &str, expected: &[&str]| check(PiiKind::Address, text, expected);
        check("at 221B Baker Street, London NW1 6XE.", &["221B Baker Street, London NW1 6XE"]);
        check(
            "1600 Pennsylvania Ave, Washington, DC 20500",
            &["1600 Pennsylvania Ave, Washington, DC 20500"],
        );
        check("12 bis, rue de la Paix, Paris", &["12 bis, rue de la Paix, Paris"]);
        check("in der Hauptstraße 5a, 10115 Berlin", &["Hauptstraße 5a, 10115"]);
        check("Calle Mayor, 5 y", &["Calle Mayor, 5"]);
        check("PO Box 123", &["PO Box 123"]);
        check("5 St. James's Street", &["5 St. James's Street"]);
        check("18, rue du Pré-sous-la-Ferme. Pendant", &["18, rue du Pré-sous-la-Ferme"]);
        check("ב- 1987 שלום Walk", &[]);
        check("5 apples on the street, 3 Ways to Go, in 2005 Main was", &[]);
    }
}
