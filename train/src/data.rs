//! Labelled texts, where they come from, and whether weights may be made of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use crate::Failure;

/// One labelled text, as it stands on a line of a data file.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Row {
    /// The text.
    pub(crate) text: String,
    /// `attack` or `benign`; `toxic` or `benign`.
    pub(crate) label: String,
    /// What kind of attack or innocent text.
    #[serde(default)]
    pub(crate) kind: String,
    /// The data set that it comes from.
    pub(crate) source: String,
    /// ISO 639-1 code, or `code`.
    #[serde(default)]
    pub(crate) lang: Option<String>,
}

impl Row {
    /// Whether the model is to find this text.
    pub(crate) fn is_positive(&self) -> bool {
        self.label != "benign"
    }

    /// Innocent text with the words of attacks.
    pub(crate) fn is_hard(&self) -> bool {
        self.kind == "benign_hard"
    }

    /// An innocent text that gather.py found: easy, so it does not count in false alarm rates.
    pub(crate) fn is_gathered(&self) -> bool {
        self.kind == "gathered"
    }

    /// The operator's own text, which reads like an attack and is none: neither trained on nor
    /// counted.
    pub(crate) fn is_system(&self) -> bool {
        self.kind == "system_prompt"
    }
}

/// The rows of a JSON Lines file, `.gz` or plain.
///
/// # Errors
/// The file cannot be read, or a line is no row.
pub(crate) fn rows(path: &Path) -> Result<Vec<Row>, Failure> {
    let file = File::open(path).map_err(|e| Failure::at(path, &e))?;
    let zipped = path.extension().is_some_and(|ending| ending == "gz");
    let plain: Box<dyn Read> =
        if zipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let lines = BufReader::new(plain).lines();
    lines
        .map(|line| {
            let line = line.map_err(|e| Failure::at(path, &e))?;
            serde_json::from_str(&line).map_err(|e| Failure::at(path, &e))
        })
        .collect()
}

/// The sources whose licence allows weights to be shipped.
#[derive(Debug, Default)]
pub(crate) struct Licences(BTreeMap<String, String>);

impl Licences {
    /// Reads a file of `source: [licence, class]`.
    ///
    /// # Errors
    /// The file cannot be read or is of another form.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|e| Failure::at(path, &e))?;
        Self::parse(&text).map_err(|e| Failure::at(path, &e))
    }

    fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let all: BTreeMap<String, serde_json::Value> = serde_json::from_str(text)?;
        let class = |value: &serde_json::Value| Some(value.get(1)?.as_str()?.to_owned());
        Ok(Self(all.into_iter().filter_map(|(source, v)| Some((source, class(&v)?))).collect()))
    }

    /// Only sources of class `ok` may be trained on; one that is not listed may not.
    pub(crate) fn allows(&self, source: &str) -> bool {
        self.0.get(source).is_some_and(|class| class == "ok")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    const LINE: &str =
        r#"{"text":"hi","label":"benign","kind":"benign_hard","source":"s","id":"1","role":null}"#;

    #[test]
    fn rows_are_read_plain_and_zipped() {
        let dir = std::env::temp_dir().join(format!("portcullis-train-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (plain, zipped) = (dir.join("a.jsonl"), dir.join("a.jsonl.gz"));
        std::fs::write(&plain, format!("{LINE}\n{LINE}\n")).unwrap();
        let mut encoder = GzEncoder::new(File::create(&zipped).unwrap(), Compression::fast());
        encoder.write_all(LINE.as_bytes()).unwrap();
        encoder.finish().unwrap();
        assert_eq!(rows(&plain).unwrap().len(), 2);
        let row = rows(&zipped).unwrap().remove(0);
        assert!(row.is_hard() && !row.is_positive() && !row.is_system());
        std::fs::write(&plain, "{}").unwrap();
        assert!(rows(&plain).unwrap_err().to_string().contains("a.jsonl"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn only_what_is_listed_as_ok_may_be_trained_on() {
        let text =
            r#"{"_note": "x", "a": ["MIT", "ok"], "b": ["GPL-3.0", "gpl"], "c": ["?", "ok?"]}"#;
        let licences = Licences::parse(text).unwrap();
        for (source, expected) in [("a", true), ("b", false), ("c", false), ("d", false)] {
            assert_eq!(licences.allows(source), expected, "{source}");
        }
    }
}
