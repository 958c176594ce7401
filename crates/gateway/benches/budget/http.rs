//! As much of HTTP/1.1 as a load generator needs: a prepared request, and where a response ends.

/// What is known of one response so far. Feed it what arrives; it says when the response is complete.
///
/// It expects one response at a time: nothing is pipelined.
#[derive(Debug, Default)]
pub(crate) struct Response {
    bytes: Vec<u8>,
    framing: Option<Framing>,
}

#[derive(Debug, Clone, Copy)]
struct Framing {
    body_from: usize,
    body: Body,
}

#[derive(Debug, Clone, Copy)]
enum Body {
    Length(usize),
    Chunked,
}

impl Response {
    /// Forgets the last response and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.framing = None;
    }

    /// Takes what arrived; returns the status once the response is complete.
    pub(crate) fn feed(&mut self, arrived: &[u8]) -> Option<u16> {
        self.bytes.extend_from_slice(arrived);
        let framing = match self.framing {
            Some(framing) => framing,
            None => *self.framing.insert(Framing::read(&self.bytes)?),
        };
        let body = &self.bytes[framing.body_from..];
        let complete = match framing.body {
            Body::Length(length) => body.len() >= length,
            Body::Chunked => body.ends_with(b"0\r\n\r\n"),
        };
        complete.then(|| self.status()).flatten()
    }

    /// Returns the status, once its line is there.
    pub(crate) fn status(&self) -> Option<u16> {
        std::str::from_utf8(self.bytes.get(9..12)?).ok()?.parse().ok()
    }
}

impl Framing {
    fn read(bytes: &[u8]) -> Option<Self> {
        let head_len = memchr::memmem::find(bytes, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..head_len]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .and_then(|value| value.trim().parse().ok());
        Some(Self {
            body_from: head_len + 4,
            body: length.map_or(Body::Chunked, Body::Length),
        })
    }
}

/// Returns a chat completion request, head and body, whose body has `body_len` bytes.
pub(crate) fn chat_request(body_len: usize, stream: bool) -> Vec<u8> {
    let start = format!(
        r#"{{"model":"gpt-4o","max_tokens":16,"stream":{stream},"messages":[{{"role":"user","content":""#
    );
    let end = r#""}]}"#;
    let words = "the tide comes in and the tide goes out ";
    let text: String = words
        .chars()
        .cycle()
        .take(body_len - start.len() - end.len())
        .collect();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sk-bench\r\n\
         content-type: application/json\r\ncontent-length: {body_len}\r\n\r\n"
    );
    [head.as_str(), &start, &text, end].concat().into_bytes()
}
