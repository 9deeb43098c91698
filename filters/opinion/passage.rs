//! The part of a prompt that is worth asking about.
//!
//! Guards read little at a time: Prompt Guard 512 tokens, and every byte of a text costs. All
//! messages in which something was found are asked about together, since a guard that finds the one
//! harmless has not spoken of the other. What is too long is cut to its head, its tail and what
//! surrounds the findings, where attacks are.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use crate::prompt::Piece;
use crate::scan::{Edit, Finding, redact};

/// Stands for what is left out, and between texts.
const GAP: &str = "\n...\n";
const SEAM: &str = "\n";

/// Findings whose surroundings are sent, if there is room for a sentence around each.
const MOST_SPOTS: usize = 8;
const SENTENCES: usize = 512;

/// The texts to ask about.
#[derive(Clone, PartialEq, Eq)]
pub struct Passage {
    pub(super) text: String,
    pub(super) is_whole: bool,
}

impl Passage {
    /// Of a prompt with these findings, with the redactions that are made anyway; in at most
    /// `max_bytes`.
    pub(super) fn of(
        pieces: &[Piece],
        findings: &[Finding],
        edits: &[Edit],
        max_bytes: usize,
    ) -> Self {
        let injections = || findings.iter().filter(|finding| finding.kind.is_injection());
        let group = |piece: usize| pieces.get(piece).map(|piece| piece.group);
        let groups: BTreeSet<u32> =
            injections().filter_map(|finding| group(finding.piece)).collect();
        let mut scroll = Scroll::default();
        let mut starts = vec![None; pieces.len()];
        for (index, (piece, start)) in pieces.iter().zip(&mut starts).enumerate() {
            // Without a finding nobody knows which message is meant.
            if groups.is_empty() || groups.contains(&piece.group) {
                *start = Some(scroll.add(redacted(&piece.text, edits_of(edits, index))));
            }
        }
        let mut worst: Vec<&Finding> = injections().collect();
        worst.sort_by(|a, b| b.score.total_cmp(&a.score));
        let most = (max_bytes / SENTENCES).clamp(1, MOST_SPOTS);
        let spots = worst.into_iter().take(most).filter_map(|finding| {
            let text = *starts.get(finding.piece)?.as_ref()?;
            let place = |at| moved(at, edits_of(edits, finding.piece)).saturating_add(text);
            Some(place(finding.start)..place(finding.end))
        });
        scroll.excerpt(&spots.collect::<Vec<_>>(), max_bytes)
    }
}

/// The edits of one piece, of all edits in their order.
fn edits_of(edits: &[Edit], piece: usize) -> &[Edit] {
    let from = edits.partition_point(|edit| edit.piece < piece);
    let to = edits.partition_point(|edit| edit.piece <= piece);
    edits.get(from..to).unwrap_or_default()
}

fn redacted<'t>(text: &'t str, edits: &[Edit]) -> Cow<'t, str> {
    if edits.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(redact(text, edits)) }
}

/// Where a place is after the edits before it.
fn moved(at: usize, edits: &[Edit]) -> usize {
    edits.iter().filter(|edit| edit.end <= at).fold(at, |at, edit| {
        at.saturating_add(edit.replacement.len())
            .saturating_sub(edit.end.saturating_sub(edit.start))
    })
}

/// The text is nobody's to print.
impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, is_whole) = (self.text.len(), self.is_whole);
        write!(f, "Passage {{ bytes: {bytes}, is_whole: {is_whole} }}")
    }
}

/// Texts one after the other, which are not copied before it is known what is needed of them.
#[derive(Default)]
struct Scroll<'t> {
    texts: Vec<(usize, Cow<'t, str>)>,
    len: usize,
}

