//! The trace of a real coding assistant (data/README.md), as far as the tables need it.

use super::course::{MINUTE, SECOND};

/// The file; it is part of the program, so that the tables can be printed anywhere.
const AZURE_CODE: &str = include_str!("../../../../data/azure_code.csv");

/// One request of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// When it came, in microseconds since the first.
    pub at: u64,
    /// Its input tokens.
    pub input: u64,
    /// Its output tokens.
    pub output: u64,
}

/// Returns the requests in the order of their arrival.
///
/// # Panics
///
/// If the file is not what data/README.md says it is.
pub fn azure_code() -> Vec<Traced> {
    let lines = AZURE_CODE.lines().skip(1).filter(|line| !line.is_empty());
    let mut all: Vec<Traced> = lines
        .map(|line| request(line).unwrap_or_else(|| panic!("not a request: {line}")))
        .collect();
    let first = all.first().map_or(0, |traced| traced.at);
    for traced in &mut all {
        traced.at = traced.at.saturating_sub(first);
    }
    all
}

/// Reads one line, such as `2023-11-16 18:17:03.9799600,4808,10`. All of them are of one day, so the date is left out.
fn request(line: &str) -> Option<Traced> {
    let mut fields = line.trim().split(',');
    let (_, time) = fields.next()?.split_once(' ')?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = clock.split(':').map(str::parse::<u64>);
    let mut part = || parts.next()?.ok();
    let (hours, minutes, seconds) = (part()?, part()?, part()?);
    let micros: u64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Some(Traced {
        at: (hours * 60 + minutes) * MINUTE + seconds * SECOND + micros,
        input: fields.next()?.parse().ok()?,
        output: fields.next()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_is_what_its_readme_says() {
        let all = azure_code();
        assert_eq!(all.len(), 8_819);
        assert!(all.is_sorted_by_key(|traced| traced.at));
        let last = all.last().map_or(0, |traced| traced.at);
        assert!((56 * MINUTE..58 * MINUTE).contains(&last));
        assert_eq!(
            all[1],
            Traced {
                at: 52_000,
                input: 3_180,
                output: 8
            }
        );
    }
}
