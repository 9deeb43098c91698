//! Counts the tokens of a text, with the tokenizer of its model where there is one.
//!
//! The vocabularies of OpenAI's models are part of the program (crate `bpe-openai`; it takes time
//! in proportion to the text, whatever the text is, which matters as attackers write it). They are
//! unpacked at their first use, which takes up to 100 ms: [`Tokenizer::warm`] does it beforehand.

use std::path::Path;
#[cfg(feature = "tokenizers")]
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::estimate;

/// A count of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a plain pair")]
pub struct Count {
    /// Tokens
    pub tokens: u64,
    /// Whether they were guessed from the characters.
    pub estimated: bool,
}

/// By what the text of a model is counted. Cheap to clone.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "each counts in another way")]
pub enum Tokenizer {
    /// A vocabulary of OpenAI.
    Bpe(Encoding),
    /// A `tokenizer.json` that the operator gave.
    #[cfg(feature = "tokenizers")]
    File(Arc<tokenizers::Tokenizer>),
    /// None: an estimate from the characters.
    Estimate {
        /// Tokens for each estimated one, see [`super::Learned::tokenizer`].
        factor: f64,
    },
}

/// A vocabulary of OpenAI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "those that are built in")]
pub enum Encoding {
    /// GPT-4o and later, the o series, gpt-oss.
    O200k,
    /// GPT-4, GPT-3.5 and the embedding models.
    Cl100k,
}

/// What models of OpenAI begin with; the first that fits counts.
const MODELS: [(&str, Encoding); 12] = [
    ("gpt-4o", Encoding::O200k),
    ("chatgpt-4o", Encoding::O200k),
    ("gpt-4.1", Encoding::O200k),
    ("gpt-4.5", Encoding::O200k),
    ("gpt-5", Encoding::O200k),
    ("gpt-oss", Encoding::O200k),
    ("o1", Encoding::O200k),
    ("o3", Encoding::O200k),
    ("o4", Encoding::O200k),
    ("gpt-4", Encoding::Cl100k),
    ("gpt-3.5", Encoding::Cl100k),
    ("text-embedding-", Encoding::Cl100k),
];

impl Encoding {
    /// The vocabulary of a model, from its name: with or without the provider before it
    /// (`openai/gpt-4o`), fine-tuned (`ft:gpt-4o-mini:org`) or not.
    #[must_use]
    pub fn of_model(name: &str) -> Option<Self> {
        let name = name.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        let name = name.strip_prefix("ft:").unwrap_or(&name);
        let found = MODELS.iter().find(|(start, _)| {
            let rest = name.strip_prefix(start);
            // `o1`, `o1-mini`, `gpt-oss:20b` and `gpt-4o`, but not `o10` or `gpt-40`.
            rest.is_some_and(|rest| start.ends_with('-') || is_end_of_word(rest))
        });
        found.map(|(_, encoding)| *encoding)
    }

    fn warmed(self) -> &'static AtomicBool {
        static O200K: AtomicBool = AtomicBool::new(false);
        static CL100K: AtomicBool = AtomicBool::new(false);
        match self {
            Self::O200k => &O200K,
            Self::Cl100k => &CL100K,
        }
    }

    fn vocabulary(self) -> &'static bpe_openai::Tokenizer {
        match self {
            Self::O200k => bpe_openai::o200k_base(),
            Self::Cl100k => bpe_openai::cl100k_base(),
        }
    }
}

fn is_end_of_word(rest: &str) -> bool {
    !rest.starts_with(|next: char| next.is_ascii_alphanumeric())
}

