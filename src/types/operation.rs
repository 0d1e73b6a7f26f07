//! One type per operation, so that a permit for one cannot be spent on another.

use super::Action;

/// An operation as a type.
pub trait Operation: Send + Sync + 'static {
    /// Its action.
    const ACTION: Action;
}

/// A composite operation that may do what `Part` may, on the same resource. The impls below are the whole table.
pub trait Includes<Part: Operation>: Operation {}

/// Every operation includes itself.
impl<O: Operation> Includes<O> for O {}

macro_rules! operations {
    ($($name:ident)*) => {$(
        #[doc = concat!("[`Action::", stringify!($name), "`].")]
        #[derive(Debug)]
        pub enum $name {}

        impl Operation for $name {
            const ACTION: Action = Action::$name;
        }
    )*};
}

operations! {
    CreateKey ReadKey ListKeys UpdateKey RotateKey ActivateVersion SuspendVersion ResumeVersion DeactivateVersion CompromiseVersion
    ScheduleDestruction CancelDestruction DestroyVersion Wrap Unwrap UnwrapCompromised Rewrap GenerateDataKey Sign Verify
    Mac VerifyMac ReadPublicKey CreateIssuer ReadIssuer ListIssuers UpdateIssuer RotateIssuer ImportIssuerCertificate
    SignIntermediate SignStatus WriteProfile ReadProfile DeleteProfile IssueCertificate ReadCertificate ReadRenewal ListCertificates
    RevokeCertificate WriteAnnouncement ReadAnnouncement DeleteAnnouncement WriteAcmeEndpoint ReadAcmeEndpoint DeleteAcmeEndpoint
    CreateEabKey ReadEabKey RevokeEabKey UseAcme CreateToken ReadToken RevokeToken WriteIdentity ReadIdentity DeleteIdentity WritePolicy
    ReadPolicy DeletePolicy ReadAudit PruneAudit ReadStatus ReadMetrics Backup WhoAmI Start
}

/// What the service builds and an issuer's key signs, by who may still or already sign it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// A certificate for somebody else: by an active version.
    Certificate,
    /// A certificate or a request of the issuer's own key: also by a version that is only prepared.
    Own,
    /// What tells of revocation: also by a version that was superseded.
    Status,
}

/// An operation that has a structure of ours signed by an issuer's key. The impls below are the whole table.
pub trait Builds: Operation {
    /// Which.
    const STRUCTURE: Structure;
}

impl Builds for CreateIssuer {
    const STRUCTURE: Structure = Structure::Own;
}
impl Builds for RotateIssuer {
    const STRUCTURE: Structure = Structure::Own;
}
impl Builds for SignIntermediate {
    const STRUCTURE: Structure = Structure::Certificate;
}
impl Builds for IssueCertificate {
    const STRUCTURE: Structure = Structure::Certificate;
}
impl Builds for SignStatus {
    const STRUCTURE: Structure = Structure::Status;
}

// An issuer's key has the issuer's name and is made and changed with it.
impl Includes<CreateKey> for CreateIssuer {}
impl Includes<RotateKey> for RotateIssuer {}
// So is the key of its OCSP responders.
impl Includes<CreateKey> for SignStatus {}
impl Includes<Wrap> for Rewrap {}
impl Includes<Unwrap> for Rewrap {}
impl Includes<Wrap> for GenerateDataKey {}
impl Includes<Unwrap> for UnwrapCompromised {}
