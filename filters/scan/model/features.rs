//! What the model sees of a text: hashes of its words, pairs of words and word beginnings.
//!
//! One walk over the canonical view, which hashes while it reads and allocates nothing. Scripts
//! that do not put spaces between words (Han, kana, Thai and others) are read character by
//! character, in pairs, threes and fours. Runs of digits count as one number, and of punctuation
//! only what markup and templates are made of counts (`<|`, `###`, `]]`, a colon after a word).

/// Which features a model was trained on, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(pub u8);

impl Kinds {
    /// Single words. Characters of scripts without spaces, in pairs to fours, always count.
    pub const WORDS: Self = Self(1);
    /// Two words in a row.
    pub const PAIRS: Self = Self(1 << 1);
    /// Two words with one between them.
    pub const SKIPS: Self = Self(1 << 2);
    /// The beginnings of longer words, which inflected languages share.
    pub const STEMS: Self = Self(1 << 3);
    /// Two such beginnings in a row.
    pub const STEM_PAIRS: Self = Self(1 << 4);
    /// Four characters in a row inside words that are not ASCII.
    pub const CHARS: Self = Self(1 << 5);
    /// Markup.
    pub const MARKS: Self = Self(1 << 6);
    /// Three words in a row.
    pub const TRIPLES: Self = Self(1 << 7);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// One feature: its hash, and the bytes of the text that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gram {
    /// Well mixed in its high bits.
    pub hash: u32,
    /// Where its first word starts.
    pub start: usize,
    /// Where its last word ends.
    pub end: usize,
}

/// What takes the features of a text.
pub trait Sink {
    /// One feature of the token at hand.
    fn gram(&mut self, gram: Gram);
    /// The token at hand has no more features.
    fn token(&mut self);
}

/// Hands the features of a canonical text to `sink`, token by token.
pub fn walk(text: &str, kinds: Kinds, sink: &mut impl Sink) {
    let mut walker = Walker::new(kinds, sink);
    for (at, c) in text.char_indices() {
        walker.read(at, c);
    }
    walker.end_word(text.len());
    walker.end_mark();
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// Letters of a word that make its stem.
const STEM: usize = 5;
/// Syllables of a Hangul word that make its stem.
const HANGUL_STEM: usize = 2;
/// Characters of a run of punctuation that count.
const MARK: usize = 3;

const fn step(hash: u64, c: char) -> u64 {
    (hash ^ c as u64).wrapping_mul(PRIME).rotate_left(5)
}

const fn mix(kind: u64, a: u64, b: u64) -> u32 {
    let x = (a ^ kind.wrapping_mul(PRIME)).wrapping_mul(MIX).rotate_left(29) ^ b;
    (x.wrapping_mul(MIX) >> 32) as u32
}

/// What a character does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    /// A word by itself.
    Sign,
    /// Part of markup.
    Mark,
    Space,
}

/// The class of every ASCII character.
#[expect(
    clippy::indexing_slicing,
    reason = "the compiler evaluates it, within bounds or not at all"
)]
static ASCII: [Class; 128] = {
    let mut classes = [Class::Space; 128];
    let mut b = 0;
    while b < classes.len() {
        classes[b] = ascii_class(b as u8);
        b += 1;
    }
    classes
};

const fn ascii_class(b: u8) -> Class {
    match b {
        b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
        b'0'..=b'9' => Class::Digit,
        b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'|' | b'#' | b'=' | b'*' | b'_' | b'~'
        | b'`' | b'@' | b'%' | b'$' | b'^' | b'&' | b'+' | b'\\' => Class::Mark,
        _ => Class::Space,
    }
}

/// Characters of the most frequent alphabets are told without a search in Unicode's tables.
fn class(c: char) -> Class {
    if let Some(class) = ASCII.get(c as usize) {
        return *class;
    }
    match c {
        '\u{df}'..='\u{f6}'
        | '\u{391}'..='\u{3a1}'
        | '\u{3b1}'..='\u{3c9}'
        | '\u{400}'..='\u{481}'
        | '\u{5d0}'..='\u{5ea}'
        | '\u{620}'..='\u{64a}'
        | '\u{904}'..='\u{939}'
        | '\u{985}'..='\u{9b9}'
        | '\u{ac00}'..='\u{d7a3}' => Class::Letter,
        '\u{e00}'..='\u{eff}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1780}'..='\u{17ff}'
        | '\u{3041}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3134f}' => Class::Sign,
        c if c.is_alphabetic() => Class::Letter,
        c if c.is_numeric() => Class::Digit,
        _ => Class::Space,
    }
}

/// How many tokens back a feature counts as said already.
const REPEATED: u32 = 24;
/// Features that are remembered at a time, a power of two.
const REMEMBERED: usize = 512;

