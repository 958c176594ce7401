//! Packs a vocabulary as OpenAI publishes it into the form that this crate embeds.
//!
//! ```sh
//! cargo run --release -p tidegate-tokens --example pack -- o200k_base.tiktoken crates/tokens/data/o200k_base.bin
//! ```
//!
//! The published file has a line for each token, its bytes in base64 and its rank. The packed one has, in the order of
//! ranks, one byte with the token's length, one with the length of the left part of its last merge (0 for single bytes
//! and for tokens that merging never arrives at), and its bytes.

use std::collections::HashMap;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, from, to] = arguments.as_slice() else {
        return Err("usage: pack FROM.tiktoken TO.bin".into());
    };
    let mut tokens = Vec::new();
    for line in std::fs::read_to_string(from)?.lines() {
        let (bytes, rank) = line.split_once(' ').ok_or("a line is a token and its rank")?;
        if rank.parse() != Ok(tokens.len()) {
            return Err(format!("rank {rank} stands where {} should", tokens.len()).into());
        }
        tokens.push(decode(bytes));
    }
    let ranks: HashMap<&[u8], usize> = (0..)
        .zip(&tokens)
        .map(|(rank, token)| (token.as_slice(), rank))
        .collect();
    let mut packed = Vec::new();
    let mut unreachable = 0;
    for token in &tokens {
        let left = last_merge(token, &ranks);
        unreachable += usize::from(left == 0 && token.len() > 1);
        packed.push(u8::try_from(token.len())?);
        packed.push(u8::try_from(left)?);
        packed.extend_from_slice(token);
    }
    std::fs::write(to, &packed)?;
    println!(
        "{} tokens, {} bytes, {unreachable} never reached by merging",
        tokens.len(),
        packed.len()
    );
    Ok(())
}

/// Merges the bytes of a token and returns the length of the left one of the last two parts; 0 if more than one is left
/// at the end.
fn last_merge(token: &[u8], ranks: &HashMap<&[u8], usize>) -> usize {
    let mut cuts: Vec<usize> = (0..=token.len()).collect();
    let mut left = 0;
    while cuts.len() > 2 {
        let lowest = (0..cuts.len() - 2)
            .filter_map(|at| Some((*ranks.get(&token[cuts[at]..cuts[at + 2]])?, at)))
            .min();
        let Some((_, at)) = lowest else { return 0 };
        left = cuts[at + 1];
        cuts.remove(at + 1);
    }
    left
}

fn decode(base64: &str) -> Vec<u8> {
    let digits = base64.bytes().filter_map(|digit| match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    });
    let mut bytes = Vec::new();
    let mut bits = 0;
    let mut held = 0_u32;
    for digit in digits {
        held = held << 6 | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    bytes
}
