//! The texts of one message as one text.

use std::ops::Range;

/// The texts of one message joined, and the way from there back to each of them.
pub(in crate::scan) struct Joined {
    text: String,
    starts: Vec<usize>,
}

impl Joined {
    pub(in crate::scan) fn new<'t>(texts: impl Iterator<Item = &'t str>) -> Self {
        let (mut text, mut starts) = (String::new(), Vec::new());
        for part in texts {
            starts.push(text.len());
            text.push_str(part);
        }
        Self { text, starts }
    }

    pub(in crate::scan) fn text(&self) -> &str {
        &self.text
    }

    /// Where one text ends and the next begins.
    pub(in crate::scan) fn seams(&self) -> &[usize] {
        self.starts.get(1..).unwrap_or_default()
    }

    /// The parts that a range covers: index of the text, and range in it.
    pub(in crate::scan) fn parts(&self, range: &Range<usize>) -> Vec<(usize, Range<usize>)> {
        let first = self.starts.partition_point(|&start| start <= range.start).saturating_sub(1);
        let ends = self.starts.iter().copied().skip(first + 1).chain([self.text.len()]);
        let bounds = self.starts.iter().copied().skip(first).zip(ends).enumerate();
        bounds
            .take_while(|(_, (start, _))| *start < range.end)
            .map(|(n, (start, end))| {
                (first + n, range.start.max(start) - start..range.end.min(end) - start)
            })
            .filter(|(_, part)| !part.is_empty())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_the_joined_text_falls_into_its_parts() {
        let joined = Joined::new(["abc", "", "de", "f"].into_iter());
        assert_eq!(joined.text(), "abcdef");
        for (range, expected) in [
            (0..2, vec![(0, 0..2)]),
            (2..6, vec![(0, 2..3), (2, 0..2), (3, 0..1)]),
            (3..5, vec![(2, 0..2)]),
        ] {
            assert_eq!(joined.parts(&range), expected, "{range:?}");
        }
    }
}
