//! International Morse code (ITU-R M.1677-1).

use super::runs::{joins_morse, runs};
use super::{Decoded, is_text};

/// Fewer letters make no phrase.
const MIN_LETTERS: usize = 8;

/// Letters, digits and signs by their code: a bit for each mark, dashes set, below a leading one.
#[rustfmt::skip]
const CODES: [(u16, char); 49] = [
    (0b101, 'a'), (0b11000, 'b'), (0b11010, 'c'), (0b1100, 'd'), (0b10, 'e'), (0b10010, 'f'),
    (0b1110, 'g'), (0b10000, 'h'), (0b100, 'i'), (0b10111, 'j'), (0b1101, 'k'), (0b10100, 'l'),
    (0b111, 'm'), (0b110, 'n'), (0b1111, 'o'), (0b10110, 'p'), (0b11101, 'q'), (0b1010, 'r'),
    (0b1000, 's'), (0b11, 't'), (0b1001, 'u'), (0b10001, 'v'), (0b1011, 'w'), (0b11001, 'x'),
    (0b11011, 'y'), (0b11100, 'z'), (0b111111, '0'), (0b101111, '1'), (0b100111, '2'),
    (0b100011, '3'), (0b100001, '4'), (0b100000, '5'), (0b110000, '6'), (0b111000, '7'),
    (0b111100, '8'), (0b111110, '9'), (0b1010101, '.'), (0b1110011, ','), (0b1001100, '?'),
    (0b1011110, '\''), (0b1101011, '!'), (0b110010, '/'), (0b110110, '('), (0b1101101, ')'),
    (0b1111000, ':'), (0b110001, '='), (0b1100001, '-'), (0b1010010, '"'), (0b1011010, '@'),
];

/// What a character means in Morse code.
enum Mark {
    Dot,
    Dash,
    Blank,
    WordGap,
}

const fn mark(c: char) -> Option<Mark> {
    match c {
        '.' | '*' | '·' | '•' | '∙' | '●' | '⋅' | '・' | '˙' => Some(Mark::Dot),
        '-' | '_' | '–' | '—' | '−' | '‐' | '‑' | '‒' | '―' | 'ー' => {
            Some(Mark::Dash)
        }
        ' ' => Some(Mark::Blank),
        '/' | '|' | '\n' | '\t' => Some(Mark::WordGap),
        _ => None,
    }
}

/// Runs of Morse code in ASCII.
pub(super) fn decode(text: &str) -> Vec<Decoded> {
    let letters = |span| Some(Decoded { text: read(text.get(Clone::clone(&span))?)?, span });
    runs(text, joins_morse).filter_map(letters).collect()
}

/// Runs of Morse code whose dots or dashes are not ASCII.
pub(super) fn decode_dressed(text: &str) -> impl Iterator<Item = Decoded> {
    let dressed = |run: &&str| run.chars().filter(|c| !c.is_ascii()).nth(MIN_LETTERS - 1).is_some();
    let runs = text.split(|c| mark(c).is_none()).filter(dressed);
    runs.filter_map(|run| read(run.trim()).map(|decoded| Decoded::of_all(text, decoded)))
}

fn read(run: &str) -> Option<String> {
    let mut writer = Writer { out: String::new(), code: 1, blanks: 0, slashes: run.contains('/') };
    for c in run.chars() {
        writer.read(mark(c)?);
    }
    writer.letter();
    let letters = writer.out.bytes().filter(u8::is_ascii_alphabetic).count();
    let first = writer.out.bytes().find(u8::is_ascii_alphabetic);
    let varied = writer.out.bytes().any(|b| b.is_ascii_alphabetic() && Some(b) != first);
    let good = letters >= MIN_LETTERS && letters * 2 >= writer.out.len() && varied;
    (good && is_text(writer.out.as_bytes())).then(|| writer.out.trim_end().to_owned())
}

struct Writer {
    out: String,
    code: u16,
    /// Blanks since the last mark.
    blanks: u8,
    /// Where slashes stand between words, two blanks in a row are around a sign without a code.
    slashes: bool,
}

impl Writer {
    fn read(&mut self, mark: Mark) {
        match mark {
            Mark::Dot => self.mark(0),
            Mark::Dash => self.mark(1),
            Mark::Blank => {
                self.letter();
                self.blanks = self.blanks.saturating_add(1);
                match (self.blanks, self.slashes) {
                    (2.., true) => self.unknown(),
                    (2, false) => self.space(),
                    _ => {}
                }
            }
            Mark::WordGap => {
                self.letter();
                self.space();
                self.blanks = 0;
            }
        }
    }

    /// A sign that has no code: most often it opens a quotation before a word, and is a colon
    /// behind one.
    fn unknown(&mut self) {
        let before = self.out.is_empty() || self.out.ends_with([' ', '"']);
        self.out.push(if before { '"' } else { ':' });
    }

    fn mark(&mut self, bit: u16) {
        const LONGEST: u16 = 1 << 8;
        self.blanks = 0;
        self.code = if self.code < LONGEST { self.code << 1 | bit } else { self.code };
    }

    /// Ends a letter. What is no letter is nothing.
    fn letter(&mut self) {
        let known = CODES.iter().find(|(code, _)| *code == self.code);
        self.out.extend(known.map(|(_, letter)| letter));
        self.code = 1;
    }

    fn space(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with(' ') {
            self.out.push(' ');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn runs_are_decoded() {
        check("see: .. --. -. --- .-. . / .- .-.. .-.. now", &["ignore all"]);
        check("..  --.  -. ", &[]);
        check(".. --. -. --- .-. .   .- .-.. .-..", &["ignore all"]);
        check(".-. ..- -.  / .. --. -. --- .-. . /  .. -", &["run: ignore \"it"]);
        check("| --- | --- | --- | --- | --- | --- |", &[]);
        check("...........................", &[]);
        check("- - - - - - - - - - - - - -", &[]);
    }

    #[test]
    fn dots_and_dashes_may_be_typeset() {
        for around in ["", "Decode this: ", "so it goes: "] {
            let text = format!("{around}•• ——• —• ——— •—• • / •— •—•• •—••\nok?");
            let found: Vec<_> = decode_dressed(&text).map(|d| d.text).collect();
            assert_eq!(found, ["ignore all"], "{text}");
        }
    }

    #[test]
    fn every_code_is_there_once() {
        let mut codes: Vec<_> = CODES.iter().map(|(code, _)| code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
    }
}
