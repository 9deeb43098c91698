//! Recognise: method and path → [`Operation`]. What is not in the registry is refused.
//!
//! Each dialect is one file with its operations: which scope they need, what each request parameter
//! means (and so where every text sits on the way in), and what the answer looks like (where the
//! texts, the usage and the end mark sit on the way out). `prompt` walks the parameters,
//! `answer` the answer; neither knows a path.

mod ollama;
mod openai;
mod own;

use crate::accounts::permission::Permission;
use crate::answer::Shape;
use crate::prompt::Role;
use crate::verdict::{Denial, Reason};

pub use own::OwnOp;

/// Whose wire format is spoken: it decides the shape of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a new dialect needs its own error shape")]
pub enum Dialect {
    /// `/v1/*` and the gateway's own endpoints.
    OpenAi,
    /// `/api/*` and `/`.
    Ollama,
}

impl Dialect {
    /// The dialect in which a path is answered, also one that does not exist.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let ollama = path == "/" || (path.starts_with("/api/") && !path.starts_with("/api/v1/"));
        if ollama { Self::Ollama } else { Self::OpenAi }
    }
}

/// What serves an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the journey forks in these two")]
pub enum Target {
    /// An upstream; the answer has this shape.
    Upstream(Shape),
    /// The gateway itself.
    Own(OwnOp),
}

/// Who may use an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "authorisation handles every kind")]
pub enum Access {
    /// Anyone, without a credential.
    Open,
    /// Who holds this scope.
    Scope(&'static str),
    /// Whom the table of permissions lets.
    Permission(Permission),
}

/// Which listener offers an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two kinds of listener")]
pub enum Listener {
    /// Clients: the protected APIs, `/auth/*`, health.
    Public,
    /// Operators, on loopback: metrics, health, limits.
    Admin,
}

/// What a request parameter means, and so how it is checked and where its texts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "prompt handles every kind")]
pub enum Kind {
    /// The model's name.
    Model,
    /// Whether the answer is streamed.
    Stream,
    /// Whether the answer begins with the prompt.
    Echo,
    /// OpenAI `stream_options`.
    StreamOptions,
    /// OpenAI's caps on generated tokens, whatever their name.
    MaxTokens,
    /// A number of answers to one prompt.
    Choices,
    /// Alternatives reported for each token.
    TopLogprobs,
    /// `true` or `false`
    Bool,
    /// Any number
    Number,
    /// A short word such as an effort, a tier or an id; judged as text all the same.
    Word,
    /// One text by this role.
    Text(Role),
    /// A text or several, each a prompt of its own. Token arrays are refused: they cannot be read.
    Texts(Role),
    /// A text or several at which generation stops.
    Stop,
    /// OpenAI chat messages
    ChatMessages,
    /// Ollama chat messages
    OllamaMessages,
    /// The `input` of the Responses API
    ResponsesInput,
    /// Function tools. Hosted tools are refused: they would act outside of the gateway.
    Tools,
    /// Any JSON; every text and every key in it is judged as a definition.
    Free,
    /// Ollama `options`
    Options,
    /// Ollama `keep_alive`
    KeepAlive,
    /// Base64 images; they count as not scanned.
    Images,
    /// Tokens of an earlier conversation; they count as not scanned.
    Context,
    /// The Responses API's `store`: only `false`.
    Store,
    /// Never accepted, with the reason.
    Refused(&'static str),
}

/// One request parameter.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Its name, exactly.
    pub name: &'static str,
    /// Its meaning.
    pub kind: Kind,
    /// Whether the request is refused without it.
    pub required: bool,
}

/// One thing that a client can ask for.
#[derive(Debug)]
pub struct Operation {
    /// Stable name, the `endpoint` label of metrics.
    pub id: &'static str,
    /// Accepted methods; `HEAD` goes with `GET`.
    pub method: &'static str,
    /// Exact path. One `{name}` in it stands for a segment; `{model}` and `{subject}` for a name in
    /// which there may be slashes.
    pub path: &'static str,
    /// Whose errors and texts.
    pub dialect: Dialect,
    /// Who may ask for it.
    pub access: Access,
    /// Who serves it.
    pub target: Target,
    /// Where it is offered.
    pub listeners: &'static [Listener],
    /// Request parameters; anything else in the body is refused.
    pub params: &'static [Param],
    /// Whether the answer is a stream when the request does not say.
    pub streams_by_default: bool,
}

impl Operation {
    /// Whether it is asked by orchestrators and scrapers, all the time: it answers also while the
    /// gateway drains or cannot record, and leaves no record unless it is refused.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        matches!(
            self.target,
            Target::Own(
                OwnOp::Live
                    | OwnOp::Ready
                    | OwnOp::Health
                    | OwnOp::Metrics
                    | OwnOp::Jwks
                    | OwnOp::OpenApi
            )
        )
    }

    /// Whether a JSON body is part of the request.
    #[must_use]
    pub fn takes_body(&self) -> bool {
        matches!(self.method, "POST" | "PATCH" | "PUT")
    }

    /// Whether a model generates text for it, so that a cap on tokens applies.
    #[must_use]
    pub fn generates(&self) -> bool {
        self.access == Access::Scope("llm:generate")
    }

    /// Whether it keeps a GPU busy.
    #[must_use]
    pub const fn computes(&self) -> bool {
        match self.target {
            Target::Upstream(shape) => shape.computes(),
            Target::Own(_) => false,
        }
    }

    /// Whether a stream reports usage only if the request asks for it.
    #[must_use]
    pub fn reports_usage_on_request(&self) -> bool {
        matches!(self.id, "openai.chat" | "openai.completions")
    }

    /// Whether a request can ask for a stream.
    #[must_use]
    pub fn can_stream(&self) -> bool {
        self.params.iter().any(|param| param.kind == Kind::Stream)
    }
}

