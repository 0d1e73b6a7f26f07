//! The OpenAPI document, made from the table of routes and the types of its handlers.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Value, json};
use utoipa::openapi::{RefOr, Schema};

use super::answer::{JsonText, Reply};
use super::call::Call;
use super::routes::table;
use super::row::{Content, Parameter, RouteRow, Shape};
use crate::error::Result;
use crate::service::Released;
use crate::wire::Problem;

static TEXT: LazyLock<String> = LazyLock::new(document);

/// Whoever is known may read it.
pub(super) async fn read(call: Call) -> Result<Released<Reply<JsonText>>> {
    let known = call.service.who_am_i(&call.caller).await?;
    Ok(known.map(|_| super::answer::Text(TEXT.clone()).into()))
}

/// The document as text, the same at each call.
#[must_use]
pub fn document() -> String {
    let mut paths: BTreeMap<String, serde_json::Map<String, Value>> = BTreeMap::new();
    let mut schemas = BTreeMap::new();
    collect(&mut schemas, &Shape::of::<Problem>());
    for row in table() {
        for shape in row.request.iter().chain(match &row.response {
            Content::Json(shape) => Some(shape),
            Content::Other(_) | Content::Nothing => None,
        }) {
            collect(&mut schemas, shape);
        }
        paths.entry(path(row)).or_default().insert(row.method.as_str().to_ascii_lowercase(), operation(row));
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Signet",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Unauthenticated": problem("No credential, or one that is not accepted."),
                "Problem": problem(PROBLEM),
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "sgt_ and 49 characters",
                    "description": "A token of `POST /api/v1/tokens`. Where there is one, a client certificate does not count.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "A client certificate that one identity expects, by SPIFFE id, DNS name or public key.",
                },
            },
        },
    });
    // A value of strings and maps can always be written.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

const ABOUT: &str = "A key management service whose keys stay inside PKCS#11 HSMs and TPM 2.0s. Bytes are standard base64 \
with padding, times are RFC 3339 in UTC, periods are written like `90d`. A request with an unknown field or query parameter \
is refused. Every answer has a `Request-Id`, which is also in the audit log; a success says in `Signet-Log` where its record stands there.";

const PROBLEM: &str = "Why not: `code` is for programs, `title` and `hint` are for people, and `docs/status-codes.md` tells for \
each code what to do next. Where the status is 503, `Retry-After` says when to try again.";

fn problem(about: &str) -> Value {
    let schema = reference(&Shape::of::<Problem>());
    json!({ "description": about, "content": { "application/problem+json": { "schema": schema } } })
}

/// The schema of a shape, and of what it is made of.
fn collect(schemas: &mut BTreeMap<String, Value>, shape: &Shape) {
    let mut parts: Vec<(String, RefOr<Schema>)> = Vec::new();
    (shape.parts)(&mut parts);
    parts.push((name(shape), (shape.schema)()));
    for (name, schema) in parts {
        // Schemas are plain values, which can always be written.
        schemas.entry(name).or_insert_with(|| serde_json::to_value(schema).unwrap_or_default());
    }
}

/// The name of a shape, with those of the types it is made for: `Batch_Wrap`.
fn name(shape: &Shape) -> String {
    let last = |path: &str| path.rsplit("::").next().unwrap_or(path).to_owned();
    let whole = (shape.type_name)().replace('>', "");
    whole.split('<').map(last).collect::<Vec<_>>().join("_")
}

fn reference(shape: &Shape) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", name(shape)) })
}

fn operation(row: &RouteRow) -> Value {
    let mut operation = json!({
        "summary": row.summary,
        "operationId": operation_id(row),
        "tags": [tag(row)],
        "parameters": parameters(row),
        "responses": responses(row),
        "security": if row.open() { json!([]) } else { json!([{ "token": [] }, { "certificate": [] }]) },
    });
    let actions: Vec<_> = row.actions.iter().map(|action| format!("`{action}`")).collect();
    let mut about = Vec::new();
    if !actions.is_empty() {
        about.push(format!("Action: {}.", actions.join(" or ")));
    }
    if row.body_limit > 0 {
        about.push(format!("The body has at most {} bytes.", row.body_limit));
    }
    if row.path.ends_with("-batch") {
        about.push(format!("At most {} items, each with its own outcome.", crate::service::MAX_BATCH));
    }
    if !about.is_empty() {
        set(&mut operation, "description", about.join(" ").into());
    }
    if let Some(shape) = &row.request {
        let body = json!({
            "required": !row.optional_body,
            "content": { "application/json": { "schema": reference(shape) } },
        });
        set(&mut operation, "requestBody", body);
    }
    operation
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

/// The path. One name at its end may stand for several segments.
fn path(row: &RouteRow) -> String {
    row.path.replace("{*", "{")
}

/// `post_keys_key_wrap` for `POST /api/v1/keys/{key}/wrap`.
fn operation_id(row: &RouteRow) -> String {
    let path = path(row);
    let path = path.trim_start_matches("/api/v1").trim_start_matches('/');
    let words: String = path.chars().filter(|c| !matches!(c, '{' | '}')).collect();
    let words = words.replace(['/', '-', '.'], "_");
    format!("{}_{}", row.method.as_str().to_ascii_lowercase(), words.trim_start_matches('_'))
}

/// The noun of a route.
fn tag(row: &RouteRow) -> &'static str {
    let segments: Vec<_> = row.path.trim_start_matches("/api/v1/").split('/').collect();
    match segments.as_slice() {
        ["keys", "{key}", "versions", ..] => "versions",
        ["keys"] | ["keys", "{key}"] | ["keys", "{key}", "rotate" | "public-key"] => "keys",
        ["keys", ..] => "cryptography",
        ["tokens" | "identities" | "policies", ..] => "access",
        ["audit", ..] => "audit",
        _ => "service",
    }
}

