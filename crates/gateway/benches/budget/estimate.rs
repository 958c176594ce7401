//! What reading a body costs: the facts that a request is routed and charged by, and its tokens.

use std::time::{Duration, Instant};

use tidegate_gateway::provider::{Endpoint, RequestFacts};
use tidegate_tokens::Encoding;

use crate::table::{Row, Verdict};

const BYTES: usize = 100_000;

/// The slowest of several texts of 100 KB, ordinary and hostile, and how it grows to ten times the length.
pub(crate) fn row() -> Row {
    let texts = [
        ("English", "The tide comes in, the tide goes out. "),
        ("Chinese", "潮水漲落，港口的燈亮著。"),
        ("emoji", "👩‍👩‍👧‍👦🌊"),
        ("one letter", "a"),
        ("escapes", r"\u0041\n\u00e9\\\ud83c\udf0a"),
        ("brackets", "[{}]"),
        ("digits", "0123456789"),
        ("combining", "a\u{300}\u{301}\u{302}\u{303}"),
    ];
    let mut slowest = ("", Duration::ZERO, 0.0);
    for (name, text) in texts {
        let (once, tenfold) = (fastest(&body(text, BYTES)), fastest(&body(text, BYTES * 10)));
        if once > slowest.1 {
            slowest = (name, once, tenfold.as_secs_f64() / once.as_secs_f64());
        }
    }
    let (name, took, growth) = slowest;
    let millis = took.as_secs_f64() * 1e3;
    Row {
        what: "facts and token estimate of a 100 KB body",
        measured: format!("{millis:.3} ms ({name})"),
        budget: "<= 2 ms, linear",
        beside: format!("1 MB takes {growth:.1} x"),
        verdict: Verdict::of(millis <= 2.0 && growth <= 15.0),
    }
}

/// The same for real tokens, which are counted where they are charged and the tokenizer is public.
pub(crate) fn tokens_row() -> Row {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let letters: String = (0..BYTES).map(|_| char::from(b'a' + random(26) as u8)).collect();
    let latin: String = (0..BYTES).map(|_| char::from(random(256) as u8)).collect();
    let texts = [
        ("English", "The tide comes in, the tide goes out. "),
        ("Chinese", "潮水漲落，港口的燈亮著。"),
        ("emoji", "👩‍👩‍👧‍👦🌊"),
        ("one letter", "a"),
        ("spaces", " "),
        ("equals signs", "="),
        ("digits", "0123456789"),
        ("random letters", &letters),
        ("random Latin-1", &latin),
    ];
    let mut slowest = ("", Duration::ZERO, 0.0);
    for (name, text) in texts {
        let took = |bytes: usize| {
            let text = text.repeat(bytes.div_ceil(text.len()));
            let text = &text[..text.floor_char_boundary(bytes)];
            let counts = || std::hint::black_box(Encoding::O200k.count(std::hint::black_box(text)));
            least(|| assert!(counts() > 0, "a text has tokens"))
        };
        let (once, tenfold) = (took(BYTES), took(BYTES * 10));
        if once > slowest.1 {
            slowest = (name, once, tenfold.as_secs_f64() / once.as_secs_f64());
        }
    }
    let (name, took, growth) = slowest;
    let millis = took.as_secs_f64() * 1e3;
    Row {
        what: "tokens of 100 KB of text, o200k",
        measured: format!("{millis:.3} ms ({name})"),
        budget: "<= 2 ms, linear",
        beside: format!("1 MB takes {growth:.1} x"),
        verdict: Verdict::of(millis <= 2.0 && growth <= 15.0),
    }
}

fn fastest(body: &[u8]) -> Duration {
    least(|| {
        let facts = RequestFacts::read(Endpoint::ChatCompletions, std::hint::black_box(body));
        assert!(std::hint::black_box(facts).is_ok(), "the bodies are JSON");
    })
}

/// The least time of several runs: what it takes when nothing else runs.
fn least(run: impl Fn()) -> Duration {
    (0..20)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

fn body(text: &str, bytes: usize) -> Vec<u8> {
    let content = text.repeat(bytes / text.len());
    format!(r#"{{"messages":[{{"role":"user","content":"{content}"}}],"model":"gpt-4o","max_tokens":64}}"#)
        .into_bytes()
}
