//! The one table that is printed.

/// One measured thing beside its budget.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: &'static str,
    /// What came out.
    pub(crate) measured: String,
    /// What it may be.
    pub(crate) budget: &'static str,
    /// What the same measurement gave elsewhere.
    pub(crate) beside: String,
    /// How it stands.
    pub(crate) verdict: Verdict,
}

/// How a measurement stands against its budget.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    /// Within it.
    Pass,
    /// Beyond it.
    Over,
    /// Not measured, for the reason that stands in its place.
    Skipped,
}

impl Verdict {
    /// Returns the verdict for a condition.
    pub(crate) fn of(within: bool) -> Self {
        if within { Self::Pass } else { Self::Over }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Over => "OVER",
            Self::Skipped => "skipped",
        }
    }
}

impl Row {
    /// Makes the row of something that could not be measured.
    pub(crate) fn skipped(what: &'static str, budget: &'static str, reason: String) -> Self {
        Self {
            what,
            measured: reason,
            budget,
            beside: String::new(),
            verdict: Verdict::Skipped,
        }
    }
}

/// Prints the table.
pub(crate) fn print(rows: &[Row]) {
    let lines: Vec<[&str; 5]> = [["what", "measured", "budget", "", "beside it, same run"]]
        .into_iter()
        .chain(rows.iter().map(|row| {
            [
                row.what,
                &row.measured,
                row.budget,
                row.verdict.name(),
                &row.beside,
            ]
        }))
        .collect();
    let widths: [usize; 5] = std::array::from_fn(|column| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or_default()
    });
    println!();
    for (index, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        println!("{}", cells.join("  ").trim_end());
        if index == 0 {
            println!("{}", widths.map(|width| "-".repeat(width)).join("  "));
        }
    }
}
