//! Request parameters: their types, their bounds, and what they say about the request.

use std::time::Duration;

use super::messages::{self, shown};
use super::{Facts, has, invalid};
use crate::json::{Json, Object, fold};
use crate::surface::{Kind, Operation, Param};
use crate::verdict::Denial;

/// What one request may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "the compiled form of the `caps` block")]
pub struct Caps {
    /// Generated tokens of one answer.
    pub max_tokens: u64,
    /// `n` and `best_of`.
    pub choices: u64,
    /// Ollama `num_ctx`, in tokens.
    pub num_ctx: u64,
    /// Ollama `keep_alive`.
    pub keep_alive: Duration,
    /// `top_logprobs`.
    pub top_logprobs: u64,
    /// Texts of one embeddings or completions request.
    pub inputs: usize,
    /// Messages of one conversation.
    pub messages: usize,
    /// Whether Ollama's `context`, tokens that nobody can read, may be sent.
    pub token_context: bool,
    /// Parameters that are passed on besides the registry's.
    pub extra_params: Vec<String>,
}

/// Longest model name, in bytes.
const MAX_MODEL: usize = 256;
/// Stop sequences of one request.
const MAX_STOPS: usize = 16;
/// Largest `num_batch` that reaches an Ollama.
const MAX_BATCH: i64 = 2048;

/// Ollama options that steer sampling. The others move models between devices or reload them for
/// everybody, so a caller does not set them.
const OPTIONS: &[&str] = &[
    "num_predict",
    "num_ctx",
    "num_keep",
    "num_batch",
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "tfs_z",
    "repeat_last_n",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
    "mirostat",
    "mirostat_tau",
    "mirostat_eta",
    "penalize_newline",
    "stop",
];

/// Checks every parameter of a body.
pub(super) fn check(operation: &Operation, body: &Object, caps: &Caps) -> Result<Facts, Denial> {
    let mut facts = Facts {
        stream: operation.can_stream() && operation.streams_by_default,
        choices: 1,
        inputs: 1,
        ..Facts::default()
    };
    for (name, value) in body.iter() {
        match operation.params.iter().find(|param| param.name == name) {
            Some(param) => check_param(param, value, caps, &mut facts)?,
            None => check_extra(operation, name, caps)?,
        }
    }
    let missing = |param: &&Param| param.required && body.get(param.name).is_none();
    match operation.params.iter().find(missing) {
        Some(param) => Err(invalid("this parameter is required").param(param.name)),
        None => Ok(facts),
    }
}

/// An unknown name passes only if the operator listed it and it cannot be taken for a known one.
fn check_extra(operation: &Operation, name: &str, caps: &Caps) -> Result<(), Denial> {
    let folded = fold(name);
    let known = operation.params.iter().any(|param| fold(param.name) == folded);
    if !known && caps.extra_params.iter().any(|extra| extra == name) {
        return Ok(());
    }
    Err(invalid(format!("unknown parameter `{}`", shown(name))).param(shown(name)))
}

fn check_param(param: &Param, value: &Json, caps: &Caps, facts: &mut Facts) -> Result<(), Denial> {
    let name = param.name;
    // OpenAI clients send null for what is not set.
    if *value == Json::Null && !param.required {
        return Ok(());
    }
    match param.kind {
        Kind::Model => facts.model = model(name, value)?,
        Kind::Stream => facts.stream = boolean(name, value)?,
        Kind::StreamOptions => facts.wants_usage = stream_options(name, value)?,
        Kind::MaxTokens => at_least_one(name, value).map(|n| lower(&mut facts.max_tokens, n))?,
        Kind::Choices => {
            facts.choices = facts.choices.max(up_to(name, value, 1, caps.choices)?);
        }
        Kind::TopLogprobs => top_logprobs(name, value, caps)?,
        Kind::Echo => facts.echoes = boolean(name, value)?,
        Kind::Bool => drop(boolean(name, value)?),
        Kind::Number => number(name, value)?,
        Kind::Word | Kind::Text(_) => text(name, value)?,
        Kind::Texts(_) => facts.inputs = texts(name, value, caps)?,
        Kind::Stop => stop(name, value)?,
        Kind::ChatMessages | Kind::OllamaMessages | Kind::ResponsesInput => {
            messages::check(param.kind, name, value, caps, facts)?;
        }
        Kind::Tools => tools(name, value)?,
        Kind::Free => {}
        Kind::Options => options(name, value, facts)?,
        Kind::KeepAlive => drop(keep_alive(name, value)?),
        Kind::Images => messages::check_images(value, facts)?,
        Kind::Context => context(name, value, caps, facts)?,
        Kind::Store => store(name, value)?,
        Kind::Refused(why) => return Err(invalid(why).param(name)),
    }
    Ok(())
}

