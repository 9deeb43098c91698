//! The end of a broken stream, in the words of the dialect.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Framing, Shape};
use crate::refusal::openai_error;
use crate::verdict::Denial;

/// The last event of a stream that the gateway has to end; nothing where the framing has no room
/// for one, so that only cutting the connection tells the client.
///
/// No end mark follows: OpenAI's clients take `[DONE]`, and even a plain end of the body, for
/// success, but raise on an `error` member.
pub(super) fn error_end(
    shape: Shape,
    framing: Framing,
    sequence: u64,
    denial: &Denial,
    request_id: &str,
) -> Bytes {
    match framing {
        Framing::Sse if shape == Shape::OpenAiResponses => {
            let event = response_error(denial, request_id, sequence);
            Bytes::from(format!("event: error\ndata: {event}\n\n"))
        }
        Framing::Sse if shape == Shape::AnthropicMessages => {
            let error = json!({ "type": "api_error", "message": denial.message() });
            let event = json!({ "type": "error", "error": error, "request_id": request_id });
            Bytes::from(format!("event: error\ndata: {event}\n\n"))
        }
        Framing::Sse => {
            let event = json!({ "error": openai_error(denial, request_id) });
            Bytes::from(format!("data: {event}\n\n"))
        }
        Framing::NdJson => Bytes::from(format!("{}\n", json!({ "error": denial.message() }))),
        Framing::Json | Framing::Text => Bytes::new(),
    }
}

/// The `error` event of the Responses API. OpenAI documents flat members; its clients raise only
/// if there is an `error` member as well, and others read nothing but that.
fn response_error(denial: &Denial, request_id: &str, sequence: u64) -> Value {
    json!({
        "type": "error",
        "code": denial.reason().code(),
        "message": denial.message(),
        "param": denial.param_name(),
        "sequence_number": sequence,
        "error": openai_error(denial, request_id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Reason;

    #[test]
    fn each_dialect_ends_in_its_own_words() {
        let check = |shape, framing, reason, expected: &str| {
            let denial = Denial::new(reason, "It \"broke\".\n\ndata: [DONE]").detail("host db-7");
            let end = error_end(shape, framing, 9, &denial, "req-1");
            assert_eq!(std::str::from_utf8(&end).unwrap(), expected);
        };
        check(
            Shape::AnthropicMessages,
            Framing::Sse,
            Reason::UpstreamUnavailable,
            "event: error\ndata: {\"error\":{\"message\":\"It \\\"broke\\\".\\n\\ndata: [DONE]\",\"type\":\"api_error\"},\"request_id\":\"req-1\",\"type\":\"error\"}\n\n",
        );
        check(
            Shape::OpenAiChat,
            Framing::Sse,
            Reason::UpstreamUnavailable,
            concat!(
                r#"data: {"error":{"code":"upstream_unavailable","#,
                r#""message":"It \"broke\".\n\ndata: [DONE]","param":null,"request_id":"req-1","#,
                r#""source":"gateway","type":"server_error"}}"#,
                "\n\n"
            ),
        );
        check(
            Shape::OpenAiResponses,
            Framing::Sse,
            Reason::ContentFilter,
            concat!(
                "event: error\n",
                r#"data: {"code":"content_filter","error":{"code":"content_filter","#,
                r#""message":"It \"broke\".\n\ndata: [DONE]","param":null,"request_id":"req-1","#,
                r#""source":"gateway","type":"invalid_request_error"},"#,
                r#""message":"It \"broke\".\n\ndata: [DONE]","param":null,"sequence_number":9,"#,
                r#""type":"error"}"#,
                "\n\n"
            ),
        );
        check(
            Shape::OllamaChat,
            Framing::NdJson,
            Reason::UpstreamTimeout,
            "{\"error\":\"It \\\"broke\\\".\\n\\ndata: [DONE]\"}\n",
        );
        check(Shape::OpenAiChat, Framing::Json, Reason::UpstreamTimeout, "");
        check(Shape::OllamaRoot, Framing::Text, Reason::UpstreamTimeout, "");
    }
}
