//! The walk over the words of a canonical view, which says where it shows signs of a disguise.

use super::region::Regions;
use super::spelling::{Key, Vocabulary};

/// Letters in a row that stand alone, from which they are a word.
const SINGLES: u32 = 4;

/// Longer words have lost their spaces.
const GLUED: usize = 20;

/// Where a text shows signs of each disguise.
#[derive(Debug, Default)]
pub(in crate::scan) struct Survey {
    /// Digits or signs stand for letters.
    pub(in crate::scan) leet: Regions,
    /// Letters stand alone.
    pub(in crate::scan) spaced: Regions,
    /// Words are broken by hyphens.
    pub(in crate::scan) broken: Regions,
    /// Words have no spaces between them.
    pub(in crate::scan) glued: Regions,
    /// A word is nearly one of the vocabulary.
    pub(in crate::scan) misspelt: Regions,
}

const LETTER: u8 = 1;
const DIGIT: u8 = 2;
const OTHER: u8 = 4;

/// What each byte of a canonical view is in a word; nothing between words.
#[expect(
    clippy::indexing_slicing,
    reason = "the compiler evaluates it, within bounds or not at all"
)]
static KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut b = 0u8;
    loop {
        kinds[b as usize] = match b {
            b'a'..=b'z' => LETTER,
            b'0'..=b'9' => DIGIT,
            0x80.. => OTHER,
            _ => 0,
        };
        if b == u8::MAX {
            break kinds;
        }
        b += 1;
    }
};

/// One word as the walk sees it.
struct Word {
    start: usize,
    end: usize,
    kinds: u8,
    key: Key,
}

/// Looks for signs in a canonical view, and for misspelt words of the vocabulary.
pub(in crate::scan) fn survey(text: &str, vocabulary: Option<&Vocabulary>) -> Survey {
    let mut walk = Walk {
        bytes: text.as_bytes(),
        vocabulary,
        found: Survey::default(),
        singles: 0,
        hyphens: 0,
        weak: 0,
        last_end: 0,
    };
    let (mut start, mut kinds, mut key) = (0, 0, Key::default());
    for (at, &b) in text.as_bytes().iter().enumerate() {
        let kind = KINDS.get(usize::from(b)).copied().unwrap_or_default();
        if kind != 0 {
            kinds |= kind;
            key.push(b);
        } else {
            if start < at {
                walk.word(&Word { start, end: at, kinds, key });
                (kinds, key) = (0, Key::default());
            }
            start = at + 1;
        }
    }
    if start < text.len() {
        walk.word(&Word { start, end: text.len(), kinds, key });
    }
    walk.found
}

/// Whether a word has lost its spaces.
pub(in crate::scan) const fn is_glued(word: &str) -> bool {
    word.len() >= GLUED
}

struct Walk<'w> {
    bytes: &'w [u8],
    vocabulary: Option<&'w Vocabulary>,
    found: Survey,
    /// Letters standing alone so far.
    singles: u32,
    /// How many hyphens there were lately.
    hyphens: u32,
    /// Weak signs of digits as letters so far.
    weak: u32,
    last_end: usize,
}

