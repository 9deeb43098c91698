//! The detectors of prompts as detectors of a stream: one line for each kind.

use std::ops::Range;
use std::sync::Arc;

use regex::bytes::Captures;

use super::super::pii::PiiKind;
use super::super::report::Action;
use super::super::rules::{Kind, Rule};
use super::detector::Detector;
use super::released::{Label, Topic};
use super::shape::{Shape, ShapeError};

/// What a redacted secret shows.
const SECRET_PLACEHOLDER: &str = "[SECRET]";

/// Rules with a shape of their own: rule, lead, body. Most begin like any word. To hold every word
/// back for them would delay all prose, so the few characters that stand before their mark go out;
/// they are identifiers or less than a fifth of the key. Others have no end of their own, or would
/// make a large automaton.
const LEADS: [(&str, &str, &str); 10] = [
    (
        "azure-client-secret",
        r"(?:^|[^A-Za-z0-9_~.\-])[A-Za-z0-9_~.]{3}",
        r"\dQ~[A-Za-z0-9_~.\-]{31,34}(?:[^A-Za-z0-9_~.\-]|$)",
    ),
    ("assigned-credential", r"(?i:access|auth|cred|key)[A-Za-z0-9_.\-]*[^A-Za-z0-9]+", CREDENTIAL),
    ("assigned-secret", SECRET_NAME, r"[A-Za-z0-9_+/=~.@!#%^&*\-]{10,}"),
    (
        "named-token",
        r"(?i:key|token|secret|credential|bearer|unauthori|40[13]|_pat)[^\n=]*[\s\x22'`:(]",
        r"(?:[A-Za-z][A-Za-z0-9]*[_.\-]){1,4}[A-Za-z0-9_\-]{12,}",
    ),
    ("azure-devops-token", r"\b[A-Za-z0-9]{16}", r"[A-Za-z0-9]{60}AZDO[A-Za-z0-9]{4}\b"),
    ("private-key", "", PRIVATE_KEY),
    ("putty-private-key", "", PUTTY),
    ("slack-token", "", SLACK),
    ("maxmind-key", r"\b[A-Za-z0-9]{6}", r"_[A-Za-z0-9]{29}_mmk\b"),
    (
        "terraform-cloud-token",
        r"\b[A-Za-z0-9]{13}",
        r"[A-Za-z0-9]\.atlasv1\.[A-Za-z0-9_\-=]{60,70}",
    ),
];

/// A value of a key, and the names that say that it is one.
const CREDENTIAL: &str = r"[A-Za-z0-9_+/\-]{12,}={0,3}";
const SECRET_NAME: &str = concat!(
    r"(?i:pass|pwd|secret|token|key|pat|cred)[A-Za-z0-9_.\-]*",
    r#"["'`\s\]]*[=:?|>,]+[\s"'`=]*"#
);

/// Up to the last line of the key, of which every part may be the end of the text.
const PRIVATE_KEY: &str = concat!(
    r"-----BEGIN[ A-Z0-9_\-]*PRIVATE KEY(?: BLOCK)?-----",
    r"(?:-{0,4}[^\-])*(?:-----END[ A-Z0-9_\-]*-----)?"
);
const PUTTY: &str = concat!(
    r"PuTTY-User-Key-File-[123]:(?:[^P]|P[^r]|Pr[^i]|Pri[^v]|Priv[^a]|Private-L)*",
    r"(?:Private-MAC: [0-9a-f]{40,})?"
);

const SLACK: &str = concat!(
    r"(?i)\b(?:xox[bparso]-[A-Za-z0-9\-]{8,}|xoxe(?:\.xox[bp])?-\d-[A-Za-z0-9\-]{16,}|",
    r"xapp-\d-[A-Z0-9]{5,}-\d{5,}-[a-z0-9]{5,})"
);

/// Beginnings of secrets that can be longer than the greatest hold and are theirs without doubt.
const CERTAIN: [(&str, &str); 3] = [
    ("json-web-token", r"ey[A-Za-z0-9_\-]{15,}\.ey[A-Za-z0-9_\-]{15,}"),
    ("flyio-token", r"fm[12][ar]?_[A-Za-z0-9+/]{100,}"),
    ("onepassword-token", r"ops_eyJ[A-Za-z0-9+/_\-]{100,}"),
];

/// Writes a label.
pub(super) fn label(
    topic: Topic,
    r#type: &str,
    rule: &str,
    action: Action,
    placeholder: &str,
) -> Label {
    Label {
        topic,
        r#type: Arc::from(r#type),
        rule: Arc::from(rule),
        action,
        placeholder: Arc::from(placeholder),
    }
}

