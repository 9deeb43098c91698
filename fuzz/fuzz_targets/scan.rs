//! Any text, whole or in two parts, is scanned: scores are probabilities, edits fall on characters.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use portcullis_filters::prompt::{Piece, Role};
use portcullis_filters::scan::{Level, PiiKind, Policy, Scanner, Terms, redact};

static SCANNER: LazyLock<Scanner> = LazyLock::new(|| Scanner::builtin().expect("rules"));

fuzz_target!(|text: &str| {
    let terms = Terms { pii_kinds: PiiKind::ALL.to_vec(), ..Terms::of(Level::Balanced, Role::User) };
    let policy = Policy::with(terms);
    let half = text.split_at(text.floor_char_boundary(text.len() / 2));
    for parts in [vec![text], vec![half.0, half.1]] {
        let pieces: Vec<Piece> = parts
            .iter()
            .map(|part| Piece::new(Role::User, 0, (*part).to_owned()))
            .collect();
        let report = SCANNER.scan(&pieces, &policy, 0);
        assert!((0.0..=1.0).contains(&report.score));
        for edit in &report.edits {
            assert!(pieces[edit.piece].text.get(edit.start..edit.end).is_some());
        }
        for (at, piece) in pieces.iter().enumerate() {
            let redacted = redact(&piece.text, report.edits.iter().filter(|edit| edit.piece == at));
            assert!(redacted.len() <= piece.text.len() + 32 * report.edits.len());
        }
    }
});
