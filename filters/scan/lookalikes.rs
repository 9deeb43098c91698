//! Characters that pass for others, and characters that cannot be seen.
//!
//! Written from the Unicode charts: the letters of other scripts that print like an ASCII letter
//! (Unicode TS 39 calls them confusables), default-ignorable code points, and the two ways to
//! smuggle ASCII in invisible characters: tags (U+E0020..7E) and variation selectors.

use unicode_normalization::char::{canonical_combining_class, decompose_compatible};

/// Some ligatures unfold into a whole sentence (U+FDFA: 18 letters); nothing needs more than this.
const MAX_UNFOLDED: usize = 4;

/// Hands over the canonical characters of one character that is not ASCII: none if invisible.
pub(super) fn fold(c: char, mut emit: impl FnMut(char)) {
    match unveil(c) {
        None => {}
        Some(c) if is_plain_letter(c) => emit(c),
        Some(c) if c.is_whitespace() || c == '\u{2800}' => emit(' '),
        Some(c @ '\u{249c}'..='\u{24b5}') => emit(shifted(c, 0x249c, 'a').unwrap_or(c)),
        Some(c @ '\u{1f110}'..='\u{1f129}') => emit(shifted(c, 0x1_f110, 'a').unwrap_or(c)),
        Some(c) => unfold(c, emit),
    }
}

/// A visible character as it is, a hidden ASCII one, a full-width or mathematical one and the digits
/// of all scripts as ASCII, nothing for the rest.
pub(super) fn unveil(c: char) -> Option<char> {
    match c {
        '\t'..='\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{ac}' => Some(c),
        '\0'..='\u{9f}' => None,
        '\u{e0020}'..='\u{e007e}' => shifted(c, 0xe_0020, ' '),
        '\u{e0110}'..='\u{e016e}' => shifted(c, 0xe_0110, ' '),
        '\u{ff01}'..='\u{ff5e}' => shifted(c, 0xff01, '!'),
        '\u{300}'..='\u{36f}' | '\u{20d0}'..='\u{20f0}' => None,
        '\u{660}'..='\u{1819}' => Some(ascii_digit(c).unwrap_or(c)).filter(|&c| !is_invisible(c)),
        '\u{2460}'..='\u{2468}' => shifted(c, 0x2460, '1'),
        '\u{24ea}' => Some('0'),
        '\u{1d400}'..='\u{1d7ff}' => mathematical(c),
        c if is_invisible(c) => None,
        c => Some(c),
    }
}

/// The digit that a digit of another script stands for (Unicode, general category Nd).
fn ascii_digit(c: char) -> Option<char> {
    const ZEROS: [char; 18] = [
        '\u{660}', '\u{6f0}', '\u{7c0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}',
        '\u{be6}', '\u{c66}', '\u{ce6}', '\u{d66}', '\u{e50}', '\u{ed0}', '\u{f20}', '\u{1040}',
        '\u{17e0}', '\u{1810}',
    ];
    let last = ZEROS.partition_point(|&zero| zero <= c).checked_sub(1)?;
    let zero = ZEROS.get(last).filter(|&&zero| u32::from(c) - u32::from(zero) < 10)?;
    shifted(c, u32::from(*zero), '0')
}

/// The letter or digit that one of the mathematical alphabets stands for; as it is if it is Greek.
fn mathematical(c: char) -> Option<char> {
    let letter = (u32::from(c) - 0x1_d400) % 52;
    match c {
        '\u{1d400}'..='\u{1d6a3}' if letter < 26 => char::from_u32(letter + u32::from('A')),
        '\u{1d400}'..='\u{1d6a3}' => char::from_u32(letter - 26 + u32::from('a')),
        '\u{1d7ce}'..='\u{1d7ff}' => char::from_digit((u32::from(c) - 0x1_d7ce) % 10, 10),
        c => Some(c),
    }
}

