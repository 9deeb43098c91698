//! Shapes: regular expressions that over-approximate what a detector finds, made for automata.
//!
//! A shape has a body, which is held back while it may still become a match, and perhaps a lead:
//! what stands before it and gives nothing away, such as `api_key = ` before the key. Leads are
//! released as they come, so that ordinary words cause no delay.

use std::fmt;

use regex_syntax::ParserBuilder;
use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, Hir, HirKind, Repetition};

use super::super::credential::ASSIGNS;

/// Longer counted repetitions are counted to here only; exact detectors count the rest.
const MAX_COUNT: u32 = 12;

/// An upper bound of a repetition is kept if it is this close to the lower one.
const MAX_SPAN: u32 = 3;

/// What a detector's matches look like, at least. Bytes, ASCII classes, over the plain view.
///
/// The prefixes of every match must be prefixes of what the shape matches.
#[derive(Clone, Debug)]
pub struct Shape {
    pub(super) lead: Option<Lead>,
    pub(super) body: Hir,
    /// Whether it may count far. In one automaton with shapes that do not, every one of those would
    /// have its states once for each count.
    pub(super) counts: bool,
}

/// What stands before a body.
#[derive(Clone, Debug)]
pub(super) enum Lead {
    /// An expression.
    Own(Hir),
    /// An assignment to something with one of these names. They are all followed as one, since they
    /// are alike but for the names.
    Assignment(Vec<String>),
}

impl Shape {
    /// A shape without a lead, taken as it is.
    ///
    /// # Errors
    /// If the expression does not parse.
    pub fn new(body: &str) -> Result<Self, ShapeError> {
        Ok(Self { lead: None, body: parse(body)?, counts: true })
    }

    /// A shape whose body begins where the lead ends.
    ///
    /// # Errors
    /// If one of the expressions does not parse.
    pub fn led(lead: &str, body: &str) -> Result<Self, ShapeError> {
        Ok(Self { lead: Some(Lead::Own(parse(lead)?)), body: parse(body)?, counts: true })
    }

    /// The shape of a detection rule, whose first group is the secret: what stands before the group
    /// is the lead. Long counted repetitions are loosened to keep automata small.
    ///
    /// # Errors
    /// If the expression does not parse.
    pub fn of_rule(pattern: &str) -> Result<Self, ShapeError> {
        let whole = parse(pattern)?;
        let (lead, body) = split(&whole).unwrap_or((None, whole));
        let lead = lead.as_ref().map(loosened).map(Lead::Own);
        Ok(Self { lead, body: simplified(&body), counts: false })
    }

    /// The shape of a value that is assigned to something with one of the names.
    ///
    /// # Errors
    /// If the expression of the value does not parse.
    pub(super) fn assigned(names: &[String], value: &str) -> Result<Self, ShapeError> {
        let lead = Some(Lead::Assignment(names.to_vec()));
        Ok(Self { lead, body: simplified(&parse(value)?), counts: false })
    }
}

/// An expression that is no shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeError(pub(super) String);

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shape: {}", self.0)
    }
}

impl std::error::Error for ShapeError {}

/// What stands between a name and the value that is assigned to something with it.
pub(super) fn assigns() -> Result<Hir, ShapeError> {
    Ok(loosened(&parse(ASSIGNS)?))
}

/// What some expressions look like at least: bytes that any of them takes, as many as the shortest.
pub(super) fn common(expressions: &[Hir]) -> Hir {
    let mut bytes = ClassBytes::empty();
    expressions.iter().for_each(|hir| collect(hir, &mut bytes));
    let shortest = expressions.iter().filter_map(|hir| hir.properties().minimum_len()).min();
    let min = u32::try_from(shortest.unwrap_or(0)).unwrap_or(u32::MAX).clamp(1, MAX_COUNT);
    let sub = Box::new(Hir::class(Class::Bytes(bytes)));
    Hir::repetition(Repetition { min, max: None, greedy: true, sub })
}

/// Collects the bytes that an expression may take.
fn collect(hir: &Hir, bytes: &mut ClassBytes) {
    match hir.kind() {
        HirKind::Literal(text) => {
            text.0.iter().for_each(|&b| bytes.push(ClassBytesRange::new(b, b)));
        }
        HirKind::Class(Class::Bytes(class)) => bytes.union(class),
        HirKind::Class(Class::Unicode(_)) => bytes.push(ClassBytesRange::new(0, u8::MAX)),
        HirKind::Repetition(repetition) => collect(&repetition.sub, bytes),
        HirKind::Capture(group) => collect(&group.sub, bytes),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().for_each(|part| collect(part, bytes));
        }
        HirKind::Empty | HirKind::Look(_) => {}
    }
}

fn parse(pattern: &str) -> Result<Hir, ShapeError> {
    let parsed = ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern);
    parsed.map_err(|e| ShapeError(e.to_string()))
}

/// What stands before the first group, and the rest; nothing if the group is not at the top.
fn split(whole: &Hir) -> Option<(Option<Hir>, Hir)> {
    let HirKind::Concat(parts) = whole.kind() else { return None };
    let is_first = |part: &Hir| matches!(part.kind(), HirKind::Capture(group) if group.index == 1);
    let (before, from) = parts.split_at(parts.iter().position(is_first)?);
    if before.iter().all(|part| matches!(part.kind(), HirKind::Look(_))) {
        return None;
    }
    Some((Some(Hir::concat(before.to_vec())), Hir::concat(from.to_vec())))
}

