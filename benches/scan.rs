//! What a scan costs: by part for what people write, as a whole for what is written to be slow, and
//! how the cost grows with the text: `cargo bench --bench scan`. Processor time of one thread, the
//! least of some runs; machines are shared and noisy.

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use portcullis_filters::prompt::{Piece, Role};
use portcullis_filters::scan::parts::Parts;
use portcullis_filters::scan::{PiiKind, Policy, Scanner};

mod texts;
use texts::{filled, hostile, large, ordinary};

const KIB: usize = 1 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    let begun = Instant::now();
    let scanner = Scanner::builtin().map_err(|errors| format!("{errors:?}"))?;
    writeln!(out, "compiling {} rules {:.0} ms", scanner.rules().count(), millis(begun.elapsed()))?;
    let begun = Instant::now();
    black_box(whole(&scanner, &filled(["Hello there. "], KIB)));
    writeln!(out, "first scan of 1 KiB {:.2} ms", millis(begun.elapsed()))?;
    by_part(&scanner, &mut out)?;
    of_hostile(&scanner, &mut out)?;
    of_large(&scanner, &mut out)?;
    Ok(())
}

/// The parts of a scan of ordinary texts.
fn by_part(scanner: &Scanner, out: &mut impl Write) -> std::io::Result<()> {
    let kinds: Vec<PiiKind> = PiiKind::ALL.into_iter().filter(|kind| kind.is_default()).collect();
    for bytes in [KIB, 64 * KIB] {
        for (name, text) in ordinary(bytes) {
            writeln!(out, "\n{name}, {} KiB, µs", bytes / KIB)?;
            let parts = Parts::new(scanner, &text);
            let mut row = |name: &str, call: &mut dyn FnMut() -> usize| {
                writeln!(out, "  {name:22} {:10.2}", micros(fastest(call)))
            };
            row("canonical view", &mut || Parts::canonical(&text))?;
            row("keywords", &mut || parts.keywords())?;
            row("rules", &mut || parts.rules())?;
            row("decoding", &mut || parts.decoded())?;
            row("disguises", &mut || parts.undisguised())?;
            row("classifier", &mut || parts.likelihood() as usize)?;
            row("credentials", &mut || parts.secrets())?;
            row("personal data, default", &mut || parts.personal(&kinds))?;
            row("personal data, all", &mut || parts.personal(&PiiKind::ALL))?;
            row("whole", &mut || whole(scanner, &text))?;
        }
    }
    Ok(())
}

/// Whole scans of hostile texts, of growing length: the cost may grow as they do.
fn of_hostile(scanner: &Scanner, out: &mut impl Write) -> std::io::Result<()> {
    let sizes = [8, 16, 32, 64];
    writeln!(out, "\nhostile texts, ms: {sizes:?} KiB")?;
    let columns = sizes.map(|size| hostile(scanner, size * KIB));
    let rows = columns.iter().map(Vec::len).min().unwrap_or_default();
    for row in 0..rows {
        let texts = columns.iter().filter_map(|column| column.get(row));
        let costs: Vec<f64> =
            texts.map(|(_, text)| millis(fastest(&mut || whole(scanner, text)))).collect();
        let name = columns.iter().find_map(|column| column.get(row)).map_or("", |(name, _)| name);
        let costs: String = costs.iter().map(|cost| format!("{cost:9.2}")).collect();
        writeln!(out, "  {name:32}{costs}")?;
    }
    Ok(())
}

/// Whole scans of the largest bodies.
fn of_large(scanner: &Scanner, out: &mut impl Write) -> std::io::Result<()> {
    let bytes = 8 * KIB * KIB;
    writeln!(out, "\n8 MiB, ms")?;
    for (name, text) in large(bytes) {
        writeln!(out, "  {name:32}{:9.0}", millis(fastest(&mut || whole(scanner, &text))))?;
    }
    Ok(())
}

/// A scan under the default policy; the number of findings.
fn whole(scanner: &Scanner, text: &str) -> usize {
    let pieces = [Piece::new(Role::User, 0, text.to_owned())];
    scanner.scan(&pieces, &Policy::default(), 0).findings.len()
}

/// The fastest of several batches of calls, for a third of a second or three of them.
fn fastest(call: &mut dyn FnMut() -> usize) -> Duration {
    const ENOUGH: Duration = Duration::from_millis(300);
    // Linux counts processor time in steps of some milliseconds.
    const BATCH: Duration = Duration::from_millis(40);
    let mut time = |batch: u32| {
        let begun = processor_time();
        for _ in 0..batch {
            black_box(call());
        }
        processor_time().saturating_sub(begun)
    };
    let mut batch = 1;
    while time(batch) < BATCH {
        batch *= 2;
    }
    let (begun, mut runs, mut best) = (Instant::now(), 0, Duration::MAX);
    while runs < 3 || begun.elapsed() < ENOUGH {
        best = best.min(time(batch));
        runs += 1;
    }
    best / batch
}

/// What this thread has used of the processor, where Linux tells; what the clock says elsewhere.
fn processor_time() -> Duration {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let used = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let nanos = used.and_then(|used| used.split(' ').next()?.parse().ok());
    nanos.map_or_else(|| BEGUN.elapsed(), Duration::from_nanos)
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