fn model(name: &str, value: &Json) -> Result<String, Denial> {
    match value.as_str() {
        Some(model) if !model.is_empty() && model.len() <= MAX_MODEL => Ok(model.to_owned()),
        _ => Err(invalid("it must be the name of a model").param(name)),
    }
}

fn boolean(name: &str, value: &Json) -> Result<bool, Denial> {
    let Json::Bool(value) = value else {
        return Err(invalid("it must be true or false").param(name));
    };
    Ok(*value)
}

fn number(name: &str, value: &Json) -> Result<(), Denial> {
    let Json::Num(_) = value else { return Err(invalid("it must be a number").param(name)) };
    Ok(())
}

fn text(name: &str, value: &Json) -> Result<(), Denial> {
    let Json::Str(_) = value else { return Err(invalid("it must be a text").param(name)) };
    Ok(())
}

fn up_to(name: &str, value: &Json, least: u64, most: u64) -> Result<u64, Denial> {
    let number = value.as_i64().and_then(|n| u64::try_from(n).ok());
    number
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| invalid(format!("it must be an integer from {least} to {most}")).param(name))
}

fn at_least_one(name: &str, value: &Json) -> Result<u64, Denial> {
    up_to(name, value, 1, i64::MAX.unsigned_abs())
}

fn lower(cap: &mut Option<u64>, value: u64) {
    *cap = Some(cap.map_or(value, |old| old.min(value)));
}

fn top_logprobs(name: &str, value: &Json, caps: &Caps) -> Result<(), Denial> {
    up_to(name, value, 0, caps.top_logprobs).map(drop)
}

fn stream_options(name: &str, value: &Json) -> Result<bool, Denial> {
    let options = value.as_object().ok_or_else(|| invalid("it must be an object").param(name))?;
    let known = |key: &str| matches!(key, "include_usage" | "include_obfuscation");
    if options.iter().any(|(key, value)| !known(key) || !matches!(value, Json::Bool(_))) {
        return Err(invalid("only include_usage and include_obfuscation are known").param(name));
    }
    Ok(options.get("include_usage") == Some(&Json::Bool(true)))
}

fn texts(name: &str, value: &Json, caps: &Caps) -> Result<u64, Denial> {
    match value {
        Json::Str(_) => Ok(1),
        Json::Arr(items) if items.is_empty() || items.len() > caps.inputs => {
            Err(invalid(format!("it must have from 1 to {} texts", caps.inputs)).param(name))
        }
        Json::Arr(items) if items.iter().all(|item| item.as_str().is_some()) => {
            Ok(items.len() as u64)
        }
        Json::Null | Json::Bool(_) | Json::Num(_) | Json::Arr(_) | Json::Obj(_) => {
            Err(invalid("it must be a text or texts; token arrays cannot be read").param(name))
        }
    }
}

fn stop(name: &str, value: &Json) -> Result<(), Denial> {
    match value {
        Json::Str(_) => Ok(()),
        Json::Arr(items)
            if items.len() <= MAX_STOPS && items.iter().all(|item| item.as_str().is_some()) =>
        {
            Ok(())
        }
        Json::Null | Json::Bool(_) | Json::Num(_) | Json::Arr(_) | Json::Obj(_) => {
            Err(invalid(format!("it must be a text or at most {MAX_STOPS} texts")).param(name))
        }
    }
}

/// Only functions: hosted tools (web search, files, remote MCP servers) act on the upstream's side,
/// where the gateway does not see what comes and goes (OWASP LLM06:2025).
fn tools(name: &str, value: &Json) -> Result<(), Denial> {
    let Json::Arr(tools) = value else {
        return Err(invalid("it must be an array of tools").param(name));
    };
    let function = |tool: &Json| {
        let kind = tool.as_object().and_then(|tool| tool.get("type")).and_then(Json::as_str);
        kind == Some("function")
    };
    if tools.iter().all(function) {
        Ok(())
    } else {
        Err(invalid("only tools of type `function` are accepted").param(name))
    }
}

/// Ollama's `context`: the tokens of an earlier conversation, which no scanner can read.
fn context(name: &str, value: &Json, caps: &Caps, facts: &mut Facts) -> Result<(), Denial> {
    if !caps.token_context {
        let why = "token arrays cannot be read; send the conversation as text";
        return Err(invalid(why).param(name));
    }
    match value {
        Json::Arr(tokens) if tokens.iter().all(|token| token.as_i64().is_some()) => {
            facts.opaque = true;
            Ok(())
        }
        Json::Null | Json::Bool(_) | Json::Num(_) | Json::Str(_) | Json::Arr(_) | Json::Obj(_) => {
            Err(invalid("it must be an array of tokens").param(name))
        }
    }
}

fn store(name: &str, value: &Json) -> Result<(), Denial> {
    if boolean(name, value)? {
        return Err(invalid("answers are not kept between requests").param(name));
    }
    Ok(())
}

