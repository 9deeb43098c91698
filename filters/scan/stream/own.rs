//! What belongs to one request: its placeholders, canaries and system text.

use std::sync::Arc;

use super::super::report::Action;
use super::adapters::label;
use super::leak::SystemText;
use super::literals::{Literals, Meaning};
use super::released::Topic;

/// The request's own texts, shared by all channels of its answer and by nothing else.
#[derive(Debug, Default)]
pub struct Own {
    pub(super) literals: Literals,
    pub(super) system: Option<SystemText>,
}

impl Own {
    /// Turns a placeholder that the gateway put into the prompt back into the user's value. One
    /// that is longer than the greatest hold is left as it is.
    #[must_use]
    pub fn restore(mut self, placeholder: &str, value: &str) -> Self {
        self.literals.add(placeholder, Meaning::Restore(Arc::from(value)));
        self
    }

    /// Watches for a text that the gateway planted in the prompt and that no answer may hold.
    #[must_use]
    pub fn canary(mut self, token: &str, action: Action) -> Self {
        let label = label(Topic::SystemPromptLeak, "canary", "canary", action, "[SYSTEM PROMPT]");
        self.literals.add(token, Meaning::Canary(Arc::new(label)));
        self
    }

    /// Watches for the request's system texts: `run` sequences of eight words in a row are a leak.
    #[must_use]
    pub fn system<'t>(
        mut self,
        texts: impl IntoIterator<Item = &'t str>,
        run: usize,
        action: Action,
    ) -> Self {
        let label =
            label(Topic::SystemPromptLeak, "system_text", "system-text", action, "[SYSTEM PROMPT]");
        self.system = Some(SystemText::new(texts.into_iter(), run, Arc::new(label)));
        self
    }
}
