//! Turns the errors of the YAML reader into problems that say how to mend them.

use serde_saphyr::{Error, MessageFormatter, UserMessageFormatter};

use super::diagnostic::{Position, Problem, printable, quote};

/// Explains why a document could not be read.
pub(super) fn explain(file: &str, error: &Error) -> Problem {
    let Position { line, column } = error.location().map_or(Position::START, Position::from);
    let (message, help) = words(root(error));
    Problem { file: file.to_owned(), line, column, message, help }
}

/// The word of a list that was probably meant: alike but for case or a few letters.
pub(super) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower: String = word.chars().take(64).flat_map(char::to_lowercase).collect();
    let distance = |candidate: &str| strsim::damerau_levenshtein(&lower, candidate);
    let best = known.iter().copied().min_by_key(|candidate| distance(candidate))?;
    (distance(best) <= 1 + best.len() / 5).then_some(best)
}

/// `did you mean …?`, if there is a near word, and all that is allowed.
pub(super) fn suggest(word: &str, known: &[&str]) -> String {
    let allowed = format!("allowed: {}", known.join(", "));
    match nearest(word, known) {
        Some(near) => format!("did you mean `{near}`? {allowed}"),
        None => allowed,
    }
}

/// The error itself, out of what the reader wraps around it.
fn root(mut error: &Error) -> &Error {
    while let Error::AliasError { error: inner, .. } | Error::WithSnippet { error: inner, .. } =
        error
    {
        error = inner;
    }
    error
}

/// What is wrong, and how to mend it. Values of the file are repeated only where they cannot be
/// secrets: in the place of a key or of an enum.
#[expect(clippy::wildcard_enum_match_arm, reason = "all others are passed to yaml()")]
fn words(error: &Error) -> (String, String) {
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown key {}", quote(field)), suggest(field, expected))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("unknown value {}", quote(variant)), suggest(variant, expected))
        }
        Error::SerdeMissingField { field, .. } => {
            (format!("the key `{field}` is missing"), format!("add `{field}: …` to this block"))
        }
        Error::DuplicateMappingKey { key, .. } => {
            let key = quote(key.as_deref().unwrap_or("?"));
            (format!("the key {key} is there twice"), "keep one of them".to_owned())
        }
        Error::Message { msg, .. } => own(msg),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            (format!("expected {expected}"), WRONG_TYPE.to_owned())
        }
        Error::Unexpected { expected, .. } => structure(expected),
        Error::NullIntoString { .. } => structure("string scalar"),
        Error::InvalidScalar { ty, .. } => scalar(ty),
        Error::InvalidBooleanStrict { .. } => scalar("bool"),
        other => yaml(other),
    }
}

/// What is wrong with the YAML itself.
#[expect(clippy::wildcard_enum_match_arm, reason = "the reader's own words serve for all others")]
fn yaml(error: &Error) -> (String, String) {
    let (message, help) = match error {
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => (
            "this document is too deep, or expands to too much",
            "a config nests at most 32 levels and has at most 100 anchors and aliases",
        ),
        Error::MultipleDocuments { .. } => (
            "a second YAML document starts here",
            "a config is one document: remove this `---` and what follows",
        ),
        Error::MergeKeyNotAllowed { .. } => (
            "merge keys (`<<`) are not supported",
            "write the keys out, or use an alias for a whole block",
        ),
        other => (
            &*printable(&UserMessageFormatter.format_message(other)),
            "look at the indentation, quotes and brackets around this place",
        ),
    };
    (message.to_owned(), help.to_owned())
}

const WRONG_TYPE: &str = "see conf/portcullis.yaml for the form of every value";

/// Our own messages carry their help on a second line.
fn own(text: &str) -> (String, String) {
    let (message, help) = text.split_once('\n').unwrap_or((text, WRONG_TYPE));
    (message.to_owned(), help.to_owned())
}

fn structure(expected: &str) -> (String, String) {
    let (message, help) = match expected {
        "mapping start" => {
            ("expected a block of keys", "write `key: value` lines; a block with no keys is `{}`")
        }
        "sequence start" => (
            "expected a list",
            "write `[a, b]`, or lines that start with `- `; an empty list is `[]`",
        ),
        "string scalar" => ("expected a single value", WRONG_TYPE),
        _ => ("unexpected structure", WRONG_TYPE),
    };
    (message.to_owned(), help.to_owned())
}

fn scalar(kind: &str) -> (String, String) {
    let (message, help) = match kind {
        "bool" | "boolean" => ("expected true or false", "write it without quotes"),
        "floating point" => ("expected a number", "write it without quotes or unit: 0.85"),
        _ => (
            "expected a whole number that is not negative",
            "write digits only, without quotes or unit",
        ),
    };
    (message.to_owned(), help.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found() {
        let known = ["block", "allow", "signing_key", "read_only"];
        for (word, expected) in [
            ("Block", Some("block")),
            ("blokc", Some("block")),
            ("signing_kye", Some("signing_key")),
            ("readonly", Some("read_only")),
            ("deny", None),
            ("", None),
            (&"x".repeat(10_000), None),
        ] {
            assert_eq!(nearest(word, &known), expected, "{word}");
        }
        assert_eq!(nearest("x", &[]), None);
    }
}
