//! The schema of the configuration file, and the reference that is written from it.

use std::fmt::Write;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::Value as Json;

use super::RawConfig;

/// Returns the JSON schema of the configuration file.
pub fn schema() -> Schema {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<RawConfig>()
}

/// Returns the reference of the configuration file as Markdown.
pub fn reference() -> String {
    let schema = schema();
    let root = schema.as_value();
    let mut page = String::from(
        "# Configuration\n\n\
         Written from the program (`make bless`); `tidegate schema` prints the same as a JSON schema, and\n\
         `tidegate check --config FILE` says what is wrong with a file.\n\n\
         Lengths of time are texts with a unit: `\"500ms\"`, `\"60s\"`, `\"10m\"`, `\"1h30m\"`, `\"1d\"`. Numbers of bytes are\n\
         numbers, or texts such as `\"64KiB\"` and `\"32MiB\"`. A key is best written as `\"env:NAME\"`: the environment\n\
         variable of that name is read when the configuration is.\n",
    );
    let sections = [
        ("[server]", "Server"),
        ("[[upstreams]]", "Upstream"),
        ("[[upstreams.limits]]", "Limits"),
        ("[[tenants]]", "Tenant"),
        ("[[routes]]", "Route"),
        ("[priorities]", "Priorities"),
        ("[runs]", "Runs"),
        ("[[prices]]", "Price"),
        ("[store]", "Store"),
        ("[retry]", "Retry"),
    ];
    for (title, name) in sections {
        let Some(section) = root.pointer(&format!("/$defs/{name}")) else {
            continue;
        };
        let _ = write!(page, "\n## `{title}`\n\n{}\n\n", text(section, "description"));
        page.push_str("| Key | Type | Default | Meaning |\n|---|---|---|---|\n");
        for (key, field) in section
            .get("properties")
            .and_then(Json::as_object)
            .into_iter()
            .flatten()
        {
            if field.pointer("/items/$ref").is_some() {
                continue;
            }
            let default = field
                .get("default")
                .map(|default| format!("`{default}`"))
                .unwrap_or_default();
            let _ = writeln!(
                page,
                "| `{key}` | {} | {default} | {} |",
                kind(field),
                text(field, "description")
            );
        }
    }
    page
}

fn text(schema: &Json, key: &str) -> String {
    schema
        .get(key)
        .and_then(Json::as_str)
        .unwrap_or_default()
        .replace('\n', " ")
}

fn kind(field: &Json) -> String {
    if let Some(words) = field.get("enum").and_then(Json::as_array) {
        return words
            .iter()
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    let pattern = field.get("pattern").and_then(Json::as_str).unwrap_or_default();
    match field.get("type") {
        Some(Json::Array(_)) => "bytes",
        Some(Json::String(kind)) if kind == "integer" => "number",
        Some(Json::String(kind)) if kind == "array" => "texts",
        Some(Json::String(kind)) if kind == "number" => "fraction",
        Some(Json::String(kind)) if kind == "boolean" => "true or false",
        _ if pattern.is_empty() => "text",
        _ => "time",
    }
    .to_owned()
}
