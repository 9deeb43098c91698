//! `portcullis scan`

mod explain;

use std::cell::OnceCell;
use std::io::{self, BufRead, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use portcullis_filters::clock::Clock;
use portcullis_filters::prompt::Role;
use portcullis_filters::scan::stream::StreamScanner;
use portcullis_filters::scan::{Policy, Scanner, Verdict};
use serde::{Deserialize, Serialize};

use super::{Outcome, out, rules};
use crate::api::scan::{Direction, Judgement, RoleName, judge, judge_answer, user};
use crate::boot;

/// Exit code for a text that would be blocked.
const BLOCKED: u8 = 3;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The text; `-` or nothing for standard input
    file: Option<PathBuf>,
    /// JSON lines in, JSON lines out, in the same order
    #[arg(long)]
    jsonl: bool,
    /// Which way the text goes
    #[arg(long, value_enum, default_value = "input")]
    direction: Direction,
    /// Who wrote the text
    #[arg(long, value_enum, default_value = "user")]
    role: RoleName,
    /// Take rules and policies from this configuration
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The firewall policy
    #[arg(long, default_value = "default")]
    policy: String,
    /// Say what was found, where and why, and how to switch it off
    #[arg(long, conflicts_with_all = ["jsonl", "json"])]
    explain: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// What texts are judged by; for answers it is made when the first one comes.
struct Judge {
    scanner: Arc<Scanner>,
    policy: Arc<Policy>,
    stream: OnceCell<Arc<StreamScanner>>,
    /// Unix seconds.
    now: u64,
}

impl Judge {
    fn judge(
        &self,
        direction: Direction,
        role: Role,
        text: String,
    ) -> Result<Judgement, Box<dyn std::error::Error>> {
        match direction {
            Direction::Input => Ok(judge(&self.scanner, &self.policy, role, self.now, text)),
            Direction::Output => Ok(judge_answer(self.stream()?, &text)),
        }
    }

    fn stream(&self) -> Result<&Arc<StreamScanner>, Box<dyn std::error::Error>> {
        if self.stream.get().is_none() {
            let made = StreamScanner::of_policy(self.scanner.rules(), &self.policy)?;
            drop(self.stream.set(Arc::new(made)));
        }
        self.stream.get().ok_or_else(|| "no scanner of answers".into())
    }
}

#[derive(Deserialize)]
struct Line {
    id: Option<serde_json::Value>,
    text: String,
    direction: Option<Direction>,
    #[serde(default = "user")]
    role: RoleName,
}

#[derive(Serialize)]
struct Answer {
    id: Option<serde_json::Value>,
    #[serde(flatten)]
    judgement: Judgement,
}

pub(super) fn run(args: &Args) -> Outcome {
    let (scanner, policy) = load(args)?;
    let now = Clock::system().unix_secs();
    let judge = Judge { scanner, policy, stream: OnceCell::new(), now };
    let direction = args.direction;
    if args.jsonl {
        return lines(&judge, direction);
    }
    let (text, role) = (text(args)?, args.role.into());
    let judgement = judge.judge(direction, role, text.clone())?;
    if args.explain {
        let Judge { scanner, policy, .. } = &judge;
        out::line(&explain::explained(scanner, policy, role, &text, &judgement))?;
    } else if args.json {
        out::line(&serde_json::to_string_pretty(&judgement)?)?;
    } else {
        out::line(&serde_json::to_string(&judgement.verdict)?.trim_matches('"'))?;
    }
    Ok(code(judgement.verdict))
}

fn code(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Allow | Verdict::Flag | Verdict::Redact => ExitCode::SUCCESS,
        Verdict::Block => ExitCode::from(BLOCKED),
    }
}

fn load(args: &Args) -> Result<(Arc<Scanner>, Arc<Policy>), Box<dyn std::error::Error>> {
    let Some(path) = &args.config else {
        return Ok((Arc::new(rules::load(&[])?), Arc::default()));
    };
    let loaded = boot::load(path, &Clock::system())?;
    let policy = loaded.snapshot.policy(&args.policy).cloned();
    let policy = policy.ok_or_else(|| format!("there is no policy {}", args.policy))?;
    Ok((Arc::clone(loaded.snapshot.scanner()), policy))
}

fn text(args: &Args) -> io::Result<String> {
    match &args.file {
        Some(path) if path.as_os_str() != "-" => std::fs::read_to_string(path),
        _ => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            Ok(text)
        }
    }
}

/// A line that names no direction goes the way that the command line says.
fn lines(judge: &Judge, otherwise: Direction) -> Outcome {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    for (number, line) in io::stdin().lock().lines().enumerate() {
        let line: Line = serde_json::from_str(&line?)
            .map_err(|error| format!("line {}: {error}", number + 1))?;
        let direction = line.direction.unwrap_or(otherwise);
        let judgement = judge.judge(direction, line.role.into(), line.text)?;
        serde_json::to_writer(&mut stdout, &Answer { id: line.id, judgement })?;
        stdout.write_all(b"\n")?;
    }
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}
