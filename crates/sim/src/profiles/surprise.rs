//! Limits that nothing tells of, and limits that move.

use tidegate_core::Dimension::{Requests, Tokens};
use tidegate_mock::limits::{Algorithm, Dimension as Counted, Limit as Enforced, Slice};

use super::catalog::{MINUTE, OUTPUT, Profile, anthropic, azure, azure_tokens, openai};
use super::exchange::Change;
use super::load::Load;

/// A profile with limits that nothing tells of, or that change while everything runs.
#[derive(Debug, Clone)]
pub struct Surprise {
    /// What is surprising.
    pub name: &'static str,
    /// The provider.
    pub profile: Profile,
    /// What it changes.
    pub changes: Vec<Change>,
}

/// Returns limits that are hidden, and limits that move.
pub fn surprises() -> Vec<Surprise> {
    let surprise = |name, profile: Profile, changes| Surprise {
        name,
        profile,
        changes,
    };
    let hidden = |mut profile: Profile, limit: Enforced| {
        profile.pools[0].limits.push(limit.hidden());
        profile
    };
    let lowered = |limit, from, amount, until, whole| {
        let change = |minute, amount| Change {
            minute,
            pool: 0,
            limit,
            amount,
        };
        vec![change(from, amount), change(until, whole)]
    };
    let chat = Load {
        error: 5,
        max_output: Some(1_024),
        ..Load::CHAT
    };
    let input = || anthropic("Anthropic, input", 1_000, 250_000, 100_000, chat.clone());
    let ramp = Algorithm::Ramp {
        start: 58_276,
        step: 10_000,
        idle: None,
    };
    vec![
        surprise(
            "Anthropic, acceleration",
            hidden(input(), Enforced::new(Counted::Input, MINUTE, 1_000_000, ramp)),
            Vec::new(),
        ),
        surprise(
            "Anthropic, 20 connections",
            hidden(
                anthropic("Anthropic, output", 1_000, 2_000_000, 400_000, OUTPUT),
                Enforced::concurrency(20),
            ),
            Vec::new(),
        ),
        surprise(
            "Anthropic, tokens halved",
            input(),
            lowered(1, 20, 125_000, 60, 250_000),
        ),
        surprise(
            "Azure, tokens halved",
            azure_tokens("Azure, tokens, rolling", Algorithm::Rolling),
            lowered(1, 20, 150_000, 60, 300_000),
        ),
        surprise(
            "Azure, requests halved",
            azure("Azure, rolling slices", Slice::Rolling, Algorithm::Rolling),
            lowered(0, 20, 150, 60, 300),
        ),
        surprise(
            "OpenAI, tokens halved",
            openai(
                "OpenAI, tokens",
                &[(Requests, MINUTE, 1_000), (Tokens, MINUTE, 300_000)],
            ),
            lowered(1, 20, 150_000, 60, 300_000),
        ),
    ]
}
