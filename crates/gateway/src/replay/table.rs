//! Tables and quantities for people.

use std::fmt::{self, Write as _};
use std::time::Duration;

/// A table in plain text: the first column to the left, the others to the right.
#[derive(Debug, Clone, Default)]
pub struct TextTable {
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// Makes a table with a head.
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned).to_vec()],
        }
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(Vec::from(cells));
    }
}

impl fmt::Display for TextTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                match column {
                    0 => write!(line, "  {cell:<width$}")?,
                    _ => write!(line, "  {cell:>width$}")?,
                }
            }
            writeln!(f, "{}", line.trim_end())?;
            if number == 0 {
                let rule = widths.iter().sum::<usize>() + 2 * columns.saturating_sub(1);
                writeln!(f, "  {}", "-".repeat(rule))?;
            }
        }
        Ok(())
    }
}

/// A count with its thousands apart: `1,903`.
pub fn human_count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration in three significant figures at most: `12 ms`, `3.4 s`, `2 min 05 s`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s <= 0.0 => "0 s".to_owned(),
        s if s < 0.0095 => format!("{:.1} ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 59.5 => format!("{s:.0} s"),
        s if s < 3599.5 => {
            let s = s.round() as u64;
            format!("{} min {:02} s", s / 60, s % 60)
        }
        s => {
            let minutes = (s / 60.0).round() as u64;
            format!("{} h {:02} min", minutes / 60, minutes % 60)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let check =
            |seconds: f64, expect: &str| assert_eq!(human_duration(Duration::from_secs_f64(seconds)), expect);
        check(0.0, "0 s");
        check(0.0004, "0.4 ms");
        check(0.0123, "12 ms");
        check(0.9996, "1.0 s");
        check(9.94, "9.9 s");
        check(9.96, "10 s");
        check(59.6, "1 min 00 s");
        check(125.0, "2 min 05 s");
        check(3599.9, "1 h 00 min");
        check(7322.0, "2 h 02 min");
    }

    #[test]
    fn counts_read_well() {
        for (count, expect) in [(0, "0"), (999, "999"), (1903, "1,903"), (1_234_567, "1,234,567")] {
            assert_eq!(human_count(count), expect);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = TextTable::new(["run", "refused"]);
        table.row(["directly".to_owned(), "1,903".to_owned()]);
        let expect = "  run       refused\n  -----------------\n  directly    1,903\n";
        assert_eq!(table.to_string(), expect);
    }
}
