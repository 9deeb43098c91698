//! Clear: prompt → `Cleared`. Only cleared bytes may leave for an upstream.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use crate::audit::Coverage;
use crate::prompt::{Piece, Prompt};
use crate::scan::{Kind, Policy, Report, Scanner, Verdict, redact};
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
    pub(crate) result: Result<Cleared, Denial>,
}

/// Scans a prompt and, if it may pass, serialises it with its redactions.
pub(crate) async fn clear(
    scanner: &Arc<Scanner>,
    policy: &Arc<Policy>,
    on_error: OnError,
    prompt: Prompt,
) -> Outcome {
    let (mut prompt, report) = if prompt.text_len() <= INLINE {
        let report = scan(scanner, policy, prompt.pieces());
        (prompt, report)
    } else {
        let (scanner, policy) = (Arc::clone(scanner), Arc::clone(policy));
        let scanned = tokio::task::spawn_blocking(move || {
            let report = scan(&scanner, &policy, prompt.pieces());
            (prompt, report)
        });
        match scanned.await {
            Ok(scanned) => scanned,
            Err(_) => return unscanned(Err(failed())),
        }
    };
    let Some(report) = report else {
        return unscanned(match on_error {
            OnError::Block => Err(failed()),
            OnError::Allow => finish(prompt),
        });
    };
    let coverage = if prompt.has_opaque_content() { Coverage::Partial } else { Coverage::Full };
    let result = match report.verdict {
        Verdict::Block => Err(refused(&report)),
        Verdict::Allow | Verdict::Flag | Verdict::Redact => {
            edit(prompt.pieces_mut(), &report);
            finish(prompt)
        }
    };
    Outcome { report, coverage, result }
}

fn unscanned(result: Result<Cleared, Denial>) -> Outcome {
    Outcome { report: Report::default(), coverage: Coverage::None, result }
}

/// `None` if the scanner panicked: a defect of it must not become a way around it.
fn scan(scanner: &Scanner, policy: &Policy, pieces: &[Piece]) -> Option<Report> {
    catch_unwind(AssertUnwindSafe(|| scanner.scan(pieces, policy))).ok()
}

fn edit(pieces: &mut [Piece], report: &Report) {
    for edits in report.edits.chunk_by(|a, b| a.piece == b.piece) {
        let piece = edits.first().and_then(|edit| pieces.get_mut(edit.piece));
        if let Some(piece) = piece {
            piece.text = redact(&piece.text, edits);
        }
    }
}

fn finish(prompt: Prompt) -> Result<Cleared, Denial> {
    Ok(Cleared { body: Bytes::from(prompt.into_bytes()?) })
}

/// The caller learns the category, never the rule.
fn refused(report: &Report) -> Denial {
    let kind = report
        .findings
        .iter()
        .filter(|finding| Verdict::from(finding.action) == Verdict::Block)
        .map(|finding| finding.kind)
        .next();
    let category = match kind {
        Some(Kind::Jailbreak) => "a jailbreak",
        Some(Kind::Pii) => "personal data",
        Some(Kind::Secret) => "a secret",
        Some(Kind::Code) => "harmful code",
        Some(Kind::PromptInjection) | None => "a prompt injection",
    };
    Denial::new(Reason::ContentFilter, format!("the prompt was refused: it looks like {category}"))
}

fn failed() -> Denial {
    Denial::new(Reason::Internal, "the prompt could not be scanned").detail("scanner panicked")
}
