//! JSON values of which only the size or the figure matters, read without keeping them.
//!
//! They accept any JSON type: an upstream that writes `"content": null`, a list of parts or a
//! negative count is not worth a broken stream.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Integers up to here are exact in a JSON number that passed through a double.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// The UTF-8 length of all strings in a value: of the string itself, or of those in a list or
/// object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Text(pub(super) u64);

/// A figure from 0 to 2^53; anything else is as good as no figure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Number(Option<f64>);

/// A member of which `null` and absence are told apart (with `#[serde(default)]`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Member<T> {
    #[default]
    Absent,
    Null,
    Value(T),
}

impl Number {
    /// As a count; a fraction is cut off.
    pub(super) fn count(self) -> Option<u64> {
        self.0.map(|number| number as u64)
    }

    /// The sum of those that are there.
    pub(super) fn plus(self, other: Self) -> Option<f64> {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Some(a + b),
            (one, none) => one.or(none),
        }
    }

    /// The difference, if this is there and the difference is not negative.
    pub(super) fn minus(self, other: Self) -> Option<f64> {
        Self::checked(self.0? - other.0.unwrap_or(0.0)).0
    }

    /// NaN is in no range, so it is left out as well.
    fn checked(number: f64) -> Self {
        Self((0.0..=MAX_EXACT).contains(&number).then_some(number))
    }
}

impl<T> Member<T> {
    /// The value, if there is one.
    pub(super) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Member<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|value| value.map_or(Self::Null, Self::Value))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.len() as u64))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text, A::Error> {
        let mut sum = 0;
        while let Some(Text(bytes)) = seq.next_element()? {
            sum += bytes;
        }
        Ok(Text(sum))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text, A::Error> {
        let mut sum = 0;
        while let Some((IgnoredAny, Text(bytes))) = map.next_entry()? {
            sum += bytes;
        }
        Ok(Text(sum))
    }

    fn visit_unit<E>(self) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Text, E> {
        Ok(Text(0))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Text, E> {
        Ok(Text(0))
    }
}

struct NumberVisitor;

impl<'de> Visitor<'de> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_u64<E>(self, number: u64) -> Result<Number, E> {
        Ok(Number::checked(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Number, E> {
        Ok(Number::checked(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Number, E> {
        Ok(Number::checked(number))
    }

    fn visit_str<E>(self, _: &str) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_unit<E>(self) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Number, E> {
        Ok(Number(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Number, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Number(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Number, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Number(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_measured_wherever_they_are() {
        let check = |json: &str, expected| {
            assert_eq!(serde_json::from_str::<Text>(json).unwrap(), Text(expected), "{json}");
        };
        check("null", 0);
        check("true", 0);
        check("-1.5", 0);
        check(r#""""#, 0);
        check(r#""É\n""#, 3);
        check(r#"[{"type":"a","text":"bc"},"d",[1,"e"]]"#, 5);
    }

    #[test]
    fn numbers_add_up_only_when_they_are_there() {
        let number = |json: &str| serde_json::from_str::<Number>(json).unwrap();
        assert_eq!(number("1").plus(number("2.5")), Some(3.5));
        assert_eq!(number("1").plus(number("null")), Some(1.0));
        assert_eq!(number("false").plus(number("null")), None);
        assert_eq!(number("3").minus(number("1")), Some(2.0));
        assert_eq!(number("3").minus(number("\"\"")), Some(3.0));
        assert_eq!(number("1").minus(number("3")), None);
    }
}
