//! Server-sent events (WHATWG HTML, section 9.2.6): where an event ends, and what its data is.

use std::borrow::Cow;

use memchr::memchr2;

/// The byte order mark that a stream may begin with.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Finds the ends of events: empty lines, where a line ends with LF, CR LF or CR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// At the start of a line; `crlf` says how the line before it ended.
    LineStart { crlf: bool },
    /// Within a line.
    Line,
    /// After the CR of a line; an LF still belongs to it.
    LineCr,
    /// After the CR of an empty line where lines end with CR LF: the LF is on its way.
    EmptyCr,
}

impl Default for Scan {
    fn default() -> Self {
        Self::LineStart { crlf: false }
    }
}

impl Scan {
    /// Notes in `ends` where events end within `bytes`, counted from `offset`.
    pub(super) fn ends(&mut self, bytes: &[u8], offset: usize, ends: &mut Vec<usize>) {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            let (next, end) = self.step(byte);
            *self = next;
            match end {
                Some(End::After) => ends.push(offset + at + 1),
                Some(End::Before) => {
                    ends.push(offset + at);
                    continue;
                }
                None => {}
            }
            at += 1;
            if next == Self::Line {
                let rest = bytes.get(at..).unwrap_or_default();
                at += memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            }
        }
    }

    /// Whether the bytes after the last end are a whole event, should nothing more come.
    pub(super) const fn ends_here(self) -> bool {
        matches!(self, Self::EmptyCr)
    }

    fn step(self, byte: u8) -> (Self, Option<End>) {
        match (self, byte) {
            (Self::LineStart { .. } | Self::EmptyCr, b'\n')
            | (Self::LineStart { crlf: false } | Self::LineCr, b'\r') => {
                (Self::default(), Some(End::After))
            }
            (Self::LineStart { crlf: true }, b'\r') => (Self::EmptyCr, None),
            (Self::Line, b'\n') => (Self::default(), None),
            (Self::Line, b'\r') => (Self::LineCr, None),
            (Self::LineCr, b'\n') => (Self::LineStart { crlf: true }, None),
            (Self::EmptyCr, _) => (Self::default(), Some(End::Before)),
            (Self::LineStart { .. } | Self::Line | Self::LineCr, _) => (Self::Line, None),
        }
    }
}

enum End {
    Before,
    After,
}

/// The data of an event, its lines joined by LF; `None` if it has no `data` line, as comments.
pub(super) fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut values = lines(event).filter_map(|line| line.data());
    let mut data = Cow::Borrowed(values.next()?);
    for value in values {
        let joined = data.to_mut();
        joined.push(b'\n');
        joined.extend_from_slice(value);
    }
    Some(data)
}

/// The same event with other data; every line that is not data stays as it is.
pub(super) fn with_data(event: &[u8], data: &[u8]) -> Vec<u8> {
    let mut edited = Vec::with_capacity(event.len());
    let mut written = false;
    for line in lines(event) {
        let Some(value) = line.data() else {
            edited.extend_from_slice(line.text);
            edited.extend_from_slice(line.end);
            continue;
        };
        if !written {
            written = true;
            let prefix = line.text.strip_suffix(value).unwrap_or_default();
            for part in data.split(|&byte| byte == b'\n') {
                edited.extend_from_slice(&[prefix, part, line.end].concat());
            }
        }
    }
    edited
}

/// One line of an event, and the one or two bytes that end it.
struct Line<'a> {
    text: &'a [u8],
    end: &'a [u8],
}

impl<'a> Line<'a> {
    /// The value of a `data` line, without the one blank that may follow the colon.
    ///
    /// Clients skip a byte order mark at the start of the stream only; here it is skipped on any
    /// line, because reading too much is the safe side.
    fn data(&self) -> Option<&'a [u8]> {
        let text = self.text.strip_prefix(BOM).unwrap_or(self.text);
        let rest = text.strip_prefix(b"data")?;
        match rest.split_first() {
            None => Some(rest),
            Some((b':', value)) => Some(value.strip_prefix(b" ").unwrap_or(value)),
            Some(_) => None,
        }
    }
}

