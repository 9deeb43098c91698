//! Detection rules as data: the YAML they are written in, and what one compiles to.
//!
//! A rule is a regular expression over the canonical view of a text (secrets: over the plain view,
//! in its own case) that is only tried near one of the rule's keywords. In the pattern of an
//! injection rule a space stands for any run of spaces and punctuation, and `~` for up to three
//! further words. Letters outside ASCII are folded like the text, so they can be written normally;
//! they cannot stand in a character class, whose members are bytes.

use std::fmt;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::literal::{Extractor, Literal};
use serde::{Deserialize, Deserializer, Serialize};
use serde_saphyr::Spanned;

use super::checksum::Checksum;
use super::credential::{assigned, entropy, is_placeholder, is_uuid, mixture};
use super::lookalikes::fold;

/// Rules lighter than this are broad phrases, which also the operator's own texts use.
pub(super) const BROAD: f32 = 0.5;

/// The rule files in the program, by name.
const BUILTIN: [(&str, &str); 29] = [
    ("injection/override.yaml", include_str!("../../conf/rules/injection/override.yaml")),
    ("injection/leak.yaml", include_str!("../../conf/rules/injection/leak.yaml")),
    ("injection/jailbreak.yaml", include_str!("../../conf/rules/injection/jailbreak.yaml")),
    ("injection/forgery.yaml", include_str!("../../conf/rules/injection/forgery.yaml")),
    ("injection/indirect.yaml", include_str!("../../conf/rules/injection/indirect.yaml")),
    ("injection/encoded.yaml", include_str!("../../conf/rules/injection/encoded.yaml")),
    ("injection/execution.yaml", include_str!("../../conf/rules/injection/execution.yaml")),
    ("injection/germanic.yaml", include_str!("../../conf/rules/injection/germanic.yaml")),
    ("injection/romance.yaml", include_str!("../../conf/rules/injection/romance.yaml")),
    ("injection/slavic.yaml", include_str!("../../conf/rules/injection/slavic.yaml")),
    ("injection/near-east.yaml", include_str!("../../conf/rules/injection/near-east.yaml")),
    ("injection/asian.yaml", include_str!("../../conf/rules/injection/asian.yaml")),
    ("code/data.yaml", include_str!("../../conf/rules/code/data.yaml")),
    ("code/files.yaml", include_str!("../../conf/rules/code/files.yaml")),
    ("code/script.yaml", include_str!("../../conf/rules/code/script.yaml")),
    ("code/shell.yaml", include_str!("../../conf/rules/code/shell.yaml")),
    ("code/sql.yaml", include_str!("../../conf/rules/code/sql.yaml")),
    ("code/template.yaml", include_str!("../../conf/rules/code/template.yaml")),
    ("secrets/ai.yaml", include_str!("../../conf/rules/secrets/ai.yaml")),
    ("secrets/chat.yaml", include_str!("../../conf/rules/secrets/chat.yaml")),
    ("secrets/cloud.yaml", include_str!("../../conf/rules/secrets/cloud.yaml")),
    ("secrets/code.yaml", include_str!("../../conf/rules/secrets/code.yaml")),
    ("secrets/crypto.yaml", include_str!("../../conf/rules/secrets/crypto.yaml")),
    ("secrets/data.yaml", include_str!("../../conf/rules/secrets/data.yaml")),
    ("secrets/generic.yaml", include_str!("../../conf/rules/secrets/generic.yaml")),
    ("secrets/mail.yaml", include_str!("../../conf/rules/secrets/mail.yaml")),
    ("secrets/monitoring.yaml", include_str!("../../conf/rules/secrets/monitoring.yaml")),
    ("secrets/payment.yaml", include_str!("../../conf/rules/secrets/payment.yaml")),
    ("secrets/work.yaml", include_str!("../../conf/rules/secrets/work.yaml")),
];

const REGEX_SIZE_LIMIT: usize = 4 << 20;

/// Bytes of the longest credential (a private key in PEM, RFC 7468).
const LONGEST_SECRET: usize = 20_000;

/// What a finding is about. The name is stable: reports, audit records and metrics share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be thought about in every policy")]
pub enum Kind {
    /// Text that gives the model new orders (OWASP LLM01:2025) or asks for its own (LLM07:2025).
    PromptInjection,
    /// Text that talks the model out of its limits (OWASP LLM01:2025).
    Jailbreak,
    /// Personal data (OWASP LLM02:2025).
    Pii,
    /// A credential (OWASP LLM02:2025).
    Secret,
    /// A shape of an attack on programs that read what the model writes (OWASP LLM05:2025).
    Code,
    /// Offensive language.
    Toxicity,
    /// Text that is mostly signs, escapes or letters of mixed alphabets (OWASP LLM01:2025).
    SuspiciousEncoding,
    /// Text that a reader of the page does not see (OWASP LLM01:2025, indirect).
    HiddenText,
}

