//! Ollama's own API: `/api/*` and `/`. Its management routes are not offered.

use super::{Access, Dialect, Kind, Listener, Operation, Param, Target, optional, required};
use crate::answer::Shape;
use crate::prompt::Role;

const PUBLIC: &[Listener] = &[Listener::Public];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        id: "ollama.chat",
        path: "/api/chat",
        target: Target::Upstream(Shape::OllamaChat),
        params: CHAT,
        ..GENERATE
    },
    Operation {
        id: "ollama.generate",
        path: "/api/generate",
        target: Target::Upstream(Shape::OllamaGenerate),
        params: PROMPT,
        ..GENERATE
    },
    Operation {
        id: "ollama.embed",
        path: "/api/embed",
        target: Target::Upstream(Shape::OllamaEmbed),
        params: EMBED,
        ..EMBEDDINGS
    },
    Operation {
        id: "ollama.embeddings",
        path: "/api/embeddings",
        target: Target::Upstream(Shape::OllamaEmbeddings),
        params: OLD_EMBEDDINGS,
        ..EMBEDDINGS
    },
    Operation {
        id: "ollama.tags",
        path: "/api/tags",
        target: Target::Upstream(Shape::OllamaTags),
        ..READ
    },
    Operation {
        id: "ollama.show",
        method: "POST",
        path: "/api/show",
        target: Target::Upstream(Shape::OllamaShow),
        params: SHOW,
        ..READ
    },
    Operation {
        id: "ollama.ps",
        path: "/api/ps",
        target: Target::Upstream(Shape::OllamaPs),
        ..READ
    },
    Operation {
        id: "ollama.version",
        path: "/api/version",
        target: Target::Upstream(Shape::OllamaVersion),
        ..READ
    },
    Operation { id: "ollama.root", path: "/", target: Target::Upstream(Shape::OllamaRoot), ..READ },
];

const GENERATE: Operation = Operation {
    id: "",
    method: "POST",
    path: "",
    dialect: Dialect::Ollama,
    access: Access::Scope("llm:generate"),
    target: Target::Upstream(Shape::OllamaChat),
    listeners: PUBLIC,
    params: &[],
    streams_by_default: true,
};

const EMBEDDINGS: Operation =
    Operation { access: Access::Scope("llm:embed"), streams_by_default: false, ..GENERATE };

const READ: Operation = Operation {
    method: "GET",
    access: Access::Scope("models:read"),
    streams_by_default: false,
    ..GENERATE
};

const CHAT: &[Param] = &[
    required("model", Kind::Model),
    required("messages", Kind::OllamaMessages),
    optional("tools", Kind::Tools),
    optional("format", Kind::Free),
    optional("options", Kind::Options),
    optional("stream", Kind::Stream),
    optional("think", Kind::Free),
    optional("keep_alive", Kind::KeepAlive),
    optional("logprobs", Kind::Bool),
    optional("top_logprobs", Kind::TopLogprobs),
];

const PROMPT: &[Param] = &[
    required("model", Kind::Model),
    required("prompt", Kind::Text(Role::User)),
    optional("suffix", Kind::Text(Role::User)),
    optional("system", Kind::Text(Role::System)),
    optional("template", Kind::Text(Role::System)),
    optional("images", Kind::Images),
    optional("format", Kind::Free),
    optional("options", Kind::Options),
    optional("stream", Kind::Stream),
    optional("think", Kind::Free),
    optional("raw", Kind::Bool),
    optional("keep_alive", Kind::KeepAlive),
    optional("logprobs", Kind::Bool),
    optional("top_logprobs", Kind::TopLogprobs),
    optional("context", Kind::Context),
];

const EMBED: &[Param] = &[
    required("model", Kind::Model),
    required("input", Kind::Texts(Role::User)),
    optional("truncate", Kind::Bool),
    optional("dimensions", Kind::Number),
    optional("options", Kind::Options),
    optional("keep_alive", Kind::KeepAlive),
];

const OLD_EMBEDDINGS: &[Param] = &[
    required("model", Kind::Model),
    required("prompt", Kind::Text(Role::User)),
    optional("options", Kind::Options),
    optional("keep_alive", Kind::KeepAlive),
];

const SHOW: &[Param] = &[required("model", Kind::Model), optional("verbose", Kind::Bool)];
