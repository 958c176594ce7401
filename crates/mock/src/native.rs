//! Bodies in shapes that are neither OpenAI's nor Anthropic's.

use serde_json::{Map, Value};

use crate::call::{INPUTS_MAX, Tally, Texts};
use crate::route::Endpoint;

/// Counts the texts of a body; `None` where the endpoint is OpenAI's or Anthropic's.
///
/// # Errors
///
/// Returns the name of what is missing.
pub(crate) fn texts(endpoint: Endpoint, fields: &Map<String, Value>) -> Option<Result<Texts, &'static str>> {
    let texts = match endpoint {
        Endpoint::GenerateContent | Endpoint::GeminiCount => {
            // The SDK may count a whole request.
            let inner = fields.get("generateContentRequest").and_then(Value::as_object);
            let fields = inner.unwrap_or(fields);
            let system = either(fields, "systemInstruction", "system_instruction");
            conversation(&[system], fields.get("contents")).ok_or("contents")
        }
        Endpoint::EmbedContent => separate(fields.get("content").map(std::slice::from_ref)).ok_or("content"),
        Endpoint::BatchEmbed => separate(array(fields, "requests")).ok_or("requests"),
        Endpoint::Predict => separate(array(fields, "instances")).ok_or("instances"),
        Endpoint::CohereChat => conversation(&[], fields.get("messages")).ok_or("messages"),
        Endpoint::CohereChatV1 => {
            let lead = [fields.get("preamble"), fields.get("chat_history")];
            conversation(&lead, fields.get("message")).ok_or("message")
        }
        Endpoint::CohereEmbed => {
            let texts = ["texts", "inputs", "images"];
            separate(texts.iter().find_map(|name| array(fields, name))).ok_or("texts")
        }
        Endpoint::Rerank => {
            let query = fields.get("query").filter(|query| query.is_string());
            let ranked = query.and_then(|_| separate(array(fields, "documents")));
            ranked.ok_or("query, documents")
        }
        Endpoint::Tokenize => separate(fields.get("text").map(std::slice::from_ref)).ok_or("text"),
        Endpoint::Converse => conversation(&[fields.get("system")], fields.get("messages")).ok_or("messages"),
        Endpoint::Invoke => {
            let texts = ["messages", "prompt", "inputText"];
            let asked = texts.iter().find_map(|name| fields.get(*name));
            conversation(&[fields.get("system")], asked).ok_or("messages")
        }
        Endpoint::Transcriptions => Ok(Texts {
            characters: 0,
            messages: 0,
            digests: vec![tally(fields.get("file")).digest],
        }),
        _ => return None,
    };
    Some(texts)
}

fn either<'a>(fields: &'a Map<String, Value>, name: &str, other: &str) -> Option<&'a Value> {
    fields.get(name).or_else(|| fields.get(other))
}

fn array<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a [Value]> {
    let values = fields.get(name)?.as_array()?;
    (1..=INPUTS_MAX).contains(&values.len()).then_some(values)
}

fn tally(value: Option<&Value>) -> Tally {
    let mut tally = Tally::default();
    if let Some(value) = value {
        tally.walk(value);
    }
    tally
}

/// One answer to all texts together.
fn conversation(lead: &[Option<&Value>], messages: Option<&Value>) -> Option<Texts> {
    let messages = messages.filter(|messages| match messages {
        Value::Array(entries) => !entries.is_empty(),
        other => other.is_string() || other.is_object(),
    })?;
    let mut tally = Tally::default();
    let mut count = 0;
    for value in lead.iter().flatten().copied().chain([messages]) {
        tally.walk(value);
        count += value.as_array().map_or(1, Vec::len) as u64;
    }
    Some(Texts {
        characters: tally.characters,
        messages: count,
        digests: vec![tally.digest],
    })
}

/// An answer to each text.
fn separate(texts: Option<&[Value]>) -> Option<Texts> {
    let mut characters = 0u64;
    let digests = texts?.iter().map(|text| {
        let tally = tally(Some(text));
        characters = characters.saturating_add(tally.characters.div_ceil(4) * 4);
        tally.digest
    });
    let digests = digests.collect();
    Some(Texts {
        characters,
        messages: 0,
        digests,
    })
}

