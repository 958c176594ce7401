//! Requests whose size is that of the trace and whose answer can be told from every other's.

use bytes::Bytes;

/// What the rest of a prompt is filled with: plain text that needs no escape in JSON.
const FILLER: &str = "The keeper reads the gauge, waits for the level on the far side, and opens the gate as far as \
                      the channel below can take. ";
/// Characters that count as one token, as the providers' own limiters estimate it (providers.md §2.3).
const CHARACTERS_PER_TOKEN: u64 = 4;

/// What a message adds to its text when its tokens are counted (providers.md §14).
const MESSAGE_TOKENS: u64 = 3;

/// The text of request `index` of run `run`: a mark that no other request has, filled up so that the message makes
/// `tokens` tokens. A request of fewer tokens than the mark needs is as long as the mark.
pub(super) fn text(run: u32, index: u64, tokens: u64) -> String {
    let mut text = format!("[{run:08x}-{index}] ");
    let tokens = tokens.saturating_sub(MESSAGE_TOKENS);
    let length = usize::try_from(tokens.saturating_mul(CHARACTERS_PER_TOKEN)).unwrap_or(usize::MAX);
    text.reserve(length.saturating_sub(text.len()));
    while text.len() < length {
        let missing = length - text.len();
        text.push_str(&FILLER[..missing.min(FILLER.len())]);
    }
    text
}

/// The body of the request; OpenAI and Anthropic read one message with one text alike. An answer of no tokens cannot be
/// asked for, so it asks for one at least.
pub(super) fn body(model: &str, text: &str, output_tokens: u64, stream: bool) -> Bytes {
    let model = serde_json::Value::from(model);
    let max_tokens = output_tokens.max(1);
    let stream = if stream { r#","stream":true"# } else { "" };
    Bytes::from(format!(
        r#"{{"model":{model},"max_tokens":{max_tokens}{stream},"messages":[{{"role":"user","content":"{text}"}}]}}"#
    ))
}

/// What `tidegate mock` answers to a prompt with so many tokens: see [`Settings::expect`](super::Settings::expect).
pub fn mock_answer(prompt: &str, output_tokens: u64) -> String {
    tidegate_mock::answer::Answer::to(&[prompt], 0, output_tokens).text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_size_of_its_tokens() {
        for tokens in [8, 9, 30, 31, 32, 33, 1000, 7841] {
            assert_eq!(text(7, 3, tokens).len() as u64, (tokens - 3) * 4, "{tokens}");
        }
        assert_eq!(text(7, 3, 0), "[00000007-3] ");
        assert_ne!(text(7, 3, 100), text(7, 4, 100));
        assert_ne!(text(7, 3, 100), text(8, 3, 100));
    }

    #[test]
    fn the_body_is_what_the_providers_read() {
        let text = text(1, 2, 50);
        let body = body("a\"b", &text, 0, true);
        let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({
                "model": "a\"b",
                "max_tokens": 1,
                "stream": true,
                "messages": [{"role": "user", "content": text}],
            })
        );
    }
}
