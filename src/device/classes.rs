//! The one table of error classes: what each means, who tries again, what it does to the breaker of its device, and what `signet doctor
//! --code` says. `docs/devices.md` shows it, and a test here holds the two together.

use super::Class;

/// What a failure of a class does to the breaker of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it is about the call or about one key.
    Nothing,
    /// It counts: the worker is replaced, and often enough it opens the breaker.
    Counts,
    /// It opens the breaker where a worker does not start for it; one that works goes on.
    AtStart,
    /// It opens the breaker, and ends the worker.
    Opens,
}

impl Effect {
    /// As the table of the documents says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "-",
            Self::Counts => "counts",
            Self::AtStart => "opens it at a start",
            Self::Opens => "opens it",
        }
    }
}

/// What is known of a class.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it means.
    pub meaning: &'static str,
    /// Who does it again, and when.
    pub again: &'static str,
    /// What it does to the breaker.
    pub breaker: Effect,
    /// What the operator does.
    pub mend: &'static str,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Retry,
        Self::Ambiguous,
        Self::DeviceGone,
        Self::KeyGone,
        Self::KeyDamaged,
        Self::PcrsChanged,
        Self::PinRefused,
        Self::PinLocked,
        Self::Full,
        Self::Unsupported,
        Self::Refused,
        Self::Busy,
        Self::Expired,
        Self::WorkerLost,
        Self::Config,
        Self::Internal,
    ];

    /// Its row of the table.
    #[must_use]
    pub const fn row(self) -> Row {
        match self {
            Self::Retry => row(
                "nothing happened",
                "the service, three times at most and within the deadline",
                Effect::Nothing,
                "nothing; where it stays, look into the device's own log",
            ),
            Self::Ambiguous => row(
                "it may have happened",
                "nobody: the service looks first what did",
                Effect::Nothing,
                "nothing: what was begun is finished or removed by the scheduler",
            ),
            Self::DeviceGone => row(
                "the device, or the token in it, is not there, or is another one",
                "the client, after `Retry-After`; the service looks for it by itself",
                Effect::Opens,
                "put the enrolled token back, or check the link to the HSM",
            ),
            Self::KeyGone => row(
                "the device is there, the key is not; said only after the sentinel proved itself",
                "nobody, and no key is made in its place",
                Effect::Nothing,
                "compare the token with its backup: docs/recovery.md",
            ),
            Self::KeyDamaged => row(
                "the key is not as it was made, or gives wrong results",
                "nobody, and nothing is released",
                Effect::Nothing,
                "compare the token with its backup, and rotate the key",
            ),
            Self::PcrsChanged => row(
                "the machine's PCRs are not what the key was bound to",
                "nobody, before the machine is as it was",
                Effect::Nothing,
                "start the machine as it was when the version was made, or rotate the key: the new version is bound to what stands there now",
            ),
            Self::PinRefused => row(
                "the PIN is wrong, or the token says that a wrong one was entered",
                "nobody, before another PIN is in place or a person asks for it (SIGHUP)",
                Effect::AtStart,
                "put the right PIN in place; where somebody entered a wrong one, log in once with the maker's tool",
            ),
            Self::PinLocked => row(
                "the PIN is locked, or the TPM is in lockout",
                "nobody, before a person asks for it (SIGHUP)",
                Effect::AtStart,
                "unlock it with the security officer's PIN, or end the lockout of the TPM",
            ),
            Self::Full => row(
                "there is no room for another key",
                "the client, once there is",
                Effect::Nothing,
                "destroy what is no longer needed, or use a larger token or wrapped keys",
            ),
            Self::Unsupported => row(
                "the device cannot do this",
                "nobody",
                Effect::Nothing,
                "take what `signet status --abilities` shows, or another device",
            ),
            Self::Refused => row("the device refuses this input", "nobody", Effect::Nothing, "look at the request"),
            Self::Busy => row(
                "the queue is full, or a search would wait for a key that is being made",
                "the client, after `Retry-After`",
                Effect::Nothing,
                "add threads or devices; make resident RSA keys in a quiet hour",
            ),
            Self::Expired => row(
                "the deadline passed before the device was asked",
                "the client, after `Retry-After`",
                Effect::Nothing,
                "as for `Busy`",
            ),
            Self::WorkerLost => row(
                "the worker process died or hung with this call in flight",
                "the service on the next worker, where it may be done twice; a change is `Ambiguous`",
                Effect::Counts,
                "nothing; where it stays, the maker's library is at fault: see its log and its version",
            ),
            Self::Config => row(
                "the configuration is wrong: no such module, no such token, no PIN",
                "nobody; a running service takes it for a device that is gone",
                Effect::AtStart,
                "correct the stanza of the device",
            ),
            Self::Internal => row(
                "a defect of ours or of the library",
                "nobody",
                Effect::Nothing,
                "report it, with the line of the log",
            ),
        }
    }
}

const fn row(meaning: &'static str, again: &'static str, breaker: Effect, mend: &'static str) -> Row {
    Row { meaning, again, breaker, mend }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_show_this_very_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/devices.md");
        let text = std::fs::read_to_string(path).unwrap();
        let rows = Class::ALL.map(|class| {
            let Row { meaning, again, breaker, mend } = class.row();
            format!("| `{class:?}` | {meaning} | {again} | {} | {mend} |\n", breaker.as_str())
        });
        let table = rows.concat();
        assert!(text.contains(&table), "docs/devices.md must have this table:\n{table}");
    }
}
