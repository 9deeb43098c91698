//! Reading one text: which rules it hits, in any of its disguises, and what it gives away.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::time::Instant;

use regex::bytes::{Captures, Match};

use super::Scanner;
use super::canonical::{View, whole_chars};
use super::decode::{Decoded, decode, reveal};
use super::disguise::{
    Regions, Survey, is_glued, pig_latin, respaced, reversed, rot13, slice, solved, squeezed,
    survey, suspects, swapped, unhyphenated, unleet, upright, words_reversed,
};
use super::matcher::{Gate, Matcher, Sign, locate, locate_apart, window};
use super::pii::{self, PiiKind};
use super::rules::{BROAD, Kind, Rule};
use crate::prompt::Role;

mod joined;

pub(super) use joined::Joined;

/// Bytes within which what speaks for an injection adds up.
pub(super) const NEAR: usize = 4 * 1024;

/// Bytes between two hits of one rule that are told apart, and how many are.
const APART: usize = NEAR / 2;
const MAX_PLACES: usize = 64;

/// Encodings inside encodings are undone this often.
const MAX_DEPTH: u8 = 3;

/// Bytes of decoded and undisguised text that are read: in any case, for each of the first bytes of
/// input, and for each byte after them. Few long texts are disguised in more than one way.
const EXTRA_FLOOR: usize = 32 * 1024;
const EXTRA_PER_BYTE: usize = 3;
const FIRST_BYTES: usize = 16 * 1024;
const EXTRA_PER_FURTHER_BYTE: usize = 1;

/// Of a text longer than this no more views are read once the rules that hit leave this little doubt.
const LONG: usize = 4 * 1024;
const NO_DOUBT: f32 = 1e-4;

/// Bytes that the expressions of injection rules are run over in all views of a text: in any case,
/// and for each byte of input.
const ATTACK_WORK: Work = Work { floor: 256 * 1024, per_byte: 4 };

/// The same for the expressions of credentials, of which a text has but one view.
const SECRET_WORK: Work = Work { floor: 512 * 1024, per_byte: 8 };

/// How much work a text may take.
struct Work {
    floor: usize,
    per_byte: usize,
}

impl Work {
    const fn for_bytes(&self, bytes: usize) -> Budget {
        Budget(bytes.saturating_mul(self.per_byte).saturating_add(self.floor))
    }
}

/// Bytes without spaces that are taken apart into words for the classifier.
const MAX_GLUED: usize = 2048;

/// What was undone to get a view. Disguises are undone in this order, since the other way round gives
/// the same views once more; only words that are also leet are known as reversed after that. What is
/// decoded may be disguised in any way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Decoded,
    Reordered,
    Joined,
    Unleeted,
    Corrected,
}

impl Stage {
    /// What was undone, for people.
    const fn name(self) -> &'static str {
        match self {
            Self::Decoded => "decoded",
            Self::Reordered => "reordered",
            Self::Joined => "joined",
            Self::Unleeted => "unleeted",
            Self::Corrected => "corrected",
        }
    }
}

/// How far a text is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent<'a> {
    /// Who wrote the text: rules for other roles are not tried. `None` tries all.
    pub(super) role: Option<Role>,
    /// Where words may have lost the blanks between them, in bytes of the text.
    pub(super) seams: &'a [usize],
    /// Whether it is classified, beside what the rules say.
    pub(super) classify: bool,
    /// After this no further view is read.
    pub(super) deadline: Option<Instant>,
    /// Whether all views of a long text are read, also when what was found is enough to refuse it.
    pub(super) to_the_end: bool,
}

/// Whether it is time to stop.
pub(super) fn is_late(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| Instant::now() >= deadline)
}

/// Undoes one disguise.
type Undo = fn(&str) -> String;

/// A view, the bytes of the text that it stands in, and how it was got.
type Made = (Stage, Decoded);

/// The views that were made of a text, as far as there is room for more.
struct Undone {
    views: Vec<Made>,
    /// Bytes of views that may still be made.
    left: usize,
    /// Whether one was not made.
    refused: bool,
}