/// The detectors of a rule of kind secret; other rules have none.
///
/// # Errors
/// If the pattern of the rule makes no shape.
pub fn secret(rule: &Rule, action: Action) -> Result<Vec<Detector>, ShapeError> {
    if rule.kind() != Kind::Secret {
        return Ok(Vec::new());
    }
    let id = rule.id().as_ref();
    let make = |shape| {
        let name =
            label(Topic::Prompt(Kind::Secret), rule.type_name(), id, action, SECRET_PLACEHOLDER);
        let rule = rule.clone();
        let find = Arc::new(move |text: &str| secrets(&rule, text));
        let detector = Detector::new(name, shape, find);
        match CERTAIN.iter().find(|(known, _)| *known == id) {
            Some((_, beginning)) => detector.with_certain(beginning),
            None => Ok(detector),
        }
    };
    shapes(rule)?.into_iter().map(make).collect()
}

/// The shapes of a rule: its own, unless it begins like any word.
fn shapes(rule: &Rule) -> Result<Vec<Shape>, ShapeError> {
    let led = LEADS.iter().filter(|(id, ..)| *id == rule.id().as_ref());
    let led: Vec<Shape> = led
        .map(|(_, lead, body)| match *lead {
            "" => Shape::new(body),
            lead => Shape::led(lead, body),
        })
        .collect::<Result<_, _>>()?;
    if !led.is_empty() {
        return Ok(led);
    }
    let shape = match rule.assignment() {
        Some((names, value)) => Shape::assigned(names, value)?,
        None => Shape::of_rule(rule.regex.as_str())?,
    };
    Ok(vec![shape])
}

/// The credentials that a rule finds, as in a prompt.
fn secrets(rule: &Rule, text: &str) -> Vec<Range<usize>> {
    let secret = |groups: Captures<'_>| {
        let hit = groups.get(1).or_else(|| groups.get(0))?;
        rule.is_plausible(hit.as_bytes()).then(|| hit.range())
    };
    rule.regex.captures_iter(text.as_bytes()).filter_map(secret).collect()
}

/// The detectors of a kind of personal data.
///
/// Passports, driving licences, dates of birth, postal addresses, names and terms begin like any
/// word or number, and only what stands around them tells what they are. To hold every word back
/// for them would delay all prose, so in streams they are never redacted: with `Redact` they are
/// flagged, and `Block` ends the answer up to some 800 characters after one.
///
/// # Errors
/// If a shape does not parse: never, as the tests show.
pub fn personal(kind: PiiKind, action: Action) -> Result<Vec<Detector>, ShapeError> {
    let shapes = narrow(kind);
    let redacts = action == Action::Redact;
    let action = if redacts && shapes.is_empty() { Action::Flag } else { action };
    let name = kind.as_str();
    let name = label(Topic::Prompt(Kind::Pii), name, name, action, kind.placeholder());
    if shapes.is_empty() || action < Action::Redact {
        return Ok(vec![Detector::watching(name, kind)]);
    }
    let make = |(lead, body): &(&str, &str)| {
        let shape = if lead.is_empty() { Shape::new(body)? } else { Shape::led(lead, body)? };
        let find = move |text: &str| {
            if kind == PiiKind::Card { cards(text) } else { kind.find(text) }
        };
        let find = Arc::new(find);
        Ok(Detector::new(name.clone(), shape, find).looking_ahead(look_ahead(kind)))
    };
    shapes.iter().map(make).collect()
}

/// Characters after a match that may decide about it: only what follows telephone numbers is read.
const fn look_ahead(kind: PiiKind) -> usize {
    if matches!(kind, PiiKind::Phone) { PiiKind::LOOK_AHEAD } else { 2 }
}