/// Returns how many candidates a request to Gemini asks for.
pub(crate) fn candidates(fields: &Map<String, Value>) -> u64 {
    let config = either(fields, "generationConfig", "generation_config");
    let count = config.and_then(|config| config.get("candidateCount"));
    count.and_then(Value::as_u64).unwrap_or(1)
}

/// Returns the dimensions that a request to Gemini names.
pub(crate) fn dimensions(endpoint: Endpoint, fields: &Map<String, Value>) -> Option<u64> {
    let of = |value: &Value| {
        let nested = value.get("embedContentConfig").or(Some(value));
        nested?.get("outputDimensionality")?.as_u64()
    };
    match endpoint {
        Endpoint::EmbedContent => fields
            .get("outputDimensionality")
            .and_then(Value::as_u64)
            .or_else(|| fields.get("embedContentConfig").and_then(of)),
        Endpoint::BatchEmbed => array(fields, "requests")?.first().and_then(of),
        Endpoint::Predict => fields.get("parameters").and_then(of),
        _ => None,
    }
    .filter(|dimensions| *dimensions > 0)
}

/// Bytes in a second of speech as most clients record it: 16,000 samples of 16 bits.
const SECOND_BYTES: u64 = 32_000;

/// Returns the seconds of audio that a request brings, judged by the size of its file.
pub(crate) fn audio_seconds(endpoint: Endpoint, fields: &Map<String, Value>) -> u64 {
    let bytes = fields.get("file_bytes").and_then(Value::as_u64);
    match endpoint {
        Endpoint::Transcriptions => bytes.unwrap_or(0).div_ceil(SECOND_BYTES).max(1),
        _ => 0,
    }
}

/// Reads a form (`multipart/form-data`) of some fields and a file; the file is told by its first bytes and its length,
/// `file_bytes`.
pub(crate) fn form(content_type: Option<&str>, body: &[u8]) -> Option<Map<String, Value>> {
    let (_, boundary) = content_type?.split_once("boundary=")?;
    let boundary = boundary.split(';').next()?.trim().trim_matches('"');
    let delimiter = format!("--{boundary}");
    let mut fields = Map::new();
    let mut rest = &body[find(body, delimiter.as_bytes())? + delimiter.len()..];
    while let Some(end) = find(rest, delimiter.as_bytes()) {
        let part = &rest[..end];
        rest = &rest[end + delimiter.len()..];
        let Some(head) = find(part, b"\r\n\r\n") else {
            continue;
        };
        let (head, content) = (&part[..head], &part[head + 4..]);
        let content = content.strip_suffix(b"\r\n").unwrap_or(content);
        let head = String::from_utf8_lossy(head);
        let Some(name) = head
            .split_once(" name=\"")
            .and_then(|(_, rest)| rest.split('"').next())
        else {
            continue;
        };
        if name == "file" {
            fields.insert("file_bytes".to_owned(), Value::from(content.len() as u64));
        }
        let text = &content[..content.len().min(1 << 10)];
        let text = String::from_utf8_lossy(text).into_owned();
        let value = match text.as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => Value::String(text),
        };
        fields.insert(name.to_owned(), value);
    }
    fields.contains_key("file").then_some(fields)
}

fn find(within: &[u8], what: &[u8]) -> Option<usize> {
    within
        .windows(what.len().max(1))
        .position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read() {
        let body = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--b\r\nContent-Disposition: \
                    form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n0123\r\n--b--\r\n";
        let form = form(Some("multipart/form-data; boundary=b"), body.as_bytes()).unwrap();
        assert_eq!(
            (form["model"].as_str(), form["file_bytes"].as_u64()),
            (Some("whisper-1"), Some(4))
        );
        assert_eq!(super::form(Some("multipart/form-data"), b"x"), None);
        assert_eq!(super::form(Some("multipart/form-data; boundary=b"), b"--b"), None);
        assert_eq!(super::form(None, b""), None);
    }
}
