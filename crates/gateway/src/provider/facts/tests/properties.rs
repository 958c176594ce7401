//! What holds for every body.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::changes::{capped, ensure_usage};
use super::*;

/// Any JSON value of bounded size.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("content".to_owned()),
        Just("source".to_owned()),
        Just("image_url".to_owned()),
        Just("include_usage".to_owned()),
        Just("input".to_owned()),
        Just("type".to_owned()),
        Just("text".to_owned()),
        Just("inlineData".to_owned()),
        Just("bytes".to_owned()),
        Just("maxOutputTokens".to_owned()),
        Just("maxTokens".to_owned()),
        "\\PC{0,4}",
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key.clone(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

const KEYS: [&str; 18] = [
    "max_completion_tokens",
    "generationConfig",
    "inferenceConfig",
    "contents",
    "systemInstruction",
    "chat_history",
    "requests",
    "texts",
    "model",
    "messages",
    "input",
    "prompt",
    "tools",
    "system",
    "max_tokens",
    "n",
    "stream_options",
    "other",
];

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..300), json in r#"[\[\]{}:,"\\a-fnrtu0-9.eE+ -]{0,200}"#) {
        for endpoint in [Endpoint::ChatCompletions, Endpoint::Embeddings, Endpoint::Messages] {
            let _ = RequestFacts::read(endpoint, &body);
            let _ = RequestFacts::read(endpoint, json.as_bytes());
        }
    }

    #[test]
    fn every_object_is_read_and_asking_for_usage_changes_nothing_else(
        values in proptest::collection::vec(any_json(), KEYS.len()),
        present in any::<u32>(),
        pretty in any::<bool>(),
    ) {
        let mut object = serde_json::Map::new();
        for (at, (key, value)) in KEYS.into_iter().zip(values).enumerate() {
            if present & (1 << at) != 0 {
                object.insert(key.into(), value);
            }
        }
        object.insert("stream".into(), true.into());
        let mut before = Value::Object(object);
        let body = if pretty { serde_json::to_string_pretty(&before) } else { serde_json::to_string(&before) }.unwrap();
        let facts = RequestFacts::read(Endpoint::ChatCompletions, body.as_bytes()).unwrap();
        let body = Bytes::from(body);
        if let Some(changed) = ensure_usage(&body, &facts) {
            prop_assert!(!facts.usage_asked);
            let after: Value = serde_json::from_slice(&changed).unwrap();
            if before["stream_options"].is_null() {
                before["stream_options"] = json!({});
            }
            before["stream_options"]["include_usage"] = true.into();
            // Through text once, so that floats took the same way.
            let before: Value = serde_json::from_str(&before.to_string()).unwrap();
            prop_assert_eq!(after, before);
            prop_assert!(RequestFacts::read(Endpoint::ChatCompletions, &changed).unwrap().usage_asked);
        }
    }

    #[test]
    fn capping_leaves_everything_else_as_it_is(
        values in proptest::collection::vec(any_json(), KEYS.len()),
        present in any::<u32>(),
        config in proptest::option::of(proptest::option::of(0_u64..300)),
        max in proptest::option::of(0_u64..300),
        endpoint in proptest::sample::select(&Endpoint::ALL[..]),
        provider in proptest::sample::select(&Provider::ALL[..]),
    ) {
        let mut object = serde_json::Map::new();
        for (at, (key, value)) in KEYS.into_iter().zip(values).enumerate() {
            if present & (1 << at) != 0 {
                object.insert(key.into(), value);
            }
        }
        if let Some(config) = config {
            object.insert("generationConfig".into(), json!({"maxOutputTokens": config, "topP": 1}));
        }
        if let Some(max) = max {
            object.insert("max_tokens".into(), max.into());
        }
        let body = Value::Object(object).to_string();
        let (text, output_max, facts) = capped(endpoint, provider, &body, 100);
        let again = read(endpoint, &text);
        prop_assert_eq!(again.max_output, facts.max_output);
        if output_max.is_some() {
            prop_assert!(endpoint.generates());
            prop_assert!(again.max_output <= Some(Tokens::new(100)));
            let unchanged = capped(endpoint, provider, &text, 100);
            prop_assert_eq!(unchanged.1, None, "once is enough");
        } else {
            prop_assert_eq!(text, body);
        }
    }

    #[test]
    fn no_character_of_a_message_is_missed(texts in proptest::collection::vec("\\PC{0,50}", 0..6)) {
        let messages: Vec<_> = texts.iter().map(|text| json!({"role": "user", "content": text})).collect();
        let body = json!({ "messages": messages }).to_string();
        let characters: usize = texts.iter().map(|text| text.chars().count()).sum();
        let text = read(Endpoint::ChatCompletions, &body).text;
        prop_assert_eq!(text.characters, characters as u64);
        prop_assert_eq!(text.messages, texts.len() as u64);
    }
}
