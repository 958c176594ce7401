//! From the text of a file to a [`RawConfig`]: everything that is wrong with its form is said at once.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value as Json;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::check::{Finding, Findings};
use super::field::Origin;
use super::problem::{ConfigError, nearest};
use super::{RawConfig, schema};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Keys that people look for under another name.
const OTHER_NAMES: [(&str, &str); 32] = [
    ("requests_per_minute", "rpm"),
    ("tokens_per_minute", "tpm"),
    ("max_parallel_requests", "concurrent"),
    ("concurrency", "concurrent"),
    ("max_concurrent", "concurrent"),
    ("url", "base_url"),
    ("api_base", "base_url"),
    ("key", "api_key"),
    ("model", "models"),
    ("type", "provider"),
    ("host", "listen"),
    ("port", "listen"),
    ("max_budget", "dollars_per_month"),
    ("budget", "dollars_per_month"),
    ("budget", "dollars"),
    ("cost", "dollars"),
    ("max_calls", "calls"),
    ("max_steps", "calls"),
    ("max_tokens", "tokens"),
    ("max_depth", "depth"),
    ("max_iterations", "calls"),
    ("timeout", "time"),
    ("allowed_models", "models"),
    ("api_key", "key"),
    ("api_keys", "keys"),
    ("path", "paths"),
    ("operation", "operations"),
    ("url", "redis"),
    ("redis_url", "redis"),
    ("host", "redis"),
    ("tls_ca", "ca_file"),
    ("master", "sentinel"),
];

/// Reads a file's text. It is wiped from memory when dropped, because keys may stand in it.
///
/// # Errors
///
/// Returns an error if the file cannot be read, is too large, or is not UTF-8.
pub(super) fn text(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            max: FILE_BYTES_MAX,
        });
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(error) => Err(ConfigError::NotUtf8 {
            path: path.to_owned(),
            line: 1 + bytes
                .iter()
                .take(error.valid_up_to())
                .filter(|byte| **byte == b'\n')
                .count(),
        }),
    }
}

/// Reads what a file says. What is wrong with its form goes to `findings`; the rest is read all the same.
pub(super) fn raw(text: &str, findings: &mut Findings) -> RawConfig {
    let (mut document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        // Only the message: the error as a whole shows the line it stands in, and a key may stand there.
        let origin = error.span().map_or(Origin::Nowhere, Origin::File);
        findings.push(Finding::new(&origin, error.message().replace('\n', ", ")));
    }
    if !errors.is_empty() {
        return RawConfig::default();
    }
    let schema = schema::schema();
    let mut form = Form {
        schema: schema.as_value(),
        findings,
    };
    form.table(document.get_mut(), schema.as_value(), "");
    match RawConfig::deserialize(toml::Deserializer::from(document)) {
        Ok(raw) => raw,
        Err(error) => {
            let origin = error.span().map_or(Origin::Nowhere, Origin::File);
            findings.push(Finding::new(&origin, "this cannot be read".to_owned()));
            RawConfig::default()
        }
    }
}

/// Compares a document's form with the schema, and takes out of it what does not fit.
struct Form<'a> {
    schema: &'a Json,
    findings: &'a mut Findings,
}

impl Form<'_> {
    fn table(&mut self, table: &mut DeTable<'_>, schema: &Json, path: &str) {
        let Some(known) = schema.get("properties").and_then(Json::as_object) else {
            return;
        };
        let mut misplaced = Vec::new();
        for (key, value) in table.iter_mut() {
            let name = key.get_ref().as_ref();
            let Some(expected) = known.get(name) else {
                let origin = Origin::File(key.span());
                self.findings
                    .push(unknown(&origin, name, path, known.keys().map(String::as_str)));
                misplaced.push(key.clone());
                continue;
            };
            let path = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            };
            if !self.value(value, expected, &path) {
                misplaced.push(key.clone());
            }
        }
        for key in misplaced {
            table.remove(&key);
        }
    }

    /// Returns whether the value may stay.
    fn value(&mut self, value: &mut toml::Spanned<DeValue<'_>>, expected: &Json, path: &str) -> bool {
        let expected = self.resolve(expected);
        let items = expected.get("items").map(|items| self.resolve(items));
        let origin = Origin::File(value.span());
        let wants_table = expected.get("properties").is_some();
        let wants_tables = items
            .as_ref()
            .is_some_and(|items| items.get("properties").is_some());
        match value.get_mut() {
            DeValue::Table(table) if wants_table => self.table(table, &expected, path),
            DeValue::Array(array) if wants_tables => {
                let items = items.unwrap_or_default();
                for (index, item) in array.iter_mut().enumerate() {
                    let origin = Origin::File(item.span());
                    let DeValue::Table(table) = item.get_mut() else {
                        self.findings.push(not_a_table(&origin, path, "[["));
                        return false;
                    };
                    self.table(table, &items, &format!("{path}[{index}]"));
                }
            }
            _ if wants_table => {
                self.findings.push(not_a_table(&origin, path, "["));
                return false;
            }
            _ if wants_tables => {
                self.findings.push(not_a_table(&origin, path, "[["));
                return false;
            }
            DeValue::Integer(number) if i64::from_str_radix(number.as_str(), number.radix()).is_err() => {
                let finding = Finding::new(&origin, format!("`{path}` is too large a number"));
                self.findings
                    .push(finding.help("write a smaller one, or leave the key out"));
                return false;
            }
            _ => {}
        }
        true
    }

    fn resolve(&self, schema: &Json) -> Json {
        let target = schema
            .get("$ref")
            .and_then(Json::as_str)
            .and_then(|reference| reference.strip_prefix('#'))
            .and_then(|pointer| self.schema.pointer(pointer));
        target.unwrap_or(schema).clone()
    }
}

fn not_a_table(origin: &Origin, path: &str, open: &str) -> Finding {
    let last = path.split('[').next().unwrap_or(path);
    let close = if open == "[" { "]" } else { "]]" };
    Finding::new(origin, format!("`{path}` must be a section"))
        .help(&format!("begin it with {open}{last}{close} on a line of its own"))
}

fn unknown<'a>(
    origin: &Origin,
    name: &str,
    path: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Finding {
    let shown: String = name.chars().take(40).collect();
    let place = if path.is_empty() {
        String::new()
    } else {
        format!(" in `{path}`")
    };
    let finding = Finding::new(origin, format!("unknown key `{shown}`{place}"));
    let other = OTHER_NAMES
        .iter()
        .find(|(other, name)| *other == shown && known.clone().any(|key| key == *name));
    let meant = other
        .map(|(_, name)| *name)
        .or_else(|| nearest(&shown, known.clone()));
    match meant {
        Some(meant) => finding.help(&format!("did you mean `{meant}`?")),
        None => finding.help(&format!(
            "the keys here are: {}",
            known.collect::<Vec<_>>().join(", ")
        )),
    }
}
