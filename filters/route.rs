//! Route: grant + operation → [`Route`]: which upstream serves the request, and by which policy it
//! is scanned. Rules are tried in order and the first match wins; nothing matches: 404.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::glob::Glob;
use crate::queue::QueueLimits;
use crate::scan::Policy;
use crate::surface::{Dialect, Operation};
use crate::usage::Tokenizer;
use crate::verdict::{Denial, Reason};

/// What kind of server an upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each kind serves other dialects")]
pub enum UpstreamKind {
    /// Ollama: its own API, and OpenAI's under `/v1`.
    Ollama,
    /// A server that is compatible with OpenAI's API.
    OpenAi,
}

/// One address of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct Endpoint {
    /// Whether it is spoken to in TLS.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port
    pub port: u16,
    /// What stands before the operation's path, without a last slash; usually nothing.
    pub base_path: String,
}

/// How long each step of an exchange may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct Timeouts {
    /// Connecting, TLS included.
    pub connect: Duration,
    /// Until the answer starts, and between two reads of it.
    pub first_byte: Duration,
    /// One write.
    pub write: Duration,
    /// Life of an idle pooled connection.
    pub idle: Duration,
}

/// A server that runs models.
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct Upstream {
    /// Its name in the configuration, in metrics and in audit records.
    pub name: String,
    /// What it speaks.
    pub kind: UpstreamKind,
    /// Where it is; a connection that fails is tried on the next one.
    pub endpoints: Vec<Endpoint>,
    /// `Authorization` for it.
    pub credential: Option<HeaderValue>,
    /// DER of the CAs that are trusted instead of the public ones.
    pub ca: Option<Vec<Vec<u8>>>,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// GPU-seconds charged per second of wall time where it reports no durations.
    pub gpus: f64,
    /// The parameter by which it obeys a cap on generated tokens in chat completions.
    pub tokens_param: String,
    /// How many requests it works on at one time, and who waits.
    pub queue: QueueLimits,
    /// What counts the tokens of its models, if the operator gave one.
    pub tokenizer: Option<Tokenizer>,
    /// Whether the time that it takes to load a model is charged.
    pub count_load: bool,
}

impl Upstream {
    /// The parameter by which it obeys a cap on generated tokens in chat completions.
    #[must_use]
    pub fn tokens_param(&self) -> &str {
        &self.tokens_param
    }

    /// The endpoint of a try: the first one first, then the others in turn.
    #[must_use]
    pub fn endpoint(&self, attempt: usize) -> Option<&Endpoint> {
        self.endpoints.get(attempt % self.endpoints.len().max(1))
    }

    const fn serves(&self, dialect: Dialect) -> bool {
        matches!((self.kind, dialect), (UpstreamKind::Ollama, _) | (_, Dialect::OpenAi))
    }
}

impl Endpoint {
    /// `Host` as the upstream expects it: Ollama refuses names that are not its own.
    #[must_use]
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }
}

/// Names the upstream only; the credential must not be printed.
impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream {}", self.name)
    }
}

/// One line of the routing table.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct Rule {
    /// Beginning of the path; empty matches all.
    pub path: String,
    /// The model, by its canonical name; `None` matches all, also requests that name none.
    pub model: Option<Glob>,
    /// Where to.
    pub upstream: Arc<Upstream>,
    /// By which firewall policy.
    pub policy: Arc<Policy>,
    /// Limit for the body, instead of the listener's.
    pub max_body_bytes: Option<u64>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Route {
    upstream: Arc<Upstream>,
    policy: Arc<Policy>,
    max_body_bytes: Option<u64>,
}

impl Route {
    /// The server.
    #[must_use]
    pub const fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// The firewall policy.
    #[must_use]
    pub const fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Limit for the body, instead of the listener's.
    #[must_use]
    pub const fn max_body_bytes(&self) -> Option<u64> {
        self.max_body_bytes
    }
}

/// The routing table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rules: Vec<Rule>,
}

impl Table {
    /// A table of these rules, in their order.
    #[must_use]
    pub const fn new(rules: Vec<Rule>) -> Self {
        Self { rules }
    }

