//! Strict JSON: one parse that every reader of the same bytes must agree with.
//!
//! Upstreams differ in what they do with ambiguous JSON: Go's `encoding/json` takes the last of two
//! equal keys and matches keys by Unicode case folding, so `{"model":"a","Model":"b"}` means `b` to
//! Ollama. What is ambiguous is refused here (RFC 8259 section 4), and upstreams only ever see what
//! was serialised again from this tree.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Number;

use crate::verdict::{Denial, Reason};

/// Nesting that no client needs more of; serde_json itself stops at 128.
const MAX_DEPTH: u16 = 64;
/// Values and keys in one document: bounds memory to a small multiple of the body.
const MAX_NODES: u32 = 500_000;
/// Objects up to this size are checked for duplicates without hashing.
const SMALL_OBJECT: usize = 8;

/// A JSON value; objects keep the order of their members and have no two alike keys.
#[derive(Clone, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "JSON has these six kinds of value")]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number; integers outside of 64 bits are floats.
    Num(Number),
    /// A string
    Str(String),
    /// An array
    Arr(Vec<Self>),
    /// An object
    Obj(Object),
}

/// The members of a JSON object, in their order.
#[derive(Clone, Default, PartialEq)]
pub struct Object(Vec<(String, Json)>);

impl Json {
    /// Parses a whole document.
    ///
    /// # Errors
    /// [`Reason::InvalidRequest`] for what RFC 8259 forbids (also a byte order mark, bad UTF-8, lone
    /// surrogates, trailing data), for keys that are equal after case folding, and for nesting
    /// or a number of values beyond what any client needs.
    pub fn parse(bytes: &[u8]) -> Result<Self, Denial> {
        let mut nodes = MAX_NODES;
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let value = Seed { depth: MAX_DEPTH, nodes: &mut nodes }
            .deserialize(&mut reader)
            .and_then(|value| reader.end().map(|()| value));
        value.map_err(|error| {
            Denial::new(Reason::InvalidRequest, format!("the body is not acceptable JSON: {error}"))
        })
    }

    /// The JSON text of this value.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The text, if this is a string.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// The members, if this is an object.
    #[must_use]
    pub const fn as_object(&self) -> Option<&Object> {
        if let Self::Obj(object) = self { Some(object) } else { None }
    }

    /// The integer, if this is one that fits.
    #[must_use]
    pub fn as_i64(&self) -> Option<i64> {
        if let Self::Num(number) = self { number.as_i64() } else { None }
    }
}

impl From<u64> for Json {
    fn from(value: u64) -> Self {
        Self::Num(value.into())
    }
}

impl From<&str> for Json {
    fn from(value: &str) -> Self {
        Self::Str(value.to_owned())
    }
}

