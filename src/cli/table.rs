//! Columns for people.

/// Rows under their headings, each column as wide as its longest cell. What a cell has of control
/// characters is not sent to the terminal: names and devices come from strangers.
pub(super) fn columns<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let head = head.map(str::to_owned);
    let lines: Vec<[String; N]> = std::iter::once(&head)
        .chain(rows)
        .map(|row| row.clone().map(|cell| plain(&cell)))
        .collect();
    let width = |at: usize| {
        let cells = lines.iter().filter_map(|line| line.get(at));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let texts: Vec<String> = lines.iter().map(|line| padded(line, &widths)).collect();
    texts.join("\n")
}

/// Names and what they stand for, one a line.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| format!("{name:width$}  {}", plain(value));
    let lines: Vec<String> = pairs.iter().map(line).collect();
    lines.join("\n")
}

fn padded(cells: &[String], widths: &[usize]) -> String {
    let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    let cells: Vec<String> = cells.collect();
    cells.join("  ").trim_end().to_owned()
}

fn plain(cell: &str) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    if cell.is_empty() { "-".to_owned() } else { cell.chars().map(shown).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows = [row(["é", "", "x"]), row(["longer", "a\u{1b}[31m", ""])];
        let expected = "A       B       C\né       -       x\nlonger  a\u{fffd}[31m  -";
        assert_eq!(columns(["A", "B", "C"], &rows), expected);
        assert_eq!(columns(["A", "B", "C"], &[]), "A  B  C");
    }

    #[test]
    fn pairs_are_aligned() {
        let text = pairs(&[("name", "alice".to_owned()), ("e-mail", "a\nb".to_owned())]);
        assert_eq!(text, "name    alice\ne-mail  a\u{fffd}b");
        assert_eq!(pairs(&[]), "");
    }
}
