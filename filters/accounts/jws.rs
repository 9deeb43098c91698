//! The outer form of a token: three parts of base64url, two of them JSON objects.
//!
//! Nothing here knows a key. The reader is made for tokens that this gateway wrote, so whatever it
//! would not have written itself is refused, even where RFC 7515 leaves room.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::claims::TokenError;

/// A JWS in compact form (RFC 7515 section 7.1).
pub(super) struct Compact<'a> {
    pub(super) header: &'a str,
    pub(super) payload: &'a str,
    pub(super) signature: &'a str,
    /// What is signed: header and payload as they stand there.
    pub(super) message: &'a str,
}

impl<'a> Compact<'a> {
    pub(super) fn split(token: &'a str) -> Result<Self, TokenError> {
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::NotCompact)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::NotCompact)?;
        match [header, payload, signature].into_iter().all(is_base64url) {
            true => Ok(Self { header, payload, signature, message }),
            false => Err(TokenError::NotCompact),
        }
    }
}

/// The whole header: a member more, less or twice refuses the token, `crit`, `jku`, `jwk`, `x5u`,
/// `x5c`, `zip` and `b64` among them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) typ: String,
    pub(super) kid: String,
}

impl Header {
    pub(super) fn decode(part: &str) -> Result<Self, TokenError> {
        object(part).ok_or(TokenError::Header)
    }
}

/// Encodes a part of a token.
pub(super) fn encode(part: &impl Serialize) -> Option<String> {
    serde_json::to_vec(part).ok().map(|json| URL_SAFE_NO_PAD.encode(json))
}

/// Decodes a part that is a JSON object; serde would take an array for a struct, too.
pub(super) fn object<T: DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    bytes.starts_with(b"{").then(|| serde_json::from_slice(&bytes).ok())?
}

fn is_base64url(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !part.is_empty() && part.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn part(json: &str) -> String {
        URL_SAFE_NO_PAD.encode(json)
    }

    #[test]
    fn a_token_has_exactly_three_parts_of_base64url() {
        let cases = [
            ("a.b.c", true),
            ("-_0.zZ9.AA", true),
            ("", false),
            ("a", false),
            ("a.b", false),
            ("..", false),
            (".b.c", false),
            ("a..c", false),
            ("a.b.", false),
            ("a.b.c.", false),
            ("a.b.c.d", false),
            ("a.b.c.d.e", false),
            ("a=.b.c", false),
            ("a.b.c==", false),
            ("a+.b.c", false),
            ("a.b/.c", false),
            ("a. b.c", false),
            ("a.b.c\n", false),
            ("%00.%00.%00", false),
            ("ä.b.c", false),
            ("{\"protected\":\"a\",\"payload\":\"b\",\"signature\":\"c\"}", false),
        ];
        for (token, good) in cases {
            assert_eq!(Compact::split(token).is_ok(), good, "{token:?}");
        }
    }

    #[test]
    fn a_header_has_exactly_three_members() {
        let cases = [
            (r#"{"alg":"HS256","typ":"t","kid":"k"}"#, true),
            (r#"{"kid":"k","alg":"HS256","typ":"t"}"#, true),
            (r#"{"alg":"HS256","typ":"t"}"#, false),
            (r#"{"alg":"HS256","kid":"k"}"#, false),
            (r#"{"typ":"t","kid":"k"}"#, false),
            (r#"{"alg":"HS256","typ":"t","kid":"k","kid":"k"}"#, false),
            (r#"{"alg":"none","typ":"t","kid":"k","\u0061lg":"HS256"}"#, false),
            (r#"{"alg":"HS256","typ":"t","kid":"k","Alg":"none"}"#, false),
            (r#"{"alg":"HS256","typ":"t","kid":null}"#, false),
            (r#"{"alg":["HS256"],"typ":"t","kid":"k"}"#, false),
            (r#"["HS256","t","k"]"#, false),
            (r#" {"alg":"HS256","typ":"t","kid":"k"}"#, false),
            (r#"{"alg":"HS256","typ":"t","kid":"k"}{}"#, false),
            (r#"{"alg":"HS256","typ":"t","kid":"k"}x"#, false),
            ("{}", false),
            ("null", false),
            ("", false),
        ];
        for (json, good) in cases {
            assert_eq!(Header::decode(&part(json)).is_ok(), good, "{json}");
        }
        for name in ["crit", "jku", "jwk", "x5u", "x5c", "x5t", "zip", "b64", "cty", "exp", "foo"] {
            let json = json!({"alg": "HS256", "typ": "t", "kid": "k", name: "x"}).to_string();
            assert!(Header::decode(&part(&json)).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Header::decode(&text).is_err());
            prop_assert!(Header::decode(&URL_SAFE_NO_PAD.encode(&bytes)).is_err());
            prop_assert_eq!(Compact::split(&text).is_ok(), text.split('.').count() == 3 && text.split('.').all(is_base64url));
        }
    }
}
