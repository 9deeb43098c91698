//! Conversations: OpenAI chat messages, Ollama's, and the items of the Responses API.

use super::texts::{Role, Slot, Visit, visit_all, visit_said};
use super::{Caps, Facts, invalid};
use crate::json::{Json, Object};
use crate::surface::Kind;
use crate::verdict::Denial;

/// Members that a message may have. Another spelling of one of these would be read by a lenient
/// upstream, so what is not listed is refused.
const MEMBERS: &[&str] = &[
    "role",
    "type",
    "content",
    "name",
    "id",
    "status",
    "tool_calls",
    "tool_call_id",
    "tool_name",
    "function_call",
    "refusal",
    "reasoning",
    "reasoning_content",
    "thinking",
    "images",
    "call_id",
    "arguments",
    "output",
    "summary",
    "annotations",
    "encrypted_content",
    "phase",
];

/// Content parts whose texts are read.
const TEXT_PARTS: &[&str] =
    &["text", "input_text", "output_text", "refusal", "summary_text", "reasoning_text", "thinking"];

/// Longest image in one message, before Base64.
const MAX_IMAGE: usize = 6 << 20;

/// Checks the structure of a conversation.
pub(super) fn check(
    kind: Kind,
    name: &str,
    value: &Json,
    caps: &Caps,
    facts: &mut Facts,
) -> Result<(), Denial> {
    match value {
        Json::Str(text) if kind == Kind::ResponsesInput && !text.is_empty() => Ok(()),
        Json::Arr(items) if items.is_empty() => Err(invalid("it must not be empty").param(name)),
        Json::Arr(items) if items.len() > caps.messages => {
            Err(invalid(format!("more than {} messages", caps.messages)).param(name))
        }
        Json::Arr(items) => items.iter().enumerate().try_for_each(|(at, item)| {
            check_item(kind, item, facts).map_err(|denial| denial.param(format!("{name}[{at}]")))
        }),
        Json::Null | Json::Bool(_) | Json::Num(_) | Json::Str(_) | Json::Obj(_) => {
            Err(invalid("it must be an array of messages").param(name))
        }
    }
}

fn check_item(kind: Kind, item: &Json, facts: &mut Facts) -> Result<(), Denial> {
    let message = item.as_object().ok_or_else(|| invalid("a message must be an object"))?;
    if let Some((key, _)) = message.iter().find(|(key, _)| !MEMBERS.contains(key)) {
        return Err(invalid(format!("a message has no member `{}`", shown(key))));
    }
    role_of(message).ok_or_else(|| invalid("unknown role or type of message"))?;
    if kind != Kind::ResponsesInput && message.get("role").is_none() {
        return Err(invalid("a message needs a role"));
    }
    if let Some(images) = message.get("images") {
        check_images(images, facts)?;
    }
    ["content", "output", "summary", "reasoning"]
        .iter()
        .filter_map(|key| message.get(key))
        .try_for_each(|content| check_content(content, facts))
}

fn check_content(content: &Json, facts: &mut Facts) -> Result<(), Denial> {
    match content {
        Json::Null | Json::Str(_) => Ok(()),
        Json::Arr(parts) => parts.iter().try_for_each(|part| check_part(part, facts)),
        Json::Bool(_) | Json::Num(_) | Json::Obj(_) => {
            Err(invalid("content must be a text or an array of parts"))
        }
    }
}

fn check_part(part: &Json, facts: &mut Facts) -> Result<(), Denial> {
    let part = part.as_object().ok_or_else(|| invalid("a content part must be an object"))?;
    match part.get("type").and_then(Json::as_str) {
        Some(kind) if TEXT_PARTS.contains(&kind) => Ok(()),
        Some("image_url" | "input_image") => check_image_part(part, facts),
        _ => Err(invalid("this type of content part is not accepted")),
    }
}

