//! Characters that go wherever they stand, and those that others stand for.

use std::ops::Range;

/// A flag of a region has so many tags after the black flag (Unicode TS 51, ED-14a).
const FLAG: usize = 7;

/// The text without control characters and the commands of terminals.
pub(super) fn without_controls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if !is_control(c) {
            out.push(c);
        } else if c == '\u{1b}' && chars.next_if_eq(&'[').is_some() {
            while chars.next_if(|c| matches!(c, ' '..='?')).is_some() {}
            chars.next_if(|c| matches!(c, '@'..='~'));
        }
    }
    out
}

const fn is_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{9f}')
}

/// The text without characters that cannot be seen, unless what stands before them needs them.
pub(super) fn without_invisible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut last, mut tags) = (None, FLAG);
    for c in text.chars() {
        tags = match c {
            '\u{1f3f4}' => 0,
            '\u{e0030}'..='\u{e007f}' => tags + 1,
            _ => FLAG,
        };
        if is_needed(c, last, tags) {
            out.push(c);
            last = Some(c);
        }
    }
    out
}

/// Whether a character can be seen, or changes how the one before it is seen.
fn is_needed(c: char, last: Option<char>, tags: usize) -> bool {
    match c {
        '\u{e0030}'..='\u{e007f}' => tags <= FLAG,
        '\u{fe00}'..='\u{fe0f}' => last.is_some_and(|last| !joins(last) && !is_latin(last)),
        '\u{e0100}'..='\u{e01ef}' => last.is_some_and(is_ideograph),
        '\u{200c}'..='\u{200f}' => last.is_some_and(|last| last > '\u{24f}' && !is_mark(last)),
        c => !is_unseen(c),
    }
}

const fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3000}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

const fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, ' ' | '\t'..='\r')
}

/// A joiner or a selector: after one of them there is no need for another.
const fn joins(c: char) -> bool {
    is_mark(c) || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

const fn is_mark(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}')
}

/// Characters that nothing needs: of no width, directional, deprecated, filling.
const fn is_unseen(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{180e}' | '\u{200b}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e002f}'
    )
}

/// The text with full-width and mathematical letters and digits as those of ASCII.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(plain_letter).collect()
}

fn plain_letter(c: char) -> char {
    if !matches!(c, '\u{ff10}'..='\u{ff5a}' | '\u{1d400}'..='\u{1d7ff}') {
        return c;
    }
    let (mut made, mut parts) = (c, 0);
    unicode_normalization::char::decompose_compatible(c, |part| (made, parts) = (part, parts + 1));
    if parts == 1 && made.is_ascii_alphanumeric() { made } else { c }
}

/// The text with blanks in a row as one, and empty lines in a row as one, in the ranges given.
pub(super) fn tidy(text: &str, prose: &[Range<usize>]) -> String {
    let (mut out, mut kept) = (String::with_capacity(text.len()), 0);
    for range in prose {
        out.push_str(text.get(kept..range.start).unwrap_or_default());
        for line in text.get(range.clone()).unwrap_or_default().split_inclusive('\n') {
            push_line(&mut out, line);
        }
        kept = range.end;
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    out
}

fn push_line(out: &mut String, line: &str) {
    let starts = out.is_empty() || out.ends_with('\n');
    if starts && matches!(line, "\n" | "\r\n") && ends_empty(out) {
        return;
    }
    let indent = if starts { line.len() - line.trim_start_matches(is_blank).len() } else { 0 };
    let (indent, rest) = line.split_at_checked(indent).unwrap_or(("", line));
    out.push_str(indent);
    let mut blank = !indent.is_empty() || (!starts && out.ends_with(is_blank));
    for c in rest.chars() {
        match (is_blank(c), blank) {
            (true, true) => {}
            (true, false) => out.push(' '),
            (false, _) => out.push(c),
        }
        blank = is_blank(c);
    }
}

/// Whether the last line is an empty one.
fn ends_empty(out: &str) -> bool {
    ["\n\n", "\n\r\n"].iter().any(|end| out.ends_with(end))
}

const fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}
