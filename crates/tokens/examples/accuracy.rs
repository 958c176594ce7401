//! How far each way of counting is from exact counts, on real text, and how long exact counts take.
//!
//! ```sh
//! cargo run --release -p tidegate-tokens --example accuracy
//! ```
//!
//! The texts are this repository's own documents, sources and schemas, Chinese of several ages (`data/README.md`), and
//! the base64 of binary files, in samples of 2,000 characters. An error of +25 % is a count that is a quarter too high.
#![expect(
    clippy::disallowed_methods,
    reason = "how long counting takes is one of the questions"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use tidegate_tokens::{Counting, Encoding, Ratio, TextCount};

/// Characters of one sample.
const SAMPLE: usize = 2_000;

/// Bytes of the texts that time is taken for.
const TIMED: usize = 100_000;

fn main() -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let kinds = [
        ("English", prose(&root)?),
        ("code", files(&root.join("crates"), "rs")?),
        ("Chinese", chinese(&root)?),
        ("JSON", json(&root)?),
        (
            "base64",
            base64(&fs::read(root.join("crates/tokens/data/o200k_base.bin"))?[..300_000]),
        ),
    ];
    print!("{}", times(&kinds));
    println!();
    print!("{}", errors(&kinds));
    Ok(())
}

fn errors(kinds: &[(&str, String)]) -> String {
    let ways = [
        ("a quarter of the characters (OpenAI, Azure)", Counting::Quarter),
        ("bytes / 4.0 (Gemini)", Counting::Bytes(Ratio::GEMINI)),
        ("bytes / 3.5 (Claude before 4.7)", Counting::Bytes(Ratio::CLAUDE)),
        (
            "bytes / 3.0 (where nothing is known)",
            Counting::Bytes(Ratio::CAUTIOUS),
        ),
        (
            "bytes / 2.7 (Claude since 4.7)",
            Counting::Bytes(Ratio::CLAUDE_NEW),
        ),
        ("o200k_base", Counting::Encoded(Encoding::O200k)),
        ("cl100k_base", Counting::Encoded(Encoding::Cl100k)),
    ];
    let mut table = String::new();
    for exact in Encoding::ALL {
        let _ = writeln!(table, "Errors in % against exact counts of {}", exact.name());
        let _ = writeln!(
            table,
            "{:<46}{:<9}{:>8}{:>8}{:>8}{:>8}{:>8}",
            "way of counting", "text", "samples", "p5", "p50", "p95", "max"
        );
        for (way, counting) in ways {
            for (kind, text) in kinds {
                let mut errors: Vec<f64> = samples(text)
                    .map(|sample| {
                        let mut count = TextCount::new(counting);
                        count.add(&sample);
                        (count.tokens() as f64 / exact.count(&sample) as f64 - 1.0) * 100.0
                    })
                    .collect();
                errors.sort_by(f64::total_cmp);
                let at = |quantile: f64| errors[((errors.len() - 1) as f64 * quantile).round() as usize];
                let largest = errors
                    .iter()
                    .copied()
                    .fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
                let _ = writeln!(
                    table,
                    "{way:<46}{kind:<9}{:>8}{:>+8.1}{:>+8.1}{:>+8.1}{largest:>+8.1}",
                    errors.len(),
                    at(0.05),
                    at(0.5),
                    at(0.95)
                );
            }
        }
        let _ = writeln!(table);
    }
    table
}

