//! Room 10, answer: what the upstream sends goes on to the client event by event, and is read as
//! it passes.
//!
//! Three promises. An event goes on as soon as it is whole, and no sooner: the client never gets
//! half of one, nor half a character. What is not changed goes on byte for byte. An answer counts
//! as complete only if its end mark was seen; one that breaks off ends in an error, so that no
//! client takes a part for the whole.
//!
//! What an answer says is a lead, not a fact: figures that cannot be true are replaced by
//! estimates (OWASP LLM10:2025, unbounded consumption), and what cannot be read does not pass.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::usage::{Metered, Spent, Tokenizer};
use crate::verdict::{Denial, Reason};

mod end;
mod events;
mod facts;
mod forms;
mod list;
mod ndjson;
mod nesting;
mod reader;
mod shape;
mod sse;
mod tally;
mod text;
mod whole;
mod wire;

#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;

pub use shape::{Framing, Shape};

use events::Events;
use list::List;
use reader::Reader;
use tally::Progress;
use whole::Whole;

/// Says whether the caller may use a model.
pub type ModelFilter = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What the gateway expects of an answer.
#[derive(Clone)]
pub struct Expect {
    /// The answer of the operation.
    pub shape: Shape,
    /// Hide usage in a stream: the gateway asked for it with `stream_options.include_usage`, the
    /// client did not.
    pub strip_usage: bool,
    /// Cuts lists of models down to what the caller may use; `None` shows all.
    pub allow_model: Option<ModelFilter>,
    /// Bytes of a body that are kept to be read as a whole. A larger one is only counted; a larger
    /// list of models is refused.
    pub max_buffered: usize,
    /// Bytes of one event of a stream; a larger one breaks the stream off.
    pub max_event: usize,
    /// Counts the text that the upstream does not count.
    pub tokenizer: Tokenizer,
    /// Tokens that the upstream was told not to exceed, over all choices: a report of more is not
    /// believed, unless there is as much text.
    pub max_completion: Option<u64>,
}

impl Expect {
    /// An answer with nothing to hide, and the default bounds: 8 MiB for a body, 1 MiB for an event.
    #[must_use]
    pub const fn new(shape: Shape) -> Self {
        Self {
            shape,
            strip_usage: false,
            allow_model: None,
            max_buffered: 8 << 20,
            max_event: 1 << 20,
            tokenizer: Tokenizer::Estimate { factor: 1.0 },
            max_completion: None,
        }
    }
}

impl fmt::Debug for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expect")
            .field("shape", &self.shape)
            .field("strip_usage", &self.strip_usage)
            .field("filters_models", &self.allow_model.is_some())
            .field("max_buffered", &self.max_buffered)
            .field("max_event", &self.max_event)
            .field("max_completion", &self.max_completion)
            .finish_non_exhaustive()
    }
}

/// An answer that cannot go on.
#[derive(Debug)]
pub struct Broken {
    /// The whole events from before the break: they still go to the client, then
    /// [`Answer::error_end`].
    pub whole: Bytes,
    /// Why.
    pub denial: Denial,
}

impl Broken {
    fn before_anything(denial: Denial) -> Box<Self> {
        Box::new(Self { whole: Bytes::new(), denial })
    }
}

/// One answer on its way from the upstream to the client.
pub struct Answer {
    expect: Expect,
    framing: Framing,
    body: Body,
    reader: Reader,
    broken: Option<Denial>,
}

enum Body {
    Events(Events),
    Whole(Whole),
    List(List, ModelFilter),
    Text,
}

impl Answer {
    /// An answer of which the head has come, see [`Framing::of`].
    #[must_use]
    pub fn new(expect: Expect, framing: Framing) -> Self {
        let body = Body::new(&expect, framing);
        let tokenizer = expect.tokenizer.clone();
        let reader = Reader::new(expect.shape, framing, expect.strip_usage, tokenizer);
        Self { expect, framing, body, reader, broken: None }
    }

    /// Whether the body is rewritten, so that a `Content-Length` of the upstream no longer holds.
    #[must_use]
    pub const fn rewrites(&self) -> bool {
        match self.body {
            Body::List(..) => true,
            Body::Events(_) => self.expect.strip_usage,
            Body::Whole(_) | Body::Text => false,
        }
    }

