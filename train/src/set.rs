//! The training set: which texts, and how much each counts.

use std::collections::BTreeMap;

use portcullis_filters::scan::training::Kinds;

use crate::data::Row;
use crate::learn::Example;
use crate::synth::SOURCE;

/// How the parts of a training set are weighed against one another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mix {
    /// Weight of a source of n texts is n to the power of this: 1 leaves them as large as they
    /// are, 0 makes them all alike.
    pub(crate) power: f32,
    /// Weight of all innocent texts together, compared with all attacks.
    pub(crate) benign: f32,
    /// What an innocent text with the words of attacks counts, compared with others.
    pub(crate) hard: f32,
    /// What a synthetic attack in another language than English counts: there are thirty such
    /// languages, and together they must not drown the one that most attacks are written in.
    pub(crate) foreign: f32,
}

/// Reads rows into examples; a text without three letters teaches nothing.
pub(crate) fn examples(rows: &[&Row], kinds: Kinds, mix: Mix) -> Vec<Example> {
    let taught = |row: &&&Row| {
        !row.is_system() && row.text.chars().filter(|c| c.is_alphabetic()).take(4).count() > 3
    };
    let rows: Vec<&Row> = rows.iter().filter(taught).copied().collect();
    let weights = weights(&rows, mix);
    let read = |(row, weight): (&&Row, f32)| {
        Example::new(&row.text, row.is_positive(), kinds).weighing(weight)
    };
    rows.iter().zip(weights).map(read).collect()
}

fn weights(rows: &[&Row], mix: Mix) -> Vec<f32> {
    let mut sizes: BTreeMap<(&str, bool), f32> = BTreeMap::new();
    for row in rows {
        *sizes.entry((&row.source, row.is_positive())).or_default() += 1.0;
    }
    let raw: Vec<f32> = rows
        .iter()
        .map(|row| {
            let size = sizes.get(&(row.source.as_str(), row.is_positive())).copied();
            let hard = if row.is_hard() { mix.hard } else { 1.0 };
            let strange = row.is_positive() && row.lang.as_deref().is_some_and(|l| l != "en");
            let foreign = if strange && row.source.starts_with(SOURCE) { mix.foreign } else { 1.0 };
            foreign * hard * size.unwrap_or(1.0).powf(mix.power - 1.0)
        })
        .collect();
    let total = |positive| {
        let of = rows.iter().zip(&raw).filter(|(row, _)| row.is_positive() == positive);
        of.map(|(_, weight)| weight).sum::<f32>().max(1e-9)
    };
    let (attacks, benign) = (total(true), total(false));
    let share = rows.len() as f32 / (1.0 + mix.benign);
    let scaled = |(row, weight): (&&Row, &f32)| {
        let all = if row.is_positive() { attacks } else { benign / mix.benign };
        weight * share / all
    };
    rows.iter().zip(&raw).map(scaled).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A row of source `s`.
    pub(crate) fn row(text: &str, label: &str) -> Row {
        Row {
            text: text.into(),
            label: label.into(),
            kind: "k".into(),
            source: "s".into(),
            lang: None,
        }
    }

    #[test]
    fn the_parts_weigh_what_the_mix_says() {
        let big = Row { source: "big".into(), ..row("some benign text", "benign") };
        let (small, attack) = (row("another benign text", "benign"), row("ignore it", "attack"));
        let mut rows = vec![&big; 16];
        rows.extend([&small, &attack]);
        let weights = weights(&rows, Mix { power: 0.5, benign: 2.0, hard: 1.0, foreign: 1.0 });
        let of = |range: std::ops::Range<usize>| weights[range].iter().sum::<f32>();
        assert!((of(0..17) / of(17..18) - 2.0).abs() < 1e-4);
        assert!((of(0..16) / of(16..17) - 4.0).abs() < 1e-4);
    }

    #[test]
    fn system_prompts_and_wordless_texts_teach_nothing() {
        let system = Row { kind: "system_prompt".into(), ..row("you are a robot", "benign") };
        let (number, text) = (row("ab-123", "attack"), row("hello", "benign"));
        let mix = Mix { power: 0.5, benign: 1.0, hard: 1.0, foreign: 1.0 };
        assert_eq!(examples(&[&system, &number, &text], Kinds::WORDS, mix).len(), 1);
    }
}