impl Undone {
    const fn within(bytes: usize) -> Self {
        Self { views: Vec::new(), left: bytes, refused: false }
    }

    /// Whether there is room for views of so many bytes, which is then taken.
    const fn takes(&mut self, bytes: usize) -> bool {
        let left = self.left.checked_sub(bytes);
        self.refused |= left.is_none();
        if let Some(left) = left {
            self.left = left;
        }
        left.is_some()
    }
}

/// A rule, by index, and where it hit.
pub(super) type Hit = (usize, Range<usize>);

/// What rules and classifier find in a text, and in everything that can be made of it.
#[derive(Debug, Default)]
pub(super) struct Injections {
    /// The rules of injections and of code, each where it hit; twice only where that is [`APART`].
    pub(super) hits: Vec<Hit>,
    /// How likely the classifier takes the worst view for an attack, 0 to 1, and what it stands in.
    pub(super) likely: Option<(f32, Range<usize>)>,
    /// Whether a view was not read or a rule not tried, because the text takes too much work.
    pub(super) overrun: bool,
}

impl Injections {
    pub(super) fn likelihood(&self) -> f32 {
        self.likely.as_ref().map_or(0.0, |(likelihood, _)| *likelihood)
    }

    /// Keeps the worst likelihood with its place.
    fn suspect(&mut self, likelihood: f32, place: impl FnOnce() -> Range<usize>) {
        if likelihood > self.likelihood() {
            self.likely = Some((likelihood, place()));
        }
    }
}

/// The credentials of a text.
#[derive(Debug, Default)]
pub(super) struct Secrets<'r> {
    /// The rules, and where each found one.
    pub(super) found: Vec<(&'r Rule, Range<usize>)>,
    /// Whether a rule was not tried, because the text takes too much work.
    pub(super) overrun: bool,
}

/// Work that may still be done.
#[derive(Clone, Copy, Debug)]
struct Budget(usize);

impl Budget {
    /// Takes so much from the budget, if there is as much.
    const fn afford(&mut self, work: usize) -> bool {
        match self.0.checked_sub(work) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

/// One text, ready to be searched.
pub(super) struct Reading<'t> {
    scanner: &'t Scanner,
    text: &'t str,
    canonical: View,
    plain: Option<View>,
    gate: Gate,
}

impl<'t> Reading<'t> {
    pub(super) fn new(scanner: &'t Scanner, text: &'t str) -> Self {
        let canonical = View::canonical(text);
        let plain = canonical.is_veiled().then(|| View::plain(text));
        let gate = scanner.canonical.gate(canonical.text());
        Self { scanner, text, canonical, plain, gate }
    }

    /// What speaks for an injection, also where the text is encoded or disguised; only rules unless
    /// it is to be classified.
    pub(super) fn injections(&self, extent: &Extent<'_>) -> Injections {
        self.search(extent, &mut |_, _| {})
    }

    /// The views that are made of the text, each told to `seen` with what was undone to get it.
    pub(super) fn views(&self, seen: &mut dyn FnMut(&'static str, &Reading<'_>)) {
        self.search(&Extent { to_the_end: true, ..Extent::default() }, seen);
    }

    fn search(
        &self,
        extent: &Extent<'_>,
        seen: &mut dyn FnMut(&'static str, &Reading<'_>),
    ) -> Injections {
        let mut search = Search::new(self.scanner, extent, self.text.len());
        search.is_new(self.text);
        search.is_new(self.canonical.text());
        search.read(self, Stage::Decoded, 0, None);
        while let Some(next) = search.waiting.pop_front() {
            if is_late(extent.deadline) {
                search.found.overrun = true;
                break;
            }
            let reading = Reading::new(self.scanner, &next.text);
            seen(next.done.name(), &reading);
            search.read(&reading, next.done, next.depth, Some(&next.place));
        }
        for region in self.regions_of(extent.seams).iter(self.canonical.text().len()) {
            let (part, range) = slice(self.canonical.text(), &region);
            let text = squeezed(part);
            search.read_squeezed(&self.source_of_canonical(&range), &text);
            search.classify_glued(&text, &self.source_of_canonical(&range));
        }
        search.found
    }

