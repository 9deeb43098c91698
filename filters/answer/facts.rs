//! What one event, or one whole body, says about itself.
//!
//! Only the members that are needed are read, typed and borrowed; everything else is skipped over.
//! A known member that occurs twice is an error, because clients disagree on which one counts.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Shape;
use super::wire::{Member, Number, Text};

/// What was read from one event or body.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Facts {
    /// Bytes of text that the model wrote: answer, reasoning, arguments of tool calls.
    pub(super) text_bytes: u64,
    /// Reported tokens of the prompt.
    pub(super) prompt_tokens: Option<u64>,
    /// Reported tokens of the completion.
    pub(super) completion_tokens: Option<u64>,
    /// Reported seconds of computing.
    pub(super) gpu_seconds: Option<f64>,
    /// This is the end mark of the stream.
    pub(super) ended: bool,
    /// This is an error.
    pub(super) failed: bool,
    /// The number of the event (Responses API).
    pub(super) sequence: Option<u64>,
    /// How the event carries the `usage` member that `stream_options.include_usage` asks for.
    pub(super) usage: UsageMember,
}

/// Where usage is found in a chunk of a chat or completion stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum UsageMember {
    /// The chunk has none.
    #[default]
    Absent,
    /// Beside choices, or `null`.
    Beside,
    /// In a chunk of its own, with no choices.
    Alone,
}

impl Facts {
    /// Reads one event of a stream.
    pub(super) fn of_event(shape: Shape, json: &[u8]) -> serde_json::Result<Self> {
        match shape {
            Shape::OpenAiResponses => Ok(serde_json::from_slice::<ResponseEvent<'_>>(json)?.into()),
            Shape::OpenAiChat
            | Shape::OpenAiCompletions
            | Shape::OpenAiEmbeddings
            | Shape::OpenAiModels
            | Shape::OpenAiModel => Ok(serde_json::from_slice::<Completion>(json)?.into()),
            Shape::OllamaChat
            | Shape::OllamaGenerate
            | Shape::OllamaEmbed
            | Shape::OllamaEmbeddings
            | Shape::OllamaTags
            | Shape::OllamaPs
            | Shape::OllamaShow
            | Shape::OllamaVersion
            | Shape::OllamaRoot => Ok(serde_json::from_slice::<OllamaLine>(json)?.into()),
        }
    }

    /// Reads a whole body, which differs from an event in the Responses API only.
    pub(super) fn of_body(shape: Shape, json: &[u8]) -> serde_json::Result<Self> {
        if shape == Shape::OpenAiResponses {
            Ok(serde_json::from_slice::<ResponseBody>(json)?.into())
        } else {
            Self::of_event(shape, json)
        }
    }
}

/// `chat.completion`, `chat.completion.chunk`, `text_completion` and lists of embeddings.
#[derive(Deserialize)]
struct Completion {
    choices: Option<Vec<Choice>>,
    #[serde(default)]
    usage: Member<Tokens>,
    timings: Option<Timings>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Message>,
    message: Option<Message>,
    #[serde(default)]
    text: Text,
}

/// What the model wrote, in the members of OpenAI, llama.cpp, vLLM and Ollama.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Text,
    reasoning_content: Text,
    reasoning: Text,
    thinking: Text,
    refusal: Text,
    tool_calls: Text,
    function_call: Text,
}

/// `prompt_tokens` and `completion_tokens`, or the names that the Responses API gives them.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Tokens {
    prompt_tokens: Number,
    completion_tokens: Number,
    input_tokens: Number,
    output_tokens: Number,
}

/// llama.cpp's own measure, present with and without `include_usage`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Timings {
    cache_n: Number,
    prompt_n: Number,
    prompt_ms: Number,
    predicted_n: Number,
    predicted_ms: Number,
}

#[derive(Deserialize)]
struct ResponseEvent<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(default)]
    delta: Text,
    response: Option<EventResponse>,
    timings: Option<Timings>,
    #[serde(default)]
    sequence_number: Number,
    error: Option<IgnoredAny>,
}

