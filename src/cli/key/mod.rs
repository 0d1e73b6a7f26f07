//! `signet key`: keys and their versions.

mod attest;
mod change;
mod create;
mod show;
mod version;

use super::noun;
pub(super) use change::version;

noun! {
    /// Make, show, change and destroy keys.
    Key: Verb {
        Create(create::Create),
        List(show::List),
        Show(show::Show),
        Update(change::Update),
        Rotate(change::Rotate),
        Versions(version::Versions),
        Activate(version::Activate),
        Suspend(version::Suspend),
        Resume(version::Resume),
        Deactivate(version::Deactivate),
        Compromise(version::Compromise),
        Destroy(version::Destroy),
        Restore(version::Restore),
        Delete(change::Delete),
        PublicKey(show::PublicKey),
        Attest(attest::Attest),
    }
}
