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
    Mac VerifyMac ReadPublicKey CreateToken ReadToken RevokeToken WriteIdentity ReadIdentity DeleteIdentity WritePolicy
    ReadPolicy DeletePolicy ReadAudit ReadStatus ReadMetrics Backup WhoAmI Start
}

impl Includes<Wrap> for Rewrap {}
impl Includes<Unwrap> for Rewrap {}
impl Includes<Wrap> for GenerateDataKey {}
impl Includes<Unwrap> for UnwrapCompromised {}