    /// Where in the canonical view seams are, which are bytes of the text.
    fn regions_of(&self, seams: &[usize]) -> Regions {
        let mut regions = Regions::default();
        for &seam in seams {
            let place = self.canonical.place(seam);
            regions.add(place..place);
        }
        regions
    }

    /// How likely the text is offensive, from 0 to 1.
    pub(super) fn toxicity(&self) -> f32 {
        self.scanner.toxicity.score(self.canonical.text())
    }

    /// The credentials in the text.
    pub(super) fn secrets(&self) -> Secrets<'t> {
        let mut budget = SECRET_WORK.for_bytes(self.text.len());
        let mut secrets = Secrets::default();
        for (rule, window) in self.windows_of_secrets() {
            if budget.afford(window.len()) {
                let spans = self.secrets_of(rule, &window).into_iter();
                secrets.found.extend(spans.map(|span| (rule, span)));
            } else {
                secrets.overrun = true;
            }
        }
        secrets
    }

    /// The rules to try, and where: no byte is searched for a rule twice, however often its keywords
    /// are in the text.
    fn windows_of_secrets(&self) -> Vec<(&'t Rule, Range<usize>)> {
        let mut windows: Vec<(&Rule, Range<usize>)> = Vec::new();
        let mut last: HashMap<usize, usize> = HashMap::new();
        for (index, near) in self.gate.candidates() {
            let rule = self.scanner.rules.get(index).filter(|rule| rule.kind() == Kind::Secret);
            let Some(rule) = rule else { continue };
            let window = self.window_of_secret(near, rule.reach);
            let before = last.get(&index).and_then(|at| windows.get_mut(*at));
            match before.filter(|(_, before)| window.start <= before.end) {
                Some((_, before)) => before.end = before.end.max(window.end),
                None => {
                    last.insert(index, windows.len());
                    windows.push((rule, window));
                }
            }
        }
        windows
    }