impl Object {
    /// The value of a member.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The value of a member, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Json> {
        self.0.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Replaces a member in its place, or appends it.
    pub fn set(&mut self, key: &str, value: Json) {
        match self.get_mut(key) {
            Some(old) => *old = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Takes a member out.
    pub fn remove(&mut self, key: &str) -> Option<Json> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    /// The members in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The members in their order, values to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Json)> {
        self.0.iter_mut().map(|(key, value)| (key.as_str(), value))
    }

    /// How many members there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Case folding as wide as that of any upstream: `ſ` folds to `s`, the Kelvin sign to `k`.
#[must_use]
pub fn fold(key: &str) -> String {
    if key.is_ascii() {
        return key.to_ascii_lowercase();
    }
    key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

struct Seed<'a> {
    depth: u16,
    nodes: &'a mut u32,
}

impl Seed<'_> {
    fn inner<E: serde::de::Error>(&mut self) -> Result<Seed<'_>, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        *self.nodes = self.nodes.checked_sub(1).ok_or_else(|| E::custom("too many values"))?;
        Ok(Seed { depth, nodes: self.nodes })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Num(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Num(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        Number::from_f64(value).map(Json::Num).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Str(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Str(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.inner()?)? {
            items.push(item);
        }
        Ok(Json::Arr(items))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Json, A::Error> {
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut seen = Seen::default();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(&members, &key) {
                return Err(serde::de::Error::custom("two keys are the same"));
            }
            let value = map.next_value_seed(self.inner()?)?;
            members.push((key, value));
        }
        Ok(Json::Obj(Object(members)))
    }
}

/// The folded keys of one object; small objects need no set.
#[derive(Default)]
struct Seen(HashSet<String>);

impl Seen {
    fn insert(&mut self, members: &[(String, Json)], key: &str) -> bool {
        if members.len() < SMALL_OBJECT {
            return !members.iter().any(|(old, _)| same_key(old, key));
        }
        if self.0.is_empty() {
            self.0.extend(members.iter().map(|(old, _)| fold(old)));
        }
        self.0.insert(fold(key))
    }
}

fn same_key(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() { a.eq_ignore_ascii_case(b) } else { fold(a) == fold(b) }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Num(value) => value.serialize(serializer),
            Self::Str(value) => serializer.serialize_str(value),
            Self::Arr(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            Self::Obj(object) => object.serialize(serializer),
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

/// Shows the shape only: a prompt must not reach a log through `Debug`.
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Num(value) => write!(f, "{value}"),
            Self::Str(text) => write!(f, "string of {} bytes", text.len()),
            Self::Arr(items) => write!(f, "array of {}", items.len()),
            Self::Obj(object) => object.fmt(f),
        }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &[u8]) {
        assert!(Json::parse(body).is_err(), "accepted {}", String::from_utf8_lossy(body));
    }

    #[test]
    fn keeps_order_numbers_and_text() {
        for text in [
            r#"{"z":1,"a":[true,null,-2,0.7],"m":{"k":"grüße \" 😀"}}"#,
            r#"{"big":18446744073709551615,"small":-9223372036854775808}"#,
        ] {
            assert_eq!(Json::parse(text.as_bytes()).unwrap().to_bytes(), text.as_bytes());
        }
    }

    #[test]
    fn refuses_keys_that_an_upstream_could_take_for_the_same() {
        for body in [
            r#"{"model":"a","model":"b"}"#,
            r#"{"model":"a","Model":"b"}"#,
            r#"{"model":"a","mod\u0065l":"b"}"#,
            r#"{"stream":1,"ſtream":2}"#,
            "{\"keep_alive\":1,\"\u{212a}eep_alive\":2}",
            r#"{"options":{"a":1,"A":2}}"#,
            r#"{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"B":2}"#,
        ] {
            refused(body.as_bytes());
        }
    }

    #[test]
    fn refuses_what_is_not_one_json_document() {
        let cases: &[&[u8]] = &[
            b"",
            b"  ",
            b"{}x",
            b"{}{}",
            b"{}\0",
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":\"\xed\xa0\x80\"}",
            b"{\"a\":\"\\ud800\"}",
            b"{\"a\":\"\n\"}",
            b"{\"a\":NaN}",
            b"{\"a\":1e400}",
            b"{\"a\":01}",
            b"{'a':1}",
            b"{a:1}",
            b"{\"a\":1,}",
            b"{/*x*/}",
        ];
        cases.iter().for_each(|body| refused(body));
    }

    #[test]
    fn refuses_depth_and_numbers_of_values() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(Json::parse(deep(60).as_bytes()).is_ok());
        refused(deep(65).as_bytes());
        refused(deep(200_000).as_bytes());
        refused(format!("[{}1]", "1,".repeat(MAX_NODES as usize)).as_bytes());
    }

    #[test]
    fn debug_shows_no_text() {
        let shown = format!("{:?}", Json::parse(br#"{"content":"my secret"}"#).unwrap());
        assert!(!shown.contains("secret"), "{shown}");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            drop(Json::parse(&bytes));
        }
    }
}