/// The `response` of an event: its output was counted from the deltas already.
#[derive(Deserialize)]
struct EventResponse {
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct ResponseBody {
    output: Option<Vec<OutputItem>>,
    usage: Option<Tokens>,
    timings: Option<Timings>,
    error: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutputItem {
    content: Option<Vec<OutputPart>>,
    summary: Option<Vec<OutputPart>>,
    arguments: Text,
    input: Text,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutputPart {
    text: Text,
    refusal: Text,
}

/// Every answer of Ollama's native API. Durations are nanoseconds.
#[derive(Default, Deserialize)]
#[serde(default)]
struct OllamaLine {
    message: Option<Message>,
    response: Text,
    thinking: Text,
    done: bool,
    prompt_eval_count: Number,
    eval_count: Number,
    prompt_eval_duration: Number,
    eval_duration: Number,
    total_duration: Number,
    load_duration: Number,
    error: Option<IgnoredAny>,
}

impl From<Completion> for Facts {
    fn from(chunk: Completion) -> Self {
        let alone = chunk.choices.as_ref().is_none_or(Vec::is_empty);
        let usage = match chunk.usage {
            Member::Absent => UsageMember::Absent,
            Member::Value(_) if alone => UsageMember::Alone,
            Member::Null | Member::Value(_) => UsageMember::Beside,
        };
        Self {
            text_bytes: chunk.choices.iter().flatten().map(Choice::text_bytes).sum(),
            failed: chunk.error.is_some(),
            usage,
            ..Self::counted(chunk.usage.value(), chunk.timings)
        }
    }
}

impl From<ResponseEvent<'_>> for Facts {
    fn from(event: ResponseEvent<'_>) -> Self {
        let kind = event.kind.as_ref();
        Self {
            text_bytes: if kind.ends_with(".delta") { event.delta.0 } else { 0 },
            ended: matches!(kind, "response.completed" | "response.incomplete" | "response.failed"),
            failed: matches!(kind, "error" | "response.failed") || event.error.is_some(),
            sequence: event.sequence_number.count(),
            ..Self::counted(event.response.and_then(|response| response.usage), event.timings)
        }
    }
}

impl From<ResponseBody> for Facts {
    fn from(body: ResponseBody) -> Self {
        Self {
            text_bytes: body.output.iter().flatten().map(OutputItem::text_bytes).sum(),
            failed: body.error.is_some(),
            ..Self::counted(body.usage, body.timings)
        }
    }
}

impl From<OllamaLine> for Facts {
    fn from(line: OllamaLine) -> Self {
        Self {
            text_bytes: line.response.0
                + line.thinking.0
                + line.message.as_ref().map_or(0, Message::text_bytes),
            prompt_tokens: line.prompt_eval_count.count(),
            completion_tokens: line.eval_count.count(),
            gpu_seconds: line.gpu_seconds(),
            ended: line.done,
            failed: line.error.is_some(),
            ..Self::default()
        }
    }
}

impl Facts {
    fn counted(tokens: Option<Tokens>, timings: Option<Timings>) -> Self {
        let (tokens, timings) = (tokens.unwrap_or_default(), timings.unwrap_or_default());
        Self {
            prompt_tokens: tokens.prompt().or_else(|| timings.prompt()),
            completion_tokens: tokens.completion().or_else(|| timings.predicted_n.count()),
            gpu_seconds: timings.prompt_ms.plus(timings.predicted_ms).map(|ms| ms / 1e3),
            ..Self::default()
        }
    }
}

impl Tokens {
    fn prompt(&self) -> Option<u64> {
        self.prompt_tokens.count().or_else(|| self.input_tokens.count())
    }

    fn completion(&self) -> Option<u64> {
        self.completion_tokens.count().or_else(|| self.output_tokens.count())
    }
}

impl Timings {
    /// Tokens found in the cache are part of the prompt; only `prompt_n` had to be computed.
    fn prompt(&self) -> Option<u64> {
        Some(self.prompt_n.count()? + self.cache_n.count().unwrap_or(0))
    }
}

impl OllamaLine {
    /// Evaluation of prompt and answer; for embeddings, all but the loading of the model.
    fn gpu_seconds(&self) -> Option<f64> {
        let evaluated = self.prompt_eval_duration.plus(self.eval_duration);
        evaluated.or_else(|| self.total_duration.minus(self.load_duration)).map(|ns| ns / 1e9)
    }
}

impl Choice {
    fn text_bytes(&self) -> u64 {
        let messages = self.delta.iter().chain(&self.message);
        self.text.0 + messages.map(Message::text_bytes).sum::<u64>()
    }
}

impl Message {
    fn text_bytes(&self) -> u64 {
        let reasoning = self.reasoning_content.0 + self.reasoning.0 + self.thinking.0;
        self.content.0 + reasoning + self.refusal.0 + self.tool_calls.0 + self.function_call.0
    }
}

impl OutputItem {
    fn text_bytes(&self) -> u64 {
        let parts = self.content.iter().chain(&self.summary).flatten();
        self.arguments.0
            + self.input.0
            + parts.map(|part| part.text.0 + part.refusal.0).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts::default()
    }

    #[test]
    fn events_are_read() {
        use Shape::{OllamaChat, OllamaGenerate, OpenAiChat, OpenAiCompletions, OpenAiResponses};
        let check = |shape, json: &str, expected: Facts| {
            assert_eq!(Facts::of_event(shape, json.as_bytes()).unwrap(), expected, "{json}");
        };
        let text = |text_bytes| Facts { text_bytes, ..facts() };
        check(OpenAiChat, "{}", facts());
        check(OpenAiChat, r#"{"choices":null,"error":null}"#, facts());
        check(
            OpenAiChat,
            r#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#,
            facts(),
        );
        check(OpenAiChat, r#"{"choices":[{"delta":{"content":"\u00c9t\n"}}]}"#, text(4));
        check(OpenAiChat, r#"{"choices":[{"delta":{"reasoning_content":"abc"}}]}"#, text(3));
        check(OpenAiChat, r#"{"choices":[{"delta":null},{"delta":{"content":"xy"}}]}"#, text(2));
        check(
            OpenAiChat,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a"}}]}}]}"#,
            text(3),
        );
        check(OpenAiCompletions, r#"{"choices":[{"text":" Paris","index":0}]}"#, text(6));
        check(OpenAiChat, r#"{"error":{"message":"m"}}"#, Facts { failed: true, ..facts() });
        check(OllamaChat, r#"{"error":"boom"}"#, Facts { failed: true, ..facts() });
        check(OllamaGenerate, r#"{"response":"ab","thinking":"c","done":false}"#, text(3));
        check(
            OllamaChat,
            r#"{"message":{"tool_calls":[{"function":{"arguments":{"city":"Paris","n":3}}}]}}"#,
            text(5),
        );
        check(
            OpenAiResponses,
            r#"{"type":"response.output_text.delta","delta":"abc","sequence_number":7}"#,
            Facts { text_bytes: 3, sequence: Some(7), ..facts() },
        );
        check(OpenAiResponses, r#"{"type":"response.output_text.done","text":"abc"}"#, facts());
        let both = Facts { ended: true, failed: true, ..facts() };
        check(OpenAiResponses, r#"{"type":"response.failed","response":{"usage":null}}"#, both);
    }

    #[test]
    fn usage_alone_is_told_from_usage_beside_choices() {
        let check = |json: &str, expected| {
            let facts = Facts::of_event(Shape::OpenAiChat, json.as_bytes()).unwrap();
            assert_eq!(facts.usage, expected, "{json}");
        };
        check(r#"{"choices":[]}"#, UsageMember::Absent);
        check(r#"{"choices":[],"usage":{"prompt_tokens":1}}"#, UsageMember::Alone);
        check(r#"{"choices":[],"usage":null}"#, UsageMember::Beside);
        check(r#"{"choices":[{"delta":{}}],"usage":null}"#, UsageMember::Beside);
        check(r#"{"choices":[{"delta":{}}],"usage":{}}"#, UsageMember::Beside);
    }

    #[test]
    fn figures_that_cannot_be_true_are_left_out() {
        let check = |figure: &str, expected| {
            let json = format!(r#"{{"usage":{{"prompt_tokens":{figure}}}}}"#);
            let facts = Facts::of_event(Shape::OpenAiChat, json.as_bytes()).unwrap();
            assert_eq!(facts.prompt_tokens, expected, "{figure}");
        };
        check("37", Some(37));
        check("37.0", Some(37));
        check("9007199254740992", Some(1 << 53));
        for absurd in ["9007199254740994", "-1", "-0.5", "1e300", "null", "\"37\"", "[1]", "{}"] {
            check(absurd, None);
        }
    }

    #[test]
    fn timings_count_too() {
        let json = br#"{"choices":[],"timings":{"cache_n":36,"prompt_n":1,"prompt_ms":48.0,"predicted_n":12,"predicted_ms":502.0}}"#;
        let facts = Facts::of_event(Shape::OpenAiChat, json).unwrap();
        assert_eq!((facts.prompt_tokens, facts.completion_tokens), (Some(37), Some(12)));
        assert_eq!(facts.gpu_seconds, Some(0.55));
    }

    #[test]
    fn whole_responses_are_read() {
        let json = br#"{"output":[{"type":"message","content":[{"type":"output_text","text":"abc"}]},{"type":"function_call","arguments":"{}"}],"usage":{"input_tokens":3,"output_tokens":4},"error":null}"#;
        let facts = Facts::of_body(Shape::OpenAiResponses, json).unwrap();
        assert_eq!((facts.text_bytes, facts.failed), (5, false));
        assert_eq!((facts.prompt_tokens, facts.completion_tokens), (Some(3), Some(4)));
    }

    #[test]
    fn what_is_not_one_object_is_refused() {
        let deep = format!("{{\"choices\":[{{\"text\":{}", "[".repeat(100_000));
        let cases = ["", "[DONE]x", "{", "[]", "1", "{} {}", "{\"choices\":1}", &deep];
        for json in cases {
            assert!(Facts::of_event(Shape::OpenAiChat, json.as_bytes()).is_err());
        }
        let twice = br#"{"usage":null,"usage":{"prompt_tokens":1}}"#;
        assert!(Facts::of_event(Shape::OpenAiChat, twice).is_err());
        assert!(
            Facts::of_event(Shape::OpenAiChat, b"{\"choices\":[{\"text\":\"\xff\"}]}").is_err()
        );
    }
}
