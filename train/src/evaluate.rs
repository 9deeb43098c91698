//! How often a model is right about sources that it has never seen.
//!
//! Sources are held out whole: those that may not be trained on are judged by a model of all that
//! may, and those by a model of the others, in folds. Sources that copy from one another stay
//! together. Thresholds are set on the ordinary innocent texts, all of held-out sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use portcullis_filters::scan::training::{Model, views};

use crate::calibrate::Held;
use crate::data::Row;
use crate::learn::{Learner, Settings};
use crate::rng::Rng;
use crate::set::{Mix, examples};

/// Sources that have texts in common: collections of the same jailbreaks.
const FAMILY: [&str; 4] = ["garak_dan", "giskard", "inthewild_jailbreak", "jackhhao"];

/// Folds over the sources that may be trained on.
const FOLDS: usize = 4;

/// A held-out text with its margin.
#[derive(Debug)]
pub(crate) struct Judged<'r> {
    /// The text.
    pub(crate) row: &'r Row,
    /// The largest margin of its views.
    pub(crate) margin: f32,
}

/// What there is to learn from.
#[derive(Debug)]
pub(crate) struct Material<'r> {
    /// Texts of sources that may be trained on.
    pub(crate) open: Vec<&'r Row>,
    /// Texts that only measure.
    pub(crate) closed: Vec<&'r Row>,
    /// Texts of the grammar, in every training set.
    pub(crate) synthetic: Vec<&'r Row>,
}

/// The fold in which a source is held out; 0 holds the sources that are never trained on.
fn folds<'r>(rows: &[&'r Row]) -> BTreeMap<&'r str, usize> {
    let mut sources: Vec<&str> = rows.iter().map(|row| row.source.as_str()).collect();
    sources.sort_unstable();
    sources.dedup();
    let apart = sources.iter().filter(|source| !FAMILY.contains(source));
    let mut folds: BTreeMap<_, _> =
        apart.enumerate().map(|(n, &source)| (source, 1 + (n + 1) % FOLDS)).collect();
    folds.extend(sources.iter().filter(|s| FAMILY.contains(s)).map(|&s| (s, 1)));
    folds
}

/// The held-out margins of all rows.
pub(crate) fn judge<'r>(material: &Material<'r>, settings: Settings, mix: Mix) -> Vec<Judged<'r>> {
    let folds = folds(&material.open);
    let split = positive_sources(&material.open) < 2;
    let fold = |row: &Row| match folds.get(row.source.as_str()) {
        Some(_) if split => fold_of_text(&row.text),
        fold => fold.copied().unwrap_or_default(),
    };
    let one = |held: usize| {
        let kept = material.open.iter().filter(|row| fold(row) != held);
        let shown: Vec<_> = kept.chain(&material.synthetic).copied().collect();
        let learner = Learner::train(&examples(&shown, settings.kinds, mix), settings);
        let model = Model::new(learner.quantised());
        let open = material.open.iter().filter(|row| fold(row) == held);
        let closed = material.closed.iter().filter(|_| held == 0);
        let judge = |row: &&'r Row| Judged { row, margin: worst_view(&model, &row.text) };
        open.chain(closed).map(judge).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let even = scope.spawn(|| (0..=FOLDS).step_by(2).flat_map(one).collect::<Vec<_>>());
        let odd: Vec<_> = (1..=FOLDS).step_by(2).flat_map(one).collect();
        even.join().unwrap_or_default().into_iter().chain(odd).collect()
    })
}

fn positive_sources(rows: &[&Row]) -> usize {
    let sources = rows.iter().filter(|row| row.is_positive()).map(|row| row.source.as_str());
    sources.collect::<BTreeSet<_>>().len()
}

