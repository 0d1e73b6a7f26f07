//! `signet cert`: certificates.

mod issue;
mod key;
mod many;
mod revoke;
mod show;

use super::noun;
pub(super) use revoke::{REASONS, SUPERSEDED};
pub(super) use show::moment;

noun! {
    /// Issue, find, renew and revoke certificates.
    Cert: Verb {
        Issue(issue::Issue),
        IssueMany(many::IssueMany),
        List(show::List),
        Show(show::Show),
        Due(show::Due),
        Renew(issue::Renew),
        Revoke(revoke::Revoke),
    }
}

/// A serial number as other programs print it, in ours: `7F:3A…` and `7F3A…` are `7f3a…`.
fn serial(text: &str) -> Result<String, std::convert::Infallible> {
    Ok(text.replace(':', "").to_ascii_lowercase())
}