fn lines(event: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let mut rest = event;
    std::iter::from_fn(move || {
        let length = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
        let (text, after) = rest.split_at_checked(length)?;
        let end_length = if after.starts_with(b"\r\n") { 2 } else { after.len().min(1) };
        let (end, after) = after.split_at_checked(end_length)?;
        rest = after;
        (!text.is_empty() || !end.is_empty()).then_some(Line { text, end })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits at every place at once: in one piece, and byte by byte.
    fn events(stream: &str) -> Vec<&str> {
        let (mut scan, mut ends) = (Scan::default(), Vec::new());
        scan.ends(stream.as_bytes(), 0, &mut ends);
        let (mut slow, mut slow_ends) = (Scan::default(), Vec::new());
        for (at, byte) in stream.bytes().enumerate() {
            slow.ends(&[byte], at, &mut slow_ends);
        }
        assert_eq!((&ends, scan), (&slow_ends, slow), "{stream:?}");
        if scan.ends_here() {
            ends.push(stream.len());
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(&ends).map(|(start, &end)| stream.get(start..end).unwrap()).collect()
    }

    #[test]
    fn events_end_at_empty_lines_of_every_kind() {
        let check = |stream: &str, expected: &[&str]| assert_eq!(events(stream), expected);
        check("", &[]);
        check("data: a", &[]);
        check("data: a\n", &[]);
        check("data: a\n\ndata: b\n\n", &["data: a\n\n", "data: b\n\n"]);
        check("data: a\n\ndata: b\n", &["data: a\n\n"]);
        check("data: a\r\rdata: b\r\r", &["data: a\r\r", "data: b\r\r"]);
        check("data: a\r\n\r\ndata: b\r\n\r\n", &["data: a\r\n\r\n", "data: b\r\n\r\n"]);
        check("data: a\r\ndata: b\r\n\r\n", &["data: a\r\ndata: b\r\n\r\n"]);
        check("data: a\r\n\r", &["data: a\r\n\r"]);
        check("data: a\r\n\rdata: b\n\n", &["data: a\r\n\r", "data: b\n\n"]);
        check("data: a\r\n\ndata: b\n\r", &["data: a\r\n\n", "data: b\n\r"]);
        check("data: a\n\r\n", &["data: a\n\r", "\n"]);
        check("\n\n: c\n\n", &["\n", "\n", ": c\n\n"]);
    }

    #[test]
    fn data_lines_are_joined_and_others_left_out() {
        let check = |event: &str, expected: Option<&str>| {
            assert_eq!(data(event.as_bytes()).as_deref(), expected.map(str::as_bytes), "{event:?}");
        };
        check("data: a\n\n", Some("a"));
        check("data:a\n\n", Some("a"));
        check("data:  a \r\n\r\n", Some(" a "));
        check("data\n\n", Some(""));
        check("event: x\rdata: a\r: no\rdata: b\rid: 1\r\r", Some("a\nb"));
        check("\u{feff}data: a\n\n", Some("a"));
        check(": data: a\n\n", None);
        check("Data: a\ndatum: b\n data: c\n\n", None);
        check("\n", None);
    }

    #[test]
    fn data_is_replaced_and_the_rest_is_kept() {
        let check = |event: &str, data: &str, expected: &str| {
            let edited = with_data(event.as_bytes(), data.as_bytes());
            assert_eq!(String::from_utf8(edited).unwrap(), expected);
        };
        check("data: a\n\n", "xyz", "data: xyz\n\n");
        check("id: 7\r\ndata:a\r\n: c\r\n\r\n", "x", "id: 7\r\ndata:x\r\n: c\r\n\r\n");
        check("data: a\ndata: b\nevent: e\n\n", "x", "data: x\nevent: e\n\n");
        check("data: a\ndata: b\n\n", "x\ny\nz", "data: x\ndata: y\ndata: z\n\n");
    }
}
