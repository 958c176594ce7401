//! The few strings of an error body that matter, found without building it.
//!
//! Bodies may be cut off, wrapped in an array or not be JSON at all: what can be read is read, in one pass.

use alloc::string::String;
use alloc::vec::Vec;

/// The most violations of quotas that are read from one body.
pub(super) const VIOLATIONS_MAX: usize = 4;

/// The longest text that is no JSON and is taken for the message.
const PLAIN_MESSAGE_MAX: usize = 512;

/// What an error body says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ErrorFields {
    /// `error.type`, or `type` where there is no `error` object.
    pub kind: String,
    /// `error.code`, or `code`; a number as its digits.
    pub code: String,
    /// `error.status` (Gemini), which is a word.
    pub status: String,
    /// `error.message`, or `message`, or `error` itself where that is a text, or the body where it is no JSON.
    pub message: String,
    /// `error_code`, wherever it stands (Anthropic's `error.details.error_code`).
    pub detail: String,
    /// `__type` (AWS).
    pub exception: String,
    /// `retryDelay` of Gemini's `RetryInfo`.
    pub retry_delay: String,
    /// The violations of Gemini's `QuotaFailure`, as far as there is room.
    pub violations: [Violation; VIOLATIONS_MAX],
    /// What OpenRouter says beside its message.
    pub metadata: Metadata,
}

/// One quota that Gemini refused by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Violation {
    /// `quotaMetric`.
    pub metric: String,
    /// `quotaId`.
    pub id: String,
    /// `quotaValue`.
    pub value: String,
}

/// `error.metadata` of OpenRouter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Metadata {
    /// `provider_name`: whom the refusal comes from, if not from OpenRouter itself.
    pub provider: String,
    /// `raw`: what that one said, where it is a text.
    pub raw: String,
    /// `limit_source`.
    pub limit_source: String,
    /// `headers.X-RateLimit-Limit`.
    pub limit: String,
    /// `headers.X-RateLimit-Remaining`.
    pub remaining: String,
    /// `headers.X-RateLimit-Reset`.
    pub reset: String,
}

impl ErrorFields {
    /// Reads an error body, or its beginning.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut fields = Self::default();
        let mut violations = 0;
        let mut has_entries = false;
        let mut scan = Scan::new(body);
        while let Some(entry) = scan.next_entry() {
            has_entries = true;
            if entry.place == Place::Top && entry.key == b"error" && entry.is_text {
                fields.message = unescape(entry.value);
                continue;
            }
            let Some(field) = fields.field(&entry, &mut violations) else {
                continue;
            };
            if entry.value != b"null" {
                *field = unescape(entry.value);
            }
        }
        if !has_entries {
            fields.message = plain_message(body);
        }
        fields
    }

    /// Returns the field that an entry fills.
    fn field(&mut self, entry: &Entry<'_>, violations: &mut usize) -> Option<&mut String> {
        Some(match entry.key {
            b"type" => return entry.own(&mut self.kind),
            b"code" => return entry.own(&mut self.code),
            b"message" | b"Message" => return entry.own(&mut self.message),
            b"status" if entry.place == Place::Error => &mut self.status,
            b"error_code" => &mut self.detail,
            b"__type" => &mut self.exception,
            b"retryDelay" => &mut self.retry_delay,
            b"quotaMetric" => &mut self.violation(violations, |own| &own.metric)?.metric,
            b"quotaId" => &mut self.violation(violations, |own| &own.id)?.id,
            b"quotaValue" => &mut self.violation(violations, |own| &own.value)?.value,
            b"provider_name" => &mut self.metadata.provider,
            b"raw" if entry.is_text => &mut self.metadata.raw,
            b"limit_source" => &mut self.metadata.limit_source,
            key if key.eq_ignore_ascii_case(b"x-ratelimit-limit") => &mut self.metadata.limit,
            key if key.eq_ignore_ascii_case(b"x-ratelimit-remaining") => &mut self.metadata.remaining,
            key if key.eq_ignore_ascii_case(b"x-ratelimit-reset") => &mut self.metadata.reset,
            _ => return None,
        })
    }

    /// Returns the violation that is being read: the next one, if this one has the field already.
    fn violation(
        &mut self,
        read: &mut usize,
        field: impl Fn(&Violation) -> &String,
    ) -> Option<&mut Violation> {
        if !field(self.violations.get(*read)?).is_empty() {
            *read += 1;
        }
        self.violations.get_mut(*read)
    }
}

/// Returns a short text that is neither JSON nor markup as it is (`Slow Down`).
fn plain_message(body: &[u8]) -> String {
    let text = body.trim_ascii();
    if text.first().is_none_or(|first| b"{[<\"".contains(first)) {
        return String::new();
    }
    String::from_utf8_lossy(&text[..text.len().min(PLAIN_MESSAGE_MAX)]).into_owned()
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the outermost object.
    Top,
    /// In the object called `error`.
    Error,
    /// Elsewhere.
    Deep,
}