/// Without anything that was learnt.
impl Default for Tokenizer {
    fn default() -> Self {
        Self::Estimate { factor: 1.0 }
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json` in the format of Hugging Face.
    ///
    /// # Errors
    /// What is wrong, and what to do, without the path: if the file cannot be read or is none, or
    /// if the gateway was built without the feature `tokenizers`.
    #[cfg(feature = "tokenizers")]
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| format!("this is not a tokenizer.json: {error}"))?;
        // Made for training: a text is to be counted as long as it is.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        Ok(Self::File(Arc::new(tokenizer)))
    }

    /// Refuses: this build cannot read tokenizers.
    ///
    /// # Errors
    /// Always, with what to do.
    #[cfg(not(feature = "tokenizers"))]
    pub fn from_file(_: &Path) -> Result<Self, String> {
        Err("this build cannot read a tokenizer.json\nbuild it with `--features tokenizers`, or \
             remove `tokenizer`: tokens are then estimated"
            .to_owned())
    }

    /// The tokens of a text.
    #[must_use]
    pub fn count(&self, text: &str) -> Count {
        match self {
            Self::Bpe(encoding) => exact(encoding.vocabulary().count(text)),
            #[cfg(feature = "tokenizers")]
            Self::File(tokenizer) => match tokenizer.encode_fast(text, false) {
                Ok(encoding) => exact(encoding.len()),
                // It has no token for something in the text, and none for what is unknown.
                Err(_) => estimated(estimate::text_tokens(text), 1.0),
            },
            Self::Estimate { factor } => estimated(estimate::text_tokens(text), *factor),
        }
    }

    /// Unpacks the vocabulary on a thread of its own, so that no request waits for it: it takes a
    /// few hundred milliseconds. Does nothing from the second time on.
    pub fn warm(&self) {
        if let Self::Bpe(encoding) = *self
            && !encoding.warmed().swap(true, Ordering::Relaxed)
        {
            std::thread::spawn(move || {
                encoding.vocabulary();
            });
        }
    }

    /// The factor on an estimate; `None` if this counts.
    pub(super) const fn factor(&self) -> Option<f64> {
        match self {
            Self::Estimate { factor } => Some(*factor),
            Self::Bpe(_) => None,
            #[cfg(feature = "tokenizers")]
            Self::File(_) => None,
        }
    }
}

const fn exact(tokens: usize) -> Count {
    Count { tokens: tokens as u64, estimated: false }
}

pub(super) fn estimated(tokens: u64, factor: f64) -> Count {
    Count { tokens: (tokens as f64 * factor).ceil() as u64, estimated: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_the_vocabulary_of_their_name() {
        use Encoding::{Cl100k, O200k};
        let cases = [
            (
                O200k,
                "gpt-4o gpt-4o-mini-2024-07-18 GPT-4.1-nano gpt-5 gpt-5.1-codex o1 o1-mini o3 o4-mini",
            ),
            (
                O200k,
                "gpt-oss gpt-oss:20b openai/gpt-oss-120b openai/gpt-4o ft:gpt-4o-mini:org chatgpt-4o-latest",
            ),
            (
                Cl100k,
                "gpt-4 gpt-4-turbo gpt-4-0613 gpt-3.5-turbo text-embedding-3-small text-embedding-ada-002",
            ),
        ];
        for (encoding, names) in cases {
            for name in names.split(' ') {
                assert_eq!(Encoding::of_model(name), Some(encoding), "{name}");
            }
        }
        for name in ["", "llama3", "o10", "o1x", "gpt-40", "gpt-2", "my-gpt-4o", "ft:", "gpt-4o/x"]
        {
            assert_eq!(Encoding::of_model(name), None, "{name}");
        }
    }

    /// Counts of the tokenizer that OpenAI publishes.
    #[test]
    fn vocabularies_count_as_those_of_openai() {
        let check = |encoding, text: &str, tokens| {
            let count = Tokenizer::Bpe(encoding).count(text);
            assert_eq!(count, Count { tokens, estimated: false }, "{text}");
        };
        check(Encoding::O200k, "", 0);
        check(Encoding::O200k, "hello world", 2);
        check(Encoding::Cl100k, "tiktoken is great!", 6);
        check(Encoding::Cl100k, "antidisestablishmentarianism", 6);
        check(Encoding::O200k, "antidisestablishmentarianism", 6);
        check(Encoding::Cl100k, "2 + 2 = 4", 7);
        check(Encoding::O200k, "2 + 2 = 4", 7);
        check(Encoding::Cl100k, "お誕生日おめでとう", 9);
        check(Encoding::O200k, "お誕生日おめでとう", 8);
    }

    #[test]
    fn estimates_follow_their_factor() {
        let text = "The capital of France is Paris.";
        for (factor, tokens) in [(1.0, 8), (0.5, 4), (1.3, 11)] {
            let count = Tokenizer::Estimate { factor }.count(text);
            assert_eq!(count, Count { tokens, estimated: true });
        }
    }

    /// In time that grows with the square of the text, each of these would take minutes.
    #[test]
    fn hostile_text_takes_no_more_than_its_share() {
        for unit in ["a", " ", "\n", "aA", "'s", "\u{0301}", "99", "- "] {
            let text = unit.repeat((256 << 10) / unit.len());
            let began = std::time::Instant::now();
            let count = Tokenizer::Bpe(Encoding::O200k).count(&text);
            assert!(count.tokens > 0 && began.elapsed().as_secs() < 20, "{unit:?}");
        }
    }

    #[cfg(not(feature = "tokenizers"))]
    #[test]
    fn a_tokenizer_file_needs_the_feature() {
        let refusal = Tokenizer::from_file(Path::new("tokenizer.json")).unwrap_err();
        assert!(refusal.contains("--features tokenizers"), "{refusal}");
    }

    #[cfg(feature = "tokenizers")]
    #[test]
    fn tokenizer_files_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        let json = serde_json::json!({
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
            "pre_tokenizer": {"type": "Whitespace"},
            "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2}, "unk_token": "?"},
        });
        std::fs::write(&path, json.to_string()).unwrap();
        let tokenizer = Tokenizer::from_file(&path).unwrap();
        assert_eq!(tokenizer.count("a b c a"), Count { tokens: 4, estimated: false });
        std::fs::write(&path, "{}").unwrap();
        assert!(Tokenizer::from_file(&path).unwrap_err().contains("not a tokenizer.json"));
        assert!(Tokenizer::from_file(folder.path()).is_err());
    }
}
