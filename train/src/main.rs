//! `portcullis-train`: makes the weight files of the scan room, and measures them.
//!
//! docs/model-card.md has the commands that made the shipped ones.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use portcullis_filters::scan::training::{Kinds, MAX_WEIGHTS, Shape};

mod calibrate;
mod data;
mod evaluate;
mod grammar;
mod learn;
mod rng;
mod set;
mod synth;

use data::{Licences, Row};
use evaluate::{Material, judge, report};
use grammar::Grammar;
use learn::{Learner, Settings};
use set::{Mix, examples};
use synth::Amounts;

/// Something that cannot be read or written, and why.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    /// What is wrong with a file.
    pub(crate) fn at(path: &Path, what: &dyn fmt::Display) -> Self {
        Self(format!("{}: {what}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Parser)]
#[command(about = "Trains and measures the models of the scan room")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train the model of prompt injections and jailbreaks
    Injection(Job),
    /// Train the model of offensive language
    Toxicity(Job),
    /// Measure the injection model on sources that it has not seen
    Evaluate(Input),
    /// Print texts of the grammar as JSON Lines
    Grammar(Input),
}

#[derive(Args)]
struct Job {
    #[command(flatten)]
    input: Input,
    /// The weight file to write
    #[arg(long)]
    out: PathBuf,
}

/// What to learn from, and how.
#[derive(Args)]
struct Input {
    /// Labelled texts, JSON Lines, plain or .gz; may be given more than once
    #[arg(long)]
    data: Vec<PathBuf>,
    /// Licence classes of the sources; only those of class `ok` are trained on
    #[arg(long)]
    licences: Vec<PathBuf>,
    /// Folder of the grammar
    #[arg(long)]
    grammar: Option<PathBuf>,
    /// Attacks that the grammar makes in a language of weight 1
    #[arg(long, default_value_t = 1200)]
    attacks: usize,
    /// Bits of the features to use
    #[arg(long, default_value_t = DEFAULT_KINDS)]
    kinds: u8,
    /// How many weights; the file is 36 bytes longer
    #[arg(long, default_value_t = 524_000, value_parser = size)]
    size: usize,
    /// Tokens in a window
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u8).range(1..=64))]
    window: u8,
    /// Added to the tokens of a window
    #[arg(long, default_value_t = 2.0)]
    floor: f32,
    #[arg(long, default_value_t = 5)]
    epochs: usize,
    #[arg(long, default_value_t = 0.3)]
    rate: f32,
    #[arg(long, default_value_t = 1e-4)]
    l2: f32,
    #[arg(long, default_value_t = 0.02)]
    prune: f32,
    #[arg(long, default_value_t = 0.4)]
    dropout: f32,
    /// Weight of innocent texts compared with attacks
    #[arg(long, default_value_t = 2.0)]
    benign: f32,
    #[arg(long, default_value_t = 1.5)]
    hard: f32,
    #[arg(long, default_value_t = 0.2)]
    foreign: f32,
    #[arg(long, default_value_t = 0.6)]
    power: f32,
    #[arg(long, default_value_t = 20_251)]
    seed: u64,
    /// Write the margins of the held-out texts there
    #[arg(long)]
    margins: Option<PathBuf>,
}

const DEFAULT_KINDS: u8 = Kinds::WORDS
    .and(Kinds::PAIRS)
    .and(Kinds::SKIPS)
    .and(Kinds::STEMS)
    .and(Kinds::STEM_PAIRS)
    .and(Kinds::MARKS)
    .0;

impl Input {
    const fn settings(&self) -> Settings {
        Settings {
            kinds: Kinds(self.kinds),
            size: self.size,
            shape: Shape { window: self.window, floor: self.floor },
            epochs: self.epochs,
            rate: self.rate,
            l2: self.l2,
            prune: self.prune,
            dropout: self.dropout,
            seed: self.seed,
        }
    }

    const fn mix(&self) -> Mix {
        Mix { power: self.power, benign: self.benign, hard: self.hard, foreign: self.foreign }
    }