/// The last features. One that comes again soon says nothing new: a manual which has "system" in
/// every line is not worse than one that has it in one.
struct Recent([(u32, u32); REMEMBERED]);

impl Recent {
    /// Whether a feature was not seen in the last tokens. Where two share a place, the later one is
    /// remembered.
    fn is_new(&mut self, hash: u32, token: u32) -> bool {
        let Some((known, until)) = self.0.get_mut(hash as usize % REMEMBERED) else { return true };
        if *known == hash && token < *until {
            return false;
        }
        (*known, *until) = (hash, token.saturating_add(REPEATED));
        true
    }
}

/// A word that was read.
#[derive(Clone, Copy, Default)]
struct Word {
    hash: u64,
    stem: u64,
    start: usize,
    len: usize,
    /// A character of a script without spaces.
    sign: bool,
}

struct Walker<'s, S> {
    kinds: Kinds,
    sink: &'s mut S,
    /// The word being read; `len` 0 means none.
    word: Word,
    stem_len: usize,
    recent: [char; 4],
    ascii: bool,
    /// The three words before it, last first.
    before: [Word; 3],
    /// The markup being read or just read.
    mark: Word,
    mark_end: usize,
    /// Tokens so far.
    tokens: u32,
    said: Recent,
}

impl<'s, S: Sink> Walker<'s, S> {
    fn new(kinds: Kinds, sink: &'s mut S) -> Self {
        Self {
            kinds,
            sink,
            word: Word::default(),
            stem_len: STEM,
            recent: ['\0'; 4],
            ascii: true,
            before: [Word::default(); 3],
            mark: Word::default(),
            mark_end: 0,
            tokens: 0,
            said: Recent([(0, 0); REMEMBERED]),
        }
    }

    fn read(&mut self, at: usize, c: char) {
        match class(c) {
            Class::Letter => self.letter(at, c),
            Class::Digit => self.digit(at),
            Class::Sign => {
                self.end_word(at);
                self.sign(at, c);
            }
            Class::Mark => {
                self.end_word(at);
                self.mark(at, c);
            }
            Class::Space => {
                if c == ':' && self.word.len > 0 {
                    self.label(at);
                }
                self.end_word(at);
                self.end_mark();
            }
        }
    }

    fn letter(&mut self, at: usize, c: char) {
        if self.word.len == 0 {
            self.start_word(at, c);
        }
        self.word.hash = step(self.word.hash, c);
        self.word.len += 1;
        if self.word.len <= self.stem_len {
            self.word.stem = self.word.hash;
        }
        if !c.is_ascii() {
            self.ascii = false;
        }
        if self.kinds.has(Kinds::CHARS) {
            self.recent.rotate_left(1);
            self.recent[3] = c;
            if !self.ascii && self.word.len >= 4 {
                let hash = self.recent.iter().fold(SEED, |hash, &c| step(hash, c));
                self.emit(8, hash, 0, self.word.start, at + c.len_utf8());
            }
        }
    }

    /// All digits are alike, and all numbers as long as one another.
    fn digit(&mut self, at: usize) {
        self.letter(at, '0');
    }

    fn start_word(&mut self, at: usize, c: char) {
        let hangul = matches!(c, '\u{ac00}'..='\u{d7a3}');
        self.stem_len = if hangul { HANGUL_STEM } else { STEM };
        self.word = Word { hash: SEED, stem: SEED, start: at, len: 0, sign: false };
        self.ascii = true;
        if self.mark.len > 0 && self.mark_end != at {
            self.end_mark();
        }
    }

    fn end_word(&mut self, end: usize) {
        if self.word.len == 0 {
            return;
        }
        let word = self.word;
        self.word.len = 0;
        let [last, second, _] = self.before;
        self.emit_if(Kinds::WORDS, 1, word.hash, 0, (word.start, end));
        if word.len > self.stem_len {
            self.emit_if(Kinds::STEMS, 2, word.stem, 0, (word.start, end));
        }
        if last.len > 0 {
            self.emit_if(Kinds::PAIRS, 3, last.hash, word.hash, (last.start, end));
            self.emit_if(Kinds::STEM_PAIRS, 5, last.stem, word.stem, (last.start, end));
        }
        if second.len > 0 {
            self.emit_if(Kinds::SKIPS, 4, second.hash, word.hash, (second.start, end));
            let pair = u64::from(mix(6, second.hash, last.hash));
            self.emit_if(Kinds::TRIPLES, 6, pair, word.hash, (second.start, end));
        }
        if self.mark.len > 0 {
            self.emit_if(Kinds::MARKS, 9, self.mark.hash, word.hash, (self.mark.start, end));
            self.mark.len = 0;
        }
        self.push(word);
    }

    fn push(&mut self, word: Word) {
        let [last, second, _] = self.before;
        self.before = [word, last, second];
        self.tokens = self.tokens.saturating_add(1);
        self.sink.token();
    }

