//! Which run of an agent a request belongs to: what the client says itself, or what its tools say for it.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::Deserialize;
use tidegate_core::{RunStep, Spent, TenantId};

use crate::admin::Names;
use crate::config::AccountHasher;
use crate::provider::{self, Asker, Endpoint, ErrorReply};

/// The run, by the client's own word.
pub(super) const RUN_ID: HeaderName = HeaderName::from_static("x-tidegate-run-id");
/// The run that started it, likewise.
const PARENT_RUN_ID: HeaderName = HeaderName::from_static("x-tidegate-parent-run-id");
/// What the run has used to 80 % or more.
pub(super) const RUN_WARNING: HeaderName = HeaderName::from_static("x-tidegate-run-warning");

/// The longest name of a run.
const NAME_BYTES_MAX: usize = 128;

/// The shortest value that a vendor's session header is believed with: shorter ones are counters and flags.
const VENDOR_BYTES_MIN: usize = 8;

/// LiteLLM's names, which its users' agents send already.
const LITELLM: [HeaderName; 2] = [
    HeaderName::from_static("x-litellm-trace-id"),
    HeaderName::from_static("x-litellm-session-id"),
];

/// Names that mean a run only when Codex uses them.
const CODEX: [HeaderName; 4] = [
    HeaderName::from_static("session-id"),
    HeaderName::from_static("session_id"),
    HeaderName::from_static("thread-id"),
    HeaderName::from_static("conversation_id"),
];

const SESSION_ID: HeaderName = HeaderName::from_static("x-session-id");
const PARENT_SESSION_ID: HeaderName = HeaderName::from_static("x-parent-session-id");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What a client calls one execution of its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunName {
    /// Its name.
    text: String,
    /// The name of the run that started it.
    parent: Option<String>,
}

/// What is remembered of a request's run, for headers and log.
#[derive(Debug)]
pub(super) struct RunTrace {
    /// What the client calls it.
    pub(super) name: String,
    /// What it calls the run that started it.
    pub(super) parent: Option<String>,
    /// What it has used to 80 % or more.
    pub(super) warning: Option<Spent>,
}

impl RunName {
    /// Finds the run that a request belongs to. What clients' tools say for them is looked for only where runs are
    /// limited: other requests pay for a single look.
    ///
    /// The order is LiteLLM's (clients.md §4.2), but for the trace: several runs may share one, and one that was started
    /// by a web request has the trace of that.
    ///
    /// # Errors
    ///
    /// Returns the answer for a name that cannot be one: whoever sets it relies on it. A tool's word that makes no sense
    /// counts as absent.
    pub(super) fn of(headers: &HeaderMap, body: &[u8], is_limited: bool) -> Result<Option<Self>, ErrorReply> {
        let own = explicit(headers, &RUN_ID)?;
        if own.is_none() && !is_limited {
            return Ok(None);
        }
        let found = match own {
            Some(name) => Some(name.to_owned()),
            None => in_headers(headers)
                .map(str::to_owned)
                .or_else(|| in_body(body))
                .or_else(|| in_baggage(headers).map(str::to_owned))
                .or_else(|| in_trace(headers).map(str::to_owned)),
        };
        let Some(text) = found else {
            return Ok(None);
        };
        let parent = match explicit(headers, &PARENT_RUN_ID)? {
            None if is_limited => parent_in(headers),
            parent => parent,
        };
        let parent = parent.filter(|parent| *parent != text).map(str::to_owned);
        Ok(Some(Self { text, parent }))
    }

    /// Returns the step that a request makes of this run.
    pub(super) fn step(&self, hasher: &AccountHasher, tenant: TenantId, fingerprint: Option<u64>) -> RunStep {
        RunStep {
            run: hasher.run(tenant, &self.text),
            parent: self.parent.as_deref().map(|parent| hasher.run(tenant, parent)),
            fingerprint,
        }
    }

    /// Keeps the names for the status page: the engine knows runs by their hashes.
    pub(super) fn note(&self, names: &Names, step: &RunStep) {
        names.note(step.run.value(), &self.text);
        if let (Some(id), Some(name)) = (step.parent, &self.parent) {
            names.note(id.value(), name);
        }
    }

    /// Returns what is remembered of it until the request ends.
    pub(super) fn into_trace(self) -> Box<RunTrace> {
        Box::new(RunTrace {
            name: self.text,
            parent: self.parent,
            warning: None,
        })
    }
}

impl RunTrace {
    /// Adds the run to who asks, for the words of a refusal.
    pub(super) fn asker<'a>(trace: Option<&'a Self>, asker: Asker<'a>) -> Asker<'a> {
        Asker {
            run: trace.map(|trace| trace.name.as_str()),
            parent: trace.and_then(|trace| trace.parent.as_deref()),
            ..asker
        }
    }