fn options(name: &str, value: &Json, facts: &mut Facts) -> Result<(), Denial> {
    let options = value.as_object().ok_or_else(|| invalid("it must be an object").param(name))?;
    for (key, value) in options.iter() {
        check_option(key, value, facts)
            .map_err(|denial| denial.param(format!("{name}.{}", shown(key))))?;
    }
    Ok(())
}

fn check_option(key: &str, value: &Json, facts: &mut Facts) -> Result<(), Denial> {
    // LangChain's Ollama client sends every option it knows, null where it is not set.
    if *value == Json::Null {
        return Ok(());
    }
    if !OPTIONS.contains(&key) {
        return Err(invalid("this option is unknown or not the caller's to set"));
    }
    match (key, value) {
        ("stop", value) => stop(key, value),
        ("penalize_newline", value) => boolean(key, value).map(drop),
        // Ollama reads -1 and -2 as "without end": the cap stands for them.
        ("num_predict", value) => match value.as_i64() {
            Some(n) if n > 0 => {
                lower(&mut facts.max_tokens, n.unsigned_abs());
                Ok(())
            }
            Some(-2 | -1) => Ok(()),
            _ => Err(invalid("it must be a positive integer, or -1")),
        },
        ("num_ctx" | "num_batch", value) => at_least_one(key, value).map(drop),
        (_, value) => number(key, value),
    }
}

/// Ollama's `keep_alive`: seconds, or a Go duration; negative means for ever.
fn keep_alive(name: &str, value: &Json) -> Result<Option<Duration>, Denial> {
    let wrong = || invalid("it must be seconds, or a duration such as \"5m\"").param(name);
    match value {
        Json::Num(number) => {
            let seconds = number.as_f64().filter(|s| s.is_finite()).ok_or_else(wrong)?;
            Ok(Duration::try_from_secs_f64(seconds).ok())
        }
        Json::Str(text) => go_duration(text).ok_or_else(wrong),
        Json::Null | Json::Bool(_) | Json::Arr(_) | Json::Obj(_) => Err(wrong()),
    }
}

/// A Go duration of one unit; `Some(None)` is a negative one or one beyond counting.
fn go_duration(text: &str) -> Option<Option<Duration>> {
    let (digits, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let split = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (count, unit) = digits.split_at_checked(split)?;
    let count: u64 = count.parse().ok()?;
    let seconds = match unit {
        "" | "s" => count,
        "m" => count.saturating_mul(60),
        "h" => count.saturating_mul(3600),
        "ms" => count / 1000,
        _ => return None,
    };
    Some((!negative).then_some(Duration::from_secs(seconds)))
}

/// Puts the token cap in and bounds the options that multiply cost.
pub(super) fn bound(
    operation: &Operation,
    body: &mut Object,
    max_tokens: u64,
    tokens_param: &str,
    caps: &Caps,
) {
    if let Some(Ok(Some(wanted))) = body.get("keep_alive").map(|v| keep_alive("keep_alive", v)) {
        body.set("keep_alive", Json::from(wanted.min(caps.keep_alive).as_secs()));
    } else if body.get("keep_alive").is_some_and(|v| *v != Json::Null) {
        body.set("keep_alive", Json::from(caps.keep_alive.as_secs()));
    }
    if has(operation, Kind::MaxTokens) {
        let names = operation.params.iter().filter(|param| param.kind == Kind::MaxTokens);
        names.for_each(|param| drop(body.remove(param.name)));
        let name = match operation.id {
            "openai.responses" => "max_output_tokens",
            "openai.completions" => "max_tokens",
            _ => tokens_param,
        };
        body.set(name, Json::from(max_tokens));
    }
    if has(operation, Kind::Store) && operation.id == "openai.responses" {
        body.set("store", Json::Bool(false));
    }
    bound_options(operation, body, max_tokens, caps);
}

fn bound_options(operation: &Operation, body: &mut Object, max_tokens: u64, caps: &Caps) {
    let native = operation.dialect == crate::surface::Dialect::Ollama && operation.generates();
    if native && !matches!(body.get("options"), Some(Json::Obj(_))) {
        body.set("options", Json::Obj(Object::default()));
    }
    let Some(Json::Obj(options)) = body.get_mut("options") else { return };
    if native || options.get("num_predict").is_some() {
        options.set("num_predict", Json::from(max_tokens));
    }
    clamp(options, "num_ctx", caps.num_ctx);
    clamp(options, "num_batch", MAX_BATCH.unsigned_abs());
}

fn clamp(options: &mut Object, key: &str, most: u64) {
    let over = options.get(key).and_then(Json::as_i64).is_some_and(|n| n.unsigned_abs() > most);
    if over {
        options.set(key, Json::from(most));
    }
}