impl<'t> Scroll<'t> {
    /// Gives the place at which the text begins.
    fn add(&mut self, text: impl Into<Cow<'t, str>>) -> usize {
        let text = text.into();
        if self.len > 0 {
            self.len = self.len.saturating_add(SEAM.len());
        }
        let start = self.len;
        self.len = self.len.saturating_add(text.len());
        self.texts.push((start, text));
        start
    }

    fn excerpt(&self, spots: &[Range<usize>], max_bytes: usize) -> Passage {
        if self.len <= max_bytes {
            return Passage { text: self.cut(0..self.len), is_whole: true };
        }
        let windows = merged(self.windows(spots, max_bytes));
        let parts: Vec<String> = windows.into_iter().map(|window| self.cut(window)).collect();
        Passage { text: parts.join(GAP), is_whole: false }
    }

    /// Half of the room is for the spots, the rest for head and tail.
    fn windows(&self, spots: &[Range<usize>], max_bytes: usize) -> Vec<Range<usize>> {
        let gaps = GAP.len().saturating_mul(spots.len().saturating_add(1));
        let room = max_bytes.saturating_sub(gaps);
        let around = if spots.is_empty() { 0 } else { room / 2 };
        let end = room.saturating_sub(around) / 2;
        let share = around / spots.len().max(1);
        let mut windows: Vec<_> = spots.iter().map(|spot| self.around(spot, share)).collect();
        windows.push(0..end);
        windows.push(self.len.saturating_sub(end)..self.len);
        windows
    }

    /// A window with the spot in its middle; of a spot that is longer, its beginning.
    fn around(&self, spot: &Range<usize>, share: usize) -> Range<usize> {
        let before = share.saturating_sub(spot.len()) / 2;
        let start = spot.start.saturating_sub(before);
        start..start.saturating_add(share).min(self.len)
    }

    /// What stands there, without the halves of characters at its ends.
    fn cut(&self, window: Range<usize>) -> String {
        let mut out = String::with_capacity(window.len());
        for (start, text) in &self.texts {
            let from = text.ceil_char_boundary(window.start.saturating_sub(*start));
            let to = text.floor_char_boundary(window.end.saturating_sub(*start));
            let Some(part) = text.get(from..to).filter(|part| !part.is_empty()) else { continue };
            if !out.is_empty() {
                out.push_str(SEAM);
            }
            out.push_str(part);
        }
        out
    }
}

