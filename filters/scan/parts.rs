//! The parts of a scan by themselves, for benches and fuzz targets: each reads a text as a whole
//! scan does, and says how much it found.

use super::Scanner;
use super::canonical::View;
use super::decode::{decode, reveal};
use super::pii::PiiKind;
use super::reading::Reading;

/// One text, to be read part by part.
#[expect(missing_debug_implementations, reason = "a text is nothing to print")]
pub struct Parts<'t> {
    scanner: &'t Scanner,
    reading: Reading<'t>,
}

impl<'t> Parts<'t> {
    /// The views of a text, and which rules it may concern.
    #[must_use]
    pub fn new(scanner: &'t Scanner, text: &'t str) -> Self {
        Self { scanner, reading: Reading::new(scanner, text) }
    }

    /// Bytes of the canonical view.
    #[must_use]
    pub fn canonical(text: &str) -> usize {
        View::canonical(text).text().len()
    }

    /// Texts that stand in a text in some code.
    #[must_use]
    pub fn decode(text: &str) -> usize {
        decode(text).len() + reveal(text).len()
    }

    /// Stretches of the text that some rule is to be tried on.
    #[must_use]
    pub fn keywords(&self) -> usize {
        self.scanner.canonical.gate(self.reading.canonical_text()).candidates().count()
    }

    /// Injection rules that hit the text as it is.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.reading.rules_hit().len()
    }

    /// Texts that the text holds in some code.
    #[must_use]
    pub fn decoded(&self) -> usize {
        self.reading.decoded().len()
    }

    /// Texts that the text is without one of its disguises.
    #[must_use]
    pub fn undisguised(&self) -> usize {
        self.reading.undisguised_whole().len()
    }

    /// How likely the classifier takes the text as it is for an attack.
    #[must_use]
    pub fn likelihood(&self) -> f32 {
        self.scanner.classifier.score(self.reading.canonical_text())
    }

    /// Credentials.
    #[must_use]
    pub fn secrets(&self) -> usize {
        self.reading.secrets().found.len()
    }

    /// Personal data of the kinds.
    #[must_use]
    pub fn personal(&self, kinds: &[PiiKind]) -> usize {
        let survey = self.reading.survey();
        kinds.iter().map(|kind| self.reading.personal(&survey, *kind).len()).sum()
    }
}
