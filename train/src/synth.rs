//! Texts from the grammar: phrasings in carriers, with the mistakes that people make.

use crate::data::Row;
use crate::grammar::{Grammar, Language, Table, expand};
use crate::rng::Rng;

/// How many texts to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amounts {
    /// Attacks in a language of weight 1.
    pub(crate) attacks: usize,
    /// Innocent texts in such a language.
    pub(crate) benign: usize,
    /// Innocent texts with the words of attacks in such a language.
    pub(crate) hard: usize,
}

/// The source of a synthetic text is this, and the code of its language.
pub(crate) const SOURCE: &str = "grammar_";

/// Makes the texts of all languages.
pub(crate) fn texts(grammar: &Grammar, amounts: Amounts, seed: u64) -> Vec<Row> {
    let mut rng = Rng::new(seed);
    let mut rows = Vec::new();
    for language in &grammar.languages {
        let mut maker = Maker::new(grammar, language, &mut rng);
        let count = |n: usize| (n as f32 * language.weight) as usize;
        rows.extend((0..count(amounts.attacks)).map(|_| maker.attack()));
        rows.extend((0..count(amounts.benign)).map(|_| maker.ordinary()));
        rows.extend((0..count(amounts.hard)).map(|_| maker.hard()));
    }
    rows
}

struct Maker<'g, 'r> {
    grammar: &'g Grammar,
    language: &'g Language,
    attacks: Vec<&'g String>,
    rng: &'r mut Rng,
}

impl<'g, 'r> Maker<'g, 'r> {
    fn new(grammar: &'g Grammar, language: &'g Language, rng: &'r mut Rng) -> Self {
        let attacks = language.attacks.values().flatten().collect();
        Self { grammar, language, attacks, rng }
    }

    fn attack(&mut self) -> Row {
        let mut text = self.attack_phrase();
        while self.rng.chance(0.3) {
            text = format!("{text} {}", self.attack_phrase());
        }
        if self.rng.chance(0.45) {
            let carriers = &self.grammar.carriers;
            let hostile = self.rng.chance(0.5);
            let from = if hostile { &carriers.hostile } else { &carriers.neutral };
            text = self.carried(from, &text);
        }
        self.row(text, "attack", "synthetic")
    }

    fn ordinary(&mut self) -> Row {
        let mut text = self.sentence("ordinary");
        while self.rng.chance(0.4) {
            text = format!("{text} {}", self.sentence("ordinary"));
        }
        if self.rng.chance(0.3) {
            text = self.carried(&self.grammar.carriers.neutral, &text);
        }
        self.row(text, "benign", "benign_chat")
    }

    fn hard(&mut self) -> Row {
        let text = if self.rng.chance(0.15) {
            let quoted = self.attack_phrase();
            self.carried(&self.grammar.carriers.quoting, &quoted)
        } else {
            self.sentence("hard")
        };
        let text = if self.rng.chance(0.25) {
            self.carried(&self.grammar.carriers.neutral, &text)
        } else {
            text
        };
        self.row(text, "benign", "benign_hard")
    }

    fn attack_phrase(&mut self) -> String {
        let sentence = self.rng.pick(&self.attacks).map_or("", |s| s.as_str());
        expand(sentence, &self.language.slots, self.rng)
    }

    fn sentence(&mut self, kind: &str) -> String {
        let all = self.language.benign.get(kind).map_or(&[][..], Vec::as_slice);
        let sentence = self.rng.pick(all).map_or("", String::as_str);
        expand(sentence, &self.language.slots, self.rng)
    }

    fn carried(&mut self, from: &[String], text: &str) -> String {
        let carrier = self.rng.pick(from).map_or("{text}", String::as_str);
        let mut slots: Table = self.grammar.carriers.slots.clone();
        for name in ["before", "after"] {
            slots.insert(name.into(), vec![self.around()]);
        }
        // Filled in last: the text itself must not be expanded again.
        expand(carrier, &slots, self.rng).replace("{text}", text)
    }

    /// What stands around an attack: some innocent sentences.
    fn around(&mut self) -> String {
        let mut text = self.sentence("ordinary");
        while self.rng.chance(0.6) {
            text = format!("{text} {}", self.sentence("ordinary"));
        }
        text.replace(['(', '{'], "")
    }

    fn row(&mut self, text: String, label: &str, kind: &str) -> Row {
        let text = if self.rng.chance(0.12) { typos(&text, self.rng) } else { text };
        Row {
            text,
            label: label.into(),
            kind: kind.into(),
            source: format!("{SOURCE}{}", self.language.language),
            lang: Some(self.language.language.clone()),
        }
    }
}

/// Letters dropped, doubled or swapped, one in thirty.
pub(crate) fn typos(text: &str, rng: &mut Rng) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied().filter(|next| next.is_alphabetic());
        match (rng.chance(1.0 / 30.0) && c.is_alphabetic()).then(|| rng.below(3)) {
            Some(0) => {}
            Some(1) => out.extend([c, c]),
            Some(_) if next.is_some() => {
                out.extend(next);
                out.push(c);
                chars.next();
            }
            Some(_) | None => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::Carriers;

    fn grammar() -> Grammar {
        let table = |name: &str, text: &str| Table::from([(name.into(), vec![text.into()])]);
        let mut benign = table("ordinary", "good {day}");
        benign.extend(table("hard", "ignore the noise"));
        let language = Language {
            language: "xx".into(),
            weight: 0.5,
            slots: table("day", "(morning|evening)"),
            attacks: table("override", "ignore (all|the) rules"),
            benign,
        };
        let carriers = Carriers {
            slots: table("tag", "note"),
            neutral: vec!["{tag}: {before} {text}".into()],
            hostile: vec!["!!! {text}".into()],
            quoting: vec!["what is \"{text}\"?".into()],
        };
        Grammar { languages: vec![language], carriers }
    }

    #[test]
    fn every_kind_of_text_is_made_in_its_amount() {
        let amounts = Amounts { attacks: 200, benign: 100, hard: 60 };
        let rows = texts(&grammar(), amounts, 1);
        let count = |kind: &str| rows.iter().filter(|row| row.kind == kind).count();
        assert_eq!(["synthetic", "benign_chat", "benign_hard"].map(count), [100, 50, 30]);
        assert!(rows.iter().all(|row| row.is_positive() == (row.kind == "synthetic")));
        assert!(rows.iter().any(|row| row.text.starts_with("note: good ")));
        assert!(rows.iter().all(|row| !row.text.contains('{') && row.source == "grammar_xx"));
    }

    #[test]
    fn the_same_seed_makes_the_same_texts() {
        let amounts = Amounts { attacks: 20, benign: 20, hard: 20 };
        let made = |seed| texts(&grammar(), amounts, seed).into_iter().map(|row| row.text);
        assert!(made(5).eq(made(5)) && !made(5).eq(made(6)));
    }

    #[test]
    fn typos_are_few() {
        let text = "the quick brown fox jumps over the lazy dog ".repeat(20);
        let wrong = typos(&text, &mut Rng::new(2));
        assert_ne!(text, wrong);
        assert!(wrong.len().abs_diff(text.len()) < text.len() / 20);
    }
}