    fn secrets_of(&self, rule: &Rule, window: &Range<usize>) -> Vec<Range<usize>> {
        let searched = self.plain_text().as_bytes().get(window.clone()).unwrap_or_default();
        let secret = |hit: Match<'_>| {
            let span = hit.start() + window.start..hit.end() + window.start;
            rule.is_plausible(hit.as_bytes()).then(|| self.source_of_plain(&span))
        };
        // To find groups takes many times as long as to find the whole.
        if rule.regex.captures_len() == 1 {
            return rule.regex.find_iter(searched).filter_map(secret).collect();
        }
        let value = |groups: Captures<'_>| groups.get(1).or_else(|| groups.get(0)).map(secret);
        rule.regex.captures_iter(searched).filter_map(value).flatten().collect()
    }

    /// Where to look for what the canonical view has at `near`: from the line before, since an
    /// expression may begin before its keyword, to as far as a secret may reach, and one byte more,
    /// so that none seems to end there.
    fn window_of_secret(&self, near: &Range<usize>, reach: usize) -> Range<usize> {
        const BEFORE: usize = 128;
        let (source, text) = (self.canonical.source(near), self.plain_text());
        let place = |source| self.plain.as_ref().map_or(source, |view| view.place(source));
        let (start, end) = (place(source.start), place(source.end));
        text.floor_char_boundary(start.saturating_sub(BEFORE))
            ..text.ceil_char_boundary(end.saturating_add(reach + 1))
    }

    /// What every kind of personal data is looked for in.
    pub(super) fn survey(&self) -> pii::Survey<'_> {
        pii::Survey::new(self.plain_text())
    }

    /// The personal data in the text, of which `survey` is the survey.
    pub(super) fn personal(&self, survey: &pii::Survey<'_>, kind: PiiKind) -> Vec<Range<usize>> {
        let found = kind.find_in(survey);
        found.iter().map(|span| self.source_of_plain(span)).collect()
    }

    /// The canonical view.
    pub(super) fn canonical_text(&self) -> &str {
        self.canonical.text()
    }

    /// The injection rules that hit the text as it is, by their index.
    pub(super) fn rules_hit(&self) -> BTreeSet<usize> {
        let mut search = Search::new(self.scanner, &Extent::default(), self.text.len());
        search.try_rules(self, None);
        let hits = search.found.hits.into_iter().map(|(index, _)| index);
        let is_injection = |index: &usize| {
            self.scanner.rules.get(*index).is_some_and(|rule| rule.kind().is_injection())
        };
        hits.filter(is_injection).collect()
    }

    fn plain_text(&self) -> &str {
        self.plain.as_ref().map_or(self.text, View::text)
    }

    fn source_of_plain(&self, span: &Range<usize>) -> Range<usize> {
        let source = self.plain.as_ref().map_or_else(|| span.clone(), |view| view.source(span));
        whole_chars(self.text, &source)
    }

    fn source_of_canonical(&self, span: &Range<usize>) -> Range<usize> {
        whole_chars(self.text, &self.canonical.source(span))
    }

    /// What the text says in other codes, by the bytes of the text that it stands in.
    pub(super) fn decoded(&self) -> Vec<Decoded> {
        let mut found = decode(self.plain_text());
        for decoded in &mut found {
            decoded.span = self.source_of_plain(&decoded.span);
        }
        if !self.text.is_ascii() {
            found.extend(reveal(self.text));
        }
        found
    }

    /// Whether a part of the text is written in a code that takes more room than what it says, as
    /// single escapes do not.
    fn holds_more(&self) -> bool {
        self.decoded().iter().any(|decoded| decoded.text.len() * 5 < decoded.span.len() * 4)
    }

    /// What a text that nothing was undone of says without its disguises.
    pub(super) fn undisguised_whole(&self) -> Vec<Decoded> {
        let signs = survey(self.canonical.text(), Some(self.scanner.canonical.vocabulary()));
        let mut undone = Undone::within(usize::MAX);
        self.undisguise(&signs, Stage::Decoded, &mut undone);
        undone.views.into_iter().map(|(_, undisguised)| undisguised).collect()
    }

    /// What the text says without its disguises, by the bytes of the text that it stands in.
    fn undisguise(&self, signs: &Survey, done: Stage, found: &mut Undone) {
        let vocabulary = self.scanner.canonical.vocabulary();
        if !matches!(done, Stage::Reordered | Stage::Corrected) {
            self.reorder(found);
        }
        if done < Stage::Joined {
            self.undo(Stage::Joined, &signs.broken, found, unhyphenated);
            if self.plain.is_none() {
                self.respace(&signs.spaced, found);
                self.respace(&signs.glued, found);
            } else if !(signs.spaced.is_empty() && signs.glued.is_empty()) {
                self.respace_all(found);
            }
        }
        if done < Stage::Unleeted {
            self.undo(Stage::Unleeted, &signs.leet, found, unleet);
        }
        if done < Stage::Corrected {
            let correct = |text: &str| vocabulary.corrected(text);
            self.undo(Stage::Corrected, &signs.misspelt, found, correct);
        }
    }

    /// Puts letters and words back into their order and undoes ciphers. In a long text one sign alone
    /// is chance.
    fn reorder(&self, found: &mut Undone) {
        const UNDO: [(Sign, Undo); 5] = [
            (Sign::Rotated, rot13),
            (Sign::Reversed, reversed),
            (Sign::Reversed, words_reversed),
            (Sign::Swapped, swapped),
            (Sign::PigLatin, pig_latin),
        ];
        const LONG: usize = 2048;
        let least = if self.text.len() < LONG { 1 } else { 2 };
        for (sign, how) in UNDO {
            self.undo(Stage::Reordered, &self.gate.signs(sign).of_many(least), found, how);
        }
        self.decipher(found);
        let turned = (!self.text.is_ascii()).then(|| upright(self.plain_text())).flatten();
        if let Some(text) = turned
            && found.takes(text.len())
        {
            let span = 0..self.text.len();
            found.views.push((Stage::Reordered, Decoded { text, span }));
        }
    }

    /// Undoes a disguise where the canonical view shows signs of it.
    fn undo(&self, stage: Stage, at: &Regions, found: &mut Undone, how: impl Fn(&str) -> String) {
        let text = self.canonical.text();
        for region in at.iter(text.len()) {
            let (part, range) = slice(text, &region);
            if found.takes(part.len()) {
                let span = self.source_of_canonical(&range);
                found.views.push((stage, Decoded { text: how(part), span }));
            }
        }
    }

    /// Tries ciphers where letters are too rare or too frequent; letters that only look like ASCII
    /// ones were not enciphered with the others, so these must not be folded before.
    fn decipher(&self, found: &mut Undone) {
        let canonical = self.canonical.text();
        for region in suspects(canonical).iter(canonical.len()) {
            let (part, range) = slice(canonical, &region);
            if !found.takes(part.len()) {
                continue;
            }
            let span = self.source_of_canonical(&range);
            let source = self.text.get(span.clone()).unwrap_or_default();
            let lower = (!source.is_ascii()).then(|| View::plain(source).text().to_lowercase());
            let texts = solved(lower.as_deref().unwrap_or(part)).into_iter();
            let made = |text| (Stage::Reordered, Decoded { text, span: span.clone() });
            found.views.extend(texts.map(made));
        }
    }

    /// The same for a text of which something cannot be seen.
    fn respace_all(&self, found: &mut Undone) {
        if found.takes(self.text.len()) {
            let text = respaced(self.plain_text());
            found.views.push((Stage::Joined, Decoded { text, span: 0..self.text.len() }));
        }
    }

    /// Puts letters together by the original spaces and capitals, which the canonical view has not.
    fn respace(&self, at: &Regions, found: &mut Undone) {
        for region in at.iter(self.canonical.text().len()) {
            let (part, span) = slice(self.text, &self.source_of_canonical(&region));
            if found.takes(part.len()) {
                found.views.push((Stage::Joined, Decoded { text: respaced(part), span }));
            }
        }
    }
}

