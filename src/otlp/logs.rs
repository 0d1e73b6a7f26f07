//! What is sent, as the [data model](https://opentelemetry.io/docs/specs/otel/logs/data-model/) draws it and the
//! [JSON encoding](https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding) writes it: "values of 64-bit integers are decimal
//! strings, enums are integers, `traceId` is hex".

use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Serialize, Serializer};

/// Records of one resource.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Of whom they are.
    pub resource: &'a Resource,
    /// The records.
    pub records: &'a [LogRecord],
}

/// Whose records they are.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Resource {
    /// What is known of it.
    pub attributes: Vec<Attribute>,
}

/// One record.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogRecord {
    /// When it happened, in nanoseconds since 1970.
    #[serde(serialize_with = "decimal")]
    pub time_unix_nano: i128,
    /// When it was seen first.
    #[serde(serialize_with = "decimal")]
    pub observed_time_unix_nano: i128,
    /// How grave it is.
    #[serde(rename = "severityNumber")]
    pub severity: Severity,
    /// Which kind of event it is.
    pub event_name: &'static str,
    /// What it says.
    pub body: Value,
    /// What is known of it.
    pub attributes: Vec<Attribute>,
    /// The trace that it belongs to, 32 digits of hex; none where empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
}

/// How grave something is: the first of each range of the data model, and the second for what is between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Severity {
    /// As it should be.
    Info = 9,
    /// A usual failure.
    Notice = 10,
    /// A person should look at it.
    Warning = 13,
    /// Something is broken.
    Error = 17,
}

impl Serialize for Severity {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(*self as u8)
    }
}

/// A name and a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attribute {
    key: &'static str,
    value: Value,
}

impl Attribute {
    /// A text.
    pub fn text(key: &'static str, value: impl Into<String>) -> Self {
        Self { key, value: Value::Text(value.into()) }
    }

    /// A number.
    #[must_use]
    pub fn number(key: &'static str, value: u64) -> Self {
        Self { key, value: Value::Number(i64::try_from(value).unwrap_or(i64::MAX)) }
    }
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(1))?;
        match self {
            Self::Text(text) => map.serialize_entry("stringValue", text)?,
            Self::Number(number) => map.serialize_entry("intValue", &number.to_string())?,
        }
        map.end()
    }
}

fn decimal<S: Serializer>(number: &i128, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&(*number).max(0))
}

impl Serialize for Batch<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Scope {
            name: &'static str,
            version: &'static str,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct OfScope<'a> {
            scope: Scope,
            log_records: &'a [LogRecord],
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct OfResource<'a> {
            resource: &'a Resource,
            scope_logs: [OfScope<'a>; 1],
        }
        let scope = Scope { name: "signet", version: env!("CARGO_PKG_VERSION") };
        let scope_logs = [OfScope { scope, log_records: self.records }];
        let mut all = to.serialize_struct("LogsData", 1)?;
        all.serialize_field("resourceLogs", &[OfResource { resource: self.resource, scope_logs }])?;
        all.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_written_as_the_standard_says() {
        let record = LogRecord {
            time_unix_nano: 1_767_323_045_678_901_000,
            observed_time_unix_nano: -1,
            severity: Severity::Warning,
            event_name: "e",
            body: Value::Text("{}".to_owned()),
            attributes: vec![Attribute::text("a", "b"), Attribute::number("n", u64::MAX)],
            trace_id: String::new(),
        };
        let resource = Resource { attributes: vec![Attribute::text("service.name", "signet")] };
        let text = serde_json::to_string(&Batch { resource: &resource, records: &[record] }).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            text,
            format!(
                "{}{}{}",
                r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"signet"}}]},"#,
                format_args!(r#""scopeLogs":[{{"scope":{{"name":"signet","version":"{version}"}},"logRecords":["#),
                concat!(
                    r#"{"timeUnixNano":"1767323045678901000","observedTimeUnixNano":"0","severityNumber":13,"eventName":"e","#,
                    r#""body":{"stringValue":"{}"},"attributes":[{"key":"a","value":{"stringValue":"b"}},"#,
                    r#"{"key":"n","value":{"intValue":"9223372036854775807"}}]}]}]}]}"#
                )
            )
        );
    }
}
