//! `POST /api/v1/scan`: texts are judged as a prompt would be, for documents before they are
//! ingested. `portcullis scan` gives the same answers.

use std::sync::Arc;
use std::time::Instant;

use portcullis_filters::own::{OwnAnswer, OwnCall};
use portcullis_filters::prompt::{Piece, Role};
use portcullis_filters::scan::stream::{self, StreamScanner};
use portcullis_filters::scan::{Finding, Policy, Scanner, Verdict, redact};
use portcullis_filters::verdict::{Denial, Reason};
use serde::{Deserialize, Serialize};

use super::{json, read};

/// Texts of one call.
const MAX_TEXTS: usize = 1024;

/// Which way a text goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    /// To the model
    #[default]
    Input,
    /// To the client
    Output,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    text: Option<String>,
    texts: Option<Vec<String>>,
    #[serde(default)]
    direction: Direction,
    #[serde(default = "user")]
    role: RoleName,
}

/// The roles by name.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoleName {
    System,
    User,
    Assistant,
    Tool,
    Definition,
}

/// The role of a text when none is given.
pub(crate) const fn user() -> RoleName {
    RoleName::User
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::System => Self::System,
            RoleName::User => Self::User,
            RoleName::Assistant => Self::Assistant,
            RoleName::Tool => Self::Tool,
            RoleName::Definition => Self::Definition,
        }
    }
}

/// What is said of one text.
#[derive(Debug, Serialize)]
pub(crate) struct Judgement {
    pub(crate) verdict: Verdict,
    score: f64,
    findings: Vec<Found>,
    redacted: Option<String>,
    micros: u64,
}

#[derive(Debug, Serialize)]
struct Found {
    kind: &'static str,
    r#type: String,
    rule: String,
    score: f64,
    start: usize,
    end: usize,
}

/// Judges one text.
pub(crate) fn judge(scanner: &Scanner, policy: &Policy, role: Role, text: String) -> Judgement {
    let begun = Instant::now();
    let pieces = [Piece { role, group: 0, text }];
    let report = scanner.scan(&pieces, policy);
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let [piece] = pieces;
    Judgement {
        verdict: report.verdict,
        score: rounded(report.score),
        redacted: (!report.edits.is_empty()).then(|| redact(&piece.text, &report.edits)),
        findings: report.findings.iter().map(Found::from).collect(),
        micros,
    }
}

/// Judges one text as an answer: as a stream of it would be, whatever its parts.
pub(crate) fn judge_answer(scanner: &Arc<StreamScanner>, text: &str) -> Judgement {
    let begun = Instant::now();
    let out = scanner.read(text);
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let verdict = out.findings.iter().map(|found| Verdict::from(found.label.action)).max();
    let edited = out.text != text && out.stop.is_none();
    Judgement {
        verdict: verdict.unwrap_or_default(),
        score: 0.0,
        findings: out.findings.iter().map(Found::from).collect(),
        redacted: edited.then_some(out.text),
        micros,
    }
}

impl From<&stream::Found> for Found {
    fn from(found: &stream::Found) -> Self {
        Self {
            kind: found.label.topic.as_str(),
            r#type: found.label.r#type.to_string(),
            rule: found.label.rule.to_string(),
            score: 1.0,
            start: found.bytes.start,
            end: found.bytes.end,
        }
    }
}

impl From<&Finding> for Found {
    fn from(finding: &Finding) -> Self {
        Self {
            kind: finding.kind.as_str(),
            r#type: finding.r#type.to_string(),
            rule: finding.rule.to_string(),
            score: rounded(finding.score),
            start: finding.start,
            end: finding.end,
        }
    }
}

fn rounded(score: f32) -> f64 {
    (f64::from(score) * 10_000.0).round() / 10_000.0
}

/// `POST /api/v1/scan`
pub(super) async fn scan(call: &OwnCall<'_>) -> Result<OwnAnswer, Denial> {
    let request: Request = read(&call.body)?;
    let (texts, single) = match (request.text, request.texts) {
        (Some(text), None) => (vec![text], true),
        (None, Some(texts)) if (1..=MAX_TEXTS).contains(&texts.len()) => (texts, false),
        _ => {
            let message = format!("give `text`, or from 1 to {MAX_TEXTS} `texts`");
            return Err(Denial::new(Reason::InvalidRequest, message));
        }
    };
    let scanner = call.snapshot.scanner().clone();
    let policy = call.snapshot.policy("default").cloned().unwrap_or_default();
    let (direction, role) = (request.direction, request.role.into());
    let snapshot = Arc::clone(call.snapshot);
    let judged = tokio::task::spawn_blocking(move || match direction {
        Direction::Input => {
            let judge = |text| judge(&scanner, &policy, role, text);
            Some(texts.into_iter().map(judge).collect::<Vec<_>>())
        }
        Direction::Output => {
            let stream = snapshot.stream("default")?;
            Some(texts.iter().map(|text| judge_answer(&stream, text)).collect())
        }
    });
    let mut results = judged
        .await
        .ok()
        .flatten()
        .ok_or_else(|| Denial::new(Reason::Internal, "the texts could not be scanned"))?;
    match results.pop() {
        Some(only) if single => json(200, &only),
        last => {
            results.extend(last);
            json(200, &serde_json::json!({ "results": results }))
        }
    }
}
