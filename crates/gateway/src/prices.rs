//! What models cost, with the source and date of every price.

use std::fmt::Write;
use std::sync::LazyLock;

use serde::Deserialize;
use tidegate_core::Price;

use crate::config::{ModelPattern, ModelTable};

/// The prices of some models.
#[derive(Debug, Clone, Default)]
pub struct PriceTable {
    table: ModelTable,
    prices: Vec<Price>,
}

/// The file of prices.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    prices: Vec<Row>,
}

/// What some models cost, in US dollars for a million tokens.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    models: Vec<String>,
    input: f64,
    /// None: input from the cache costs what other input does, as far as the source says.
    cached_input: Option<f64>,
    output: f64,
    /// Where it stands.
    source: String,
    /// When the source says it looked, else when the source was read, as `YYYY-MM-DD`.
    date: String,
}

static FILE: LazyLock<File> =
    LazyLock::new(|| toml::from_str(include_str!("prices.toml")).expect("the tests read the same file"));

static KNOWN: LazyLock<PriceTable> = LazyLock::new(|| {
    let rows = FILE.prices.iter().map(|row| {
        let models = row.models.iter().filter_map(|text| ModelPattern::parse(text));
        (models.collect(), row.price())
    });
    PriceTable::new(rows.collect())
});

impl Row {
    fn price(&self) -> Price {
        // The numbers of the file are small and above zero: a test says so.
        let micros = |dollars: f64| (dollars * 1_000_000.0).round() as u64;
        Price {
            input: micros(self.input),
            cached_input: micros(self.cached_input.unwrap_or(self.input)),
            output: micros(self.output),
        }
    }
}

impl PriceTable {
    /// Makes the table from each entry's models and price.
    pub(crate) fn new(entries: Vec<(Vec<ModelPattern>, Price)>) -> Self {
        let patterns = entries.iter().enumerate();
        let patterns = patterns.flat_map(|(at, (models, _))| models.iter().map(move |model| (at, model)));
        Self {
            table: ModelTable::new(patterns),
            prices: entries.iter().map(|(_, price)| *price).collect(),
        }
    }

    /// Returns the price of a model: by its exact name first, then by the longest pattern.
    pub fn find(&self, model: &str) -> Option<Price> {
        self.prices.get(self.table.find(model)?).copied()
    }
}

/// Returns the prices that the program brings along.
pub fn known() -> &'static PriceTable {
    &KNOWN
}

/// Returns the page of prices as Markdown.
pub fn page() -> String {
    let mut page = String::from(
        "# Prices\n\n\
         Written from the program (`make bless`). US dollars for a million tokens, for budgets in dollars; `[[prices]]` of the\n\
         configuration go before them. Surcharges for long inputs and for writing to a cache are not in it, and discounts\n\
         neither: check the prices that matter to you against your contract.\n\n\
         | Models | Input | Cached input | Output | As of | From |\n|---|---|---|---|---|---|\n",
    );
    for row in &FILE.prices {
        let models: Vec<_> = row.models.iter().map(|model| format!("`{model}`")).collect();
        let cached = row.cached_input.unwrap_or(row.input);
        let (models, input, output) = (models.join(", "), row.input, row.output);
        let (date, source) = (&row.date, &row.source);
        let _ = writeln!(
            page,
            "| {models} | {input} | {cached} | {output} | {date} | {source} |"
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_price_is_dated_sourced_and_said_once() {
        assert!(FILE.prices.len() >= 30, "{}", FILE.prices.len());
        let mut names = Vec::new();
        for row in &FILE.prices {
            let what = format!("{:?}", row.models);
            let digits: Vec<_> = row.date.split('-').map(str::len).collect();
            assert_eq!(digits, [4, 2, 2], "{what}");
            assert!(row.source.contains('@') && row.source.contains(' '), "{what}");
            let cached = row.cached_input.unwrap_or(row.input);
            assert!(
                row.input > 0.0 && row.output >= 0.0 && cached <= row.input,
                "{what}"
            );
            assert!(row.input < 1_000.0 && row.output < 1_000.0, "{what}");
            assert!(!row.models.is_empty());
            for model in &row.models {
                assert!(
                    ModelPattern::parse(model).is_some_and(|p| p.to_string() == *model),
                    "{what}"
                );
                names.push(model);
            }
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a model has two prices");
    }

    #[test]
    fn models_have_the_price_of_their_own_name() {
        let check = |model: &str, expect: Option<[u64; 3]>| {
            let price = known().find(model);
            let parts = price.map(|price| [price.input, price.cached_input, price.output]);
            assert_eq!(parts, expect, "{model}");
        };
        check("gpt-4o", Some([2_500_000, 1_250_000, 10_000_000]));
        check("gpt-4o-mini-2024-07-18", Some([150_000, 75_000, 600_000]));
        check(
            "claude-opus-4-20250514",
            Some([15_000_000, 1_500_000, 75_000_000]),
        );
        check("claude-opus-4-5-20251101", Some([5_000_000, 500_000, 25_000_000]));
        check("text-embedding-3-small", Some([20_000, 20_000, 0]));
        check("deepseek-v4-pro", Some([435_000, 3_625, 870_000]));
        check("gpt-4o-2024-05-13", None);
        check("llama", None);
    }
}