/// One `"key": value` whose value is a text or a bare word.
struct Entry<'a> {
    key: &'a [u8],
    value: &'a [u8],
    is_text: bool,
    place: Place,
}

impl Entry<'_> {
    /// Returns the field if the entry may fill it: what the error object says wins over what surrounds it.
    fn own<'f>(&self, field: &'f mut String) -> Option<&'f mut String> {
        let fills = match self.place {
            Place::Error => true,
            Place::Top => field.is_empty(),
            Place::Deep => false,
        };
        fills.then_some(field)
    }
}

/// Goes through the entries of a JSON text, whatever their nesting; counts brackets instead of building a stack.
struct Scan<'a> {
    body: &'a [u8],
    at: usize,
    depth: usize,
    /// The depth of the outermost object; later ones there are not looked for.
    top: Option<usize>,
    /// The depth of the object called `error`, while inside it.
    error: Option<usize>,
    key: Option<&'a [u8]>,
}

impl<'a> Scan<'a> {
    fn new(body: &'a [u8]) -> Self {
        Self {
            body,
            at: 0,
            depth: 0,
            top: None,
            error: None,
            key: None,
        }
    }

    fn next_entry(&mut self) -> Option<Entry<'a>> {
        loop {
            match *self.body.get(self.at)? {
                b'"' => {
                    let text = self.text();
                    self.skip_space();
                    if self.body.get(self.at) == Some(&b':') {
                        self.at += 1;
                        self.key = Some(text);
                    } else if let Some(entry) = self.entry(text, true) {
                        return Some(entry);
                    }
                }
                b'{' | b'[' => self.open(),
                b'}' | b']' => self.close(),
                byte if byte.is_ascii_alphanumeric() || byte == b'-' => {
                    let word = self.word();
                    if let Some(entry) = self.entry(word, false) {
                        return Some(entry);
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    fn entry(&mut self, value: &'a [u8], is_text: bool) -> Option<Entry<'a>> {
        let key = self.key.take()?;
        let place = if self.error == Some(self.depth) {
            Place::Error
        } else if self.top == Some(self.depth) {
            Place::Top
        } else {
            Place::Deep
        };
        Some(Entry {
            key,
            value,
            is_text,
            place,
        })
    }

    fn open(&mut self) {
        let object = self.body[self.at] == b'{';
        self.at += 1;
        self.depth += 1;
        let key = self.key.take();
        if object {
            self.top.get_or_insert(self.depth);
            if key == Some(b"error") {
                self.error.get_or_insert(self.depth);
            }
        }
    }

    fn close(&mut self) {
        if self.error == Some(self.depth) {
            self.error = None;
        }
        self.at += 1;
        self.depth = self.depth.saturating_sub(1);
        self.key = None;
    }

    /// Takes the text whose opening quote is next, without its quotes; up to the end if it is cut off.
    fn text(&mut self) -> &'a [u8] {
        let start = self.at + 1;
        let mut at = start;
        while let Some(&byte) = self.body.get(at) {
            match byte {
                b'"' => break,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        let end = at.min(self.body.len());
        self.at = end.saturating_add(1).min(self.body.len());
        &self.body[start.min(end)..end]
    }

    fn word(&mut self) -> &'a [u8] {
        let rest = &self.body[self.at..];
        let len = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric() || b"-+.".contains(byte))
            .count();
        self.at += len.max(1);
        &rest[..len]
    }

    fn skip_space(&mut self) {
        while self.body.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }
}

/// Resolves the escapes of a JSON text; what is no proper escape or not UTF-8 becomes U+FFFD.
fn unescape(raw: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let Some((&kind, after)) = rest.split_first() else {
            break;
        };
        rest = after;
        let char = match kind {
            b'n' => '\n',
            b't' => '\t',
            b'r' => '\r',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => unicode(&mut rest),
            other => {
                bytes.push(other);
                continue;
            }
        };
        bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Takes the digits of `\uXXXX`, and of a second such escape if the first is the high half of a pair.
fn unicode(rest: &mut &[u8]) -> char {
    let Some(unit) = hex4(rest) else {
        return char::REPLACEMENT_CHARACTER;
    };
    *rest = &rest[4..];
    if !(0xd800..0xdc00).contains(&unit) {
        return char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
    }
    let low = rest
        .strip_prefix(b"\\u")
        .and_then(hex4)
        .filter(|low| (0xdc00..0xe000).contains(low));
    let Some(low) = low else {
        return char::REPLACEMENT_CHARACTER;
    };
    *rest = &rest[6..];
    char::from_u32(0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn hex4(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4)?.iter().try_fold(0, |value, byte| {
        Some(value * 16 + char::from(*byte).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::prelude::*;

    use super::*;

    fn check(body: &str, expect: [&str; 4]) {
        let fields = ErrorFields::read(body.as_bytes());
        assert_eq!(
            [&*fields.kind, &*fields.code, &*fields.message, &*fields.detail],
            expect,
            "{body}"
        );
    }

    #[test]
    fn bodies() {
        check(
            r#"{"error":{"message":"m","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
            ["tokens", "rate_limit_exceeded", "m", ""],
        );
        check(
            r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","details":{"error_code":"d","message":"x"}},"request_id":"req_1"}"#,
            ["rate_limit_error", "", "m", "d"],
        );
        check(
            r#"{"object":"error","message":"m","type":"rate_limited","param":null,"code":"1300","raw_status_code":429}"#,
            ["rate_limited", "1300", "m", ""],
        );
        check(
            r#"[{"error": {"code": 429, "message": "m", "details": [{"code": "x"}]}}]"#,
            ["", "429", "m", ""],
        );
        check(r#"{"error":"just text","code":null}"#, ["", "", "just text", ""]);
        check(
            r#"{"message":"outer","error":{"message":"inner"},"type":"t"}"#,
            ["t", "", "inner", ""],
        );
        check(r#"{"error":{"message":"cut o"#, ["", "", "cut o", ""]);
        check(r#"{"error":{"message":"cut \"#, ["", "", "cut ", ""]);
        check(r#"{"error":{"message":"#, ["", "", "", ""]);
        check(" Slow Down\n", ["", "", "Slow Down", ""]);
        check("<html>429</html>", ["", "", "", ""]);
        check("\"text\"", ["", "", "", ""]);
        check("{", ["", "", "", ""]);
        check("", ["", "", "", ""]);
        check(
            r#"{"error":{"message":"a\"b\\c\nd \u00b5s \ud83d\ude00 \ud83d \uZZZZ \/"}}"#,
            ["", "", "a\"b\\c\nd µs 😀 \u{fffd} \u{fffd}ZZZZ /", ""],
        );
    }

    #[test]
    fn violations_are_kept_apart() {
        let check = |body: &str, expect: &[[&str; 3]]| {
            let fields = ErrorFields::read(body.as_bytes());
            let read: Vec<[&str; 3]> = fields
                .violations
                .iter()
                .filter(|violation| **violation != Violation::default())
                .map(|violation| [&*violation.metric, &*violation.id, &*violation.value])
                .collect();
            assert_eq!(read, expect, "{body}");
        };
        check(
            r#"{"error":{"details":[{"violations":[
                {"quotaMetric":"m1","quotaId":"i1","quotaDimensions":{"model":"x"},"quotaValue":"1"},
                {"quotaId":"i2","quotaMetric":"m2","quotaValue":2},
                {"quotaMetric":"m3","quotaId":"i3"},
                {"quotaMetric":"m4","quotaId":"i4","quotaValue":"4"},
                {"quotaMetric":"m5","quotaId":"i5","quotaValue":"5"}]}]}}"#,
            &[
                ["m1", "i1", "1"],
                ["m2", "i2", "2"],
                ["m3", "i3", ""],
                ["m4", "i4", "4"],
            ],
        );
        check(r#"{"quotaId":"i","quotaValue":"#, &[["", "i", ""]]);
        check(r#"{"quotaId":null,"quotaValue":null}"#, &[]);
    }

    #[test]
    fn what_stands_beside_the_message() {
        let fields = ErrorFields::read(
            br#"{"__type":"a#B","error":{"status":"S","details":[{"retryDelay":"26s"}],"metadata":{"provider_name":"P",
                "raw":"r","limit_source":"l","headers":{"X-RateLimit-Limit":"1","x-ratelimit-remaining":2,"X-RateLimit-Reset":"3"}}},
                "status":"outer"}"#,
        );
        let metadata = &fields.metadata;
        assert_eq!(
            [
                &*fields.exception,
                &*fields.status,
                &*fields.retry_delay,
                &*metadata.provider,
                &*metadata.raw,
                &*metadata.limit_source,
                &*metadata.limit,
                &*metadata.remaining,
                &*metadata.reset,
            ],
            ["a#B", "S", "26s", "P", "r", "l", "1", "2", "3"]
        );
        let structured = ErrorFields::read(br#"{"error":{"metadata":{"raw":{"error":{"code":1}}}}}"#);
        assert_eq!(structured.metadata, Metadata::default());
    }

    #[test]
    fn deep_nesting_is_only_counted() {
        let body = format!("{}{}", "[".repeat(100_000), r#"{"error":{"code":"c"}}"#);
        check(&body, ["", "c", "", ""]);
    }

    proptest! {
        #[test]
        fn nothing_panics(body in proptest::collection::vec(any::<u8>(), 0..200), json in r#"[\[\]{}:,"\\a-eu0-9 ]{0,200}"#) {
            let _ = ErrorFields::read(&body);
            let _ = ErrorFields::read(json.as_bytes());
        }

        #[test]
        fn messages_round_trip(message in "\\PC{0,60}") {
            let escaped = message.replace('\\', "\\\\").replace('"', "\\\"");
            let body = format!(r#"{{"error":{{"message":"{escaped}","code":"c"}}}}"#);
            let fields = ErrorFields::read(body.as_bytes());
            prop_assert_eq!(fields.message, message);
            prop_assert_eq!(fields.code, "c");
        }
    }
}
