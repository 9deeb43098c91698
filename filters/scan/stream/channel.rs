//! One channel of one answer: deltas in, released text and findings out.
//!
//! Every decision depends on the characters that were read and on nothing else, least of all on
//! where deltas begin and end, so that any split of a text gives the same.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::super::pii::Survey;
use super::super::report::Action;
use super::StreamScanner;
use super::blocks::Blocks;
use super::held::Held;
use super::leak::{Leak, Repeating};
use super::literals::{Meaning, Progress};
use super::own::Own;
use super::released::{Found, Label, Released, Stop};
use super::threads::{At, Given, Hit, Place, Thread, Threads};
use super::verdicts::{Told, Verdict, Verdicts, What};
use super::view::{Window, fold};

/// Bytes of one delta after which text is released, to bound memory: more than can be held.
const CHUNK: usize = 4096;

/// The state of one channel of one choice.
pub struct Channel {
    scanner: Arc<StreamScanner>,
    own: Arc<Own>,
    held: Held,
    now: Place,
    /// Characters of the view so far.
    seen: usize,
    /// In the detectors that hold text back, and in those that only watch.
    holding: Threads,
    watching: Threads,
    literals: Progress,
    repeating: Repeating,
    verdicts: Verdicts,
    told: Told,
    blocks: Blocks,
    stop: Option<Stop>,
}

/// Which of the two programs.
#[derive(Clone, Copy)]
enum Side {
    Holding,
    Watching,
}

impl Channel {
    /// A channel of which nothing has come.
    #[must_use]
    pub fn new(scanner: Arc<StreamScanner>, own: Arc<Own>) -> Self {
        Self {
            holding: Threads::new(&scanner.holding),
            watching: Threads::new(&scanner.watching),
            scanner,
            own,
            held: Held::default(),
            now: Place::default(),
            seen: 0,
            literals: Progress::default(),
            repeating: Repeating::default(),
            verdicts: Verdicts::default(),
            told: Told::default(),
            blocks: Blocks::default(),
            stop: None,
        }
    }

    /// Takes the next part of the text; adds what may go on to `out`. Once stopped it takes no more.
    pub fn push(&mut self, delta: &str, out: &mut Released) {
        for c in delta.chars() {
            if self.stop.is_some() {
                break;
            }
            self.read(c, out);
            if self.held.len() > CHUNK {
                self.advance(out);
            }
        }
        self.advance(out);
        out.stop = out.stop.or(self.stop);
    }

    /// The text is over: gives the verdict on what is held, and the rest.
    pub fn finish(&mut self, out: &mut Released) {
        if self.stop.is_none() {
            self.end(out);
        }
        out.stop = out.stop.or(self.stop);
    }

