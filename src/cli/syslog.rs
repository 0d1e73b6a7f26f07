//! Audit records as messages of syslog, [RFC 5424](https://www.rfc-editor.org/rfc/rfc5424#section-6), one on each line.
//!
//! ```text
//! <110>1 2026-01-02T03:04:05.678901Z - signet - Sign [meta sequenceId="4712"] {"index":4711,"time":…}
//! ```
//!
//! The message is the record itself, with its index, in ASCII: other characters are escaped as JSON does, so that neither a mark
//! of the encoding nor a choice of one is needed.

use std::fmt::Write as _;

use serde_json::Value;

use crate::audit::Severity;
use crate::error::{Error, Result};

/// "log audit", table 1.
const FACILITY: u8 = 13;
/// "It MUST be in the range of 1-2147483647 inclusive": RFC 5424, 7.3.1.
const SEQUENCE: u64 = 2_147_483_647;
/// "MSGID = NILVALUE / 1*32PRINTUSASCII"
const MAX_ID: usize = 32;

/// The message of record `index`, without a line break.
pub(super) fn message(index: u64, record: &Value) -> Result<String> {
    let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
    let priority = FACILITY * 8 + severity(text("phase"), text("outcome"));
    // A record's time is RFC 3339 with microseconds, which is all that the standard allows.
    let (time, id) = (word(text("time"), 64), word(text("action"), MAX_ID));
    let mut whole = serde_json::Map::from_iter([("index".to_owned(), Value::from(index))]);
    whole.extend(record.as_object().cloned().unwrap_or_default());
    let json = serde_json::to_string(&whole).map_err(|e| Error::internal(format!("writing a record: {e}")))?;
    let sequence = index % SEQUENCE + 1;
    Ok(format!("<{priority}>1 {time} - signet - {id} [meta sequenceId=\"{sequence}\"] {}", ascii(&json)))
}

/// Table 2.
fn severity(phase: &str, outcome: &str) -> u8 {
    match Severity::of(phase, outcome) {
        Severity::Error => 3,
        Severity::Warning => 4,
        Severity::Notice => 5,
        Severity::Info => 6,
    }
}

/// A word of the header, or the mark of none.
fn word(text: &str, most: usize) -> &str {
    let good = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if good { text } else { "-" }
}

/// JSON with all that is not ASCII escaped: such characters stand only in its strings.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            text.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a text does not fail.
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_record_is_one_line_of_ascii_and_reads_back() {
        let record = json!({"time": "2026-01-02T03:04:05.678901Z", "phase": "done", "action": "Sign", "outcome": "ok",
            "context": {"ä": "]\"\\ \n\u{1}\u{7f}\u{85}\u{2028}😀"}});
        let text = message(4711, &record).unwrap();
        assert!(
            text.starts_with("<110>1 2026-01-02T03:04:05.678901Z - signet - Sign [meta sequenceId=\"4712\"] {"),
            "{text}"
        );
        assert!(text.bytes().all(|byte| (b' '..0x7f).contains(&byte)), "{text}");
        let json = &text[text.find('{').unwrap()..];
        let mut read: Value = serde_json::from_str(json).unwrap();
        assert_eq!(read.as_object_mut().unwrap().remove("index"), Some(4711.into()));
        assert_eq!(read, record);
    }

    #[test]
    fn what_to_look_at_stands_out() {
        let starts = |phase: &str, outcome: &str| {
            message(0, &json!({"phase": phase, "outcome": outcome})).unwrap()[..5].to_owned()
        };
        assert_eq!(starts("refused", "forbidden"), "<108>");
        assert_eq!(starts("done", "does_not_open"), "<109>");
        assert_eq!(starts("done", "tampered"), "<107>");
        assert_eq!(starts("intent", ""), "<110>");
        // What is no word of a header is left out, and the sequence begins anew where it must.
        let text = message(2_147_483_647, &json!({"time": "a b", "action": ""})).unwrap();
        assert!(text.starts_with("<110>1 - - signet - - [meta sequenceId=\"1\"] {\"index\":2147483647,"), "{text}");
    }
}
