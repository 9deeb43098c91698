//! Clear: prompt → `Cleared`. Only cleared bytes may leave for an upstream.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::audit::Coverage;
use crate::clock;
use crate::opinion::{Given, Opinions};
use crate::prompt::{Piece, Prompt, Role};
use crate::scan::{
    Action, Handling, Kind, Modes, Policy, Report, Scanner, Verdict, redact, sanitize,
};
use crate::verdict::{Denial, Reason};

/// Larger prompts are parsed and scanned off the async threads, in bytes.
pub(crate) const INLINE: usize = 64 << 10;

/// What happens when the scanner itself fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the two policies of `firewall.on_error`")]
pub enum OnError {
    /// The prompt is refused.
    Block,
    /// The prompt passes, marked as not scanned.
    Allow,
}

/// A request body that may leave, and what the scanner said of it.
#[derive(Debug)]
pub(crate) struct Cleared {
    body: Bytes,
}

impl Cleared {
    /// The body for the upstream.
    pub(crate) const fn body(&self) -> &Bytes {
        &self.body
    }
}

/// A refusal or a clearance, with the findings for the audit record in both cases.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) report: Report,
    /// How much of the prompt was scanned.
    pub(crate) coverage: Coverage,
    /// The second opinion, if one was asked for.
    pub(crate) given: Option<Given>,
    /// What was taken out of its texts.
    pub(crate) sanitized: Vec<Sanitized>,
    pub(crate) result: Result<Cleared, Denial>,
}

/// A text of which something was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sanitized {
    role: Role,
    /// Bytes.
    before: usize,
    /// Bytes.
    after: usize,
}

impl Sanitized {
    /// As an audit record tells of it.
    pub(crate) fn told(&self) -> Value {
        json!({ "role": self.role.as_str(), "before": self.before, "after": self.after })
    }
}

/// By what a prompt is judged.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    pub(crate) scanner: Arc<Scanner>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) on_error: OnError,
    pub(crate) guard: Option<Arc<Opinions>>,
    /// Unix seconds.
    pub(crate) now: u64,
}

/// Scans a prompt and, if it may pass, serialises it with its redactions.
pub(crate) async fn clear(judge: Judge, prompt: Prompt) -> Outcome {
    if let Err(denial) = admit(&judge.policy.handling, &prompt) {
        return unscanned(Err(denial));
    }
    let (prompt, read) = if prompt.text_len() <= INLINE {
        judge.read(prompt)
    } else {
        let judge = judge.clone();
        match tokio::task::spawn_blocking(move || judge.read(prompt)).await {
            Ok(read) => read,
            Err(_) => return unscanned(Err(failed())),
        }
    };
    match read {
        Some((report, sanitized)) => {
            let (report, given) = judge.ask_guard(&prompt, report).await;
            Outcome { given, sanitized, ..judge.settle(prompt, report) }
        }
        None => unscanned(match judge.on_error {
            OnError::Block => Err(failed()),
            OnError::Allow => judge.finish(prompt),
        }),
    }
}

impl Judge {
    /// Takes out what the policy wants out, and reads what is left. What was there before is read
    /// too: to be taken out must not make an attack unseen.
    fn read(&self, mut prompt: Prompt) -> (Prompt, Option<(Report, Vec<Sanitized>)>) {
        let Some(first) = self.scan(prompt.pieces()) else { return (prompt, None) };
        let modes = self.policy.handling.sanitize;
        let modes = if self.policy.monitor { Modes::default() } else { modes };
        let sanitized = take_out(prompt.pieces_mut(), modes);
        if sanitized.is_empty() {
            return (prompt, Some((first, sanitized)));
        }
        let report = self.scan(prompt.pieces()).map(|mut report| {
            report.absorb(first, self.policy.monitor);
            (report, sanitized)
        });
        (prompt, report)
    }

    /// `None` if the scanner panicked: a defect of it must not become a way around it.
    fn scan(&self, pieces: &[Piece]) -> Option<Report> {
        catch_unwind(AssertUnwindSafe(|| self.scanner.scan(pieces, &self.policy, self.now))).ok()
    }

    /// Asks for a second opinion where the score leaves doubt. What is refused anyway needs none.
    async fn ask_guard(&self, prompt: &Prompt, mut report: Report) -> (Report, Option<Given>) {
        let terms = &self.policy.terms;
        // Texts of single roles are refused earlier. A guard without an upper bound only adds.
        let may_judge =
            |guard: &Opinions| guard.zone().high.is_some() || report.unwatched < Verdict::Block;
        let doubted = |guard: &&Arc<Opinions>| {
            terms.injection > Action::Allow
                && !report.is_refused_anyway()
                && may_judge(guard)
                && guard.zone().holds(report.score, terms.threshold)
        };
        let Some(guard) = self.guard.as_ref().filter(doubted) else { return (report, None) };
        let given = guard.ask(guard.passage(prompt.pieces(), &report)).await;
        report.overrule(given.ruling(guard.on_failure()), &self.policy);
        (report, Some(given))
    }