/// The expression with long counts loosened.
fn loosened(hir: &Hir) -> Hir {
    rebuilt(hir, &|parts| parts)
}

/// The same of a body: what an endless part of it takes in anyway is left out.
fn simplified(hir: &Hir) -> Hir {
    rebuilt(hir, &absorbed)
}

fn rebuilt(hir: &Hir, joined: &dyn Fn(Vec<Hir>) -> Vec<Hir>) -> Hir {
    let all = |parts: &[Hir]| parts.iter().map(|part| rebuilt(part, joined)).collect();
    match hir.kind() {
        HirKind::Repetition(repetition) => Hir::repetition(Repetition {
            min: repetition.min.min(MAX_COUNT),
            max: repetition
                .max
                .filter(|&max| max <= MAX_COUNT && max.saturating_sub(repetition.min) <= MAX_SPAN),
            greedy: repetition.greedy,
            sub: Box::new(rebuilt(&repetition.sub, joined)),
        }),
        HirKind::Capture(group) => rebuilt(&group.sub, joined),
        HirKind::Concat(parts) => Hir::concat(joined(all(parts))),
        HirKind::Alternation(parts) => Hir::alternation(all(parts)),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => hir.clone(),
    }
}

/// Leaves out what an endless repetition of a class takes in anyway, such as `-[a-z]{8}` after
/// `[a-z-]{12,}`: an automaton would count from every dash on.
fn absorbed(parts: Vec<Hir>) -> Vec<Hir> {
    let mut kept: Vec<Hir> = Vec::with_capacity(parts.len());
    for part in parts {
        let class = kept.last().and_then(endless_class);
        if !class.is_some_and(|class| is_made_of(&part, class)) {
            kept.push(part);
        }
    }
    kept
}

fn endless_class(hir: &Hir) -> Option<&ClassBytes> {
    let HirKind::Repetition(Repetition { max: None, sub, .. }) = hir.kind() else { return None };
    if let HirKind::Class(Class::Bytes(class)) = sub.kind() { Some(class) } else { None }
}

/// Whether all that an expression matches is bytes of a class.
fn is_made_of(hir: &Hir, class: &ClassBytes) -> bool {
    let has = |from: u8, to: u8| class.iter().any(|r| r.start() <= from && to <= r.end());
    match hir.kind() {
        HirKind::Literal(text) => text.0.iter().all(|&b| has(b, b)),
        HirKind::Class(Class::Bytes(part)) => part.iter().all(|r| has(r.start(), r.end())),
        HirKind::Repetition(repetition) => is_made_of(&repetition.sub, class),
        HirKind::Capture(group) => is_made_of(&group.sub, class),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().all(|part| is_made_of(part, class))
        }
        HirKind::Empty => true,
        HirKind::Class(Class::Unicode(_)) | HirKind::Look(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, lead: Option<&str>, body: &str) {
        let shape = Shape::of_rule(pattern).expect("shape");
        let show = |hir: &Hir| hir.to_string();
        let expected = |text: &str| parse(text).expect("expression").to_string();
        let own = shape.lead.as_ref().map(|lead| match lead {
            Lead::Own(own) => show(own),
            Lead::Assignment(names) => names.join(" "),
        });
        assert_eq!(own, lead.map(expected), "{pattern}");
        assert_eq!(show(&shape.body), expected(body), "{pattern}");
    }

    #[test]
    fn a_rule_is_split_before_its_group() {
        check(r"\b(gh_[a-z]{36,255})", None, r"\bgh_[a-z]{12,}");
        check(r"key=([a-z]{8})(?:;|$)", Some("key="), "[a-z]{8}(?:;|$)");
        check(r"(?:^|[^a-z])([a-z]{9,12})", Some("(?:^|[^a-z])"), "[a-z]{9,12}");
        check(r"[a-z]{2,20}_key([a-z]{100})", Some("[a-z]{2,}_key"), "[a-z]{12,}");
        check(r"(?:a(b)|c)", None, "(?:ab|c)");
        check(r"ab{0,80}c", None, "ab*c");
        check(r"x[a-z-]{26}-[a-z-]{52}-?[a-z]+\b", None, r"x[a-z-]{12,}\b");
        check(r"x[a-z-]{26}-[a-z_-]{52}", None, "x[a-z-]{12,}[a-z_-]{12,}");
    }

    #[test]
    fn an_assignment_is_led_by_its_names() {
        let shape = Shape::assigned(&["acme".to_owned()], "[a-z]{8}").expect("shape");
        assert!(matches!(&shape.lead, Some(Lead::Assignment(names)) if names == &["acme"]));
        assert_eq!(shape.body.to_string(), parse("[a-z]{8}").expect("body").to_string());
        assert!(assigns().is_ok());
    }

    #[test]
    fn expressions_have_their_bytes_and_the_least_length_in_common() {
        let parts = ["[a-c]{20}|x-[0-3]{4}", "(?i:[z]{9})"].map(|p| parse(p).expect("part"));
        let expected = parse("[a-c\\-x0-3zZ]{6,}").expect("expected");
        assert_eq!(common(&parts).to_string(), expected.to_string());
    }

    #[test]
    fn an_expression_that_does_not_parse_says_so() {
        let error = Shape::led("a", "(").expect_err("refused").to_string();
        assert!(error.starts_with("shape: "), "{error}");
    }
}
