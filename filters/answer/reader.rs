//! Reads what passes and decides on each event: the place where a transform of texts belongs.

use std::borrow::Cow;

use super::facts::{Facts, UsageMember};
use super::nesting::without_member;
use super::tally::Tally;
use super::{Framing, Shape, broken_off, ndjson, sse};
use crate::usage::Tokenizer;
use crate::verdict::Denial;

/// The end mark of OpenAI's streams.
const DONE: &[u8] = b"[DONE]";

/// What becomes of one event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pass {
    /// It goes on byte for byte.
    Keep,
    /// The client does not see it.
    Drop,
    /// These bytes go on instead.
    Replace(Vec<u8>),
}

/// What is known of an answer from what has passed.
#[derive(Debug)]
pub(super) struct Reader {
    shape: Shape,
    framing: Framing,
    strip_usage: bool,
    pub(super) tally: Tally,
    /// The end mark passed.
    pub(super) complete: bool,
    /// An error of the upstream passed.
    pub(super) failed: bool,
    /// The number that the next event of a Responses stream has.
    pub(super) next_sequence: u64,
}

impl Reader {
    pub(super) fn new(
        shape: Shape,
        framing: Framing,
        strip_usage: bool,
        tokenizer: Tokenizer,
    ) -> Self {
        Self {
            shape,
            framing,
            strip_usage,
            tally: Tally::new(tokenizer),
            complete: false,
            failed: false,
            next_sequence: 0,
        }
    }

    /// Whether the client has got an end: the end mark, or the upstream's own error.
    pub(super) const fn has_ended(&self) -> bool {
        self.complete || self.failed
    }

    /// Reads one event. What comes after the end mark is dropped: clients stop reading there, and
    /// a stream must not seem to go on.
    pub(super) fn event(&mut self, event: &[u8]) -> Result<Pass, Denial> {
        let Some(json) = self.payload(event) else { return Ok(Pass::Keep) };
        if self.complete {
            return Ok(Pass::Drop);
        }
        if self.framing == Framing::Sse && json.trim_ascii() == DONE {
            // These streams end with an event; some servers add this all the same.
            self.complete =
                !matches!(self.shape, Shape::OpenAiResponses | Shape::AnthropicMessages);
            return Ok(Pass::Keep);
        }
        let facts = Facts::of_event(self.shape, &json).map_err(unreadable)?;
        self.note(&facts);
        Ok(self.without_usage(event, &json, &facts))
    }

    /// Reads a whole body.
    pub(super) fn body(&mut self, json: &[u8]) -> Result<(), Denial> {
        let facts = Facts::of_body(self.shape, json).map_err(unreadable)?;
        self.note(&facts);
        self.complete = true;
        Ok(())
    }

    /// Takes note of a whole body that was too large to be read.
    pub(super) fn unread_body(&mut self, bytes: u64) {
        self.tally.add_unread(bytes);
        self.complete = true;
    }

    fn note(&mut self, facts: &Facts<'_>) {
        self.tally.add(facts);
        self.complete |= facts.ended;
        self.failed |= facts.failed;
        if let Some(sequence) = facts.sequence {
            self.next_sequence = sequence + 1;
        }
    }

    /// Hides usage that the gateway asked for and the client did not.
    ///
    /// llama.cpp's `timings` are not part of the bargain: it sends them with and without
    /// `include_usage`, so they stay wherever a chunk stays. When it was asked for usage it moves
    /// them from the last chunk into the one that is dropped, and they are lost with it: a chunk
    /// without choices is what a client that did not ask for one does not expect.
    fn without_usage(&self, event: &[u8], json: &[u8], facts: &Facts<'_>) -> Pass {
        let strips = self.strip_usage && self.framing == Framing::Sse;
        match facts.usage {
            UsageMember::Alone if strips && !facts.failed => Pass::Drop,
            UsageMember::Alone | UsageMember::Beside if strips => without_member(json, "usage")
                .map_or(Pass::Keep, |json| Pass::Replace(sse::with_data(event, &json))),
            UsageMember::Absent | UsageMember::Alone | UsageMember::Beside => Pass::Keep,
        }
    }

    /// The JSON, or end mark, of an event; `None` if there is nothing for the client in it.
    fn payload<'a>(&self, event: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        if self.framing == Framing::NdJson {
            return ndjson::object(event).map(Cow::Borrowed);
        }
        sse::data(event).filter(|data| !data.trim_ascii().is_empty())
    }
}

/// What serde says names only the kind and place of the fault, never the text.
fn unreadable(fault: serde_json::Error) -> Denial {
    broken_off(format!(
        "unreadable JSON: {:?} at {}:{}",
        fault.classify(),
        fault.line(),
        fault.column()
    ))
}