/// Where all positive texts are of one source, it cannot be held out whole: its texts are.
fn fold_of_text(text: &str) -> usize {
    let hash = |hash: u64, b: u8| (hash ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    1 + Rng::new(text.bytes().fold(0xcbf2_9ce4_8422_2325, hash)).below(FOLDS)
}

/// The margin of the view that looks most like an attack.
pub(crate) fn worst_view(model: &Model, text: &str) -> f32 {
    let margins = views(text).into_iter().map(|view| model.margin(&view));
    margins.fold(f32::MIN, f32::max)
}

/// The margins to calibrate on, each source with the same weight within its label.
pub(crate) fn held(judged: &[Judged<'_>]) -> Vec<Held> {
    let mut sizes: BTreeMap<(&str, bool), f32> = BTreeMap::new();
    let counted = || judged.iter().filter(|one| !one.row.is_system());
    for one in counted() {
        *sizes.entry((&one.row.source, one.row.is_positive())).or_default() += 1.0;
    }
    let weight = |row: &Row| {
        let size = sizes.get(&(row.source.as_str(), row.is_positive())).copied().unwrap_or(1.0);
        1.0 / size.sqrt()
    };
    counted()
        .map(|one| Held {
            margin: one.margin,
            positive: one.row.is_positive(),
            weight: weight(one.row),
        })
        .collect()
}

/// The rates of false alarms on ordinary texts at which recall is given.
pub(crate) const RATES: [f32; 3] = [0.001, 0.005, 0.01];

/// The margins above which that share of the ordinary innocent texts lies.
pub(crate) fn thresholds(judged: &[Judged<'_>]) -> [f32; 3] {
    let ordinary =
        |row: &Row| !(row.is_positive() || row.is_hard() || row.is_system() || row.is_gathered());
    let mut margins: Vec<f32> =
        judged.iter().filter(|one| ordinary(one.row)).map(|one| one.margin).collect();
    margins.sort_by(|a, b| b.total_cmp(a));
    RATES.map(|rate| {
        let at = (rate * margins.len() as f32) as usize;
        margins.get(at).copied().unwrap_or(f32::MAX)
    })
}

/// A group of texts and how many of them lie above each threshold.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    rows: usize,
    flagged: [usize; 3],
}

impl Count {
    fn add(&mut self, margin: f32, thresholds: [f32; 3]) {
        self.rows += 1;
        for (flagged, threshold) in self.flagged.iter_mut().zip(thresholds) {
            *flagged += usize::from(margin > threshold);
        }
    }

    fn shares(self) -> [f32; 3] {
        self.flagged.map(|n| 100.0 * n as f32 / self.rows.max(1) as f32)
    }
}

/// The table of a measurement: by group of texts, and the mean over the sources of attacks.
pub(crate) fn report(judged: &[Judged<'_>]) -> String {
    let thresholds = thresholds(judged);
    let mut groups: BTreeMap<String, Count> = BTreeMap::new();
    for one in judged {
        for name in groups_of(one.row) {
            groups.entry(name).or_default().add(one.margin, thresholds);
        }
    }
    let mut out = format!(
        "{:40}{:>8}{:>9}{:>9}{:>9}\n",
        "flagged, %, at FPR", "rows", "0.1 %", "0.5 %", "1 %"
    );
    let mut line = |name: &str, rows: usize, shares: [f32; 3]| {
        let [a, b, c] = shares;
        // Writing to a string cannot fail.
        writeln!(out, "{name:40}{rows:8}{a:9.2}{b:9.2}{c:9.2}").unwrap_or_default();
    };
    for (name, count) in &groups {
        line(name, count.rows, count.shares());
    }
    let sources: Vec<_> =
        groups.iter().filter(|(name, _)| name.starts_with("attack source")).collect();
    let mean = [0, 1, 2].map(|n: usize| {
        let shares = sources.iter().filter_map(|(_, count)| count.shares().get(n).copied());
        shares.sum::<f32>() / sources.len().max(1) as f32
    });
    line("MEAN over sources of attacks", sources.len(), mean);
    out
}

fn groups_of(row: &Row) -> Vec<String> {
    let lang = row.lang.as_deref().unwrap_or("?");
    if row.is_system() {
        return vec!["benign system prompts".into()];
    }
    if row.is_gathered() {
        return vec!["gathered".into(), format!("gathered {lang}")];
    }
    if !row.is_positive() {
        let kind = if row.is_hard() { "hard" } else { "ordinary" };
        let mut groups = vec![format!("benign {kind}"), format!("benign {kind} {}", row.source)];
        if lang != "en" && lang != "code" {
            groups.push("benign other languages".into());
        }
        return groups;
    }
    let mut groups = vec![
        "attack".into(),
        format!("attack kind {}", row.kind),
        format!("attack source {}", row.source),
    ];
    if lang != "en" {
        groups.push("attack other languages".into());
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::set::tests::row;

    #[test]
    fn a_source_is_in_one_fold_and_families_stay_together() {
        let rows: Vec<_> = ["a", "b", "giskard", "garak_dan", "a"]
            .map(|source| Row { source: source.into(), ..row("x", "benign") })
            .into();
        let folds = folds(&rows.iter().collect::<Vec<_>>());
        assert_eq!(folds.len(), 4);
        assert_eq!(folds["giskard"], folds["garak_dan"]);
        assert!(folds.values().all(|fold| (1..=FOLDS).contains(fold)));
    }

    #[test]
    fn texts_of_a_single_source_fall_into_all_folds() {
        let folds: BTreeSet<_> = (0..100).map(|n| fold_of_text(&format!("text {n}"))).collect();
        assert!(folds.into_iter().eq(1..=FOLDS));
        let rows = [row("x", "attack"), row("y", "attack"), row("z", "benign")];
        assert_eq!(positive_sources(&rows.iter().collect::<Vec<_>>()), 1);
    }

    #[test]
    fn thresholds_are_set_on_ordinary_texts() {
        let benign = row("x", "benign");
        let hard = Row { kind: "benign_hard".into(), ..row("x", "benign") };
        let mut judged: Vec<_> =
            (0..1000).map(|n| Judged { row: &benign, margin: n as f32 }).collect();
        judged.push(Judged { row: &hard, margin: 1e6 });
        assert_eq!(thresholds(&judged), [998.0, 994.0, 989.0]);
        let report = report(&judged);
        assert!(report.contains("benign hard"), "{report}");
        let ordinary = report.lines().find(|line| line.starts_with("benign ordinary ")).unwrap();
        assert_eq!(
            ordinary.split_whitespace().skip(2).collect::<Vec<_>>(),
            ["1000", "0.10", "0.50", "1.00"]
        );
    }

    #[test]
    fn sources_count_alike_in_the_calibration() {
        let (a, b) = (row("x", "attack"), Row { source: "other".into(), ..row("x", "attack") });
        let judged: Vec<_> =
            [&a, &a, &a, &a, &b].map(|row| Judged { row, margin: 0.0 }).into_iter().collect();
        let weights: Vec<_> = held(&judged).iter().map(|held| held.weight).collect();
        assert_eq!(weights, [0.5, 0.5, 0.5, 0.5, 1.0]);
    }
}
