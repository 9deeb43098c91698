//! What one event, or one whole body, says about itself.

use std::borrow::Cow;

use super::Shape;
use super::forms::{
    Block, Choice, Completion, Details, Message, MessagesBody, MessagesEvent, OllamaLine,
    OutputItem, ResponseBody, ResponseEvent, Timings, Tokens,
};
use super::text::Text;
use super::wire::{Member, Number};

/// What was read from one event or body.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Facts<'a> {
    /// What the model wrote: answers, reasoning, calls of tools; nothing that is empty.
    pub(super) texts: Vec<Written<'a>>,
    /// Figures of the upstream.
    pub(super) reported: Reported,
    /// This is the end mark of the stream.
    pub(super) ended: bool,
    /// This is an error.
    pub(super) failed: bool,
    /// The number of the event (Responses API).
    pub(super) sequence: Option<u64>,
    /// How the event carries the `usage` member that `stream_options.include_usage` asks for.
    pub(super) usage: UsageMember,
}

/// A piece of a text of the model.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written<'a> {
    /// Which text it continues.
    pub(super) lane: Lane,
    pub(super) text: Cow<'a, str>,
}

/// One of the texts of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    /// The number of the choice.
    pub(super) choice: u64,
    pub(super) kind: Kind,
}

/// What a text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Answer,
    Reasoning,
    Call,
}

/// The upstream's own figures; none that is negative or beyond 2^53.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Reported {
    /// Tokens of the prompt, those in a cache included.
    pub(super) prompt_tokens: Option<u64>,
    pub(super) completion_tokens: Option<u64>,
    /// Of the prompt.
    pub(super) cached_tokens: Option<u64>,
    /// Of the completion, and not shown.
    pub(super) reasoning_tokens: Option<u64>,
    /// Seconds for the part of the prompt that was not in a cache.
    pub(super) prompt_seconds: Option<f64>,
    pub(super) completion_seconds: Option<f64>,
    /// Seconds to load the model.
    pub(super) load_seconds: Option<f64>,
    /// Seconds for all but the loading, where nothing more is told.
    pub(super) whole_seconds: Option<f64>,
}

impl Reported {
    /// Adds a later report. Figures only grow, so the largest is the latest; Ollama sends zeros until
    /// it knows.
    pub(super) fn update(&mut self, later: &Self) {
        let longest = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        *self = Self {
            prompt_tokens: self.prompt_tokens.max(later.prompt_tokens),
            completion_tokens: self.completion_tokens.max(later.completion_tokens),
            cached_tokens: self.cached_tokens.max(later.cached_tokens),
            reasoning_tokens: self.reasoning_tokens.max(later.reasoning_tokens),
            prompt_seconds: longest(self.prompt_seconds, later.prompt_seconds),
            completion_seconds: longest(self.completion_seconds, later.completion_seconds),
            load_seconds: longest(self.load_seconds, later.load_seconds),
            whole_seconds: longest(self.whole_seconds, later.whole_seconds),
        }
    }