impl Kind {
    /// Whether findings of this kind add to the injection score.
    #[must_use]
    pub const fn is_injection(self) -> bool {
        matches!(self, Self::PromptInjection | Self::Jailbreak)
    }

    /// Whether its rules read the canonical view; the others have to see letters in their own case.
    #[must_use]
    pub const fn is_canonical(self) -> bool {
        matches!(self, Self::PromptInjection | Self::Jailbreak | Self::Code)
    }

    /// Whether it is found by rules, which can be written, and not by measuring.
    const fn has_rules(self) -> bool {
        matches!(self, Self::PromptInjection | Self::Jailbreak | Self::Code | Self::Secret)
    }

    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PromptInjection => "prompt_injection",
            Self::Jailbreak => "jailbreak",
            Self::Pii => "pii",
            Self::Secret => "secret",
            Self::Code => "code",
            Self::Toxicity => "toxicity",
            Self::SuspiciousEncoding => "suspicious_encoding",
            Self::HiddenText => "hidden_text",
        }
    }
}

/// Who wrote a text, as rule files spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", remote = "crate::prompt::Role")]
enum RoleName {
    System,
    User,
    Assistant,
    Tool,
    Definition,
}

/// A role in a list of a rule file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct InRole(#[serde(with = "RoleName")] crate::prompt::Role);

/// One rule as it stands in a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    kind: Kind,
    r#type: Option<String>,
    severity: f32,
    #[serde(default)]
    languages: Vec<String>,
    #[serde(default)]
    roles: Vec<InRole>,
    #[serde(default)]
    keywords: Vec<String>,
    /// Names that a secret must be assigned to; the pattern is then that of the value.
    #[serde(default)]
    assigned: Vec<String>,
    pattern: Pattern,
    /// Bits per character that a secret must have at least, to tell it from words.
    #[serde(default)]
    entropy: f32,
    /// Whether a secret must hold a digit, and be no UUID.
    #[serde(default)]
    digit: bool,
    /// How much a secret must mix letters, capitals and digits, from 0 to 1.
    #[serde(default)]
    mixture: f32,
    /// What proves a secret, whatever it looks like.
    checksum: Option<Checksum>,
    /// A hit that holds one of these, in lower case, is a placeholder and no secret.
    #[serde(default)]
    except: Vec<String>,
    why: String,
    must_match: Vec<String>,
    must_pass: Vec<String>,
}

/// The text of a regular expression.
#[derive(Clone, Debug)]
struct Pattern(String);

impl<'de> Deserialize<'de> for Pattern {
    /// Line breaks are for the reader of the file only.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(Self(text.lines().map(str::trim_start).collect()))
    }
}

/// A detection rule, compiled.
#[derive(Clone, Debug)]
pub struct Rule {
    entry: Entry,
    id: Arc<str>,
    r#type: Arc<str>,
    pub(super) regex: Regex,
    /// The pattern for texts of which only letters and digits are left; broad rules have none.
    pub(super) squeezed: Option<Regex>,
    /// Bytes that a secret may reach behind its keyword.
    pub(super) reach: usize,
}

