//! Counts beside those of tiktoken.

use tidegate_tokens::Encoding;

/// A line for each text: its tokens in cl100k and in o200k, and the text in JSON. Counted by tiktoken 0.14.0
/// (`data/README.md` says how).
const GOLDEN: &str = include_str!("../data/golden.tsv");

#[test]
fn counts_are_those_of_tiktoken() {
    let other = std::env::var("TIDEGATE_GOLDEN_TOKENS").map(|path| std::fs::read_to_string(path).unwrap());
    let lines = other.as_deref().unwrap_or(GOLDEN).lines();
    let mut wrong = Vec::new();
    for (number, line) in lines.enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [cl100k, o200k, text] = fields.as_slice() else {
            panic!("line {number} has no three fields");
        };
        let text: String = serde_json::from_str(text).unwrap();
        for (encoding, expected) in [(Encoding::Cl100k, cl100k), (Encoding::O200k, o200k)] {
            let count = encoding.count(&text);
            if count.to_string() != **expected {
                wrong.push(format!("{}: {count}, not {expected}: {text:?}", encoding.name()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}
