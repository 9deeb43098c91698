//! Where the texts of a request are.
//!
//! One visitor finds them, in the same order, when they are taken out and when they are put back;
//! it decides by the structure alone, never by a text that may have been taken.

use serde::Serialize;

use super::messages;
use crate::json::{Json, Object};
use crate::surface::{Kind, Operation};

/// Who wrote a text, and so how far it is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "scanners weigh every role")]
pub enum Role {
    /// The operator of the application: system and developer messages, instructions, templates.
    System,
    /// The person who asks.
    User,
    /// Earlier answers of the model, as the client tells them.
    Assistant,
    /// Results of tools and retrieved documents.
    Tool,
    /// Tool definitions, schemas, names and parameters.
    Definition,
}

impl Role {
    /// The stable name, in audit records and rule files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
            Self::Definition => "definition",
        }
    }
}

/// One text of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Who wrote it.
    pub role: Role,
    /// Texts of one message share a group: they are also judged joined.
    pub group: u32,
    /// The text.
    pub text: String,
    /// Whether it is what was said: the content of a message, no name and no id beside it.
    pub said: bool,
}

impl Piece {
    /// What was said in a message.
    #[must_use]
    pub const fn new(role: Role, group: u32, text: String) -> Self {
        Self { role, group, text, said: true }
    }
}

/// A place that holds a text.
pub(super) enum Slot<'a> {
    /// What was said.
    Said(&'a mut String),
    /// Any other text.
    Text(&'a mut String),
    Key(&'a str),
}

/// What is called for every text.
pub(super) type Visit<'v> = &'v mut dyn FnMut(Role, u32, Slot<'_>);

/// Takes every text out of the body, leaving empty strings; keys are copied.
pub(super) fn take(operation: &Operation, body: &mut Object) -> Vec<Piece> {
    let mut pieces = Vec::new();
    visit_body(operation, body, &mut |role, group, slot| {
        let said = matches!(slot, Slot::Said(_));
        let text = match slot {
            Slot::Said(text) | Slot::Text(text) => std::mem::take(text),
            Slot::Key(key) => key.to_owned(),
        };
        pieces.push(Piece { role, group, text, said });
    });
    pieces
}

/// Puts the texts back where they were taken; `None` if the places are no longer the same, or if a
/// key was redacted, which would need another structure.
pub(super) fn put_back(operation: &Operation, body: &mut Object, pieces: Vec<Piece>) -> Option<()> {
    let mut pieces = pieces.into_iter();
    let mut fits = true;
    visit_body(operation, body, &mut |_, _, slot| match (slot, pieces.next()) {
        (Slot::Said(text) | Slot::Text(text), Some(piece)) => *text = piece.text,
        (Slot::Key(key), Some(piece)) => fits &= piece.text == key,
        (_, None) => fits = false,
    });
    (fits && pieces.next().is_none()).then_some(())
}

/// The parameter of some servers for retrieved texts.
const DOCUMENTS: &str = "documents";

fn visit_body(operation: &Operation, body: &mut Object, visit: Visit<'_>) {
    let mut groups = 0;
    for (key, value) in body.iter_mut() {
        let kind = operation.params.iter().find(|p| p.name == key).map(|p| p.kind);
        groups = match kind {
            // A list of retrieved texts, where the operator lets it pass, is what tools return.
            None if key == DOCUMENTS => visit_each(value, Role::Tool, groups + 1, visit),
            kind => visit_param(kind, value, groups + 1, visit),
        };
    }
}

/// Visits one parameter, starting with this group; gives the last group it used.
fn visit_param(kind: Option<Kind>, value: &mut Json, group: u32, visit: Visit<'_>) -> u32 {
    match kind {
        Some(Kind::Text(role)) => visit_said(value, role, group, visit),
        Some(Kind::Texts(role)) => return visit_each(value, role, group, visit),
        Some(Kind::ChatMessages | Kind::OllamaMessages | Kind::ResponsesInput) => {
            return messages::visit(value, group, visit);
        }
        Some(Kind::Word | Kind::Stop) => visit_all(value, Role::User, group, visit),
        Some(Kind::Options) => visit_stops(value, group, visit),
        // `None`: a parameter that the operator allowed.
        Some(Kind::Tools | Kind::Free) | None => visit_all(value, Role::Definition, group, visit),
        Some(
            Kind::Model
            | Kind::Stream
            | Kind::StreamOptions
            | Kind::KeepAlive
            | Kind::MaxTokens
            | Kind::Choices
            | Kind::TopLogprobs
            | Kind::Echo
            | Kind::Bool
            | Kind::Number
            | Kind::Images
            | Kind::Context
            | Kind::Store
            | Kind::Refused(_),
        ) => {}
    }
    group
}

/// Ollama options are numbers, but for the stop sequences.
fn visit_stops(options: &mut Json, group: u32, visit: Visit<'_>) {
    if let Json::Obj(options) = options
        && let Some(stop) = options.get_mut("stop")
    {
        visit_all(stop, Role::User, group, visit);
    }
}

/// Texts that stand alone, each a group of its own.
fn visit_each(value: &mut Json, role: Role, mut group: u32, visit: Visit<'_>) -> u32 {
    if let Json::Arr(items) = value {
        for item in items {
            visit_said(item, role, group, visit);
            group += 1;
        }
    } else {
        visit_said(value, role, group, visit);
    }
    group
}

/// A text that was said, or whatever stands in its place.
pub(super) fn visit_said(value: &mut Json, role: Role, group: u32, visit: Visit<'_>) {
    if let Json::Str(text) = value {
        visit(role, group, Slot::Said(text));
    } else {
        visit_all(value, role, group, visit);
    }
}

/// Every string and every key below a value.
pub(super) fn visit_all(value: &mut Json, role: Role, group: u32, visit: Visit<'_>) {
    match value {
        Json::Str(text) => visit(role, group, Slot::Text(text)),
        Json::Arr(items) => items.iter_mut().for_each(|item| visit_all(item, role, group, visit)),
        Json::Obj(object) => {
            for (key, value) in object.iter_mut() {
                visit(role, group, Slot::Key(key));
                visit_all(value, role, group, visit);
            }
        }
        Json::Null | Json::Bool(_) | Json::Num(_) => {}
    }
}