/// The search for injections in a text and in everything that can be made of it.
struct Search<'s> {
    scanner: &'s Scanner,
    found: Injections,
    role: Option<Role>,
    classify: bool,
    /// The views of one layer before those of the next, so that what is inside of one cannot use up
    /// what another needs.
    waiting: VecDeque<Further>,
    /// Hashes of the further views. The keys of the hash are secret: a view whose hash can be
    /// foreseen could be passed off as one that was read.
    known: HashSet<u64>,
    hasher: RandomState,
    /// Bytes of further views that may still be read.
    views: Budget,
    /// Bytes that expressions may still be run over.
    work: Budget,
    /// Whether reading may end before all views are read.
    may_settle: bool,
    /// How many hits were looked at for that.
    weighed: usize,
    /// Where each rule has hit.
    places: HashMap<usize, Vec<usize>>,
    /// Bytes of texts without spaces that may still be taken apart.
    glued_left: usize,
}

fn is_strong(rule: &Rule) -> bool {
    rule.kind().is_injection() && rule.severity() >= BROAD
}

/// A view that is still to be read.
struct Further {
    text: String,
    done: Stage,
    depth: u8,
    place: Range<usize>,
}

impl<'s> Search<'s> {
    /// For a text of so many bytes.
    fn new(scanner: &'s Scanner, extent: &Extent<'_>, bytes: usize) -> Self {
        let (first, further) = (bytes.min(FIRST_BYTES), bytes.saturating_sub(FIRST_BYTES));
        let views = first * EXTRA_PER_BYTE + further * EXTRA_PER_FURTHER_BYTE + EXTRA_FLOOR;
        let (waiting, known, hasher) = (VecDeque::new(), HashSet::new(), RandomState::new());
        let (found, work) = (Injections::default(), ATTACK_WORK.for_bytes(bytes));
        let (views, may_settle) = (Budget(views), bytes > LONG && !extent.to_the_end);
        Self {
            scanner,
            found,
            role: extent.role,
            classify: extent.classify,
            waiting,
            known,
            hasher,
            views,
            work,
            may_settle,
            weighed: 0,
            places: HashMap::new(),
            glued_left: MAX_GLUED,
        }
    }

