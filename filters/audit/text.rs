//! Text from outside, made fit for a log line: bounded, visible, and without credentials in it.

use std::fmt;

use serde::Serialize;

/// The longest text that a record holds, in characters.
pub const MAX_CHARS: usize = 256;

/// What stands in place of a credential.
const MASK: &str = "[redacted]";

/// How API keys and JSON web tokens begin (`{"` is `eyJ` in base64url).
const CREDENTIAL_STARTS: [&str; 3] = ["sk_", "sk-", "eyJ"];

/// A word that begins like a credential is taken for one from this length on.
const CREDENTIAL_LEN: usize = 20;

/// A user agent, path, model or name as a record holds it.
///
/// At most [`MAX_CHARS`] characters; cut text ends in `…`. Characters that a terminal or a viewer
/// would act on and JSON leaves bare (C1 controls, bidirectional overrides, line separators) are
/// dropped, the C0 controls are escaped by JSON (ASVS 5.0 16.4.1). Words that look like one of our
/// credentials are masked, because callers put keys into paths and passwords into user names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text(Box<str>);

impl Text {
    /// Takes any text.
    #[must_use]
    pub fn new(raw: &str) -> Self {
        if is_plain(raw) && !raw.contains("sk") && !raw.contains("eyJ") {
            return Self(raw.into());
        }
        // Bounded before it is looked at: invisible characters must not buy work.
        let visible: String = raw.chars().take(4 * MAX_CHARS).filter(is_kept).collect();
        Self(cut(&mask_credentials(&visible)).into())
    }

    /// Takes a header value, which need not be UTF-8; what is not is dropped.
    #[must_use]
    pub fn from_bytes(raw: &[u8]) -> Self {
        let head = raw.get(..16 * MAX_CHARS).unwrap_or(raw);
        Self::new(&String::from_utf8_lossy(head))
    }

    /// Takes a request target without its query, where callers put credentials (RFC 9700 4.3.2).
    #[must_use]
    pub fn path(target: &str) -> Self {
        Self::new(target.split(['?', '#']).next().unwrap_or_default())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_plain(raw: &str) -> bool {
    raw.len() <= MAX_CHARS && raw.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn is_kept(character: &char) -> bool {
    !matches!(
        character,
        '\u{7f}'..='\u{9f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}'
            | '\u{fffd}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_CHARS {
        return text.to_owned();
    }
    text.chars().take(MAX_CHARS - 1).chain(['…']).collect()
}

fn mask_credentials(text: &str) -> String {
    text.split_inclusive(|c: char| !is_token_char(c)).map(mask_word).collect()
}

/// Masks one word, which may be followed by the character that ends it.
fn mask_word(piece: &str) -> String {
    let word = piece.trim_end_matches(|c| !is_token_char(c));
    if word.len() < CREDENTIAL_LEN || !CREDENTIAL_STARTS.iter().any(|s| word.starts_with(s)) {
        return piece.to_owned();
    }
    piece.replacen(word, MASK, 1)
}

fn is_token_char(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, expected: &str) {
        assert_eq!(Text::new(raw).as_str(), expected, "{raw:?}");
    }

    #[test]
    fn text_is_cleaned() {
        check("", "");
        check("curl/8.0", "curl/8.0");
        check("Grüße, 世界", "Grüße, 世界");
        check("a\nb\x1b[31m", "a\nb\x1b[31m"); // JSON escapes these
        check("a\u{9b}31m", "a31m");
        check("a\u{202e}b\u{2028}c\u{feff}d\u{e0041}", "abcd");
    }

    #[test]
    fn credentials_are_masked() {
        check("sk_live_abcdefgh_0123456789", "[redacted]");
        check("x sk_live_abcdefgh_0123456789 y", "x [redacted] y");
        check("/v1/sk-0123456789abcdefghij/chat", "/v1/[redacted]/chat");
        check("t=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln;", "t=[redacted];");
        check("s\u{200b}k_live_abcdefgh_0123456789", "[redacted]");
        check("sk_short", "sk_short");
        check("qwen-task-sk-finetune-2026-11", "qwen-task-sk-finetune-2026-11");
    }

    #[test]
    fn text_is_bounded() {
        let long = Text::new(&"ü".repeat(10_000));
        assert_eq!(long.as_str().chars().count(), MAX_CHARS);
        assert!(long.as_str().ends_with('…'));
        assert_eq!(Text::new(&"a".repeat(MAX_CHARS)).as_str().len(), MAX_CHARS);
        assert_eq!(Text::new(&"\u{200b}".repeat(1_000_000)).as_str(), "");
    }

    #[test]
    fn bytes_that_are_not_utf8_are_dropped() {
        assert_eq!(Text::from_bytes(b"a\xff\xed\xa0\x80b").as_str(), "ab");
        assert_eq!(Text::from_bytes(&[b'a'; 100_000]).as_str().chars().count(), MAX_CHARS);
    }

    #[test]
    fn a_path_loses_its_query() {
        assert_eq!(Text::path("/v1/models?api_key=secret").as_str(), "/v1/models");
        assert_eq!(Text::path("/v1/models#secret").as_str(), "/v1/models");
    }
}
