//! Where the PIN comes from. It is read when it is needed, handed to the library once, and zeroed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use crate::device::{Class, Fault, PinSource};
use crate::types::read_own;

/// No PIN is longer; a file that is, is something else.
const ROOM: usize = 1024;

/// How long it is waited for another process's login with the same PIN, and how often it is looked.
const TURN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(5);

/// The right to log in with that PIN, until it is dropped: services that share a PIN file log in one after the other, and the next one
/// reads in the token what became of the try before. `None` where the PIN stands in no file.
pub(super) fn turn(source: &PinSource) -> Result<Option<File>, Fault> {
    let path = match source {
        PinSource::File(path) => path.clone(),
        PinSource::Credential(name) => credential(name)?,
        PinSource::Environment(_) => return Ok(None),
    };
    // What cannot be read is refused where it is read.
    let Ok(file) = File::open(path) else { return Ok(None) };
    let until = Instant::now() + TURN;
    while rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > until {
            return Err(Fault::new(Class::Retry, "another process is about to log in with this PIN, and does not end"));
        }
        std::thread::park_timeout(LOOK);
    }
    Ok(Some(file))
}

/// Reads the PIN. No error holds any of it.
pub(super) fn read(source: &PinSource) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let pin = match source {
        PinSource::File(path) => from_file(path)?,
        PinSource::Credential(name) => from_file(&credential(name)?)?,
        PinSource::Environment(name) => from_environment(name)?,
    };
    if pin.is_empty() { Err(config("the PIN is empty".to_owned())) } else { Ok(pin) }
}

fn from_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let mut pin = read_own(path, "PIN file", ROOM).map_err(|error| {
        let fault = config(error.public().to_owned());
        match error.mend() {
            Some(mend) => fault.hint(mend.to_owned()),
            None => fault,
        }
    })?;
    if pin.last() == Some(&b'\n') {
        pin.pop();
    }
    Ok(pin)
}

fn credential(name: &str) -> Result<PathBuf, Fault> {
    let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
        config(format!("there is no credential {name}: $CREDENTIALS_DIRECTORY is not set"))
            .hint("give the unit a LoadCredential= or LoadCredentialEncrypted= line of that name")
    })?;
    Ok(PathBuf::from(folder).join(name))
}

fn from_environment(name: &str) -> Result<Zeroizing<Vec<u8>>, Fault> {
    use std::os::unix::ffi::OsStringExt;
    let value = std::env::var_os(name).ok_or_else(|| config(format!("the environment has no variable {name}")))?;
    Ok(Zeroizing::new(value.into_vec()))
}

fn config(text: String) -> Fault {
    Fault::new(Class::Config, text)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_mend() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        fs::write(&path, "12 34\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let fault = read(&PinSource::File(path.clone())).unwrap_err();
        assert_eq!(fault.class, Class::Config);
        assert_eq!(fault.hint.unwrap(), format!("chmod 600 {}", path.display()));
        assert!(!fault.text.contains("12"));
    }

    #[test]
    fn one_line_feed_is_not_part_of_the_pin() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        fs::write(&path, "12 34\n\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert_eq!(read(&PinSource::File(path)).unwrap().as_slice(), b"12 34\n");
    }

    #[test]
    fn what_is_not_there_is_a_matter_of_configuration() {
        let missing = PinSource::File("/nonexistent/pin".into());
        assert_eq!(read(&missing).unwrap_err().class, Class::Config);
        let unset = PinSource::Environment("SIGNET_TEST_NO_SUCH_PIN".to_owned());
        assert_eq!(read(&unset).unwrap_err().class, Class::Config);
    }
}
