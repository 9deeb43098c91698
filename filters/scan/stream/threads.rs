//! Threads: every place where a match may have begun, and how far it has come.
//!
//! A thread is a start and a state. It lives while what was read since its start is the beginning
//! of something that its shapes match; then it dies, and what it matched on the way is a hit, which
//! the exact detector judges once it can see what follows. Everything before the earliest thread and
//! hit is settled. Threads in the same state have the same future, so the earliest of them is enough.

use regex_automata::util::primitives::StateID;

use super::assignment::Assigning;
use super::program::{FREE, Program};

/// From so many threads on, threads in the same state are merged.
const MANY: usize = 16;

/// With more threads the earliest has to give its verdict.
const MAX_THREADS: usize = 96;

/// A place in the original text of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) byte: usize,
    pub(super) char: usize,
}

/// What was decided about a match that is longer than the greatest hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Nothing yet.
    Nothing,
    /// It is one as far as this place, and further if the thread matches again.
    Upto(Place, usize),
    /// It is one as long as the thread lives, or matches.
    All(Place, usize),
}

/// A match that may be in progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Thread {
    pub(super) start: Place,
    pub(super) given: Given,
    state: StateID,
    /// Index of the automaton.
    body: usize,
}

impl Thread {
    /// From where on it holds text back.
    const fn from(&self) -> Option<Place> {
        match self.given {
            Given::Nothing => Some(self.start),
            Given::Upto(place, _) => Some(place),
            Given::All(..) => None,
        }
    }
}

/// A match of a detector's shape, which the exact detector has yet to confirm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    /// Index of the automaton and of its expression.
    pub(super) expression: (usize, usize),
    pub(super) start: Place,
    /// First byte after it.
    pub(super) end: usize,
    /// How many characters of the view have to be read before it can be judged.
    due: usize,
}

/// A further part of a match whose verdict has been given: detector, first byte, first byte after.
pub(super) type More = (usize, usize, usize);

/// Where reading stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) place: Place,
    /// Characters of the view before it.
    pub(super) seen: usize,
}

/// The state of one channel in one program.
pub(super) struct Threads {
    /// Where each lead is.
    leads: Box<[StateID]>,
    assigning: Option<Assigning>,
    before: Option<u8>,
    /// In the order of their starts.
    live: Vec<Thread>,
    hits: Vec<Hit>,
    more: Vec<More>,
}

impl Threads {
    pub(super) fn new(program: &Program) -> Self {
        let leads = program.leads().iter().map(|leads| leads.automaton.start(None)).collect();
        let assigning = program.assignment().map(|(assignment, _)| assignment.start());
        Self {
            leads,
            assigning,
            before: None,
            live: Vec::new(),
            hits: Vec::new(),
            more: Vec::new(),
        }
    }

    /// Reads one character of the view, which stands at `at`; `next` is the place after it.
    #[inline]
    pub(super) fn read(&mut self, program: &Program, c: char, at: At, next: Place) {
        let mut buffer = [0; 4];
        for (index, &byte) in c.encode_utf8(&mut buffer).as_bytes().iter().enumerate() {
            if index == 0 {
                self.spawn(program, byte, at.place);
            }
            self.follow_leads(program, byte, (index == 0).then_some(at.place));
            if !self.live.is_empty() {
                self.advance(program, byte, at);
            }
            self.before = Some(byte);
        }
        if self.live.len() > MANY {
            self.merge();
        }
        self.swallow(next);
    }

    /// Starts the thread of the bodies that may begin anywhere, unless it would die of its first byte.
    fn spawn(&mut self, program: &Program, byte: u8, start: Place) {
        for body in FREE {
            self.live.extend(begun(program, body, self.before, byte, start));
        }
    }

    /// Reads a byte in all leads; starts the threads of those that ended before it, unless they
    /// would die of it.
    fn follow_leads(&mut self, program: &Program, byte: u8, start: Option<Place>) {
        for (leads, state) in program.leads().iter().zip(&mut self.leads) {
            *state = leads.automaton.next(*state, byte);
            if leads.automaton.is_special(*state)
                && let Some(start) = start
            {
                for body in leads.ended(*state) {
                    self.live.extend(begun(program, body, self.before, byte, start));
                }
            }
        }
        if let (Some((assignment, body)), Some(at)) = (program.assignment(), &mut self.assigning)
            && assignment.read(at, byte)
            && let Some(start) = start
        {
            self.live.extend(begun(program, body, self.before, byte, start));
        }
    }

    fn advance(&mut self, program: &Program, byte: u8, at: At) {
        let Self { live, hits, more, .. } = self;
        live.retain_mut(|thread| {
            let Some(automaton) = program.body(thread.body) else { return false };
            thread.state = automaton.next(thread.state, byte);
            if !automaton.is_special(thread.state) {
                return true;
            }
            note(program, thread, at, hits, more);
            !automaton.is_dead(thread.state)
        });
    }