/// Images only as `data:` URLs: a remote one would make the upstream fetch for the caller (SSRF,
/// OWASP API7:2023).
fn check_image_part(part: &Object, facts: &mut Facts) -> Result<(), Denial> {
    let known = |key: &str| matches!(key, "type" | "image_url" | "detail");
    if part.iter().any(|(key, _)| !known(key)) {
        return Err(invalid("an image part has only type, image_url and detail"));
    }
    let image = part.get("image_url");
    let url = match image {
        Some(Json::Obj(object)) if object.iter().all(|(k, _)| matches!(k, "url" | "detail")) => {
            object.get("url")
        }
        other => other,
    };
    let data = url
        .and_then(Json::as_str)
        .and_then(|url| url.strip_prefix("data:image/"))
        .and_then(|rest| rest.split_once(";base64,"))
        .filter(|(subtype, _)| matches!(*subtype, "png" | "jpeg" | "jpg" | "webp" | "gif"))
        .map(|(_, data)| data);
    match data {
        Some(data) => check_image(data, facts),
        None => Err(invalid("images are accepted only as data:image/…;base64, URLs")),
    }
}

/// Ollama's `images`: an array of Base64 texts.
pub(super) fn check_images(images: &Json, facts: &mut Facts) -> Result<(), Denial> {
    let Json::Arr(images) = images else {
        return Err(invalid("images must be an array").param("images"));
    };
    images.iter().try_for_each(|image| match image.as_str() {
        Some(data) => check_image(data, facts),
        None => Err(invalid("an image must be a Base64 text").param("images")),
    })
}

fn check_image(data: &str, facts: &mut Facts) -> Result<(), Denial> {
    let base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    if data.len() > MAX_IMAGE / 3 * 4 || !data.bytes().all(base64) {
        return Err(invalid("an image is too large or not Base64"));
    }
    facts.opaque = true;
    facts.largest_image = facts.largest_image.max(data.len() / 4 * 3);
    Ok(())
}

/// Visits the texts of a conversation; each message is a group.
pub(super) fn visit(value: &mut Json, mut group: u32, visit: Visit<'_>) -> u32 {
    let Json::Arr(items) = value else {
        visit_said(value, Role::User, group, visit);
        return group;
    };
    for item in items {
        if let Json::Obj(message) = item {
            visit_message(message, group, visit);
        }
        group += 1;
    }
    group
}

fn visit_message(message: &mut Object, group: u32, visit: Visit<'_>) {
    let role = role_of(message).unwrap_or(Role::User);
    for (key, value) in message.iter_mut() {
        match (key, value) {
            ("role" | "type" | "images", _) => {}
            ("content" | "output" | "summary" | "reasoning", Json::Arr(parts)) => {
                parts.iter_mut().for_each(|part| visit_part(part, role, group, visit));
            }
            ("content" | "output", Json::Str(text)) => visit(role, group, Slot::Said(text)),
            (_, value) => visit_all(value, role, group, visit),
        }
    }
}

fn visit_part(part: &mut Json, role: Role, group: u32, visit: Visit<'_>) {
    let Json::Obj(part) = part else { return };
    for (key, value) in part.iter_mut() {
        match key {
            "type" | "image_url" | "detail" => {}
            "text" => visit_said(value, role, group, visit),
            "refusal" => visit_all(value, role, group, visit),
            other => {
                visit(role, group, Slot::Key(other));
                visit_all(value, role, group, visit);
            }
        }
    }
}

/// The role of a message, or of a Responses item by its type.
fn role_of(message: &Object) -> Option<Role> {
    let item = message.get("type").map(Json::as_str);
    match (message.get("role").map(Json::as_str), item) {
        (Some(role), None | Some(Some("message"))) => match role? {
            "system" | "developer" => Some(Role::System),
            "user" => Some(Role::User),
            "assistant" => Some(Role::Assistant),
            "tool" | "function" => Some(Role::Tool),
            _ => None,
        },
        (None, Some(Some("function_call" | "reasoning"))) => Some(Role::Assistant),
        (None, Some(Some("function_call_output"))) => Some(Role::Tool),
        _ => None,
    }
}

/// A name from the body, short enough to stand in an error.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(40).collect()
}