impl Rule {
    /// The unique name, which findings carry.
    #[must_use]
    pub const fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// What it finds.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.entry.kind
    }

    /// What it finds more closely, such as `instruction_override`.
    #[must_use]
    pub const fn type_name(&self) -> &Arc<str> {
        &self.r#type
    }

    /// The weight of a hit in the score, from 0 to 1.
    #[must_use]
    pub const fn severity(&self) -> f32 {
        self.entry.severity
    }

    /// The languages whose wording it knows (ISO 639-1); empty if it needs none.
    #[must_use]
    pub fn languages(&self) -> &[String] {
        &self.entry.languages
    }

    /// Why a text that it matches is suspect.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.entry.why
    }

    /// Texts in which the rule must find something.
    #[must_use]
    pub fn must_match(&self) -> &[String] {
        &self.entry.must_match
    }

    /// Innocent texts in which it must find nothing.
    #[must_use]
    pub fn must_pass(&self) -> &[String] {
        &self.entry.must_pass
    }

    /// The words near which it is tried, as in the canonical view.
    pub fn keywords(&self) -> impl Iterator<Item = String> {
        let words = self.entry.keywords.iter().chain(&self.entry.assigned);
        words.map(|keyword| canonical_literal(keyword))
    }

    /// Whether a hit in a text of this role counts: broad phrases are the operator's daily words.
    pub(super) fn applies_to(&self, role: crate::prompt::Role) -> bool {
        use crate::prompt::Role::{Assistant, Definition, System, Tool, User};
        if !self.entry.roles.is_empty() {
            return self.entry.roles.iter().any(|allowed| allowed.0 == role);
        }
        match role {
            System | Definition => self.entry.severity >= BROAD,
            User | Assistant | Tool => true,
        }
    }

    /// Whether a matched credential is a real one by its checksum or its looks, and no placeholder.
    pub(super) fn is_plausible(&self, secret: &[u8]) -> bool {
        match self.entry.checksum.map(|checksum| (checksum.holds(secret), checksum.is_required())) {
            Some((true, _)) => true,
            Some((false, true)) => false,
            Some((false, false)) | None => self.looks_random(secret),
        }
    }

    fn looks_random(&self, secret: &[u8]) -> bool {
        let lower = secret.to_ascii_lowercase();
        let holds = |word: &String| memchr::memmem::find(&lower, word.as_bytes()).is_some();
        let numbered = || lower.iter().any(u8::is_ascii_digit) && !is_uuid(secret);
        let digit = !self.entry.digit || numbered();
        let innocent = self.entry.kind == Kind::Secret && is_placeholder(&lower);
        digit
            && entropy(secret) >= self.entry.entropy
            && mixture(secret) >= self.entry.mixture
            && !innocent
            && !self.entry.except.iter().any(holds)
    }

    /// Of a rule whose secrets are known by the name that they are assigned to: the names, and the
    /// expression for the value alone.
    pub(super) fn assignment(&self) -> Option<(&[String], &str)> {
        let names = self.entry.assigned.as_slice();
        (!names.is_empty()).then_some((names, self.entry.pattern.0.as_str()))
    }

    /// A regular expression over bytes (without Unicode) that is wider than the rule: read from the
    /// first byte of anything that may become a hit, its anchored automaton is alive until the byte
    /// that decides. The canonical view is what injection rules read, the plain one secrets.
    #[must_use]
    pub fn shape(&self) -> &str {
        self.regex.as_str()
    }

    fn compile(file: &str, entry: Spanned<Entry>) -> Result<Self, RuleError> {
        let line = entry.referenced.line();
        let entry = entry.value;
        let fail = |what| RuleError {
            file: file.to_owned(),
            rule: Some(entry.id.clone()),
            line: Some(line),
            what,
        };
        validate(&entry).map_err(fail)?;
        let source = match entry.kind.is_canonical() {
            true => translate(&entry.pattern.0, GAPS),
            false if entry.assigned.is_empty() => entry.pattern.0.clone(),
            false => assigned(&entry.assigned, &entry.pattern.0),
        };
        let squeezable = entry.kind.is_injection() && entry.severity >= BROAD;
        let squeezed = squeezable.then(|| build(&translate(&entry.pattern.0, NO_GAPS)));
        Ok(Self {
            id: Arc::from(entry.id.as_str()),
            r#type: Arc::from(entry.r#type.as_deref().unwrap_or(entry.kind.as_str())),
            regex: build(&source).map_err(fail)?,
            squeezed: squeezed.transpose().map_err(fail)?,
            reach: reach(&source, &entry).unwrap_or(LONGEST_SECRET).min(LONGEST_SECRET),
            entry,
        })
    }
}

/// What is wrong with a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    file: String,
    rule: Option<String>,
    line: Option<u64>,
    what: String,
}

impl RuleError {
    /// A rule that does not do what its examples say.
    pub(super) fn broken_promise(rule: &Rule, what: String) -> Self {
        Self { file: "rules".to_owned(), rule: Some(rule.id.to_string()), line: None, what }
    }

    /// A classifier that cannot be used.
    pub(super) fn model(error: &super::model::ModelError) -> Self {
        Self { file: "model".to_owned(), rule: None, line: None, what: error.to_string() }
    }

    /// Keywords that are too many or too long for one automaton.
    pub(super) fn keywords(what: String) -> Self {
        Self { file: "rules".to_owned(), rule: None, line: None, what }
    }

