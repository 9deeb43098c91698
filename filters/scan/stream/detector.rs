//! Detectors of a stream: a shape for the automata, and the exact search that has the last word.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};

use super::super::pii::PiiKind;
use super::super::report::Action;
use super::released::Label;
use super::shape::{Shape, ShapeError};

/// Finds what is sought in a window of the view, in order. Called only where the shape matched.
pub type Find = Arc<dyn Fn(&str) -> Vec<Range<usize>> + Send + Sync>;

/// One detector of a [`super::StreamScanner`].
#[derive(Clone)]
pub struct Detector {
    pub(super) label: Arc<Label>,
    seeks: Seeks,
    certain: Option<Regex>,
}

/// How a detector seeks.
#[derive(Clone)]
enum Seeks {
    /// Where a shape has matched, once so many characters after the match are known.
    Shape { shape: Shape, find: Find, look_ahead: usize },
    /// In blocks of the text, when they are over: it can only watch.
    Kind(PiiKind),
}

/// Characters that most detectors need to see after a match, unless the text ends.
const LOOK_AHEAD: usize = 2;

impl Detector {
    /// A detector that believes `find`, wherever `shape` matches.
    #[must_use]
    pub fn new(label: Label, shape: Shape, find: Find) -> Self {
        let seeks = Seeks::Shape { shape, find, look_ahead: LOOK_AHEAD };
        Self { label: Arc::new(label), seeks, certain: None }
    }

    /// A detector of personal data that holds nothing back.
    pub(super) fn watching(label: Label, kind: PiiKind) -> Self {
        Self { label: Arc::new(label), seeks: Seeks::Kind(kind), certain: None }
    }

    /// Lets it see so many characters after a match.
    pub(super) fn looking_ahead(mut self, chars: usize) -> Self {
        if let Seeks::Shape { look_ahead, .. } = &mut self.seeks {
            *look_ahead = chars;
        }
        self
    }

    /// A detector that believes every match of one expression (ASCII classes).
    ///
    /// # Errors
    /// If the expression does not parse or is too large.
    pub fn of_pattern(label: Label, pattern: &str) -> Result<Self, ShapeError> {
        let (shape, regex) = (Shape::of_rule(pattern)?, compiled(pattern)?);
        let find = move |text: &str| regex.find_iter(text.as_bytes()).map(|m| m.range()).collect();
        Ok(Self::new(label, shape, Arc::new(find)))
    }

    /// Beginnings that are beyond doubt: where a match is longer than the greatest hold and what is
    /// held begins like this, the verdict falls without the rest.
    ///
    /// # Errors
    /// If the expression does not parse or is too large.
    pub fn with_certain(self, beginning: &str) -> Result<Self, ShapeError> {
        Ok(Self { certain: Some(compiled(&format!("^(?:{beginning})"))?), ..self })
    }

    /// Whether text has to wait for its verdict.
    pub(super) fn holds(&self) -> bool {
        self.label.action >= Action::Redact
    }

    /// Its shape, and how far it looks ahead.
    pub(super) const fn shape(&self) -> Option<(&Shape, usize)> {
        match &self.seeks {
            Seeks::Shape { shape, look_ahead, .. } => Some((shape, *look_ahead)),
            Seeks::Kind(_) => None,
        }
    }

    /// The personal data that it seeks in blocks.
    pub(super) const fn kind(&self) -> Option<PiiKind> {
        match &self.seeks {
            Seeks::Shape { .. } => None,
            Seeks::Kind(kind) => Some(*kind),
        }
    }

    pub(super) fn find(&self, text: &str) -> Vec<Range<usize>> {
        match &self.seeks {
            Seeks::Shape { find, .. } => find(text),
            Seeks::Kind(kind) => kind.find(text),
        }
    }

    pub(super) fn is_certain(&self, held: &str) -> bool {
        self.certain.as_ref().is_some_and(|beginning| beginning.is_match(held.as_bytes()))
    }
}

impl fmt::Debug for Detector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detector").field("label", &self.label).finish_non_exhaustive()
    }
}

fn compiled(pattern: &str) -> Result<Regex, ShapeError> {
    let built = RegexBuilder::new(pattern).unicode(false).build();
    built.map_err(|e| ShapeError(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::adapters::label;
    use super::super::released::Topic;
    use super::*;

    #[test]
    fn a_pattern_makes_a_detector() {
        let name = label(Topic::Markup, "x", "x", Action::Redact, "[X]");
        let detector = Detector::of_pattern(name.clone(), "a+b").expect("detector");
        assert_eq!(detector.find("xaab ab"), [1..4, 5..7]);
        assert!(detector.holds() && !detector.is_certain("aa"));
        assert!(detector.with_certain("aa").expect("certain").is_certain("aaa"));
        assert!(Detector::of_pattern(name, "(").is_err());
    }
}
