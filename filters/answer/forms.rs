//! What the events and bodies of each dialect look like, as far as they matter.
//!
//! Only the members that are needed are read, typed and borrowed; everything else is skipped over.
//! A known member that occurs twice is an error, because clients disagree on which one counts.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::text::Text;
use super::wire::{Member, Number};

/// `chat.completion`, `chat.completion.chunk`, `text_completion` and lists of embeddings.
#[derive(Deserialize)]
pub(super) struct Completion<'a> {
    #[serde(borrow)]
    pub(super) choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    pub(super) usage: Member<Tokens>,
    pub(super) timings: Option<Timings>,
    pub(super) error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    pub(super) index: Number,
    #[serde(borrow)]
    pub(super) delta: Option<Message<'a>>,
    #[serde(borrow)]
    pub(super) message: Option<Message<'a>>,
    #[serde(borrow, default)]
    pub(super) text: Text<'a>,
}

/// What the model wrote, in the members of OpenAI, llama.cpp, vLLM and Ollama.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) content: Text<'a>,
    #[serde(borrow)]
    pub(super) reasoning_content: Text<'a>,
    #[serde(borrow)]
    pub(super) reasoning: Text<'a>,
    #[serde(borrow)]
    pub(super) thinking: Text<'a>,
    #[serde(borrow)]
    pub(super) refusal: Text<'a>,
    #[serde(borrow)]
    pub(super) tool_calls: Option<Vec<Call<'a>>>,
    #[serde(borrow)]
    pub(super) function_call: Text<'a>,
}

/// The call of a tool; its id and type are not the model's words.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Call<'a> {
    #[serde(borrow)]
    pub(super) function: Text<'a>,
    #[serde(borrow)]
    pub(super) custom: Text<'a>,
}

/// `prompt_tokens` and `completion_tokens`, or the names that the Responses API and Anthropic give
/// them.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Tokens {
    pub(super) prompt_tokens: Number,
    pub(super) completion_tokens: Number,
    pub(super) input_tokens: Number,
    pub(super) output_tokens: Number,
    pub(super) prompt_tokens_details: Option<Details>,
    pub(super) completion_tokens_details: Option<Details>,
    pub(super) input_tokens_details: Option<Details>,
    pub(super) output_tokens_details: Option<Details>,
    /// Anthropic: not part of `input_tokens`, as `cached_tokens` is of `prompt_tokens`.
    pub(super) cache_read_input_tokens: Number,
    /// Anthropic: the same.
    pub(super) cache_creation_input_tokens: Number,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct Details {
    pub(super) cached_tokens: Number,
    pub(super) reasoning_tokens: Number,
}

/// llama.cpp's own measure, present with and without `include_usage`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Timings {
    pub(super) cache_n: Number,
    pub(super) prompt_n: Number,
    pub(super) prompt_ms: Number,
    pub(super) predicted_n: Number,
    pub(super) predicted_ms: Number,
}

#[derive(Deserialize)]
pub(super) struct ResponseEvent<'a> {
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) delta: Text<'a>,
    pub(super) response: Option<EventResponse>,
    pub(super) timings: Option<Timings>,
    #[serde(default)]
    pub(super) sequence_number: Number,
    pub(super) error: Option<IgnoredAny>,
}

/// The `response` of an event: its output was counted from the deltas already.
#[derive(Deserialize)]
pub(super) struct EventResponse {
    pub(super) usage: Option<Tokens>,
}

#[derive(Deserialize)]
pub(super) struct ResponseBody<'a> {
    #[serde(borrow)]
    pub(super) output: Option<Vec<OutputItem<'a>>>,
    pub(super) usage: Option<Tokens>,
    pub(super) timings: Option<Timings>,
    pub(super) error: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct OutputItem<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Vec<OutputPart<'a>>>,
    #[serde(borrow)]
    pub(super) summary: Option<Vec<OutputPart<'a>>>,
    #[serde(borrow)]
    pub(super) arguments: Text<'a>,
    #[serde(borrow)]
    pub(super) input: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct OutputPart<'a> {
    #[serde(borrow)]
    pub(super) text: Text<'a>,
    #[serde(borrow)]
    pub(super) refusal: Text<'a>,
}

/// An event of Anthropic's Messages API.
#[derive(Deserialize)]
pub(super) struct MessagesEvent<'a> {
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    pub(super) message: Option<EventResponse>,
    pub(super) usage: Option<Tokens>,
    #[serde(borrow)]
    pub(super) content_block: Option<Block<'a>>,
    #[serde(borrow)]
    pub(super) delta: Option<Block<'a>>,
}

/// A whole answer of Anthropic's Messages API.
#[derive(Deserialize)]
pub(super) struct MessagesBody<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Vec<Block<'a>>>,
    pub(super) usage: Option<Tokens>,
    pub(super) error: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Block<'a> {
    #[serde(borrow)]
    pub(super) text: Text<'a>,
    #[serde(borrow)]
    pub(super) thinking: Text<'a>,
    #[serde(borrow)]
    pub(super) partial_json: Text<'a>,
    #[serde(borrow)]
    pub(super) name: Text<'a>,
    #[serde(borrow)]
    pub(super) input: Text<'a>,
}

/// Every answer of Ollama's native API. Durations are nanoseconds.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct OllamaLine<'a> {
    #[serde(borrow)]
    pub(super) message: Option<Message<'a>>,
    #[serde(borrow)]
    pub(super) response: Text<'a>,
    #[serde(borrow)]
    pub(super) thinking: Text<'a>,
    pub(super) done: bool,
    pub(super) prompt_eval_count: Number,
    pub(super) eval_count: Number,
    pub(super) prompt_eval_duration: Number,
    pub(super) eval_duration: Number,
    pub(super) total_duration: Number,
    pub(super) load_duration: Number,
    pub(super) error: Option<IgnoredAny>,
}