    /// Seconds of computing, without the loading of the model.
    pub(super) fn gpu_seconds(&self) -> Option<f64> {
        match (self.prompt_seconds, self.completion_seconds) {
            (Some(prompt), Some(completion)) => Some(prompt + completion),
            (prompt, completion) => prompt.or(completion).or(self.whole_seconds),
        }
    }
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

impl<'a> Facts<'a> {
    /// Reads one event of a stream.
    pub(super) fn of_event(shape: Shape, json: &'a [u8]) -> serde_json::Result<Self> {
        match shape {
            Shape::OpenAiResponses => Ok(serde_json::from_slice::<ResponseEvent<'_>>(json)?.into()),
            Shape::AnthropicMessages => {
                Ok(serde_json::from_slice::<MessagesEvent<'_>>(json)?.into())
            }
            Shape::OpenAiChat
            | Shape::OpenAiCompletions
            | Shape::OpenAiEmbeddings
            | Shape::OpenAiModels
            | Shape::OpenAiModel => Ok(serde_json::from_slice::<Completion<'_>>(json)?.into()),
            Shape::OllamaChat
            | Shape::OllamaGenerate
            | Shape::OllamaEmbed
            | Shape::OllamaEmbeddings
            | Shape::OllamaTags
            | Shape::OllamaPs
            | Shape::OllamaShow
            | Shape::OllamaVersion
            | Shape::OllamaRoot => Ok(serde_json::from_slice::<OllamaLine<'_>>(json)?.into()),
        }
    }

    /// Reads a whole body, which differs from an event in the Responses and Messages APIs.
    pub(super) fn of_body(shape: Shape, json: &'a [u8]) -> serde_json::Result<Self> {
        if shape == Shape::OpenAiResponses {
            Ok(serde_json::from_slice::<ResponseBody<'_>>(json)?.into())
        } else if shape == Shape::AnthropicMessages {
            Ok(serde_json::from_slice::<MessagesBody<'_>>(json)?.into())
        } else {
            Self::of_event(shape, json)
        }
    }

    fn write(&mut self, choice: u64, kind: Kind, Text(text): Text<'a>) {
        if !text.is_empty() {
            self.texts.push(Written { lane: Lane { choice, kind }, text });
        }
    }

    fn write_message(&mut self, choice: u64, message: Message<'a>) {
        // Three names of one thing: servers send the same text under two of them.
        let reasoning = [message.reasoning_content, message.reasoning, message.thinking];
        if let Some(text) = reasoning.into_iter().find(|Text(text)| !text.is_empty()) {
            self.write(choice, Kind::Reasoning, text);
        }
        self.write(choice, Kind::Answer, message.content);
        self.write(choice, Kind::Answer, message.refusal);
        for call in message.tool_calls.into_iter().flatten() {
            self.write(choice, Kind::Call, call.function);
            self.write(choice, Kind::Call, call.custom);
        }
        self.write(choice, Kind::Call, message.function_call);
    }

    fn write_choice(&mut self, choice: Choice<'a>) {
        let index = choice.index.count().unwrap_or(0);
        self.write(index, Kind::Answer, choice.text);
        for message in choice.delta.into_iter().chain(choice.message) {
            self.write_message(index, message);
        }
    }

    fn write_item(&mut self, item: OutputItem<'a>) {
        for part in item.summary.into_iter().flatten() {
            self.write(0, Kind::Reasoning, part.text);
        }
        for part in item.content.into_iter().flatten() {
            self.write(0, Kind::Answer, part.text);
            self.write(0, Kind::Answer, part.refusal);
        }
        self.write(0, Kind::Call, item.arguments);
        self.write(0, Kind::Call, item.input);
    }

    fn write_block(&mut self, block: Block<'a>) {
        self.write(0, Kind::Reasoning, block.thinking);
        self.write(0, Kind::Answer, block.text);
        for text in [block.name, block.input, block.partial_json] {
            self.write(0, Kind::Call, text);
        }
    }
}

impl<'a> From<Completion<'a>> for Facts<'a> {
    fn from(chunk: Completion<'a>) -> Self {
        let alone = chunk.choices.as_ref().is_none_or(Vec::is_empty);
        let usage = match chunk.usage {
            Member::Absent => UsageMember::Absent,
            Member::Value(_) if alone => UsageMember::Alone,
            Member::Null | Member::Value(_) => UsageMember::Beside,
        };
        let reported = counted(chunk.usage.value(), chunk.timings);
        let failed = chunk.error.is_some();
        let mut facts = Self { reported, failed, usage, ..Self::default() };
        chunk.choices.into_iter().flatten().for_each(|choice| facts.write_choice(choice));
        facts
    }
}

impl<'a> From<ResponseEvent<'a>> for Facts<'a> {
    fn from(event: ResponseEvent<'a>) -> Self {
        let kind = event.kind.as_ref();
        let mut facts = Self {
            ended: matches!(kind, "response.completed" | "response.incomplete" | "response.failed"),
            failed: matches!(kind, "error" | "response.failed") || event.error.is_some(),
            sequence: event.sequence_number.count(),
            reported: counted(event.response.and_then(|response| response.usage), event.timings),
            ..Self::default()
        };
        if let Some(what) = kind.strip_suffix(".delta") {
            facts.write(0, kind_of_delta(what), event.delta);
        }
        facts
    }
}

impl<'a> From<ResponseBody<'a>> for Facts<'a> {
    fn from(body: ResponseBody<'a>) -> Self {
        let reported = counted(body.usage, body.timings);
        let mut facts = Self { reported, failed: body.error.is_some(), ..Self::default() };
        body.output.into_iter().flatten().for_each(|item| facts.write_item(item));
        facts
    }
}

impl<'a> From<MessagesEvent<'a>> for Facts<'a> {
    fn from(event: MessagesEvent<'a>) -> Self {
        let usage = event.usage.or_else(|| event.message.and_then(|message| message.usage));
        let mut facts = Self {
            ended: event.kind == "message_stop",
            failed: event.kind == "error",
            reported: counted(usage, None),
            ..Self::default()
        };
        for block in event.content_block.into_iter().chain(event.delta) {
            facts.write_block(block);
        }
        facts
    }
}

impl<'a> From<MessagesBody<'a>> for Facts<'a> {
    fn from(body: MessagesBody<'a>) -> Self {
        let reported = counted(body.usage, None);
        let mut facts = Self { reported, failed: body.error.is_some(), ..Self::default() };
        body.content.into_iter().flatten().for_each(|block| facts.write_block(block));
        facts
    }
}

impl<'a> From<OllamaLine<'a>> for Facts<'a> {
    fn from(line: OllamaLine<'a>) -> Self {
        let seconds = |nanos: Option<f64>| nanos.map(|nanos| nanos / 1e9);
        let reported = Reported {
            prompt_tokens: line.prompt_eval_count.count(),
            completion_tokens: line.eval_count.count(),
            prompt_seconds: seconds(line.prompt_eval_duration.get()),
            completion_seconds: seconds(line.eval_duration.get()),
            load_seconds: seconds(line.load_duration.get()),
            whole_seconds: seconds(line.total_duration.minus(line.load_duration)),
            ..Reported::default()
        };
        let (ended, failed) = (line.done, line.error.is_some());
        let mut facts = Self { reported, ended, failed, ..Self::default() };
        facts.write(0, Kind::Reasoning, line.thinking);
        facts.write(0, Kind::Answer, line.response);
        if let Some(message) = line.message {
            facts.write_message(0, message);
        }
        facts
    }
}

/// `response.output_text`, `response.refusal`, `response.reasoning_text`,
/// `response.function_call_arguments`, …
fn kind_of_delta(what: &str) -> Kind {
    if what.contains("reasoning") {
        Kind::Reasoning
    } else if what.ends_with("text") || what.ends_with("refusal") {
        Kind::Answer
    } else {
        Kind::Call
    }
}

fn counted(tokens: Option<Tokens>, timings: Option<Timings>) -> Reported {
    let (tokens, timings) = (tokens.unwrap_or_default(), timings.unwrap_or_default());
    let seconds = |millis: Number| millis.get().map(|millis| millis / 1e3);
    Reported {
        prompt_tokens: tokens.prompt().or_else(|| timings.prompt()),
        completion_tokens: tokens.completion().or_else(|| timings.predicted_n.count()),
        cached_tokens: tokens.cached().or_else(|| timings.cache_n.count()),
        reasoning_tokens: tokens.reasoning(),
        prompt_seconds: seconds(timings.prompt_ms),
        completion_seconds: seconds(timings.predicted_ms),
        ..Reported::default()
    }
}

impl Tokens {
    fn prompt(&self) -> Option<u64> {
        self.prompt_tokens.count().or_else(|| {
            let cached = [self.cache_read_input_tokens, self.cache_creation_input_tokens];
            let cached: u64 = cached.iter().filter_map(|tokens| tokens.count()).sum();
            self.input_tokens.count().map(|tokens| tokens + cached)
        })
    }