fn times(kinds: &[(&str, String)]) -> String {
    let mut table = String::new();
    for encoding in Encoding::ALL {
        let start = Instant::now();
        let heap = encoding.load();
        let _ = writeln!(
            table,
            "{}: index of {:.1} MB built in {:.1} ms",
            encoding.name(),
            heap as f64 / 1e6,
            start.elapsed().as_secs_f64() * 1e3
        );
    }
    let hostile = hostile();
    let real = kinds
        .iter()
        .map(|(kind, text)| (*kind, text.repeat(1 + TIMED / text.len())));
    let _ = writeln!(
        table,
        "\n{:<28}{:>14}{:>14}",
        "ms for 100 KB of", "cl100k_base", "o200k_base"
    );
    for (kind, text) in real.chain(hostile) {
        let text = &text[..text.floor_char_boundary(TIMED)];
        let [cl100k, o200k] = Encoding::ALL.map(|encoding| fastest(encoding, text).as_secs_f64() * 1e3);
        let _ = writeln!(table, "{kind:<28}{cl100k:>14.2}{o200k:>14.2}");
    }
    table
}

fn hostile() -> Vec<(&'static str, String)> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let drawn = |of: &mut dyn FnMut() -> char| -> String { (0..TIMED).map(|_| of()).collect() };
    vec![
        ("one letter", "a".repeat(TIMED)),
        ("spaces", " ".repeat(TIMED)),
        ("line ends", " \n".repeat(TIMED)),
        ("digits", "1234567890".repeat(TIMED)),
        ("equals signs", "=".repeat(TIMED)),
        ("families of emoji", "👩‍👩‍👧‍👦".repeat(TIMED)),
        ("marks", "a\u{300}\u{301}\u{302}".repeat(TIMED)),
        ("alternating case", "aB".repeat(TIMED)),
        (
            "random bytes as Latin-1",
            drawn(&mut || char::from(random(256) as u8)),
        ),
        (
            "random letters, no spaces",
            drawn(&mut || char::from(b'a' + random(26) as u8)),
        ),
        (
            "random characters",
            drawn(&mut || char::from_u32(random(0x11_0000) as u32).unwrap_or('x')),
        ),
    ]
}

/// The least of many runs: what it takes when nothing else runs.
fn fastest(encoding: Encoding, text: &str) -> Duration {
    let runs = (0..50).map(|_| {
        let start = Instant::now();
        std::hint::black_box(encoding.count(std::hint::black_box(text)));
        start.elapsed()
    });
    runs.min().unwrap_or_default()
}

/// Cuts a text into samples; what is left over is no sample, unless it is all there is.
fn samples(text: &str) -> impl Iterator<Item = String> {
    let characters: Vec<char> = text.chars().collect();
    let size = SAMPLE.min(characters.len() / 4);
    let samples: Vec<String> = characters
        .chunks_exact(size)
        .map(|sample| sample.iter().collect())
        .collect();
    samples.into_iter()
}

fn prose(root: &Path) -> io::Result<String> {
    let mut text = String::new();
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/proof.md"] {
        text += &fs::read_to_string(root.join(name))?;
    }
    Ok(text + &files(&root.join("docs/decisions"), "md")? + &files(&root.join("docs/reference"), "md")?)
}

fn chinese(root: &Path) -> io::Result<String> {
    let text = fs::read_to_string(root.join("crates/tokens/data/chinese.txt"))?;
    Ok(text)
}

/// The schema as it is and without white space, as machines write it.
fn json(root: &Path) -> io::Result<String> {
    let pretty = fs::read_to_string(root.join("docs/reference/config.schema.json"))?;
    let value: serde_json::Value = serde_json::from_str(&pretty)?;
    Ok(pretty + &value.to_string())
}

/// Joins all files with an extension, in the order of their paths.
fn files(folder: &Path, extension: &str) -> io::Result<String> {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<_>>()?;
    entries.sort();
    let mut text = String::new();
    for path in entries {
        if path.is_dir() {
            text += &files(&path, extension)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            text += &fs::read_to_string(path)?;
        }
    }
    Ok(text)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |word: u32, at: u32| char::from(DIGITS[(word >> (18 - 6 * at) & 0x3f) as usize]);
    bytes
        .as_chunks::<3>()
        .0
        .iter()
        .flat_map(|&[a, b, c]| {
            let word = u32::from_be_bytes([0, a, b, c]);
            [0, 1, 2, 3].map(|at| digit(word, at))
        })
        .collect()
}