/// Windows in their order, none touching another.
fn merged(mut windows: Vec<Range<usize>>) -> Vec<Range<usize>> {
    windows.retain(|window| !window.is_empty());
    windows.sort_by_key(|window| (window.start, Reverse(window.end)));
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(windows.len());
    for window in windows {
        match merged.last_mut().filter(|last| window.start <= last.end) {
            Some(last) => last.end = last.end.max(window.end),
            None => merged.push(window),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::prompt::Role;
    use crate::scan::{Action, Kind};

    fn excerpt(texts: &[&str], spots: &[Range<usize>], max_bytes: usize) -> Passage {
        let mut scroll = Scroll::default();
        for text in texts {
            scroll.add(*text);
        }
        scroll.excerpt(spots, max_bytes)
    }

    #[test]
    fn short_texts_are_whole() {
        for (texts, expected) in
            [(&[][..], ""), (&["one"], "one"), (&["one", "two"], "one\ntwo"), (&["", "two"], "two")]
        {
            let found = excerpt(texts, &[], 256);
            assert_eq!((found.text.as_str(), found.is_whole), (expected, true));
        }
    }

    #[test]
    fn long_texts_keep_head_tail_and_spots() {
        let mut text = "a".repeat(100_000);
        text.replace_range(50_000..50_006, "ATTACK");
        text.replace_range(0..4, "HEAD");
        text.replace_range(99_996..100_000, "TAIL");
        let Passage { text: found, is_whole } =
            excerpt(&[&text], &[50_000..50_006, 50_003..50_006], 1000);
        assert!(!is_whole);
        for expected in ["HEAD", "aATTACKa", "TAIL"] {
            assert!(found.contains(expected), "{expected}: {found}");
        }
        assert!(found.len() <= 1000 && found.len() > 600, "{}", found.len());
        let found = excerpt(&[&text], &[], 1000).text;
        assert!(found.starts_with("HEAD") && found.ends_with("TAIL"), "{found}");
    }

    #[test]
    fn a_long_spot_gives_its_beginning() {
        let text = format!("{}BEGIN{}", "a".repeat(5000), "b".repeat(50_000));
        let found = excerpt(&[&text], std::slice::from_ref(&(5000..55_005)), 600).text;
        assert!(found.contains("\nBEGINb"), "{found}");
    }

    fn finding(piece: usize, kind: Kind, range: Range<usize>) -> Finding {
        let (rule, r#type) = (Arc::from("any"), Arc::from("any"));
        let (start, end, score) = (range.start, range.end, 0.5);
        let (role, action) = (Role::User, Action::Allow);
        Finding { kind, r#type, rule, score, role, piece, start, end, action, exception: None }
    }

    #[test]
    fn every_suspicious_message_is_asked_about_and_no_other() {
        let piece = |group, text: &str| Piece::new(Role::User, group, text.to_owned());
        let pieces = [piece(1, "one"), piece(2, "two"), piece(1, "three"), piece(3, "four")];
        let injection = Kind::PromptInjection;
        for (findings, expected) in [
            (vec![], "one\ntwo\nthree\nfour"),
            (vec![finding(2, injection, 0..5)], "one\nthree"),
            (vec![finding(0, Kind::Pii, 0..3), finding(1, Kind::Jailbreak, 0..3)], "two"),
            (vec![finding(1, injection, 0..3), finding(3, injection, 0..3)], "two\nfour"),
            (vec![finding(9, injection, 0..3), finding(3, injection, 0..99)], "four"),
        ] {
            assert_eq!(Passage::of(&pieces, &findings, &[], 256).text, expected);
        }
        let text = format!("{:?}", Passage::of(&pieces, &[], &[], 256));
        assert_eq!(text, "Passage { bytes: 18, is_whole: true }");
    }

    #[test]
    fn what_is_redacted_does_not_leave() {
        let edit = |piece, start, end| Edit::new(piece, start..end, "[SECRET]", false);
        let text = format!("key=hunter2, key=12 {}ATTACK{}", "a".repeat(5000), "b".repeat(5000));
        let pieces =
            [Piece::new(Role::User, 1, "not here".to_owned()), Piece::new(Role::User, 2, text)];
        let edits = [edit(0, 0, 3), edit(1, 4, 11), edit(1, 17, 19)];
        let findings = [finding(1, Kind::PromptInjection, 5020..5026)];
        let found = Passage::of(&pieces, &findings, &edits, 512).text;
        assert!(found.starts_with("key=[SECRET], key=[SECRET] aaaa"), "{found}");
        // 8 more bytes than letters there were: the window is around the attack all the same.
        let (before, after) = found.split_once("ATTACK").unwrap();
        let window =
            |side: &str, letter| side.split("...").map(|p| p.matches(letter).count()).max();
        let (left, right) = (window(before, 'a'), window(after, 'b'));
        assert!(left.unwrap().abs_diff(120) < 20 && right.unwrap().abs_diff(120) < 20, "{found}");
    }

    proptest! {
        #[test]
        fn any_texts_and_spots_give_no_more_than_is_allowed(
            texts in proptest::collection::vec("\\PC{0,400}", 0..6),
            spots in proptest::collection::vec((0usize..3000, 0usize..3000), 0..9),
            max_bytes in 256usize..600,
        ) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let spots: Vec<_> = spots.into_iter().map(|(start, len)| start..start + len).collect();
            let found = excerpt(&texts, &spots, max_bytes).text;
            prop_assert!(found.len() <= max_bytes, "{} of {}", found.len(), max_bytes);
        }
    }
}
