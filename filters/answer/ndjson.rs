//! Newline-delimited JSON: one object a line, as Ollama streams it.

use memchr::memchr_iter;

/// Notes in `ends` where lines end within `bytes`, counted from `offset`.
pub(super) fn ends(bytes: &[u8], offset: usize, ends: &mut Vec<usize>) {
    ends.extend(memchr_iter(b'\n', bytes).map(|at| offset + at + 1));
}

/// The object of a line; `None` if the line is blank.
pub(super) fn object(line: &[u8]) -> Option<&[u8]> {
    let object = line.trim_ascii();
    (!object.is_empty()).then_some(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_line_feeds_only() {
        let check = |text: &str, expected: &[usize]| {
            let mut found = Vec::new();
            ends(text.as_bytes(), 100, &mut found);
            assert_eq!(found, expected, "{text:?}");
        };
        check("", &[]);
        check("{}", &[]);
        check("{}\n{}\r\n\n{", &[103, 107, 108]);
        check("{\"a\":\"\r\u{2028}\"}\n", &[113]);
    }

    #[test]
    fn blanks_around_an_object_do_not_count() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(object(line.as_bytes()), expected.map(str::as_bytes), "{line:?}");
        };
        check("{}\r\n", Some("{}"));
        check(" \t{ }", Some("{ }"));
        check(" \r\n", None);
        check("", None);
    }
}
