//! Names that stand for personal data in one request, so that its answer can have them back.

use std::collections::HashMap;
use std::fmt;

use crate::prompt::Piece;

/// The names of one request and what they stand for. Printed, it tells how many there are only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pseudonyms {
    pairs: Vec<(String, String)>,
    known: HashMap<String, usize>,
    /// The last number of each kind.
    last: HashMap<String, usize>,
}

impl Pseudonyms {
    /// The names with what they stand for, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether no name was given.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The name of a value: its placeholder with a number that no text of the request holds, or an
    /// answer could not tell whom it is about.
    pub(super) fn name(&mut self, placeholder: &str, value: &str, pieces: &[Piece]) -> String {
        let key = format!("{placeholder}{value}");
        if let Some((name, _)) = self.known.get(&key).and_then(|at| self.pairs.get(*at)) {
            return name.clone();
        }
        let kind = placeholder.trim_end_matches(']');
        let last = self.last.entry(kind.to_owned()).or_insert_with(|| highest(kind, pieces));
        *last += 1;
        let name = format!("{kind}_{last}]");
        self.known.insert(key, self.pairs.len());
        self.pairs.push((name.clone(), value.to_owned()));
        name
    }
}

/// The highest number of this kind that a text holds already, `[EMAIL_7` being one.
fn highest(kind: &str, pieces: &[Piece]) -> usize {
    let mark = format!("{kind}_");
    let numbers = pieces.iter().flat_map(|piece| {
        piece.text.split(mark.as_str()).skip(1).filter_map(|rest| {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            rest.get(..digits.min(9))?.parse().ok()
        })
    });
    numbers.max().unwrap_or(0)
}

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} pseudonyms", self.pairs.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::Role;

    #[test]
    fn a_name_is_new_to_the_request_and_is_not_printed() {
        let text = "[EMAIL_7] [EMAIL_x [EMAIL_99999999999999999999] [CARD_3]".to_owned();
        let pieces = [Piece::new(Role::User, 0, text)];
        let mut names = Pseudonyms::default();
        assert!(names.is_empty());
        assert_eq!(names.name("[EMAIL]", "a@b.co", &pieces), "[EMAIL_1000000000]");
        assert_eq!(names.name("[CARD]", "4111", &pieces), "[CARD_4]");
        assert_eq!(names.name("[EMAIL]", "a@b.co", &pieces), "[EMAIL_1000000000]");
        assert_eq!(names.iter().count(), 2);
        assert_eq!(format!("{names:?}"), "2 pseudonyms");
    }
}
