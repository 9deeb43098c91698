//! What a stream gives: text that may go to the client, findings, and perhaps a stop.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::super::report::Action;
use super::super::rules::Kind;

/// What a finding in an answer is about. The name is stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a new topic must be thought about in every policy")]
pub enum Topic {
    /// As in a prompt: a credential, personal data (OWASP LLM02:2025).
    Prompt(Kind),
    /// The request's own system text, or a canary in it (OWASP LLM07:2025).
    SystemPromptLeak,
    /// A link that carries data to a host that is not allowed (OWASP LLM02:2025, LLM05:2025).
    Exfiltration,
    /// Active HTML or script (OWASP LLM05:2025).
    Markup,
    /// More text than allowed (OWASP LLM10:2025).
    Length,
}

impl Topic {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prompt(kind) => kind.as_str(),
            Self::SystemPromptLeak => "system_prompt_leak",
            Self::Exfiltration => "exfiltration",
            Self::Markup => "markup",
            Self::Length => "length",
        }
    }
}

/// What a detector calls its findings, and what is done about them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a label is written field by field")]
pub struct Label {
    /// What it is about.
    pub topic: Topic,
    /// What it is more closely, such as `email` or `github_token`.
    pub r#type: Arc<str>,
    /// The rule or detector.
    pub rule: Arc<str>,
    /// What the policy makes of it.
    pub action: Action,
    /// What a redacted answer shows instead.
    pub placeholder: Arc<str>,
}

/// One thing found in one channel of an answer. It says where, never what.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// What it is, and what is done about it.
    pub label: Arc<Label>,
    /// Its bytes in the original text of the channel (UTF-8). Of a match that is longer than the
    /// greatest hold, the end is where the verdict fell.
    pub bytes: Range<usize>,
    /// Its characters there.
    pub chars: Range<usize>,
}

/// Why a channel ended before its text did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "every stop has an end in every dialect")]
pub enum Stop {
    /// A finding whose action is block: the last one.
    Block,
    /// The ceiling of characters, with the action redact: the rest is left out.
    Length,
}

/// What may go on to the client. A caller empties it between two deltas.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Released {
    /// The text to send now, often empty.
    pub text: String,
    /// What was found since.
    pub findings: Vec<Found>,
    /// How many placeholders of the gateway were turned back.
    pub restored: usize,
    /// Set once the channel is stopped; nothing comes after `text`.
    pub stop: Option<Stop>,
}

impl Released {
    /// Forgets text and findings, and keeps the room they took.
    pub fn clear(&mut self) {
        self.text.clear();
        self.findings.clear();
        self.restored = 0;
    }
}

impl fmt::Debug for Released {
    /// Without the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Released")
            .field("bytes", &self.text.len())
            .field("findings", &self.findings)
            .field("restored", &self.restored)
            .field("stop", &self.stop)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_outlives_clearing_and_text_stays_out_of_debug() {
        let mut out = Released { text: "s3cret".into(), stop: Some(Stop::Block), ..<_>::default() };
        assert!(!format!("{out:?}").contains("s3cret"));
        out.clear();
        assert_eq!((out.text.as_str(), out.stop), ("", Some(Stop::Block)));
        assert_eq!(Topic::Prompt(Kind::Pii).as_str(), "pii");
    }
}