    /// Reads one text, of which something was undone before; hits in a decoded one are reported at
    /// `span`, where it stood.
    fn read(&mut self, reading: &Reading<'_>, done: Stage, depth: u8, span: Option<&Range<usize>>) {
        self.try_rules(reading, span);
        if self.classify {
            self.classify_view(reading, span);
        }
        if self.is_settled() {
            self.found.overrun = true;
            self.waiting.clear();
            return;
        }
        if depth == MAX_DEPTH {
            self.found.overrun |= done == Stage::Decoded && reading.holds_more();
            return;
        }
        if done <= Stage::Joined {
            let decoded = reading.decoded().into_iter();
            self.follow(decoded.map(|made| (Stage::Decoded, made)), depth + 1, span);
        }
        let text = reading.canonical.text();
        let signs = survey(text, Some(self.scanner.canonical.vocabulary()));
        let mut undone = Undone::within(self.views.0);
        reading.undisguise(&signs, done, &mut undone);
        self.found.overrun |= undone.refused;
        self.follow(undone.views.into_iter(), depth + 1, span);
        for region in signs.glued.iter(text.len()) {
            let (part, range) = slice(text, &region);
            let place = span.map_or_else(|| reading.source_of_canonical(&range), Clone::clone);
            for word in part.split(|c: char| !c.is_alphanumeric()).filter(|word| is_glued(word)) {
                if self.is_new(word) && self.afford(word.len()) {
                    self.read_squeezed(&place, word);
                    self.classify_glued(word, &place);
                }
            }
        }
    }

    /// Shows the classifier a text without spaces as the words that it is made of.
    fn classify_glued(&mut self, glued: &str, place: &Range<usize>) {
        let left = self.glued_left.checked_sub(glued.len()).filter(|_| self.classify);
        let Some(left) = left else { return };
        self.glued_left = left;
        if let Some(text) = self.scanner.canonical.vocabulary().segmented(glued) {
            let likelihood = self.scanner.classifier.score(&text);
            self.found.suspect(likelihood, || place.clone());
        }
    }

    /// In a long text the place is that of the worst window.
    fn classify_view(&mut self, reading: &Reading<'_>, span: Option<&Range<usize>>) {
        let scanner = self.scanner;
        let (classifier, text) = (&scanner.classifier, reading.canonical.text());
        let place = || match span {
            Some(span) => span.clone(),
            None if text.len() > NEAR => {
                reading.source_of_canonical(&classifier.worst_window(text))
            }
            None => 0..reading.text.len(),
        };
        self.found.suspect(classifier.score(text), place);
    }

    fn follow(
        &mut self,
        found: impl Iterator<Item = Made>,
        depth: u8,
        span: Option<&Range<usize>>,
    ) {
        for (done, Decoded { text, span: at }) in found {
            if self.is_new(&text) && self.afford(text.len()) {
                let place = span.map_or(at, Clone::clone);
                self.waiting.push_back(Further { text, done, depth, place });
            }
        }
    }

    fn read_squeezed(&mut self, whole: &Range<usize>, text: &str) {
        let matcher: &Matcher = &self.scanner.squeezed;
        for (index, near) in matcher.gate(text).candidates() {
            let rule = self.scanner.rules.get(index).filter(|_| !self.is_known(index, whole));
            let rule = rule.filter(|rule| self.role.is_none_or(|role| rule.applies_to(role)));
            let Some(regex) = rule.and_then(|rule| rule.squeezed.as_ref()) else { continue };
            if self.afford_work(window(text.len(), near).len())
                && locate(regex, text, near).is_some()
            {
                self.add(index, whole.clone());
            }
        }
    }

