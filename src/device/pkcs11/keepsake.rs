//! Keeps a copy of what a software token may lose at a login.
//!
//! SoftHSM rewrites `token.object` in place at every login, cut first and written then. Who kills the process in between
//! leaves an empty file, and with it a token whose keys nobody can open any more (measured, with 2.6.1 and 2.7.0). So where
//! `sync_dir` names the folder of such tokens, each `token.object` is copied aside before a login, and an empty one is put
//! back from its copy. The copy holds nothing that the original does not: keys wrapped under the PIN.

use std::fs;
use std::io;
use std::path::Path;

use crate::device::{Class, Fault};

/// What SoftHSM rewrites.
const ORIGINAL: &str = "token.object";
/// The copy; SoftHSM looks at no file that does not end in `.object`.
const COPY: &str = "token.object.kept";

/// Looks at each token below `folder`: puts an empty `token.object` back, and copies a whole one aside. A token that has none,
/// or a folder that is not there, is the library's to judge.
///
/// # Errors
/// [`Class::Config`] where the folder cannot be read or written.
pub(super) fn keep(folder: &Path) -> Result<(), Fault> {
    let unusable = |e: io::Error| {
        Fault::new(Class::Config, format!("`sync_dir` {} cannot be used: {e}", folder.display()))
            .hint("it is the folder of the software token's files, which the service's user owns")
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(unusable(e)),
    };
    for entry in entries {
        keep_one(&entry.map_err(unusable)?.path()).map_err(unusable)?;
    }
    Ok(())
}

fn keep_one(token: &Path) -> io::Result<()> {
    let (original, copy) = (token.join(ORIGINAL), token.join(COPY));
    let length = |path: &Path| fs::metadata(path).map_or(0, |seen| seen.len());
    match (original.exists(), length(&original), length(&copy)) {
        (false, ..) | (true, 0, 0) => Ok(()),
        (true, 0, _) => replace(&copy, &original),
        // The first login sets flags in it; what is kept is any whole state, so a copy is renewed each time.
        (true, ..) => replace(&original, &copy),
    }
}

/// Puts the content of `from` in the place of `to`, whole or not at all.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    let new = to.with_extension("new");
    fs::copy(from, &new)?;
    fs::File::open(&new)?.sync_all()?;
    fs::rename(&new, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emptied_token_comes_back_and_a_whole_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        let original = token.join(ORIGINAL);
        keep(&folder.path().join("nowhere")).unwrap();
        fs::create_dir(&token).unwrap();
        keep(folder.path()).unwrap();
        fs::write(&original, b"").unwrap();
        keep(folder.path()).unwrap();
        assert_eq!(fs::read(&original).unwrap(), b"", "there was nothing to put back");
        for state in [b"first".as_slice(), b"second"] {
            fs::write(&original, state).unwrap();
            keep(folder.path()).unwrap();
            fs::write(&original, b"").unwrap();
            keep(folder.path()).unwrap();
            assert_eq!(fs::read(&original).unwrap(), state);
        }
    }
}
