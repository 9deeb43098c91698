//! The structure of a JSON text, byte by byte and in constant memory: enough to tell where the
//! members of an object lie, and whether a text too large to keep came to its end.

use std::borrow::Cow;

/// How deep in a JSON text the bytes seen so far end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
    closed: bool,
    trailing: bool,
}

impl Nesting {
    /// Takes the next byte.
    pub(super) fn step(&mut self, byte: u8) {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return;
        }
        self.trailing |= self.closed && !byte.is_ascii_whitespace();
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.closed |= self.depth == 0;
            }
            _ => {}
        }
    }

    /// Whether one object or list was opened and closed, with nothing but blanks after it.
    pub(super) const fn is_whole(self) -> bool {
        self.closed && !self.trailing
    }

    const fn is_at_member_level(self) -> bool {
        self.depth == 1 && !self.in_string
    }
}

/// Takes one member out of a JSON object and keeps every other byte, or gives `None` if the object
/// has no such member. The text must be one valid object.
pub(super) fn without_member(object: &[u8], name: &str) -> Option<Vec<u8>> {
    let marks = delimiters(object);
    let (from, to) = marks.windows(2).find_map(|pair| match *pair {
        [from, to] if is_named(object.get(from + 1..to)?, name) => Some((from, to)),
        _ => None,
    })?;
    // The comma before the member goes with it; the first member takes the one after it.
    let first = marks.first() == Some(&from);
    let last = marks.last() == Some(&to);
    let (from, to) = if first { (from + 1, if last { to } else { to + 1 }) } else { (from, to) };
    Some([object.get(..from)?, object.get(to..)?].concat())
}

/// Where the members begin and end: the brace that opens, the commas between, the brace that closes.
fn delimiters(object: &[u8]) -> Vec<usize> {
    let mut nesting = Nesting::default();
    let mut marks = Vec::new();
    for (at, &byte) in object.iter().enumerate() {
        let before = nesting.is_at_member_level();
        nesting.step(byte);
        let after = nesting.is_at_member_level();
        let opens = byte == b'{' && marks.is_empty();
        let separates = byte == b',' && before && after;
        let closes = before && nesting.closed;
        if opens || separates || closes {
            marks.push(at);
        }
        if closes {
            break;
        }
    }
    marks
}

/// Compares the key; one with escapes, which no server writes, is decoded first.
fn is_named(member: &[u8], name: &str) -> bool {
    let text = member.trim_ascii_start();
    let key = text.strip_prefix(b"\"").unwrap_or_default();
    let raw = key.split(|&byte| byte == b'"').next().unwrap_or_default();
    if !raw.contains(&b'\\') {
        return raw == name.as_bytes();
    }
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Cow<'_, str>>();
    matches!(values.next(), Some(Ok(key)) if key == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_taken_out_and_the_rest_is_kept() {
        let check = |object: &str, expected: Option<&str>| {
            let edited = without_member(object.as_bytes(), "usage");
            assert_eq!(edited.as_deref(), expected.map(str::as_bytes), "{object}");
        };
        check("{}", None);
        check(r#"{"a":{"usage":1},"b":["usage"],"c":"\",\"usage\":1"}"#, None);
        check(r#"{"usage":null}"#, Some("{}"));
        check(r#" {"usage" : {"a":[1,{"b":2}]} } "#, Some(" {} "));
        check(r#"{"usage":null, "a":1}"#, Some(r#"{ "a":1}"#));
        check(r#"{"a":1, "usage":{"b":"},"}}"#, Some(r#"{"a":1}"#));
        check(r#"{"a":1.50,"usage":"]","c":"É\\"}"#, Some(r#"{"a":1.50,"c":"É\\"}"#));
        check(r#"{"a":1,"\u0075sage":[],"b":2}"#, Some(r#"{"a":1,"b":2}"#));
        check(r#"{"a":[],"b":{},"usage":null,"c":[{}]}"#, Some(r#"{"a":[],"b":{},"c":[{}]}"#));
    }

    #[test]
    fn wholeness_needs_the_last_bracket_and_nothing_after_it() {
        let check = |text: &str, expected| {
            let mut nesting = Nesting::default();
            text.bytes().for_each(|byte| nesting.step(byte));
            assert_eq!(nesting.is_whole(), expected, "{text}");
        };
        check(r#"{"a":"}"}"#, true);
        check("[{}]\n ", true);
        check("", false);
        check("  ", false);
        check(r#"{"a":"}"#, false);
        check(r#"{"a":"\"}"#, false);
        check("{}{}", false);
        check("{} x", false);
        check("[[]", false);
    }
}
