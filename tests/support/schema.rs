//! Whether a document is what `docs/schema` says: the part of JSON Schema 2020-12 that stands there, and no more. Start at [`check`].
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::path::PathBuf;

use serde_json::{Map, Value};

/// Keywords that schemas may have; one that is not understood is no check.
const KEYWORDS: [&str; 13] = [
    "$schema",
    "$id",
    "$defs",
    "$ref",
    "title",
    "description",
    "type",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "anyOf",
];

/// The folder with the schemas.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema")
}

/// The name of the schema of a document: `meta-set` for `meta set`.
pub(crate) fn name_of(document: &Value) -> String {
    document["command"].as_str().map_or_else(|| "error".to_owned(), |command| command.replace(' ', "-"))
}

/// Refuses a document that has a field which its schema has not, lacks one, or has one of another type.
pub(crate) fn check(document: &Value) {
    let name = name_of(document);
    let path = folder().join(format!("{name}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|_| panic!("no schema docs/schema/{name}.json of the document {document}"));
    let schema: Value = serde_json::from_slice(&text).unwrap();
    let problems = problems(&schema, document);
    assert!(
        problems.is_empty(),
        "not as docs/schema/{name}.json has it, which is to be changed with the document: {}",
        problems.join("; ")
    );
}

/// All that is wrong with a document.
pub(crate) fn problems(schema: &Value, document: &Value) -> Vec<String> {
    let mut out = Vec::new();
    visit(schema, schema, document, "", &mut out);
    out
}

fn visit(root: &Value, schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
    let schema = schema.as_object().unwrap_or_else(|| panic!("{at}: the schema is no object: {schema}"));
    for keyword in schema.keys() {
        assert!(KEYWORDS.contains(&keyword.as_str()), "{at}: {keyword} is not understood here");
    }
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let name = name.strip_prefix("#/$defs/").unwrap_or_else(|| panic!("{at}: {name}"));
        visit(root, &root["$defs"][name], value, at, out);
    }
    if let Some(ways) = schema.get("anyOf").and_then(Value::as_array) {
        let tried: Vec<Vec<String>> = ways
            .iter()
            .map(|way| {
                let mut found = Vec::new();
                visit(root, way, value, at, &mut found);
                found
            })
            .collect();
        if !tried.iter().any(Vec::is_empty) {
            out.extend(tried.into_iter().min_by_key(Vec::len).unwrap_or_default());
        }
    }
    if let Some(types) = schema.get("type")
        && !types_of(types).iter().any(|name| is_a(value, name))
    {
        out.push(format!("{at} is {value}, expected {types}"));
        return;
    }
    if schema.get("const").is_some_and(|only| only != value) {
        out.push(format!("{at} is {value}, expected {}", schema["const"]));
    }
    if let Some(fields) = value.as_object() {
        of_object(root, schema, fields, at, out);
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (index, value) in values.iter().enumerate() {
            visit(root, items, value, &format!("{at}/{index}"), out);
        }
    }
}

fn of_object(root: &Value, schema: &Map<String, Value>, fields: &Map<String, Value>, at: &str, out: &mut Vec<String>) {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, value) in fields {
        let at = format!("{at}/{name}");
        match (properties.and_then(|known| known.get(name)), schema.get("additionalProperties")) {
            (Some(schema), _) => visit(root, schema, value, &at, out),
            (None, Some(Value::Bool(false))) => out.push(format!("{at} is a field that the schema has not")),
            (None, Some(schema)) => visit(root, schema, value, &at, out),
            (None, None) => {}
        }
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            out.push(format!("{at}/{name} is missing"));
        }
    }
}

fn types_of(types: &Value) -> Vec<&str> {
    types.as_array().map_or_else(|| types.as_str().into_iter().collect(), |all| all.iter().filter_map(Value::as_str).collect())
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("{name} is no type of JSON"),
    }
}
