//! Paces an embedding job: a million tokens a minute and no more, whatever the number of batches.
//!
//! `cargo run -p tidegate --example embeddings`

use std::time::Duration;

use tidegate::core::{Dimension, TextShape};
use tidegate::{Limiter, Usage};
use tokio::task::JoinSet;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), tidegate::Refusal> {
    // A provider that is known to refill continuously can be kept evenly busy.
    let window = Duration::from_secs(3);
    let limiter = Limiter::builder()
        .token_bucket()
        .limit(Dimension::Tokens, window, 100_000)
        .build();
    let documents: Vec<String> = (0..200)
        .map(|number| format!("document {number} ").repeat(300))
        .collect();
    let started = tokio::time::Instant::now();
    let mut batches = JoinSet::new();
    for batch in documents.chunks(4) {
        let characters = batch.iter().map(|text| text.chars().count() as u64).sum();
        let shape = TextShape {
            characters,
            messages: batch.len() as u64,
            attachments: 0,
        };
        let limiter = limiter.clone();
        batches.spawn(async move {
            let permit = limiter.acquire_tokens(shape.embedding_tokens(), None).await?;
            // … POST /v1/embeddings …
            permit.settle(Usage {
                input: Some(shape.embedding_tokens()),
                ..Usage::default()
            });
            Ok(shape.embedding_tokens().value())
        });
    }
    let tokens: Result<Vec<u64>, tidegate::Refusal> = batches.join_all().await.into_iter().collect();
    let tokens: u64 = tokens?.iter().sum();
    println!(
        "{tokens} tokens in {:.1} s under a limit of 100,000 in 3 s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}