/// Every operation, in the order of the documentation.
pub fn operations() -> impl Iterator<Item = &'static Operation> {
    openai::OPERATIONS.iter().chain(ollama::OPERATIONS).chain(own::OPERATIONS)
}

/// Finds the operation of a request, and the model, user or id that its path names.
///
/// The path is compared as it was sent: no decoding, no dot segments, no case folding, so no two
/// spellings reach one operation.
///
/// # Errors
/// [`Reason::NotFound`], or [`Reason::MethodNotAllowed`] with the methods that the path has.
pub fn recognise<'p>(
    listener: Listener,
    method: &str,
    path: &'p str,
) -> Result<(&'static Operation, Option<&'p str>), Denial> {
    let mut allowed = Vec::new();
    for operation in operations().filter(|o| o.listeners.contains(&listener)) {
        let Some(named) = match_path(operation.path, path) else { continue };
        if operation.method == method || (operation.method == "GET" && method == "HEAD") {
            return Ok((operation, named));
        }
        allowed.push(if operation.method == "GET" { "GET, HEAD" } else { operation.method });
    }
    if allowed.is_empty() {
        return Err(Denial::new(Reason::NotFound, "there is no such endpoint"));
    }
    let denial = Denial::new(Reason::MethodNotAllowed, "this path has other methods");
    Err(denial.allow(allowed.join(", ")))
}

fn match_path<'p>(pattern: &str, path: &'p str) -> Option<Option<&'p str>> {
    let Some((prefix, rest)) = pattern.split_once('{') else {
        return (pattern == path).then_some(None);
    };
    let (name, suffix) = rest.split_once('}')?;
    let named = path.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let fits = matches!(name, "model" | "subject") || !named.contains('/');
    (fits && !named.is_empty()).then_some(Some(named))
}

const fn required(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, required: true }
}

const fn optional(name: &'static str, kind: Kind) -> Param {
    Param { name, kind, required: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(listener: Listener, method: &str, path: &str, expected: &str) {
        let found = match recognise(listener, method, path) {
            Ok((operation, _)) => operation.id.to_owned(),
            Err(denial) => denial.reason().code().to_owned(),
        };
        assert_eq!(found, expected, "{method} {path}");
    }

    #[test]
    fn finds_operations_by_exact_path() {
        use Listener::{Admin, Public};
        check(Public, "POST", "/v1/chat/completions", "openai.chat");
        check(Public, "GET", "/v1/models/phi", "openai.model");
        check(Public, "HEAD", "/", "ollama.root");
        check(Public, "GET", "/v1/chat/completions", "method_not_allowed");
        check(Public, "post", "/v1/chat/completions", "method_not_allowed");
        check(Public, "DELETE", "/auth/api-keys/a1", "own.key_revoke");
        check(Public, "POST", "/auth/api-keys/a1/rotate", "own.key_rotate");
        check(Public, "DELETE", "/auth/api-keys/a1/rotate", "method_not_allowed");
        check(Public, "DELETE", "/auth/api-keys/a/b", "not_found");
        check(Public, "DELETE", "/auth/api-keys/", "not_found");
        check(Public, "GET", "/metrics", "not_found");
        check(Admin, "GET", "/metrics", "own.metrics");
        check(Admin, "POST", "/v1/chat/completions", "not_found");
        check(Admin, "GET", "/internal/quota/user/alice", "own.quota");
        check(Admin, "PUT", "/internal/quota/model/hf.co/org/name", "own.quota_set");
        check(Admin, "POST", "/internal/quota/user/alice/reset", "own.quota_reset");
        check(Admin, "POST", "/internal/quota/user/alice", "method_not_allowed");
        check(Public, "GET", "/internal/quota/user/alice", "not_found");
    }

    #[test]
    fn a_wrong_method_is_told_all_that_the_path_has() {
        let denial = recognise(Listener::Public, "PUT", "/auth/api-keys").unwrap_err();
        assert_eq!(denial.allowed_methods(), Some("GET, HEAD, POST"));
    }

    #[test]
    fn other_spellings_and_closed_routes_are_not_found() {
        for path in [
            "/api/pull",
            "//api/chat",
            "/api//chat",
            "/api/./chat",
            "/v1/../api/chat",
            "/API/CHAT",
            "/api/%63hat",
            "/api/chat/",
            "/api/chat;a=b",
            "/api\\chat",
            "/v1/models/",
            "",
            "http://127.0.0.1/api/chat",
            "/api/blobs/sha256:00",
            "/api/delete",
            "/v1/files",
        ] {
            check(Listener::Public, "POST", path, "not_found");
        }
    }

    #[test]
    fn ids_are_unique_and_bodies_have_models() {
        let mut ids: Vec<_> = operations().map(|o| o.id).collect();
        ids.sort_unstable();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
        for o in operations().filter(|o| o.takes_body() && matches!(o.target, Target::Upstream(_)))
        {
            assert!(o.params.iter().any(|p| p.kind == Kind::Model), "{} has no model", o.id);
        }
    }
}
