//! `portcullis scan --explain`: what was found, where and why, and how a false alarm is switched off.

use portcullis_filters::prompt::Role;
use portcullis_filters::scan::{Explanation, Policy, Scanner, Verdict};

use crate::api::scan::{Found, Judgement};

/// Longest piece of a text that is shown, in characters.
const EXCERPT: usize = 120;

/// The judgement of one text, for people.
pub(super) fn explained(
    scanner: &Scanner,
    policy: &Policy,
    role: Role,
    text: &str,
    judgement: &Judgement,
) -> String {
    let mut lines = vec![headline(policy, role, judgement)];
    for found in &judgement.findings {
        lines.push(String::new());
        lines.extend(finding(scanner, text, found));
    }
    lines.push(String::new());
    lines.extend(reading(&scanner.explain(text)));
    if judgement.verdict > Verdict::Allow {
        lines.push(String::new());
        lines.extend(exception(judgement));
    }
    lines.join("\n")
}

fn headline(policy: &Policy, role: Role, judgement: &Judgement) -> String {
    format!(
        "{}: injection score {}, of which {} is an attack (policy {}, role {})",
        judgement.verdict.as_str(),
        judgement.score,
        policy.terms(role).threshold,
        policy.name,
        role.as_str(),
    )
}

fn finding(scanner: &Scanner, text: &str, found: &Found) -> Vec<String> {
    let Found { kind, r#type, rule, score, action, start, end, exception } = found;
    let excerpt = excerpt(text.get(*start..*end).unwrap_or_default());
    let mut lines = vec![
        format!("{rule}: {kind}/{type}, score {score}, {action}"),
        format!("  {excerpt} at bytes {start} to {end}"),
    ];
    let described = scanner.rules().find(|known| **known.id() == **rule);
    lines.extend(described.map(|rule| format!("  {}", rule.why())));
    lines.extend(exception.as_ref().map(|id| format!("  let pass by the exception {id}")));
    lines
}

/// How the classifiers and the further views took it.
fn reading(explanation: &Explanation) -> Vec<String> {
    let words = explanation.words.iter();
    let words: Vec<String> =
        words.map(|word| format!("{:?} {:+.2}", word.feature, word.weight)).collect();
    let mut lines = vec![
        format!("classifier: {:.2} ({})", explanation.likelihood, words.join(", ")),
        format!("toxicity: {:.2}", explanation.toxicity),
        format!("read as: {}", excerpt(&explanation.canonical)),
    ];
    lines.extend(explanation.views.iter().map(|view| {
        let rules = view.rules.join(", ");
        let text = excerpt(&view.text);
        format!("{}: {text}, classifier {:.2}, rules: {rules}", view.undone, view.likelihood)
    }));
    lines
}

/// The lines of the configuration that switch the alarm off.
fn exception(judgement: &Judgement) -> Vec<String> {
    let mut rules: Vec<&str> = Vec::new();
    for found in judgement.findings.iter().filter(|found| found.exception.is_none()) {
        if !rules.contains(&found.rule.as_str()) {
            rules.push(&found.rule);
        }
    }
    if rules.is_empty() {
        return vec!["The text could not be read to the end: see on_overrun.".to_owned()];
    }
    vec![
        "If this is a false alarm, it is switched off by:".to_owned(),
        "firewall:".to_owned(),
        "  exceptions:".to_owned(),
        format!("    - {{id: NAME, rules: [{}], reason: WHY}}", rules.join(", ")),
    ]
}

/// The beginning of a text, in quotes and without anything that a terminal would obey.
fn excerpt(text: &str) -> String {
    let shown: String = text.chars().take(EXCERPT).collect();
    let dots = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{dots}")
}
