//! An answer of a guard, which is believed only if it is exactly what was asked for. Whatever else
//! it is, it is a failure, and never an opinion.

use regex::{RegexSet, RegexSetBuilder};
use serde_json::Value;

use super::settings::{Chat, Classifier, Guard, Label, LlamaGuard, SettingsError};
use super::{Failure, Opinion};

/// Of a chat model's answer, in bytes; its opinion is in its first words.
const READ_BYTES: usize = 4096;

/// Memory that the expressions for answers may take, compiled.
const REGEX_BYTES: usize = 1 << 20;

/// Scores are sums of 32-bit floats.
const ROUNDING: f64 = 1e-3;

pub(super) enum Reader {
    Classifier(Classifier),
    LlamaGuard(Vec<String>),
    Chat { attack: RegexSet, innocent: RegexSet },
}

impl Reader {
    pub(super) fn new(guard: &Guard) -> Result<Self, SettingsError> {
        match guard {
            Guard::Classifier(classifier) => check(classifier),
            Guard::LlamaGuard(LlamaGuard { categories, .. }) => {
                Ok(Self::LlamaGuard(categories.clone()))
            }
            Guard::Chat(Chat { attack, innocent, .. }) => {
                Ok(Self::Chat { attack: compiled(attack)?, innocent: compiled(innocent)? })
            }
        }
    }

    pub(super) fn read(&self, answer: &[u8]) -> Result<Opinion, Failure> {
        let answer: Value = serde_json::from_slice(answer).map_err(|_| Failure::BadAnswer)?;
        match self {
            Self::Classifier(classifier) => classified(classifier, &answer),
            Self::LlamaGuard(categories) => guarded(categories, said(&answer)?),
            Self::Chat { attack, innocent } => {
                let said = said(&answer)?;
                match (attack.is_match(said), innocent.is_match(said)) {
                    (true, _) => Ok(ATTACK),
                    (false, true) => Ok(INNOCENT),
                    (false, false) => Err(Failure::Unclear),
                }
            }
        }
    }
}

const ATTACK: Opinion = Opinion::Attack { score: 1.0 };
const INNOCENT: Opinion = Opinion::Innocent { score: 0.0 };

fn check(classifier: &Classifier) -> Result<Reader, SettingsError> {
    let Classifier { score, label, threshold, .. } = classifier;
    let pointers = score.iter().chain(label.iter().map(|label| &label.pointer));
    for pointer in pointers.filter(|pointer| !pointer.is_empty()) {
        if !pointer.starts_with('/') {
            return Err(SettingsError::new("a JSON pointer starts with a slash: /0/score"));
        }
    }
    if score.is_none() && label.is_none() {
        return Err(SettingsError::new("a classifier needs `score` or `label`"));
    }
    if label.as_ref().is_some_and(|label| label.attack.is_empty()) {
        return Err(SettingsError::new("a label needs values that mean an attack"));
    }
    if !(*threshold > 0.0 && *threshold <= 1.0) {
        return Err(SettingsError::new("a threshold is more than 0 and at most 1"));
    }
    Ok(Reader::Classifier(classifier.clone()))
}

fn compiled(patterns: &[String]) -> Result<RegexSet, SettingsError> {
    if patterns.is_empty() {
        return Err(SettingsError::new("a chat model needs expressions for both answers"));
    }
    let mut builder = RegexSetBuilder::new(patterns);
    let made = builder.case_insensitive(true).size_limit(REGEX_BYTES).build();
    made.map_err(|error| SettingsError::new(format!("an expression for answers: {error}")))
}

fn classified(classifier: &Classifier, answer: &Value) -> Result<Opinion, Failure> {
    let means_attack = classifier.label.as_ref().map(|label| meaning(label, answer)).transpose()?;
    let likelihood = match (&classifier.score, means_attack) {
        (Some(pointer), None | Some(true)) => probability(answer, pointer)?,
        (Some(pointer), Some(false)) => 1.0 - probability(answer, pointer)?,
        (None, means_attack) => f64::from(u8::from(means_attack == Some(true))),
    };
    Ok(if likelihood >= classifier.threshold {
        Opinion::Attack { score: likelihood }
    } else {
        Opinion::Innocent { score: likelihood }
    })
}

fn meaning(label: &Label, answer: &Value) -> Result<bool, Failure> {
    let found = answer.pointer(&label.pointer).and_then(Value::as_str).ok_or(Failure::BadAnswer)?;
    let is_one_of = |labels: &[String]| labels.iter().any(|known| known == found);
    match is_one_of(&label.attack) {
        true => Ok(true),
        false if label.innocent.is_empty() || is_one_of(&label.innocent) => Ok(false),
        false => Err(Failure::BadAnswer),
    }
}

fn probability(answer: &Value, pointer: &str) -> Result<f64, Failure> {
    let found = answer.pointer(pointer).and_then(Value::as_f64);
    let likely = found.filter(|score| (-ROUNDING..=1.0 + ROUNDING).contains(score));
    likely.map(|score| score.clamp(0.0, 1.0)).ok_or(Failure::BadAnswer)
}

