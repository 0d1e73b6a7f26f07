//! The file of headers: one on each line, `Name: value`.

use std::path::Path;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::error::{Error, Kind, Result};
use crate::types::read_own;

/// The longest file.
const ROOM: usize = 16 * 1024;
/// The most headers.
const MOST: usize = 16;
/// What we say ourselves.
const OURS: [HeaderName; 5] =
    [header::HOST, header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];

/// Reads a file that nobody but its owner can. No error holds any of it.
pub(super) fn read(path: &Path) -> Result<HeaderMap> {
    let bytes = read_own(path, "headers file", ROOM)?;
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let headers: Option<HeaderMap> = lines.map(parse).collect();
    match headers {
        Some(headers) if (1..=MOST).contains(&headers.len()) => Ok(headers),
        Some(_) | None => {
            let text = format!("the headers file {} does not hold one to {MOST} headers", path.display());
            Err(Error::new(Kind::Invalid, text).hint(
                "a name, a colon and a value on each line: (umask 077; echo \"Authorization: Bearer TOKEN\" > FILE)",
            ))
        }
    }
}

fn parse(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?.trim_ascii());
    let name = HeaderName::from_bytes(name).ok().filter(|name| !OURS.contains(name))?;
    let mut value = HeaderValue::from_bytes(value).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn read(text: &str, mode: u32) -> Result<HeaderMap> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("headers");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        super::read(&path)
    }

    #[test]
    fn a_file_of_its_owner_holds_headers_that_are_not_shown() {
        let headers = read("Authorization: Bearer hidden:1\n\nx-tenant:  a b \r\n", 0o600).unwrap();
        assert_eq!(headers["authorization"], "Bearer hidden:1");
        assert_eq!(headers["x-tenant"], "a b");
        assert!(!format!("{headers:?}").contains("hidden"));
        let many = (0..17).map(|n| format!("x-{n}: hidden\n")).collect::<String>();
        for text in ["", "\n", "Bearer hidden", "host: hidden", "Content-Length: 7", "a b: hidden", &many] {
            let error = read(text, 0o600).unwrap_err();
            assert!(error.mend().is_some() && !error.chain().contains("hidden"), "{}", error.chain());
        }
        assert!(read("a: hidden", 0o640).unwrap_err().public().contains("others can read"));
    }
}
