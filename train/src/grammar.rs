//! The grammar of attacks and of innocent texts: sentences with choices in them, as data.
//!
//! In a sentence `(one|two|)` is a choice, also inside another one, and `{slot}` one of the
//! sentences of that slot of the file. A parenthesis without a bar and an unknown name in braces
//! stand for themselves.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Failure;
use crate::rng::Rng;

/// Slots inside slots are filled this deep.
const MAX_DEPTH: u8 = 8;

/// Sentences by name.
pub(crate) type Table = BTreeMap<String, Vec<String>>;

/// The sentences of one language.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Language {
    /// ISO 639-1 code.
    pub(crate) language: String,
    /// How often texts in it are made, compared with others.
    #[serde(default = "one")]
    pub(crate) weight: f32,
    /// Parts of sentences.
    #[serde(default)]
    pub(crate) slots: Table,
    /// Attacks by intent.
    #[serde(default)]
    pub(crate) attacks: Table,
    /// Innocent texts: `ordinary`, and `hard` ones with the words of attacks.
    #[serde(default)]
    pub(crate) benign: Table,
}

impl Language {
    /// Takes in the sentences of another file.
    fn extend(&mut self, more: Self) {
        for (own, more) in [
            (&mut self.slots, more.slots),
            (&mut self.attacks, more.attacks),
            (&mut self.benign, more.benign),
        ] {
            for (name, sentences) in more {
                own.entry(name).or_default().extend(sentences);
            }
        }
    }
}

const fn one() -> f32 {
    1.0
}

/// What texts are put in: a sentence with `{text}`, `{before}` and `{after}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Carriers {
    /// Parts of carriers.
    #[serde(default)]
    pub(crate) slots: Table,
    /// Carriers in which an innocent text is innocent and an attack an attack.
    pub(crate) neutral: Vec<String>,
    /// Carriers that only an attack has.
    pub(crate) hostile: Vec<String>,
    /// Carriers that quote an attack and make it innocent.
    pub(crate) quoting: Vec<String>,
}

/// All languages, in the order of their codes, and the carriers.
#[derive(Clone, Debug)]
pub(crate) struct Grammar {
    /// Languages.
    pub(crate) languages: Vec<Language>,
    /// Carriers.
    pub(crate) carriers: Carriers,
}

impl Grammar {
    /// Reads the YAML files of a directory: `carriers.yaml`, one file for each language, and files
    /// `all-*.yaml` with more sentences for many languages.
    ///
    /// # Errors
    /// A file cannot be read or is of another form.
    pub(crate) fn read(dir: &Path) -> Result<Self, Failure> {
        let mut files: Vec<_> = std::fs::read_dir(dir)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(|e| Failure::at(dir, &e))?;
        files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
        files.sort();
        let mut grammar = Self { languages: Vec::new(), carriers: Carriers::default() };
        let mut more = Vec::new();
        for path in files {
            match path.file_stem().and_then(|name| name.to_str()) {
                Some("carriers") => grammar.carriers = parse(&path)?,
                Some(name) if name.starts_with("all-") => {
                    more.extend(parse::<Vec<Language>>(&path)?);
                }
                _ => grammar.languages.push(parse(&path)?),
            }
        }
        more.into_iter().for_each(|language| grammar.extend(language));
        Ok(grammar)
    }

    fn extend(&mut self, more: Language) {
        match self.languages.iter_mut().find(|own| own.language == more.language) {
            Some(own) => own.extend(more),
            None => self.languages.push(more),
        }
    }
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::at(path, &e))?;
    serde_saphyr::from_str(&text).map_err(|e| Failure::at(path, &e))
}

/// One of the texts that a sentence stands for.
pub(crate) fn expand(sentence: &str, slots: &Table, rng: &mut Rng) -> String {
    let mut out = String::with_capacity(sentence.len());
    fill(sentence, slots, rng, &mut out, MAX_DEPTH);
    out
}

