//! The automata for a set of detectors.
//!
//! Bodies that may begin anywhere are two automata: those that count far, and the others. A body that
//! follows a lead has its own, as it is seldom in use. Leads are read all the time: as many of them
//! share an automaton as fit into a small one, since all together they would have a state for every
//! combination. Values that are assigned to something
//! with a telling name are one, and all names are found at once.

use regex_automata::util::primitives::StateID;
use regex_syntax::hir::Hir;

use super::assignment::Assignment;
use super::automaton::Automaton;
use super::detector::Detector;
use super::shape::{Lead, Shape, ShapeError, common};

/// Bytes of an automaton that leads share, to stay in a cache.
const SHARED_TABLE: usize = 64 << 10;

/// The bodies that may begin anywhere.
pub(super) const FREE: [usize; 2] = [0, 1];

/// An automaton for the bodies that begin together, and what each of its expressions is for.
struct Bodies {
    automaton: Automaton,
    of: Vec<Expression>,
}

/// What an expression is for.
#[derive(Default)]
pub(super) struct Expression {
    /// The detectors that may find something where it matches.
    pub(super) detectors: Vec<usize>,
    /// How many characters they look ahead.
    pub(super) look_ahead: usize,
}

/// An automaton for leads, and the index of the body that follows each of its expressions.
pub(super) struct Leads {
    pub(super) automaton: Automaton,
    bodies: Vec<usize>,
}

impl Leads {
    /// The bodies whose leads have ended.
    pub(super) fn ended(&self, state: StateID) -> impl Iterator<Item = usize> {
        let ended = self.automaton.matches(state);
        ended.filter_map(|expression| self.bodies.get(expression).copied())
    }
}

/// The automata for a set of detectors.
pub(super) struct Program {
    bodies: Vec<Bodies>,
    leads: Vec<Leads>,
    /// The lead of assigned values, which are the last of the bodies.
    assignment: Option<Assignment>,
}

impl Program {
    /// For those of the detectors that have a shape and are wanted.
    pub(super) fn new(
        detectors: &[Detector],
        wanted: impl Fn(&Detector) -> bool,
    ) -> Result<Self, ShapeError> {
        let mut sorted = Sorted::default();
        for (index, detector) in detectors.iter().enumerate().filter(|(_, d)| wanted(d)) {
            if let Some((shape, look_ahead)) = detector.shape() {
                sorted.add(shape, Expression { detectors: vec![index], look_ahead });
            }
        }
        sorted.build()
    }

    /// Bytes of its tables.
    pub(super) fn size(&self) -> usize {
        let bodies = self.bodies.iter().map(|body| body.automaton.size()).sum::<usize>();
        let leads = self.leads.iter().map(|leads| leads.automaton.size()).sum::<usize>();
        bodies + leads + self.assignment.as_ref().map_or(0, Assignment::size)
    }

    /// The leads, which are read all the time.
    pub(super) fn leads(&self) -> &[Leads] {
        &self.leads
    }

    /// The lead of assigned values, and their body.
    pub(super) fn assignment(&self) -> Option<(&Assignment, usize)> {
        Some((self.assignment.as_ref()?, self.bodies.len().checked_sub(1)?))
    }

    /// The automaton of a body.
    #[inline]
    pub(super) fn body(&self, body: usize) -> Option<&Automaton> {
        self.bodies.get(body).map(|body| &body.automaton)
    }

    /// What an expression of a body is for.
    pub(super) fn expression(&self, body: usize, expression: usize) -> Option<&Expression> {
        self.bodies.get(body)?.of.get(expression)
    }
}

/// Bodies that begin together, as they are collected.
#[derive(Default)]
struct Together {
    bodies: Vec<Hir>,
    of: Vec<Expression>,
}

impl Together {
    fn add(&mut self, body: &Hir, of: Expression) {
        self.bodies.push(body.clone());
        self.of.push(of);
    }

    fn build(self) -> Result<Bodies, ShapeError> {
        Ok(Bodies { automaton: Automaton::anchored(&self.bodies)?, of: self.of })
    }

    /// The same as one expression for all.
    fn merged(self) -> Self {
        let look_ahead = self.of.iter().map(|of| of.look_ahead).max().unwrap_or(0);
        let detectors = self.of.into_iter().flat_map(|of| of.detectors).collect();
        Self { bodies: vec![common(&self.bodies)], of: vec![Expression { detectors, look_ahead }] }
    }
}

/// Shapes by the way they begin.
#[derive(Default)]
struct Sorted {
    counting: Together,
    other: Together,
    led: Vec<(Hir, Together)>,
    names: Vec<String>,
    assigned: Together,
}

impl Sorted {
    fn add(&mut self, shape: &Shape, of: Expression) {
        match &shape.lead {
            None if shape.counts => self.counting.add(&shape.body, of),
            None => self.other.add(&shape.body, of),
            Some(Lead::Own(lead)) => {
                let mut alone = Together::default();
                alone.add(&shape.body, of);
                self.led.push((lead.clone(), alone));
            }
            Some(Lead::Assignment(names)) => {
                self.names.extend_from_slice(names);
                self.assigned.add(&shape.body, of);
            }
        }
    }

    fn build(self) -> Result<Program, ShapeError> {
        let mut bodies = vec![self.counting.build()?, self.other.build()?];
        let (leads, led): (Vec<Hir>, Vec<Together>) = self.led.into_iter().unzip();
        let leads = shared(leads, bodies.len())?;
        for alone in led {
            bodies.push(alone.build()?);
        }
        let mut assignment = None;
        if !self.names.is_empty() {
            assignment = Some(Assignment::new(&self.names)?);
            bodies.push(self.assigned.merged().build()?);
        }
        Ok(Program { bodies, leads, assignment })
    }
}

/// Leads in as few automata as they fit into one after the other; their bodies are counted from
/// `body` on.
fn shared(leads: Vec<Hir>, body: usize) -> Result<Vec<Leads>, ShapeError> {
    let (mut done, mut open) = (Vec::new(), Vec::new());
    let mut last: Option<Leads> = None;
    for (lead, body) in leads.into_iter().zip(body..) {
        open.push(lead);
        match Automaton::searching_within(&open, SHARED_TABLE) {
            Ok(automaton) => {
                let mut bodies = last.take().map_or_else(Vec::new, |leads| leads.bodies);
                bodies.push(body);
                last = Some(Leads { automaton, bodies });
            }
            Err(_) => {
                done.extend(last.take());
                open.drain(..open.len() - 1);
                last = Some(Leads { automaton: Automaton::searching(&open)?, bodies: vec![body] });
            }
        }
    }
    done.extend(last);
    Ok(done)
}