    /// Takes what came from the upstream and gives what may go to the client now. `eos` is the end
    /// of the upstream's body; where it comes without a chunk, as with trailers, push an empty one.
    ///
    /// # Errors
    /// With [`Reason::UpstreamUnavailable`] if the body ends before the answer does, an event is
    /// too long, or something cannot be read. The answer stays broken from then on.
    pub fn push(&mut self, chunk: &Bytes, eos: bool) -> Result<Bytes, Box<Broken>> {
        if let Some(denial) = &self.broken {
            return Err(Broken::before_anything(denial.clone()));
        }
        self.pass(chunk, eos).inspect_err(|broken| self.broken = Some(broken.denial.clone()))
    }

    /// What the answer consumed so far: what was reported, and for the rest what was counted. The
    /// count takes 20 µs for each KiB of text at most: it is meant for the end.
    #[must_use]
    pub fn metered(&self, spent: &Spent) -> Metered {
        let unread = if let Body::Whole(whole) = &self.body { whole.unread() } else { 0 };
        let progress = Progress {
            shape: self.expect.shape,
            complete: self.is_complete(),
            max_completion: self.expect.max_completion,
            unread,
        };
        self.reader.tally.metered(progress, spent)
    }

    /// The least number of tokens that were generated so far, to be held against a ceiling after
    /// each [`Self::push`]; it takes no time, and only grows.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.reader.tally.at_least()
    }

    /// How its body is cut into pieces.
    #[must_use]
    pub const fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the end mark was seen: `[DONE]`, `done: true`, a last event of the Responses API, or
    /// the end of a whole JSON object.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.reader.complete
    }

    /// Whether the model's text has begun to pass.
    #[must_use]
    pub const fn saw_text(&self) -> bool {
        self.reader.tally.saw_text()
    }

    /// Whether an error of the upstream passed within the answer. It is an end in itself: a stream
    /// that stops after it is not broken, though not complete either.
    #[must_use]
    pub const fn upstream_error(&self) -> bool {
        self.reader.failed
    }

    /// The bytes that end this answer with an error, in the words of its dialect.
    ///
    /// Empty if the client has got an end already, or if the framing has no room for an error; then
    /// the connection has to be cut, lest the client take a part for the whole.
    #[must_use]
    pub fn error_end(&self, denial: &Denial, request_id: &str) -> Bytes {
        if self.reader.has_ended() {
            return Bytes::new();
        }
        let Self { expect, framing, reader, .. } = self;
        end::error_end(expect.shape, *framing, reader.next_sequence, denial, request_id)
    }

    fn pass(&mut self, chunk: &Bytes, eos: bool) -> Result<Bytes, Box<Broken>> {
        let Self { expect, body, reader, .. } = self;
        match body {
            Body::Events(events) => events.push(reader, chunk, eos),
            Body::Whole(whole) => match whole.push(reader, chunk, eos) {
                Ok(()) => Ok(chunk.clone()),
                Err(denial) => Err(Broken::before_anything(denial)),
            },
            Body::List(list, allow) => {
                let held = list.push(chunk, expect.max_buffered);
                let done =
                    held.and_then(
                        |()| {
                            if eos { list.finish(allow.as_ref()) } else { Ok(Bytes::new()) }
                        },
                    );
                reader.complete |= eos && done.is_ok();
                done.map_err(Broken::before_anything)
            }
            Body::Text => {
                reader.complete |= eos;
                Ok(chunk.clone())
            }
        }
    }
}

impl fmt::Debug for Answer {
    /// Without the text that is held back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("expect", &self.expect)
            .field("framing", &self.framing)
            .field("reader", &self.reader)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl Body {
    fn new(expect: &Expect, framing: Framing) -> Self {
        match (framing, &expect.allow_model) {
            (Framing::Sse | Framing::NdJson, _) => {
                Self::Events(Events::new(framing, expect.max_event))
            }
            (Framing::Json, Some(allow)) if expect.shape.lists_models() => {
                Self::List(List::default(), Arc::clone(allow))
            }
            (Framing::Json, _) => Self::Whole(Whole::new(expect.max_buffered)),
            (Framing::Text, _) => Self::Text,
        }
    }
}

/// The refusal of an answer that cannot go on; what is wrong with it is the operator's business.
fn broken_off(detail: impl Into<Cow<'static, str>>) -> Denial {
    Denial::new(Reason::UpstreamUnavailable, "The upstream's answer broke off.").detail(detail)
}