    fn settle(&self, mut prompt: Prompt, report: Report) -> Outcome {
        let partial = prompt.has_opaque_content() || report.overrun;
        let coverage = if partial { Coverage::Partial } else { Coverage::Full };
        let result = match report.verdict {
            Verdict::Block => Err(refused(&report)),
            Verdict::Allow | Verdict::Flag | Verdict::Redact => {
                edit(prompt.pieces_mut(), &report);
                self.finish(prompt)
            }
        };
        Outcome { report, coverage, given: None, sanitized: Vec::new(), result }
    }

    fn finish(&self, mut prompt: Prompt) -> Result<Cleared, Denial> {
        let handling = &self.policy.handling;
        if handling.spotlight {
            let nonce = clock::random().map_err(|_| {
                Denial::new(Reason::Internal, "the prompt could not be marked").detail("randomness")
            })?;
            prompt.spotlight(u64::from_be_bytes(nonce));
        }
        if let Some(preamble) = &handling.preamble {
            prompt.tell_first(preamble);
        }
        Ok(Cleared { body: Bytes::from(prompt.into_bytes()?) })
    }
}

/// What the policy says of a prompt before it is read.
fn admit(handling: &Handling, prompt: &Prompt) -> Result<(), Denial> {
    let denied = |message: String| Err(Denial::new(Reason::InvalidRequest, message));
    if prompt.largest_image() > 0 && !handling.images {
        return denied("images are not accepted here".to_owned());
    }
    if prompt.largest_image() as u64 > handling.max_image_bytes {
        let most = handling.max_image_bytes;
        return denied(format!("an image is larger than {most} bytes"));
    }
    match handling.max_chars {
        // Characters are at most as many as bytes, so that most prompts need no counting.
        Some(most) if prompt.text_len() as u64 > most && prompt.chars() > most => {
            denied(format!("the texts of the prompt are longer than {most} characters"))
        }
        _ => Ok(()),
    }
}

fn unscanned(result: Result<Cleared, Denial>) -> Outcome {
    let (report, coverage) = (Report::default(), Coverage::None);
    Outcome { report, coverage, given: None, sanitized: Vec::new(), result }
}

/// What was said, but by the operator. The rest are names, which must stay what they are.
fn take_out(pieces: &mut [Piece], modes: Modes) -> Vec<Sanitized> {
    let mut sanitized = Vec::new();
    for piece in pieces.iter_mut().filter(|piece| piece.said && piece.role != Role::System) {
        if let Some(text) = sanitize(&piece.text, modes) {
            let (role, before, after) = (piece.role, piece.text.len(), text.len());
            sanitized.push(Sanitized { role, before, after });
            piece.text = text;
        }
    }
    sanitized
}

fn edit(pieces: &mut [Piece], report: &Report) {
    for edits in report.edits.chunk_by(|a, b| a.piece == b.piece) {
        let piece = edits.first().and_then(|edit| pieces.get_mut(edit.piece));
        if let Some(piece) = piece {
            piece.text = redact(&piece.text, edits);
        }
    }
}

/// The caller learns the category, never the rule.
fn refused(report: &Report) -> Denial {
    let blocking = report.findings.iter().find(|finding| finding.action == Action::Block);
    let category = match blocking.map(|finding| finding.kind) {
        Some(Kind::PromptInjection) => "it looks like a prompt injection",
        Some(Kind::Jailbreak) => "it looks like a jailbreak",
        Some(Kind::Pii) => "it looks like personal data",
        Some(Kind::Secret) => "it looks like a secret",
        Some(Kind::Code) => "it looks like harmful code",
        Some(Kind::Toxicity) => "it looks like offensive language",
        Some(Kind::SuspiciousEncoding) => "it looks like an attempt to get round the scanner",
        Some(Kind::HiddenText) => "it holds hidden text",
        // Findings that are too many to be listed, or none: it was not read to the end.
        None if report.overrun => "it decodes to more than can be read",
        None => "it looks like a prompt injection",
    };
    Denial::new(Reason::ContentFilter, format!("the prompt was refused: {category}"))
}

fn failed() -> Denial {
    Denial::new(Reason::Internal, "the prompt could not be scanned").detail("scanner panicked")
}
