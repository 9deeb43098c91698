//! JSON figures, read from any JSON type: an upstream that writes a negative count is not worth a
//! broken stream.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Integers up to here are exact in a JSON number that passed through a double.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

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

    /// The figure, if there is one.
    pub(super) const fn get(self) -> Option<f64> {
        self.0
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

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
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
    fn a_difference_is_never_negative() {
        let number = |json: &str| serde_json::from_str::<Number>(json).unwrap();
        assert_eq!(number("null").minus(number("1")), None);
        assert_eq!(number("3").minus(number("1")), Some(2.0));
        assert_eq!(number("3").minus(number("\"\"")), Some(3.0));
        assert_eq!(number("1").minus(number("3")), None);
    }
}
