//! Innocent texts that must pass: short ones, in many languages, with the words of attacks.

use crate::prompt::{Piece, Role};
use crate::scan::{Policy, Scanner, Verdict};

/// One a line; none of them is in the training data.
const TEXTS: &str = include_str!("innocent.txt");

#[test]
fn innocent_texts_are_not_blocked() {
    let (scanner, policy) = (Scanner::builtin().expect("rules"), Policy::default());
    let blocked = |text: &&str| {
        let piece = Piece::new(Role::User, 0, (*text).to_owned());
        scanner.scan(&[piece], &policy, 0).verdict == Verdict::Block
    };
    let texts: Vec<_> = TEXTS.lines().collect();
    assert!(texts.len() >= 150);
    let blocked: Vec<_> = texts.into_iter().filter(blocked).collect();
    assert!(blocked.is_empty(), "{blocked:#?}");
}
