//! Globs over names: `*` stands for any run of characters, everything else for itself.

use std::fmt;

/// A compiled glob. Names are compared in lower case, as model names are.
#[derive(Clone, PartialEq, Eq)]
pub struct Glob(String);

impl Glob {
    /// Compiles a glob.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_ascii_lowercase())
    }

    /// Whether the whole name matches. Linear in the name for each `*`.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let Some((head, tail)) = self.0.split_once('*') else { return self.0 == name };
        let Some(mut rest) = name.strip_prefix(head) else { return false };
        let mut parts = tail.split('*').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            // The leftmost place is always good enough: later parts only get more room.
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        true
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_whole_names() {
        for (pattern, name, expected) in [
            ("phi", "phi", true),
            ("phi", "phi3", false),
            ("*", "", true),
            ("*", "anything", true),
            ("llama3*", "llama3.2:1b", true),
            ("llama3*", "llama2", false),
            ("*:1b", "x:1b", true),
            ("*:1b", "x:1b-q4", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("GPT-*", "gpt-4o", true),
            ("a*a", "a", false),
            ("a**b", "ab", true),
            ("qwen/*", "qwen/x", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(name), expected, "{pattern} {name}");
        }
    }
}
