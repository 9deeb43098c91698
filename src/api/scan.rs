//! `POST /api/v1/scan`: texts are judged as a prompt would be, for documents before they are
//! ingested. `portcullis scan` gives the same answers.

use std::sync::Arc;
use std::time::Instant;

use portcullis_filters::own::{OwnAnswer, OwnCall};
use portcullis_filters::prompt::{Piece, Role};
use portcullis_filters::scan::stream::{self, StreamScanner};
use portcullis_filters::scan::{Finding, Kind, Policy, Scanner, Verdict, redact};
use portcullis_filters::verdict::{Denial, Reason};
use serde::{Deserialize, Serialize};

use super::{invalid, json, read};

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
    /// The firewall policy.
    policy: Option<String>,
}

/// The roles by name.
#[derive(Clone, Copy, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoleName {
    /// The operator of the application
    System,
    /// The person who asks
    User,
    /// An earlier answer of the model
    Assistant,
    /// What a tool returned, or a document that somebody else wrote
    #[serde(alias = "document")]
    #[value(alias = "document")]
    Tool,
    /// The definition of a tool
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
    /// What the verdict would be, if the policy did not only watch.
    #[serde(skip_serializing_if = "Option::is_none")]
    would: Option<Verdict>,
    pub(crate) score: f64,
    /// What the findings are about, each once.
    threats: Vec<String>,
    pub(crate) findings: Vec<Found>,
    redacted: Option<String>,
    /// Whether it was too much to be read to the end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    overrun: bool,
    micros: u64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Found {
    pub(crate) kind: &'static str,
    pub(crate) r#type: String,
    pub(crate) rule: String,
    pub(crate) score: f64,
    pub(crate) action: &'static str,
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The exception of the configuration that lets it pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exception: Option<String>,
}

/// Judges one text.
pub(crate) fn judge(
    scanner: &Scanner,
    policy: &Policy,
    role: Role,
    now: u64,
    text: String,
) -> Judgement {
    let begun = Instant::now();
    let pieces = [Piece::new(role, 0, text)];
    let report = scanner.scan(&pieces, policy, now);
    let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    let [piece] = pieces;
    Judgement {
        verdict: report.verdict,
        would: (report.unwatched > report.verdict).then_some(report.unwatched),
        score: rounded(report.score),
        threats: threats(report.findings.iter().filter(|f| f.exception.is_none()).map(threat)),
        redacted: (!report.edits.is_empty()).then(|| redact(&piece.text, &report.edits)),
        findings: report.findings.iter().map(Found::from).collect(),
        overrun: report.overrun,
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
        would: None,
        score: 0.0,
        threats: threats(out.findings.iter().map(|found| found.label.topic.as_str())),
        findings: out.findings.iter().map(Found::from).collect(),
        redacted: edited.then_some(out.text),
        overrun: false,
        micros,
    }
}

/// What a finding is about, closely enough to sort documents by.
fn threat(finding: &Finding) -> &str {
    if finding.kind == Kind::Code { &finding.r#type } else { finding.kind.as_str() }
}

/// Each once, in the order of their findings.
fn threats<'f>(all: impl Iterator<Item = &'f str>) -> Vec<String> {
    let mut threats: Vec<String> = Vec::new();
    for threat in all {
        if !threats.iter().any(|known| known == threat) {
            threats.push(threat.to_owned());
        }
    }
    threats
}

impl From<&stream::Found> for Found {
    fn from(found: &stream::Found) -> Self {
        Self {
            kind: found.label.topic.as_str(),
            r#type: found.label.r#type.to_string(),
            rule: found.label.rule.to_string(),
            score: 1.0,
            action: found.label.action.as_str(),
            start: found.bytes.start,
            end: found.bytes.end,
            exception: None,
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
            action: finding.action.as_str(),
            start: finding.start,
            end: finding.end,
            exception: finding.exception.as_deref().map(str::to_owned),
        }
    }
}

fn rounded(score: f32) -> f64 {
    (f64::from(score) * 10_000.0).round() / 10_000.0
}

/// What a prompt under the policy of this name would be judged by now.
fn policy<'a>(call: &'a OwnCall<'_>, name: &str) -> Option<&'a Arc<Policy>> {
    match call.state.is_tightened(call.state.clock().unix_ms()) {
        true => call.snapshot.strict_policy(name),
        false => call.snapshot.policy(name),
    }
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
    let name = request.policy.as_deref().unwrap_or("default").to_owned();
    let Some(policy) = policy(call, &name).cloned() else {
        return Err(invalid("there is no such policy").param("policy"));
    };
    let (direction, role) = (request.direction, request.role.into());
    let now = call.state.clock().unix_secs();
    let snapshot = Arc::clone(call.snapshot);
    let judged = tokio::task::spawn_blocking(move || match direction {
        Direction::Input => {
            let judge = |text| judge(&scanner, &policy, role, now, text);
            Some(texts.into_iter().map(judge).collect::<Vec<_>>())
        }
        Direction::Output => {
            let stream = snapshot.stream(&name)?;
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
