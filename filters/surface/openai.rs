//! OpenAI's API: `/v1/*`, served by OpenAI-compatible servers and by Ollama alike.

use super::{Access, Dialect, Kind, Listener, Operation, Param, Target, optional, required};
use crate::answer::Shape;
use crate::prompt::Role;

const PUBLIC: &[Listener] = &[Listener::Public];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        id: "openai.chat",
        path: "/v1/chat/completions",
        target: Target::Upstream(Shape::OpenAiChat),
        params: CHAT,
        ..GENERATE
    },
    Operation {
        id: "openai.completions",
        path: "/v1/completions",
        target: Target::Upstream(Shape::OpenAiCompletions),
        params: COMPLETIONS,
        ..GENERATE
    },
    Operation {
        id: "openai.responses",
        path: "/v1/responses",
        target: Target::Upstream(Shape::OpenAiResponses),
        params: RESPONSES,
        ..GENERATE
    },
    Operation {
        id: "openai.embeddings",
        path: "/v1/embeddings",
        access: Access::Scope("llm:embed"),
        target: Target::Upstream(Shape::OpenAiEmbeddings),
        params: EMBEDDINGS,
        ..GENERATE
    },
    Operation {
        id: "openai.models",
        path: "/v1/models",
        target: Target::Upstream(Shape::OpenAiModels),
        ..READ
    },
    Operation {
        id: "openai.model",
        path: "/v1/models/{model}",
        target: Target::Upstream(Shape::OpenAiModel),
        ..READ
    },
];

const GENERATE: Operation = Operation {
    id: "",
    method: "POST",
    path: "",
    dialect: Dialect::OpenAi,
    access: Access::Scope("llm:generate"),
    target: Target::Upstream(Shape::OpenAiChat),
    listeners: PUBLIC,
    params: &[],
    streams_by_default: false,
};

const READ: Operation =
    Operation { method: "GET", access: Access::Scope("models:read"), ..GENERATE };

const STATEFUL: Kind =
    Kind::Refused("answers are not kept between requests; send the whole conversation");

const CHAT: &[Param] = &[
    required("model", Kind::Model),
    required("messages", Kind::ChatMessages),
    optional("stream", Kind::Stream),
    optional("stream_options", Kind::StreamOptions),
    optional("max_tokens", Kind::MaxTokens),
    optional("max_completion_tokens", Kind::MaxTokens),
    optional("n", Kind::Choices),
    optional("best_of", Kind::Choices),
    optional("logprobs", Kind::Bool),
    optional("top_logprobs", Kind::TopLogprobs),
    optional("temperature", Kind::Number),
    optional("top_p", Kind::Number),
    optional("frequency_penalty", Kind::Number),
    optional("presence_penalty", Kind::Number),
    optional("seed", Kind::Number),
    optional("stop", Kind::Stop),
    optional("logit_bias", Kind::Free),
    optional("tools", Kind::Tools),
    optional("tool_choice", Kind::Free),
    optional("parallel_tool_calls", Kind::Bool),
    optional("functions", Kind::Free),
    optional("function_call", Kind::Free),
    optional("response_format", Kind::Free),
    optional("reasoning_effort", Kind::Word),
    optional("verbosity", Kind::Word),
    optional("service_tier", Kind::Word),
    optional("user", Kind::Word),
    optional("safety_identifier", Kind::Word),
    optional("prompt_cache_key", Kind::Word),
    optional("metadata", Kind::Free),
    optional("store", Kind::Store),
    optional("modalities", Kind::Free),
    optional("prediction", Kind::Free),
    optional("audio", Kind::Refused("audio answers cannot be watched")),
    optional("web_search_options", Kind::Refused("hosted tools act outside of the gateway")),
];

const COMPLETIONS: &[Param] = &[
    required("model", Kind::Model),
    required("prompt", Kind::Texts(Role::User)),
    optional("suffix", Kind::Text(Role::User)),
    optional("stream", Kind::Stream),
    optional("stream_options", Kind::StreamOptions),
    optional("max_tokens", Kind::MaxTokens),
    optional("n", Kind::Choices),
    optional("best_of", Kind::Choices),
    optional("logprobs", Kind::TopLogprobs),
    optional("echo", Kind::Echo),
    optional("temperature", Kind::Number),
    optional("top_p", Kind::Number),
    optional("frequency_penalty", Kind::Number),
    optional("presence_penalty", Kind::Number),
    optional("seed", Kind::Number),
    optional("stop", Kind::Stop),
    optional("logit_bias", Kind::Free),
    optional("user", Kind::Word),
];

const RESPONSES: &[Param] = &[
    required("model", Kind::Model),
    required("input", Kind::ResponsesInput),
    optional("instructions", Kind::Text(Role::System)),
    optional("stream", Kind::Stream),
    optional("stream_options", Kind::StreamOptions),
    optional("max_output_tokens", Kind::MaxTokens),
    optional("max_tool_calls", Kind::Number),
    optional("top_logprobs", Kind::TopLogprobs),
    optional("temperature", Kind::Number),
    optional("top_p", Kind::Number),
    optional("text", Kind::Free),
    optional("tools", Kind::Tools),
    optional("tool_choice", Kind::Free),
    optional("parallel_tool_calls", Kind::Bool),
    optional("reasoning", Kind::Free),
    optional("include", Kind::Free),
    optional("truncation", Kind::Word),
    optional("service_tier", Kind::Word),
    optional("user", Kind::Word),
    optional("safety_identifier", Kind::Word),
    optional("prompt_cache_key", Kind::Word),
    optional("metadata", Kind::Free),
    optional("store", Kind::Store),
    optional("previous_response_id", STATEFUL),
    optional("conversation", STATEFUL),
    optional("background", STATEFUL),
    optional("prompt", Kind::Refused("stored prompts cannot be read before they reach the model")),
];

const EMBEDDINGS: &[Param] = &[
    required("model", Kind::Model),
    required("input", Kind::Texts(Role::User)),
    optional("encoding_format", Kind::Word),
    optional("dimensions", Kind::Number),
    optional("user", Kind::Word),
];
