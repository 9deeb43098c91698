//! Lists of models, cut down to those that the caller may use.

use bytes::{Bytes, BytesMut};
use serde_json::Value;

use super::broken_off;
use crate::verdict::Denial;

/// Where servers list models: OpenAI in `data`, Ollama in `models`, llama.cpp in both.
const LISTS: [&str; 2] = ["data", "models"];

/// Under which names an entry names its model; each of them must be allowed.
const NAMES: [&str; 3] = ["id", "name", "model"];

/// A list that is held back until it is all there.
#[derive(Debug, Default)]
pub(super) struct List {
    held: BytesMut,
}

impl List {
    /// Holds back a chunk.
    pub(super) fn push(&mut self, chunk: &[u8], max_buffered: usize) -> Result<(), Denial> {
        if self.held.len() + chunk.len() > max_buffered {
            return Err(broken_off(format!("a list is longer than {max_buffered} bytes")));
        }
        self.held.extend_from_slice(chunk);
        Ok(())
    }

    /// The list with the allowed models only. Members that are not known are kept; an entry that
    /// names no model is not.
    pub(super) fn finish(&mut self, allow: &dyn Fn(&str) -> bool) -> Result<Bytes, Denial> {
        let held = self.held.split();
        let mut body: Value = serde_json::from_slice(&held)
            .map_err(|_| broken_off("a list of models is not whole JSON"))?;
        for list in LISTS {
            match body.get_mut(list) {
                None | Some(Value::Null) => {}
                Some(Value::Array(entries)) => entries.retain(|entry| is_allowed(entry, allow)),
                Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                    return Err(broken_off("a list of models is not a list"));
                }
            }
        }
        Ok(Bytes::from(body.to_string()))
    }
}

fn is_allowed(entry: &Value, allow: &dyn Fn(&str) -> bool) -> bool {
    let mut names = NAMES.iter().filter_map(|name| entry.get(name)).peekable();
    names.peek().is_some() && names.all(|name| name.as_str().is_some_and(allow))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_down() {
        let check = |body: &str, expected: Option<&str>| {
            let mut list = List::default();
            list.push(body.as_bytes(), 1000).unwrap();
            let found = list.finish(&|model| model.starts_with("mine")).ok();
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{body}");
        };
        check(
            r#"{"object":"list","data":[{"id":"mine","x":1.50},{"id":"other"}]}"#,
            Some(r#"{"data":[{"id":"mine","x":1.5}],"object":"list"}"#),
        );
        check(
            r#"{"models":[{"name":"mine:1b","model":"mine:1b"},{"name":"mine","model":"other"}]}"#,
            Some(r#"{"models":[{"model":"mine:1b","name":"mine:1b"}]}"#),
        );
        check(
            r#"{"data":[{"id":"other"}],"models":[{"name":"mine"}]}"#,
            Some(r#"{"data":[],"models":[{"name":"mine"}]}"#),
        );
        check(r#"{"models":[]}"#, Some(r#"{"models":[]}"#));
        check(r#"{"models":null}"#, Some(r#"{"models":null}"#));
        check(r#"{"data":["mine",{},{"id":7},null]}"#, Some(r#"{"data":[]}"#));
        check(r#"{"data":{"id":"mine"}}"#, None);
        check(r#"{"data":[{"id":"mine"}]"#, None);
        check("", None);
    }

    #[test]
    fn lists_are_bounded() {
        let mut list = List::default();
        assert!(list.push(b"1234", 6).is_ok());
        assert!(list.push(b"567", 6).is_err());
    }
}
