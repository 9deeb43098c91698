//! Which parts of a text are code in Markdown: what stands between fences, and between backticks.

use std::ops::Range;

/// The fenced blocks and the inline code of a text (CommonMark 0.31, sections 4.5 and 6.1), in
/// their order. An open fence goes on to the end; backticks that nothing closes in the paragraph
/// are signs.
fn code_ranges(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    if memchr::memchr2(b'`', b'~', text.as_bytes()).is_none() {
        return found;
    }
    let mut paragraph = Paragraph::default();
    let mut fence: Option<(Fence, usize)> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let here = start..start + line.len();
        start = here.end;
        match (&fence, Fence::of(line)) {
            (Some((open, from)), Some(mark)) if mark.closes(open) => {
                found.push(*from..here.end);
                fence = None;
            }
            (Some(_), _) => {}
            (None, Some(mark)) => {
                paragraph.end(&mut found);
                fence = Some((mark, here.start));
            }
            (None, None) if line.trim_ascii().is_empty() => paragraph.end(&mut found),
            (None, None) => paragraph.read(line, here.start),
        }
    }
    paragraph.end(&mut found);
    found.extend(fence.map(|(_, from)| from..text.len()));
    found
}

/// The stretches of a text between code, in their order; none is empty.
pub(in crate::scan) fn prose_ranges(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    for code in code_ranges(text) {
        found.push(start..code.start);
        start = code.end;
    }
    found.push(start..text.len());
    found.retain(|range| !range.is_empty());
    found
}

/// A line of three or more backticks or tildes.
struct Fence {
    sign: u8,
    length: usize,
    bare: bool,
}

impl Fence {
    fn of(line: &str) -> Option<Self> {
        let trimmed = line.trim_start_matches([' ', '\t', '>']);
        let &sign = trimmed.as_bytes().first().filter(|b| matches!(b, b'`' | b'~'))?;
        let length = trimmed.bytes().take_while(|b| *b == sign).count();
        let info = trimmed.get(length..)?.trim_ascii();
        let opens = length >= 3 && (sign == b'~' || !info.contains('`'));
        opens.then_some(Self { sign, length, bare: info.is_empty() })
    }

    const fn closes(&self, open: &Self) -> bool {
        self.bare && self.sign == open.sign && self.length >= open.length
    }
}

/// The runs of backticks of a paragraph.
#[derive(Default)]
struct Paragraph(Vec<Range<usize>>);

impl Paragraph {
    fn read(&mut self, line: &str, start: usize) {
        let mut at = 0;
        while let Some(skip) = memchr::memchr(b'`', line.as_bytes().get(at..).unwrap_or_default()) {
            let from = at + skip;
            let run = line.bytes().skip(from).take_while(|b| *b == b'`').count();
            self.0.push(start + from..start + from + run);
            at = from + run;
        }
    }

    /// Pairs each run with the next one of the same length. For each length the last place where
    /// nothing followed is kept, so that no stretch is searched twice.
    fn end(&mut self, found: &mut Vec<Range<usize>>) {
        const LONGEST: usize = 32;
        let mut lonely = [false; LONGEST];
        let runs = std::mem::take(&mut self.0);
        let mut at = 0;
        while let Some(open) = runs.get(at) {
            at += 1;
            let Some(lonely) = lonely.get_mut(open.len()).filter(|lonely| !**lonely) else {
                continue;
            };
            let same = |run: &Range<usize>| run.len() == open.len();
            match runs.get(at..).unwrap_or_default().iter().position(same) {
                Some(next) => {
                    found.extend(runs.get(at + next).map(|close| open.start..close.end));
                    at += next + 1;
                }
                None => *lonely = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let found: Vec<_> =
            code_ranges(text).into_iter().filter_map(|range| text.get(range)).collect();
        assert_eq!(found, expected, "{text:?}");
    }

    #[test]
    fn code_is_told_from_text() {
        check("no code, it's ok ~ 3", &[]);
        check("a `b` c ``d`e`` f", &["`b`", "``d`e``"]);
        check("a ` b\n\nc ` d", &[]);
        check("a `b\nc` d", &["`b\nc`"]);
        check("x\n```html\n<b>`\n```\ny `z`", &["```html\n<b>`\n```\n", "`z`"]);
        check("~~~\n```\n~~~\n", &["~~~\n```\n~~~\n"]);
        check("```\nopen", &["```\nopen"]);
        check("````\n```\n````", &["````\n```\n````"]);
        check("``` not `a` fence", &["`a`"]);
    }

    #[test]
    fn the_rest_is_prose() {
        for (text, expected) in [("", &[][..]), ("a `b` c", &["a ", " c"]), ("`a``b`", &[])] {
            let found: Vec<_> =
                prose_ranges(text).into_iter().filter_map(|range| text.get(range)).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