/// What each kind looks like at least: a lead, perhaps empty, and a body. They are as narrow as can
/// be, since a body that any word or number begins holds every one of them back. None if there is
/// no such shape.
///
/// Where a number begins with letters as words do, small ones go out: of `de89 3704…` the `de`.
const fn narrow(kind: PiiKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        PiiKind::Email => {
            &[(r"(?:^|[^A-Za-z0-9._%+\-'&])", r"[A-Za-z0-9._%+\-'&]{1,64}@[A-Za-z0-9.\-]{1,255}")]
        }
        PiiKind::Phone => &[("", PHONE), (r"\\[ntr]", PHONE)],
        PiiKind::Card => &[("", r"\b[0-9](?:[ -]?[0-9]){11,18}")],
        PiiKind::Iban => &[
            ("", r"\b[A-Z][A-Za-z][0-9]{2}(?:[ -]?[0-9A-Za-z]){11,30}"),
            (r"\b[a-z][A-Za-z]", r"[0-9]{2}(?:[ -]?[0-9A-Za-z]){11,30}"),
        ],
        PiiKind::Ssn => &[("", r"\b[0-8][0-9]{2}[ -]?[0-9]{2}[ -]?[0-9]{4}")],
        PiiKind::Itin => &[("", r"\b9[0-9]{2}[ -]?[0-9]{2}[ -]?[0-9]{4}")],
        PiiKind::Nhs => &[("", r"\b[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{4}")],
        PiiKind::Ip => &[
            ("", r"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}"),
            ("", r"\b[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:\.[0-9]{1,3}){0,3}"),
        ],
        PiiKind::Mac => &[(
            "",
            r"\b(?:[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}|[0-9A-Fa-f]{4}(?:\.[0-9A-Fa-f]{4}){2})",
        )],
        PiiKind::Crypto => &[
            ("", r"\b0x[0-9A-Fa-f]{40}"),
            ("", BECH32),
            ("", r"\b[1239][1-9A-HJ-NP-Za-km-z]{24,35}"),
            ("", r"\b[ADLMTX][1-9A-HJ-NP-Z][1-9A-HJ-NP-Za-km-z]{23,34}"),
            (r"\b[ADLMTX][a-km-z]+", r"[1-9A-HJ-NP-Z][1-9A-HJ-NP-Za-km-z]{9,33}"),
            (r"\b[mnrt][a-km-z]*", r"[1-9A-HJ-NP-Z][1-9A-HJ-NP-Za-km-z]{9,34}"),
        ],
        PiiKind::Passport
        | PiiKind::DriverLicense
        | PiiKind::DateOfBirth
        | PiiKind::Address
        | PiiKind::Person
        | PiiKind::FinancialTerm
        | PiiKind::HealthTerm => &[],
    }
}

/// Telephone numbers, with what divides their groups and an extension.
const PHONE: &str = concat!(
    r"(?:\+\(?|\(\+?|\b)[0-9](?:[ ./()\-]{0,3}[0-9]){5,14}",
    r"(?:,? ?(?i:x|ext\.?|extension) ?[0-9]{1,6})?"
);

/// Addresses of BIP 173, by their prefixes.
const BECH32: &str = concat!(
    r"\b(?i:bc|tb|ltc|addr|stake|cosmos|osmo|inj|terra|celestia|kava|thor|bnb|juno)",
    r"1[0-9A-Za-z]{20,}"
);

/// Card numbers, also those whose digits stand one by one: `4 1 1 1 …`, as a model can be told to
/// write them.
fn cards(text: &str) -> Vec<Range<usize>> {
    let mut found = PiiKind::Card.find(text);
    found.extend(spaced(text.as_bytes()).into_iter().filter(|run| {
        let digits: String = text
            .get(run.clone())
            .unwrap_or_default()
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        PiiKind::Card.find(&digits).first().is_some_and(|card| card.len() == digits.len())
    }));
    found
}

/// The runs of single digits that a space or dash stands between.
fn spaced(text: &[u8]) -> Vec<Range<usize>> {
    let digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    let gap = |at: usize| matches!(text.get(at), Some(b' ' | b'-'));
    let (mut runs, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let start = at;
        while digit(at) && gap(at + 1) && digit(at + 2) {
            at += 2;
        }
        // A digit that touches another one is no digit of a run.
        let touches = digit(at + 1) || start.checked_sub(1).is_some_and(digit);
        if at > start && !touches {
            runs.push(start..at + 1);
        }
        at += 1;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::super::super::rules::load;
    use super::*;

    #[test]
    fn every_rule_has_shapes() {
        for rule in load(&[]).expect("rules") {
            let detectors = secret(&rule, Action::Redact).expect("detectors");
            assert_eq!(!detectors.is_empty(), rule.kind() == Kind::Secret, "{}", rule.id());
        }
    }

    #[test]
    fn the_rules_with_shapes_of_their_own_exist() {
        let rules = load(&[]).expect("rules");
        let known = |id: &str| rules.iter().any(|rule| rule.id().as_ref() == id);
        let ids = LEADS.iter().map(|(id, ..)| id).chain(CERTAIN.iter().map(|(id, _)| id));
        assert!(ids.into_iter().all(|id| known(id)));
    }

    #[test]
    fn digits_one_by_one_are_a_card() {
        for (text, expected) in [
            ("pay 4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 now", Some(4..35)),
            ("4-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1", Some(0..31)),
            ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 2", None),
            ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 11", None),
            ("4111 1111 1111 1111", Some(0..19)),
        ] {
            assert_eq!(cards(text).first(), expected.as_ref(), "{text}");
        }
    }
}
