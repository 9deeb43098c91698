//! The text of a member, read without a copy where JSON allows it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// All strings in a value, one after the other: the string itself, or those in a list or object. It
/// accepts any JSON type: an upstream that writes `"content": null` or a list of parts is not worth
/// a broken stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'a> Text<'a> {
    /// Adds what follows; what stands alone is not copied.
    fn append(&mut self, next: Self) {
        if self.0.is_empty() {
            *self = next;
        } else if !next.0.is_empty() {
            self.0.to_mut().push_str(&next.0);
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text<'de>, A::Error> {
        let mut all = Text::default();
        while let Some(text) = seq.next_element()? {
            all.append(text);
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text<'de>, A::Error> {
        let mut all = Text::default();
        while let Some((IgnoredAny, text)) = map.next_entry()? {
            all.append(text);
        }
        Ok(all)
    }

    fn visit_unit<E>(self) -> Result<Text<'de>, E> {
        Ok(Text::default())
    }

    fn visit_bool<E>(self, _: bool) -> Result<Text<'de>, E> {
        Ok(Text::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Text<'de>, E> {
        Ok(Text::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Text<'de>, E> {
        Ok(Text::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Text<'de>, E> {
        Ok(Text::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_found_wherever_they_are() {
        let check = |json: &str, expected: &str| {
            assert_eq!(serde_json::from_str::<Text<'_>>(json).unwrap().0, expected, "{json}");
        };
        check("null", "");
        check("true", "");
        check("-1.5", "");
        check(r#""""#, "");
        check(r#""É\n""#, "É\n");
        check(r#"[{"type":"a","text":"bc"},"d",[1,"e"],[[],{}]]"#, "abcde");
    }

    #[test]
    fn plain_strings_are_not_copied() {
        let borrowed = |json| matches!(serde_json::from_str(json), Ok(Text(Cow::Borrowed(text))) if !text.is_empty());
        assert!(borrowed(r#""plain""#) && borrowed(r#"["",{"a":"plain"}]"#));
        assert!(!borrowed(r#""esc\u0041ped""#));
    }
}
