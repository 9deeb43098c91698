//! Which answer an operation gives, and in which framing it may arrive.

use crate::verdict::{Denial, Reason};

/// The answer of one operation: which members carry text, usage, errors and the end mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// `POST /v1/chat/completions`
    OpenAiChat,
    /// `POST /v1/completions`
    OpenAiCompletions,
    /// `POST /v1/responses`
    OpenAiResponses,
    /// `POST /v1/messages`
    AnthropicMessages,
    /// `POST /v1/embeddings`
    OpenAiEmbeddings,
    /// `GET /v1/models`
    OpenAiModels,
    /// `GET /v1/models/{model}`
    OpenAiModel,
    /// `POST /api/chat`
    OllamaChat,
    /// `POST /api/generate`
    OllamaGenerate,
    /// `POST /api/embed`
    OllamaEmbed,
    /// `POST /api/embeddings`, the older form, which reports no usage at all.
    OllamaEmbeddings,
    /// `GET /api/tags`
    OllamaTags,
    /// `GET /api/ps`
    OllamaPs,
    /// `POST /api/show`
    OllamaShow,
    /// `GET /api/version`
    OllamaVersion,
    /// `GET /`: the text "Ollama is running".
    OllamaRoot,
}

impl Shape {
    /// Whether the model writes text, so that completion tokens are charged.
    #[must_use]
    pub const fn generates(self) -> bool {
        matches!(
            self,
            Self::OpenAiChat
                | Self::OpenAiCompletions
                | Self::OpenAiResponses
                | Self::AnthropicMessages
                | Self::OllamaChat
                | Self::OllamaGenerate
        )
    }

    /// Whether a model runs at all, so that prompt tokens and GPU time are charged.
    #[must_use]
    pub const fn computes(self) -> bool {
        self.generates()
            || matches!(self, Self::OpenAiEmbeddings | Self::OllamaEmbed | Self::OllamaEmbeddings)
    }

    /// Whether the answer lists models, which may be filtered by what the caller may use.
    #[must_use]
    pub const fn lists_models(self) -> bool {
        matches!(self, Self::OpenAiModels | Self::OllamaTags | Self::OllamaPs)
    }

    /// The framing of the streamed form, if there is one.
    const fn stream(self) -> Option<Framing> {
        match self {
            Self::OpenAiChat
            | Self::OpenAiCompletions
            | Self::OpenAiResponses
            | Self::AnthropicMessages => Some(Framing::Sse),
            Self::OllamaChat | Self::OllamaGenerate => Some(Framing::NdJson),
            Self::OpenAiEmbeddings
            | Self::OpenAiModels
            | Self::OpenAiModel
            | Self::OllamaEmbed
            | Self::OllamaEmbeddings
            | Self::OllamaTags
            | Self::OllamaPs
            | Self::OllamaShow
            | Self::OllamaVersion
            | Self::OllamaRoot => None,
        }
    }

    /// The framing of the whole form.
    const fn whole(self) -> Framing {
        if matches!(self, Self::OllamaRoot) { Framing::Text } else { Framing::Json }
    }
}

/// How the body is cut into pieces that mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// Server-sent events (WHATWG HTML, section 9.2).
    Sse,
    /// One JSON object a line.
    NdJson,
    /// One JSON object.
    Json,
    /// Plain text.
    Text,
}

impl Framing {
    /// Finds out how the body of a successful answer is framed, from its head.
    ///
    /// A stream that was asked for may also come as one JSON object: Ollama answers so when it
    /// only loads a model, and servers that cannot stream do it always.
    ///
    /// # Errors
    /// With [`Reason::UpstreamUnavailable`] if the media type, its charset or the content coding is
    /// not one that this shape gives: what cannot be read cannot be checked either.
    pub fn of(
        shape: Shape,
        streaming: bool,
        content_type: Option<&str>,
        content_encoding: Option<&str>,
    ) -> Result<Self, Denial> {
        let coding = content_encoding.unwrap_or_default().trim();
        if !coding.is_empty() && !coding.eq_ignore_ascii_case("identity") {
            return Err(unreadable("the answer is compressed"));
        }
        let found = Self::of_media_type(content_type.unwrap_or_default())
            .ok_or_else(|| unreadable("the answer has a media type that is not known"))?;
        let streams = streaming && shape.stream() == Some(found);
        if streams || found == shape.whole() {
            Ok(found)
        } else {
            Err(unreadable("the answer has a media type that this operation does not give"))
        }
    }

    fn of_media_type(value: &str) -> Option<Self> {
        let mut parts = value.split(';').map(str::trim);
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        if !parts.all(is_harmless_parameter) {
            return None;
        }
        match essence.as_str() {
            "text/event-stream" => Some(Self::Sse),
            "application/x-ndjson" | "application/ndjson" => Some(Self::NdJson),
            "application/json" => Some(Self::Json),
            "text/plain" => Some(Self::Text),
            _ => None,
        }
    }
}

/// In another charset than UTF-8 a client would read other characters than were checked.
fn is_harmless_parameter(parameter: &str) -> bool {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    !name.trim().eq_ignore_ascii_case("charset")
        || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
}

fn unreadable(detail: &'static str) -> Denial {
    Denial::new(Reason::UpstreamUnavailable, "The upstream gave an answer that cannot be read.")
        .detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framing_follows_shape_and_head() {
        use Framing::{Json, NdJson, Sse, Text};
        use Shape::{OllamaChat, OllamaRoot, OllamaTags, OpenAiChat, OpenAiEmbeddings};
        let check = |shape, streaming, media_type, expected: Option<Framing>| {
            let found = Framing::of(shape, streaming, media_type, None);
            assert_eq!(found.ok(), expected, "{shape:?} streaming={streaming} {media_type:?}");
        };
        check(OpenAiChat, true, Some("text/event-stream"), Some(Sse));
        check(OpenAiChat, true, Some("Text/Event-Stream; charset=UTF-8"), Some(Sse));
        check(OpenAiChat, true, Some("application/json"), Some(Json));
        check(OpenAiChat, false, Some("application/json; charset=\"utf-8\""), Some(Json));
        check(OpenAiChat, false, Some("text/event-stream"), None);
        check(OpenAiChat, true, Some("application/x-ndjson"), None);
        check(OpenAiChat, true, Some("text/html"), None);
        check(OpenAiChat, true, Some("text/plain"), None);
        check(OpenAiChat, false, Some("application/json; charset=utf-16"), None);
        check(OpenAiChat, false, Some("application/json, text/html"), None);
        check(OpenAiChat, true, None, None);
        check(OpenAiChat, true, Some(""), None);
        check(OllamaChat, true, Some("application/x-ndjson"), Some(NdJson));
        check(OllamaChat, false, Some("application/x-ndjson"), None);
        check(OllamaChat, true, Some("application/json"), Some(Json));
        check(OpenAiEmbeddings, true, Some("text/event-stream"), None);
        check(OllamaTags, false, Some("application/json"), Some(Json));
        check(OllamaRoot, false, Some("text/plain; charset=utf-8"), Some(Text));
        check(OllamaRoot, false, Some("application/json"), None);
    }

    #[test]
    fn only_the_identity_coding_is_read() {
        let check = |coding, expected| {
            let found = Framing::of(Shape::OpenAiChat, false, Some("application/json"), coding);
            assert_eq!(found.is_ok(), expected, "{coding:?}");
        };
        check(None, true);
        check(Some("identity"), true);
        check(Some(""), true);
        check(Some("gzip"), false);
        check(Some("identity, br"), false);
        check(Some("x-unheard-of"), false);
    }
}
