//! The same step has the same fingerprint, another has another, and no body does harm.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn of(endpoint: Endpoint, body: &str) -> Option<u64> {
    fingerprint(endpoint, Some("m"), body.as_bytes())
}

/// Checks that all bodies of a row are the same step, and those of different rows are not.
fn check(endpoint: Endpoint, rows: &[&[String]]) {
    let mut seen = Vec::new();
    for row in rows {
        let first = of(endpoint, &row[0]);
        assert!(first.is_some(), "{endpoint:?}: {}", row[0]);
        for body in *row {
            assert_eq!(of(endpoint, body), first, "{endpoint:?}: {body} and {}", row[0]);
        }
        assert!(!seen.contains(&first), "{endpoint:?}: {}", row[0]);
        seen.push(first);
    }
}

/// A chat whose model called these tools, by identifier, name and arguments, and was told a result.
fn chat(calls: &[(&str, &str, &str)], result: &str) -> String {
    let calls: Vec<_> = calls
        .iter()
        .map(|(id, name, arguments)| {
            json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
        })
        .collect();
    let messages = json!([
        { "role": "user", "content": "How high is the tide?" },
        { "role": "assistant", "content": null, "tool_calls": calls },
        { "role": "tool", "tool_call_id": "x", "content": result },
    ]);
    json!({ "model": "gpt-4o", "messages": messages }).to_string()
}

