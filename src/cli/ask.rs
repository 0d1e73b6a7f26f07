//! Questions to the person at the terminal.

use std::fs::File;
use std::io::{self, IsTerminal, Read};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::output::{note, unwritable};
use crate::error::{Error, Kind, Result};
use crate::types::SecretBytes;

/// The longest line that is read.
const MAX_LINE: usize = 4096;

/// Lets a person confirm what cannot be undone by typing `name`; a script says `--yes`.
pub(super) fn confirm(act: &str, name: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Error::new(Kind::Invalid, format!("not confirmed: {act}")).hint("add --yes"));
    }
    note(format_args!("{act}. Type {name} to go on:"));
    let typed = line(&mut io::stdin().lock())?;
    if typed.expose() == name.as_bytes() {
        Ok(())
    } else {
        Err(Error::new(Kind::Invalid, "not confirmed: nothing was done")
            .hint("type the name in full, as it is asked for"))
    }
}

/// Reads a secret of one line: from standard input, without showing it where that is a terminal.
pub(super) fn secret(question: &str) -> Result<SecretBytes> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return line(&mut stdin.lock());
    }
    note(question);
    let terminal = File::open("/dev/tty").map_err(|e| unwritable("the terminal", &e))?;
    let _silence = Silence::new(terminal.try_clone().map_err(|e| unwritable("the terminal", &e))?)?;
    line(&mut &terminal)
}

/// Reads one line, byte by byte so that nothing behind it is taken away and no buffer keeps a copy.
fn line(input: &mut impl Read) -> Result<SecretBytes> {
    let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(MAX_LINE));
    let mut byte = [0];
    loop {
        match input.read(&mut byte) {
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) if bytes.len() == MAX_LINE => {
                return Err(Error::new(Kind::Limit, format!("the line is longer than {MAX_LINE} bytes")));
            }
            Ok(_) => bytes.extend(byte),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::new(Kind::Invalid, format!("cannot read standard input: {e}"))),
        }
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(SecretBytes::new(std::mem::take(&mut *bytes)))
}

/// A terminal that does not show what is typed, until it is dropped.
struct Silence {
    terminal: File,
    before: Termios,
}

impl Silence {
    fn new(terminal: File) -> Result<Self> {
        let before = tcgetattr(&terminal).map_err(|e| unwritable("the terminal", &e.into()))?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        silent.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(|e| unwritable("the terminal", &e.into()))?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        // The terminal is gone where this fails.
        let _ = tcsetattr(&self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_its_break_and_leaves_the_rest() {
        let mut input: &[u8] = b"sgt_x\r\nrest";
        assert_eq!(line(&mut input).unwrap().expose(), b"sgt_x");
        assert_eq!(input, b"rest");
        assert_eq!(line(&mut &[b'a'; MAX_LINE + 1][..]).unwrap_err().kind(), Kind::Limit);
        assert_eq!(line(&mut &[b'a'; MAX_LINE][..]).unwrap().expose().len(), MAX_LINE);
    }

    #[test]
    fn yes_needs_no_terminal() {
        confirm("destroying x", "x", true).unwrap();
    }
}