fn fill(sentence: &str, slots: &Table, rng: &mut Rng, out: &mut String, depth: u8) {
    let mut rest = sentence;
    while let Some(at) = rest.find(['(', '{']).filter(|_| depth > 0) {
        let (head, tail) = rest.split_at(at);
        out.push_str(head);
        rest = match group(tail) {
            Some((inner, after)) if tail.starts_with('(') => {
                choose(inner, slots, rng, out, depth);
                after
            }
            Some((inner, after)) if slots.contains_key(inner) => {
                let sentence = slots.get(inner).and_then(|all| rng.pick(all));
                fill(sentence.map_or("", String::as_str), slots, rng, out, depth - 1);
                after
            }
            _ => {
                let (open, after) = tail.split_at(1);
                out.push_str(open);
                after
            }
        };
    }
    out.push_str(rest);
}

fn choose(inner: &str, slots: &Table, rng: &mut Rng, out: &mut String, depth: u8) {
    let choices = choices(inner);
    if choices.len() > 1 {
        fill(rng.pick(&choices).copied().unwrap_or_default(), slots, rng, out, depth - 1);
    } else {
        out.push('(');
        fill(inner, slots, rng, out, depth - 1);
        out.push(')');
    }
}

/// What stands between the bracket at the start of `text` and its partner, and what follows.
fn group(text: &str) -> Option<(&str, &str)> {
    let mut open = 0;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '{' => open += 1,
            ')' | '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some((text.get(1..at)?, text.get(at + 1..)?));
        }
    }
    None
}

/// The choices of a group, apart at the bars that stand in no inner group.
fn choices(inner: &str) -> Vec<&str> {
    let mut open = 0;
    inner
        .split(|c| {
            open += i32::from(matches!(c, '(' | '{')) - i32::from(matches!(c, ')' | '}'));
            c == '|' && open == 0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sentence: &str, expected: &[&str]) {
        let slots: Table = [("x", vec!["p", "(q|r)"]), ("loop", vec!["a{loop}"])]
            .map(|(name, all)| (name.into(), all.into_iter().map(String::from).collect()))
            .into();
        let mut rng = Rng::new(7);
        let mut made: Vec<_> = (0..200).map(|_| expand(sentence, &slots, &mut rng)).collect();
        made.sort();
        made.dedup();
        assert_eq!(made, expected);
    }

    #[test]
    fn sentences_are_expanded() {
        check("plain", &["plain"]);
        check("(a|b|)c", &["ac", "bc", "c"]);
        check("(a|b(1|2))", &["a", "b1", "b2"]);
        check("{x}!", &["p!", "q!", "r!"]);
        check("f(x) {json} }", &["f(x) {json} }"]);
        check("(open {x", &["(open {x"]);
        check("{loop}", &["aaaaaaaa{loop}"]);
    }

    #[test]
    fn more_sentences_are_added_to_those_of_a_language() {
        let language = |code: &str, sentence: &str| Language {
            language: code.into(),
            weight: 1.0,
            slots: Table::new(),
            attacks: Table::from([("override".into(), vec![sentence.into()])]),
            benign: Table::new(),
        };
        let mut grammar =
            Grammar { languages: vec![language("xx", "a")], carriers: Carriers::default() };
        grammar.extend(language("xx", "b"));
        grammar.extend(language("yy", "c"));
        let sentences: Vec<_> = grammar
            .languages
            .iter()
            .map(|language| language.attacks["override"].join(" "))
            .collect();
        assert_eq!(sentences, ["a b", "c"]);
    }

    #[test]
    fn the_grammar_of_the_project_is_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("grammar");
        let grammar = Grammar::read(&dir).unwrap();
        assert!(grammar.languages.len() >= 20);
        for language in &grammar.languages {
            let name = &language.language;
            assert!(language.attacks.contains_key("override"), "{name}");
            assert!(language.attacks.contains_key("leak"), "{name}");
            assert!(language.benign.contains_key("ordinary"), "{name}");
            assert!(language.benign.contains_key("hard"), "{name}");
        }
    }
}
