//! Requests and tokens a minute around any client: reserve before sending, tell what the answer's headers say, and how
//! it ended.
//!
//! `cargo run -p tidegate --example around_a_client`

use std::time::Duration;

use tidegate::core::{TextShape, provider::Dialect, provider::Headers};
use tidegate::{Failure, Limiter, Permit, Refusal, Tokens, Usage};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Refusal> {
    let limiter = Limiter::builder()
        .requests_per_minute(500)
        .tokens_per_minute(30_000)
        .build();
    let prompt = "Who is Joseph Conrad?";
    let shape = TextShape {
        characters: prompt.chars().count() as u64,
        messages: 1,
        attachments: 0,
    };

    let mut permit = limiter
        .acquire_tokens(shape.openai_tokens(), Some(Tokens::new(512)))
        .await?;
    let answer = loop {
        let answer = send(prompt, permit.attempt()).await;
        // What the provider says it has left is believed where it is less than we think.
        let readings = Dialect::OpenAi.readings(limiter.now(), &answer);
        permit.observe(readings, Some(answer.processing));
        match answer.status {
            // The same place in line and the same deadline, after a pause that doubles.
            500..=599 => permit = retry(permit).await?,
            _ => break answer,
        }
    };
    println!(
        "attempt {}: {} after {:?} in line",
        permit.attempt(),
        answer.status,
        permit.waited()
    );
    permit.settle(Usage {
        input: Some(Tokens::new(12)),
        output: Some(Tokens::new(163)),
        ..Usage::default()
    });
    for limit in &limiter.snapshot().quotas[0].limits {
        println!(
            "{}: {} of {} in use",
            limit.limit.dimension, limit.used, limit.limit.amount
        );
    }
    Ok(())
}

async fn retry(permit: Permit) -> Result<Permit, Refusal> {
    permit.retry(Failure::Transient { sent: true }).await
}

/// What a client library gives back.
struct Answer {
    status: u16,
    processing: Duration,
    headers: [(&'static str, &'static str); 4],
}

impl Headers for Answer {
    fn text(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| *header == name)
            .map(|(_, value)| *value)
    }
}

/// Stands for the call itself: the first attempt meets a fault.
async fn send(_prompt: &str, attempt: u32) -> Answer {
    tokio::time::sleep(Duration::from_millis(20)).await;
    Answer {
        status: if attempt == 1 { 500 } else { 200 },
        processing: Duration::from_millis(18),
        headers: [
            ("x-ratelimit-limit-requests", "500"),
            ("x-ratelimit-remaining-requests", "499"),
            ("x-ratelimit-limit-tokens", "30000"),
            ("x-ratelimit-remaining-tokens", "29481"),
        ],
    }
}