#[test]
fn calls_of_chats_count_by_name_and_arguments() {
    check(
        Endpoint::ChatCompletions,
        &[
            &[
                chat(&[("a", "tide", r#"{"at":"Brest","day":1}"#)], "4 m"),
                chat(&[("b", "tide", r#"{"at":"Brest","day":1}"#)], "5 m"),
                chat(&[("c", "tide", r#" { "day" : 1, "at" : "Brest" } "#)], ""),
            ],
            &[chat(&[("a", "tide", r#"{"at":"Brest","day":2}"#)], "4 m")],
            &[chat(&[("a", "tide", r#"{"at":"Brest","day":"1"}"#)], "4 m")],
            &[chat(&[("a", "wind", r#"{"at":"Brest","day":1}"#)], "4 m")],
            // Text that is no JSON counts as it is.
            &[
                chat(&[("a", "tide", "Brest")], ""),
                chat(&[("b", "tide", "Brest")], ""),
            ],
            &[chat(&[("a", "tide", "Brest ")], "")],
            &[chat(&[("a", "tide", "")], "")],
            &[chat(&[("a", "tide", "{}")], "")],
            // Several calls in their order.
            &[chat(&[("a", "tide", "{}"), ("b", "wind", "{}")], "")],
            &[chat(&[("a", "wind", "{}"), ("b", "tide", "{}")], "")],
        ],
    );
}

#[test]
fn a_ping_pong_is_two_steps_over_and_over() {
    let step = |tool: &str, turns: usize| {
        let mut messages = vec![json!({ "role": "user", "content": "go" })];
        for turn in 0..turns {
            let before = if turn % 2 == 0 { "ping" } else { "pong" };
            let call = json!([{ "id": turn, "function": { "name": before, "arguments": "{}" } }]);
            messages.push(json!({ "role": "assistant", "tool_calls": call }));
            messages.push(json!({ "role": "tool", "content": format!("result {turn}") }));
        }
        let call = json!([{ "id": "last", "function": { "name": tool, "arguments": "{}" } }]);
        messages.push(json!({ "role": "assistant", "tool_calls": call }));
        json!({ "messages": messages }).to_string()
    };
    check(
        Endpoint::ChatCompletions,
        &[
            &[step("ping", 0), step("ping", 2), step("ping", 8)],
            &[step("pong", 1), step("pong", 3), step("pong", 9)],
        ],
    );
}

#[test]
fn without_calls_the_prompt_is_the_step() {
    let prompt =
        |messages: Value| json!({ "model": "m", "messages": messages, "temperature": 1 }).to_string();
    let user = json!({ "role": "user", "content": "Hello" });
    check(
        Endpoint::ChatCompletions,
        &[
            &[
                prompt(json!([user])),
                r#"{"messages":[ {"content" : "Hello", "role":"user"}]}"#.to_owned(),
            ],
            &[prompt(json!([{ "role": "user", "content": "Hello " }]))],
            &[prompt(json!([user, user]))],
            &[prompt(json!([user, { "role": "assistant", "content": "Hi" }]))],
            // What the model called before it last spoke is over.
            &[prompt(json!([
                { "role": "assistant", "tool_calls": [{ "function": { "name": "tide", "arguments": "{}" } }] },
                { "role": "assistant", "content": "Hi", "tool_calls": null },
                user,
            ]))],
            &[prompt(json!([{ "role": "assistant", "tool_calls": [] }, user]))],
        ],
    );
    let body = prompt(json!([user]));
    let of_model = |model| fingerprint(Endpoint::ChatCompletions, model, body.as_bytes());
    assert_ne!(of_model(Some("a")), of_model(Some("b")));
    assert_ne!(of_model(Some("a")), of_model(None));
    let with_system = |system: &str| {
        let body = format!(r#"{{"system":"{system}","messages":[{{"role":"user","content":"Go"}}]}}"#);
        of(Endpoint::Messages, &body)
    };
    assert_ne!(with_system("plan"), with_system("act"), "two agents of one run");
    check(
        Endpoint::Completions,
        &[
            &[r#"{"prompt":"a"}"#.to_owned()],
            &[r#"{"prompt":["a"]}"#.to_owned()],
        ],
    );
}

#[test]
fn calls_of_every_api_are_found() {
    let tide = json!({ "at": "Brest", "day": 1 });
    let turned = json!({ "day": 1, "at": "Brest" });
    let ebb = json!({ "at": "Brest", "day": 2 });
    let text = |value: &Value| value.to_string();

    let blocks = |id: &str, input: &Value, result: &str| {
        json!({ "messages": [
            { "role": "user", "content": "How high?" },
            { "role": "assistant", "content": [
                { "type": "text", "text": "Let me see" },
                { "type": "tool_use", "id": id, "name": "tide", "input": input },
            ] },
            { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": id, "content": result }] },
        ] })
        .to_string()
    };
    let messages: [&[String]; 2] = [
        &[blocks("a", &tide, "4 m"), blocks("b", &turned, "5 m")],
        &[blocks("a", &ebb, "4 m")],
    ];
    check(Endpoint::Messages, &messages);
    check(Endpoint::InvokeModel, &messages);

    let gemini = |key: &str, args: &Value, result: &str| {
        json!({ "contents": [
            { "role": "user", "parts": [{ "text": "How high?" }] },
            { "role": "model", "parts": [{ "text": "" }, { key: { "name": "tide", "args": args } }] },
            { "role": "user", "parts": [{ "functionResponse": { "name": "tide", "response": { "r": result } } }] },
        ] })
        .to_string()
    };
    check(
        Endpoint::StreamGenerateContent,
        &[
            &[
                gemini("functionCall", &tide, "4 m"),
                gemini("functionCall", &turned, "5 m"),
                gemini("function_call", &tide, ""),
            ],
            &[gemini("functionCall", &ebb, "4 m")],
        ],
    );

    let converse = |id: &str, input: &Value| {
        json!({ "messages": [
            { "role": "user", "content": [{ "text": "How high?" }] },
            { "role": "assistant", "content": [
                { "text": "Let me see" },
                { "toolUse": { "toolUseId": id, "name": "tide", "input": input } },
            ] },
            { "role": "user", "content": [{ "toolResult": { "toolUseId": id, "content": [{ "text": id }] } }] },
        ] })
        .to_string()
    };
    check(
        Endpoint::Converse,
        &[
            &[converse("a", &tide), converse("b", &turned)],
            &[converse("a", &ebb)],
        ],
    );

    let cohere = |id: &str, arguments: &Value| chat(&[(id, "tide", &text(arguments))], id);
    check(
        Endpoint::CohereChat,
        &[&[cohere("a", &tide), cohere("b", &turned)], &[cohere("a", &ebb)]],
    );

    // Mistral's clients may send arguments as an object, and there is OpenAI's old way.
    let call = |call: Value| {
        let [mut message] = [json!({ "role": "assistant" })];
        let fields = message.as_object_mut().unwrap();
        fields.extend(call.as_object().unwrap().clone());
        json!({ "messages": [message] }).to_string()
    };
    check(
        Endpoint::ChatCompletions,
        &[
            &[
                call(json!({ "tool_calls": [{ "function": { "name": "tide", "arguments": tide } }] })),
                call(
                    json!({ "tool_calls": [{ "function": { "name": "tide", "arguments": text(&turned) } }] }),
                ),
                call(json!({ "function_call": { "name": "tide", "arguments": text(&tide) } })),
            ],
            &[call(
                json!({ "tool_calls": [{ "type": "custom", "custom": { "name": "tide", "input": "Brest" } }] }),
            )],
        ],
    );
}

#[test]
fn items_of_responses_count_by_their_last_calls() {
    let asked = json!({ "role": "user", "content": "How high?" });
    let thought = json!({ "type": "reasoning", "id": "rs_1", "summary": [] });
    let called = |id: &str, name: &str, arguments: &str| json!({ "type": "function_call", "id": id, "call_id": id, "name": name, "arguments": arguments });
    let told =
        |id: &str, output: &str| json!({ "type": "function_call_output", "call_id": id, "output": output });
    let said = json!({ "type": "message", "role": "assistant", "content": [] });
    let input = |items: Value| json!({ "model": "m", "input": items }).to_string();
    let later = |items: Value, previous: &str| {
        json!({ "model": "m", "previous_response_id": previous, "input": items }).to_string()
    };
    check(
        Endpoint::Responses,
        &[
            &[
                input(json!([
                    asked,
                    called("a", "tide", r#"{"x":1,"y":2}"#),
                    told("a", "4 m")
                ])),
                input(json!([
                    asked,
                    thought,
                    called("b", "tide", r#"{ "y":2, "x":1 }"#),
                    told("b", "5 m")
                ])),
                input(json!([
                    called("0", "wind", "{}"),
                    told("0", "calm"),
                    called("c", "tide", r#"{"x":1,"y":2}"#),
                    told("c", "6 m"),
                    asked,
                ])),
            ],
            &[input(json!([
                called("a", "wind", "{}"),
                thought,
                called("b", "tide", "{}"),
                told("a", ""),
                told("b", "")
            ]))],
            &[input(json!([
                called("a", "tide", "{}"),
                called("b", "wind", "{}"),
                told("a", "")
            ]))],
            &[input(
                json!([{ "type": "custom_tool_call", "name": "tide", "input": "Brest" }]),
            )],
            // The model spoke last: the prompt is the step.
            &[input(json!([
                called("a", "tide", "{}"),
                told("a", ""),
                said,
                asked
            ]))],
            &[input(json!("How high?"))],
            &[input(json!([asked]))],
            // The history is elsewhere: what the client answers is all there is.
            &[
                later(json!([told("a", "4 m")]), "resp_1"),
                later(json!([told("b", "4 m")]), "resp_2"),
            ],
            &[later(json!([told("a", "5 m")]), "resp_1")],
            &[later(json!([told("a", "4 m"), told("b", "4 m")]), "resp_1")],
            // A person who says the same again later says something else.
            &[later(json!("Go on"), "resp_1")],
            &[later(json!("Go on"), "resp_2")],
            &[later(json!([told("a", "4 m"), asked]), "resp_1")],
            // Without a history elsewhere, results say nothing.
            &[input(json!([told("a", "4 m")]))],
            &[input(json!([told("b", "4 m")]))],
        ],
    );
}

#[test]
fn hostile_bodies_have_a_fingerprint_or_none() {
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let nested = |arguments: &str| chat(&[("a", "tide", arguments)], "");
    for body in [
        nested(&deep(100_000)),
        nested(&objects(100_000)),
        format!(r#"{{"messages":{}}}"#, deep(100_000)),
        format!(
            r#"{{"messages":[{{"role":"assistant","content":{}}}]}}"#,
            objects(100_000)
        ),
        r#"{"messages":[1,null,"a"]}"#.to_owned(),
        r#"{"messages":[{"role":"assistant","tool_calls":[{"function":7}]}]}"#.to_owned(),
        r#"{"messages":[{"role":"assistant","tool_calls":[{}]}]}"#.to_owned(),
        r#"{"messages":{"role":"assistant"}}"#.to_owned(),
        r#"{"messages":"text"}"#.to_owned(),
    ] {
        assert!(of(Endpoint::ChatCompletions, &body).is_some(), "{:.200}", body);
    }
    for body in [
        "",
        "{}",
        "[]",
        "null",
        "7",
        "{\"messages\":",
        "{\"messages\":[],\"messages\":[]}",
        "{\"messages\":null}",
        "{\"model\":\"m\"}",
    ] {
        assert_eq!(of(Endpoint::ChatCompletions, body), None, "{body}");
    }
    assert_eq!(
        fingerprint(Endpoint::ChatCompletions, None, b"{\"prompt\":\"\xff\"}"),
        None
    );
    for endpoint in [Endpoint::Embeddings, Endpoint::CountTokens, Endpoint::Other] {
        assert_eq!(of(endpoint, r#"{"input":"a"}"#), None, "{endpoint:?}");
    }
}

/// Any value, with the names that are looked for among its keys.
fn value() -> impl Strategy<Value = Value> {
    const NAMES: [&str; 22] = [
        "messages",
        "contents",
        "input",
        "role",
        "assistant",
        "model",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "content",
        "parts",
        "functionCall",
        "args",
        "toolUse",
        "type",
        "tool_use",
        "function_call",
        "output",
        "function_call_output",
        "previous_response_id",
        "system",
    ];
    let name = proptest::sample::select(&NAMES[..]).prop_map(str::to_owned);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        name.clone().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        for endpoint in Endpoint::ALL {
            let _ = fingerprint(endpoint, None, &bytes);
        }
    }

    #[test]
    fn whitespace_never_counts(value in value()) {
        let (short, long) = (value.to_string(), serde_json::to_string_pretty(&value).unwrap());
        for endpoint in [Endpoint::ChatCompletions, Endpoint::Responses] {
            prop_assert_eq!(of(endpoint, &short), of(endpoint, &long));
        }
        let body = json!({ "messages": [value], "input": value }).to_string();
        prop_assert!(of(Endpoint::ChatCompletions, &body).is_some());
    }
}
