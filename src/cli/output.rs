//! What is written, and where: answers to standard output, words for people to standard error.
//!
//! Texts of the server may hold what a client once sent, a label for example. What could steer a terminal is shown as `?`.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Out {
    /// Whether programs read it: `--json`.
    pub(super) json: bool,
    /// Whether a person reads it.
    pub(super) terminal: bool,
}

impl Out {
    pub(super) fn new(json: bool) -> Self {
        Self { json, terminal: io::stdout().is_terminal() }
    }

    /// Writes `bytes` as they are.
    pub(super) fn bytes(self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|e| unwritable("standard output", &e))
    }

    /// Writes a text for people.
    pub(super) fn text(self, text: &str) -> Result<()> {
        let text = text.trim_end_matches('\n');
        if text.is_empty() { Ok(()) } else { self.bytes(format!("{}\n", printable(text)).as_bytes()) }
    }

    /// Writes a body of the API: on one line for programs, indented on a terminal.
    pub(super) fn body(self, body: &impl Serialize) -> Result<()> {
        self.bytes(&json(body, self.terminal)?)
    }

    /// Writes `body` where programs read, else what `people` makes of it.
    pub(super) fn answer<T: Serialize>(self, body: &T, people: impl FnOnce(&T) -> String) -> Result<()> {
        if self.json { self.body(body) } else { self.text(&people(body)) }
    }

    /// Writes a list where programs read, else a table.
    pub(super) fn list<T: Serialize, I>(
        self,
        body: &T,
        items: &[I],
        header: &[&str],
        row: impl Fn(&I) -> Vec<String>,
    ) -> Result<()> {
        self.answer(body, |_| table(header, items.iter().map(row), self.terminal))
    }
}

/// A body as JSON and a line break. It may hold a secret, so it is zeroed on drop.
pub(super) fn json(body: &impl Serialize, pretty: bool) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = if pretty { serde_json::to_vec_pretty(body) } else { serde_json::to_vec(body) };
    let mut bytes = Zeroizing::new(bytes.map_err(|e| Error::internal("writing JSON").because(e))?);
    bytes.push(b'\n');
    Ok(bytes)
}

/// The error of an output that does not take what it is given.
pub(super) fn unwritable(what: impl Display, error: &io::Error) -> Error {
    Error::new(Kind::Internal, format!("cannot write {what}: {error}"))
}

/// A sentence for people.
pub(super) fn note(text: impl Display) {
    // Nobody is left to tell where standard error is closed.
    let _ = writeln!(io::stderr().lock(), "{}", printable(&text.to_string()));
}

/// An error: what is wrong, and what to do about it.
pub(super) fn complain(error: &Error) {
    note(complaint(error));
}

fn complaint(error: &Error) -> String {
    // A defect of this program hides its cause from other parties, not from the one who runs it.
    let what = if error.kind() == Kind::Internal { error.chain() } else { error.public().to_owned() };
    let what = what.replace('\n', " ");
    let hint = error.mend().unwrap_or_else(|| default_hint(error.kind())).replace('\n', " ");
    format!("error: {what}\nhint: {hint}")
}

/// For errors that came without one.
const fn default_hint(kind: Kind) -> &'static str {
    match kind {
        Kind::Unauthenticated => "signet login stores a token; signet whoami shows who one is",
        Kind::Forbidden | Kind::NotFound => {
            "check the name; what one may not see is not found: signet policy explain tells why"
        }
        Kind::Conflict | Kind::Stale => "read it again: another change came first",
        Kind::State => "signet key versions shows the states",
        Kind::Busy | Kind::Unavailable => "try again; signet status tells what is missing",
        Kind::DoesNotOpen => "check the key, the context and that the whole ciphertext arrived",
        Kind::Tampered | Kind::Internal => "the log of the server tells more, by the id of the request",
        Kind::Invalid => "the help of the verb shows what is expected: add --help",
        Kind::Limit => "send less at a time; docs/limits.md lists all limits",
        Kind::Unsupported => "signet status --abilities shows what each device can keep",
    }
}

/// `text` without what could steer a terminal; line breaks stay.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '?' } else { c }).collect()
}

/// Rows in columns: with lines and fitted to its width on a terminal, plain otherwise.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, terminal: bool) -> String {
    let mut table = Table::new();
    if terminal {
        table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    } else {
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    }
    if !header.is_empty() {
        table.set_header(header.iter().copied());
    }
    let one_line = |cell: String| printable(&cell).replace('\n', " ");
    table.add_rows(rows.into_iter().map(|row| row.into_iter().map(one_line).collect::<Vec<_>>()));
    let lines = table.lines().map(|line| line.trim_end().strip_prefix(' ').map(str::to_owned).unwrap_or(line));
    lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Facts, one per line.
pub(super) fn facts(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    table(&[], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]), false)
}

/// A cell that may be empty.
pub(super) fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A cell of several values.
pub(super) fn joined(values: impl IntoIterator<Item = impl Display>) -> String {
    let values: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
    if values.is_empty() { "-".to_owned() } else { values.join(", ") }
}

/// A yes-or-no cell.
pub(super) const fn yes_no(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

/// A time to the second.
pub(super) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_table_is_columns_of_text() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long-name".to_owned(), "-".to_owned()]];
        assert_eq!(table(&["NAME", "VERSION"], rows, false), "NAME       VERSION\na          1\nlong-name  -");
        assert_eq!(facts([("name", "x".to_owned()), ("algorithm", "y".to_owned())]), "name       x\nalgorithm  y");
    }

    #[test]
    fn nothing_from_outside_steers_the_terminal() {
        let rows = [vec!["\u{1b}[2J\u{9b}x\ny".to_owned()]];
        assert_eq!(table(&["LABEL"], rows, false), "LABEL\n?[2J?x y");
        assert_eq!(printable("a\u{7}b\r\nc"), "a?b?\nc");
    }

    #[test]
    fn an_error_is_two_lines() {
        let error = Error::new(Kind::NotFound, "no key\nerror: forged (request r1)").hint("look again");
        assert_eq!(complaint(&error), "error: no key error: forged (request r1)\nhint: look again");
        let bare = Error::new(Kind::Invalid, "not a name");
        assert!(complaint(&bare).starts_with("error: not a name\nhint: the help"));
        assert!(complaint(&Error::internal("why")).starts_with("error: internal error: why"));
    }

    #[test]
    fn json_is_one_line_for_programs() {
        let body = serde_json::json!({"a": [1, 2]});
        assert_eq!(json(&body, false).unwrap().as_slice(), b"{\"a\":[1,2]}\n");
    }

    #[test]
    fn cells_have_a_word_for_nothing() {
        assert_eq!(
            (or_dash(None::<u8>).as_str(), joined([1, 2]).as_str(), joined([""; 0]).as_str()),
            ("-", "1, 2", "-")
        );
        assert_eq!(time("2026-01-02T03:04:05.678Z".parse().unwrap()), "2026-01-02T03:04:05Z");
    }
}
