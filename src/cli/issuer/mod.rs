//! `signet issuer`: authorities that issue certificates.

mod change;
mod create;
mod show;
mod version;

use super::noun;

noun! {
    /// Make, show, renew and change authorities.
    Issuer: Verb {
        Create(create::Create),
        List(show::List),
        Show(show::Show),
        Bundle(show::Bundle),
        Request(show::Request),
        Import(version::Import),
        Update(change::Update),
        Rotate(version::Rotate),
        Activate(version::Activate),
        CrossSign(version::CrossSign),
        Revoke(change::Revoke),
    }
}