    /// Tells the client.
    pub(super) fn mark(&self, headers: &mut HeaderMap) {
        if let Ok(name) = HeaderValue::try_from(self.name.as_str()) {
            headers.insert(RUN_ID, name);
        }
        if let Some(warning) = &self.warning
            && let Ok(words) = HeaderValue::try_from(provider::in_short(warning, self.parent.as_deref()))
        {
            headers.insert(RUN_WARNING, words);
        }
    }
}

/// Returns the fingerprint of the step that a request makes. The same request again because the client's SDK tries again
/// is no repetition of its agent's.
pub(super) fn fingerprint(
    endpoint: Endpoint,
    model: Option<&str>,
    body: &[u8],
    client_retries: Option<u32>,
) -> Option<u64> {
    if client_retries.is_some_and(|retries| retries > 0) {
        return None;
    }
    provider::fingerprint(endpoint, model, body)
}

fn explicit<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ErrorReply> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let text = value.to_str().ok().and_then(sensible).ok_or_else(|| {
        ErrorReply::bad_request(&format!(
            "the header {name} must be 1 to {NAME_BYTES_MAX} printable ASCII characters"
        ))
    })?;
    Ok(Some(text))
}

/// Returns a text that can be a name.
fn sensible(text: &str) -> Option<&str> {
    let text = text.trim_ascii();
    let is_printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    (is_printable && (1..=NAME_BYTES_MAX).contains(&text.len())).then_some(text)
}

fn named<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    sensible(headers.get(name)?.to_str().ok()?)
}

fn in_headers(headers: &HeaderMap) -> Option<&str> {
    LITELLM
        .iter()
        .find_map(|name| named(headers, name))
        .or_else(|| {
            of_vendor(headers, |vendor| {
                vendor != "parent" && !vendor.ends_with("-parent")
            })
        })
        .or_else(|| {
            let agent = headers.get(header::USER_AGENT)?.to_str().ok()?;
            let is_codex = agent
                .get(..5)
                .is_some_and(|start| start.eq_ignore_ascii_case("codex"));
            is_codex.then(|| CODEX.iter().find_map(|name| named(headers, name)))?
        })
        .or_else(|| named(headers, &SESSION_ID))
}

fn parent_in(headers: &HeaderMap) -> Option<&str> {
    named(headers, &PARENT_SESSION_ID).or_else(|| of_vendor(headers, |vendor| vendor.ends_with("-parent")))
}

/// Finds `x-{vendor}-session-id`. Of several, the first in the order of the alphabet: that of a map means nothing.
fn of_vendor(headers: &HeaderMap, is_meant: impl Fn(&str) -> bool) -> Option<&str> {
    let believable = |value: &str| {
        value.len() >= VENDOR_BYTES_MIN
            && value
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    headers
        .iter()
        .filter_map(|(name, value)| {
            let vendor = name.as_str().strip_prefix("x-")?.strip_suffix("-session-id")?;
            let value = sensible(value.to_str().ok()?)?;
            (is_meant(vendor) && believable(value)).then_some((vendor, value))
        })
        .min_by_key(|(vendor, _)| *vendor)
        .map(|(_, value)| value)
}

/// Reads `metadata.session_id`, and what Claude's tools put into `metadata.user_id`.
fn in_body(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
    }

    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow, default)]
        session_id: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        user_id: Option<Cow<'a, str>>,
    }

    let Body { metadata } = serde_json::from_slice(body).ok()?;
    let session = metadata.session_id.as_deref().and_then(sensible);
    let of_user = || {
        let (_, session) = metadata.user_id.as_deref()?.rsplit_once("_session_")?;
        sensible(session)
    };
    session.or_else(of_user).map(str::to_owned)
}

/// Reads `session.id` of W3C's baggage: entries between commas, each with properties after semicolons.
fn in_baggage(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(BAGGAGE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .find_map(|entry| {
            let (key, value) = entry.split(';').next()?.split_once('=')?;
            (key.trim() == "session.id").then(|| sensible(value))?
        })
}

/// Reads the trace of W3C's `traceparent`: `00-{32 digits}-{16 digits}-{2 digits}`.
fn in_trace(headers: &HeaderMap) -> Option<&str> {
    const LENGTHS: [usize; 4] = [2, 32, 16, 2];
    let text = headers.get(TRACEPARENT)?.to_str().ok()?.trim();
    let mut parts = text.split('-');
    let mut trace = None;
    for (at, length) in LENGTHS.into_iter().enumerate() {
        let part = parts.next()?;
        let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_void = at != 3 && at != 0 && part.bytes().all(|byte| byte == b'0');
        if part.len() != length || !is_hex || is_void || (at == 0 && part == "ff") {
            return None;
        }
        if at == 1 {
            trace = Some(part);
        }
    }
    trace
}

#[cfg(test)]
mod tests;