fn parameters(row: &RouteRow) -> Vec<Value> {
    let path = path(row);
    let segments = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let mut all: Vec<_> = segments
        .map(|name| {
            let (about, example) = segment(name);
            json!({
                "name": name, "in": "path", "required": true, "description": about,
                "schema": { "type": "string" }, "example": example,
            })
        })
        .collect();
    let words = |place: &'static str| {
        move |parameter: &Parameter| {
            let Parameter { name, kind, about, required } = parameter;
            json!({ "name": name, "in": place, "required": required, "description": about, "schema": { "type": kind } })
        }
    };
    all.extend(row.query.iter().map(words("query")));
    all.extend(row.headers.iter().map(words("header")));
    all
}

fn segment(name: &str) -> (&'static str, &'static str) {
    match name {
        "key" => ("`NAME`, or `NAMESPACE:NAME`", "payments:card-data"),
        "version" => ("the number of a version, from 1", "1"),
        "index" => ("the index of a record, from 0", "4711"),
        "size" => ("the records of an earlier head", "1204"),
        "level" => ("0 to 63, or `entries`", "0"),
        "tile" => ("which tile, and of one that is not full how many hashes: `x001/234`, `000.p/17`", "x001/x234/067"),
        "id" => ("the public id of a token", "0123456789abcdef0123"),
        _ => ("a name of `a-z`, `0-9`, `.`, `_` and `-`, of up to 63 characters", "ci"),
    }
}

fn responses(row: &RouteRow) -> Value {
    let content = match &row.response {
        Content::Json(shape) => Some(("application/json", reference(shape))),
        Content::Other("application/json") => Some(("application/json", json!({ "type": "object" }))),
        Content::Other(media) => Some((*media, json!({ "type": "string" }))),
        Content::Nothing => None,
    };
    let mut success = json!({ "description": row.summary });
    if let Some((media, schema)) = content {
        set(&mut success, "content", json!({ media: { "schema": schema } }));
    }
    let mut all = json!({});
    set(&mut all, row.success.as_str(), success);
    let problem = |name: &str| json!({ "$ref": format!("#/components/responses/{name}") });
    if !row.open() {
        set(&mut all, "401", problem("Unauthenticated"));
    }
    if !row.open() || row.path == "/health/ready" {
        set(&mut all, "default", problem("Problem"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `SIGNET_RENEW_GOLDEN=1 cargo test` writes the file anew; the difference is what is reviewed.
    #[test]
    fn the_document_is_the_one_that_was_reviewed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/openapi.json");
        if std::env::var_os("SIGNET_RENEW_GOLDEN").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let reviewed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            reviewed == document(),
            "tests/golden/openapi.json differs: run with SIGNET_RENEW_GOLDEN=1 and review the diff"
        );
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_own_name() {
        let document: Value = serde_json::from_str(&document()).unwrap();
        let mut missing = Vec::new();
        look(&document, &mut |reference| {
            let pointer = reference.trim_start_matches('#');
            if document.pointer(pointer).is_none() {
                missing.push(reference.to_owned());
            }
        });
        assert!(missing.is_empty(), "{missing:?}");
        let mut names: Vec<_> = table().iter().map(operation_id).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    fn look(value: &Value, found: &mut dyn FnMut(&str)) {
        match value {
            Value::Object(object) => object.iter().for_each(|(key, value)| match value {
                Value::String(reference) if key == "$ref" => found(reference),
                Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
                Value::Array(_) | Value::Object(_) => look(value, found),
            }),
            Value::Array(items) => items.iter().for_each(|item| look(item, found)),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}
