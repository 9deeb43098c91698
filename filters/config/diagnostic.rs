//! What is wrong with a config, where, and how to mend it: problems and their positions.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

/// One mistake in a config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, as it was named on the command line.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// The column in characters, from 1.
    pub column: u64,
    /// What is wrong. Never holds a secret.
    pub message: String,
    /// Why it matters, or how to mend it.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, help } = self;
        write!(f, "{file}:{line}:{column}: {message}\n  {help}")
    }
}

/// Every mistake that was found, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The problems, first to last.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A place in a config file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl Position {
    /// Where a problem of the whole file is shown.
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

impl From<Location> for Position {
    fn from(at: Location) -> Self {
        Self { line: at.line().max(1), column: at.column().max(1) }
    }
}

/// The file that a config came from, and where in it each key stands.
///
/// Keys are written as paths, such as `auth.users[0].role`. Two configs that say the same are
/// equal wherever they were written, so sources always compare equal.
#[derive(Clone, Default)]
pub struct Source {
    name: String,
    positions: BTreeMap<String, Position>,
}

impl Source {
    /// Indexes a document that was parsed before.
    ///
    /// A value that only the index cannot read costs the exact position, not the config.
    pub(super) fn new(name: &str, yaml: &str, options: serde_saphyr::Options) -> Self {
        let mut positions = BTreeMap::new();
        if let Ok(root) = serde_saphyr::from_str_with_options::<Spanned<Node>>(yaml, options) {
            index(String::new(), Position::START, &root, &mut positions);
        }
        Self { name: name.to_owned(), positions }
    }

    /// A problem at a path, or at the nearest block around it that is in the file.
    #[must_use]
    pub fn problem(&self, path: &str, message: String, help: String) -> Problem {
        let Position { line, column } = self.position(path);
        Problem { file: self.name.clone(), line, column, message, help }
    }

    /// Where a path, or the nearest block around it, stands.
    pub(super) fn position(&self, path: &str) -> Position {
        let mut rest = path;
        loop {
            if let Some(found) = self.positions.get(rest) {
                return *found;
            }
            let Some((parent, _)) = rest.rsplit_once(['.', '[']) else { return Position::START };
            rest = parent;
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)
    }
}

impl PartialEq for Source {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// Collects problems while a config is checked, so that all are shown at once.
#[derive(Debug)]
pub(super) struct Report<'a> {
    source: &'a Source,
    problems: Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(super) const fn new(source: &'a Source) -> Self {
        Self { source, problems: Vec::new() }
    }

    /// Adds a problem at a path.
    pub(super) fn add(&mut self, path: &str, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(self.source.problem(path, message.into(), help.into()));
    }

    /// Adds a problem at a path unless something holds.
    pub(super) fn require(
        &mut self,
        holds: bool,
        path: &str,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        if !holds {
            self.add(path, message, help);
        }
    }

    /// The line of a path, to name it in the text of another problem.
    pub(super) fn line(&self, path: &str) -> u64 {
        self.source.position(path).line
    }

    /// # Errors
    /// All problems that were added, in the order of the file.
    pub(super) fn finish(mut self) -> Result<(), Problems> {
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(Problems(self.problems))
    }
}

/// Text from a file for use in a message: in backticks, short, and printable.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 80;
    let short: String = text.chars().take(LONGEST).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", printable(&short))
}

/// Escapes what could steer a terminal or forge a line; quotes stay as they are.
pub(super) fn printable(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\'' | '\\' => c.to_string(),
        _ => c.escape_debug().to_string(),
    };
    text.chars().map(escaped).collect()
}

/// The shape of a YAML document, without its values.
#[derive(Debug)]
enum Node {
    Scalar,
    List(Vec<Spanned<Self>>),
    Block(Vec<(Spanned<String>, Spanned<Self>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_str<E>(self, _: &str) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut block = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            block.push(entry);
        }
        Ok(Node::Block(block))
    }
}

/// A single value is shown where it stands, a block or a list at `head`: its key, or its dash.
fn index(
    path: String,
    head: Position,
    node: &Spanned<Node>,
    into: &mut BTreeMap<String, Position>,
) {
    let mut here = head;
    match &node.value {
        Node::Scalar => here = node.referenced.into(),
        Node::List(items) => {
            for (number, item) in items.iter().enumerate() {
                index(format!("{path}[{number}]"), item.referenced.into(), item, into);
            }
        }
        Node::Block(entries) => {
            for (key, value) in entries {
                let dot = if path.is_empty() { "" } else { "." };
                index(format!("{path}{dot}{}", key.value), key.referenced.into(), value, into);
            }
        }
    }
    into.insert(path, here);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_point_at_values_and_at_the_keys_of_blocks() {
        let yaml = "a: 1\nb:\n  - x: [1, 2]\n    y: &k {z: 3}\n  - *k\nd:\n";
        let source = Source::new("f", yaml, serde_saphyr::Options::default());
        for (path, line, column) in [
            ("a", 1, 4),
            ("b", 2, 1),
            ("b[0]", 3, 5),
            ("b[0].x[1]", 3, 12),
            ("b[0].y", 4, 5),
            ("b[0].y.z", 4, 15),
            ("b[0].y.missing.deeper", 4, 5),
            ("b[1].z", 5, 5),
            ("b[7]", 2, 1),
            ("missing", 1, 1),
            ("", 1, 1),
        ] {
            assert_eq!(source.position(path), Position { line, column }, "{path}");
        }
    }

    #[test]
    fn quoted_text_is_short_and_harmless() {
        for (text, expected) in [
            ("plain 'it\"s", "`plain 'it\"s`"),
            ("\u{1b}[31m\n", "`\\u{1b}[31m\\n`"),
            (&"x".repeat(81), &format!("`{}…`", "x".repeat(80))),
        ] {
            assert_eq!(quote(text), expected);
        }
    }

    #[test]
    fn problems_print_one_after_the_other() {
        let source = Source::new("f.yaml", "a: 1\nb: 2\n", serde_saphyr::Options::default());
        let mut report = Report::new(&source);
        report.add("b", "second", "help b");
        report.require(true, "b", "never", "never");
        report.require(false, "a", "first", "help a");
        let problems = report.finish().expect_err("two problems");
        assert_eq!(
            problems.to_string(),
            "f.yaml:1:4: first\n  help a\nf.yaml:2:4: second\n  help b"
        );
        assert_eq!(
            serde_json::to_string(&problems.as_slice()[0]).unwrap(),
            r#"{"file":"f.yaml","line":1,"column":4,"message":"first","help":"help a"}"#
        );
    }
}
