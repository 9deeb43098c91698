//! Disguises: letters written backwards, rotated, as digits or apart.
//!
//! All of them work on the canonical view and keep its length or shorten it, so that they cost no
//! more than one further reading of the text, and each is tried only where the text shows signs.

/// The letters rotated by 13.
pub(super) fn rot13(text: &str) -> String {
    let turn = |c: char, from: u8| char::from((c as u8 - from + 13) % 26 + from);
    text.chars().map(|c| if c.is_ascii_lowercase() { turn(c, b'a') } else { c }).collect()
}

/// The text read from its end.
pub(super) fn reversed(text: &str) -> String {
    text.chars().rev().collect()
}

/// Each word read from its end, the words in their order.
pub(super) fn words_reversed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(' ') {
        out.extend(word.trim_end_matches(' ').chars().rev());
        out.push(' ');
    }
    out
}

/// Digits and signs read as the letters that they stand for.
pub(super) fn unleet(text: &str) -> String {
    text.chars().map(letter_of).collect()
}

const fn letter_of(c: char) -> char {
    match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '7' | '+' => 't',
        c => c,
    }
}

/// Only the letters and digits: what was spaced, dotted or hyphenated comes together.
pub(super) fn squeezed(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

/// The disguises that a text shows signs of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signs {
    /// Digits stand between letters.
    pub(super) leet: bool,
    /// Letters stand alone, or words are broken by hyphens.
    pub(super) spaced: bool,
}

/// Looks for signs, in one pass over the canonical view, word by word.
pub(super) fn signs(text: &str) -> Signs {
    const LEET: usize = 2;
    const SINGLES: usize = 5;
    const BREAKS: usize = 2;
    let (mut leet, mut singles, mut breaks) = (0, 0, 0);
    let mut seen = Signs::default();
    let mut before = b' ';
    let mut rest = text.as_bytes();
    while let Some(start) = rest.iter().position(u8::is_ascii_lowercase) {
        before = start.checked_sub(1).and_then(|i| rest.get(i)).copied().unwrap_or(before);
        rest = rest.get(start..).unwrap_or_default();
        let length = rest.iter().position(|b| !b.is_ascii_lowercase()).unwrap_or(rest.len());
        rest = rest.get(length..).unwrap_or_default();
        let mut next = rest.iter().copied();
        let (after, second) = (next.next().unwrap_or(b' '), next.next().unwrap_or(b' '));
        leet += usize::from(is_leet(after) && second.is_ascii_lowercase());
        breaks += usize::from(after == b'-' && second == b' ');
        if length > 1 {
            singles = 0;
        } else if !before.is_ascii_alphanumeric() && !after.is_ascii_alphanumeric() {
            singles += 1;
        }
        seen.spaced |= singles >= SINGLES || breaks >= BREAKS;
        before = after;
    }
    seen.leet = leet >= LEET;
    seen
}

const fn is_leet(b: u8) -> bool {
    matches!(b, b'0' | b'1' | b'3' | b'4' | b'5' | b'7' | b'@' | b'$' | b'!')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_disguise_comes_off() {
        for (undo, text, expected) in [
            (rot13 as fn(&str) -> String, "vtaber nyy", "ignore all"),
            (reversed, "lla erongi", "ignore all"),
            (words_reversed, "erongi lla", "ignore all "),
            (unleet, "1gn0r3 4ll", "ignore all"),
            (squeezed, "i g-n.o r e", "ignore"),
        ] {
            assert_eq!(undo(text), expected);
        }
    }

    #[test]
    fn signs_are_seen_and_ordinary_text_has_none() {
        let leet = Signs { leet: true, spaced: false };
        let spaced = Signs { leet: false, spaced: true };
        for (text, expected) in [
            ("1gn0r3 all pr3vious", leet),
            ("i g n o r e all", spaced),
            ("i.g.n.o.r.e", spaced),
            ("ig- nore the previ- ous", spaced),
            ("i have a well-known plan b, and 42 items", Signs::default()),
            ("", Signs::default()),
        ] {
            assert_eq!(signs(text), expected, "{text}");
        }
    }
}