/// The NFKC and lower-case letters of `c` without their marks, look-alikes as ASCII.
fn unfold(c: char, mut emit: impl FnMut(char)) {
    let mut left = MAX_UNFOLDED;
    decompose_compatible(c, |part| {
        for lower in part.to_lowercase().filter(|&c| !is_mark(c)) {
            if left > 0 {
                left -= 1;
                emit(ascii_twin(lower));
            }
        }
    });
}

/// Ideographs and Hangul syllables: the common letters that folding does not change.
const fn is_plain_letter(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}

fn is_mark(c: char) -> bool {
    matches!(c, '\u{20dd}'..='\u{20e4}') || canonical_combining_class(c) != 0
}

const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// `c` moved from an alphabet that starts at `from` to one that starts at `to`.
fn shifted(c: char, from: u32, to: char) -> Option<char> {
    char::from_u32(u32::from(c) - from + u32::from(to))
}

/// The ASCII character that a lower-case character passes for, or itself.
fn ascii_twin(c: char) -> char {
    match c {
        '\u{1f150}'..='\u{1f169}' => shifted(c, 0x1_f150, 'a').unwrap_or(c),
        '\u{1f170}'..='\u{1f189}' => shifted(c, 0x1_f170, 'a').unwrap_or(c),
        '\u{1f1e6}'..='\u{1f1ff}' => shifted(c, 0x1_f1e6, 'a').unwrap_or(c),
        '‘' | '’' | '‚' | '‛' | '′' | 'ʼ' | '´' | '＇' => '\'',
        '“' | '”' | '„' | '‟' | '″' | '«' | '»' | '「' | '」' => '"',
        '‐' | '‑' | '‒' | '–' | '—' | '―' | '−' => '-',
        '‹' | '〈' | '⟨' => '<',
        '›' | '〉' | '⟩' => '>',
        '⁄' | '∕' => '/',
        '∣' | '｜' | 'ǀ' => '|',
        '։' | '∶' => ':',
        '。' => '.',
        c => latin_twin(c),
    }
}