    /// Tries the rules that a view may concern. If that is more work than the text may take, the
    /// strongest come first.
    fn try_rules(&mut self, reading: &Reading<'_>, span: Option<&Range<usize>>) {
        let (scanner, role) = (self.scanner, self.role);
        let length = reading.canonical.text().len();
        let attacks = reading.gate.candidates().filter_map(|(index, near)| {
            let rule = scanner.rules.get(index).filter(|rule| rule.kind().is_canonical())?;
            role.is_none_or(|role| rule.applies_to(role)).then_some((index, rule, near))
        });
        let work: usize = attacks.clone().map(|(_, _, near)| window(length, near).len()).sum();
        if work <= self.work.0 {
            attacks.for_each(|attack| self.try_rule(attack, reading, span));
            return;
        }
        let mut attacks: Vec<_> = attacks.collect();
        attacks.sort_by(|(_, a, _), (_, b, _)| b.severity().total_cmp(&a.severity()));
        attacks.into_iter().for_each(|attack| self.try_rule(attack, reading, span));
    }

    fn try_rule(
        &mut self,
        (index, rule, near): (usize, &Rule, &Range<usize>),
        reading: &Reading<'_>,
        span: Option<&Range<usize>>,
    ) {
        let text = reading.canonical.text();
        let place =
            |at: &Range<usize>| span.map_or_else(|| reading.source_of_canonical(at), Clone::clone);
        if !self.is_known(index, &place(near)) && self.afford_work(window(text.len(), near).len()) {
            for hit in locate_apart(&rule.regex, text, near, APART).take(MAX_PLACES) {
                self.add(index, place(&hit));
            }
        }
    }

    /// Whether the text is an attack already, whatever else may be made of it: one of its first
    /// stretches is.
    fn is_settled(&mut self) -> bool {
        const FIRST: usize = 64;
        if !self.may_settle || self.found.hits.len() == self.weighed {
            return false;
        }
        self.weighed = self.found.hits.len();
        let strong = self.found.hits.iter().filter_map(|(rule, at)| {
            let severity = self.scanner.rules.get(*rule).filter(|rule| is_strong(rule))?.severity();
            Some((at.start, *rule, severity))
        });
        let mut strong: Vec<_> = strong.collect();
        strong.sort_unstable_by_key(|(at, ..)| *at);
        strong.truncate(FIRST);
        let starts = strong.iter().map(|(from, ..)| *from);
        starts.into_iter().any(|from| {
            let near = strong.iter().filter(|(at, ..)| (from..=from + NEAR).contains(at));
            let rules: BTreeMap<_, _> =
                near.map(|(_, rule, severity)| (*rule, *severity)).collect();
            rules.values().map(|severity| 1.0 - severity).product::<f32>() <= NO_DOUBT
        })
    }

    /// Whether a rule has hit so near that another hit there would add nothing. Elsewhere it would:
    /// decoys must not use a rule up.
    fn is_known(&self, rule: usize, at: &Range<usize>) -> bool {
        let near = |start: &usize| at.start.abs_diff(*start) < APART && at.end <= start + NEAR;
        let starts = self.places.get(&rule);
        starts.is_some_and(|starts| starts.len() >= MAX_PLACES || starts.iter().any(near))
    }

    fn add(&mut self, rule: usize, at: Range<usize>) {
        if !self.is_known(rule, &at) {
            self.places.entry(rule).or_default().push(at.start);
            self.found.hits.push((rule, at));
        }
    }

    /// Whether a view says something that was not read yet.
    fn is_new(&mut self, text: &str) -> bool {
        self.known.insert(self.hasher.hash_one(text))
    }

    /// Takes a view of so many bytes from the budget. Short ones cost as much as longer ones.
    fn afford(&mut self, bytes: usize) -> bool {
        const LEAST: usize = 256;
        let affordable = self.views.afford(bytes.max(LEAST));
        self.found.overrun |= !affordable;
        affordable
    }

    fn afford_work(&mut self, bytes: usize) -> bool {
        let affordable = self.work.afford(bytes);
        self.found.overrun |= !affordable;
        affordable
    }
}

#[cfg(test)]
mod tests;