    /// Drops threads in the state of an earlier one.
    fn merge(&mut self) {
        let mut known: Vec<(StateID, usize)> = Vec::with_capacity(self.live.len());
        self.live.retain(|thread| {
            let state = (thread.state, thread.body);
            let is_new = thread.given != Given::Nothing || !known.contains(&state);
            known.push(state);
            is_new
        });
    }

    /// Threads with all of their text given take what has come.
    fn swallow(&mut self, next: Place) {
        for thread in &mut self.live {
            if let Given::All(from, detector) = thread.given {
                self.more.push((detector, from.byte, next.byte));
                thread.given = Given::All(next, detector);
            }
        }
    }

    /// The text ends: whatever matches now is a hit.
    pub(super) fn end(&mut self, program: &Program, at: At) {
        let Self { live, hits, more, .. } = self;
        for mut thread in live.drain(..) {
            if let Some(automaton) = program.body(thread.body) {
                thread.state = automaton.end(thread.state);
            }
            note(program, &mut thread, at, hits, more);
        }
    }

    /// Whether there is anything to be judged.
    #[inline]
    pub(super) const fn is_calm(&self) -> bool {
        self.hits.is_empty() && self.more.is_empty()
    }

    /// The hits that can be judged: no longer match is in progress from their start, and what
    /// follows them is known.
    pub(super) fn ripe(&mut self, seen: usize, ended: bool) -> Vec<Hit> {
        let live = &self.live;
        let is_ripe = |hit: &mut Hit| {
            let grows = |t: &Thread| t.given == Given::Nothing && t.start.byte == hit.start.byte;
            (ended || seen >= hit.due) && !live.iter().any(grows)
        };
        self.hits.extract_if(.., is_ripe).collect()
    }

    /// The further parts of matches whose verdict has been given.
    pub(super) fn more(&mut self) -> Vec<More> {
        std::mem::take(&mut self.more)
    }

    /// The place up to which verdicts are due, since text is held from there for too long.
    #[inline]
    pub(super) fn overdue(&self, now: Place, max_held: usize) -> Option<Place> {
        if self.live.is_empty() && self.hits.is_empty() {
            return None;
        }
        let earliest = self.earliest()?;
        let late = now.char.saturating_sub(earliest.char) >= max_held;
        (late || self.live.len() > MAX_THREADS).then_some(earliest)
    }

    /// Takes out the hits and threads from up to a place, for their verdict.
    pub(super) fn take(&mut self, upto: Place) -> (Vec<Hit>, Vec<Thread>) {
        let hits = self.hits.extract_if(.., |hit| hit.start.byte <= upto.byte).collect();
        let late = |t: &mut Thread| t.from().is_some_and(|from| from.byte <= upto.byte);
        (hits, self.live.extract_if(.., late).collect())
    }

    /// Puts back a thread that was taken out, its verdict given.
    pub(super) fn put_back(&mut self, thread: Thread, given: Given) {
        self.live.insert(0, Thread { given, ..thread });
    }

    /// The earliest place of which the verdict is open.
    pub(super) fn earliest(&self) -> Option<Place> {
        let threads = self.live.iter().filter_map(Thread::from);
        threads.chain(self.hits.iter().map(|hit| hit.start)).min_by_key(|place| place.byte)
    }

    /// Bytes on the heap.
    pub(super) const fn size(&self) -> usize {
        size_of_val(&*self.leads)
            + self.live.capacity() * size_of::<Thread>()
            + self.hits.capacity() * size_of::<Hit>()
            + self.more.capacity() * size_of::<More>()
    }
}

/// Notes what a thread has matched before the byte at `at`.
fn note(program: &Program, thread: &mut Thread, at: At, hits: &mut Vec<Hit>, more: &mut Vec<More>) {
    let Some(automaton) = program.body(thread.body) else { return };
    for expression in automaton.matches(thread.state) {
        let Some(of) = program.expression(thread.body, expression) else { continue };
        match thread.given {
            Given::Nothing => {
                let (start, end, due) = (thread.start, at.place.byte, at.seen + of.look_ahead);
                note_hit(hits, Hit { expression: (thread.body, expression), start, end, due });
            }
            Given::Upto(from, detector) | Given::All(from, detector) => {
                more.push((detector, from.byte, at.place.byte.max(from.byte)));
                thread.given = Given::Upto(at.place, detector);
            }
        }
    }
}

/// Notes a match of a shape, or that one has grown.
fn note_hit(hits: &mut Vec<Hit>, hit: Hit) {
    let same = |known: &&mut Hit| known.expression == hit.expression && known.start == hit.start;
    match hits.iter_mut().find(same) {
        Some(known) => *known = hit,
        None => hits.push(hit),
    }
}

/// A thread in a body, unless it would die of its first byte.
#[inline]
fn begun(
    program: &Program,
    body: usize,
    before: Option<u8>,
    byte: u8,
    start: Place,
) -> Option<Thread> {
    let automaton = program.body(body)?;
    let state = automaton.start(before);
    let lives = !automaton.is_dead(automaton.next(state, byte));
    lives.then_some(Thread { start, given: Given::Nothing, state, body })
}