/// Letters of Cyrillic, Greek, Armenian, phonetic and extended Latin, syllabics and currency signs
/// that print like ASCII, and those of braille.
const fn latin_twin(c: char) -> char {
    match c {
        'а' | 'α' | 'ɑ' | 'ᴀ' | 'æ' | 'ⲁ' | 'ꭺ' | 'ⱥ' | 'ᗩ' | '₳' | '⠁' => 'a',
        'в' | 'β' | 'ʙ' | 'ь' | 'ƅ' | 'ᏼ' | 'ƀ' | 'ᗷ' | '฿' | '⠃' => 'b',
        'с' | 'ϲ' | 'ᴄ' | 'ⲥ' | 'ꮯ' | 'ȼ' | 'ᑕ' | '₵' | '⠉' => 'c',
        'ԁ' | 'đ' | 'ð' | 'ɗ' | 'ᴅ' | 'ꭰ' | 'ᗪ' | '⠙' => 'd',
        'е' | 'ε' | 'є' | 'ә' | 'ǝ' | 'ə' | 'ᴇ' | 'ɛ' | 'ꭼ' | 'ɇ' | '⠑' => 'e',
        'ƒ' | 'ꜰ' | 'ẝ' | 'ᖴ' | '₣' | '⠋' => 'f',
        'ɡ' | 'ɢ' | 'ց' | 'ԍ' | 'ǥ' | '₲' | '⠛' => 'g',
        'һ' | 'н' | 'ħ' | 'ʜ' | 'հ' | 'ᕼ' | 'ⱨ' | '⠓' => 'h',
        'і' | 'ι' | 'ı' | 'ɪ' | 'ɩ' | 'ӏ' | 'ɨ' | '⠊' => 'i',
        'ј' | 'ϳ' | 'ᴊ' | 'ȷ' | 'ɉ' | 'ᒍ' | '⠚' => 'j',
        'к' | 'κ' | 'ᴋ' | 'ⲕ' | 'ꝁ' | '₭' | '⠅' => 'k',
        'ł' | 'ʟ' | 'ⅼ' | 'լ' | 'ƚ' | 'ᒪ' | '⠇' => 'l',
        'м' | 'ᴍ' | 'ᗰ' | '₥' | '⠍' => 'm',
        'η' | 'ո' | 'ռ' | 'ɴ' | 'ŋ' | 'п' | 'ᑎ' | '₦' | '⠝' => 'n',
        'о' | 'ο' | 'σ' | 'օ' | 'ø' | 'œ' | 'ᴏ' | 'ⲟ' | '⠕' => 'o',
        'р' | 'ρ' | 'ᴘ' | 'ⲣ' | 'ᑭ' | '₱' | '⠏' => 'p',
        'զ' | 'ԛ' | 'ᑫ' | '⠟' => 'q',
        'ʀ' | 'г' | 'ꮁ' | 'ɍ' | 'ᖇ' | '⠗' => 'r',
        'ѕ' | 'ꜱ' | 'ß' | 'ꮪ' | 'ᔕ' | '₴' | '⠎' => 's',
        'т' | 'τ' | 'ᴛ' | 'ŧ' | 'ⱦ' | '₮' | '⠞' => 't',
        'υ' | 'ս' | 'ᴜ' | 'ʋ' | 'ʉ' | 'ᑌ' | '⠥' => 'u',
        'ν' | 'ѵ' | 'ᴠ' | 'ᐯ' | '⠧' => 'v',
        'ω' | 'ѡ' | 'ԝ' | 'ᴡ' | 'ա' | 'ᗯ' | '₩' | '⠺' => 'w',
        'х' | 'χ' | 'ⲭ' | '᙭' | '⠭' => 'x',
        'у' | 'γ' | 'ү' | 'ʏ' | 'ɏ' | '⠽' => 'y',
        'ᴢ' | 'ȥ' | 'ƶ' | '⠵' => 'z',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> String {
        let mut out = String::new();
        text.chars().for_each(|c| fold(c, |c| out.push(c)));
        out
    }

    #[test]
    fn each_letter_has_its_twin() {
        for (text, expected) in [
            ("ЅУЅТЕМ", "system"),
            ("ρrοmρτ", "prompt"),
            ("ﬁ", "fi"),
            ("łøß", "los"),
            ("İı", "ii"),
            ("⠊⠛⠝⠕⠗⠑", "ignore"),
            ("ᖇᑌᒪES", "rules"),
            ("⒤⒢", "ig"),
        ] {
            assert_eq!(folded(text), expected, "{text}");
        }
    }

    #[test]
    fn unfolding_is_bounded() {
        assert_eq!(folded("\u{fdfa}").chars().count(), MAX_UNFOLDED);
    }

    #[test]
    fn what_cannot_be_seen_is_dropped_or_shown() {
        assert_eq!(unveil('\u{200b}'), None);
        assert_eq!(unveil('\u{e0041}'), Some('A'));
        assert_eq!(unveil('Ａ'), Some('A'));
        assert_eq!(unveil('é'), Some('é'));
        assert_eq!(unveil('\u{301}'), None);
        assert_eq!(unveil('\u{17b4}'), None);
    }

    #[test]
    fn letters_and_digits_of_other_alphabets_are_shown() {
        for (text, expected) in [
            ("٠١٩ ۰۹ ०९ ๐๙ ০৯", "019 09 09 09 09"),
            ("𝐀𝐳𝟎𝟗𝖆𝕫𝟿", "Az09az9"),
            ("⓪①⑨", "019"),
            ("اب 𝛂 ߊ", "اب 𝛂 ߊ"),
        ] {
            let shown: String = text.chars().filter_map(unveil).collect();
            assert_eq!(shown, expected, "{text}");
        }
    }
}
