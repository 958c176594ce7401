//! Answers read as they come: is this one whole, and is it the answer to this very request?

use memchr::memchr;
use serde::Deserialize;

use super::client::Dialect;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What is wrong with an answer that began with a status of 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It ended early, is not in the provider's shape, or reports an error in its middle.
    Broken,
    /// It is longer than anything a provider would send.
    TooLong,
}

/// The answer so far.
#[derive(Debug)]
pub(super) struct AnswerReader {
    dialect: Dialect,
    stream: bool,
    /// A whole JSON answer, or the unfinished line of a stream.
    buffer: Vec<u8>,
    read: usize,
    text: String,
    done: bool,
    broken: bool,
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    content: Vec<Block>,
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(alias = "delta")]
    message: Option<Message>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Block {
    text: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(rename = "type", default)]
    kind: String,
    delta: Option<Block>,
    error: Option<serde::de::IgnoredAny>,
}

impl AnswerReader {
    pub(super) fn new(dialect: Dialect, stream: bool) -> Self {
        Self {
            dialect,
            stream,
            buffer: Vec::new(),
            read: 0,
            text: String::new(),
            done: false,
            broken: false,
        }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, mut chunk: &[u8]) -> Result<(), Fault> {
        self.read = self.read.saturating_add(chunk.len());
        if self.read > ANSWER_BYTES_MAX {
            return Err(Fault::TooLong);
        }
        if !self.stream {
            self.buffer.extend_from_slice(chunk);
            return Ok(());
        }
        while let Some(end) = memchr(b'\n', chunk) {
            let (line, rest) = chunk.split_at(end);
            if self.buffer.is_empty() {
                self.line(line);
            } else {
                let mut whole = std::mem::take(&mut self.buffer);
                whole.extend_from_slice(line);
                self.line(&whole);
                whole.clear();
                self.buffer = whole;
            }
            chunk = &rest[1..];
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    /// The text of the answer, if it is whole.
    pub(super) fn finish(self) -> Result<String, Fault> {
        if self.stream {
            let whole = self.done && !self.broken && self.buffer.is_empty();
            return if whole { Ok(self.text) } else { Err(Fault::Broken) };
        }
        let answer: Completion = serde_json::from_slice(&self.buffer).map_err(|_| Fault::Broken)?;
        match self.dialect {
            Dialect::OpenAi => {
                let message = answer
                    .choices
                    .into_iter()
                    .next()
                    .and_then(|choice| choice.message);
                message.and_then(|message| message.content).ok_or(Fault::Broken)
            }
            Dialect::Anthropic if answer.stop_reason.is_none() => Err(Fault::Broken),
            Dialect::Anthropic => Ok(answer
                .content
                .into_iter()
                .filter_map(|block| block.text)
                .collect()),
        }
    }

    /// Both providers put the data of an event on one line.
    fn line(&mut self, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(data) = line.strip_prefix(b"data:") else {
            return;
        };
        // Nothing may follow the end.
        self.broken |= self.done;
        let data = data.strip_prefix(b" ").unwrap_or(data);
        if data == b"[DONE]" {
            self.done = true;
            return;
        }
        let Ok(event) = serde_json::from_slice::<Event>(data) else {
            self.broken = true;
            return;
        };
        self.broken |= event.error.is_some();
        self.done |= self.dialect == Dialect::Anthropic && event.kind == "message_stop";
        let openai = event
            .choices
            .into_iter()
            .next()
            .and_then(|choice| choice.message?.content);
        let text = openai.or_else(|| event.delta.and_then(|delta| delta.text));
        self.text.push_str(text.as_deref().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dialect: Dialect, stream: bool, answer: &str) -> Result<String, Fault> {
        let whole = {
            let mut reader = AnswerReader::new(dialect, stream);
            reader.push(answer.as_bytes())?;
            reader.finish()
        };
        // However the network cuts it, it says the same.
        for size in [1, 2, 3, 7] {
            let mut reader = AnswerReader::new(dialect, stream);
            for chunk in answer.as_bytes().chunks(size) {
                reader.push(chunk)?;
            }
            assert_eq!(reader.finish(), whole, "in chunks of {size}: {answer}");
        }
        whole
    }

    fn check(dialect: Dialect, stream: bool, answer: &str, expect: Option<&str>) {
        let read = read(dialect, stream, answer);
        assert_eq!(read.as_deref().ok(), expect, "{answer}");
    }

    #[test]
    fn openai_answers() {
        let json = |answer: &str, expect: Option<&str>| check(Dialect::OpenAi, false, answer, expect);
        json(
            r#"{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"hi"}}],"usage":{}}"#,
            Some("hi"),
        );
        json(r#"{"choices":[]}"#, None);
        json(r#"{"choices":[{"message":{"content":"h"#, None);
        json("", None);
        let sse = |answer: &str, expect: Option<&str>| check(Dialect::OpenAi, true, answer, expect);
        let delta = |text| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        let usage = "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\n";
        let done = "data: [DONE]\n\n";
        let (a, b) = (delta("a"), delta("é"));
        sse(&format!(": waiting\n\n{a}{b}{usage}{done}"), Some("aé"));
        sse(&format!("{a}{b}{done}").replace('\n', "\r\n"), Some("aé"));
        sse(&format!("{a}{b}"), None);
        sse(&format!("{a}{done}{b}"), None);
        sse(&format!("{a}data: {{\"choi"), None);
        sse(
            &format!("{a}data: {{\"error\":{{\"message\":\"oh\"}}}}\n\n{done}"),
            None,
        );
        sse("", None);
    }

    #[test]
    fn anthropic_answers() {
        let json = |answer: &str, expect: Option<&str>| check(Dialect::Anthropic, false, answer, expect);
        json(
            r#"{"type":"message","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}],"stop_reason":"end_turn"}"#,
            Some("ab"),
        );
        json(
            r#"{"type":"message","content":[{"type":"text","text":"a"}],"stop_reason":null}"#,
            None,
        );
        let sse = |answer: &str, expect: Option<&str>| check(Dialect::Anthropic, true, answer, expect);
        let start =
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[]}}\n\n";
        let delta = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
                     \"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n";
        let stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
        let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
        sse(&format!("{start}{delta}{delta}{stop}"), Some("aa"));
        sse(&format!("{start}{delta}"), None);
        sse(&format!("{start}{delta}{error}"), None);
    }

    #[test]
    fn an_answer_without_end_is_ended() {
        let mut reader = AnswerReader::new(Dialect::OpenAi, true);
        reader.read = ANSWER_BYTES_MAX;
        assert_eq!(reader.push(b"x"), Err(Fault::TooLong));
    }
}