    /// Finds the route of a request.
    ///
    /// # Errors
    /// [`Reason::NotFound`] if no rule matches, or if the upstream of the one that does cannot
    /// serve the operation.
    pub fn find(&self, operation: &Operation, model: Option<&str>) -> Result<Route, Denial> {
        let served = |rule: &&Rule| rule.upstream.serves(operation.dialect);
        let rule = self.on_path(operation.path).find(|rule| rule.takes(model)).filter(served);
        // A list names no model: if all rules ask for one, the first upstream that can answers.
        let rule = match model {
            None => rule.or_else(|| self.on_path(operation.path).find(served)),
            Some(_) => rule,
        };
        let rule = rule.ok_or_else(|| {
            Denial::new(Reason::NotFound, "no upstream serves this operation for this model")
        })?;
        Ok(Route {
            upstream: Arc::clone(&rule.upstream),
            policy: Arc::clone(&rule.policy),
            max_body_bytes: rule.max_body_bytes,
        })
    }

    /// The largest body that any rule for this path takes, before the model is known.
    #[must_use]
    pub fn body_limit(&self, path: &str, default: u64) -> u64 {
        let limits = self.on_path(path).map(|rule| rule.max_body_bytes.unwrap_or(default));
        limits.max().unwrap_or(default)
    }

    /// Every upstream once, by name.
    #[must_use]
    pub fn upstreams(&self) -> HashMap<&str, &Arc<Upstream>> {
        self.rules.iter().map(|rule| (rule.upstream.name.as_str(), &rule.upstream)).collect()
    }

    fn on_path<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a Rule> {
        self.rules.iter().filter(move |rule| path.starts_with(&rule.path))
    }
}

impl Rule {
    fn takes(&self, model: Option<&str>) -> bool {
        match (&self.model, model) {
            (None, _) => true,
            (Some(glob), Some(model)) => glob.matches(&model.to_ascii_lowercase()),
            (Some(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surface::{Listener, recognise};

    fn upstream(name: &str, kind: UpstreamKind) -> Arc<Upstream> {
        Arc::new(Upstream {
            name: name.to_owned(),
            kind,
            endpoints: vec![],
            credential: None,
            ca: None,
            timeouts: Timeouts {
                connect: Duration::ZERO,
                first_byte: Duration::ZERO,
                write: Duration::ZERO,
                idle: Duration::ZERO,
            },
            gpus: 1.0,
            tokens_param: "max_tokens".to_owned(),
            queue: QueueLimits::default(),
            tokenizer: None,
            count_load: false,
        })
    }

    fn rule(path: &str, model: Option<&str>, upstream: &Arc<Upstream>) -> Rule {
        Rule {
            path: path.to_owned(),
            model: model.map(Glob::new),
            upstream: Arc::clone(upstream),
            policy: Arc::default(),
            max_body_bytes: None,
        }
    }

    #[test]
    fn the_first_match_wins_and_nothing_passes_unmatched() {
        let openai = upstream("openai", UpstreamKind::OpenAi);
        let ollama = upstream("ollama", UpstreamKind::Ollama);
        let table = Table::new(vec![
            rule("/v1/", Some("gpt-*"), &openai),
            rule("/v1/", Some("phi*"), &ollama),
            rule("/api/", None, &ollama),
        ]);
        for (method, path, model, expected) in [
            ("POST", "/v1/chat/completions", Some("gpt-4o"), "openai"),
            ("POST", "/v1/chat/completions", Some("phi"), "ollama"),
            ("POST", "/v1/chat/completions", Some("other"), "not_found"),
            ("POST", "/api/chat", Some("other"), "ollama"),
            ("GET", "/v1/models", None, "openai"),
            ("GET", "/", None, "not_found"),
        ] {
            let (operation, _) = recognise(Listener::Public, method, path).unwrap();
            let found = table.find(operation, model);
            let name =
                found.map_or_else(|d| d.reason().code().to_owned(), |r| r.upstream.name.clone());
            assert_eq!(name, expected, "{path} {model:?}");
        }
    }

    #[test]
    fn an_openai_server_is_not_asked_for_ollama_operations() {
        let openai = upstream("openai", UpstreamKind::OpenAi);
        let table = Table::new(vec![rule("", None, &openai)]);
        let (operation, _) = recognise(Listener::Public, "POST", "/api/chat").unwrap();
        assert!(table.find(operation, Some("phi")).is_err());
    }
}
