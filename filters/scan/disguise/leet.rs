//! Digits and signs in the place of letters.

/// Digits and signs read as the letters that they look like.
pub(in crate::scan) fn unleet(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let last = out.chars().next_back().unwrap_or(' ');
        out.push(match c {
            '1' | '|' => one(last, chars.peek().copied().map_or(' ', plain)),
            '!' if chars.peek().is_none_or(|next| !next.is_ascii_alphanumeric()) => '!',
            c => plain(c),
        });
    }
    out
}

/// What a digit or sign stands for, whatever is beside it.
const fn plain(c: char) -> char {
    match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '2' => 'z',
        '3' | '€' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '6' | '9' => 'g',
        '7' | '+' => 't',
        '8' => 'b',
        '¢' => 'c',
        '£' => 'l',
        '¥' => 'y',
        c => c,
    }
}

/// A stroke is an `l` beside another one, between vowels, and between a vowel and the end of a
/// word or what an `l` often stands before; otherwise it is an `i`.
const fn one(last: char, next: char) -> char {
    match (last, next) {
        ('l', _) | ('a' | 'e' | 'u', 'i' | 'l') => 'l',
        (a, b) if is_vowel(a) && is_vowel(b) => 'l',
        (a, b) if is_vowel(a) && (!b.is_ascii_lowercase() || matches!(b, 'y' | 'd' | 'f')) => 'l',
        (' ' | 'p' | 'b' | 'c' | 'f', b) if is_vowel(b) => 'l',
        ('p', 'y') => 'l',
        _ => 'i',
    }
}

const fn is_vowel(c: char) -> bool {
    matches!(c, 'a' | 'e' | 'i' | 'o' | 'u')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_letters() {
        for (text, expected) in [
            ("1gn0r3 4ll", "ignore all"),
            ("19nore a11 previ0us in5truct10n5", "ignore all previous instructions"),
            ("$y$t3m pr0mp+!", "system prompt!"),
            ("foll0w ru1es, reve4l", "follow rules, reveal"),
            ("w1ll 1 comp1y? p1ease", "will i comply? please"),
        ] {
            assert_eq!(unleet(text), expected);
        }
    }
}