    /// A character of a script without spaces, with up to three before it.
    fn sign(&mut self, at: usize, c: char) {
        let end = at + c.len_utf8();
        let mut grown = step(SEED, c);
        let word = Word { hash: grown, stem: grown, start: at, len: 1, sign: true };
        for (kind, earlier) in (10..).zip(self.before) {
            if !earlier.sign {
                break;
            }
            grown = (grown ^ earlier.hash).wrapping_mul(MIX).rotate_left(17);
            self.emit(kind, grown, 0, earlier.start, end);
        }
        self.push(word);
    }

    fn mark(&mut self, at: usize, c: char) {
        if self.mark.len > 0 && self.mark_end != at {
            self.end_mark();
        }
        if self.mark.len == 0 {
            self.mark = Word { hash: SEED, stem: 0, start: at, len: 0, sign: false };
        }
        if self.mark.len < MARK {
            self.mark.hash = step(self.mark.hash, c);
        }
        self.mark.len += 1;
        self.mark_end = at + c.len_utf8();
    }

    fn end_mark(&mut self) {
        if self.mark.len > 1 {
            let (mark, end) = (self.mark, self.mark_end);
            self.emit_if(Kinds::MARKS, 13, mark.hash, 0, (mark.start, end));
        }
        self.mark.len = 0;
    }

    /// A word with a colon after it: who speaks, or what follows.
    fn label(&mut self, at: usize) {
        let word = self.word;
        self.emit_if(Kinds::MARKS, 14, word.hash, 0, (word.start, at + 1));
    }

    fn emit_if(&mut self, only: Kinds, kind: u64, a: u64, b: u64, (start, end): (usize, usize)) {
        if self.kinds.has(only) {
            self.emit(kind, a, b, start, end);
        }
    }

    fn emit(&mut self, kind: u64, a: u64, b: u64, start: usize, end: usize) {
        let hash = mix(kind, a, b);
        if self.said.is_new(hash, self.tokens) {
            self.sink.gram(Gram { hash, start, end });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen {
        grams: Vec<Gram>,
        tokens: usize,
    }

    impl Sink for Seen {
        fn gram(&mut self, gram: Gram) {
            self.grams.push(gram);
        }

        fn token(&mut self) {
            self.tokens += 1;
        }
    }

    fn seen(text: &str, kinds: Kinds) -> Seen {
        let mut seen = Seen::default();
        walk(text, kinds, &mut seen);
        seen
    }

    #[track_caller]
    fn check(text: &str, kinds: Kinds, expected: &[&str]) {
        let grams = seen(text, kinds).grams;
        let texts: Vec<_> =
            grams.iter().filter_map(|gram| text.get(gram.start..gram.end)).collect();
        assert_eq!(texts, expected, "{text}");
    }

    #[test]
    fn every_kind_of_feature_is_seen() {
        check("do it, now", Kinds::WORDS, &["do", "it", "now"]);
        check("do it, now", Kinds::PAIRS, &["do it", "it, now"]);
        check("do it, now", Kinds::SKIPS, &["do it, now"]);
        check("do it, now", Kinds::TRIPLES, &["do it, now"]);
        check("ignore it", Kinds::STEMS, &["ignore"]);
        check("ignore it", Kinds::STEM_PAIRS, &["ignore it"]);
        check("правила", Kinds::CHARS, &["прав", "прави", "правил", "правила"]);
        check("<|im end|> # a: ## ", Kinds::MARKS, &["<|im", "|>", "a:", "##"]);
        check("忽略它 x", Kinds::WORDS, &["忽略", "略它", "忽略它", "x"]);
    }

    #[test]
    fn forms_of_a_word_share_its_stem_and_numbers_are_alike() {
        let hashes = |text, kinds| -> Vec<u32> {
            seen(text, kinds).grams.iter().map(|gram| gram.hash).collect()
        };
        let stems = |text| hashes(text, Kinds::STEMS);
        assert_eq!(stems("игнорируй"), stems("игнорируйте"));
        assert_ne!(stems("instructions"), stems("restrictions"));
        assert_eq!(hashes("12 34", Kinds::PAIRS), hashes("98 76", Kinds::PAIRS));
        assert_ne!(hashes("a b", Kinds::PAIRS), hashes("b a", Kinds::PAIRS));
        assert_ne!(hashes("a b", Kinds::PAIRS), hashes("a b", Kinds::STEM_PAIRS));
    }

    #[test]
    fn words_and_characters_of_scripts_without_spaces_are_tokens() {
        for (text, tokens) in
            [("", 0), (" ,. ", 0), ("a bc, d", 3), ("忽略它", 3), ("안녕 하세요", 2)]
        {
            assert_eq!(seen(text, Kinds::WORDS).tokens, tokens, "{text}");
        }
    }
}
