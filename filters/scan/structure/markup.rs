//! HTML as far as one must know it to say what of it is shown: tags, attributes and comments.
//!
//! One pass, without a tree and without going back: a tag ends at the first `>` outside quotes, and
//! a `<` that begins no tag is a sign like any other (HTML Living Standard, section 13.2.5).

use std::ops::Range;

use memchr::{memchr, memmem};

/// Elements that hold program text, in which nothing is markup.
const PROGRAMS: [&str; 2] = ["script", "style"];

/// A quoted value that is longer is not taken for one: a lone quote costs no more than this.
const LONGEST_VALUE: usize = 4096;

/// What a piece of markup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) enum Markup<'t> {
    /// A start tag, with its name and its attributes.
    Open(&'t str, Attributes<'t>),
    /// A script or a style sheet from its start tag to its end tag, with name, attributes and text.
    Program(&'t str, Attributes<'t>, &'t str),
    /// An end tag, with its name.
    Close(&'t str),
    /// A comment, with its text.
    Comment(&'t str),
    /// A declaration or a processing instruction.
    Other,
}

/// The markup of a text in its order, each with the bytes that it takes.
pub(in crate::scan) fn markup(text: &str) -> impl Iterator<Item = (Range<usize>, Markup<'_>)> {
    let (mut at, mut programs) = (0, Programs::default());
    std::iter::from_fn(move || {
        loop {
            let start = at + memchr(b'<', text.as_bytes().get(at..)?)?;
            at = start + 1;
            if let Some((end, found)) = one(text, start, &mut at) {
                let (end, found) = programs.complete(text, end, found);
                at = end;
                return Some((start..end, found));
            }
        }
    })
}

/// Which end tags are known not to follow any more.
#[derive(Default)]
struct Programs {
    unclosed: [bool; PROGRAMS.len()],
}

impl Programs {
    /// Adds the text and the end tag to the start tag of a program; an open one is but a tag.
    fn complete<'t>(&mut self, text: &'t str, at: usize, found: Markup<'t>) -> (usize, Markup<'t>) {
        let Markup::Open(name, attributes) = found else { return (at, found) };
        let known = PROGRAMS.iter().position(|known| known.eq_ignore_ascii_case(name));
        let unclosed = known.and_then(|index| self.unclosed.get_mut(index)).filter(|open| !**open);
        let Some(unclosed) = unclosed else { return (at, found) };
        let rest = text.get(at..).unwrap_or_default();
        let Some(length) = end_of_program(rest, name) else {
            *unclosed = true;
            return (at, found);
        };
        let inner = rest.get(..length).unwrap_or_default();
        let from = at + length + 2 + name.len();
        let end = memchr(b'>', text.as_bytes().get(from..).unwrap_or_default());
        let end = end.map_or(text.len(), |more| from + more + 1);
        (end, Markup::Program(name, attributes, inner))
    }
}

/// Where the end tag of a program begins.
fn end_of_program(text: &str, name: &str) -> Option<usize> {
    let is_end = |at: &usize| {
        let found = text.get(at + 2..at + 2 + name.len());
        let after = text.as_bytes().get(at + 2 + name.len());
        found.is_some_and(|f| f.eq_ignore_ascii_case(name)) && after.is_none_or(|b| ends_name(*b))
    };
    memmem::find_iter(text.as_bytes(), b"</").find(is_end)
}

/// What begins at the `<` at `start`, and its end; if nothing does, `next` is where to go on.
fn one<'t>(text: &'t str, start: usize, next: &mut usize) -> Option<(usize, Markup<'t>)> {
    let rest = text.get(start..)?;
    if let Some(body) = rest.strip_prefix("<!--") {
        let length = memmem::find(body.as_bytes(), b"-->");
        let end = length.map_or(text.len(), |length| start + 4 + length + 3);
        return Some((end, Markup::Comment(body.get(..length.unwrap_or(body.len()))?)));
    }
    let after = start + 1;
    match text.as_bytes().get(after)? {
        b'/' => {
            let name = name_at(text, after + 1)?;
            let end = tag_end(text, after + 1 + name.len()).map_err(|at| *next = at).ok()?;
            Some((end, Markup::Close(name)))
        }
        b'!' | b'?' => {
            let end = tag_end(text, after).map_err(|at| *next = at).ok()?;
            Some((end, Markup::Other))
        }
        _ => {
            let name = name_at(text, after)?;
            let from = after + name.len();
            let end = tag_end(text, from).map_err(|at| *next = at).ok()?;
            Some((end, Markup::Open(name, Attributes(text.get(from..end - 1)?))))
        }
    }
}

/// The name of a tag that begins at `at` and ends at a byte that may end one.
fn name_at(text: &str, at: usize) -> Option<&str> {
    let rest = text.get(at..)?;
    let length = rest.bytes().take_while(|b| is_name(*b)).count();
    let ends = rest.as_bytes().get(length).is_none_or(|b| ends_name(*b));
    rest.get(..length).filter(|name| ends && name.starts_with(|c: char| c.is_ascii_alphabetic()))
}