    fn completion(&self) -> Option<u64> {
        self.completion_tokens.count().or_else(|| self.output_tokens.count())
    }

    fn cached(&self) -> Option<u64> {
        let details = self.prompt_tokens_details.or(self.input_tokens_details);
        let details = details.and_then(|details: Details| details.cached_tokens.count());
        details.or_else(|| self.cache_read_input_tokens.count())
    }

    fn reasoning(&self) -> Option<u64> {
        let details = self.completion_tokens_details.or(self.output_tokens_details);
        details.and_then(|details: Details| details.reasoning_tokens.count())
    }
}

impl Timings {
    /// Tokens found in the cache are part of the prompt; only `prompt_n` had to be computed.
    fn prompt(&self) -> Option<u64> {
        Some(self.prompt_n.count()? + self.cache_n.count().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts::default()
    }

    #[test]
    fn events_are_read() {
        use Shape::{OllamaChat, OllamaGenerate, OpenAiChat, OpenAiCompletions, OpenAiResponses};
        let check = |shape, json: &str, expected: Facts<'_>| {
            assert_eq!(Facts::of_event(shape, json.as_bytes()).unwrap(), expected, "{json}");
        };
        let wrote = |choice, kind, text: &'static str| {
            let written = Written { lane: Lane { choice, kind }, text: text.into() };
            Facts { texts: vec![written], ..facts() }
        };
        let text = |text| wrote(0, Kind::Answer, text);
        check(OpenAiChat, "{}", facts());
        check(OpenAiChat, r#"{"choices":null,"error":null}"#, facts());
        check(
            OpenAiChat,
            r#"{"choices":[{"delta":{"role":"assistant","content":null}}]}"#,
            facts(),
        );
        check(OpenAiChat, r#"{"choices":[{"delta":{"content":"\u00c9t\n"}}]}"#, text("Ét\n"));
        check(
            OpenAiChat,
            r#"{"choices":[{"delta":{"reasoning_content":"abc"}}]}"#,
            wrote(0, Kind::Reasoning, "abc"),
        );
        check(
            OpenAiChat,
            r#"{"choices":[{"delta":null},{"index":3,"delta":{"content":"xy"}}]}"#,
            wrote(3, Kind::Answer, "xy"),
        );
        check(
            OpenAiChat,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"x","function":{"name":"f","arguments":"{\"a"}}]}}]}"#,
            wrote(0, Kind::Call, "f{\"a"),
        );
        check(OpenAiCompletions, r#"{"choices":[{"text":" Paris","index":0}]}"#, text(" Paris"));
        check(OpenAiChat, r#"{"error":{"message":"m"}}"#, Facts { failed: true, ..facts() });
        check(OllamaChat, r#"{"error":"boom"}"#, Facts { failed: true, ..facts() });
        check(OllamaGenerate, r#"{"response":"ab","thinking":"","done":false}"#, text("ab"));
        check(
            OllamaChat,
            r#"{"message":{"tool_calls":[{"function":{"arguments":{"city":"Paris","n":3}}}]}}"#,
            wrote(0, Kind::Call, "Paris"),
        );
        check(
            OpenAiResponses,
            r#"{"type":"response.output_text.delta","delta":"abc","sequence_number":7}"#,
            Facts { sequence: Some(7), ..text("abc") },
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
            assert_eq!(facts.reported.prompt_tokens, expected, "{figure}");
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
        let reported = facts.reported;
        assert_eq!((reported.prompt_tokens, reported.completion_tokens), (Some(37), Some(12)));
        assert_eq!((reported.gpu_seconds(), reported.cached_tokens), (Some(0.55), Some(36)));
    }

    #[test]
    fn details_of_usage_are_read() {
        let check = |shape, usage: &str, expected: [Option<u64>; 4]| {
            let json = format!(r#"{{"usage":{usage}}}"#);
            let Reported {
                prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, ..
            } = Facts::of_body(shape, json.as_bytes()).unwrap().reported;
            let found = [prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens];
            assert_eq!(found, expected, "{json}");
        };
        check(
            Shape::OpenAiChat,
            r#"{"prompt_tokens":9,"completion_tokens":8,"prompt_tokens_details":{"cached_tokens":7},"completion_tokens_details":{"reasoning_tokens":6}}"#,
            [Some(9), Some(8), Some(7), Some(6)],
        );
        check(
            Shape::OpenAiResponses,
            r#"{"input_tokens":9,"output_tokens":8,"input_tokens_details":{"cached_tokens":7},"output_tokens_details":{"reasoning_tokens":6}}"#,
            [Some(9), Some(8), Some(7), Some(6)],
        );
        check(
            Shape::AnthropicMessages,
            r#"{"input_tokens":1,"output_tokens":8,"cache_read_input_tokens":36,"cache_creation_input_tokens":4}"#,
            [Some(41), Some(8), Some(36), None],
        );
        check(Shape::OpenAiChat, r#"{"prompt_tokens_details":null}"#, [None; 4]);
    }

    #[test]
    fn events_of_anthropic_are_read() {
        let check = |json: &str, text: &str, tokens: (Option<u64>, Option<u64>), ended, failed| {
            let facts = Facts::of_event(Shape::AnthropicMessages, json.as_bytes()).unwrap();
            let texts: String = facts.texts.iter().map(|text| text.text.as_ref()).collect();
            let Reported { prompt_tokens, completion_tokens, .. } = facts.reported;
            let found = (texts.as_str(), (prompt_tokens, completion_tokens));
            assert_eq!(
                (found, facts.ended, facts.failed),
                ((text, tokens), ended, failed),
                "{json}"
            );
        };
        let none = (None, None);
        check(
            r#"{"type":"message_start","message":{"content":[],"usage":{"input_tokens":8,"output_tokens":0}}}"#,
            "",
            (Some(8), Some(0)),
            false,
            false,
        );
        check(r#"{"type":"content_block_delta","delta":{"text":"a"}}"#, "a", none, false, false);
        check(
            r#"{"type":"content_block_delta","delta":{"thinking":"b"}}"#,
            "b",
            none,
            false,
            false,
        );
        check(
            r#"{"type":"content_block_start","content_block":{"type":"tool_use","id":"x","name":"f","input":{}}}"#,
            "f",
            none,
            false,
            false,
        );
        check(
            r#"{"type":"message_delta","usage":{"output_tokens":8}}"#,
            "",
            (None, Some(8)),
            false,
            false,
        );
        check(r#"{"type":"message_stop"}"#, "", none, true, false);
        check(r#"{"type":"error","error":{"type":"x"}}"#, "", none, false, true);
    }

    #[test]
    fn whole_responses_are_read() {
        let json = br#"{"output":[{"type":"message","content":[{"type":"output_text","text":"abc"}]},{"type":"function_call","arguments":"{}"}],"usage":{"input_tokens":3,"output_tokens":4},"error":null}"#;
        let facts = Facts::of_body(Shape::OpenAiResponses, json).unwrap();
        let texts: Vec<_> = facts.texts.iter().map(|text| text.text.as_ref()).collect();
        assert_eq!((texts, facts.failed), (vec!["abc", "{}"], false));
        let reported = facts.reported;
        assert_eq!((reported.prompt_tokens, reported.completion_tokens), (Some(3), Some(4)));
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
