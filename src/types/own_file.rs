//! A file with a secret, which nobody but its owner can read or change.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Error, Kind, Result};

/// Reads such a file, `what` it is in a sentence, of at most `most` bytes. No error holds any of them.
///
/// # Errors
/// [`Kind::Invalid`] with the mend.
pub fn read_own(path: &Path, what: &str, most: usize) -> Result<Zeroizing<Vec<u8>>> {
    let shown = path.display();
    let cannot = |e| Error::new(Kind::Invalid, format!("cannot read the {what} {shown}: {e}"));
    let mut file = File::open(path).map_err(cannot)?;
    // The mode of the open file, so that it cannot be exchanged in between.
    let mode = file.metadata().map_err(cannot)?.permissions().mode();
    if mode & 0o077 != 0 {
        let text = format!("others can read or change the {what} {shown} (mode {:o})", mode & 0o777);
        return Err(Error::new(Kind::Invalid, text).hint(format!("chmod 600 {shown}")));
    }
    // Room for all of it from the start: a growing vector would leave copies behind.
    let mut bytes = Zeroizing::new(vec![0; most + 1]);
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest).map_err(cannot)? {
            0 => break,
            more => length += more,
        }
    }
    if length > most {
        return Err(Error::new(Kind::Invalid, format!("the {what} {shown} is longer than {most} bytes")));
    }
    bytes.truncate(length);
    Ok(bytes)
}