impl Walk<'_> {
    #[inline]
    fn word(&mut self, word: &Word) {
        let length = word.end - word.start;
        let gap = self.bytes.get(self.last_end..word.start).unwrap_or_default();
        self.last_end = word.end;
        self.single(word, length);
        if gap != b" " {
            self.gap(word, gap);
        } else {
            self.hyphens = self.hyphens.saturating_sub(1 + self.hyphens / 8);
        }
        if length >= 4 {
            self.long(word, length);
        }
        if word.kinds & DIGIT != 0 && word.kinds != DIGIT {
            self.mixed(word);
        }
    }

    fn single(&mut self, word: &Word, length: usize) {
        let alone = length == 1 || (word.kinds == OTHER && length <= 2);
        if !alone {
            self.singles = 0;
            return;
        }
        self.singles += 1;
        if self.singles >= SINGLES {
            self.found.spaced.add(word.start..word.end);
        }
    }

    fn long(&mut self, word: &Word, length: usize) {
        if let Some(vocabulary) = self.vocabulary {
            let text = self.bytes.get(word.start..word.end).unwrap_or_default();
            if vocabulary.misspells(text, &word.key) {
                self.found.misspelt.add(word.start..word.end);
            }
        }
        if length >= GLUED && word.kinds & LETTER != 0 {
            self.found.glued.add(word.start..word.end);
        }
    }

    /// Looks at what stands between two words, where it is not a blank.
    fn gap(&mut self, word: &Word, gap: &[u8]) {
        const MANY: u32 = 24;
        let before = self.bytes.get(word.start.wrapping_sub(gap.len() + 1));
        let joins = before.is_some_and(u8::is_ascii_alphanumeric);
        self.hyphens = match gap {
            [b'-' | b'~' | b'^' | b'*' | b'|', b' '] if joins => self.hyphens + MANY,
            [b'-' | b'~' | b'^' | b'*' | b'|'] if joins => self.hyphens + 8,
            _ => self.hyphens.saturating_sub(1 + self.hyphens / 8),
        };
        if self.hyphens >= MANY {
            self.found.broken.add(word.start..word.end);
            self.hyphens = MANY;
        }
        if joins && matches!(gap, [b'@' | b'$' | b'!' | b'+' | b'|']) {
            self.digit_sign(word, 2);
        } else if matches!(gap.last(), Some(b'@' | b'$' | b'|')) {
            self.digit_sign(word, 1);
        }
    }

    /// Looks at a word of letters and digits.
    fn mixed(&mut self, word: &Word) {
        let bytes = self.bytes.get(word.start..word.end).unwrap_or_default();
        let inner = bytes.windows(3).any(|w| match w {
            [a, b, c] => {
                b.is_ascii_digit()
                    && (a.is_ascii_lowercase() || c.is_ascii_lowercase())
                    && (a.is_ascii_lowercase() == c.is_ascii_lowercase())
            }
            _ => false,
        });
        match bytes {
            _ if inner => self.digit_sign(word, 2),
            [b'0'..=b'9', b'a'..=b'z', b'0'..=b'9' | b'a'..=b'z', ..] if !is_ordinal(bytes) => {
                self.digit_sign(word, 1);
            }
            [b't' | b'd' | b'n' | b'w' | b'b' | b'u' | b'i' | b'y', b'0' | b'3' | b'4' | b'5'] => {
                self.digit_sign(word, 1);
            }
            _ => {}
        }
    }

    fn digit_sign(&mut self, word: &Word, weight: u32) {
        const ENOUGH: u32 = 2;
        self.weak = if weight == 1 { self.weak + 1 } else { self.weak };
        if weight >= ENOUGH || self.weak >= ENOUGH {
            self.found.leet.add(word.start..word.end);
        }
    }
}

/// `1st`, `2nd`, `3rd`, `4th`.
const fn is_ordinal(word: &[u8]) -> bool {
    matches!(word, [_, b's', b't'] | [_, b'n', b'd'] | [_, b'r', b'd'] | [_, b't', b'h'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let survey = survey(text, None);
        let found: Vec<_> = [
            ("leet", &survey.leet),
            ("spaced", &survey.spaced),
            ("broken", &survey.broken),
            ("glued", &survey.glued),
        ]
        .into_iter()
        .filter(|(_, regions)| !regions.is_empty())
        .map(|(name, _)| name)
        .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn signs_are_seen_and_ordinary_text_has_none() {
        check("1gn0re all pr3vious", &["leet"]);
        check("t0 d0 4ll", &["leet"]);
        check("p@ssword", &["leet"]);
        check("i g n o r e all", &["spaced"]);
        check("i.g.n.o.r.e", &["spaced"]);
        check("ig- nore the previ- ous", &["broken"]);
        check("ig-nore pre-vious in-struc-tions", &["broken"]);
        check("ignoreallpreviousinstructions", &["glued"]);
        check("i have a well-known plan b, and 42 items for the 21st of may", &[]);
        check("", &[]);
    }
}