    fn rows(&self) -> Result<Vec<Row>, Failure> {
        let files: Result<Vec<_>, _> = self.data.iter().map(|path| data::rows(path)).collect();
        Ok(files?.into_iter().flatten().collect())
    }

    fn synthetic(&self) -> Result<Vec<Row>, Failure> {
        let Some(dir) = &self.grammar else { return Ok(Vec::new()) };
        let attacks = self.attacks;
        let amounts = Amounts { attacks, benign: attacks, hard: attacks };
        Ok(synth::texts(&Grammar::read(dir)?, amounts, self.seed))
    }

    fn licences(&self) -> Result<Vec<Licences>, Failure> {
        self.licences.iter().map(|path| Licences::read(path)).collect()
    }
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse().map_err(|e| format!("{e}"))?;
    let sizes = 256..=MAX_WEIGHTS;
    if sizes.contains(&size) { Ok(size) } else { Err(format!("not in {sizes:?}")) }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Injection(job) | Command::Toxicity(job) => train(&job),
        Command::Evaluate(input) => measure(&input),
        Command::Grammar(input) => show(&input),
    };
    match done {
        Ok(text) => say(&text),
        Err(failure) => {
            complain(&failure);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
fn say(text: &str) -> ExitCode {
    println!("{text}");
    ExitCode::SUCCESS
}

#[expect(clippy::print_stderr, reason = "why the command failed")]
fn complain(failure: &Failure) {
    eprintln!("portcullis-train: {failure}");
}

/// Splits the rows by what may be trained on.
fn material<'r>(rows: &'r [Row], synthetic: &'r [Row], licences: &[Licences]) -> Material<'r> {
    let open = |row: &&Row| licences.iter().any(|list| list.allows(&row.source));
    let (open, closed) = rows.iter().partition(open);
    Material { open, closed, synthetic: synthetic.iter().collect() }
}

/// Trains on everything that may be trained on, and calibrates on held-out sources.
fn train(job: &Job) -> Result<String, Failure> {
    let input = &job.input;
    let (rows, synthetic) = (input.rows()?, input.synthetic()?);
    let material = material(&rows, &synthetic, &input.licences()?);
    let judged = judge(&material, input.settings(), input.mix());
    let held = evaluate::held(&judged);
    let platt = calibrate::platt(&held);
    let shown: Vec<_> = material.open.iter().chain(&material.synthetic).copied().collect();
    let examples = examples(&shown, input.settings().kinds, input.mix());
    let mut weights = Learner::train(&examples, input.settings()).quantised();
    (weights.slope, weights.offset) = platt;
    std::fs::write(&job.out, weights.to_bytes()).map_err(|e| Failure::at(&job.out, &e))?;
    let points = evaluate::thresholds(&judged).map(|m| learn::logistic(platt.0 * m + platt.1));
    Ok(format!(
        "{}{} examples; calibration {platt:?}, error {:.4}; scores at FPR {:?}: {points:?}",
        report(&judged),
        examples.len(),
        calibrate::error(&held, platt),
        evaluate::RATES
    ))
}

fn measure(input: &Input) -> Result<String, Failure> {
    let (rows, synthetic) = (input.rows()?, input.synthetic()?);
    let material = material(&rows, &synthetic, &input.licences()?);
    let judged = judge(&material, input.settings(), input.mix());
    if let Some(path) = &input.margins {
        let line = |one: &evaluate::Judged<'_>| {
            let (source, label, kind) = (&one.row.source, &one.row.label, &one.row.kind);
            serde_json::json!({"source": source, "label": label, "kind": kind,
                "lang": one.row.lang, "margin": one.margin, "text": one.row.text})
            .to_string()
        };
        let lines: Vec<_> = judged.iter().map(line).collect();
        std::fs::write(path, lines.join("\n")).map_err(|e| Failure::at(path, &e))?;
    }
    Ok(report(&judged))
}

fn show(input: &Input) -> Result<String, Failure> {
    let line = |row: &Row| {
        serde_json::json!({"text": row.text, "label": row.label, "kind": row.kind,
            "source": row.source, "lang": row.lang})
        .to_string()
    };
    Ok(input.synthetic()?.iter().map(line).collect::<Vec<_>>().join("\n"))
}