    /// Characters that wait for a verdict; never more than the greatest hold.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.waiting()
    }

    /// Bytes of memory that this channel takes.
    #[must_use]
    pub const fn size(&self) -> usize {
        size_of::<Self>()
            + self.held.size()
            + self.holding.size()
            + self.watching.size()
            + self.literals.size()
            + self.verdicts.size()
            + self.told.size()
    }

    /// Reads one character.
    #[inline]
    fn read(&mut self, c: char, out: &mut Released) {
        if self.is_at_ceiling() && self.hit_ceiling(out) {
            return;
        }
        let (place, folded) = (self.now, fold(c));
        let at = At { place, seen: self.seen };
        if self.read_block(place, out) {
            return;
        }
        self.held.push(c);
        self.now = Place { byte: place.byte + c.len_utf8(), char: place.char + 1 };
        if let Some(c) = folded {
            self.holding.read(&self.scanner.holding, c, at, self.now);
            self.watching.read(&self.scanner.watching, c, at, self.now);
            self.seen += 1;
            self.read_own(c, place, out);
        }
        let max_held = self.scanner.max_held;
        let overdue = self.holding.overdue(self.now, max_held).is_some()
            || self.watching.overdue(self.now, max_held).is_some();
        let calm = self.holding.is_calm() && self.watching.is_calm() && self.verdicts.is_empty();
        if overdue || !calm {
            self.judge(false, out);
        }
    }

    /// Judges the block that is over, if there is one, before the character at `at` is read. What is
    /// settled goes out first, as it has if a delta has ended here. Gives whether the channel stops.
    #[inline]
    fn read_block(&mut self, at: Place, out: &mut Released) -> bool {
        if self.scanner.surveyed.is_empty() {
            return false;
        }
        if let Some(block) = self.blocks.read(at) {
            self.advance(out);
            self.survey(&block, out);
        }
        self.stop.is_some()
    }

    /// Finds the personal data that begins in a block and is only watched for.
    fn survey(&mut self, block: &Range<usize>, out: &mut Released) {
        let (window, scanner) = (self.held.window(block.start), Arc::clone(&self.scanner));
        let survey = Survey::new(window.text());
        for &(index, kind) in &scanner.surveyed {
            let Some(detector) = scanner.detectors.get(index) else { continue };
            for range in kind.find_in(&survey) {
                let range = window.source(&range);
                if block.contains(&range.start) && !self.told.knows(index, range.start) {
                    self.told.tell(index, range.end, self.held.base());
                    self.confirm(range, Arc::clone(&detector.label), out);
                }
            }
        }
        self.settle(out);
    }

    /// Reads one character of the view in the request's own texts.
    fn read_own(&mut self, c: char, place: Place, out: &mut Released) {
        if let Some((start, meaning)) = self.literals.read(&self.own.literals, c, place) {
            let range = start..self.now.byte;
            match meaning {
                Meaning::Restore(value) => self.verdicts.push(range, What::Restore(value)),
                Meaning::Canary(label) => self.confirm(range, label, out),
            }
        }
        self.literals.expire(self.now, self.scanner.max_held);
        if let Some(system) = &self.own.system {
            let leak = self.repeating.read(system, c, place);
            self.repeating.expire(self.now, self.scanner.max_held);
            if let Some(leak) = leak {
                let label = Arc::clone(&system.label);
                self.leaked(leak, label, out);
            }
        }
    }

    fn leaked(&mut self, leak: Leak, label: Arc<Label>, out: &mut Released) {
        let range = leak.start..leak.end;
        if leak.is_first {
            self.confirm(range, label, out);
        } else if matches!(label.action, Action::Redact | Action::Pseudonymise) {
            self.verdicts.push(range, What::More);
        }
    }

    fn is_at_ceiling(&self) -> bool {
        self.scanner.ceiling.as_ref().is_some_and(|(chars, _)| self.now.char == *chars)
    }

    /// The text is as long as it may be. Gives whether the channel stops.
    fn hit_ceiling(&mut self, out: &mut Released) -> bool {
        let Some((_, label)) = self.scanner.ceiling.clone() else { return false };
        let stop = match label.action {
            Action::Allow | Action::Flag => None,
            Action::Redact | Action::Pseudonymise => Some(Stop::Length),
            Action::Block => Some(Stop::Block),
        };
        if stop.is_some() {
            self.end(out);
        }
        if self.stop.is_none() {
            out.findings.push(self.found(self.now.byte..self.now.byte, label));
            self.stop = stop;
        }
        stop.is_some()
    }

    /// The text ends here: everything is judged and released.
    fn end(&mut self, out: &mut Released) {
        let at = At { place: self.now, seen: self.seen };
        self.holding.end(&self.scanner.holding, at);
        self.watching.end(&self.scanner.watching, at);
        self.literals.end();
        if let Some(system) = &self.own.system
            && let Some(leak) = self.repeating.end(system, self.now)
        {
            let label = Arc::clone(&system.label);
            self.leaked(leak, label, out);
        }
        self.judge(true, out);
        self.advance(out);
        if self.stop.is_none() && !self.scanner.surveyed.is_empty() {
            self.survey(&self.blocks.end(), out);
        }
    }

    /// Judges what can be judged, and carries out the verdicts that nothing stands before.
    fn judge(&mut self, ended: bool, out: &mut Released) {
        for side in [Side::Holding, Side::Watching] {
            let seen = self.seen;
            let ripe = self.threads(side).ripe(seen, ended);
            self.examine(side, &ripe, out);
            if !ended {
                self.force(side, out);
            }
            for (detector, start, end) in self.threads(side).more() {
                if matches!(side, Side::Holding) {
                    self.verdicts.push(start..end, What::More);
                }
                self.told.tell(detector, end, self.held.base());
            }
        }
        self.settle(out);
    }

    const fn threads(&mut self, side: Side) -> &mut Threads {
        match side {
            Side::Holding => &mut self.holding,
            Side::Watching => &mut self.watching,
        }
    }

    /// Lets the exact detectors judge hits; gives the matches.
    fn examine(
        &mut self,
        side: Side,
        hits: &[Hit],
        out: &mut Released,
    ) -> Vec<(usize, Range<usize>)> {
        let Some(from) = hits.iter().map(|hit| hit.start.byte).min() else { return Vec::new() };
        let (window, scanner) = (self.held.window(from), Arc::clone(&self.scanner));
        let program = match side {
            Side::Holding => &scanner.holding,
            Side::Watching => &scanner.watching,
        };
        let of = |hit: &Hit| program.expression(hit.expression.0, hit.expression.1);
        let detectors = |hit| of(hit).map_or(&[][..], |of| of.detectors.as_slice());
        let mut wanted: Vec<usize> = hits.iter().flat_map(detectors).copied().collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut matches = Vec::new();
        for index in wanted {
            let hits = hits.iter().filter(|hit| detectors(hit).contains(&index));
            let Some(detector) = scanner.detectors.get(index) else { continue };
            for range in detector.find(window.text()) {
                let Some(range) = self.accepted(index, hits.clone(), &window.source(&range)) else {
                    continue;
                };
                self.told.tell(index, range.end, self.held.base());
                self.confirm(range.clone(), Arc::clone(&detector.label), out);
                matches.push((index, range));
            }
        }
        matches
    }

    /// The part of an exact match that a hit stands for, unless it is known already.
    fn accepted<'h>(
        &self,
        detector: usize,
        hits: impl Iterator<Item = &'h Hit>,
        found: &Range<usize>,
    ) -> Option<Range<usize>> {
        let meets = |hit: &&Hit| found.start < hit.end && found.end > hit.start.byte;
        let start = hits.filter(meets).map(|hit| hit.start.byte).min()?.max(found.start);
        (!self.told.knows(detector, start)).then_some(start..found.end)
    }

    /// Gives the verdict on what has been in progress for too long.
    fn force(&mut self, side: Side, out: &mut Released) {
        let (now, max_held) = (self.now, self.scanner.max_held);
        while let Some(upto) = self.threads(side).overdue(now, max_held) {
            let (hits, threads) = self.threads(side).take(upto);
            let matches = self.examine(side, &hits, out);
            for thread in threads.into_iter().rev() {
                if let Some(given) = self.given(side, &thread, &matches, out) {
                    self.threads(side).put_back(thread, given);
                }
            }
        }
    }

    /// Whether a thread that has been in progress for too long is a match so far.
    fn given(
        &mut self,
        side: Side,
        thread: &Thread,
        matches: &[(usize, Range<usize>)],
        out: &mut Released,
    ) -> Option<Given> {
        if thread.given != Given::Nothing {
            return None;
        }
        let start = thread.start.byte;
        if let Some((detector, range)) = matches.iter().find(|(_, range)| range.end > start) {
            let place = Place { byte: range.end, char: self.held.chars_before(range.end) };
            return Some(Given::Upto(place, *detector));
        }
        let window = self.held.window(start);
        let index = self.certain(side, &window, start)?;
        let label = Arc::clone(&self.scanner.detectors.get(index)?.label);
        self.confirm(start..self.now.byte, label, out);
        Some(Given::All(self.now, index))
    }

    /// The detector to which the beginning of a match is proof enough.
    fn certain(&self, side: Side, window: &Window, start: usize) -> Option<usize> {
        let holds = matches!(side, Side::Holding);
        let held = window.text().get(window.at(start)..)?;
        let is_certain = |d: &super::Detector| d.holds() == holds && d.is_certain(held);
        self.scanner.detectors.iter().position(is_certain)
    }

    /// Records a match: at once, or when the text before it is settled if it changes the text.
    fn confirm(&mut self, range: Range<usize>, label: Arc<Label>, out: &mut Released) {
        if label.action >= Action::Redact {
            self.verdicts.push(range, What::Finding(label));
        } else {
            out.findings.push(self.found(range, label));
        }
    }

    /// Carries out the verdicts before the first place that is open.
    fn settle(&mut self, out: &mut Released) {
        let open = self.open();
        for verdict in self.verdicts.due(open) {
            if self.stop.is_none() {
                self.carry_out(verdict, out);
            }
        }
    }

    fn carry_out(&mut self, Verdict { start, end, what }: Verdict, out: &mut Released) {
        match what {
            What::More => {
                self.held.replace(start, end, None, out);
            }
            What::Restore(value) => {
                out.restored += usize::from(self.held.replace(start, end, Some(&value), out));
            }
            What::Finding(label) => {
                out.findings.push(self.found(start..end, Arc::clone(&label)));
                if label.action == Action::Block {
                    self.held.release(start, out);
                    self.stop = Some(Stop::Block);
                } else {
                    self.held.replace(start, end, Some(&label.placeholder), out);
                }
            }
        }
    }

    fn found(&self, bytes: Range<usize>, label: Arc<Label>) -> Found {
        let chars = self.held.chars_before(bytes.start)..self.held.chars_before(bytes.end);
        Found { label, bytes, chars }
    }

    /// The first byte of which the verdict is open.
    fn open(&self) -> usize {
        let system = self.own.system.as_ref();
        let repeating = system.and_then(|system| self.repeating.earliest(system));
        let holding = self.holding.earliest().map(|place| place.byte);
        let own = self.literals.earliest().into_iter().chain(repeating);
        holding.into_iter().chain(own).min().unwrap_or(usize::MAX)
    }

    /// Releases what is settled.
    fn advance(&mut self, out: &mut Released) {
        if self.stop.is_some() {
            return;
        }
        let open = self.open().min(self.now.byte);
        self.held.release(open, out);
        let watched = self.watching.earliest().map_or(usize::MAX, |place| place.byte);
        let held = self.holding.earliest().map_or(usize::MAX, |place| place.byte);
        let block = match self.scanner.surveyed.is_empty() {
            true => usize::MAX,
            false => self.blocks.earliest(),
        };
        self.held.forget(open.min(watched).min(held).min(block));
    }
}

impl fmt::Debug for Channel {
    /// Without the text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("bytes", &self.now.byte)
            .field("held", &self.held.waiting())
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}