/// What a chat model said: the beginning, without white space around it. A message without content
/// (a refusal, a call of a tool, thoughts alone) is one of a server that works.
fn said(answer: &Value) -> Result<&str, Failure> {
    let message = answer.pointer("/choices/0/message").and_then(Value::as_object);
    let content = message.ok_or(Failure::BadAnswer)?.get("content").and_then(Value::as_str);
    let said = content.ok_or(Failure::Unclear)?.trim();
    Ok(said.get(..said.floor_char_boundary(READ_BYTES)).unwrap_or_default())
}

/// `safe` and nothing else; or `unsafe`, and the violated categories on the next line. If no category
/// is told, it may be any.
fn guarded(wanted: &[String], said: &str) -> Result<Opinion, Failure> {
    let mut lines = said.lines().map(str::trim).filter(|line| !line.is_empty());
    let (word, categories, more) = (lines.next(), lines.next(), lines.next());
    match (word, categories, more) {
        (Some("safe"), None, None) => Ok(INNOCENT),
        (Some("unsafe"), None, None) => Ok(ATTACK),
        (Some("unsafe"), Some(told), None) => {
            let mut told = told.split(',').map(str::trim);
            let counts = wanted.is_empty() || told.any(|told| wanted.iter().any(|w| w == told));
            Ok(if counts { ATTACK } else { INNOCENT })
        }
        _ => Err(Failure::Unclear),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(guard: Guard, cases: &[(&str, Result<Opinion, Failure>)]) {
        let reader = Reader::new(&guard).unwrap();
        for (answer, expected) in cases {
            assert_eq!(reader.read(answer.as_bytes()), *expected, "{guard:?} {answer}");
        }
    }

    const BAD: Result<Opinion, Failure> = Err(Failure::BadAnswer);
    const UNCLEAR: Result<Opinion, Failure> = Err(Failure::Unclear);

    fn attack(score: f64) -> Result<Opinion, Failure> {
        Ok(Opinion::Attack { score })
    }

    fn innocent(score: f64) -> Result<Opinion, Failure> {
        Ok(Opinion::Innocent { score })
    }

    #[test]
    fn a_score_is_a_number_from_0_to_1() {
        check(
            Guard::Classifier(Classifier::default()),
            &[
                (r#"{"score":0.5}"#, attack(0.5)),
                (r#"{"score":0.49}"#, innocent(0.49)),
                (r#"{"score":1}"#, attack(1.0)),
                (r#"{"score":1.0000001192}"#, attack(1.0)),
                (r#"{"score":-1e-9}"#, innocent(0.0)),
                (r#"{"score":1.5}"#, BAD),
                (r#"{"score":-1}"#, BAD),
                (r#"{"score":1e999}"#, BAD),
                (r#"{"score":NaN}"#, BAD),
                (r#"{"score":"0.9"}"#, BAD),
                (r#"{"score":null}"#, BAD),
                (r#"{"score":[0.9]}"#, BAD),
                (r#"{"Score":0.9}"#, BAD),
                (r#"{"score":0.9}{"score":0.1}"#, BAD),
                (r#"[0.9]"#, BAD),
                ("", BAD),
                ("\u{0}", BAD),
                ("<html>", BAD),
                (&"[".repeat(60_000), BAD),
            ],
        );
    }

    #[test]
    fn a_label_says_what_the_score_is_about() {
        let label = |innocent: &[&str]| Label {
            pointer: "/0/0/label".to_owned(),
            attack: vec!["INJECTION".to_owned(), "JAILBREAK".to_owned()],
            innocent: innocent.iter().map(|&label| label.to_owned()).collect(),
        };
        let guard = |score: Option<&str>, innocent: &[&str]| {
            Guard::Classifier(Classifier {
                score: score.map(str::to_owned),
                label: Some(label(innocent)),
                ..Classifier::default()
            })
        };
        let found =
            |label: &str, score: f64| json!([[{"label": label, "score": score}]]).to_string();
        let (injection, benign, other) =
            (found("INJECTION", 0.75), found("BENIGN", 0.75), found("LABEL_7", 0.75));
        let doubted = found("BENIGN", 0.25);
        check(
            guard(Some("/0/0/score"), &[]),
            &[
                (&injection, attack(0.75)),
                (&benign, innocent(0.25)),
                (&doubted, attack(0.75)),
                (&other, innocent(0.25)),
                (r#"[[{"score":0.9}]]"#, BAD),
                (r#"[[{"label":"INJECTION"}]]"#, BAD),
                (r#"[[{"label":1,"score":1}]]"#, BAD),
                ("[]", BAD),
            ],
        );
        check(
            guard(None, &["BENIGN"]),
            &[(&injection, attack(1.0)), (&benign, innocent(0.0)), (&other, BAD)],
        );
    }

    fn chat(content: &str) -> String {
        json!({"choices": [{"message": {"role": "assistant", "content": content}}]}).to_string()
    }

    #[test]
    fn llama_guard_says_one_word_or_a_word_and_categories() {
        let guard = |categories: &[&str]| {
            Guard::LlamaGuard(LlamaGuard {
                model: "llama-guard3:1b".to_owned(),
                categories: categories.iter().map(|&category| category.to_owned()).collect(),
                parameters: serde_json::Map::new(),
            })
        };
        for (said, any, only_s14) in [
            ("safe", innocent(0.0), innocent(0.0)),
            ("\n\nsafe\n", innocent(0.0), innocent(0.0)),
            ("unsafe\nS14", attack(1.0), attack(1.0)),
            ("unsafe\nS1,S14", attack(1.0), attack(1.0)),
            ("unsafe\n S1 , S14 ", attack(1.0), attack(1.0)),
            ("unsafe\nS1", attack(1.0), innocent(0.0)),
            ("unsafe", attack(1.0), attack(1.0)),
            ("safe\nunsafe", UNCLEAR, UNCLEAR),
            ("unsafe\nS1\nsafe", UNCLEAR, UNCLEAR),
            ("safe, I think", UNCLEAR, UNCLEAR),
            ("SAFE", UNCLEAR, UNCLEAR),
            ("I cannot help with that.", UNCLEAR, UNCLEAR),
            ("", UNCLEAR, UNCLEAR),
        ] {
            let answer = chat(said);
            check(guard(&[]), &[(&answer, any)]);
            check(guard(&["S14"]), &[(&answer, only_s14)]);
        }
        check(
            guard(&[]),
            &[
                (r#"{"choices":[]}"#, BAD),
                (r#"{"choices":[{"message":"safe"}]}"#, BAD),
                (r#"{"choices":[{"message":{"content":null}}]}"#, UNCLEAR),
                (r#"{"choices":[{"message":{"content":["safe"]}}]}"#, UNCLEAR),
                (r#"{"error":"model not found"}"#, BAD),
                ("safe", BAD),
            ],
        );
    }

    #[test]
    fn a_chat_model_is_understood_by_expressions_and_attacks_win() {
        let long = format!("{}attack", " x".repeat(10_000));
        let answers: Vec<_> = [
            ("attack", attack(1.0)),
            ("**Attack**: it overrides", attack(1.0)),
            ("Innocent.", innocent(0.0)),
            ("attackers", UNCLEAR),
            ("It is innocent", UNCLEAR),
            (&long, UNCLEAR),
            ("", UNCLEAR),
        ]
        .map(|(said, expected)| (chat(said), expected))
        .into();
        let cases: Vec<_> = answers.iter().map(|(said, e)| (said.as_str(), *e)).collect();
        check(Guard::Chat(Chat::new("m")), &cases);
        let both = Chat {
            attack: vec!["unsafe".to_owned()],
            innocent: vec!["safe".to_owned()],
            ..Chat::new("m")
        };
        check(Guard::Chat(both), &[(&chat("safe or unsafe"), attack(1.0))]);
    }

    #[test]
    fn readers_that_could_say_nothing_are_refused() {
        let classifier = Classifier::default;
        let label = |attack: &[&str]| Label {
            pointer: "/label".to_owned(),
            attack: attack.iter().map(|&a| a.to_owned()).collect(),
            innocent: Vec::new(),
        };
        for guard in [
            Guard::Classifier(Classifier { score: None, ..classifier() }),
            Guard::Classifier(Classifier { score: Some("score".to_owned()), ..classifier() }),
            Guard::Classifier(Classifier { label: Some(label(&[])), ..classifier() }),
            Guard::Classifier(Classifier { threshold: 0.0, ..classifier() }),
            Guard::Classifier(Classifier { threshold: f64::NAN, ..classifier() }),
            Guard::Chat(Chat { attack: Vec::new(), ..Chat::new("m") }),
            Guard::Chat(Chat { innocent: vec!["(".to_owned()], ..Chat::new("m") }),
            Guard::Chat(Chat { innocent: vec!["x{9999}{9999}".to_owned()], ..Chat::new("m") }),
        ] {
            assert!(Reader::new(&guard).is_err(), "{guard:?}");
        }
    }

    #[test]
    fn no_answer_makes_a_reader_panic() {
        let readers = [
            Guard::Classifier(Classifier::default()),
            Guard::LlamaGuard(LlamaGuard {
                model: String::new(),
                categories: Vec::new(),
                parameters: serde_json::Map::new(),
            }),
            Guard::Chat(Chat::new("m")),
        ]
        .map(|guard| Reader::new(&guard).unwrap());
        let bytes = proptest::collection::vec(any::<u8>(), 0..200);
        proptest!(|(bytes in bytes, said in "\\PC{0,200}")| {
            for reader in &readers {
                prop_assert!(reader.read(&bytes).is_err());
                let found = reader.read(chat(&said).as_bytes());
                prop_assert!(!matches!(found, Ok(Opinion::Unavailable(_))));
            }
        });
    }
}