const fn is_name(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b':' | b'_')
}

const fn ends_name(b: u8) -> bool {
    b.is_ascii_whitespace() || matches!(b, b'>' | b'/')
}

/// Behind the `>` of a tag; or where no tag can go on, at a `<` or at the end.
fn tag_end(text: &str, from: usize) -> Result<usize, usize> {
    let bytes = text.as_bytes();
    let (mut at, mut assigned) = (from, false);
    while let Some(&b) = bytes.get(at) {
        match b {
            b'>' => return Ok(at + 1),
            b'<' => return Err(at),
            b'"' | b'\'' if assigned => at = quote_end(bytes, at),
            _ => {}
        }
        assigned = b == b'=' || (assigned && b.is_ascii_whitespace());
        at += 1;
    }
    Err(text.len())
}

/// The place of the quote that closes the one at `at`, or `at` if none is near.
fn quote_end(bytes: &[u8], at: usize) -> usize {
    let Some(&quote) = bytes.get(at) else { return at };
    let near = bytes.get(at + 1..).unwrap_or_default();
    let near = near.get(..LONGEST_VALUE).unwrap_or(near);
    memchr(quote, near).map_or(at, |length| at + 1 + length)
}

/// The attributes of a start tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) struct Attributes<'t>(&'t str);

impl<'t> Attributes<'t> {
    /// Names and values in their order.
    pub(in crate::scan) fn iter(self) -> impl Iterator<Item = (&'t str, Option<&'t str>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
            let ends = |c: char| c.is_ascii_whitespace() || matches!(c, '=' | '/');
            let (name, after) = rest.split_at_checked(rest.find(ends).unwrap_or(rest.len()))?;
            let (value, after) = value(after);
            let moved = after.len() < rest.len();
            rest = after;
            moved.then_some((name, value))
        })
    }

    /// The value of an attribute; of one without a value the empty one.
    pub(in crate::scan) fn get(self, name: &str) -> Option<&'t str> {
        let found = self.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.unwrap_or_default())
    }
}

/// The value at the beginning of a text, if there is an `=` before it, and what follows.
fn value(text: &str) -> (Option<&str>, &str) {
    let Some(text) = text.trim_ascii_start().strip_prefix('=') else { return (None, text) };
    let text = text.trim_ascii_start();
    for quote in ['"', '\''] {
        if let Some((value, after)) = text.strip_prefix(quote).and_then(|t| t.split_once(quote)) {
            return (Some(value), after);
        }
    }
    let end = text.find(|c: char| c.is_ascii_whitespace()).unwrap_or(text.len());
    let (value, after) = text.split_at_checked(end).unwrap_or((text, ""));
    (Some(value), after)
}

/// Whether an element of this name has no content and no end tag.
pub(in crate::scan) fn is_void(name: &str) -> bool {
    const VOID: [&str; 14] = [
        "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param",
        "source", "track", "wbr",
    ];
    VOID.iter().any(|void| void.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found: Vec<_> = markup(text).filter_map(|(range, _)| text.get(range)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn tags_and_comments_are_told_from_signs() {
        check("<p class='a>b'>x</p >", &["<p class='a>b'>", "</p >"]);
        check("if a < b && c > d <!-- no\n-->", &["<!-- no\n-->"]);
        check("Vec<String> x<y", &["<String>"]);
        check("<!DOCTYPE html><br/>", &["<!DOCTYPE html>", "<br/>"]);
        check("<a <b> <1> <é> <mail@x.com> <!-- open", &["<b>", "<!-- open"]);
        check("<a href=\"x > y", &["<a href=\"x >"]);
        check("<", &[]);
        check("<style>a>b</style><p>", &["<style>a>b</style>", "<p>"]);
        check(
            "<SCRIPT x>'<p a=\"' </scripts></script\n><b>",
            &["<SCRIPT x>'<p a=\"' </scripts></script\n>", "<b>"],
        );
        check("<script><b><script>", &["<script>", "<b>", "<script>"]);
    }

    #[test]
    fn attributes_are_read_in_any_writing() {
        let (_, tag) = markup("<i HIDDEN Style = 'a: b' x=1 y=\"\" / z>").next().expect("a tag");
        let Markup::Open("i", attributes) = tag else { panic!("{tag:?}") };
        let expected = [
            ("HIDDEN", None),
            ("Style", Some("a: b")),
            ("x", Some("1")),
            ("y", Some("")),
            ("z", None),
        ];
        assert_eq!(attributes.iter().collect::<Vec<_>>(), expected);
        assert_eq!((attributes.get("style"), attributes.get("q")), (Some("a: b"), None));
    }

    #[test]
    fn attributes_end_however_they_are_broken() {
        for text in ["<a ===>", "<a =>", "<a = '>", "<a '\"'=\">", "<a / />"] {
            for (_, tag) in markup(text) {
                let Markup::Open(_, attributes) = tag else { panic!("{tag:?}") };
                assert!(attributes.iter().take(20).count() < 20, "{text}");
            }
        }
    }
}
