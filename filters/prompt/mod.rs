//! Parse: bytes → [`Prompt`], one parse for all dialects.
//!
//! The walk over the registry's parameters checks every type, refuses what is not known, and finds
//! every text with its role. Texts are lifted out of the tree for the scanner and put back, with
//! redactions, when the request is cleared; `image` data is the one thing that is not read.

mod harden;
mod messages;
mod params;
mod texts;

use crate::json::{Json, Object};
use crate::surface::{Kind, Operation};
use crate::verdict::{Denial, Reason};

pub use params::Caps;
pub use texts::{Piece, Role};

/// A parsed and checked request body.
#[derive(Debug)]
pub struct Prompt {
    operation: &'static Operation,
    body: Object,
    pieces: Vec<Piece>,
    facts: Facts,
    /// What the model is told before everything else.
    preamble: String,
}

/// What the other rooms need to know of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The model as the client spelled it.
    pub(crate) model: String,
    /// Whether the client wants a stream.
    pub(crate) stream: bool,
    /// Whether the client asked for usage in its stream.
    pub(crate) wants_usage: bool,
    /// The smallest cap on generated tokens that the client gave.
    pub(crate) max_tokens: Option<u64>,
    /// Whether every answer begins with the prompt.
    pub(crate) echoes: bool,
    /// Answers to each prompt.
    pub(crate) choices: u64,
    /// Prompts in the request.
    pub(crate) inputs: u64,
    /// Whether there is content that no scanner reads.
    pub(crate) opaque: bool,
    /// Bytes of the largest image, before Base64.
    pub(crate) largest_image: usize,
}

impl Prompt {
    /// Parses and checks a request body.
    ///
    /// # Errors
    /// [`Reason::InvalidRequest`], naming the parameter at fault.
    pub fn parse(operation: &'static Operation, bytes: &[u8], caps: &Caps) -> Result<Self, Denial> {
        let Json::Obj(mut body) = Json::parse(bytes)? else {
            return Err(invalid("the body must be a JSON object"));
        };
        let facts = params::check(operation, &body, caps)?;
        let pieces = texts::take(operation, &mut body);
        Ok(Self { operation, body, pieces, facts, preamble: String::new() })
    }

    /// The operation that the body belongs to.
    #[must_use]
    pub const fn operation(&self) -> &'static Operation {
        self.operation
    }

    /// The model as the client spelled it.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.facts.model
    }

    /// Whether every answer begins with the prompt.
    #[must_use]
    pub const fn echoes(&self) -> bool {
        self.facts.echoes
    }

    /// Whether the client wants a stream.
    #[must_use]
    pub const fn streams(&self) -> bool {
        self.facts.stream
    }

    /// Whether the client asked for usage in its stream.
    #[must_use]
    pub const fn wants_usage(&self) -> bool {
        self.facts.wants_usage
    }

    /// The smallest cap on generated tokens that the client gave.
    #[must_use]
    pub const fn max_tokens(&self) -> Option<u64> {
        self.facts.max_tokens
    }

    /// Answers that the model is asked for in all: prompts times choices.
    #[must_use]
    pub const fn answers(&self) -> u64 {
        self.facts.inputs.saturating_mul(self.facts.choices)
    }

    /// Whether there is content that no scanner reads, such as images.
    #[must_use]
    pub const fn has_opaque_content(&self) -> bool {
        self.facts.opaque
    }

    /// Bytes of the largest image, before Base64; 0 for none.
    #[must_use]
    pub const fn largest_image(&self) -> usize {
        self.facts.largest_image
    }

    /// Every text with its role, in the order of the body.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Every text, to be redacted.
    pub(crate) fn pieces_mut(&mut self) -> &mut [Piece] {
        &mut self.pieces
    }

    /// Bytes of all texts.
    #[must_use]
    pub fn text_len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.text.len()).sum()
    }

    /// Characters of all texts.
    #[must_use]
    pub fn chars(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.text.chars().count() as u64).sum()
    }

    /// Sets the model to the name that the upstream knows it by.
    pub(crate) fn set_model(&mut self, name: &str) {
        self.body.set("model", Json::from(name));
    }

    /// Puts the cap on generated tokens in, under the one name that the upstream obeys, and bounds
    /// the options that multiply cost.
    pub(crate) fn bound(&mut self, max_tokens: u64, tokens_param: &str, caps: &Caps) {
        params::bound(self.operation, &mut self.body, max_tokens, tokens_param, caps);
    }

    /// Asks the upstream to report usage at the end of its stream.
    pub(crate) fn ask_for_usage(&mut self) {
        let mut options = Object::default();
        if let Some(Json::Obj(asked)) = self.body.remove("stream_options") {
            options = asked;
        }
        options.set("include_usage", Json::Bool(true));
        self.body.set("stream_options", Json::Obj(options));
    }

    /// The body for the upstream: the texts are put back and the whole is serialised anew.
    ///
    /// # Errors
    /// [`Reason::ContentFilter`] if a text that is a key would have to be changed.
    pub(crate) fn into_bytes(mut self) -> Result<Vec<u8>, Denial> {
        texts::put_back(self.operation, &mut self.body, self.pieces).ok_or_else(|| {
            Denial::new(Reason::ContentFilter, "a name in the request holds sensitive data")
        })?;
        harden::put_first(self.operation, &mut self.body, &self.preamble);
        Ok(Json::Obj(self.body).to_bytes())
    }
}

/// Whether a parameter of this kind is declared for the operation.
fn has(operation: &Operation, kind: Kind) -> bool {
    operation.params.iter().any(|param| param.kind == kind)
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Denial {
    Denial::new(Reason::InvalidRequest, message)
}

#[cfg(test)]
mod tests;