    fn yaml(file: &str, error: &serde_saphyr::Error) -> Self {
        let line = error.location().map(|at| at.line());
        let what = error.without_snippet().to_string();
        Self { file: file.to_owned(), rule: None, line, what }
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, ": rule {rule:?}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for RuleError {}

/// The built-in rules and those of further files, given as name and content.
pub(super) fn load(extra: &[(String, String)]) -> Result<Vec<Rule>, Vec<RuleError>> {
    let extra = extra.iter().map(|(name, yaml)| (name.as_str(), yaml.as_str()));
    let files = BUILTIN.into_iter().chain(extra);
    let parsed: Vec<Parsed> = files.flat_map(|(file, yaml)| parse(file, yaml)).collect();
    let (mut rules, mut errors) = (Vec::<Rule>::new(), Vec::new());
    for rule in compile_all(parsed) {
        match rule.and_then(|compiled| admit(&rules, compiled)) {
            Ok(rule) => rules.push(rule),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

type Parsed = Result<(String, Spanned<Entry>), RuleError>;

/// A rule with its file and its line.
type Compiled = Result<(String, u64, Rule), RuleError>;

fn parse(file: &str, yaml: &str) -> Vec<Parsed> {
    match serde_saphyr::from_str::<Vec<Spanned<Entry>>>(yaml) {
        Ok(entries) => entries.into_iter().map(|entry| Ok((file.to_owned(), entry))).collect(),
        Err(error) => vec![Err(RuleError::yaml(file, &error))],
    }
}

/// Compiles rules in their order, on as many threads as there are processors.
fn compile_all(parsed: Vec<Parsed>) -> Vec<Compiled> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = parsed.len().div_ceil(threads).max(1);
    let compile = |parsed: &Parsed| {
        let (file, entry) = parsed.as_ref().map_err(Clone::clone)?;
        let line = entry.referenced.line();
        Ok((file.clone(), line, Rule::compile(file, entry.clone())?))
    };
    std::thread::scope(|scope| {
        let shares = parsed.chunks(share);
        let started: Vec<_> = shares
            .map(|share| scope.spawn(move || share.iter().map(compile).collect::<Vec<_>>()))
            .collect();
        started
            .into_iter()
            .flat_map(|thread| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

fn admit(taken: &[Rule], (file, line, rule): (String, u64, Rule)) -> Result<Rule, RuleError> {
    if taken.iter().any(|other| other.id == rule.id) {
        let what = "this id is taken by another rule".to_owned();
        let id = Some(rule.id.to_string());
        return Err(RuleError { file, rule: id, line: Some(line), what });
    }
    Ok(rule)
}

fn validate(entry: &Entry) -> Result<(), String> {
    let complaint = if entry.id.is_empty() {
        "id must not be empty"
    } else if !(entry.severity > 0.0 && entry.severity <= 1.0) {
        "severity must be above 0 and at most 1"
    } else if entry.kind == Kind::Pii {
        "personal data has its own detectors; write a rule of kind secret instead"
    } else if !entry.kind.has_rules() {
        "this kind is measured; write a rule of kind code or prompt_injection instead"
    } else if !entry.assigned.is_empty() && entry.kind != Kind::Secret {
        "assigned is for rules of kind secret"
    } else if entry.keywords.is_empty() && entry.assigned.is_empty()
        || entry.keywords.iter().chain(&entry.assigned).any(|k| k.len() < 2)
    {
        "keywords needs at least one word, and every word two letters"
    } else if entry.must_match.is_empty() || entry.must_pass.is_empty() {
        "must_match and must_pass each need at least one example"
    } else if has_unicode_flag(&entry.pattern.0) {
        "the flag (?u) is refused: Unicode classes make scanning a hundred times slower"
    } else {
        return Ok(());
    };
    Err(complaint.to_owned())
}

/// Whether a group like `(?iu)` or `(?u:` turns Unicode classes on again.
fn has_unicode_flag(pattern: &str) -> bool {
    pattern.split("(?").skip(1).any(|group| {
        let flags = group.split([')', ':', '<']).next().unwrap_or_default();
        flags.split('-').next().is_some_and(|set| set.contains('u'))
    })
}

fn build(pattern: &str) -> Result<Regex, String> {
    let regex = RegexBuilder::new(pattern).unicode(false).size_limit(REGEX_SIZE_LIMIT).build();
    let regex = regex.map_err(|e| format!("pattern: {e}"))?;
    if regex.is_match(b"") {
        return Err("pattern: it matches the empty text".to_owned());
    }
    Ok(regex)
}

/// Bytes of the longest match of a pattern, if there is one, and if all matches hold a keyword: the
/// name that something is assigned to, or what they begin with.
fn reach(pattern: &str, entry: &Entry) -> Option<usize> {
    let mut parser = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build();
    let hir = parser.parse(pattern).ok()?;
    let begins_with_keyword = || {
        let beginnings = Extractor::new().extract(&hir);
        let holds = |beginning: &Literal| {
            let lower = beginning.as_bytes().to_ascii_lowercase();
            let stands = |word: &String| memchr::memmem::find(&lower, word.as_bytes()).is_some();
            entry.keywords.iter().any(stands)
        };
        beginnings.literals().is_some_and(|all| !all.is_empty() && all.iter().all(holds))
    };
    let holds_keyword = !entry.assigned.is_empty() || begins_with_keyword();
    holds_keyword.then(|| hir.properties().maximum_len()).flatten()
}

/// What the two signs of a pattern stand for, and a word boundary.
struct Signs {
    space: &'static str,
    words: &'static str,
    boundary: &'static str,
}

/// In the canonical view: bytes from 0x80 are letters of other scripts.
const GAPS: Signs = Signs {
    space: r"(?:[\x00-/:-@\[-`{-\x7f]+)",
    words: r"(?:[0-9a-z\x80-\xff]+[\x00-/:-@\[-`{-\x7f]+){0,3}",
    boundary: r"\b",
};

/// In the squeezed view, where nothing but letters and digits is left.
const NO_GAPS: Signs = Signs { space: "(?:)", words: r"[0-9a-z\x80-\xff]{0,24}", boundary: "" };

/// Replaces the signs of a pattern outside classes and escapes, and folds letters beyond ASCII.
fn translate(pattern: &str, signs: Signs) -> String {
    let mut out = String::with_capacity(pattern.len() * 2);
    let (mut in_class, mut chars) = (false, pattern.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('b') if !in_class => out.push_str(signs.boundary),
                next => out.extend(std::iter::once(c).chain(next)),
            },
            ' ' if !in_class => out.push_str(signs.space),
            '~' if !in_class => out.push_str(signs.words),
            c if c.is_ascii() => {
                in_class = c == '[' || (in_class && c != ']');
                out.push(c);
            }
            c => push_folded(&mut out, c),
        }
    }
    out
}

fn canonical_literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| push_folded(&mut out, c));
    out
}

fn push_folded(out: &mut String, c: char) {
    match c.is_ascii() {
        true => out.push(c.to_ascii_lowercase()),
        false => fold(c, |c| out.push(c)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "
- id: mine
  kind: secret
  severity: 1
  keywords: [acme_]
  pattern: 'acme_[a-z]{8}'
  why: a key of Acme
  must_match: ['acme_abcdefgh', 'x acme_abcdefgh']
  must_pass: ['acme_', 'acme corp']
";

    #[track_caller]
    fn check(change: (&str, &str), expected: &str) {
        let yaml = RULE.replace(change.0, change.1);
        let errors = load(&[("mine.yaml".to_owned(), yaml)]).expect_err("refused");
        let errors: Vec<_> = errors.iter().map(RuleError::to_string).collect();
        assert!(errors.len() == 1 && errors[0].starts_with(expected), "{errors:?}");
    }

    #[test]
    fn a_file_beside_the_built_in_ones() {
        let rules = load(&[("mine.yaml".to_owned(), RULE.to_owned())]).expect("rules");
        assert_eq!(rules.last().map(|rule| &**rule.id()), Some("mine"));
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        check(("severity: 1", "severity: 2"), "mine.yaml:2: rule \"mine\": severity must be");
        check(("id: mine", "id: github-token"), "mine.yaml:2: rule \"github-token\": this id is");
        check(("{8}", "{8}("), "mine.yaml:2: rule \"mine\": pattern: ");
        check(("acme_[a-z]{8}", "(?u)acme"), "mine.yaml:2: rule \"mine\": the flag (?u)");
        check(("acme_[a-z]{8}", "a*"), "mine.yaml:2: rule \"mine\": pattern: it matches the empty");
        check(("kind: secret", "kind: pii"), "mine.yaml:2: rule \"mine\": personal data");
        check(("kind: secret", "kind: hidden_text"), "mine.yaml:2: rule \"mine\": this kind is m");
        check(("[acme_]", "[]"), "mine.yaml:2: rule \"mine\": keywords needs");
        check(
            ("must_pass: ['acme_', 'acme corp']", "must_pass: []"),
            "mine.yaml:2: rule \"mine\": m",
        );
        check(("why:", "colour: red\n  why:"), "mine.yaml:7: unknown field");
    }

    #[test]
    fn signs_and_letters_of_a_pattern_are_translated() {
        for (pattern, expected) in [
            ("a[ ~]b", "a[ ~]b"),
            (r"a\ \~", r"a\ \~"),
            (r"\bнет", "het"),
            ("a b~", r"a(?:)b[0-9a-z\x80-\xff]{0,24}"),
        ] {
            assert_eq!(translate(pattern, NO_GAPS), expected);
        }
    }
}
